use openraft_rt::AsyncRuntime as _;
use openraft_rt_sim::SimRuntime;
use quorate_node::storage::ClusterId;

use super::*;
use crate::storage_suite::snapshots::{keep, last};
use crate::storage_suite::{flush, id, record, records};

const VOTE: Vote = Vote { term: 3, node: 7, committed: true };

fn simulate<T>(scenario: impl Future<Output = T> + Send) -> T {
    SimRuntime::with_seed(7).block_on(scenario)
}

fn identity() -> Identity {
    Identity {
        node: 7,
        name: "node-7".to_owned(),
        boot: 1,
        cluster: Some(ClusterId(5)),
        address: None,
        refused: None,
        promise: None,
        removed: false,
    }
}

#[test]
fn unflushed_writes_after_a_crash_are_lost() {
    simulate(async {
        let disk = SimDisk::default();
        let log = disk.open().log;
        log.append(records(1, 0..2)).unwrap();
        log.save_vote(VOTE).unwrap();
        flush(&*log).await.unwrap();
        let before = log.state();
        log.append(vec![record(3, 2)]).unwrap();
        log.save_vote(Vote { term: 4, ..VOTE }).unwrap();
        log.save_committed(id(1, 1)).unwrap();
        log.truncate_after(Some(id(1, 1))).unwrap();
        log.purge(id(1, 0)).unwrap();
        assert_eq!(disk.unflushed(), 5);
        disk.crash(0);
        let log = disk.open().log;
        assert_eq!(log.state(), before);
        assert_eq!(log.read(0..9, usize::MAX).unwrap(), records(1, 0..2));
    });
}

#[test]
fn unflushed_writes_after_a_crash_that_keeps_some_survive_in_order() {
    simulate(async {
        let disk = SimDisk::default();
        let log = disk.open().log;
        log.save_vote(VOTE).unwrap();
        log.append(vec![record(3, 0)]).unwrap();
        log.append(vec![record(3, 1)]).unwrap();
        disk.crash(2);
        let state = disk.open().log.state();
        assert_eq!((state.vote, state.last), (Some(VOTE), Some(id(3, 0))));
        assert_eq!(disk.unflushed(), 0);
    });
}

#[test]
fn a_flush_under_way_at_a_crash_is_never_reported() {
    simulate(async {
        let disk = SimDisk::default();
        let log = disk.open().log;
        log.append(records(1, 0..2)).unwrap();
        let pending = flush(&*log);
        disk.crash(0);
        assert_eq!(pending.await.unwrap_err().to_string(), "never reported");
        assert_eq!(disk.open().log.state(), LogState::default());
    });
}

#[test]
fn a_flush_makes_durable_only_what_was_written_before_it() {
    simulate(async {
        let disk = SimDisk::default();
        let log = disk.open().log;
        log.append(vec![record(1, 0)]).unwrap();
        let pending = flush(&*log);
        log.append(vec![record(1, 1)]).unwrap();
        pending.await.unwrap();
        disk.crash(0);
        assert_eq!(disk.open().log.state().last, Some(id(1, 0)));
    });
}

#[test]
fn a_handle_of_a_crashed_node_changes_nothing() {
    simulate(async {
        let disk = SimDisk::default();
        let old = disk.open();
        old.identity.save(&identity()).unwrap();
        old.log.append(vec![record(1, 0)]).unwrap();
        flush(&*old.log).await.unwrap();
        disk.crash(0);
        let crashed = "the node that opened this disk has crashed";
        assert_eq!(old.log.append(vec![record(1, 1)]).unwrap_err().to_string(), crashed);
        assert_eq!(old.log.save_vote(VOTE).unwrap_err().to_string(), crashed);
        assert_eq!(old.log.purge(id(1, 0)).unwrap_err().to_string(), crashed);
        assert_eq!(flush(&*old.log).await.unwrap_err().to_string(), crashed);
        assert_eq!(old.snapshots.begin().await.unwrap_err().to_string(), crashed);
        assert_eq!(old.identity.save(&Identity { boot: 9, ..identity() }).unwrap_err().to_string(), crashed);
        let new = disk.open();
        assert_eq!(new.identity.load().unwrap(), Some(identity()));
        assert_eq!(last(&*new.snapshots).await, None);
        assert_eq!(new.log.state(), LogState { last: Some(id(1, 0)), ..LogState::default() });
    });
}

#[test]
fn a_snapshot_written_across_a_crash_at_any_point_is_the_old_one_as_a_whole() {
    simulate(async {
        let disk = SimDisk::default();
        keep(&*disk.open().snapshots, [b"o", b"ld"]).await.unwrap();
        // A beginning, three pieces, and its taking the place of the old one.
        for crash_at in 0..5 {
            let node = disk.open();
            let mut step = 0;
            let mut crash = || {
                if step == crash_at {
                    disk.crash(0);
                }
                step += 1;
            };
            let written: std::io::Result<()> = async {
                let (image, ()) = futures::join!(node.snapshots.begin(), async { crash() });
                let image = image?;
                for piece in ["n", "e", "w"] {
                    let (appended, ()) = futures::join!(image.clone().append(piece.into()), async { crash() });
                    appended?;
                }
                let (kept, ()) = futures::join!(image.keep(), async { crash() });
                kept
            }
            .await;
            assert_eq!(written.unwrap_err().to_string(), "the node that opened this disk has crashed");
            assert_eq!(last(&*disk.open().snapshots).await.unwrap(), "old", "crash at {crash_at}");
        }
    });
}

#[test]
fn a_wiped_disk_is_empty() {
    simulate(async {
        let disk = SimDisk::default();
        let node = disk.open();
        node.identity.save(&identity()).unwrap();
        keep(&*node.snapshots, [b"image"]).await.unwrap();
        node.log.append(vec![record(1, 0)]).unwrap();
        flush(&*node.log).await.unwrap();
        disk.wipe();
        let node = disk.open();
        assert_eq!(node.identity.load().unwrap(), None);
        assert_eq!(last(&*node.snapshots).await, None);
        assert_eq!(node.log.state(), LogState::default());
    });
}

#[test]
fn an_append_acknowledged_before_its_flush_is_lost_in_a_crash() {
    use openraft::EntryPayload;
    use openraft::alias::EntryOf;
    use openraft::storage::{IOFlushed, RaftLogStorage as _};
    use openraft::type_config::TypeConfigExt as _;
    use quorate_node::bugs::{Bug, set};
    use quorate_node::consensus::{Types, log_id_to_raft};
    use quorate_node::storage::LogAdapter;

    simulate(async {
        for bug in [None, Some(Bug::AcknowledgeBeforeFlush)] {
            set(bug);
            let disk = SimDisk::default();
            let mut adapter = LogAdapter::<Sim>::new(disk.open().log, std::sync::Arc::new(|_| ()));
            let log_id = log_id_to_raft::<Sim>(id(1, 0));
            let entry = EntryOf::<Types<Sim>> { log_id, payload: EntryPayload::Blank };
            let (sender, acknowledged) = Types::<Sim>::oneshot();
            adapter.append([entry], IOFlushed::signal(sender)).await.unwrap();
            acknowledged.await.unwrap().unwrap();
            disk.crash(0);
            let lost = disk.open().log.state().last.is_none();
            assert_eq!(lost, bug.is_some());
        }
        set(None);
    });
}

#[test]
fn a_flush_on_a_full_disk_is_reported_once_there_is_room() {
    simulate(async {
        let disk = SimDisk::default();
        let log = disk.open().log;
        disk.fill(true);
        log.append(records(1, 0..2)).unwrap();
        let flushed = flush(&*log);
        assert!(log.waits_for_room());
        let (elapsed, ()) = futures::join!(
            async {
                let begun = Sim::now();
                flushed.await.unwrap();
                Sim::now() - begun
            },
            async {
                Sim::sleep(Duration::from_secs(1)).await;
                disk.fill(false);
            }
        );
        assert!(elapsed >= Duration::from_secs(1) && !log.waits_for_room());
    });
}

#[test]
fn a_failed_flush_makes_nothing_durable_and_ends_with_the_node() {
    simulate(async {
        let disk = SimDisk::default();
        let log = disk.open().log;
        disk.fail();
        log.append(records(1, 0..2)).unwrap();
        for _ in 0..2 {
            assert_eq!(flush(&*log).await.unwrap_err().to_string(), FLUSH_FAILED);
        }
        disk.crash(0);
        let log = disk.open().log;
        assert_eq!(log.state(), LogState::default());
        flush(&*log).await.unwrap();
    });
}

#[test]
fn a_disk_put_back_is_as_it_was_copied() {
    simulate(async {
        let disk = SimDisk::default();
        assert!(disk.copy().is_none());
        let node = disk.open();
        node.identity.save(&identity()).unwrap();
        node.log.append(records(1, 0..2)).unwrap();
        flush(&*node.log).await.unwrap();
        let copy = disk.copy().unwrap();
        node.identity.save(&Identity { boot: 2, ..identity() }).unwrap();
        node.log.append(vec![record(1, 2)]).unwrap();
        flush(&*node.log).await.unwrap();
        disk.crash(0);
        disk.put_back(copy);
        assert!(node.log.append(vec![record(1, 3)]).is_err(), "it is another disk now");
        let node = disk.open();
        assert_eq!(node.identity.load().unwrap(), Some(identity()));
        assert_eq!(node.log.state().last, Some(id(1, 1)));
    });
}
