//! All charges or none, shadow policies, shares.

use crate::algorithm::life_ns;
use crate::command::{Charge, Command, Decision, Outcome, PolicyChange};
use crate::policy::{Algorithm, Enforcement, Limit, Override, Owner, Policy};
use crate::request::GivenLimit;
use crate::settings::Settings;
use crate::testing::{SECOND, World, client, decision, limit, policy, policy_name, request, settings};
use crate::time::ClusterTime;

fn with_limit(name: &str, hits: u64) -> Policy {
    Policy { limits: vec![limit("minute", Algorithm::FixedWindow, hits, 60 * SECOND)], ..policy(name) }
}

fn shadow(name: &str, hits: u64) -> Policy {
    Policy { enforcement: Enforcement::Shadow, ..with_limit(name, hits) }
}

fn remaining(decision: &Decision) -> Vec<u64> {
    decision.limits.iter().map(|limit| limit.remaining).collect()
}

#[test]
fn one_limit_exceeded_charges_none() {
    let mut world = World::new(vec![with_limit("a-wide", 10), with_limit("narrow", 2)]);
    assert_eq!(remaining(&world.decision(&client("a", 2))), [8, 0]);
    let denied = world.decision(&client("a", 1));
    assert!(!denied.admitted);
    assert_eq!(remaining(&denied), [8, 0], "what is left without the charge");
    assert_eq!(denied.limits.iter().map(|limit| limit.exceeded).collect::<Vec<_>>(), [false, true]);
    assert_eq!(denied.limits.iter().map(|limit| limit.retry_ns).collect::<Vec<_>>(), [0, 60 * SECOND]);
}

#[test]
fn denied_request_creates_no_counter_and_starts_no_window() {
    let mut world = World::new(vec![with_limit("p", 2)]);
    assert!(!world.admits(&client("a", 3)));
    assert_eq!(world.machine.counters(), 0);
    world.pass(30 * SECOND);
    assert_eq!(world.decision(&client("a", 1)).limits[0].reset_ns, 60 * SECOND);
}

#[test]
fn second_descriptor_denied_charges_neither() {
    let mut world = World::new(vec![with_limit("p", 3)]);
    world.decide(&client("full", 3));
    let both = request(1, &[&[("client_id", "free")], &[("client_id", "full")]]);
    let denied = world.decision(&both);
    assert_eq!((denied.admitted, remaining(&denied)), (false, vec![3, 0]));
    assert_eq!(world.remaining("free"), 3);
}

#[test]
fn charges_on_one_counter_are_summed() {
    let mut world = World::new(vec![with_limit("p", 5)]);
    let twice = |hits| request(hits, &[&[("client_id", "a")], &[("client_id", "a"), ("path", "/")]]);
    let never = world.decision(&twice(3));
    assert!(!never.admitted);
    assert_eq!(never.limits[1].retry_ns, u64::MAX, "6 hits never fit into 5");
    assert_eq!(world.remaining("a"), 5);
    assert_eq!(remaining(&world.decision(&twice(2))), [3, 1]);
    assert_eq!(world.remaining("a"), 1);
    let denied = world.decision(&twice(1));
    assert_eq!((denied.admitted, remaining(&denied)), (false, vec![1, 1]));
    assert_eq!(denied.limits[1].retry_ns, 60 * SECOND);
}

#[test]
fn refund_and_charge_on_one_counter_are_summed() {
    let mut world = World::new(vec![with_limit("p", 5)]);
    world.decide(&client("a", 4));
    let mut both = request(0, &[&[("client_id", "a")], &[("client_id", "a"), ("path", "/")]]);
    both.descriptors[0].hits = Some(-2);
    both.descriptors[1].hits = Some(3);
    assert_eq!(remaining(&world.decision(&both)), [3, 0]);
}

#[test]
fn look_changes_nothing_and_is_never_denied() {
    let mut world = World::new(vec![with_limit("p", 2)]);
    let look = world.decision(&client("a", 0));
    assert_eq!((look.admitted, remaining(&look), world.machine.counters()), (true, vec![2], 0));
    world.decide(&client("a", 2));
    let look = world.decision(&client("a", 0));
    assert_eq!((look.admitted, remaining(&look)), (true, vec![0]));
}

#[test]
fn refund_gives_back_at_most_what_was_used() {
    let mut world = World::new(vec![with_limit("p", 10)]);
    world.decide(&client("a", 4));
    assert_eq!(remaining(&world.decision(&client("a", -3))), [9]);
    assert_eq!(remaining(&world.decision(&client("a", -3))), [10]);
    assert_eq!(remaining(&world.decision(&client("b", -3))), [10]);
    assert_eq!(world.machine.counters(), 1, "a refund of nothing creates no counter");
}

#[test]
fn shadow_policy_exceeded_admits_and_is_not_charged() {
    let mut world = World::new(vec![shadow("a-shadow", 2), with_limit("real", 5)]);
    for left in [[1, 4], [0, 3]] {
        assert_eq!(remaining(&world.decision(&client("a", 1))), left);
    }
    let beyond = world.decision(&client("a", 1));
    assert_eq!((beyond.admitted, remaining(&beyond)), (true, vec![0, 2]));
    assert_eq!(beyond.limits.iter().map(|limit| limit.exceeded).collect::<Vec<_>>(), [true, false]);
}

#[test]
fn shadow_policy_with_one_limit_exceeded_charges_none_of_its_limits() {
    let limits =
        vec![limit("few", Algorithm::FixedWindow, 1, SECOND), limit("many", Algorithm::SlidingWindow, 10, 60 * SECOND)];
    let mut world = World::new(vec![Policy { limits, ..shadow("s", 0) }]);
    assert_eq!(remaining(&world.decision(&client("a", 1))), [0, 9]);
    assert_eq!(remaining(&world.decision(&client("a", 1))), [0, 9]);
}

#[test]
fn denied_request_does_not_charge_a_shadow_policy() {
    let mut world = World::new(vec![shadow("a-shadow", 5), with_limit("real", 1)]);
    world.decide(&client("a", 1));
    let denied = world.decision(&client("a", 1));
    assert_eq!((denied.admitted, remaining(&denied)), (false, vec![4, 0]));
}

#[test]
fn policies_changed_since_the_match_answers_rematch() {
    let mut world = World::new(vec![with_limit("p", 5)]);
    let stale = world.command(&client("a", 1));
    world.put(with_limit("p", 50));
    assert_eq!(world.send(vec![stale.clone()]), [Outcome::Rematch]);
    assert_eq!(world.machine.evaluate(ClusterTime(0), &stale), Outcome::Rematch);
    assert_eq!(world.machine.counters(), 0);
    assert_eq!(remaining(&world.decision(&client("a", 1))), [49]);
}

#[test]
fn other_domain_changed_goes_on() {
    let elsewhere = Policy { domain: "elsewhere".to_owned(), ..policy("other") };
    let mut world = World::new(vec![with_limit("p", 5)]);
    let matched = world.command(&client("a", 1));
    world.put(elsewhere);
    assert_eq!(remaining(&decision(world.send(vec![matched]).remove(0))), [4]);
}

#[test]
fn charges_that_do_not_fit_the_policies_answer_rematch() {
    let elsewhere = Policy { domain: "elsewhere".to_owned(), ..policy("other") };
    let disabled = Policy { enforcement: Enforcement::Disabled, ..policy("disabled") };
    let mut world = World::new(vec![with_limit("p", 5), elsewhere, disabled]);
    let Command::Decide { revision, charges } = world.command(&client("a", 1)) else { unreachable!() };
    let id = |name: &str| world.machine.rules().find(&policy_name(name)).unwrap().0;
    let spoilt: [Vec<Charge>; 5] = [
        vec![Charge { policy: crate::PolicyId(99), ..charges[0].clone() }],
        vec![Charge { overridden: Some(0), ..charges[0].clone() }],
        vec![Charge { counters: vec![].into(), ..charges[0].clone() }],
        vec![charges[0].clone(), Charge { policy: id("other"), ..charges[0].clone() }],
        vec![Charge { policy: id("disabled"), ..charges[0].clone() }],
    ];
    for charges in spoilt {
        let decide = Command::Decide { revision, charges: charges.clone().into() };
        assert_eq!(world.send(vec![decide]), [Outcome::Rematch], "{charges:?}");
        assert_eq!(world.send(vec![Command::Reset { revision, charges: charges.into() }]), [Outcome::Rematch]);
    }
}

#[test]
fn request_that_met_no_policy_is_judged_by_the_whole_tables_revision() {
    let elsewhere = Policy { domain: "elsewhere".to_owned(), ..policy("other") };
    let mut world = World::new(vec![elsewhere.clone()]);
    let matched = world.command(&client("a", 1));
    let admitted = Outcome::Decided(Decision { admitted: true, limits: vec![].into() });
    assert_eq!(world.send(vec![matched.clone()]), [admitted]);
    world.put(Policy { fallback: true, ..elsewhere });
    assert_eq!(world.send(vec![matched]), [Outcome::Rematch]);
}

#[test]
fn override_figures_hold_for_what_was_used_without() {
    let over = Override {
        matches: vec![crate::KeyMatch { key: "plan".to_owned(), value: crate::ValueMatch::Exact("gold".to_owned()) }],
        limits: vec![limit("minute", Algorithm::FixedWindow, 100, 60 * SECOND)],
    };
    let mut world = World::new(vec![Policy { overrides: vec![over], ..with_limit("p", 10) }]);
    world.decide(&client("a", 4));
    let gold = request(1, &[&[("client_id", "a"), ("plan", "gold")]]);
    assert_eq!(remaining(&world.decision(&gold)), [95]);
}

#[test]
fn reset_forgets_what_was_used() {
    let mut world = World::new(vec![with_limit("p", 5), with_limit("q", 9)]);
    world.decide(&client("a", 4));
    world.decide(&client("b", 4));
    let Command::Decide { revision, charges } = world.command(&client("a", 1)) else { unreachable!() };
    let reset = Command::Reset { revision, charges };
    assert_eq!(world.machine.evaluate(ClusterTime(0), &reset), Outcome::Reset);
    assert_eq!(world.remaining("a"), 1);
    assert_eq!(world.send(vec![reset.clone(), reset]), [Outcome::Reset, Outcome::Reset]);
    assert_eq!(remaining(&world.decision(&client("a", 0))), [5, 9]);
    assert_eq!(remaining(&world.decision(&client("b", 0))), [1, 5]);
}

/// Room for 8 counters in all, 2 for each policy.
fn tight(policies: Vec<Policy>) -> World {
    World::with(Settings { counters_max: 8, ..settings() }, policies)
}

fn id(world: &World, name: &str) -> crate::PolicyId {
    world.machine.rules().find(&policy_name(name)).unwrap().0
}

#[test]
fn full_share_refuses_new_counters_and_keeps_live_ones() {
    let mut world = tight(vec![with_limit("p", 5)]);
    assert!(world.admits(&client("a", 1)) && world.admits(&client("b", 1)));
    let full = Outcome::CountersFull(id(&world, "p"));
    assert_eq!(world.decide(&client("c", 1)), full);
    assert_eq!(world.machine.evaluate(ClusterTime(0), &world.command(&client("c", 1))), full);
    assert!(world.admits(&client("c", 0)), "a look needs no counter");
    assert!(!world.admits(&client("c", 6)), "nor does a denial");
    assert_eq!(remaining(&world.decision(&client("a", 1))), [3]);
}

#[test]
fn full_share_of_one_policy_charges_no_other() {
    let mut world = tight(vec![with_limit("p", 5), Policy { count_by: vec![], ..with_limit("total", 5) }]);
    for id in ["a", "b", "c"] {
        world.decide(&client(id, 1));
    }
    assert_eq!(remaining(&world.decision(&client("a", 0))), [4, 3]);
}

#[test]
fn share_full_of_expired_counters_is_soon_free() {
    let mut world = World::new(vec![with_limit("p", 5)]);
    let share = u64::from(u16::try_from(settings().counters_max / 4).unwrap());
    for number in 0..share {
        assert!(world.admits(&client(&number.to_string(), 1)));
    }
    world.pass(60 * SECOND);
    let mut refused = 0;
    while matches!(world.decide(&client("new", 1)), Outcome::CountersFull(_)) {
        refused += 1;
        assert!(refused < 2, "the sweep does not speed up");
    }
    assert!(world.machine.counters() < 10);
}

#[test]
fn all_counters_in_use_refuses_new_ones_of_every_policy() {
    let policies = (0..5).map(|number| Policy {
        matches: vec![crate::KeyMatch { key: format!("k{number}"), value: crate::ValueMatch::Any }],
        ..with_limit(&format!("p{number}"), 5)
    });
    let mut world = tight(policies.collect());
    let mut ask = |number: u32, id: &str| {
        let key = format!("k{number}");
        world.decide(&request(1, &[&[("client_id", id), (&key, "")]]))
    };
    for number in 0..4 {
        for id in ["a", "b"] {
            assert!(matches!(ask(number, id), Outcome::Decided(_)));
        }
    }
    assert!(matches!(ask(4, "a"), Outcome::CountersFull(_)));
    assert_eq!(world.machine.counters(), 8);
}

#[test]
fn shadow_policy_without_room_stands_against_nothing() {
    let mut world = tight(vec![shadow("a-shadow", 5), Policy { count_by: vec![], ..with_limit("total", 9) }]);
    for (id, left) in [("a", [4, 8]), ("b", [4, 7]), ("c", [5, 6]), ("d", [5, 5]), ("a", [3, 4])] {
        let decision = world.decision(&client(id, 1));
        assert_eq!((decision.admitted, remaining(&decision)), (true, left.to_vec()), "{id}");
    }
}

#[test]
fn policy_deleted_and_put_again_starts_anew() {
    let mut world = World::new(vec![with_limit("p", 5)]);
    world.decide(&client("a", 4));
    world.change(PolicyChange::Delete(Owner::Api, vec![policy_name("p")]));
    world.put(with_limit("p", 5));
    assert_eq!(world.remaining("a"), 5);
    assert_eq!(remaining(&world.decision(&client("a", 1))), [4]);
    world.tick();
    assert_eq!(world.machine.counters(), 1);
}

#[test]
fn policy_deleted_drops_its_counters() {
    let mut world = World::new(vec![with_limit("p", 5), with_limit("q", 5)]);
    (0..100).for_each(|number| assert!(world.admits(&client(&number.to_string(), 1))));
    assert_eq!(world.machine.counters(), 200);
    world.change(PolicyChange::Delete(Owner::Api, vec![policy_name("p")]));
    world.tick();
    assert_eq!(world.machine.counters(), 100);
}

#[test]
fn limit_renamed_starts_anew() {
    let mut world = World::new(vec![with_limit("p", 5)]);
    world.decide(&client("a", 4));
    let mut renamed = with_limit("p", 5);
    renamed.limits[0].name = "renamed".to_owned();
    world.put(renamed);
    assert_eq!(world.remaining("a"), 5);
    world.put(with_limit("p", 5));
    assert_eq!(world.remaining("a"), 1, "the former counter has not expired yet");
}

#[test]
fn limit_raised_keeps_what_was_used() {
    for algorithm in crate::testing::ALGORITHMS {
        let of = |hits| Policy { limits: vec![limit("l", algorithm, hits, 60 * SECOND)], ..policy("p") };
        let mut world = World::new(vec![of(5)]);
        world.decide(&client("a", 4));
        world.put(of(50));
        assert_eq!(world.remaining("a"), 46, "{algorithm:?}");
    }
}

/// A counter lives as long as any of the policy's limits and overrides may need it.
#[test]
fn counter_under_a_short_window_waits_for_the_longest_override() {
    let long = Limit { window_ns: 3600 * SECOND, ..limit("minute", Algorithm::FixedWindow, 3, 0) };
    assert_eq!(life_ns(&long), 3600 * SECOND);
    let short = Limit { window_ns: SECOND, ..long.clone() };
    let on = |key: &str, limit: Limit| Override {
        matches: vec![crate::KeyMatch { key: key.to_owned(), value: crate::ValueMatch::Any }],
        limits: vec![limit],
    };
    let overrides = vec![on("slow", long), on("quick", short)];
    let mut world = World::new(vec![Policy { overrides, ..with_limit("p", 5) }]);
    world.decide(&client("a", 3));
    world.pass(120 * SECOND).tick();
    assert_eq!(world.remaining("a"), 5);
    assert!(!world.admits(&request(1, &[&[("client_id", "a"), ("slow", "")]])));
    world.pass(3600 * SECOND).tick();
    assert_eq!(world.machine.counters(), 0);
}

#[test]
fn limit_of_the_request_takes_the_place_of_the_number_with_its_window_and_keeps_what_was_used() {
    let minute = 60 * SECOND;
    let limits = vec![
        limit("minute", Algorithm::FixedWindow, 5, minute),
        limit("day", Algorithm::SlidingWindow, 20, 1440 * minute),
        limit("bucket", Algorithm::TokenBucket, 30, minute),
    ];
    let mut world = World::new(vec![Policy { limits, ..policy("p") }]);
    let given = |hits, window_ns| {
        let mut request = client("a", 1);
        request.descriptors[0].limit = Some(GivenLimit { hits, window_ns });
        request
    };
    assert_eq!(remaining(&world.decision(&client("a", 2))), [3, 18, 28]);
    assert_eq!(remaining(&world.decision(&given(9, minute))), [6, 17, 27], "neither the day nor the bucket");
    let denied = world.decision(&given(3, minute));
    assert_eq!((denied.admitted, remaining(&denied)), (false, vec![0, 17, 27]));
    assert_eq!(remaining(&world.decision(&given(4, 1440 * minute))), [1, 0, 26], "three of four, and this one");
    assert_eq!(remaining(&world.decision(&client("a", 1))), [0, 15, 25], "the policy's own numbers hold again");
    assert!(!world.admits(&client("a", 1)));
    assert!(!world.admits(&given(9, SECOND)), "a window that no limit has changes nothing");
}
