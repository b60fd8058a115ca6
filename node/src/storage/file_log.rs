//! The Raft log in files, on crate `raft-log`.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use raft_log::api::raft_log_writer::RaftLogWriter;
use raft_log::{Config, RaftLog};

use super::error::OpenError;
use super::log_codec::{Kinds, PAYLOAD_BYTES_MAX, Payload, StoredVote};
use super::log_tail::check_tail;
use super::{FlushDone, LogId, LogState, LogStore, Record, Vote};

/// A chunk file is closed when it reaches this. Chunks that were purged whole are deleted.
const CHUNK_BYTES_MAX: usize = 64 << 20;

/// Payload bytes kept in memory besides the open chunk's, which are always kept: replication reads no disk.
const CACHE_BYTES_MAX: usize = 64 << 20;

/// Entries kept in memory besides the open chunk's.
const CACHE_ENTRIES_MAX: usize = 1 << 20;

/// Buffer for reading a chunk when the log is opened.
const READ_BUFFER_BYTES: usize = 1 << 20;

/// Flushes answered by one write to the disk, at most.
const FLUSH_GROUP_MAX: usize = 4096;

type Log = RaftLog<Kinds>;

/// A [`LogStore`] in a folder of its own. Dropping it writes what is pending and ends its threads.
///
/// Flushes are grouped here: while one is under way, the next ones gather and share one fsync. (`raft-log` gathers only
/// by lingering, and without lingering not at all.)
pub struct FileLog {
    log: Arc<RwLock<Log>>,
    flushes: Option<Sender<FlushDone>>,
    flusher: Option<JoinHandle<()>>,
    flush_count: Arc<AtomicU64>,
}

impl FileLog {
    /// Opens the log in `folder`, which exists; an empty folder is an empty log.
    ///
    /// A torn end is cut off when no valid record lies behind it: nobody was told that it is durable. All that is
    /// found is made durable before this returns, since a killed process may have left it to the kernel.
    ///
    /// # Errors
    /// When files cannot be read, or hold damage that is not a torn end; the error names file, offset and remedy.
    pub fn open(folder: &Path) -> Result<Self, OpenError> {
        Self::open_with(folder, CHUNK_BYTES_MAX)
    }

    fn open_with(folder: &Path, chunk_bytes_max: usize) -> Result<Self, OpenError> {
        check_tail(folder)?;
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
        let log = Log::open(Arc::new(config)).map_err(|error| OpenError::damaged(folder, None, error.to_string()))?;
        check_start(&log, folder)?;
        Self::start(log).map_err(|error| OpenError::io("start a thread for", folder, error))
    }

    fn start(log: Log) -> io::Result<Self> {
        let log = Arc::new(RwLock::new(log));
        let (flushes, queue) = channel();
        let count = Arc::new(AtomicU64::new(0));
        let thread = std::thread::Builder::new().name("log-flusher".to_owned()).spawn({
            let (log, count) = (log.clone(), Arc::clone(&count));
            move || {
                run_flusher(&queue, || {
                    count.fetch_add(1, Ordering::Relaxed);
                    flush_and_wait(&log)
                });
            }
        })?;
        // A new log's first record is not durable yet; an identity must not be so before it.
        flush_and_wait(&log)?;
        Ok(Self { log, flushes: Some(flushes), flusher: Some(thread), flush_count: count })
    }

    fn write<T>(&self, change: impl FnOnce(&mut Log) -> io::Result<T>) -> io::Result<T> {
        change(&mut *self.log.write().map_err(|_| failed_before())?)
    }
}

impl LogStore for FileLog {
    fn state(&self) -> LogState {
        let log = self.log.read().unwrap_or_else(PoisonError::into_inner);
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
        self.write(|log| log.append(records.into_iter().map(|record| (record.id, Payload(record.payload)))))?;
        Ok(())
    }

    fn save_vote(&self, vote: Vote) -> io::Result<()> {
        self.write(|log| log.save_vote(StoredVote(vote)))?;
        Ok(())
    }

    fn save_committed(&self, committed: LogId) -> io::Result<()> {
        self.write(|log| {
            let state = log.log_state();
            if Some(&committed) > state.last() || Some(&committed) <= state.committed() {
                return Ok(());
            }
            log.commit(committed).map(|_| ())
        })
    }

    fn truncate_after(&self, last: Option<LogId>) -> io::Result<()> {
        self.write(|log| {
            if last.as_ref() >= log.log_state().last() {
                return Ok(());
            }
            log.truncate(last.map_or(0, |last| last.index + 1)).map(|_| ())
        })
    }

    fn purge(&self, upto: LogId) -> io::Result<()> {
        self.write(|log| log.purge(upto))?;
        Ok(())
    }

    fn read(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<Record>> {
        let log = self.log.read().map_err(|_| failed_before())?;
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
        self.flush_count.load(Ordering::Relaxed)
    }
}

impl Drop for FileLog {
    fn drop(&mut self) {
        // The flusher ends when its queue closes, having answered all that was in it.
        self.flushes = None;
        if let Some(flusher) = self.flusher.take()
            && flusher.thread().id() != std::thread::current().id()
            && flusher.join().is_err()
        {
            tracing::error!("the log's flusher panicked");
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

/// One write and fsync of all that was appended so far.
fn flush_and_wait(log: &RwLock<Log>) -> io::Result<()> {
    let (sender, receiver): (SyncSender<io::Result<()>>, _) = sync_channel(1);
    log.write().map_err(|_| failed_before())?.flush(true, Some(sender))?;
    receiver.recv().map_err(|_| failed_before())?
}

fn failed_before() -> io::Error {
    io::Error::other("the log stopped after an earlier failure of the disk; see the log output, then restart this node")
}

#[cfg(test)]
mod tests;
