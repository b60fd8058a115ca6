//! What nodes say to each other, byte by byte.
//!
//! A frame is an envelope (version, kind, cluster, sender and its run, target) and a body; an answer is a status byte, the
//! run of who answers, and a body. Every frame names the cluster and the node it is meant for, so one that went astray does
//! no harm; and every one names the process it comes from, so one of a process on an older disk is not counted.

use std::collections::BTreeMap;
use std::io;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use quorate_limits::{Command, Outcome, Run};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::autopilot::Report;
use super::older_disk::OlderDisk;
use crate::storage::{ClusterId, LogId, Record, Vote};

/// The version of frames. A node refuses any other.
const FRAME_VERSION: u8 = 1;
const ENVELOPE_LEN: usize = 2 + 5 * 8;
/// A status and a run.
const ANSWER_HEAD_LEN: usize = 1 + 2 * 8;

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Raft's append.
    Append = 1,
    /// Raft's vote.
    Vote = 2,
    /// Raft's pre-vote.
    PreVote = 3,
    /// A piece of a snapshot.
    Snapshot = 4,
    /// Raft's hand-over of leadership.
    TransferLeader = 5,
    /// A part on its way to the leader.
    Forward = 6,
    /// Reads on their way to the leader.
    Read = 7,
    /// A request to promise to found a cluster.
    Promise = 8,
    /// An invitation of an empty node into a cluster.
    Welcome = 9,
    /// A question how far a node is.
    Status = 10,
    /// Word to a node that its disk is an older copy.
    OlderDisk = 11,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Append,
            2 => Self::Vote,
            3 => Self::PreVote,
            4 => Self::Snapshot,
            5 => Self::TransferLeader,
            6 => Self::Forward,
            7 => Self::Read,
            8 => Self::Promise,
            9 => Self::Welcome,
            10 => Self::Status,
            11 => Self::OlderDisk,
            _ => return None,
        })
    }
}

/// The envelope of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// What it is for.
    pub kind: Kind,
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// The Raft id of the sender; 0 for nobody.
    pub from: u64,
    /// The run of the sender.
    pub run: Run,
    /// The Raft id it is meant for.
    pub to: u64,
}

impl Envelope {
    /// The frame with `body` in this envelope.
    #[must_use]
    pub fn seal(&self, body: &[u8]) -> Bytes {
        let mut out = BytesMut::with_capacity(ENVELOPE_LEN + body.len());
        out.put_u8(FRAME_VERSION);
        out.put_u8(self.kind as u8);
        out.put_u64_le(self.cluster.0);
        out.put_u64_le(self.from);
        put_run(&mut out, self.run);
        out.put_u64_le(self.to);
        out.put_slice(body);
        out.freeze()
    }

    /// Envelope and body of a frame; `None` when it is none of ours.
    #[must_use]
    pub fn open(mut frame: Bytes) -> Option<(Self, Bytes)> {
        if frame.len() < ENVELOPE_LEN || frame.get_u8() != FRAME_VERSION {
            return None;
        }
        let kind = Kind::from_byte(frame.get_u8())?;
        let cluster = ClusterId(frame.get_u64_le());
        let (from, run, to) = (frame.get_u64_le(), get_run(&mut frame), frame.get_u64_le());
        Some((Self { kind, cluster, from, run, to }, frame))
    }
}

fn put_run(out: &mut BytesMut, run: Run) {
    out.put_u64_le(run.boot);
    out.put_u64_le(run.name);
}

/// Takes 16 bytes, which must be there.
fn get_run(bytes: &mut Bytes) -> Run {
    Run { boot: bytes.get_u64_le(), name: bytes.get_u64_le() }
}

/// Why a frame was refused without being looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// The node belongs to another cluster, or to none yet.
    OtherCluster(Option<ClusterId>),
    /// Another node lives at this address.
    OtherNode(u64),
    /// The node is not (or no longer) able to take it.
    NotRunning,
    /// The body cannot be read.
    Malformed,
    /// The sender's disk is an older copy.
    OlderDisk(OlderDisk),
    /// The sender is a former member of this cluster; its id never becomes a member's again.
    Removed,
    /// There is no room for it on the disk.
    DiskFull,
}

/// An answer: a body, or why there is none.
pub type Answer = Result<Bytes, Refusal>;

/// The answer of a node that runs as `run`, as bytes.
#[must_use]
pub fn encode_answer(run: Run, answer: &Answer) -> Bytes {
    let (status, body) = match answer {
        Ok(body) => (0, body.clone()),
        Err(refusal) => (1, encode(refusal)),
    };
    let mut out = BytesMut::with_capacity(ANSWER_HEAD_LEN + body.len());
    out.put_u8(status);
    put_run(&mut out, run);
    out.put_slice(&body);
    out.freeze()
}

/// The reverse of [`encode_answer`].
///
/// # Errors
/// When the bytes are damaged.
pub fn decode_answer(mut bytes: Bytes) -> io::Result<(Run, Answer)> {
    if bytes.len() < ANSWER_HEAD_LEN {
        return Err(damaged("an answer"));
    }
    let status = bytes.get_u8();
    let run = get_run(&mut bytes);
    match status {
        0 => Ok((run, Ok(bytes))),
        1 => Ok((run, Err(decode(&bytes)?))),
        _ => Err(damaged("an answer")),
    }
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{what} of another node cannot be read"))
}

/// A small body.
#[must_use]
pub fn encode<T: Serialize>(value: &T) -> Bytes {
    // Only maps of unknown length and foreign errors can fail here, and no body has one.
    Bytes::from(postcard::to_stdvec(value).unwrap_or_default())
}

/// The reverse of [`encode`].
///
/// # Errors
/// When the bytes are damaged or more follow.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        _ => Err(damaged("a message")),
    }
}

/// Raft's append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// The leader's vote.
    pub vote: Vote,
    /// What stands before the records.
    pub prev: Option<LogId>,
    /// The leader's commit position.
    pub commit: Option<LogId>,
    /// The records.
    pub records: Vec<Record>,
}

#[derive(Serialize, Deserialize)]
struct AppendHead {
    vote: Vote,
    prev: Option<LogId>,
    commit: Option<LogId>,
    records: u32,
}

impl Append {
    /// As bytes: a head, then each record as term, index, length and payload.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let head = encode(&AppendHead {
            vote: self.vote,
            prev: self.prev,
            commit: self.commit,
            records: u32::try_from(self.records.len()).unwrap_or(u32::MAX),
        });
        let size: usize = self.records.iter().map(|record| 20 + record.payload.len()).sum();
        let mut out = BytesMut::with_capacity(1 + head.len() + size);
        out.put_u8(u8::try_from(head.len()).unwrap_or(u8::MAX));
        out.put_slice(&head);
        for record in &self.records {
            out.put_u64_le(record.id.term);
            out.put_u64_le(record.id.index);
            out.put_u32_le(u32::try_from(record.payload.len()).unwrap_or(u32::MAX));
            out.put_slice(&record.payload);
        }
        out.freeze()
    }

    /// The reverse of [`encode`](Append::encode).
    ///
    /// # Errors
    /// When the bytes are damaged.
    pub fn decode(mut bytes: Bytes) -> io::Result<Self> {
        let length = usize::from(*bytes.first().ok_or_else(|| damaged("an append"))?);
        if bytes.len() < 1 + length {
            return Err(damaged("an append"));
        }
        bytes.advance(1);
        let head: AppendHead = decode(&bytes.split_to(length))?;
        let mut records = Vec::new();
        for _ in 0..head.records {
            if bytes.len() < 20 {
                return Err(damaged("an append"));
            }
            let id = LogId { term: bytes.get_u64_le(), index: bytes.get_u64_le() };
            let length = bytes.get_u32_le() as usize;
            if bytes.len() < length {
                return Err(damaged("an append"));
            }
            // Copied: records are kept in memory for long, and a slice would keep the whole receive buffer with it.
            records.push(Record { id, payload: Bytes::copy_from_slice(&bytes.split_to(length)) });
        }
        if bytes.is_empty() {
            Ok(Self { vote: head.vote, prev: head.prev, commit: head.commit, records })
        } else {
            Err(damaged("an append"))
        }
    }
}

/// The answer to [`Append`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AppendAnswer {
    /// All records are on the disk.
    Success,
    /// Records up to here are.
    Partial(Option<LogId>),
    /// What the leader thinks stands before the records does not.
    Conflict,
    /// A higher vote was seen.
    HigherVote(Vote),
}

/// Raft's vote and pre-vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoteAsk {
    /// The vote asked for.
    pub vote: Vote,
    /// The candidate's last position.
    pub last: Option<LogId>,
    /// Whether the leader asked for this election.
    pub transfer: bool,
}

/// The answer to [`VoteAsk`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoteAnswer {
    /// The voter's vote.
    pub vote: Vote,
    /// Whether it was granted.
    pub granted: bool,
    /// The voter's last position.
    pub last: Option<LogId>,
}

/// A piece of a snapshot, in order from offset 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotPiece {
    /// The leader's vote.
    pub vote: Vote,
    /// The whole image's length.
    pub total: u64,
    /// The CRC-32 of the whole image.
    pub crc: u32,
    /// Where this piece begins.
    pub offset: u64,
    /// The piece.
    pub bytes: Vec<u8>,
}

/// The answer to [`SnapshotPiece`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SnapshotAnswer {
    /// Go on behind this offset; 0 begins anew.
    Continue(u64),
    /// It is installed, or the sender leads no more; the node's vote.
    Installed(Vote),
}

/// Raft's hand-over of leadership.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    /// The leader that hands over.
    pub from: Vote,
    /// The node that takes over.
    pub to: u64,
    /// The position it must have.
    pub last: Option<LogId>,
}

/// The answer to a forwarded part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ForwardAnswer {
    /// What came of it, encoded by `quorate_limits`.
    Applied(Vec<u8>),
    /// This node does not lead; perhaps that one does.
    NotLeader(Option<u64>),
    /// This node leads, its disk is full, and nobody can take over. The part was not proposed.
    DiskFull,
}

/// Reads for the leader: each is a command that is evaluated and never applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Read {
    /// What to look at.
    pub commands: Vec<Command>,
}

/// The answer to [`Read`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReadAnswer {
    /// Outcomes, and the log index they reflect at least.
    Outcomes(Vec<Outcome>, u64),
    /// This node does not lead, or cannot show that it does.
    NotLeader(Option<u64>),
}

/// A request to promise to found `cluster` with exactly these members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromiseAsk {
    /// Raft id and name of each founding member.
    pub members: BTreeMap<u64, String>,
}

/// The answer to [`PromiseAsk`] and to an invitation: kept, or why not.
pub type PromiseAnswer = Result<(), String>;

/// How far a node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusAnswer {
    /// Index of its last log entry.
    pub last: u64,
    /// The policy revision it has applied.
    pub revision: u64,
    /// Its version.
    pub version: String,
    /// Its highest supported feature level.
    pub feature_level: u32,
    /// Whether its disk is short of room.
    pub short_of_room: bool,
    /// What its autopilot does, while it leads.
    pub autopilot: Option<Report>,
}
