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
    (name(text), HeldRow { owner, revision, content: Content::Known(parsed(text, limit)) })
}

fn held(rows: impl IntoIterator<Item = (PolicyName, HeldRow)>) -> Held {
    Held { cluster_id: "c".to_owned(), revision: 7, rows: rows.into_iter().collect() }
}

fn candidates(policies: &[(&str, i64)]) -> Vec<Candidate> {
    let key = ClusterKey { namespace: "shop".to_owned(), name: "edge".to_owned() };
    let policies = policies.iter().map(|(name, limit)| Arc::new(policy(name, "edge", *limit)));
    select(&key, Some(&cluster("shop/edge", &[])), policies)
}

fn set(policies: &[(&str, i64)]) -> BTreeMap<PolicyName, Content> {
    policies.iter().map(|(text, limit)| (name(text), Content::Known(parsed(text, *limit)))).collect()
}

fn wanted(policies: &[(&str, i64)], held: &Held) -> Desired {
    desired(&candidates(policies), &Unknown::default(), held, &Unsupported::new())
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
    let unsupported = desired(&candidates(&[("shop/a", 9)]), &Unknown::default(), &before, &refused);
    assert_eq!(unsupported.set, set(&[("shop/a", 5)]));
    assert_eq!(unsupported.refused[&name("shop/a")].reason, Reason::Unsupported);
    let mended = desired(&candidates(&[("shop/a", 8)]), &Unknown::default(), &before, &refused);
    assert_eq!((mended.set, mended.refused.len()), (set(&[("shop/a", 8)]), 0), "what was refused is another");
}

#[test]
fn policy_that_cannot_be_read_keeps_what_the_cluster_holds() {
    let before = held([row(OwnerName::Operator, 3, "shop/a", 5), row(OwnerName::Api, 3, "shop/b", 5)]);
    let policies = [name("shop/a"), name("shop/b"), name("shop/never")].into();
    let unknown = Unknown { policies, ..Unknown::default() };
    assert_eq!(desired(&[], &unknown, &before, &Unsupported::new()).set, set(&[("shop/a", 5)]));
}

#[test]
fn namespace_that_was_never_listed_keeps_what_the_cluster_holds_of_it() {
    let before = held([row(OwnerName::Operator, 3, "guest/a", 5), row(OwnerName::Operator, 3, "shop/gone", 5)]);
    let unknown = Unknown { namespaces: ["guest".to_owned()].into(), ..Unknown::default() };
    let desired = desired(&candidates(&[("shop/a", 1)]), &unknown, &before, &Unsupported::new());
    assert_eq!(desired.set, set(&[("guest/a", 5), ("shop/a", 1)]));
}

#[test]
fn set_beyond_what_a_body_may_hold_leaves_the_youngest_out() {
    let mut room = Room { policies: 2, bytes: 1000 };
    let (a, policy) = (name("shop/a"), Content::Known(parsed("shop/a", 1)));
    assert_eq!([(); 3].map(|()| room.take(&a, &policy)), [true, true, false]);
    let mut room = Room { policies: 9, bytes: 400 };
    assert_eq!([(); 2].map(|()| room.take(&a, &policy)), [true, false], "{} bytes are left", room.bytes);
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
    let desired = desired(&found, &Unknown::default(), &held(others), &Unsupported::new());
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

/// Three policies as a newer limiter lists them: `b` has a field that this operator does not know.
fn listed_by_a_newer_limiter(revision: u64) -> Held {
    let rows: PolicyRows = serde_json::from_value(json!({
        "revision": revision,
        "policies": [
            { "metadata": { "name": "a", "namespace": "shop" }, "owner": "operator", "revision": 3,
              "spec": { "limits": [{ "name": "minute", "algorithm": "FixedWindow", "limit": 1, "window": "1m" }] } },
            { "metadata": { "name": "b", "namespace": "shop" }, "owner": "operator", "revision": 4, "spec": newer() }
        ]
    }))
    .unwrap();
    Held::read("c", rows)
}

fn newer() -> Value {
    json!({ "limits": [{ "name": "minute", "algorithm": "FixedWindow", "limit": 5, "window": "1m" }], "newer": true })
}

#[test]
fn row_that_this_operator_cannot_read_is_kept_word_for_word_and_told_apart_from_every_policy() {
    let held = listed_by_a_newer_limiter(9);
    assert_eq!(held.rows[&name("shop/a")].content, Content::Known(parsed("shop/a", 1)));
    assert_eq!(held.rows[&name("shop/b")].content, Content::Raw(newer()));
    assert!(!held.is(&set(&[("shop/a", 1)])) && !held.is(&set(&[("shop/a", 1), ("shop/b", 5)])));
    let unknown = Unknown { policies: [name("shop/b")].into(), ..Unknown::default() };
    let desired = desired(&candidates(&[("shop/a", 2)]), &unknown, &held, &Unsupported::new());
    let mut expected = set(&[("shop/a", 2)]);
    expected.insert(name("shop/b"), Content::Raw(newer()));
    assert_eq!(desired.set, expected);
    let pushed = serde_json::to_value(desired.set[&name("shop/b")].resource(&name("shop/b"))).unwrap();
    let known = serde_json::to_value(desired.set[&name("shop/a")].resource(&name("shop/a"))).unwrap();
    assert_eq!((&pushed["spec"], &pushed["metadata"]), (&newer(), &json!({ "name": "b", "namespace": "shop" })));
    assert_eq!((&pushed["apiVersion"], &pushed["kind"]), (&known["apiVersion"], &known["kind"]));
    // It is not counted as changed by being pushed back.
    let after = held.after(&desired.set, 10).unwrap();
    assert!(after.is(&desired.set) && after.rows[&name("shop/b")].revision == 4);
}

#[test]
fn push_that_changed_nothing_says_what_the_rows_are_that_could_not_be_read() {
    let same = set(&[("shop/a", 1), ("shop/b", 5)]);
    let after = listed_by_a_newer_limiter(9).after(&same, 9).unwrap();
    assert!(after.is(&same));
    assert_eq!((after.revision, after.rows[&name("shop/b")].revision), (9, 4));
    let reads_again = listed_by_a_newer_limiter(9).after(&same, 10);
    assert_eq!(reads_again, None, "whether that was this push, nobody knows");
    let changed = set(&[("shop/a", 2), ("shop/b", 5)]);
    assert_eq!(listed_by_a_newer_limiter(9).after(&changed, 10), None, "nor what became of the other");
}
