use quorate_crds::{ConditionStatus, ConditionType};

use super::super::testing::{at, cluster, policy};
use super::*;

fn key(text: &str) -> ClusterKey {
    let (namespace, name) = text.split_once('/').unwrap();
    ClusterKey { namespace: namespace.to_owned(), name: name.to_owned() }
}

fn reason(key: &ClusterKey, cluster: Option<&RateLimitCluster>, policy: QuotaPolicy) -> Option<Reason> {
    let found = select(key, cluster, [Arc::new(policy)]);
    assert_eq!(found.len(), 1);
    found[0].policy.as_ref().err().map(|refusal| refusal.reason)
}

#[test]
fn policy_belongs_to_the_cluster_it_names_in_its_own_namespace_unless_told() {
    for (named, expected) in [("edge", "shop/edge"), ("infra/edge", "infra/edge")] {
        assert_eq!(ClusterKey::of(&policy("shop/search", named, 1)), key(expected));
    }
    let others = [policy("shop/a", "other", 1), policy("shop/b", "infra/edge", 1)].map(Arc::new);
    assert!(select(&key("shop/edge"), Some(&cluster("shop/edge", &[])), others).is_empty());
}

#[test]
fn namespace_is_admitted_when_it_is_the_own_or_allowed() {
    for (allowed, namespace, expected) in [
        (&[][..], "infra", None),
        (&[], "shop", Some(Reason::NamespaceNotAllowed)),
        (&["shop"], "shop", None),
        (&["shop"], "shopping", Some(Reason::NamespaceNotAllowed)),
        (&["*"], "anything", None),
    ] {
        let edge = cluster("infra/edge", allowed);
        let found = reason(&key("infra/edge"), Some(&edge), policy(&format!("{namespace}/p"), "infra/edge", 1));
        assert_eq!(found, expected, "{allowed:?} {namespace}");
    }
}

#[test]
fn cluster_that_was_never_there_is_not_found_and_one_that_is_gone_was_deleted() {
    let edge = key("shop/edge");
    assert_eq!(reason(&edge, None, policy("shop/p", "edge", 1)), Some(Reason::ClusterNotFound));
    let accepted = |generation, reason| {
        let mut policy = policy("shop/p", "edge", 1);
        let status = if reason == Reason::Valid { ConditionStatus::True } else { ConditionStatus::False };
        let finding = quorate_crds::conditions::Finding {
            condition: ConditionType::Accepted,
            status,
            reason,
            message: String::new(),
        };
        let mut conditions = Vec::new();
        quorate_crds::conditions::set_condition(&mut conditions, &finding, Some(generation), &at(0));
        policy.status = Some(quorate_crds::QuotaPolicyStatus {
            observed_generation: Some(generation),
            conditions,
            ..Default::default()
        });
        policy
    };
    assert_eq!(reason(&edge, None, accepted(1, Reason::Valid)), Some(Reason::ClusterDeleted));
    assert_eq!(reason(&edge, None, accepted(1, Reason::ClusterDeleted)), Some(Reason::ClusterDeleted), "stays so");
    assert_eq!(reason(&edge, None, accepted(0, Reason::Valid)), Some(Reason::ClusterNotFound), "it named another then");
    assert_eq!(reason(&edge, None, accepted(1, Reason::ClusterNotFound)), Some(Reason::ClusterNotFound));
    let mut going = cluster("shop/edge", &[]);
    going.metadata.deletion_timestamp = Some(at(5));
    assert_eq!(reason(&edge, Some(&going), policy("shop/p", "edge", 1)), Some(Reason::ClusterDeleted));
    assert_eq!(reason(&edge, Some(&cluster("shop/edge", &[])), policy("shop/p", "edge", 1)), None);
}

#[test]
fn policy_without_a_cluster_or_with_a_broken_rule_is_invalid_and_says_where() {
    let mut nowhere = policy("shop/p", "edge", 1);
    nowhere.spec.cluster_ref = None;
    assert_eq!(reason(&key("shop/"), None, nowhere), Some(Reason::Invalid));
    let edge = cluster("shop/edge", &[]);
    let found = select(&key("shop/edge"), Some(&edge), [Arc::new(policy("shop/p", "edge", -1))]);
    let refusal = found[0].policy.as_ref().unwrap_err();
    assert_eq!(refusal.reason, Reason::Invalid);
    assert!(refusal.message.contains("spec.limits[0].limit"), "{}", refusal.message);
}

#[test]
fn oldest_come_first_and_those_that_go_are_left_out() {
    let made = |name: &str, second| {
        let mut policy = policy(name, "edge", 1);
        policy.metadata.creation_timestamp = Some(at(second));
        Arc::new(policy)
    };
    let mut going = policy("shop/going", "edge", 1);
    going.metadata.deletion_timestamp = Some(at(9));
    let found = select(
        &key("shop/edge"),
        Some(&cluster("shop/edge", &[])),
        [made("shop/c", 2), made("shop/b", 2), Arc::new(going), made("shop/z", 1)],
    );
    let names: Vec<_> = found.iter().map(|candidate| candidate.resource.name_any()).collect();
    assert_eq!(names, ["z", "b", "c"]);
}
