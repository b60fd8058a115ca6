//! What every snapshot store is held to.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use quorate_node::storage::{Image, SnapshotStore};

/// Runs our contract on an empty store.
///
/// # Panics
/// When the store breaks it.
pub async fn snapshot_contract(store: &dyn SnapshotStore) {
    assert_eq!(last(store).await, None);
    a_snapshot_is_there_once_it_is_kept(store).await;
    an_image_is_read_in_any_pieces(store).await;
    an_image_that_is_not_kept_changes_nothing(store).await;
    an_image_that_was_replaced_can_still_be_read(store).await;
    keeping_again_changes_nothing(store).await;
    an_empty_image_is_kept(store).await;
}

/// Makes an image of pieces, and keeps it.
///
/// # Errors
/// Those of the store.
pub async fn keep<const N: usize>(store: &dyn SnapshotStore, pieces: [&'static [u8]; N]) -> io::Result<Arc<dyn Image>> {
    let image = begin(store, pieces).await?;
    Arc::clone(&image).keep().await?;
    Ok(image)
}

/// The bytes of the last snapshot.
///
/// # Panics
/// When it cannot be read.
pub async fn last(store: &dyn SnapshotStore) -> Option<Bytes> {
    Some(whole(&store.last().await.unwrap()?).await)
}

async fn begin<const N: usize>(store: &dyn SnapshotStore, pieces: [&'static [u8]; N]) -> io::Result<Arc<dyn Image>> {
    let image = store.begin().await?;
    for piece in pieces {
        Arc::clone(&image).append(Bytes::from_static(piece)).await?;
    }
    Ok(image)
}

async fn whole(image: &Arc<dyn Image>) -> Bytes {
    Arc::clone(image).read(0, usize::try_from(image.length()).unwrap()).await.unwrap()
}

async fn a_snapshot_is_there_once_it_is_kept(store: &dyn SnapshotStore) {
    let image = begin(store, [b"on", b"e"]).await.unwrap();
    assert_eq!(last(store).await, None, "not kept");
    image.keep().await.unwrap();
    assert_eq!(last(store).await.unwrap(), "one");
    keep(store, [b"two"]).await.unwrap();
    assert_eq!(last(store).await.unwrap(), "two");
}

async fn an_image_is_read_in_any_pieces(store: &dyn SnapshotStore) {
    let image = begin(store, [b"abc", b"", b"defg"]).await.unwrap();
    assert_eq!((image.length(), image.checksum()), (7, crc32fast::hash(b"abcdefg")));
    for is_kept in [false, true] {
        for from in 0..=7 {
            for to in from..=7 {
                let piece = Arc::clone(&image).read(from as u64, to - from).await.unwrap();
                assert_eq!(piece, b"abcdefg"[from..to], "kept: {is_kept}");
            }
        }
        Arc::clone(&image).read(5, 3).await.expect_err("more than there is");
        Arc::clone(&image).keep().await.unwrap();
    }
    let last = store.last().await.unwrap().unwrap();
    assert_eq!((last.length(), last.checksum()), (7, crc32fast::hash(b"abcdefg")));
}

async fn an_image_that_is_not_kept_changes_nothing(store: &dyn SnapshotStore) {
    keep(store, [b"old"]).await.unwrap();
    drop(begin(store, [b"new"]).await.unwrap());
    assert_eq!(last(store).await.unwrap(), "old");
    // Two at a time: one that is made here, one that comes from another node.
    let (one, other) = (begin(store, [b"one"]).await.unwrap(), begin(store, [b"other"]).await.unwrap());
    Arc::clone(&other).append(Bytes::from_static(b" more")).await.unwrap();
    one.keep().await.unwrap();
    assert_eq!(last(store).await.unwrap(), "one");
    other.keep().await.unwrap();
    assert_eq!(last(store).await.unwrap(), "other more");
}

async fn an_image_that_was_replaced_can_still_be_read(store: &dyn SnapshotStore) {
    let image = keep(store, [b"sent to a follower"]).await.unwrap();
    let found = store.last().await.unwrap().unwrap();
    keep(store, [b"newer"]).await.unwrap();
    assert_eq!(whole(&image).await, "sent to a follower");
    assert_eq!(whole(&found).await, "sent to a follower");
}

async fn keeping_again_changes_nothing(store: &dyn SnapshotStore) {
    // A disk that was full may have taken it after all.
    let image = keep(store, [b"twice"]).await.unwrap();
    image.keep().await.unwrap();
    assert_eq!(last(store).await.unwrap(), "twice");
}

async fn an_empty_image_is_kept(store: &dyn SnapshotStore) {
    keep(store, []).await.unwrap();
    assert_eq!(last(store).await.unwrap(), "");
}
