//! Answers the frames of other nodes.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use openraft::alias::SnapshotOf;
use openraft::raft::{AppendEntriesResponse, TransferLeaderRequest, VoteRequest};
use quorate_limits::{Part, encode_outcomes};
use serde::Serialize;

use super::Consensus;
use super::autopilot::Autopilot;
use super::convert::{log_id_from_raft, log_id_to_raft, vote_from_raft, vote_to_raft};
use super::founding::Founding;
use super::image::Head;
use super::machine::FEATURE_LEVEL;
use super::network::append_to_raft;
use super::receiver::Received;
use super::types::Types;
use super::wire::{
    self, Answer, Append, AppendAnswer, Envelope, ForwardAnswer, Kind, PromiseAsk, Read, ReadAnswer, Refusal,
    SnapshotAnswer, SnapshotPiece, StatusAnswer, Transfer, VoteAnswer, VoteAsk,
};
use crate::admission::{LeaderQueue, TurnedAway};
use crate::platform::Platform;
use crate::storage::{Image, Room, is_full};
use crate::transport::Service;

/// The receiving end of everything nodes say to each other.
pub struct PeerService<P: Platform> {
    consensus: Consensus<P>,
    queue: Arc<LeaderQueue<P>>,
    founding: Arc<Founding<P>>,
    room: Arc<Room>,
    autopilot: Arc<Autopilot<P>>,
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
        Self { consensus, queue, founding, room, autopilot }
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

    async fn snapshot(&self, from: u64, body: Bytes) -> Answer {
        let piece: SnapshotPiece = wire::decode(&body).map_err(malformed)?;
        let vote = piece.vote;
        let refuse = |error: io::Error| {
            if is_full(&error) {
                return Refusal::DiskFull;
            }
            tracing::error!("cannot take a snapshot in from node {from:016x}: {error}");
            Refusal::NotRunning
        };
        let image = match self.consensus.receiver().take(from, piece).await.map_err(refuse)? {
            Received::Wanted(offset) => return reply(&SnapshotAnswer::Continue(offset)),
            Received::Outvoted(by) => return reply(&SnapshotAnswer::Installed(by)),
            Received::Whole(image) => image,
        };
        let (head, _) = Head::read(&image).await.map_err(malformed)?;
        let meta = head.meta::<P>().map_err(malformed)?;
        let snapshot = SnapshotOf::<Types<P>, Arc<dyn Image>> { meta, snapshot: image };
        let raft = self.consensus.raft();
        let response = raft.install_full_snapshot(vote_to_raft::<P>(vote), snapshot).await;
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
