use tempfile::TempDir;

use super::*;
use crate::storage::{Identity, IdentityStore as _, LogId, Record, Vote};

const REMEDY: &str = "this node must not vote with what it has. If the other members hold a quorum, start it with an \
                      empty DATA_DIR: it replaces its former self and copies the state from them";

fn refusal(folder: &Path) -> String {
    Disk::open(folder).err().expect("a refusal").to_string()
}

/// A data folder with an identity, a vote and a record, and without a snapshot.
fn used() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let (disk, _lock) = Disk::open(folder.path()).unwrap();
    let identity = Identity {
        node: 7,
        name: "node-7".to_owned(),
        boot: 1,
        cluster: None,
        address: None,
        refused: None,
        promise: None,
        removed: false,
    };
    disk.identity.save(&identity).unwrap();
    disk.log.save_vote(Vote { term: 1, node: 7, committed: true }).unwrap();
    disk.log.append(vec![Record { id: LogId { term: 1, index: 0 }, payload: "payload".into() }]).unwrap();
    folder
}

#[test]
fn a_folder_that_is_not_there_is_made_and_opens_again_as_it_was() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("data/node-7");
    for _ in 0..2 {
        let (disk, _lock) = Disk::open(&folder).unwrap();
        assert_eq!(disk.identity.load().unwrap(), None);
        assert_eq!(disk.log.state(), LogState::default());
    }
    let folder = used();
    let (disk, _lock) = Disk::open(folder.path()).unwrap();
    assert_eq!(disk.identity.load().unwrap().unwrap().node, 7);
    assert_eq!(disk.log.state().last, Some(LogId { term: 1, index: 0 }));
}

#[test]
fn a_folder_in_use_is_refused_until_it_is_free() {
    let folder = used();
    let (disk, lock) = Disk::open(folder.path()).unwrap();
    let refusal = refusal(folder.path());
    let path = folder.path().display();
    let expected = "is in use by another process; stop that process, or set DATA_DIR to another folder";
    assert_eq!(refusal, format!("the data folder {path} {expected}"));
    drop((disk, lock));
    Disk::open(folder.path()).unwrap();
}

#[test]
fn data_without_identity_is_refused() {
    let folder = used();
    fs::remove_file(folder.path().join("node.json")).unwrap();
    let path = folder.path().display();
    let expected = format!("the data folder {path} holds a log or a snapshot but no node.json; {REMEDY}");
    assert_eq!(refusal(folder.path()), expected);
}

#[tokio::test]
async fn a_snapshot_without_identity_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, lock) = Disk::open(folder.path()).unwrap();
    disk.snapshots.begin().await.unwrap().keep().await.unwrap();
    drop((disk, lock));
    assert!(refusal(folder.path()).contains("holds a log or a snapshot but no node.json"));
}

#[test]
fn an_identity_without_log_is_refused_every_time() {
    let folder = used();
    fs::remove_dir_all(folder.path().join("log")).unwrap();
    let path = folder.path().display();
    for _ in 0..2 {
        assert_eq!(refusal(folder.path()), format!("the data folder {path} holds node.json but no log; {REMEDY}"));
    }
}

#[test]
fn a_purged_log_without_snapshot_is_refused() {
    let folder = used();
    let (disk, lock) = Disk::open(folder.path()).unwrap();
    disk.log.purge(LogId { term: 1, index: 0 }).unwrap();
    drop((disk, lock));
    let path = folder.path().display();
    let expected =
        format!("the data folder {path} holds a log that goes on behind a snapshot but no snapshot.bin; {REMEDY}");
    assert_eq!(refusal(folder.path()), expected);
}

#[test]
fn a_path_that_is_no_folder_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let refusal = refusal(file.path());
    assert!(refusal.starts_with(&format!("cannot make {}: ", file.path().display())), "{refusal}");
    assert!(refusal.ends_with("; check that the data folder exists, is writable and has space"), "{refusal}");
}

/// The names in a folder, in order.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.collect();
    names.sort();
    names
}

/// [`used`], and its cluster has said that it was removed.
fn removed() -> TempDir {
    let folder = used();
    fs::write(folder.path().join("snapshot.bin"), "a snapshot").unwrap();
    let store = FileIdentityStore::open(folder.path()).unwrap();
    let identity = store.read().unwrap().unwrap();
    store.save(&Identity { removed: true, ..identity }).unwrap();
    folder
}

const ARCHIVE: &str = "removed-0000000000000007";

#[test]
fn removed_nodes_data_is_put_aside_and_the_folder_takes_a_new_node() {
    let folder = removed();
    for _ in 0..2 {
        let (disk, _lock) = Disk::open(folder.path()).unwrap();
        assert_eq!(disk.identity.load().unwrap(), None);
        assert_eq!(disk.log.state(), LogState::default());
        assert_eq!(names(&folder.path().join(ARCHIVE)), ["log", "node.json", "snapshot.bin"]);
    }
    let former = FileIdentityStore::open(&folder.path().join(ARCHIVE)).unwrap().read().unwrap().unwrap();
    assert_eq!((former.node, former.removed), (7, true));
}

#[test]
fn crash_while_data_is_put_aside_the_next_start_goes_on() {
    for moved in [&[][..], &["log"], &["log", "snapshot.bin"], &["log", "snapshot.bin", "node.json"]] {
        let folder = removed();
        let archive = folder.path().join(ARCHIVE);
        fs::create_dir(&archive).unwrap();
        for name in moved {
            fs::rename(folder.path().join(name), archive.join(name)).unwrap();
        }
        let (disk, _lock) = Disk::open(folder.path()).unwrap();
        assert_eq!(disk.identity.load().unwrap(), None, "{moved:?}");
        assert_eq!(names(&archive), ["log", "node.json", "snapshot.bin"], "{moved:?}");
    }
}

#[test]
fn node_removed_twice_leaves_two_archives() {
    let folder = removed();
    let (disk, lock) = Disk::open(folder.path()).unwrap();
    let first = FileIdentityStore::open(&folder.path().join(ARCHIVE)).unwrap().read().unwrap().unwrap();
    disk.identity.save(&Identity { node: 8, ..first }).unwrap();
    drop((disk, lock));
    let (_disk, _lock) = Disk::open(folder.path()).unwrap();
    assert_eq!(names(folder.path()), ["LOCK", "log", ARCHIVE, "removed-0000000000000008"]);
}
