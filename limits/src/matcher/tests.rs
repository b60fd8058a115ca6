//! The matcher against a scan of all policies, and counter identity.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::command::PolicyChange;
use crate::policy::{Algorithm, Override};
use crate::testing::{SECOND, World, client, descriptor, limit, policy, policy_name, request};

/// What `match_request` says, found by looking at every policy.
fn scan(rules: &Rules, request: &Request) -> Vec<(PolicyId, Option<u16>, i64, usize)> {
    let matched = |fallback: bool| {
        let mut found = vec![];
        for descriptor in &request.descriptors {
            for (id, _, _, policy) in rules.policies() {
                let takes_part = policy.domain == request.domain
                    && policy.enforcement != Enforcement::Disabled
                    && policy.fallback == fallback;
                let keys = policy.count_by.iter().all(|key| value(descriptor, key).is_some());
                if takes_part && keys && holds(&policy.matches, descriptor) {
                    let hits = descriptor.hits.unwrap_or(request.hits);
                    found.push((id, most_specific(policy, descriptor), hits, policy.limits.len()));
                }
            }
        }
        found
    };
    let regular = matched(false);
    if regular.is_empty() { matched(true) } else { regular }
}

fn value<'a>(descriptor: &'a Descriptor, key: &str) -> Option<&'a String> {
    descriptor.entries.iter().find(|(name, _)| name == key).map(|(_, value)| value)
}

fn holds(conditions: &[KeyMatch], descriptor: &Descriptor) -> bool {
    conditions.iter().all(|condition| match (&condition.value, value(descriptor, &condition.key)) {
        (_, None) => false,
        (ValueMatch::Any, _) => true,
        (ValueMatch::Exact(text), Some(value)) => text == value,
        (ValueMatch::Prefix(text), Some(value)) => value.starts_with(text),
    })
}

fn most_specific(policy: &Policy, descriptor: &Descriptor) -> Option<u16> {
    let mut holding: Vec<(usize, &Override)> =
        policy.overrides.iter().enumerate().filter(|(_, over)| holds(&over.matches, descriptor)).collect();
    // Stable, so the first of equals stays first.
    holding.sort_by_key(|(_, over)| std::cmp::Reverse(specificity(&over.matches)));
    holding.first().map(|(index, _)| u16::try_from(*index).unwrap())
}

const KEYS: [&str; 3] = ["client_id", "path", "plan"];
const VALUES: [&str; 7] = ["", "a", "ab", "abc", "b", "ä", "äb"];

fn key() -> impl Strategy<Value = String> {
    prop::sample::select(&KEYS).prop_map(str::to_owned)
}

fn text() -> impl Strategy<Value = String> {
    prop::sample::select(&VALUES).prop_map(str::to_owned)
}

fn conditions() -> impl Strategy<Value = Vec<KeyMatch>> {
    let value =
        prop_oneof![text().prop_map(ValueMatch::Exact), text().prop_map(ValueMatch::Prefix), Just(ValueMatch::Any)];
    prop::collection::vec((key(), value).prop_map(|(key, value)| KeyMatch { key, value }), 0..3)
}

fn policies() -> impl Strategy<Value = Vec<Policy>> {
    let enforcement = prop_oneof![
        4 => Just(Enforcement::Enforce),
        1 => Just(Enforcement::Shadow),
        1 => Just(Enforcement::Disabled)
    ];
    let overrides = prop::collection::vec(conditions(), 0..5);
    let domain = prop_oneof![3 => Just("default"), 1 => Just("other")];
    let parts = (domain, conditions(), prop::collection::vec(key(), 0..3), overrides, enforcement, any::<bool>());
    let one = parts.prop_map(|(domain, matches, count_by, overrides, enforcement, fallback)| {
        let base = policy("p");
        let overrides = overrides.into_iter().map(|matches| Override { matches, limits: base.limits.clone() });
        let overrides = overrides.collect();
        Policy { domain: domain.to_owned(), matches, count_by, overrides, enforcement, fallback, ..base }
    });
    prop::collection::vec(one, 0..12).prop_map(|mut policies| {
        for (number, policy) in policies.iter_mut().enumerate() {
            policy.name = policy_name(&format!("p{number}"));
        }
        policies
    })
}

fn requests() -> impl Strategy<Value = Request> {
    let entries = prop::collection::vec((key(), text()), 0..4);
    let descriptor =
        (entries, prop::option::of(-2..5i64)).prop_map(|(entries, hits)| Descriptor { entries, hits, limit: None });
    let domain = prop_oneof![4 => Just("default"), 1 => Just("other"), 1 => Just("none")];
    (domain, prop::collection::vec(descriptor, 0..4), -1..3i64).prop_map(|(domain, descriptors, hits)| Request {
        domain: domain.to_owned(),
        descriptors,
        hits,
    })
}

proptest! {
    #[test]
    fn matcher_equals_a_scan(
        policies in policies(),
        later in policies(),
        requests in prop::collection::vec(requests(), 1..20),
    ) {
        let mut world = World::new(policies);
        for change in [None, Some(PolicyChange::ReplaceAll(Owner::Api, later))] {
            change.map(|change| world.change(change));
            let rules = world.machine.rules();
            for request in &requests {
                let matched = rules.match_request(request);
                let found: Vec<_> = matched
                    .charges
                    .iter()
                    .map(|charge| (charge.policy, charge.overridden, charge.hits, charge.counters.len()))
                    .collect();
                prop_assert_eq!(found, scan(&rules, request));
            }
        }
    }

    /// Two requests share a counter exactly if the policy is one and the values of its keys are the same.
    #[test]
    fn counters_are_shared_by_equal_values_alone(policies in policies(), a in requests(), b in requests()) {
        let world = World::new(policies);
        let rules = world.machine.rules();
        for (mine, theirs) in [(&a, &b), (&a, &a)] {
            for (charge, values) in valued(&rules, mine) {
                for (other, others) in valued(&rules, theirs) {
                    let same = charge.policy == other.policy && values == others;
                    prop_assert_eq!(charge.counters == other.counters, same);
                }
            }
        }
    }
}

/// The charges of a request, each with the values it is counted by.
fn valued(rules: &Rules, request: &Request) -> Vec<(Charge, Vec<String>)> {
    let mut found = vec![];
    for descriptor in &request.descriptors {
        let alone = Request { descriptors: vec![descriptor.clone()], ..request.clone() };
        for charge in rules.match_request(&alone).charges {
            let policy = rules.policy(charge.policy).unwrap();
            let values = policy.count_by.iter().map(|key| value(descriptor, key).unwrap().clone()).collect();
            found.push((charge, values));
        }
    }
    found
}

fn counter_of(policy: Policy, request: &Request) -> Few<CounterId, 2> {
    World::new(vec![policy]).machine.rules().match_request(request).charges.remove(0).counters
}

#[test]
fn same_text_divided_otherwise_is_another_counter() {
    let named = |namespace: &str, name: &str, limit_name: &str| {
        let limits = vec![limit(limit_name, Algorithm::FixedWindow, 10, SECOND)];
        let name = PolicyName { namespace: namespace.to_owned(), name: name.to_owned() };
        Policy { name, limits, ..policy("p") }
    };
    let counted =
        |count_by: &[&str]| Policy { count_by: count_by.iter().map(|key| (*key).to_owned()).collect(), ..policy("p") };
    let a = client("a", 1);
    let pairs = |entries: &[(&str, &str)]| request(1, &[entries]);
    let ids: BTreeSet<Few<CounterId, 2>> = [
        counter_of(named("ab", "c", "d"), &a),
        counter_of(named("a", "bc", "d"), &a),
        counter_of(named("a", "b", "cd"), &a),
        counter_of(counted(&["k", "l"]), &pairs(&[("k", "ab"), ("l", "c")])),
        counter_of(counted(&["k", "l"]), &pairs(&[("k", "a"), ("l", "bc")])),
        counter_of(counted(&["l", "k"]), &pairs(&[("k", "a"), ("l", "bc")])),
        counter_of(counted(&["k"]), &pairs(&[("k", "a")])),
        counter_of(counted(&["kl"]), &pairs(&[("kl", "a")])),
    ]
    .into();
    assert_eq!(ids.len(), 8);
}

#[test]
fn figures_and_matches_are_no_part_of_a_counters_identity() {
    let before = counter_of(policy("p"), &client("a", 1));
    let mut changed = policy("p");
    changed.limits[0].limit = 99;
    changed.limits[0].window_ns = SECOND;
    changed.matches = vec![KeyMatch { key: "client_id".to_owned(), value: ValueMatch::Any }];
    changed.domain = "default".to_owned();
    assert_eq!(counter_of(changed.clone(), &client("a", 1)), before);
    changed.limits[0].algorithm = Algorithm::SlidingWindow;
    assert_ne!(counter_of(changed, &client("a", 1)), before);
}

#[test]
fn another_secret_names_other_counters() {
    let other = crate::Settings { secret: [1; 16], ..crate::testing::settings() };
    let world = World::with(other, vec![policy("p")]);
    let charge = world.machine.rules().match_request(&client("a", 1)).charges.remove(0);
    assert_ne!(charge.counters, counter_of(policy("p"), &client("a", 1)));
}

#[test]
fn override_most_specific_wins() {
    let figure = |n: u64| vec![limit("minute", Algorithm::FixedWindow, n, 60 * SECOND)];
    let on = |value: ValueMatch| vec![KeyMatch { key: "client_id".to_owned(), value }];
    let overrides = vec![
        Override { matches: on(ValueMatch::Prefix("tr".to_owned())), limits: figure(1) },
        Override { matches: on(ValueMatch::Prefix("trial-".to_owned())), limits: figure(2) },
        Override { matches: on(ValueMatch::Exact("trial-7".to_owned())), limits: figure(3) },
        Override { matches: on(ValueMatch::Exact("trial-7".to_owned())), limits: figure(4) },
    ];
    let world = World::new(vec![Policy { overrides, ..policy("p") }]);
    let rules = world.machine.rules();
    let figure_of = |id: &str| {
        let charge = rules.match_request(&client(id, 1)).charges.remove(0);
        rules.limit(&charge, 0).unwrap().limit
    };
    assert_eq!(["other", "tram", "trial-8", "trial-7"].map(figure_of), [10, 1, 2, 3]);
}

#[test]
fn disabled_policy_does_not_suppress_the_fallback() {
    let disabled = Policy { enforcement: Enforcement::Disabled, ..policy("a") };
    let fallback = Policy { fallback: true, ..policy("b") };
    let mut world = World::new(vec![disabled.clone(), fallback]);
    let names = |world: &World, request: &Request| -> Vec<String> {
        let rules = world.machine.rules();
        let charges = rules.match_request(request).charges;
        charges.iter().map(|charge| rules.policy(charge.policy).unwrap().name.name.clone()).collect()
    };
    assert_eq!(names(&world, &client("x", 1)), ["b"]);
    world.put(Policy { enforcement: Enforcement::Shadow, ..disabled });
    assert_eq!(names(&world, &client("x", 1)), ["a"]);
}

#[test]
fn domain_without_policies_meets_nothing_at_the_whole_tables_revision() {
    let mut world = World::new(vec![policy("p")]);
    world.put(policy("q"));
    let elsewhere = Request { domain: "elsewhere".to_owned(), ..client("a", 1) };
    assert_eq!(world.machine.rules().match_request(&elsewhere), Matched { revision: 2, ..Matched::default() });
}

#[test]
fn descriptor_hits_stand_before_the_requests() {
    let world = World::new(vec![policy("p")]);
    let own = Descriptor { hits: Some(5), ..descriptor(&[("client_id", "a")]) };
    let both = Request { descriptors: vec![own, descriptor(&[("client_id", "b")])], ..client("", 2) };
    let matched = world.machine.rules().match_request(&both);
    assert_eq!(matched.charges.iter().map(|charge| charge.hits).collect::<Vec<_>>(), [5, 2]);
}

#[test]
fn charges_name_the_descriptors_that_they_are_for() {
    let world = World::new(vec![policy("p"), policy("q")]);
    let request = request(1, &[&[("user", "x")], &[("client_id", "a")], &[("user", "y")], &[("client_id", "b")]]);
    let matched = world.machine.rules().match_request(&request);
    assert_eq!(matched.descriptors.as_slice(), [1, 1, 3, 3]);
    assert_eq!(matched.charges.len(), 4);
}
