//! What a node keeps on its disk: the log, snapshots and its identity, each behind a small trait.
//!
//! The product's implementations are files; the simulator's model loses what was not flushed. Both are held to the
//! same suite. No openraft type appears in what is written.

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

mod adapter;
mod archive;
#[cfg(test)]
mod attacks;
mod error;
mod file_identity;
mod file_log;
mod file_snapshot;
mod flushed_mark;
mod folder;
mod full;
mod identity;
mod leaving;
mod log_codec;
mod log_replay;
mod log_tail;
mod replace_file;

pub use adapter::{LogAdapter, ProposalObserver};
pub use error::OpenError;
pub use file_identity::FileIdentityStore;
pub use file_log::FileLog;
pub use file_snapshot::FileSnapshotStore;
pub use folder::{DirectoryLock, lock_directory};
pub use full::{Room, is_full};
pub use identity::{ClusterId, Identity, Promise};

/// The position of a record in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LogId {
    /// The term of the leader that wrote it.
    pub term: u64,
    /// Its index, counted from 0.
    pub index: u64,
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of term {}", self.index, self.term)
    }
}

/// A vote, as Raft keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    /// The term.
    pub term: u64,
    /// The node voted for: itself, or the candidate it granted.
    pub node: u64,
    /// Whether a quorum granted it.
    pub committed: bool,
}

/// One entry of the log. The payload is versioned by whoever made it; the store does not look inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where it stands.
    pub id: LogId,
    /// What it says.
    pub payload: Bytes,
}

/// One thing written to a log.
#[derive(Clone, Debug)]
pub enum Change {
    /// Records behind the last one.
    Append(Vec<Record>),
    /// A vote.
    Vote(Vote),
    /// The committed position.
    Committed(LogId),
    /// Nothing is left behind this record.
    TruncateAfter(Option<LogId>),
    /// Nothing is left up to this record.
    Purge(LogId),
}

/// What the log holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogState {
    /// The last vote saved.
    pub vote: Option<Vote>,
    /// The last committed position saved: a hint for restarts, it may lag.
    pub committed: Option<LogId>,
    /// Everything up to here was purged.
    pub purged: Option<LogId>,
    /// The last record; the purged position when nothing stands behind it.
    pub last: Option<LogId>,
}

/// Called once when all that was written before the flush is on the disk, or with the error that prevented it.
pub type FlushDone = Box<dyn FnOnce(io::Result<()>) + Send>;

/// A Raft log on a disk. Calls only queue; nothing is durable before a later [`flush`](LogStore::flush) reports so.
/// Order is kept: a vote and entries written in one order become durable in that order.
///
/// A full disk is a slow disk: what was written waits, in order, and a flush is reported once there is room again. Any
/// other failure is final.
pub trait LogStore: Send + Sync + 'static {
    /// Ties the log to start `boot` of node `node`, durably, before anything else is written.
    ///
    /// # Errors
    /// When it is tied to another node, or to another start than this one or the one before; when the disk refuses.
    fn bind(&self, node: u64, boot: u64) -> io::Result<()> {
        let _ = (node, boot);
        Ok(())
    }
    /// What the log holds, as written so far.
    fn state(&self) -> LogState;
    /// Adds records behind the last one, without a gap.
    ///
    /// # Errors
    /// When the disk refuses; the node must stop then.
    fn append(&self, records: Vec<Record>) -> io::Result<()>;
    /// Saves a vote.
    ///
    /// # Errors
    /// As [`append`](LogStore::append).
    fn save_vote(&self, vote: Vote) -> io::Result<()>;
    /// Saves the committed position. One that the log does not hold, or behind the last one saved, is left out: it is
    /// only a hint.
    ///
    /// # Errors
    /// As [`append`](LogStore::append).
    fn save_committed(&self, committed: LogId) -> io::Result<()>;
    /// Drops every record behind `last`; all of them for `None`. Without any behind it, nothing changes.
    ///
    /// # Errors
    /// As [`append`](LogStore::append).
    fn truncate_after(&self, last: Option<LogId>) -> io::Result<()>;
    /// Drops every record up to and including `upto`, which may lie behind the last one: the log goes on there then.
    ///
    /// # Errors
    /// As [`append`](LogStore::append).
    fn purge(&self, upto: LogId) -> io::Result<()>;
    /// Reads records by index; those that are not there are left out. Stops behind the record with which the
    /// payloads reach `bytes_max` bytes, so at least one is read.
    ///
    /// # Errors
    /// When the disk cannot be read or what it holds is damaged.
    fn read(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<Record>>;
    /// Makes all that was written so far durable, then calls `done`, from any thread. A store that fails or goes away
    /// first calls it with an error.
    fn flush(&self, done: FlushDone);
    /// How often the disk was made to flush so far; several calls of [`flush`](LogStore::flush) may share one. 0 where
    /// nobody counts.
    fn flushes(&self) -> u64 {
        0
    }
    /// Whether writes wait for room on a full disk.
    fn waits_for_room(&self) -> bool {
        false
    }
}

/// A snapshot's image on its way to the disk, or there: opaque bytes, as many as the state has, so they are never all in
/// memory. One that is dropped and was not kept is gone.
pub trait Image: fmt::Debug + Send + Sync + 'static {
    /// Bytes so far.
    fn length(&self) -> u64;
    /// The CRC-32 of the bytes as they were appended.
    fn checksum(&self) -> u32;
    /// Adds a piece behind the last one, durably. When the disk refuses, nothing of it is there, and if the disk is full it may
    /// be added again.
    fn append(self: Arc<Self>, piece: Bytes) -> BoxFuture<'static, io::Result<()>>;
    /// Bytes from an offset on. An image that was replaced meanwhile can still be read.
    fn read(self: Arc<Self>, offset: u64, length: usize) -> BoxFuture<'static, io::Result<Bytes>>;
    /// Puts it in the place of the last snapshot, durably and as a whole: after a crash there is the old one or this one.
    /// Nothing may be appended any more. If the disk is full it may be tried again.
    fn keep(self: Arc<Self>) -> BoxFuture<'static, io::Result<()>>;
}

/// Where the last snapshot is kept. It is stored with a checksum of the file's own.
pub trait SnapshotStore: Send + Sync + 'static {
    /// Ties what is kept from now on to a node; a snapshot of another one is refused.
    fn bind(&self, node: u64) {
        let _ = node;
    }
    /// Begins an image beside the last snapshot.
    fn begin(&self) -> BoxFuture<'static, io::Result<Arc<dyn Image>>>;
    /// The last snapshot kept. The first time it is read through, and refused when it is damaged.
    fn last(&self) -> BoxFuture<'static, io::Result<Option<Arc<dyn Image>>>>;
}

/// Where a node's identity is kept. Calls block until the identity is on the disk; it changes a few times in a life.
pub trait IdentityStore: Send + Sync + 'static {
    /// The identity, or `None` on an empty disk.
    ///
    /// # Errors
    /// When the file cannot be read or is damaged.
    fn load(&self) -> io::Result<Option<Identity>>;
    /// Replaces it, durably and as a whole.
    ///
    /// # Errors
    /// When the disk refuses.
    fn save(&self, identity: &Identity) -> io::Result<()>;
}

/// How much room there is. Calls may block for as long as the file system takes to say so.
pub trait Space: Send + Sync + 'static {
    /// Bytes that may still be written; `None` where nobody can say.
    fn free(&self) -> Option<u64>;
}

/// All that a node keeps.
#[derive(Clone)]
pub struct Disk {
    /// The room on it.
    pub space: Arc<dyn Space>,
    /// The Raft log.
    pub log: Arc<dyn LogStore>,
    /// The last snapshot.
    pub snapshots: Arc<dyn SnapshotStore>,
    /// Who the node is.
    pub identity: Arc<dyn IdentityStore>,
}
