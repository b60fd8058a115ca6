//! Bugs of a forerunner with the same API, each with a test that fails when it is put back.

use std::sync::Arc;

use crate::command::{Command, Outcome, Part, Run, SessionId};
use crate::machine::StateMachine;
use crate::policy::{Algorithm, Policy};
use crate::settings::Settings;
use crate::testing::{SECOND, World, client, limit, policy, settings};
use crate::time::ClusterTime;

const MILLISECOND: u64 = SECOND / 1000;

fn counted(algorithm: Algorithm, hits: u64, window_ns: u64) -> Policy {
    Policy { limits: vec![limit("l", algorithm, hits, window_ns)], ..policy("p") }
}

/// It cut the time since the last request down to whole seconds, and then forgot the rest of it.
#[test]
fn forerunner_a_refill_loses_fractions() {
    // A hundred hits, ten more each second.
    let mut bucket = counted(Algorithm::TokenBucket, 10, SECOND);
    bucket.limits[0].burst = 100;
    let mut world = World::new(vec![bucket]);
    world.decide(&client("a", 100));
    for _ in 0..10 {
        // Each poll writes: it takes one and gives one back.
        world.pass(900 * MILLISECOND);
        assert!(world.admits(&client("a", 1)));
        assert!(world.admits(&client("a", -1)));
    }
    assert_eq!(world.remaining("a"), 90);

    // The same with a rate that comes out even with no nanosecond: 7 hits each 3 seconds.
    let mut odd = counted(Algorithm::TokenBucket, 7, 3 * SECOND);
    odd.limits[0].burst = 100;
    let mut world = World::new(vec![odd]);
    world.decide(&client("a", 100));
    for _ in 0..1000 {
        world.pass(9 * MILLISECOND + 1);
        if world.admits(&client("a", 1)) {
            world.decide(&client("a", -1));
        }
    }
    assert_eq!(world.remaining("a"), 21);
}

/// It went on with the counter that it had found expired.
#[test]
fn forerunner_a_first_request_after_expiry_is_judged_on_the_old_window() {
    for algorithm in [Algorithm::FixedWindow, Algorithm::SlidingWindow] {
        let mut world = World::new(vec![counted(algorithm, 5, SECOND)]);
        assert!(world.admits(&client("a", 5)));
        assert!(!world.admits(&client("a", 1)));
        world.pass(2 * SECOND);
        let first = world.decision(&client("a", 1));
        assert!(first.admitted, "{algorithm:?}");
        assert_eq!(first.limits[0].remaining, 4, "{algorithm:?}");
    }
}

/// What it wrote as a snapshot held no counters, and what it read was something else.
#[test]
fn forerunner_a_snapshot_loses_all_quota() {
    for algorithm in crate::testing::ALGORITHMS {
        let mut world = World::new(vec![counted(algorithm, 10, 60 * SECOND)]);
        for (id, hits) in [("a", 3), ("b", 10)] {
            world.decide(&client(id, hits));
        }
        let bytes = world.bytes();
        world.machine = StateMachine::decode(&bytes).unwrap();
        assert_eq!((world.remaining("a"), world.remaining("b")), (7, 0), "{algorithm:?}");
        assert!(!world.admits(&client("b", 1)), "{algorithm:?}");
        assert_eq!(world.machine.counters(), 2);
    }
}

/// Its check started a window, outside the log at that.
#[test]
fn forerunner_a_check_mutates_state() {
    for algorithm in crate::testing::ALGORITHMS {
        let mut world = World::new(vec![counted(algorithm, 10, 60 * SECOND)]);
        world.decide(&client("known", 4));
        let before = world.bytes();
        for id in ["new", "known"] {
            for hits in [0, 1, 11, -1] {
                for later in [0, 1, 30 * SECOND, 3600 * SECOND] {
                    let check = world.command(&client(id, hits));
                    let _ = world.machine.evaluate(ClusterTime(world.now + later), &check);
                }
            }
        }
        assert_eq!(world.bytes(), before, "{algorithm:?}");

        // A check that goes through the log changes no counter either: the window of a new client starts with its first hit.
        let counters = world.machine.counters();
        assert!(world.admits(&client("new", 0)));
        assert_eq!(world.machine.counters(), counters, "{algorithm:?}");
        world.pass(30 * SECOND);
        let first = world.decision(&client("new", 10));
        assert!(first.admitted && first.limits[0].reset_ns >= 60 * SECOND, "{algorithm:?}");
    }
}

/// Every client it had ever seen stayed in memory.
#[test]
fn forerunner_a_counters_are_never_evicted() {
    for algorithm in crate::testing::ALGORITHMS {
        let settings = Settings { counters_max: 1_000_000, ..settings() };
        let mut world = World::with(settings, vec![counted(algorithm, 10, SECOND)]);
        let mut most = 0;
        for batch in 0..400 {
            // A hundred new clients each tenth of a second: 1000 or 2000 of them are live at a time, of 40,000.
            let commands = (0..100).map(|number| world.command(&client(&format!("{batch} {number}"), 1))).collect();
            assert!(world.send(commands).iter().all(|outcome| matches!(outcome, Outcome::Decided(_))));
            world.pass(100 * MILLISECOND);
            most = most.max(world.machine.counters());
        }
        assert!(most < 4000, "{algorithm:?}: {most} counters");
        world.pass(2 * SECOND);
        (0..4).for_each(|_| world.tick());
        assert_eq!(world.machine.counters(), 0, "{algorithm:?}");
    }
}

/// Its leader reset a client twice, in the log and again in the handler: what was charged between the two was lost.
#[test]
fn forerunner_a_reset_is_applied_twice() {
    let mut world = World::new(vec![counted(Algorithm::FixedWindow, 10, SECOND)]);
    world.decide(&client("a", 10));
    let Command::Decide { revision, charges } = world.command(&client("a", 1)) else { panic!("a decision") };
    let part = Part::Commands {
        session: SessionId(77),
        sequence: 1,
        commands: Arc::new(vec![Command::Reset { revision, charges }]),
    };
    let open = Part::OpenSession { node: 77, run: Run { boot: 1, name: 1 }, session: SessionId(77) };
    let batch = world.batch(vec![open, part.clone()]);
    world.machine.apply(&batch);
    assert_eq!(world.remaining("a"), 10);
    world.decide(&client("a", 4));
    // The same reset once more, as a sender does that heard no answer.
    let again = world.batch(vec![part]);
    world.machine.apply(&again);
    assert_eq!(world.remaining("a"), 6);
}
