//! From openraft's log storage trait to [`LogStore`].

use std::fmt::Debug;
use std::io;
use std::marker::PhantomData;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;

use futures::channel::oneshot;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt, TryStreamExt};
use openraft::alias::{EntryOf, LeaderIdOf, LogIdOf, VoteOf};
use openraft::errors::LeaderChanged;
use openraft::storage::{
    IOFlushed, LeaderBoundedStreamError, LeaderBoundedStreamResult, LogState as RaftLogState, RaftLogReader,
    RaftLogStorage,
};
use openraft::{EntryPayload, OptionalSend};

use super::{LogId, LogStore, Record};
use crate::consensus::{
    Proposal, Types, decode_payload, encode_payload, log_id_from_raft, log_id_to_raft, vote_from_raft, vote_to_raft,
};
use crate::platform::Platform;

/// Payload bytes read in one piece when openraft leaves the amount to us; one entry at least is read.
const READ_BYTES_MAX: usize = 1 << 20;

/// Called for every proposal that is appended, on leader and follower, before it is written: the cluster clock
/// re-anchors on the stamps it sees.
pub type ProposalObserver = Arc<dyn Fn(&Proposal) + Send + Sync>;

/// openraft's log storage and reader over a [`LogStore`]. Clones share the store.
pub struct LogAdapter<P> {
    store: Arc<dyn LogStore>,
    observer: ProposalObserver,
    platform: PhantomData<P>,
}

impl<P> Clone for LogAdapter<P> {
    fn clone(&self) -> Self {
        Self { store: self.store.clone(), observer: self.observer.clone(), platform: PhantomData }
    }
}

impl<P: Platform> LogAdapter<P> {
    /// An adapter to `store` that shows each appended proposal to `observer`.
    #[must_use]
    pub fn new(store: Arc<dyn LogStore>, observer: ProposalObserver) -> Self {
        Self { store, observer, platform: PhantomData }
    }

    /// Makes all that was written durable and waits for it.
    async fn flush(&self) -> io::Result<()> {
        let (sender, receiver) = oneshot::channel();
        self.store.flush(Box::new(move |result| {
            // The waiter may be gone with its node; nobody wants the answer then.
            let _ = sender.send(result);
        }));
        receiver.await.unwrap_or_else(|_| Err(io::Error::other("the log stopped before a vote was on the disk")))
    }

    fn to_record(&self, entry: &EntryOf<Types<P>>) -> Record {
        if let EntryPayload::Normal(proposal) = &entry.payload {
            (self.observer)(proposal);
        }
        Record { id: log_id_from_raft::<P>(&entry.log_id), payload: encode_payload::<P>(&entry.payload) }
    }
}

impl<P: Platform> RaftLogStorage<Types<P>> for LogAdapter<P> {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<RaftLogState<Types<P>>, io::Error> {
        let state = self.store.state();
        Ok(RaftLogState {
            last_purged_log_id: state.purged.map(log_id_to_raft::<P>),
            last_log_id: state.last.map(log_id_to_raft::<P>),
        })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &VoteOf<Types<P>>) -> Result<(), io::Error> {
        self.store.save_vote(vote_from_raft::<P>(vote))?;
        self.flush().await
    }

    async fn save_committed(&mut self, committed: Option<LogIdOf<Types<P>>>) -> Result<(), io::Error> {
        // A hint for restarts, not flushed: the next append carries it to the disk, in order.
        committed.map_or(Ok(()), |id| self.store.save_committed(log_id_from_raft::<P>(&id)))
    }

    async fn read_committed(&mut self) -> Result<Option<LogIdOf<Types<P>>>, io::Error> {
        Ok(self.store.state().committed.map(log_id_to_raft::<P>))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types<P>>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = EntryOf<Types<P>>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let records: Vec<Record> = entries.into_iter().map(|entry| self.to_record(&entry)).collect();
        assert_contiguous(self.store.state().last, &records, io::ErrorKind::InvalidInput)?;
        self.store.append(records)?;
        #[cfg(feature = "deliberate-bugs")]
        if crate::bugs::active(crate::bugs::Bug::AcknowledgeBeforeFlush) {
            callback.io_completed(Ok(()));
            self.store.flush(Box::new(|_| ()));
            return Ok(());
        }
        self.store.flush(Box::new(move |result| callback.io_completed(result)));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogIdOf<Types<P>>>) -> Result<(), io::Error> {
        // Not flushed: what is appended behind it becomes durable after it, and before that nothing relies on it.
        self.store.truncate_after(last.map(|id| log_id_from_raft::<P>(&id)))
    }

    async fn purge(&mut self, upto: LogIdOf<Types<P>>) -> Result<(), io::Error> {
        self.store.purge(log_id_from_raft::<P>(&upto))?;
        // Space comes back only when the purge is on the disk. An error here meets the next append too.
        self.store.flush(Box::new(|_| ()));
        Ok(())
    }
}

impl<P: Platform> RaftLogReader<Types<P>> for LogAdapter<P> {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<EntryOf<Types<P>>>, io::Error> {
        read_entries::<P>(self.store.as_ref(), half_open(&range), usize::MAX)
    }

    async fn read_vote(&mut self) -> Result<Option<VoteOf<Types<P>>>, io::Error> {
        Ok(self.store.state().vote.map(vote_to_raft::<P>))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<EntryOf<Types<P>>>, io::Error> {
        let entries = read_entries::<P>(self.store.as_ref(), start..end, READ_BYTES_MAX)?;
        // A replication task that outlived its leadership may ask for what was purged since. Entries behind a gap
        // must not be sent as if they followed; openraft takes nothing for an answer and asks again.
        Ok(if entries.first().is_some_and(|first| first.log_id.index() != start) { Vec::new() } else { entries })
    }

    async fn leader_bounded_stream<RB>(
        &mut self,
        leader: LeaderIdOf<Types<P>>,
        range: RB,
    ) -> impl Stream<Item = LeaderBoundedStreamResult<Types<P>>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        entry_stream::<P, _>(self.store.clone(), half_open(&range), move |store| {
            let vote = store.state().vote.map(vote_to_raft::<P>);
            if vote.as_ref().is_some_and(|vote| *vote.leader_id() == leader && vote.is_committed()) {
                Ok(())
            } else {
                Err(LeaderBoundedStreamError::LeaderChanged(LeaderChanged::new(leader, vote)))
            }
        })
    }

    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = io::Result<EntryOf<Types<P>>>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        entry_stream::<P, io::Error>(self.store.clone(), half_open(&range), |_| Ok(()))
    }
}

/// Streams entries piece by piece; `check` must hold before and after each piece was read.
fn entry_stream<P: Platform, E: From<io::Error> + Send + 'static>(
    store: Arc<dyn LogStore>,
    range: Range<u64>,
    check: impl Fn(&dyn LogStore) -> Result<(), E> + Send + 'static,
) -> BoxStream<'static, Result<EntryOf<Types<P>>, E>> {
    let mut next = range.start;
    let pieces = stream::iter(std::iter::from_fn(move || {
        if next >= range.end {
            return None;
        }
        let piece = check(store.as_ref()).and_then(|()| {
            let piece = read_entries::<P>(store.as_ref(), next..range.end, READ_BYTES_MAX)?;
            check(store.as_ref()).map(|()| piece)
        });
        next = match &piece {
            Ok(entries) => entries.last()?.log_id.index().saturating_add(1),
            Err(_) => range.end,
        };
        Some(piece.map(|entries| stream::iter(entries.into_iter().map(Ok))))
    }));
    pieces.try_flatten().boxed()
}

fn read_entries<P: Platform>(
    store: &dyn LogStore,
    range: Range<u64>,
    bytes_max: usize,
) -> io::Result<Vec<EntryOf<Types<P>>>> {
    if range.is_empty() {
        return Ok(Vec::new());
    }
    let records = store.read(range, bytes_max)?;
    assert_contiguous(None, &records, io::ErrorKind::InvalidData)?;
    records
        .iter()
        .map(|record| {
            let payload = decode_payload::<P>(&record.payload)?;
            Ok(EntryOf::<Types<P>> { log_id: log_id_to_raft::<P>(record.id), payload })
        })
        .collect()
}

/// Right before records are written and right after they are read: no gap, no step back.
fn assert_contiguous(last: Option<LogId>, records: &[Record], kind: io::ErrorKind) -> io::Result<()> {
    let mut previous = last;
    for record in records {
        if let Some(previous) = previous
            && (record.id.index != previous.index + 1 || record.id.term < previous.term)
        {
            let reason = format!("log record {} does not follow {previous}; this node must not go on", record.id);
            return Err(io::Error::new(kind, reason));
        }
        previous = Some(record.id);
    }
    Ok(())
}

fn half_open(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(index) => *index,
        Bound::Excluded(index) => index.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(index) => index.saturating_add(1),
        Bound::Excluded(index) => *index,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

#[cfg(test)]
mod tests;
