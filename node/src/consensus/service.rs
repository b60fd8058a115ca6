//! Answers the frames of other nodes.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use openraft::alias::SnapshotOf;
use openraft::raft::{AppendEntriesResponse, TransferLeaderRequest, VoteRequest};
use quorate_limits::{Part, encode_outcomes};
use serde::Serialize;

use super::Consensus;
use super::autopilot::Autopilot;
use super::convert::{log_id_from_raft, log_id_to_raft, vote_from_raft, vote_to_raft};
use super::founding::Founding;
use super::machine::{FEATURE_LEVEL, image_meta};
use super::network::append_to_raft;
use super::types::Types;
use super::wire::{
    self, Answer, Append, AppendAnswer, Envelope, ForwardAnswer, Kind, PromiseAsk, Read, ReadAnswer, Refusal,
    SnapshotAnswer, SnapshotPiece, StatusAnswer, Transfer, VoteAnswer, VoteAsk,
};
use crate::admission::{LeaderQueue, TurnedAway};
use crate::platform::Platform;
use crate::storage::Room;
use crate::sync::lock;
use crate::transport::Service;

/// The largest snapshot a node takes in.
const SNAPSHOT_LEN_MAX: u64 = 4 << 30;

/// The receiving end of everything nodes say to each other.
pub struct PeerService<P: Platform> {
    consensus: Consensus<P>,
    queue: Arc<LeaderQueue<P>>,
    founding: Arc<Founding<P>>,
    room: Arc<Room>,
    autopilot: Arc<Autopilot<P>>,
    /// Snapshots on their way in, by sender.
    incoming: Mutex<BTreeMap<u64, Incoming>>,
}

struct Incoming {
    crc: u32,
    total: u64,
    bytes: BytesMut,
}

impl<P: Platform> Service for PeerService<P> {
    fn handle(self: Arc<Self>, frame: Bytes) -> BoxFuture<'static, Option<Bytes>> {
        Box::pin(async move {
            let (envelope, body) = Envelope::open(frame)?;
            let answer = self.answer(&envelope, body).await;
            Some(wire::encode_answer(self.consensus.link().run(), &answer))
        })
    }
}

fn malformed(_: io::Error) -> Refusal {
    Refusal::Malformed
}

#[allow(clippy::unnecessary_wraps, reason = "it closes functions that answer or refuse")]
fn reply<T: Serialize>(value: &T) -> Answer {
    Ok(wire::encode(value))
}

impl<P: Platform> PeerService<P> {
    /// A service in front of a node's parts.
    pub fn new(
        consensus: Consensus<P>,
        queue: Arc<LeaderQueue<P>>,
        founding: Arc<Founding<P>>,
        room: Arc<Room>,
        autopilot: Arc<Autopilot<P>>,
    ) -> Self {
        Self { consensus, queue, founding, room, autopilot, incoming: Mutex::default() }
    }

    async fn answer(&self, envelope: &Envelope, body: Bytes) -> Answer {
        let me = self.consensus.link().me();
        if envelope.to != me {
            return Err(Refusal::OtherNode(me));
        }
        match envelope.kind {
            Kind::Promise => {
                let ask: PromiseAsk = wire::decode(&body).map_err(malformed)?;
                return reply(&self.founding.promise(envelope.cluster, ask.members));
            }
            Kind::Welcome => return reply(&self.founding.welcome(envelope.cluster)),
            _ => {}
        }
        let mine = self.consensus.link().cluster();
        if mine != Some(envelope.cluster) {
            return Err(Refusal::OtherCluster(mine));
        }
        if let Some(why) = self.consensus.link().judge_sender(envelope.from, envelope.run) {
            return Err(Refusal::OlderDisk(why));
        }
        if self.consensus.state().is_removed(envelope.from) {
            return Err(Refusal::Removed);
        }
        match envelope.kind {
            Kind::Append => self.append(body).await,
            Kind::Vote | Kind::PreVote => self.vote(envelope.kind, body).await,
            Kind::Snapshot => self.snapshot(envelope.from, body).await,
            Kind::TransferLeader => self.transfer(body).await,
            Kind::Forward => self.forward(body).await,
            Kind::Read => self.read(body).await,
            Kind::Status => reply(&self.status()),
            Kind::OlderDisk => {
                self.consensus.link().hear(wire::decode(&body).map_err(malformed)?);
                reply(&())
            }
            Kind::Promise | Kind::Welcome => Err(Refusal::Malformed),
        }
    }

    async fn append(&self, body: Bytes) -> Answer {
        let append = append_to_raft::<P>(Append::decode(body).map_err(malformed)?).map_err(malformed)?;
        let response = self.consensus.raft().append_entries(append).await.map_err(|_| Refusal::NotRunning)?;
        reply(&match response {
            AppendEntriesResponse::Success => AppendAnswer::Success,
            AppendEntriesResponse::PartialSuccess(id) => AppendAnswer::Partial(id.as_ref().map(log_id_from_raft::<P>)),
            AppendEntriesResponse::Conflict => AppendAnswer::Conflict,
            AppendEntriesResponse::HigherVote(vote) => AppendAnswer::HigherVote(vote_from_raft::<P>(&vote)),
        })
    }

    async fn vote(&self, kind: Kind, body: Bytes) -> Answer {
        let ask: VoteAsk = wire::decode(&body).map_err(malformed)?;
        let mut request = VoteRequest::<Types<P>>::new(vote_to_raft::<P>(ask.vote), ask.last.map(log_id_to_raft::<P>));
        request.leadership_transfer = ask.transfer;
        let raft = self.consensus.raft();
        let response = if kind == Kind::Vote { raft.vote(request).await } else { raft.pre_vote(request).await };
        let response = response.map_err(|_| Refusal::NotRunning)?;
        reply(&VoteAnswer {
            vote: vote_from_raft::<P>(&response.vote),
            granted: response.vote_granted,
            last: response.last_log_id.as_ref().map(log_id_from_raft::<P>),
        })
    }

    /// Takes the pieces in; a piece out of order names the offset wanted instead.
    fn collect(&self, from: u64, piece: &SnapshotPiece) -> Result<Option<Bytes>, u64> {
        let mut incoming = lock(&self.incoming);
        if piece.offset == 0 {
            incoming.insert(from, Incoming { crc: piece.crc, total: piece.total, bytes: BytesMut::new() });
        }
        let Some(entry) = incoming.get_mut(&from) else { return Err(0) };
        if entry.crc != piece.crc || entry.total != piece.total || entry.bytes.len() as u64 != piece.offset {
            let wanted = if entry.crc == piece.crc { entry.bytes.len() as u64 } else { 0 };
            return Err(wanted);
        }
        if entry.bytes.len() as u64 + piece.bytes.len() as u64 > piece.total.min(SNAPSHOT_LEN_MAX) {
            incoming.remove(&from);
            return Err(0);
        }
        entry.bytes.extend_from_slice(&piece.bytes);
        if (entry.bytes.len() as u64) < piece.total {
            return Ok(None);
        }
        let whole = incoming.remove(&from).map(|entry| entry.bytes.freeze()).unwrap_or_default();
        if crc32fast::hash(&whole) == piece.crc { Ok(Some(whole)) } else { Err(0) }
    }

    async fn snapshot(&self, from: u64, body: Bytes) -> Answer {
        let piece: SnapshotPiece = wire::decode(&body).map_err(malformed)?;
        let image = match self.collect(from, &piece) {
            Err(wanted) => return reply(&SnapshotAnswer::Continue(wanted)),
            Ok(None) => return reply(&SnapshotAnswer::Continue(piece.offset + piece.bytes.len() as u64)),
            Ok(Some(image)) => image,
        };
        let meta = image_meta::<P>(&image).map_err(malformed)?;
        let snapshot = SnapshotOf::<Types<P>, Bytes> { meta, snapshot: image };
        let raft = self.consensus.raft();
        let response = raft.install_full_snapshot(vote_to_raft::<P>(piece.vote), snapshot).await;
        let response = response.map_err(|_| Refusal::NotRunning)?;
        reply(&SnapshotAnswer::Installed(vote_from_raft::<P>(&response.vote)))
    }

    async fn transfer(&self, body: Bytes) -> Answer {
        let transfer: Transfer = wire::decode(&body).map_err(malformed)?;
        let request = TransferLeaderRequest::<Types<P>>::new(
            vote_to_raft::<P>(transfer.from),
            transfer.to,
            transfer.last.map(log_id_to_raft::<P>),
        );
        let response = self.consensus.raft().handle_transfer_leader(request).await;
        reply(&response.map_err(|_| Refusal::NotRunning)?.is_ok())
    }

    async fn forward(&self, body: Bytes) -> Answer {
        let part: Part = wire::decode(&body).map_err(malformed)?;
        reply(&match self.queue.submit(part).await {
            Ok(outcome) => ForwardAnswer::Applied(encode_outcomes(&[outcome])),
            Err(TurnedAway::NotLeader(not_leader)) => ForwardAnswer::NotLeader(not_leader.leader),
            Err(TurnedAway::DiskFull) => ForwardAnswer::DiskFull,
        })
    }

    async fn read(&self, body: Bytes) -> Answer {
        let read: Read = wire::decode(&body).map_err(malformed)?;
        reply(&match self.consensus.read(&read.commands).await {
            Ok((outcomes, index)) => ReadAnswer::Outcomes(outcomes, index),
            Err(not_leader) => ReadAnswer::NotLeader(not_leader.leader),
        })
    }

    fn status(&self) -> StatusAnswer {
        use openraft::async_runtime::watch::WatchReceiver;
        let last = self.consensus.raft().metrics().borrow_watched().last_log_index.unwrap_or(0);
        StatusAnswer {
            last,
            revision: self.consensus.state().rules().revision(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            feature_level: FEATURE_LEVEL,
            short_of_room: self.room.is_short(),
            autopilot: self.autopilot.report(),
        }
    }
}
