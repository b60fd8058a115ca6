use crate::storage::FileSnapshotStore;

use super::*;

const WHOLE: &[u8] = b"a whole image";
const LEADER: (u64, u64) = (1, 4);

/// A piece of the image, from a leader of a term.
fn piece((_, term): (u64, u64), begin: usize, end: usize) -> SnapshotPiece {
    SnapshotPiece {
        vote: Vote { term, node: term, committed: true },
        total: WHOLE.len() as u64,
        crc: crc32fast::hash(WHOLE),
        offset: begin as u64,
        bytes: WHOLE[begin..end].to_vec(),
    }
}

fn receiver() -> (tempfile::TempDir, Receiver) {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::new(Arc::new(FileSnapshotStore::open(folder.path()).unwrap()));
    (folder, receiver)
}

async fn take(receiver: &Receiver, from: (u64, u64), begin: usize, end: usize) -> Received {
    receiver.take(from.0, piece(from, begin, end)).await.unwrap()
}

fn wanted(received: Received) -> u64 {
    match received {
        Received::Wanted(offset) => offset,
        other => panic!("{other:?}"),
    }
}

async fn assert_whole(received: Received) {
    let Received::Whole(image) = received else { panic!("{received:?}") };
    assert_eq!(image.read(0, WHOLE.len()).await.unwrap(), WHOLE);
}

#[tokio::test]
async fn pieces_in_any_order_and_again_make_the_whole() {
    let (folder, receiver) = receiver();
    assert_eq!(wanted(take(&receiver, LEADER, 5, 9).await), 0, "nothing has begun");
    assert_eq!(wanted(take(&receiver, LEADER, 0, 5).await), 5);
    assert_eq!(wanted(take(&receiver, LEADER, 9, 13).await), 5, "a gap");
    assert_eq!(wanted(take(&receiver, LEADER, 5, 9).await), 9);
    assert_eq!(wanted(take(&receiver, LEADER, 5, 9).await), 9, "sent again");
    assert_whole(take(&receiver, LEADER, 9, 13).await).await;
    assert_eq!(wanted(take(&receiver, LEADER, 9, 13).await), 0, "it is taken");
    assert_eq!(folder.path().read_dir().unwrap().count(), 0, "nobody kept it");
}

#[tokio::test]
async fn snapshot_that_begins_anew_leaves_nothing_of_the_former_one() {
    let (folder, receiver) = receiver();
    take(&receiver, LEADER, 0, 9).await;
    assert_eq!(wanted(take(&receiver, LEADER, 0, 5).await), 5);
    assert_eq!(folder.path().read_dir().unwrap().count(), 1);
    assert_whole(take(&receiver, LEADER, 5, 13).await).await;
}

#[tokio::test]
async fn later_leader_takes_over_and_the_former_one_is_told() {
    let (_folder, receiver) = receiver();
    let later = (2, 5);
    take(&receiver, LEADER, 0, 5).await;
    assert_eq!(wanted(take(&receiver, later, 5, 9).await), 0, "another snapshot, from its beginning");
    assert_eq!(wanted(take(&receiver, later, 0, 9).await), 9);
    for (begin, end) in [(0, 5), (5, 9), (9, 13)] {
        let answer = take(&receiver, LEADER, begin, end).await;
        assert!(matches!(answer, Received::Outvoted(Vote { term: 5, .. })), "{answer:?}");
    }
    assert_whole(take(&receiver, later, 9, 13).await).await;
}

#[tokio::test]
async fn pieces_of_another_snapshot_do_not_mix() {
    let (_folder, receiver) = receiver();
    take(&receiver, LEADER, 0, 5).await;
    let other = SnapshotPiece { crc: 7, ..piece(LEADER, 5, 9) };
    assert_eq!(wanted(receiver.take(LEADER.0, other).await.unwrap()), 0);
    let damaged = SnapshotPiece { bytes: b"garbage!".to_vec(), ..piece(LEADER, 5, 13) };
    assert_eq!(wanted(receiver.take(LEADER.0, damaged).await.unwrap()), 0, "the checksum tells");
    assert_eq!(wanted(take(&receiver, LEADER, 5, 13).await), 0);
}

#[tokio::test]
async fn more_than_was_announced_or_than_there_may_be_is_refused() {
    let (folder, receiver) = receiver();
    take(&receiver, LEADER, 0, 9).await;
    let more = SnapshotPiece { bytes: vec![0; 5], ..piece(LEADER, 9, 13) };
    assert_eq!(receiver.take(LEADER.0, more).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    let huge = SnapshotPiece { total: LENGTH_MAX + 1, ..piece(LEADER, 0, 9) };
    assert_eq!(receiver.take(LEADER.0, huge).await.unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    assert_eq!(folder.path().read_dir().unwrap().count(), 0);
}
