//! openraft's network over our transport: it turns requests into frames and answers back.

use std::future::Future;
use std::io;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::OptionalSend;
use openraft::alias::{EntryOf, SnapshotOf, VoteOf};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderError, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};

use super::acknowledged::Acknowledged;
use super::convert::{decode_payload, encode_payload, log_id_from_raft, log_id_to_raft, vote_from_raft, vote_to_raft};
use super::image::{piece_length, verify};
use super::link::{CallError, Link};
use super::older_disk::OlderDisk;
use super::types::{Member, Types};
use super::wire::{self, Append, AppendAnswer, Kind, SnapshotAnswer, SnapshotPiece, Transfer, VoteAnswer, VoteAsk};
use crate::platform::Platform;
use crate::storage::{Image, Record};
use crate::transport::Lane;

/// How long an append may take at least: openraft allows one heartbeat, which a busy disk can need for one fsync, and
/// giving up would only send the same records again.
const APPEND_TIMEOUT: Duration = Duration::from_millis(300);
/// How long one piece may take. A lost answer holds the follower up for as long.
const SNAPSHOT_PIECE_TIMEOUT: Duration = Duration::from_secs(2);
/// The last piece is answered when the whole is installed; another second for each of so many bytes.
const SNAPSHOT_INSTALLED_PER_SECOND: u64 = 32 << 20;

/// Makes openraft's connections.
pub struct Network<P: Platform> {
    link: Arc<Link<P>>,
    acknowledged: Arc<Acknowledged>,
    piece_bytes: usize,
}

impl<P: Platform> Network<P> {
    /// A network over `link`. Snapshots travel in frames of `piece_bytes`.
    pub fn new(link: Arc<Link<P>>, piece_bytes: usize) -> Self {
        Self { link, acknowledged: Arc::default(), piece_bytes }
    }
}

/// openraft's connection to one node.
pub struct Connection<P: Platform> {
    link: Arc<Link<P>>,
    target: u64,
    lane: Lane,
    acknowledged: Arc<Acknowledged>,
    piece_bytes: usize,
    platform: PhantomData<P>,
}

impl<P: Platform> Network<P> {
    fn connection(&self, target: u64, lane: Lane) -> Connection<P> {
        let (acknowledged, piece_bytes) = (Arc::clone(&self.acknowledged), self.piece_bytes);
        Connection { link: Arc::clone(&self.link), target, lane, acknowledged, piece_bytes, platform: PhantomData }
    }
}

impl<P: Platform> RaftNetworkFactory<Types<P>> for Network<P> {
    type Network = Connection<P>;

    async fn new_client(&mut self, target: u64, node: &Member) -> Connection<P> {
        self.link.learn(target, node);
        self.connection(target, Lane::Log)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &Member) -> Connection<P> {
        self.link.learn(target, node);
        self.connection(target, Lane::Control)
    }

    async fn new_snapshot_client(&mut self, target: u64, node: &Member) -> Connection<P> {
        self.link.learn(target, node);
        self.connection(target, Lane::Snapshot)
    }
}

impl<P: Platform> From<CallError> for RPCError<Types<P>> {
    fn from(error: CallError) -> Self {
        match error {
            // A slow answer is tried again at once; whoever cannot be reached or refuses is left alone for a while.
            CallError::Timeout => Self::Network(NetworkError::from_string(error)),
            _ => Self::Unreachable(Unreachable::from_string(error)),
        }
    }
}

fn unreadable<P: Platform>(error: &io::Error) -> RPCError<Types<P>> {
    RPCError::Unreachable(Unreachable::new(error))
}

impl<P: Platform> Connection<P> {
    async fn call(&self, kind: Kind, lane: Lane, body: Bytes, limit: Duration) -> Result<Bytes, RPCError<Types<P>>> {
        Ok(self.link.call(self.target, kind, lane, &body, limit).await?)
    }

    /// Takes note of what the follower acknowledges. `before` is what it had acknowledged when the append was sent.
    ///
    /// # Errors
    /// It lacks what it acknowledged before: openraft must not see that answer.
    fn watch(&self, append: &Append, answer: &AppendAnswer, before: Option<u64>) -> Result<(), RPCError<Types<P>>> {
        let prev = append.prev.map(|id| id.index);
        let has = match answer {
            AppendAnswer::Success => append.records.last().map(|record| record.id.index).or(prev),
            AppendAnswer::Partial(id) => id.map(|id| id.index),
            AppendAnswer::Conflict | AppendAnswer::HigherVote(_) => None,
        };
        if let Some(index) = has {
            self.acknowledged.note(self.target, append.vote, index);
        }
        match (answer, prev, before) {
            (AppendAnswer::Conflict, Some(lacks), Some(acknowledged)) if lacks <= acknowledged => {
                Err(self.link.convict(self.target, OlderDisk::Log { acknowledged, lacks }).into())
            }
            _ => Ok(()),
        }
    }

    async fn ask_vote(
        &self,
        kind: Kind,
        rpc: VoteRequest<Types<P>>,
        option: &RPCOption,
    ) -> Result<VoteResponse<Types<P>>, RPCError<Types<P>>> {
        let ask = VoteAsk {
            vote: vote_from_raft::<P>(&rpc.vote),
            last: rpc.last_log_id.as_ref().map(log_id_from_raft::<P>),
            transfer: rpc.leadership_transfer,
        };
        let body = self.call(kind, Lane::Control, wire::encode(&ask), option.hard_ttl()).await?;
        let answer: VoteAnswer = wire::decode(&body).map_err(|error| unreadable(&error))?;
        Ok(VoteResponse {
            vote: vote_to_raft::<P>(answer.vote),
            vote_granted: answer.granted,
            last_log_id: answer.last.map(log_id_to_raft::<P>),
        })
    }

    async fn send_snapshot(
        &self,
        vote: &VoteOf<Types<P>>,
        image: &Arc<dyn Image>,
    ) -> Result<VoteOf<Types<P>>, RPCError<Types<P>>> {
        verify(image, self.piece_bytes).await.map_err(|error| unreadable(&error))?;
        let (total, crc) = (image.length(), image.checksum());
        let mut offset = 0;
        loop {
            let bytes = Arc::clone(image).read(offset, piece_length(image, offset, self.piece_bytes)).await;
            let bytes = bytes.map_err(|error| unreadable(&error))?.into();
            let piece = SnapshotPiece { vote: vote_from_raft::<P>(vote), total, crc, offset, bytes };
            let installing = Duration::from_secs((offset + piece.bytes.len() as u64) / SNAPSHOT_INSTALLED_PER_SECOND);
            let limit = SNAPSHOT_PIECE_TIMEOUT + installing;
            let body = self.call(Kind::Snapshot, Lane::Snapshot, wire::encode(&piece), limit).await?;
            match wire::decode(&body).map_err(|error| unreadable(&error))? {
                SnapshotAnswer::Installed(vote) => return Ok(vote_to_raft::<P>(vote)),
                SnapshotAnswer::Continue(at) => offset = at.min(total),
            }
        }
    }
}

impl<P: Platform> RaftNetworkV2<Types<P>> for Connection<P> {
    type SnapshotData = Arc<dyn Image>;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types<P>>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types<P>>, RPCError<Types<P>>> {
        let append = append_from_raft::<P>(&rpc);
        let limit = option.hard_ttl().max(APPEND_TIMEOUT);
        let before = self.acknowledged.so_far(self.target, append.vote);
        let body = self.call(Kind::Append, self.lane, append.encode(), limit).await?;
        let answer: AppendAnswer = wire::decode(&body).map_err(|error| unreadable(&error))?;
        self.watch(&append, &answer, before)?;
        Ok(match answer {
            AppendAnswer::Success => AppendEntriesResponse::Success,
            AppendAnswer::Partial(id) => AppendEntriesResponse::PartialSuccess(id.map(log_id_to_raft::<P>)),
            AppendAnswer::Conflict => AppendEntriesResponse::Conflict,
            AppendAnswer::HigherVote(vote) => AppendEntriesResponse::HigherVote(vote_to_raft::<P>(vote)),
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types<P>>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types<P>>, RPCError<Types<P>>> {
        self.ask_vote(Kind::Vote, rpc, &option).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types<P>>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types<P>>, RPCError<Types<P>>> {
        self.ask_vote(Kind::PreVote, rpc, &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: VoteOf<Types<P>>,
        snapshot: SnapshotOf<Types<P>, Arc<dyn Image>>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types<P>>, StreamingError<Types<P>>> {
        use openraft_rt::{AsyncRuntime, Select2};
        match P::Rt::select2(Box::pin(cancel), Box::pin(self.send_snapshot(&vote, &snapshot.snapshot))).await {
            Select2::First(closed) => Err(closed.into()),
            Select2::Second(vote) => Ok(SnapshotResponse::new(vote?)),
        }
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<Types<P>>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types<P>>, RPCError<Types<P>>> {
        let transfer = Transfer {
            from: vote_from_raft::<P>(req.from_leader()),
            to: *req.to_node_id(),
            last: req.last_log_id().map(log_id_from_raft::<P>),
        };
        let body = self.call(Kind::TransferLeader, Lane::Control, wire::encode(&transfer), option.hard_ttl()).await?;
        let accepted: bool = wire::decode(&body).map_err(|error| unreadable(&error))?;
        Ok(if accepted {
            Ok(())
        } else {
            Err(TransferLeaderError::LogNotFlushed { expected: req.last_log_id().copied(), actual: None })
        })
    }

    fn backoff(&self) -> Option<Backoff> {
        // A node that is back should be heard within a heartbeat or two.
        Some(Backoff::new(std::iter::repeat(Duration::from_millis(100))))
    }
}

fn append_from_raft<P: Platform>(rpc: &AppendEntriesRequest<Types<P>>) -> Append {
    let record = |entry: &EntryOf<Types<P>>| Record {
        id: log_id_from_raft::<P>(&entry.log_id),
        payload: encode_payload::<P>(&entry.payload),
    };
    Append {
        vote: vote_from_raft::<P>(&rpc.vote),
        prev: rpc.prev_log_id.as_ref().map(log_id_from_raft::<P>),
        commit: rpc.leader_commit.as_ref().map(log_id_from_raft::<P>),
        records: rpc.entries.iter().map(record).collect(),
    }
}

/// openraft's request from a frame.
///
/// # Errors
/// When a record is of an unknown version or damaged.
pub fn append_to_raft<P: Platform>(append: Append) -> io::Result<AppendEntriesRequest<Types<P>>> {
    let entry = |record: Record| {
        Ok(openraft::Entry { log_id: log_id_to_raft::<P>(record.id), payload: decode_payload::<P>(&record.payload)? })
    };
    Ok(AppendEntriesRequest {
        vote: vote_to_raft::<P>(append.vote),
        prev_log_id: append.prev.map(log_id_to_raft::<P>),
        leader_commit: append.commit.map(log_id_to_raft::<P>),
        entries: append.records.into_iter().map(entry).collect::<io::Result<_>>()?,
    })
}
