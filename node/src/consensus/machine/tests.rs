use super::super::convert::log_id_to_raft;
use super::*;
use crate::platform::Tokio;
use crate::storage::FileSnapshotStore;

#[allow(clippy::unnecessary_wraps, reason = "openraft's positions may be none")]
fn at(index: u64) -> Option<LogIdOf<Types<Tokio>>> {
    Some(log_id_to_raft::<Tokio>(LogId { term: 3, index }))
}

/// A builder of a snapshot that reaches up to `index`.
fn builder(machine: &Machine<Tokio>, index: u64) -> Builder<Tokio> {
    Builder {
        frozen: Some(StateMachine::default().freeze()),
        last: at(index),
        membership: StoredMembershipOf::<Types<Tokio>>::default(),
        snapshots: machine.snapshots.clone(),
    }
}

async fn open(folder: &std::path::Path) -> Machine<Tokio> {
    let store = Arc::new(FileSnapshotStore::open(folder).unwrap());
    Machine::open(store, Arc::default(), 16).await.unwrap()
}

async fn current(machine: &mut Machine<Tokio>) -> Option<LogIdOf<Types<Tokio>>> {
    machine.get_current_snapshot().await.unwrap().and_then(|snapshot| snapshot.meta.last_log_id)
}

#[tokio::test]
async fn snapshot_made_while_a_newer_one_came_does_not_replace_it() {
    let folder = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    let mut leader = open(other.path()).await;
    builder(&leader, 9).build_snapshot().await.unwrap();
    let newer = leader.get_current_snapshot().await.unwrap().unwrap();

    let mut machine = open(folder.path()).await;
    assert_eq!(current(&mut machine).await, None);
    let mut slow = builder(&machine, 5);
    // As it came from the leader: in this node's store.
    let received = machine.snapshots.store.begin().await.unwrap();
    let bytes = newer.snapshot.clone().read(0, usize::try_from(newer.snapshot.length()).unwrap()).await.unwrap();
    received.clone().append(bytes).await.unwrap();
    machine.install_snapshot(&newer.meta, received).await.unwrap();
    assert_eq!((machine.last, current(&mut machine).await), (at(9), at(9)));

    let made = slow.build_snapshot().await.unwrap();
    assert_eq!(made.meta.last_log_id, at(5), "openraft is told what was made");
    drop(made);
    assert_eq!(current(&mut machine).await, at(9));
    let mut machine = open(folder.path()).await;
    assert_eq!((machine.last, current(&mut machine).await), (at(9), at(9)), "after a restart too");
    assert_eq!(folder.path().read_dir().unwrap().count(), 1, "what was not kept is gone");

    builder(&machine, 8).build_snapshot().await.unwrap();
    assert_eq!(current(&mut machine).await, at(9), "what was kept before the restart counts");
    builder(&machine, 12).build_snapshot().await.unwrap();
    assert_eq!(current(&mut machine).await, at(12));
}

#[tokio::test]
async fn image_that_cannot_be_read_leaves_state_and_snapshot_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let mut machine = open(folder.path()).await;
    builder(&machine, 4).build_snapshot().await.unwrap();
    let kept = machine.get_current_snapshot().await.unwrap().unwrap();
    let whole = kept.snapshot.clone().read(0, usize::try_from(kept.snapshot.length()).unwrap()).await.unwrap();
    for length in 0..whole.len() {
        let cut = machine.snapshots.store.begin().await.unwrap();
        cut.clone().append(whole.slice(..length)).await.unwrap();
        machine.install_snapshot(&kept.meta, cut).await.unwrap_err();
    }
    assert_eq!((machine.last, current(&mut machine).await), (None, at(4)));
}

#[tokio::test(start_paused = true)]
async fn snapshot_waits_while_the_disk_is_full() {
    let mut left = 3;
    let begun = tokio::time::Instant::now();
    let written = image::when_room::<Tokio, _>(|| {
        left -= 1;
        let result = if left > 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(left) };
        Box::pin(std::future::ready(result))
    });
    assert_eq!(written.await.unwrap(), 0);
    assert_eq!(begun.elapsed().as_secs(), 2, "it waited twice, by the paused clock");
}
