use std::fs;

use super::*;

async fn save(folder: &Path, image: &'static [u8]) {
    save_of(7, folder, image).await;
}

async fn save_of(node: u64, folder: &Path, bytes: &'static [u8]) {
    let store = FileSnapshotStore::open(folder).unwrap();
    store.bind(node);
    let image = store.begin().await.unwrap();
    image.clone().append(Bytes::from_static(bytes)).await.unwrap();
    image.keep().await.unwrap();
}

/// What a start finds.
async fn load(folder: &Path) -> Result<Option<Bytes>, String> {
    let store = FileSnapshotStore::open(folder).unwrap();
    store.bind(7);
    let Some(image) = store.last().await.map_err(|error| error.to_string())? else { return Ok(None) };
    Ok(Some(image.clone().read(0, usize::try_from(image.length()).unwrap()).await.unwrap()))
}

#[tokio::test]
async fn a_snapshot_saved_is_loaded_again_and_replaces_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let is_present = || FileSnapshotStore::open(folder.path()).unwrap().is_present();
    assert_eq!(load(folder.path()).await.unwrap(), None);
    assert!(!is_present());
    for image in [&b"first"[..], b"", b"third"] {
        save(folder.path(), image).await;
        assert_eq!(load(folder.path()).await.unwrap().unwrap(), image);
    }
    assert!(is_present());
}

#[tokio::test]
async fn snapshots_half_written_are_removed_and_the_old_one_stays() {
    let folder = tempfile::tempdir().unwrap();
    save(folder.path(), b"old").await;
    for number in ["0", "17"] {
        fs::write(folder.path().join(format!("snapshot.{number}.tmp")), b"QUORS").unwrap();
    }
    let other = folder.path().join("snapshot.mine.tmp");
    fs::write(&other, b"somebody's").unwrap();
    assert_eq!(load(folder.path()).await.unwrap().unwrap(), b"old"[..]);
    let left = || fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left(), 2);
    assert!(other.exists());
    // And nothing is in the way of new ones.
    save(folder.path(), b"new").await;
    assert_eq!((load(folder.path()).await.unwrap().unwrap(), left()), (b"new"[..].into(), 2));
}

#[tokio::test]
async fn a_snapshot_damaged_anywhere_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    save(folder.path(), b"an image").await;
    let path = folder.path().join("snapshot.bin");
    let whole = fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 4;
        fs::write(&path, &bytes).unwrap();
        load(folder.path()).await.expect_err("a flipped bit");
        fs::write(&path, &whole[..at]).unwrap();
        load(folder.path()).await.expect_err("a cut file");
    }
}

#[tokio::test]
async fn a_refused_snapshot_names_file_damage_and_remedy() {
    let folder = tempfile::tempdir().unwrap();
    save(folder.path(), b"an image").await;
    let path = folder.path().join("snapshot.bin");
    let whole = fs::read(&path).unwrap();
    let file = path.display();
    let remedy = "this node must not vote with what it has. If the other members hold a quorum, start it with an empty \
                  DATA_DIR: it replaces its former self and copies the state from them";
    let refused = |change: fn(&mut Vec<u8>)| {
        let mut bytes = whole.clone();
        change(&mut bytes);
        fs::write(&path, bytes).unwrap();
        load(folder.path())
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
    save_of(8, folder.path(), b"an image").await;
    let refusal = load(folder.path()).await.unwrap_err();
    assert!(refusal.contains("is of node 0000000000000008, but this folder is of node 0000000000000007"), "{refusal}");
    save_of(7, folder.path(), b"an image").await;
    assert_eq!(load(folder.path()).await.unwrap().unwrap(), b"an image"[..]);
}

#[tokio::test]
async fn a_snapshot_of_an_endless_file_is_refused_before_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    save(folder.path(), b"an image").await;
    let file = fs::File::options().write(true).open(folder.path().join("snapshot.bin")).unwrap();
    file.set_len(1 << 42).unwrap();
    assert!(load(folder.path()).await.unwrap_err().contains("another length"));
}
