use std::fs;

use super::*;
use crate::storage::{ClusterId, Promise};

fn identity() -> Identity {
    let members = [(u64::MAX, "node-0".to_owned()), (3, "node-1".to_owned())].into();
    Identity {
        node: u64::MAX,
        name: "node-0".to_owned(),
        boot: 4,
        cluster: Some(ClusterId(0xfeed)),
        address: Some("10.0.0.1:50001".to_owned()),
        refused: None,
        promise: Some(Promise { cluster: ClusterId(0xfeed), members }),
        removed: false,
    }
}

#[test]
fn an_identity_saved_is_loaded_again_and_replaces_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let store = FileIdentityStore::open(folder.path()).unwrap();
    assert_eq!(store.load().unwrap(), None);
    for boot in 1..3 {
        let identity = Identity { boot, ..identity() };
        store.save(&identity).unwrap();
        assert_eq!(FileIdentityStore::open(folder.path()).unwrap().load().unwrap(), Some(identity));
    }
}

#[test]
fn an_identity_half_written_is_removed_and_the_old_one_stays() {
    let folder = tempfile::tempdir().unwrap();
    FileIdentityStore::open(folder.path()).unwrap().save(&identity()).unwrap();
    let half = folder.path().join("node.tmp");
    fs::write(&half, b"{\"ver").unwrap();
    let store = FileIdentityStore::open(folder.path()).unwrap();
    assert!(!half.exists());
    assert_eq!(store.load().unwrap(), Some(identity()));
}

#[test]
fn a_damaged_identity_is_refused_with_file_and_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let store = FileIdentityStore::open(folder.path()).unwrap();
    store.save(&identity()).unwrap();
    let path = folder.path().join("node.json");
    let text = fs::read_to_string(&path).unwrap();
    let file = path.display();
    let remedy = "this node must not vote with what it has. If the other members hold a quorum, start it with an empty \
                  DATA_DIR: it replaces its former self and copies the state from them";
    let refused = |from: &str, to: &str| {
        assert!(text.contains(from), "{text}");
        fs::write(&path, text.replacen(from, to, 1)).unwrap();
        store.load().unwrap_err().to_string()
    };
    assert_eq!(
        refused("\"boot\": 4", "\"boot\": 3"),
        format!("{file} is damaged: its checksum does not match; it must not be edited; {remedy}")
    );
    assert_eq!(
        refused("\"version\": 1", "\"version\": 2"),
        format!(
            "{file} has version 2, this build knows 1; run the version of the limiter that wrote it, or a later one"
        )
    );
    assert_eq!(
        refused("\"version\": 1,", ""),
        format!("{file} is damaged: missing field `version` at line 19 column 1; {remedy}")
    );
    assert_eq!(
        refused("\"boot\": 4,", ""),
        format!("{file} is damaged: missing field `boot` at line 18 column 3; {remedy}")
    );
    fs::write(&path, "").unwrap();
    assert_eq!(
        store.load().unwrap_err().to_string(),
        format!("{file} is damaged: EOF while parsing a value at line 1 column 0; {remedy}")
    );
}
