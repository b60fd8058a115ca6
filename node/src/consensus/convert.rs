//! Between openraft's types and ours: what is written to disk or wire is always ours, with a version.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use openraft::alias::{CommittedLeaderIdOf, LogIdOf, PayloadOf, VoteOf};
use openraft::impls::leader_id_std;
use openraft::vote::RaftLeaderId;
use openraft::{EntryPayload, Membership};
use serde::{Deserialize, Serialize};

use super::types::{Member, Proposal, Types};
use crate::platform::Platform;
use crate::storage::{LogId, Vote};

/// The first byte of every payload on disk and wire. A node that meets another stops: it must not skip.
const PAYLOAD_VERSION: u8 = 1;

const KIND_BLANK: u8 = 0;
const KIND_PROPOSAL: u8 = 1;
const KIND_MEMBERSHIP: u8 = 2;

/// A membership as it is written.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct WireMembership {
    /// One set of voters, two while a change is under way.
    configs: Vec<BTreeSet<u64>>,
    nodes: BTreeMap<u64, Member>,
}

impl WireMembership {
    pub(crate) fn from_raft(membership: &Membership<u64, Member>) -> Self {
        Self {
            configs: membership.get_joint_config().clone(),
            nodes: membership.nodes().map(|(id, member)| (*id, member.clone())).collect(),
        }
    }

    pub(crate) fn into_raft(self) -> io::Result<Membership<u64, Member>> {
        Membership::new(self.configs, self.nodes).map_err(|error| invalid(format!("membership: {error}")))
    }
}

fn invalid(reason: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.into())
}

/// A log position for openraft.
#[must_use]
pub fn log_id_to_raft<P: Platform>(id: LogId) -> LogIdOf<Types<P>> {
    LogIdOf::<Types<P>>::new(CommittedLeaderIdOf::<Types<P>>::new(id.term), id.index)
}

/// A log position from openraft.
#[must_use]
pub fn log_id_from_raft<P: Platform>(id: &LogIdOf<Types<P>>) -> LogId {
    LogId { term: **id.committed_leader_id(), index: id.index() }
}

/// A vote for openraft.
#[must_use]
pub fn vote_to_raft<P: Platform>(vote: Vote) -> VoteOf<Types<P>> {
    let leader = leader_id_std::LeaderId { term: vote.term, voted_for: vote.node };
    openraft::impls::Vote { leader_id: leader, committed: vote.committed }
}

/// A vote from openraft.
#[must_use]
pub fn vote_from_raft<P: Platform>(vote: &VoteOf<Types<P>>) -> Vote {
    let leader = vote.leader_id();
    Vote { term: leader.term(), node: leader.voted_for, committed: vote.is_committed() }
}

/// An entry's payload as it is written: version, kind, body.
#[must_use]
pub fn encode_payload<P: Platform>(payload: &PayloadOf<Types<P>>) -> Bytes {
    match payload {
        EntryPayload::Blank => Bytes::from_static(&[PAYLOAD_VERSION, KIND_BLANK]),
        EntryPayload::Normal(Proposal(bytes)) => {
            let mut out = BytesMut::with_capacity(2 + bytes.len());
            out.put_u8(PAYLOAD_VERSION);
            out.put_u8(KIND_PROPOSAL);
            out.put_slice(bytes);
            out.freeze()
        }
        EntryPayload::Membership(membership) => {
            let body = postcard::to_stdvec(&WireMembership::from_raft(membership)).unwrap_or_default();
            let mut out = BytesMut::with_capacity(2 + body.len());
            out.put_u8(PAYLOAD_VERSION);
            out.put_u8(KIND_MEMBERSHIP);
            out.put_slice(&body);
            out.freeze()
        }
    }
}

/// The reverse of [`encode_payload`].
///
/// # Errors
/// When the version is not known to this build or the bytes are damaged; the node must not go on then.
pub fn decode_payload<P: Platform>(bytes: &Bytes) -> io::Result<PayloadOf<Types<P>>> {
    match bytes.get(..2) {
        Some([PAYLOAD_VERSION, KIND_BLANK]) if bytes.len() == 2 => Ok(EntryPayload::Blank),
        Some([PAYLOAD_VERSION, KIND_PROPOSAL]) => Ok(EntryPayload::Normal(Proposal(bytes.slice(2..)))),
        Some([PAYLOAD_VERSION, KIND_MEMBERSHIP]) => {
            let wire: WireMembership =
                postcard::from_bytes(&bytes[2..]).map_err(|error| invalid(format!("membership: {error}")))?;
            Ok(EntryPayload::Membership(wire.into_raft()?))
        }
        Some([version, kind]) => Err(invalid(format!(
            "a log entry of version {version}, kind {kind} is unknown to this build; run a newer version of the limiter"
        ))),
        _ => Err(invalid("a log entry too short to hold its version")),
    }
}
