use std::sync::Mutex;

use openraft::impls::leader_id_std::LeaderId;
use openraft::type_config::TypeConfigExt as _;

use super::*;
use crate::platform::Tokio;
use crate::storage::{FlushDone, LogState, Vote};

type Adapter = LogAdapter<Tokio>;
type Entry = EntryOf<Types<Tokio>>;

/// A store in memory that does as it is told, also wrong: `records` are what is read.
#[derive(Default)]
struct Fake {
    state: Mutex<LogState>,
    records: Mutex<Vec<Record>>,
    /// What flushes report.
    failure: Option<io::ErrorKind>,
    drops_flushes: bool,
    reads: Mutex<Vec<Range<u64>>>,
    /// A vote that comes in during the next read.
    after_read: Mutex<Option<Vote>>,
}

impl LogStore for Fake {
    fn state(&self) -> LogState {
        *self.state.lock().unwrap()
    }

    fn append(&self, records: Vec<Record>) -> io::Result<()> {
        self.state.lock().unwrap().last = records.last().map(|record| record.id);
        self.records.lock().unwrap().extend(records);
        Ok(())
    }

    fn save_vote(&self, vote: Vote) -> io::Result<()> {
        self.state.lock().unwrap().vote = Some(vote);
        Ok(())
    }

    fn save_committed(&self, committed: LogId) -> io::Result<()> {
        self.state.lock().unwrap().committed = Some(committed);
        Ok(())
    }

    fn truncate_after(&self, _last: Option<LogId>) -> io::Result<()> {
        Ok(())
    }

    fn purge(&self, _upto: LogId) -> io::Result<()> {
        Ok(())
    }

    fn read(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<Record>> {
        self.reads.lock().unwrap().push(range.clone());
        if let Some(vote) = self.after_read.lock().unwrap().take() {
            self.save_vote(vote)?;
        }
        let mut bytes = 0;
        let mut read = Vec::new();
        for record in self.records.lock().unwrap().iter().filter(|record| range.contains(&record.id.index)) {
            if !read.is_empty() && bytes >= bytes_max {
                break;
            }
            bytes += record.payload.len();
            read.push(record.clone());
        }
        Ok(read)
    }

    fn flush(&self, done: FlushDone) {
        if !self.drops_flushes {
            done(self.failure.map_or(Ok(()), |kind| Err(kind.into())));
        }
    }
}

fn entry(term: u64, index: u64, bytes: usize) -> Entry {
    let payload = EntryPayload::Normal(Proposal(vec![0; bytes].into()));
    Entry { log_id: log_id_to_raft::<Tokio>(LogId { term, index }), payload }
}

fn adapter(fake: Fake) -> (Arc<Fake>, Adapter) {
    let fake = Arc::new(fake);
    (fake.clone(), Adapter::new(fake, Arc::new(|_| ())))
}

fn indexes(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.log_id.index()).collect()
}

async fn append(adapter: &mut Adapter, entries: Vec<Entry>) -> io::Result<()> {
    let (sender, receiver) = Types::<Tokio>::oneshot();
    adapter.append(entries, IOFlushed::signal(sender)).await?;
    receiver.await.unwrap()
}

#[tokio::test]
async fn each_appended_proposal_is_shown_to_the_observer() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let observer = seen.clone();
    let observer = Arc::new(move |proposal: &Proposal| observer.lock().unwrap().push(proposal.0.len()));
    let mut adapter = Adapter::new(Arc::new(Fake::default()), observer);
    let blank = Entry { log_id: log_id_to_raft::<Tokio>(LogId { term: 1, index: 1 }), payload: EntryPayload::Blank };
    append(&mut adapter, vec![entry(1, 0, 3), blank, entry(1, 2, 5)]).await.unwrap();
    assert_eq!(*seen.lock().unwrap(), [3, 5]);
}

#[tokio::test]
async fn what_is_appended_is_read_back() {
    let (_, mut adapter) = adapter(Fake::default());
    let entries = vec![entry(1, 0, 3), entry(1, 1, 0), entry(2, 2, 9)];
    append(&mut adapter, entries.clone()).await.unwrap();
    assert_eq!(adapter.try_get_log_entries(..).await.unwrap(), entries);
    assert_eq!(adapter.try_get_log_entries(1..=1).await.unwrap(), entries[1..2]);
    assert_eq!(adapter.try_get_log_entries(2..).await.unwrap(), entries[2..]);
}

#[tokio::test]
async fn entries_that_do_not_follow_are_neither_written_nor_handed_out() {
    let (fake, mut adapter) = adapter(Fake::default());
    append(&mut adapter, vec![entry(2, 0, 1)]).await.unwrap();
    let gap = append(&mut adapter, vec![entry(2, 2, 1)]).await.unwrap_err();
    assert_eq!(gap.to_string(), "log record 2 of term 2 does not follow 0 of term 2; this node must not go on");
    let back = append(&mut adapter, vec![entry(2, 1, 1), entry(1, 2, 1)]).await.unwrap_err();
    assert_eq!(back.to_string(), "log record 2 of term 1 does not follow 1 of term 2; this node must not go on");
    assert_eq!(fake.records.lock().unwrap().len(), 1);
    let hole = adapter.to_record(&entry(2, 2, 1));
    fake.records.lock().unwrap().push(hole);
    let gap = adapter.try_get_log_entries(..).await.unwrap_err();
    assert_eq!(gap.kind(), io::ErrorKind::InvalidData);
    assert_eq!(gap.to_string(), "log record 2 of term 2 does not follow 0 of term 2; this node must not go on");
}

#[tokio::test]
async fn one_read_for_replication_is_bounded_and_never_skips() {
    let (_, mut adapter) = adapter(Fake::default());
    let large = READ_BYTES_MAX / 2;
    let entries = (5..10).map(|index| entry(1, index, large)).collect();
    append(&mut adapter, entries).await.unwrap();
    assert_eq!(indexes(&adapter.limited_get_log_entries(5, 10).await.unwrap()), [5, 6]);
    assert_eq!(indexes(&adapter.limited_get_log_entries(9, 10).await.unwrap()), [9]);
    assert!(adapter.limited_get_log_entries(7, 7).await.unwrap().is_empty());
    assert!(adapter.limited_get_log_entries(4, 10).await.unwrap().is_empty(), "record 4 is not there");
}

#[tokio::test]
async fn a_stream_reads_piece_by_piece_until_the_end() {
    let (fake, mut adapter) = adapter(Fake::default());
    let entries: Vec<Entry> = (0..5).map(|index| entry(1, index, READ_BYTES_MAX / 2)).collect();
    append(&mut adapter, entries.clone()).await.unwrap();
    let streamed: Vec<Entry> = adapter.entries_stream(0..99).await.try_collect().await.unwrap();
    assert_eq!(streamed, entries);
    assert_eq!(*fake.reads.lock().unwrap(), [0..99, 2..99, 4..99, 5..99]);
}

#[tokio::test]
async fn a_leaders_stream_stops_when_the_vote_changes_under_it() {
    let (fake, mut adapter) = adapter(Fake::default());
    let vote = Vote { term: 1, node: 7, committed: true };
    fake.save_vote(vote).unwrap();
    append(&mut adapter, vec![entry(1, 0, READ_BYTES_MAX), entry(1, 1, 1)]).await.unwrap();
    let leader = LeaderId { term: 1, voted_for: 7 };
    let mut stream = adapter.leader_bounded_stream(leader, ..).await;
    assert_eq!(stream.next().await.unwrap().unwrap().log_id.index(), 0);
    *fake.after_read.lock().unwrap() = Some(Vote { term: 2, ..vote });
    let changed = stream.next().await.unwrap().unwrap_err();
    assert!(matches!(changed, LeaderBoundedStreamError::LeaderChanged(_)), "{changed}");
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn a_failed_flush_is_reported_as_an_error() {
    let (_, mut adapter) = adapter(Fake { failure: Some(io::ErrorKind::StorageFull), ..Fake::default() });
    let vote = vote_to_raft::<Tokio>(Vote { term: 1, node: 7, committed: false });
    assert_eq!(append(&mut adapter, vec![entry(1, 0, 1)]).await.unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(adapter.save_vote(&vote).await.unwrap_err().kind(), io::ErrorKind::StorageFull);
}

#[tokio::test]
async fn a_vote_whose_flush_is_never_reported_is_an_error() {
    let (_, mut adapter) = adapter(Fake { drops_flushes: true, ..Fake::default() });
    let vote = vote_to_raft::<Tokio>(Vote { term: 1, node: 7, committed: false });
    let error = adapter.save_vote(&vote).await.unwrap_err();
    assert_eq!(error.to_string(), "the log stopped before a vote was on the disk");
}
