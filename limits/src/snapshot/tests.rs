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

/// The same bytes with a checksum that fits them.
fn sealed(mut body: Vec<u8>) -> Vec<u8> {
    let crc = crc32fast::hash(&body);
    body.extend_from_slice(&crc.to_le_bytes());
    body
}

fn body(world: &World) -> Vec<u8> {
    let mut bytes = world.bytes();
    bytes.truncate(bytes.len() - 4);
    bytes
}

#[test]
fn every_single_byte_of_damage_is_detected() {
    let bytes = world().bytes();
    assert_eq!(refusal(&bytes), None);
    for place in 0..bytes.len() {
        for flip in [1, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[place] ^= flip;
            let expected = if place == 0 { SnapshotError::Version(VERSION ^ flip) } else { SnapshotError::Checksum };
            assert_eq!(refusal(&damaged), Some(expected), "byte {place}");
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
    let mut body = body(&world());
    body[0] = 9;
    let error = refusal(&sealed(body)).unwrap();
    assert_eq!(error, SnapshotError::Version(9));
    assert_eq!(
        error.to_string(),
        "the snapshot has version 9, this release reads version 1; run the release that wrote it"
    );
}

/// Damage under a checksum that fits: nothing that a disk does, but a program might.
#[test]
fn damage_under_a_valid_checksum_is_refused_or_harmless() {
    let body = body(&world());
    let hash = world().machine.state_hash();
    for place in 1..body.len() {
        let mut damaged = body.clone();
        damaged[place] ^= 0x41;
        if let Ok(machine) = StateMachine::decode(&sealed(damaged)) {
            panic!("byte {place} of {} is in no hash ({})", body.len(), machine.state_hash() == hash);
        }
    }
}

#[test]
fn counters_out_of_order_refused() {
    let mut body = body(&world());
    let counters = body.len() - 16 - 2 * COUNTER_BYTES;
    let (first, second) = body[counters..].split_at_mut(COUNTER_BYTES);
    first.swap_with_slice(&mut second[..COUNTER_BYTES]);
    assert_eq!(refusal(&sealed(body)), Some(SnapshotError::Content("counters out of order")));
}

#[test]
fn enormous_counts_allocate_nothing() {
    let mut body = body(&world());
    body[1..9].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(matches!(refusal(&sealed(body)), Some(SnapshotError::Truncated(_))));
}

#[test]
fn written_in_chunks_equals_encoded_at_once() {
    struct Chunks(Vec<usize>, Vec<u8>);
    impl Write for Chunks {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.push(bytes.len());
            self.1.extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let settings = crate::Settings { counters_max: 100_000, ..crate::testing::settings() };
    let mut world = World::with(settings, vec![policy("p")]);
    for part in 0..10 {
        let commands = (0..500).map(|number| world.command(&client(&format!("{part} {number}"), 1))).collect();
        world.send(commands);
    }
    let mut chunks = Chunks(vec![], vec![]);
    world.machine.freeze().write_to(&mut chunks).unwrap();
    assert!(chunks.0.len() > 3, "{:?}", chunks.0);
    assert_eq!(chunks.1, world.bytes());
}

#[test]
fn writers_error_is_handed_on() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let error = world().machine.freeze().write_to(&mut Full).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
}

proptest! {
    #[test]
    fn any_bytes_are_survived(mut body in prop::collection::vec(any::<u8>(), 0..300), header in 0..300u64) {
        body.splice(0..0, [[VERSION].as_slice(), &header.to_le_bytes()].concat());
        prop_assert!(refusal(&sealed(body)).is_some());
    }

    #[test]
    fn any_damage_under_a_valid_checksum_is_survived(places in prop::collection::vec((any::<usize>(), any::<u8>()), 1..8)) {
        let mut body = body(&world());
        for (place, byte) in places {
            let place = 1 + place % (body.len() - 1);
            body[place] = byte;
        }
        if let Ok(mut machine) = StateMachine::decode(&sealed(body)) {
            machine.apply(&crate::Batch::default());
        }
    }
}
