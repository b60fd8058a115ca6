//! What every store is held to: openraft's storage suite, and our own contracts where they ask for more.
//!
//! The product's files and the simulator's model pass the same.

use std::io;
use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::channel::oneshot;
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use quorate_node::consensus::Types;
use quorate_node::platform::Platform;
use quorate_node::storage::{LogAdapter, LogId, LogState, LogStore, Record, Vote};

mod machine;
pub mod snapshots;

use machine::SuiteMachine;

/// An empty store, and what must live as long as it.
pub type Opened<G> = (G, Arc<dyn LogStore>);

struct Builder<P, F> {
    open: F,
    platform: PhantomData<P>,
}

impl<P, G, F> StoreBuilder<Types<P>, LogAdapter<P>, SuiteMachine<P>, G> for Builder<P, F>
where
    P: Platform,
    G: Send + Sync,
    F: Fn() -> Opened<G> + Send + Sync,
{
    async fn build(&self) -> Result<(G, LogAdapter<P>, SuiteMachine<P>), StorageError<Types<P>>> {
        let (guard, store) = (self.open)();
        Ok((guard, LogAdapter::new(store, Arc::new(|_| ())), SuiteMachine::default()))
    }
}

/// Runs openraft's suite on stores that `open` makes, each empty, through the product's adapter. The suite's state
/// machine is a minimal one.
///
/// # Panics
/// When a store fails the suite.
pub async fn openraft_suite<P: Platform, G: Send + Sync>(open: impl Fn() -> Opened<G> + Send + Sync) {
    let builder = Builder { open, platform: PhantomData::<P> };
    Suite::test_all(builder).await.unwrap();
}

/// Runs our own contract on stores that `open` makes, each empty.
///
/// # Panics
/// When a store breaks it.
pub async fn own_contract<G>(open: impl Fn() -> Opened<G>) {
    truncating_behind_the_end_changes_nothing(&*open().1);
    purging_behind_the_end_moves_the_end(&*open().1).await;
    committed_is_only_a_hint(&*open().1);
    votes_replace_each_other(&*open().1);
    reading_is_bounded_in_bytes(&*open().1);
    flushes_are_all_reported(&*open().1).await;
}

/// A log position.
#[must_use]
pub fn id(term: u64, index: u64) -> LogId {
    LogId { term, index }
}

/// A record with a payload of its own.
#[must_use]
pub fn record(term: u64, index: u64) -> Record {
    Record { id: id(term, index), payload: Bytes::from(format!("payload {index} of term {term}")) }
}

/// Records of one term.
#[must_use]
pub fn records(term: u64, indexes: std::ops::Range<u64>) -> Vec<Record> {
    indexes.map(|index| record(term, index)).collect()
}

/// Starts a flush, now; the future waits for what it reports. One that is never reported is an error too.
pub fn flush(store: &dyn LogStore) -> impl Future<Output = io::Result<()>> + Send + use<> {
    let (sender, receiver) = oneshot::channel();
    store.flush(Box::new(move |result| drop(sender.send(result))));
    receiver.map(|reported| reported.unwrap_or_else(|_| Err(io::Error::other("never reported"))))
}

fn truncating_behind_the_end_changes_nothing(store: &dyn LogStore) {
    store.truncate_after(None).unwrap();
    store.append(records(1, 0..3)).unwrap();
    store.truncate_after(Some(id(1, 2))).unwrap();
    store.truncate_after(Some(id(1, 7))).unwrap();
    assert_eq!(store.state().last, Some(id(1, 2)));
    store.truncate_after(Some(id(1, 0))).unwrap();
    store.append(records(2, 1..3)).unwrap();
    let expected: Vec<_> = [record(1, 0)].into_iter().chain(records(2, 1..3)).collect();
    assert_eq!(store.read(0..9, usize::MAX).unwrap(), expected);
}

async fn purging_behind_the_end_moves_the_end(store: &dyn LogStore) {
    store.append(records(1, 0..3)).unwrap();
    store.purge(id(2, 9)).unwrap();
    let purged = LogState { purged: Some(id(2, 9)), last: Some(id(2, 9)), ..LogState::default() };
    assert_eq!(store.state(), purged);
    store.purge(id(1, 1)).unwrap();
    assert_eq!(store.state(), purged, "purging less than before");
    flush(store).await.unwrap();
    store.append(records(2, 10..12)).unwrap();
    assert_eq!(store.read(0..99, usize::MAX).unwrap(), records(2, 10..12));
}

fn committed_is_only_a_hint(store: &dyn LogStore) {
    store.save_committed(id(1, 0)).unwrap();
    assert_eq!(store.state().committed, None, "nothing to commit");
    store.append(records(1, 0..3)).unwrap();
    store.save_committed(id(1, 1)).unwrap();
    store.save_committed(id(1, 9)).unwrap();
    store.save_committed(id(1, 0)).unwrap();
    assert_eq!(store.state().committed, Some(id(1, 1)));
}

fn votes_replace_each_other(store: &dyn LogStore) {
    for (term, node, committed) in [(1, 1, false), (1, 1, true), (2, 3, false), (2, 1, true), (2, 1, true)] {
        let vote = Vote { term, node, committed };
        store.save_vote(vote).unwrap();
        assert_eq!(store.state().vote, Some(vote));
    }
}

fn reading_is_bounded_in_bytes(store: &dyn LogStore) {
    let all = records(1, 0..5);
    store.append(all.clone()).unwrap();
    let two = all[0].payload.len() + all[1].payload.len();
    assert_eq!(store.read(0..5, 0).unwrap(), all[..1]);
    assert_eq!(store.read(0..5, two).unwrap(), all[..2]);
    assert_eq!(store.read(0..5, two + 1).unwrap(), all[..3]);
    assert_eq!(store.read(3..5, usize::MAX).unwrap(), all[3..]);
    assert_eq!(store.read(4..99, 1).unwrap(), all[4..]);
}

async fn flushes_are_all_reported(store: &dyn LogStore) {
    let flushes: Vec<_> = (0..100)
        .map(|index| {
            store.append(vec![record(1, index)]).unwrap();
            flush(store)
        })
        .collect();
    for result in futures::future::join_all(flushes).await {
        result.unwrap();
    }
}

#[cfg(test)]
mod tests {
    use openraft_rt::AsyncRuntime as _;
    use openraft_rt_sim::SimRuntime;
    use quorate_node::platform::Tokio;
    use quorate_node::storage::{FileLog, FileSnapshotStore};
    use tempfile::TempDir;

    use super::*;
    use crate::simulation::Sim;
    use crate::simulation::disk::SimDisk;

    fn files() -> Opened<TempDir> {
        let folder = tempfile::tempdir().unwrap();
        let log = FileLog::open(folder.path()).unwrap();
        (folder, Arc::new(log))
    }

    fn model() -> Opened<()> {
        ((), SimDisk::default().open().log)
    }

    #[tokio::test]
    async fn files_pass_openrafts_suite() {
        openraft_suite::<Tokio, _>(files).await;
    }

    #[tokio::test]
    async fn files_keep_our_contract() {
        own_contract(files).await;
    }

    #[tokio::test]
    async fn snapshot_files_keep_our_contract() {
        let folder = tempfile::tempdir().unwrap();
        let store = FileSnapshotStore::open(folder.path()).unwrap();
        snapshots::snapshot_contract(&store).await;
        let names: Vec<_> = folder.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["snapshot.bin"], "nothing else is left");
    }

    #[test]
    fn the_simulators_snapshots_keep_our_contract() {
        let contract = async { snapshots::snapshot_contract(&*SimDisk::default().open().snapshots).await };
        SimRuntime::with_seed(1).block_on(contract);
    }

    #[test]
    fn the_simulators_model_passes_openrafts_suite() {
        SimRuntime::with_seed(1).block_on(openraft_suite::<Sim, _>(model));
    }

    #[test]
    fn the_simulators_model_keeps_our_contract() {
        SimRuntime::with_seed(1).block_on(own_contract(model));
    }
}
