//! How records stand in the log's files: the types that `raft-log` is used with.

use std::cmp::Ordering;
use std::io::{self, Read, Write};
use std::sync::mpsc::SyncSender;

use bytes::Bytes;
use raft_log::codeq::{Decode, Encode};

use super::{LogId, Vote};

/// The longest payload stored, in bytes: far above the largest batch, and a bound for what a damaged length may claim.
pub(super) const PAYLOAD_BYTES_MAX: usize = 16 << 20;

/// The types of our log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Kinds;

impl raft_log::Types for Kinds {
    type LogId = LogId;
    type LogPayload = Payload;
    type Vote = StoredVote;
    type Callback = SyncSender<io::Result<()>>;
    type UserData = Owner;

    fn log_index(log_id: &LogId) -> u64 {
        log_id.index
    }

    fn payload_size(payload: &Payload) -> u64 {
        payload.0.len() as u64
    }
}

/// Whose log it is, and which start of its disk used it last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    /// The node's Raft id.
    pub node: u64,
    /// The disk's starts so far.
    pub boot: u64,
}

/// A record's payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Payload(pub(super) Bytes);

/// A vote with the order in which one may replace another: `raft-log` refuses a step back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StoredVote(pub(super) Vote);

impl PartialOrd for StoredVote {
    /// Within a term a granted vote, whoever it is for, follows one that was only cast, and a node casts one vote. So
    /// the node voted for does not order votes.
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some((self.0.term, self.0.committed).cmp(&(other.0.term, other.0.committed)))
    }
}

impl Encode for LogId {
    fn encode<W: Write>(&self, mut w: W) -> io::Result<usize> {
        Ok(self.term.encode(&mut w)? + self.index.encode(&mut w)?)
    }
}

impl Decode for LogId {
    fn decode<R: Read>(mut r: R) -> io::Result<Self> {
        Ok(Self { term: u64::decode(&mut r)?, index: u64::decode(&mut r)? })
    }
}

impl Encode for Owner {
    fn encode<W: Write>(&self, mut w: W) -> io::Result<usize> {
        Ok(self.node.encode(&mut w)? + self.boot.encode(&mut w)?)
    }
}

impl Decode for Owner {
    fn decode<R: Read>(mut r: R) -> io::Result<Self> {
        Ok(Self { node: u64::decode(&mut r)?, boot: u64::decode(&mut r)? })
    }
}

impl Encode for StoredVote {
    fn encode<W: Write>(&self, mut w: W) -> io::Result<usize> {
        let Self(vote) = self;
        Ok(vote.term.encode(&mut w)? + vote.node.encode(&mut w)? + u8::from(vote.committed).encode(&mut w)?)
    }
}

impl Decode for StoredVote {
    fn decode<R: Read>(mut r: R) -> io::Result<Self> {
        let (term, node) = (u64::decode(&mut r)?, u64::decode(&mut r)?);
        let committed = match u8::decode(&mut r)? {
            0 => false,
            1 => true,
            other => return Err(invalid(format!("a vote's flag is {other}"))),
        };
        Ok(Self(Vote { term, node, committed }))
    }
}

impl Encode for Payload {
    fn encode<W: Write>(&self, mut w: W) -> io::Result<usize> {
        let length = u32::try_from(self.0.len()).map_err(|_| invalid("a payload's length".to_owned()))?;
        let prefix = length.encode(&mut w)?;
        w.write_all(&self.0)?;
        Ok(prefix + self.0.len())
    }
}

impl Decode for Payload {
    fn decode<R: Read>(mut r: R) -> io::Result<Self> {
        let length = u32::decode(&mut r)? as usize;
        if length > PAYLOAD_BYTES_MAX {
            return Err(invalid(format!("a payload's length is {length}")));
        }
        // Grown as it is read: a damaged length must not reserve what the file cannot hold.
        let mut bytes = Vec::new();
        if r.by_ref().take(length as u64).read_to_end(&mut bytes)? < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Self(bytes.into()))
    }
}

fn invalid(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}
