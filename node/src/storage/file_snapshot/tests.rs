use std::fs;

use super::*;

async fn save(store: &FileSnapshotStore, image: &'static [u8]) -> Bytes {
    store.save(Box::new(|| image.to_vec())).await.unwrap()
}

async fn load(store: &FileSnapshotStore) -> Result<Option<Bytes>, String> {
    store.load().await.map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_snapshot_saved_is_loaded_again_and_replaces_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let store = FileSnapshotStore::open(folder.path()).unwrap();
    assert_eq!(load(&store).await.unwrap(), None);
    assert!(!store.is_present());
    for image in [&b"first"[..], b"", b"third"] {
        assert_eq!(save(&store, image).await, image);
        assert_eq!(load(&FileSnapshotStore::open(folder.path()).unwrap()).await.unwrap().unwrap(), image);
    }
    assert!(store.is_present());
}

#[tokio::test]
async fn a_snapshot_half_written_is_removed_and_the_old_one_stays() {
    let folder = tempfile::tempdir().unwrap();
    let store = FileSnapshotStore::open(folder.path()).unwrap();
    save(&store, b"old").await;
    let half = folder.path().join("snapshot.tmp");
    fs::write(&half, b"QUORS").unwrap();
    let store = FileSnapshotStore::open(folder.path()).unwrap();
    assert!(!half.exists());
    assert_eq!(load(&store).await.unwrap().unwrap(), b"old"[..]);
}

#[tokio::test]
async fn a_snapshot_damaged_anywhere_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = FileSnapshotStore::open(folder.path()).unwrap();
    save(&store, b"an image").await;
    let path = folder.path().join("snapshot.bin");
    let whole = fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 4;
        fs::write(&path, &bytes).unwrap();
        load(&store).await.expect_err("a flipped bit");
        fs::write(&path, &whole[..at]).unwrap();
        load(&store).await.expect_err("a cut file");
    }
}

#[tokio::test]
async fn a_refused_snapshot_names_file_damage_and_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let store = FileSnapshotStore::open(folder.path()).unwrap();
    save(&store, b"an image").await;
    let path = folder.path().join("snapshot.bin");
    let whole = fs::read(&path).unwrap();
    let file = path.display();
    let remedy = "this node must not vote with what it has. If the other members hold a quorum, start it with an empty \
                  DATA_DIR: it replaces its former self and copies the state from them";
    let refused = |change: fn(&mut Vec<u8>)| {
        let mut bytes = whole.clone();
        change(&mut bytes);
        fs::write(&path, bytes).unwrap();
        load(&store)
    };
    assert_eq!(
        refused(|bytes| bytes.truncate(5)).await.unwrap_err(),
        format!("{file} is damaged at offset 0: it has 5 bytes, fewer than its header; {remedy}")
    );
    assert_eq!(
        refused(|bytes| bytes[0] = b'q').await.unwrap_err(),
        format!("{file} is damaged at offset 0: it does not begin like a snapshot; {remedy}")
    );
    assert_eq!(
        refused(|bytes| bytes.push(0)).await.unwrap_err(),
        format!("{file} is damaged at offset 12: its header tells of another length than 9, which it has; {remedy}")
    );
    assert_eq!(
        refused(|bytes| bytes[35] ^= 1).await.unwrap_err(),
        format!("{file} is damaged at offset 32: its checksum does not match; {remedy}")
    );
    assert_eq!(
        refused(|bytes| bytes[8] = 2).await.unwrap_err(),
        format!(
            "{file} has version 2, this build knows 1; run the version of the limiter that wrote it, or a later one"
        )
    );
}

#[tokio::test]
async fn a_snapshot_of_another_node_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = FileSnapshotStore::open(folder.path()).unwrap();
    store.bind(7);
    save(&store, b"an image").await;
    store.bind(8);
    let refusal = load(&store).await.unwrap_err();
    assert!(refusal.contains("is of node 0000000000000007, but this folder is of node 0000000000000008"), "{refusal}");
    store.bind(7);
    assert_eq!(load(&store).await.unwrap().unwrap(), b"an image"[..]);
}

#[tokio::test]
async fn a_snapshot_of_an_endless_file_is_refused_before_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let store = FileSnapshotStore::open(folder.path()).unwrap();
    save(&store, b"an image").await;
    let file = fs::File::options().write(true).open(folder.path().join("snapshot.bin")).unwrap();
    file.set_len(1 << 42).unwrap();
    assert!(load(&store).await.unwrap_err().contains("another length"));
}
