use std::sync::Arc;

use super::super::select::{ClusterKey, select};
use super::super::testing::{at, cluster, policy};
use super::*;

fn name(text: &str) -> PolicyName {
    let (namespace, name) = text.split_once('/').unwrap();
    PolicyName { namespace: namespace.to_owned(), name: name.to_owned() }
}

fn parsed(text: &str, limit: i64) -> Policy {
    Policy::try_from(&policy(text, "edge", limit)).unwrap()
}

fn row(owner: OwnerName, revision: u64, text: &str, limit: i64) -> (PolicyName, HeldRow) {
    (name(text), HeldRow { owner, revision, policy: Some(parsed(text, limit)) })
}

fn held(rows: impl IntoIterator<Item = (PolicyName, HeldRow)>) -> Held {
    Held { cluster_id: "c".to_owned(), revision: 7, rows: rows.into_iter().collect() }
}

fn candidates(policies: &[(&str, i64)]) -> Vec<Candidate> {
    let key = ClusterKey { namespace: "shop".to_owned(), name: "edge".to_owned() };
    let policies = policies.iter().map(|(name, limit)| Arc::new(policy(name, "edge", *limit)));
    select(&key, Some(&cluster("shop/edge", &[])), policies)
}

fn set(policies: &[(&str, i64)]) -> BTreeMap<PolicyName, Policy> {
    policies.iter().map(|(text, limit)| (name(text), parsed(text, *limit))).collect()
}

fn wanted(policies: &[(&str, i64)], held: &Held) -> Desired {
    desired(&candidates(policies), &BTreeSet::new(), held, &Unsupported::new())
}

#[test]
fn set_is_every_policy_there_is_and_nothing_else_that_the_operator_wrote() {
    let before = held([row(OwnerName::Operator, 3, "shop/a", 1), row(OwnerName::Operator, 4, "shop/gone", 1)]);
    let desired = wanted(&[("shop/a", 1), ("shop/b", 2)], &before);
    assert_eq!(desired.set, set(&[("shop/a", 1), ("shop/b", 2)]));
    assert!(desired.refused.is_empty() && !before.is(&desired.set));
}

#[test]
fn policy_of_another_owner_is_refused_alone() {
    for owner in [OwnerName::Files, OwnerName::Api] {
        let desired = wanted(&[("shop/a", 1), ("shop/b", 2)], &held([row(owner, 3, "shop/a", 1)]));
        assert_eq!(desired.set, set(&[("shop/b", 2)]));
        let refusal = &desired.refused[&name("shop/a")];
        assert_eq!(refusal.reason, Reason::OwnedElsewhere);
        assert!(refusal.message.contains("shop/a") && refusal.message.contains("delete it there"));
    }
    assert!(wanted(&[("shop/a", 1)], &held([row(OwnerName::Builtin, 3, "shop/a", 1)])).refused.is_empty());
}

#[test]
fn policy_that_became_invalid_or_unsupported_stays_in_force_as_it_was() {
    let before = held([row(OwnerName::Operator, 3, "shop/a", 5)]);
    let invalid = wanted(&[("shop/a", -1)], &before);
    assert_eq!((invalid.set, invalid.refused[&name("shop/a")].reason), (set(&[("shop/a", 5)]), Reason::Invalid));
    let refused = Unsupported::from([(name("shop/a"), (parsed("shop/a", 9), "policies[0]: no".to_owned()))]);
    let unsupported = desired(&candidates(&[("shop/a", 9)]), &BTreeSet::new(), &before, &refused);
    assert_eq!(unsupported.set, set(&[("shop/a", 5)]));
    assert_eq!(unsupported.refused[&name("shop/a")].reason, Reason::Unsupported);
    let mended = desired(&candidates(&[("shop/a", 8)]), &BTreeSet::new(), &before, &refused);
    assert_eq!((mended.set, mended.refused.len()), (set(&[("shop/a", 8)]), 0), "what was refused is another");
}

#[test]
fn policy_that_cannot_be_read_keeps_what_the_cluster_holds() {
    let before = held([row(OwnerName::Operator, 3, "shop/a", 5), row(OwnerName::Api, 3, "shop/b", 5)]);
    let frozen = [name("shop/a"), name("shop/b"), name("shop/never")].into();
    assert_eq!(desired(&[], &frozen, &before, &Unsupported::new()).set, set(&[("shop/a", 5)]));
}

#[test]
fn set_beyond_what_a_body_may_hold_leaves_the_youngest_out() {
    let mut room = Room { policies: 2, bytes: 1000 };
    let policy = parsed("shop/a", 1);
    assert_eq!([room.take(&policy), room.take(&policy), room.take(&policy)], [true, true, false]);
    let mut room = Room { policies: 9, bytes: 400 };
    assert_eq!([room.take(&policy), room.take(&policy)], [true, false], "{} bytes are left", room.bytes);
    assert_eq!(too_many().reason, Reason::TooMany);
}

#[test]
fn room_for_one_more_policy_goes_to_the_one_that_came_first() {
    let others = (0..Policy::COUNT_MAX - 2).map(|i| row(OwnerName::Api, 1, &format!("shop/theirs{i}"), 1));
    let key = ClusterKey { namespace: "shop".to_owned(), name: "edge".to_owned() };
    let made = |text: &str, second| {
        let mut policy = policy(text, "edge", 1);
        policy.metadata.creation_timestamp = Some(at(second));
        Arc::new(policy)
    };
    let found = select(&key, Some(&cluster("shop/edge", &[])), [made("shop/a", 2), made("shop/z", 1)]);
    let desired = desired(&found, &BTreeSet::new(), &held(others), &Unsupported::new());
    assert_eq!(desired.set, set(&[("shop/z", 1)]));
    assert_eq!(desired.refused[&name("shop/a")].reason, Reason::TooMany);
}

#[test]
fn push_is_known_without_reading_when_nobody_else_changed_anything() {
    let before = held([
        row(OwnerName::Operator, 3, "shop/same", 1),
        row(OwnerName::Operator, 3, "shop/changed", 1),
        row(OwnerName::Operator, 3, "shop/gone", 1),
        row(OwnerName::Api, 2, "shop/theirs", 1),
    ]);
    let next = set(&[("shop/same", 1), ("shop/changed", 2), ("shop/new", 1)]);
    let after = before.clone().after(&next, 8).unwrap();
    assert!(after.is(&next) && after.revision == 8);
    let revision = |text| after.rows[&name(text)].revision;
    assert_eq!([revision("shop/same"), revision("shop/changed"), revision("shop/new")], [3, 8, 8]);
    assert_eq!((after.rows.len(), revision("shop/theirs")), (4, 2));
    assert_eq!(after.clone().after(&next, 8), Some(after), "the same again");
    assert_eq!(before.clone().after(&next, 9), None, "somebody else changed something");
    assert_eq!(before.after(&next, 7), None);
}

#[test]
fn row_that_this_operator_cannot_read_is_told_apart_from_every_policy() {
    let rows: PolicyRows = serde_json::from_value(serde_json::json!({
        "revision": 9,
        "policies": [
            { "metadata": { "name": "a", "namespace": "shop" }, "owner": "operator", "revision": 3,
              "spec": { "limits": [{ "name": "minute", "algorithm": "FixedWindow", "limit": 1, "window": "1m" }] } },
            { "metadata": { "name": "b", "namespace": "shop" }, "owner": "operator", "revision": 4,
              "spec": { "limits": [], "newer": true } }
        ]
    }))
    .unwrap();
    let held = Held::read("c", rows);
    assert_eq!(held.rows[&name("shop/a")].policy, Some(parsed("shop/a", 1)));
    assert_eq!(held.rows[&name("shop/b")].policy, None);
    assert!(!held.is(&set(&[("shop/a", 1)])) && !held.is(&set(&[("shop/a", 1), ("shop/b", 1)])));
}
