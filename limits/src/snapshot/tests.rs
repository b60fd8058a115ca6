//! Damage of every kind; round trips are with the machine's tests.

use proptest::prelude::*;

use super::*;
use crate::machine::StateMachine;
use crate::testing::{World, client, policy};

fn world() -> World {
    let mut world = World::new(vec![policy("p"), policy("q")]);
    for id in ["a", "b", "c"] {
        world.decide(&client(id, 2));
    }
    world
}

fn refusal(bytes: &[u8]) -> Option<SnapshotError> {
    StateMachine::decode(bytes).err()
}

#[test]
fn every_single_byte_of_damage_is_detected() {
    let bytes = world().bytes();
    assert_eq!(refusal(&bytes), None);
    for place in 0..bytes.len() {
        for flip in [1, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[place] ^= flip;
            let refusal = refusal(&damaged);
            assert!(refusal.is_some(), "byte {place} of {} is in no hash", bytes.len());
            assert_eq!(
                refusal == Some(SnapshotError::Version(VERSION ^ flip)),
                place == 0,
                "byte {place}: {refusal:?}"
            );
        }
    }
}

#[test]
fn every_cut_is_detected() {
    let bytes = world().bytes();
    for length in 0..bytes.len() {
        assert!(refusal(&bytes[..length]).is_some(), "{length} bytes");
    }
    assert_eq!(refusal(&[]), Some(SnapshotError::Truncated(0)));
    assert!(refusal(&[bytes, vec![0]].concat()).is_some());
}

#[test]
fn unknown_version_refused_with_what_to_do() {
    let mut bytes = world().bytes();
    bytes[0] = 9;
    let error = refusal(&bytes).unwrap();
    assert_eq!(error, SnapshotError::Version(9));
    assert_eq!(
        error.to_string(),
        "the snapshot has version 9, this release reads version 1; run the release that wrote it"
    );
}

#[test]
fn counters_out_of_order_refused() {
    let mut bytes = world().bytes();
    let counters = bytes.len() - HASH_BYTES - 2 * COUNTER_BYTES;
    let (first, second) = bytes[counters..].split_at_mut(COUNTER_BYTES);
    first.swap_with_slice(&mut second[..COUNTER_BYTES]);
    assert_eq!(refusal(&bytes), Some(SnapshotError::Content("counters out of order")));
}

#[test]
fn enormous_counts_allocate_nothing() {
    let mut bytes = world().bytes();
    bytes[1..9].copy_from_slice(&u64::MAX.to_le_bytes());
    assert_eq!(refusal(&bytes), Some(SnapshotError::Truncated(bytes.len())));
}

fn large_world() -> World {
    let settings = crate::Settings { counters_max: 100_000, ..crate::testing::settings() };
    let mut world = World::with(settings, vec![policy("p")]);
    for part in 0..10 {
        let commands = (0..500).map(|number| world.command(&client(&format!("{part} {number}"), 1))).collect();
        world.send(commands);
    }
    world
}

#[test]
fn pieces_are_bounded_and_together_all_bytes() {
    let world = large_world();
    let pieces: Vec<_> = world.machine.freeze().into_pieces(4096).collect();
    assert!(pieces.len() > 40, "{}", pieces.len());
    // The first has policies and sessions, whose results are many here; the last has what is left.
    let rest = &pieces[1..pieces.len() - 1];
    assert!(rest.iter().all(|piece| (4096..4096 + 2 * 12 * COUNTER_BYTES).contains(&piece.len())));
    assert_eq!(pieces.concat(), world.bytes());
}

#[test]
fn state_read_in_pieces_of_any_size_is_the_same() {
    let world = world();
    let bytes = world.bytes();
    for size in 1..bytes.len() {
        let mut decoder = Decoder::default();
        for piece in bytes.chunks(size) {
            decoder.push(piece).unwrap();
        }
        assert_eq!(decoder.finish().unwrap().state_hash(), world.machine.state_hash(), "pieces of {size}");
    }
}

#[test]
fn counters_whose_bytes_are_made_are_let_go() {
    let mut world = large_world();
    let pieces = world.machine.freeze().into_pieces(4096);
    let shared = |world: &World| {
        let shards = world.machine.freeze().0.counters.into_shards();
        // This freeze and the machine hold each shard once.
        shards.iter().filter(|shard| Arc::strong_count(shard) > 2).count()
    };
    let all = shared(&world);
    let before = world.bytes();
    let mut bytes = Vec::new();
    let mut last = all;
    for piece in pieces {
        bytes.extend(piece);
        assert!(shared(&world) <= last);
        last = shared(&world);
        // Changes of those that are still to come do not show.
        world.decide(&client(&format!("later {}", bytes.len()), 1));
    }
    assert_eq!((all, last), (256, 0));
    assert_eq!(bytes, before);
}

proptest! {
    #[test]
    fn any_bytes_are_survived(mut body in prop::collection::vec(any::<u8>(), 0..300), header in 0..300u64) {
        body.splice(0..0, [[VERSION].as_slice(), &header.to_le_bytes()].concat());
        prop_assert!(refusal(&body).is_some());
    }

    #[test]
    fn any_damage_is_survived(places in prop::collection::vec((any::<usize>(), any::<u8>()), 1..8)) {
        let mut bytes = world().bytes();
        for (place, byte) in places {
            let place = 1 + place % (bytes.len() - 1);
            bytes[place] = byte;
        }
        if let Ok(mut machine) = StateMachine::decode(&bytes) {
            machine.apply(&crate::Batch::default());
        }
    }
}
