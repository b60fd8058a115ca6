//! A disk that loses what was not flushed.
//!
//! A write goes to a queue. A flush takes simulated time; when it is over, the writes before it are durable, and only
//! then is it reported. A crash keeps a chosen number of the queued writes, since a disk may be ahead of what it
//! reported, and drops the rest. Handles opened before a crash can no longer change anything.
//!
//! It can be full for a while, fail a flush, and be put back to an earlier state.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use quorate_node::platform::Platform as _;
use quorate_node::storage::{
    Change, Disk, FlushDone, Identity, IdentityStore, Image, LogId, LogState, LogStore, Record, SnapshotStore, Space,
    Vote,
};

use super::Sim;

/// What a failed flush says.
pub const FLUSH_FAILED: &str = "the simulated disk failed";
/// Between two looks whether a full disk has room.
const FULL_PAUSE: Duration = Duration::from_millis(5);

/// How long a flush takes: between these, drawn from the seed.
#[derive(Clone, Copy, Debug)]
pub struct FlushTime {
    /// At least.
    pub min: Duration,
    /// At most.
    pub max: Duration,
}

impl Default for FlushTime {
    fn default() -> Self {
        Self { min: Duration::from_micros(100), max: Duration::from_millis(2) }
    }
}

impl FlushTime {
    async fn pass(self) {
        let spread = u64::try_from(self.max.checked_sub(self.min).unwrap().as_nanos()).unwrap();
        Sim::sleep(self.min + Duration::from_nanos(Sim::random() % (spread + 1))).await;
    }
}

/// A node's disk. It outlives the node; clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct SimDisk {
    flush_time: FlushTime,
    state: Arc<Mutex<State>>,
}

/// One incarnation's access to the disk.
#[derive(Clone, Debug)]
struct Handle {
    disk: SimDisk,
    epoch: u64,
}

#[derive(Debug, Default)]
struct State {
    /// Counts crashes and wipes; a handle of an earlier one is dead.
    epoch: u64,
    durable: Log,
    /// What is written, flushed or not: `durable` with `queued` applied.
    written: Log,
    queued: VecDeque<Change>,
    /// Changes ever taken off the queue to the durable log.
    flushed: u64,
    snapshot: Option<Bytes>,
    identity: Option<Identity>,
    /// Nothing more can be written: flushes wait.
    full: bool,
    /// Flushes report an error, from now until the node that opened it is gone.
    failing: bool,
}

/// What a disk held at some moment.
#[derive(Clone)]
pub struct Copy {
    durable: Log,
    snapshot: Option<Bytes>,
    identity: Identity,
}

impl Copy {
    /// Whose it is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Counts starts that another copy of the disk was used for, so that this one is not the older of the two.
    #[must_use]
    pub fn count_starts(mut self, starts: u64) -> Self {
        self.identity.boot += starts;
        self
    }
}

#[derive(Clone, Debug, Default)]
struct Log {
    state: LogState,
    records: BTreeMap<u64, Record>,
}

impl SimDisk {
    /// An empty disk.
    #[must_use]
    pub fn new(flush_time: FlushTime) -> Self {
        Self { flush_time, state: Arc::default() }
    }

    /// What a node started now works with.
    #[must_use]
    pub fn open(&self) -> Disk {
        let handle = Arc::new(Handle { disk: self.clone(), epoch: self.state().epoch });
        Disk { space: handle.clone(), log: handle.clone(), snapshots: handle.clone(), identity: handle }
    }

    /// The identity on it.
    #[must_use]
    pub fn identity(&self) -> Option<Identity> {
        self.state().identity.clone()
    }

    /// Writes that a crash would lose now.
    #[must_use]
    pub fn unflushed(&self) -> usize {
        self.state().queued.len()
    }

    /// Power loss. The first `kept` of the unflushed writes survive, the others are lost; no flush under way is ever
    /// reported, and a snapshot that is being saved is not.
    pub fn crash(&self, kept: usize) {
        let mut state = self.state();
        let kept = kept.min(state.queued.len()) as u64;
        state.make_durable(kept);
        state.queued.clear();
        state.written = state.durable.clone();
        state.epoch += 1;
        state.failing = false;
    }

    /// The disk is full, or has room again.
    pub fn fill(&self, full: bool) {
        self.state().full = full;
    }

    /// The next flush fails, and all behind it, until the node is gone.
    pub fn fail(&self) {
        self.state().failing = true;
    }

    /// What it holds durably now; `None` while it is empty or in no cluster.
    #[must_use]
    pub fn copy(&self) -> Option<Copy> {
        let state = self.state();
        let identity = state.identity.clone().filter(|identity| identity.cluster.is_some())?;
        Some(Copy { durable: state.durable.clone(), snapshot: state.snapshot.clone(), identity })
    }

    /// Puts the disk back to what it held when it was copied. Its node must be gone.
    pub fn put_back(&self, copy: Copy) {
        let mut state = self.state();
        let Copy { durable, snapshot, identity } = copy;
        let written = durable.clone();
        *state =
            State { epoch: state.epoch + 1, durable, written, snapshot, identity: Some(identity), ..State::default() };
    }

    /// The disk is lost, and an empty one takes its place.
    pub fn wipe(&self) {
        let mut state = self.state();
        *state = State { epoch: state.epoch + 1, ..State::default() };
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl State {
    fn make_durable(&mut self, count: u64) {
        for _ in 0..count {
            let change = self.queued.pop_front().unwrap();
            self.durable.apply(change);
            self.flushed += 1;
        }
    }
}

impl Log {
    fn apply(&mut self, change: Change) {
        match change {
            Change::Append(records) => {
                for record in records {
                    if let Some(last) = self.state.last {
                        assert_eq!(record.id.index, last.index + 1, "a gap in the log");
                    }
                    self.state.last = Some(record.id);
                    self.records.insert(record.id.index, record);
                }
            }
            Change::Vote(vote) => self.state.vote = Some(vote),
            Change::Committed(id) => {
                if self.state.last >= Some(id) && self.state.committed < Some(id) {
                    self.state.committed = Some(id);
                }
            }
            Change::TruncateAfter(last) => {
                assert!(last >= self.state.committed, "a committed record is truncated");
                if last < self.state.last {
                    self.records.split_off(&last.map_or(0, |last| last.index + 1));
                    self.state.last = last;
                }
            }
            Change::Purge(upto) => {
                if self.state.purged < Some(upto) {
                    self.records = self.records.split_off(&(upto.index + 1));
                    self.state.purged = Some(upto);
                    self.state.last = self.state.last.max(Some(upto));
                }
            }
        }
    }
}

impl Handle {
    /// The disk, unless it crashed since this handle was opened.
    fn alive(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.state();
        if state.epoch == self.epoch {
            Ok(state)
        } else {
            Err(io::Error::other("the node that opened this disk has crashed"))
        }
    }

    /// Waits until the disk is not full.
    async fn room(&self) {
        while self.alive().is_ok_and(|state| state.full) {
            Sim::sleep(FULL_PAUSE).await;
        }
    }

    fn write(&self, change: Change) -> io::Result<()> {
        let mut state = self.alive()?;
        state.written.apply(change.clone());
        state.queued.push_back(change);
        Ok(())
    }
}

impl LogStore for Handle {
    fn state(&self) -> LogState {
        self.disk.state().written.state
    }

    fn append(&self, records: Vec<Record>) -> io::Result<()> {
        self.write(Change::Append(records))
    }

    fn save_vote(&self, vote: Vote) -> io::Result<()> {
        self.write(Change::Vote(vote))
    }

    fn save_committed(&self, committed: LogId) -> io::Result<()> {
        self.write(Change::Committed(committed))
    }

    fn truncate_after(&self, last: Option<LogId>) -> io::Result<()> {
        self.write(Change::TruncateAfter(last))
    }

    fn purge(&self, upto: LogId) -> io::Result<()> {
        self.write(Change::Purge(upto))
    }

    fn read(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<Record>> {
        let state = self.alive()?;
        let mut bytes = 0;
        let mut records = Vec::new();
        for record in state.written.records.range(range).map(|(_, record)| record) {
            bytes += record.payload.len();
            records.push(record.clone());
            if bytes >= bytes_max {
                break;
            }
        }
        Ok(records)
    }

    fn waits_for_room(&self) -> bool {
        let state = self.disk.state();
        state.full && !state.queued.is_empty()
    }

    fn flush(&self, done: FlushDone) {
        let upto = match self.alive() {
            Ok(state) => state.flushed + state.queued.len() as u64,
            Err(error) => return done(Err(error)),
        };
        let handle = self.clone();
        Sim::spawn(async move {
            handle.disk.flush_time.pass().await;
            handle.room().await;
            {
                // After a crash nobody is told anything.
                let Ok(mut state) = handle.alive() else { return };
                if state.failing {
                    drop(state);
                    return done(Err(io::Error::other(FLUSH_FAILED)));
                }
                let count = upto.saturating_sub(state.flushed);
                state.make_durable(count);
            }
            done(Ok(()));
        });
    }
}

impl SnapshotStore for Handle {
    fn begin(&self) -> BoxFuture<'static, io::Result<Arc<dyn Image>>> {
        let handle = self.clone();
        async move {
            handle.write_image().await?;
            Ok(Arc::new(SimImage { handle, bytes: Mutex::default() }) as Arc<dyn Image>)
        }
        .boxed()
    }

    fn last(&self) -> BoxFuture<'static, io::Result<Option<Arc<dyn Image>>>> {
        let handle = self.clone();
        async move {
            let bytes = handle.alive()?.snapshot.clone();
            let image = |bytes: Bytes| Arc::new(SimImage { handle, bytes: Mutex::new(bytes.into()) }) as Arc<dyn Image>;
            Ok(bytes.map(image))
        }
        .boxed()
    }
}

impl Handle {
    /// One write of an image, durable at once; the image is lost in a crash until it is kept.
    async fn write_image(&self) -> io::Result<()> {
        self.disk.flush_time.pass().await;
        let state = self.alive()?;
        if state.failing {
            Err(io::Error::other(FLUSH_FAILED))
        } else if state.full {
            Err(io::ErrorKind::StorageFull.into())
        } else {
            Ok(())
        }
    }
}

/// An image of one incarnation.
#[derive(Debug)]
struct SimImage {
    handle: Handle,
    bytes: Mutex<BytesMut>,
}

impl Image for SimImage {
    fn length(&self) -> u64 {
        self.bytes.lock().unwrap().len() as u64
    }

    fn checksum(&self) -> u32 {
        crc32fast::hash(&self.bytes.lock().unwrap())
    }

    fn append(self: Arc<Self>, piece: Bytes) -> BoxFuture<'static, io::Result<()>> {
        async move {
            self.handle.write_image().await?;
            self.bytes.lock().unwrap().extend_from_slice(&piece);
            Ok(())
        }
        .boxed()
    }

    fn read(self: Arc<Self>, offset: u64, length: usize) -> BoxFuture<'static, io::Result<Bytes>> {
        async move {
            drop(self.handle.alive()?);
            let offset = usize::try_from(offset).unwrap();
            let bytes = self.bytes.lock().unwrap();
            let read = bytes.get(offset..offset + length).ok_or(io::ErrorKind::UnexpectedEof)?;
            Ok(Bytes::copy_from_slice(read))
        }
        .boxed()
    }

    fn keep(self: Arc<Self>) -> BoxFuture<'static, io::Result<()>> {
        async move {
            self.handle.write_image().await?;
            let bytes = Bytes::copy_from_slice(&self.bytes.lock().unwrap());
            self.handle.alive()?.snapshot = Some(bytes);
            Ok(())
        }
        .boxed()
    }
}

impl Space for Handle {
    fn free(&self) -> Option<u64> {
        Some(if self.disk.state().full { 0 } else { 2 * super::world::DISK_RESERVE })
    }
}

impl IdentityStore for Handle {
    fn load(&self) -> io::Result<Option<Identity>> {
        Ok(self.alive()?.identity.clone())
    }

    fn save(&self, identity: &Identity) -> io::Result<()> {
        self.alive()?.identity = Some(identity.clone());
        Ok(())
    }
}

#[cfg(test)]
mod tests;
