//! The Raft log in files, on crate `raft-log`.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use raft_log::api::raft_log_writer::RaftLogWriter;
use raft_log::codeq::OffsetSize as _;
use raft_log::{Config, RaftLog};

use super::error::OpenError;
use super::flushed_mark::FlushedMark;
use super::full::{free, is_full, size};
use super::leaving::Leaving;
use super::log_codec::{Kinds, Owner, PAYLOAD_BYTES_MAX, Payload, StoredVote};
use super::log_tail::{check_tail, chunk_files, cut_back};
use super::{Change, FlushDone, LogId, LogState, LogStore, Record, Vote};

/// A chunk file is closed when it reaches this. Chunks that were purged whole are deleted, so on a small disk they are
/// smaller: a 32nd of it, 1 MiB at least.
const CHUNK_BYTES_MAX: usize = 64 << 20;

/// Payload bytes kept in memory besides the open chunk's, which are always kept: replication reads no disk.
const CACHE_BYTES_MAX: usize = 64 << 20;

/// Entries kept in memory besides the open chunk's.
const CACHE_ENTRIES_MAX: usize = 1 << 20;

/// Buffer for reading a chunk when the log is opened.
const READ_BUFFER_BYTES: usize = 1 << 20;

/// Flushes answered by one write to the disk, at most.
const FLUSH_GROUP_MAX: usize = 4096;

/// Between two looks whether a full disk has room again.
const FULL_PAUSE: Duration = Duration::from_millis(200);

/// Room beyond what waits to be written before it is tried again.
const FULL_MARGIN_BYTES: u64 = 256 << 10;

type Log = RaftLog<Kinds>;

/// A [`LogStore`] in a folder of its own. Dropping it writes what is pending and ends its threads.
///
/// Flushes are grouped here: while one is under way, the next ones gather and share one fsync. (`raft-log` gathers only
/// by lingering, and without lingering not at all.)
///
/// `raft-log` gives up for good when a write fails. If it failed because the disk is full, the log is cut back to what was
/// flushed, opened again, and all that was written since is handed to it once more, in memory; it is written to the disk
/// when there is room.
pub struct FileLog {
    shared: Arc<Shared>,
    flushes: Option<Sender<FlushDone>>,
    flusher: Option<JoinHandle<()>>,
}

struct Shared {
    folder: PathBuf,
    chunk_bytes_max: usize,
    inner: RwLock<Inner>,
    flush_count: AtomicU64,
    /// The disk is full, and writes wait.
    full: AtomicBool,
    closing: AtomicBool,
}

struct Inner {
    /// `None` once it failed for good.
    log: Option<Log>,
    /// What was written since the last flush that is reported, in order.
    unflushed: Vec<Change>,
    /// The log is durable up to this byte of it.
    flushed: u64,
    mark: FlushedMark,
    leaving: Leaving,
    /// Counts how often the log was opened again.
    reopened: u64,
}

impl Change {
    fn apply(self, log: &mut Log) -> io::Result<()> {
        match self {
            Self::Append(records) => {
                log.append(records.into_iter().map(|record| (record.id, Payload(record.payload))))?;
            }
            Self::Vote(vote) => {
                log.save_vote(StoredVote(vote))?;
            }
            Self::Committed(committed) => {
                let state = log.log_state();
                if Some(&committed) <= state.last() && Some(&committed) > state.committed() {
                    log.commit(committed)?;
                }
            }
            Self::TruncateAfter(last) => {
                if last.as_ref() < log.log_state().last() {
                    log.truncate(last.map_or(0, |last| last.index + 1))?;
                }
            }
            Self::Purge(upto) => {
                log.purge(upto)?;
            }
        }
        Ok(())
    }

    /// About how many bytes it takes.
    fn bytes(&self) -> usize {
        match self {
            Self::Append(records) => records.iter().map(|record| 64 + record.payload.len()).sum(),
            _ => 64,
        }
    }
}

impl FileLog {
    /// Opens the log in `folder`, which exists; an empty folder is an empty log.
    ///
    /// A torn end is cut off when no valid record lies behind it and nothing of it was flushed: nobody was told that it is
    /// durable. All that is found is made durable before this returns, since a killed process may have left it to the
    /// kernel.
    ///
    /// # Errors
    /// When files cannot be read, or hold damage that is not a torn end; the error names file, offset and remedy.
    pub fn open(folder: &Path) -> Result<Self, OpenError> {
        Self::open_with(folder, chunk_bytes_max(folder))
    }

    pub(super) fn open_with(folder: &Path, chunk_bytes_max: usize) -> Result<Self, OpenError> {
        let flushed = check_tail(folder)?;
        let mark = FlushedMark::open(folder)?;
        let log = open(folder, chunk_bytes_max)?;
        check_start(&log, folder)?;
        let inner =
            Inner { log: Some(log), unflushed: Vec::new(), flushed, mark, leaving: Leaving::default(), reopened: 0 };
        let shared = Arc::new(Shared {
            folder: folder.to_owned(),
            chunk_bytes_max,
            inner: RwLock::new(inner),
            flush_count: AtomicU64::new(0),
            full: AtomicBool::new(false),
            closing: AtomicBool::new(false),
        });
        Self::start(shared).map_err(|error| OpenError::io("write to", folder, error))
    }

    fn start(shared: Arc<Shared>) -> io::Result<Self> {
        // A new log's first record is not durable yet; an identity must not be so before it.
        shared.flush_once()?;
        let (flushes, queue) = channel();
        let thread = std::thread::Builder::new().name("log-flusher".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || run_flusher(&queue, || shared.flush())
        })?;
        Ok(Self { shared, flushes: Some(flushes), flusher: Some(thread) })
    }

    fn write(&self, change: Change) -> io::Result<()> {
        let mut inner = self.shared.lock()?;
        inner.unflushed.push(change.clone());
        if matches!(change, Change::Purge(_)) {
            inner.leaving.hold(&self.shared.folder);
        }
        let Some(log) = inner.log.as_mut() else { return Err(failed_before()) };
        match change.apply(log) {
            Ok(()) => Ok(()),
            Err(error) => match cause(log, error) {
                error if is_full(&error) => self.shared.reopen(&mut inner, &error),
                error => {
                    inner.unflushed.pop();
                    Err(error)
                }
            },
        }
    }
}

fn chunk_bytes_max(folder: &Path) -> usize {
    let part = size(folder).and_then(|size| usize::try_from(size / 32).ok());
    part.map_or(CHUNK_BYTES_MAX, |part| part.clamp(1 << 20, CHUNK_BYTES_MAX))
}

/// Opens the checked log in `folder`.
fn open(folder: &Path, chunk_bytes_max: usize) -> Result<Log, OpenError> {
    let dir = folder.to_str().ok_or_else(|| OpenError::path_not_text(folder))?;
    let config = Config {
        wal: raft_log::chunked_wal::Config {
            read_buffer_size: Some(READ_BUFFER_BYTES),
            chunk_max_size: Some(chunk_bytes_max),
            truncate_incomplete_record: Some(false),
            flush_batch_wait: Some(Duration::ZERO),
            ..raft_log::chunked_wal::Config::new(dir)
        },
        log_cache_max_items: Some(CACHE_ENTRIES_MAX),
        log_cache_capacity: Some(CACHE_BYTES_MAX),
    };
    Log::open(Arc::new(config)).map_err(|error| match error.kind() {
        _ if is_full(&error) => OpenError::io("open", folder, error),
        _ => OpenError::damaged(folder, None, error.to_string()),
    })
}

/// What made the log fail: its worker knows better than whoever finds it gone.
fn cause(log: &Log, error: io::Error) -> io::Error {
    if is_full(&error) {
        return error;
    }
    match log.wait_worker_idle() {
        Err(worker) if is_full(&worker) => worker,
        _ => error,
    }
}

impl Shared {
    fn lock(&self) -> io::Result<RwLockWriteGuard<'_, Inner>> {
        self.inner.write().map_err(|_| failed_before())
    }

    /// Makes all that was written so far durable; on a full disk as soon as there is room.
    fn flush(&self) -> io::Result<()> {
        self.flush_count.fetch_add(1, Ordering::Relaxed);
        loop {
            match self.flush_once() {
                Ok(true) => break,
                // The log was opened again meanwhile: what this flush wrote is gone, and in memory.
                Ok(false) => self.wait_for_room()?,
                Err(error) => return Err(self.explain(&error)),
            }
        }
        if self.full.swap(false, Ordering::Relaxed) {
            tracing::info!(folder = %self.folder.display(), "there is room on the disk again: what waited is written");
        }
        Ok(())
    }

    /// One write and fsync of all that was written so far. `false` when the log had to be opened again, so it is still to be
    /// done.
    fn flush_once(&self) -> io::Result<bool> {
        let (sender, receiver): (SyncSender<io::Result<()>>, _) = sync_channel(1);
        let (sent, reopened, changes, end) = {
            let mut inner = self.lock()?;
            let (reopened, changes) = (inner.reopened, inner.unflushed.len());
            let log = inner.log.as_mut().ok_or_else(failed_before)?;
            // Appends nothing; tells where the log ends.
            let end = log.append(std::iter::empty())?.end().0;
            (log.flush(true, Some(sender)), reopened, changes, end)
        };
        let result = sent.and_then(|()| receiver.recv().map_err(|_| failed_before())?);
        let mut inner = self.lock()?;
        if inner.reopened != reopened {
            return Ok(false);
        }
        match result {
            Ok(()) => {
                inner.unflushed.drain(..changes);
                inner.flushed = end;
                inner.leaving.let_go();
                if let Err(error) = inner.mark.write(end) {
                    tracing::debug!(%error, "the log's mark lags");
                }
                Ok(true)
            }
            Err(error) => {
                let log = inner.log.as_ref().ok_or_else(failed_before)?;
                let error = cause(log, error);
                if !is_full(&error) {
                    return Err(error);
                }
                self.reopen(&mut inner, &error)?;
                Ok(false)
            }
        }
    }

    /// Cuts the log back to what was flushed, opens it again, and writes all that came since to it in memory. What was
    /// behind may be on the disk in part, or believed to be: it is written anew.
    fn reopen(&self, inner: &mut Inner, full: &io::Error) -> io::Result<()> {
        if !self.full.swap(true, Ordering::Relaxed) {
            tracing::error!(
                folder = %self.folder.display(),
                "the disk is full ({full}): what is to be written waits, and nothing of it is acknowledged. Free space, or \
                 enlarge the disk; the node goes on by itself then"
            );
        }
        // Its worker ends with it.
        inner.log = None;
        inner.leaving.close();
        inner.reopened += 1;
        cut_back(&self.folder, inner.flushed)?;
        // While all is in memory no file may be closed: the next one takes room.
        let open_chunk = chunk_files(&self.folder)?.last().map_or(0, |chunk| inner.flushed.saturating_sub(chunk.start));
        let waiting: usize = inner.unflushed.iter().map(Change::bytes).sum();
        let chunk_bytes_max = usize::try_from(open_chunk).unwrap_or(usize::MAX) + waiting + self.chunk_bytes_max;
        let log = inner.log.insert(open(&self.folder, chunk_bytes_max)?);
        for change in &inner.unflushed {
            change.clone().apply(log)?;
        }
        Ok(())
    }

    /// Waits until what is unflushed has a chance.
    ///
    /// # Errors
    /// When the log is closed meanwhile.
    fn wait_for_room(&self) -> io::Result<()> {
        loop {
            std::thread::sleep(FULL_PAUSE);
            if self.closing.load(Ordering::Relaxed) {
                return Err(io::Error::new(io::ErrorKind::StorageFull, "the log is closed while the disk is full"));
            }
            let needed: usize = self.lock()?.unflushed.iter().map(Change::bytes).sum();
            if free(&self.folder).is_none_or(|free| free >= needed as u64 + FULL_MARGIN_BYTES) {
                return Ok(());
            }
        }
    }

    /// For whoever runs the node: it ends with this.
    fn explain(&self, error: &io::Error) -> io::Error {
        let file = chunk_files(&self.folder).ok().and_then(|mut chunks| chunks.pop()).map(|chunk| chunk.path);
        let file = file.unwrap_or_else(|| self.folder.clone());
        let reason = format!(
            "cannot write or sync {}: {error}. What the disk kept of it is unknown, so it is not tried again. Check the disk, \
             then start this node again; if it refuses its data, start it with an empty DATA_DIR: it replaces its former \
             self and copies the state from the others",
            file.display()
        );
        io::Error::new(error.kind(), reason)
    }
}

impl LogStore for FileLog {
    fn bind(&self, node: u64, boot: u64) -> io::Result<()> {
        {
            let mut inner = self.shared.lock()?;
            let log = inner.log.as_mut().ok_or_else(failed_before)?;
            let state = log.log_state();
            let is_empty = state.vote().is_none() && state.last().is_none();
            if let Some(owner) = state.user_data.filter(|owner| owner.node != node && !is_empty) {
                let reason = format!("is of node {:016x}, but node.json is of node {node:016x}", owner.node);
                return Err(OpenError::Mixed { path: self.shared.folder.clone(), reason }.into());
            }
            // It is tied before the identity counts the start, so it may be one ahead.
            let fits = |owner: &Owner| owner.boot == boot || owner.boot + 1 == boot;
            if let Some(owner) = state.user_data.filter(|owner| owner.node == node && !fits(owner)) {
                let reason = format!(
                    "was used last at start {}, but node.json counts {}: one of the two is an older copy",
                    owner.boot,
                    boot.saturating_sub(1)
                );
                return Err(OpenError::Mixed { path: self.shared.folder.clone(), reason }.into());
            }
            log.save_user_data(Some(Owner { node, boot }))?;
        }
        if self.shared.flush_once()? { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
    }

    fn state(&self) -> LogState {
        let inner = self.shared.inner.read().unwrap_or_else(PoisonError::into_inner);
        let Some(log) = inner.log.as_ref() else { return LogState::default() };
        let state = log.log_state();
        LogState {
            vote: state.vote().map(|vote| vote.0),
            committed: state.committed().copied(),
            purged: state.purged().copied(),
            last: state.last().copied(),
        }
    }

    fn append(&self, records: Vec<Record>) -> io::Result<()> {
        if let Some(record) = records.iter().find(|record| record.payload.len() > PAYLOAD_BYTES_MAX) {
            let reason = format!(
                "log record {} has {} bytes; at most {PAYLOAD_BYTES_MAX} can be stored",
                record.id,
                record.payload.len()
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
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
        let inner = self.shared.inner.read().map_err(|_| failed_before())?;
        let log = inner.log.as_ref().ok_or_else(failed_before)?;
        let mut records = Vec::new();
        let mut bytes = 0;
        for entry in log.read(range.start, range.end) {
            let (id, Payload(payload)) = entry?;
            bytes += payload.len();
            records.push(Record { id, payload });
            if bytes >= bytes_max {
                break;
            }
        }
        Ok(records)
    }

    fn flush(&self, done: FlushDone) {
        let rejected = match &self.flushes {
            Some(flushes) => flushes.send(done).err().map(|error| error.0),
            None => Some(done),
        };
        if let Some(done) = rejected {
            done(Err(failed_before()));
        }
    }

    fn flushes(&self) -> u64 {
        self.shared.flush_count.load(Ordering::Relaxed)
    }

    fn waits_for_room(&self) -> bool {
        self.shared.full.load(Ordering::Relaxed)
    }
}

impl Drop for FileLog {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::Relaxed);
        // The flusher ends when its queue closes, having answered all that was in it.
        self.flushes = None;
        if let Some(flusher) = self.flusher.take()
            && flusher.thread().id() != std::thread::current().id()
            && flusher.join().is_err()
        {
            tracing::error!("the log's flusher panicked");
        }
        // What was written and never flushed goes to the disk with the log; then it is durable, and may be marked so.
        if !self.shared.full.load(Ordering::Relaxed)
            && let Err(error) = self.shared.flush_once()
        {
            tracing::debug!(%error, "the log is closed without a last flush");
        }
    }
}

/// A log begins behind what was purged. `raft-log` does not notice when its first files are gone.
fn check_start(log: &Log, folder: &Path) -> Result<(), OpenError> {
    let state = log.log_state();
    let purged = state.purged().copied();
    let first = log.read(0, u64::MAX).next().transpose();
    let first = first.map_err(|error| OpenError::damaged(folder, None, error.to_string()))?;
    let begins_there = match first {
        Some((first, _)) => first.index == purged.map_or(0, |purged| purged.index + 1),
        None => state.last().copied() == purged,
    };
    if begins_there {
        return Ok(());
    }
    let purged = purged.map_or("nothing".to_owned(), |purged| format!("everything up to record {purged}"));
    let first = first.map_or("there is none".to_owned(), |(first, _)| format!("the first one is {first}"));
    Err(OpenError::damaged(folder, None, format!("{purged} was purged, but of the records behind it {first}")))
}

/// Answers flushes in groups until the queue closes. After an error nothing is tried again: what the kernel kept of a
/// failed fsync is unknown.
fn run_flusher(queue: &Receiver<FlushDone>, flush: impl Fn() -> io::Result<()>) {
    let mut result = Ok(());
    while let Ok(first) = queue.recv() {
        let mut group = vec![first];
        group.extend(queue.try_iter().take(FLUSH_GROUP_MAX - 1));
        result = result.and_then(|()| flush());
        for done in group {
            done(result.as_ref().copied().map_err(|error| io::Error::new(error.kind(), error.to_string())));
        }
    }
}

fn failed_before() -> io::Error {
    io::Error::other("the log stopped after an earlier failure of the disk; see the log output, then restart this node")
}

#[cfg(test)]
mod tests;
