use super::super::testing::{at, policy};
use super::*;

fn edge() -> ClusterKey {
    ClusterKey { namespace: "shop".to_owned(), name: "edge".to_owned() }
}

fn told(policy: &QuotaPolicy, current: Option<&QuotaPolicyStatus>, standing: &Standing<'_>, second: i64) -> Told {
    tell(policy, current, &edge(), standing, Some(0), &at(second))
}

fn held(revision: u64, members: &Members) -> Standing<'_> {
    Standing::Held { revision, members: Some(members) }
}

#[test]
fn standing_is_told_as_conditions_and_columns() {
    let refusal = Refusal::new(Reason::NamespaceNotAllowed, "no");
    let (all, two, none) = (Members(vec![7, 8, 7]), Members(vec![7, 6, 7]), Members(vec![]));
    let not_sent = Standing::NotSent { why: "no pod answers" };
    let refused = Standing::Refused { refusal: &refusal, is_kept: false };
    for (standing, enforcement, accepted, enforced, on) in [
        (&held(7, &all), Enforcement::Enforce, ("True", "Valid"), ("True", "OnEveryMember"), Some("3/3")),
        (&held(7, &all), Enforcement::Shadow, ("True", "Valid"), ("True", "OnEveryMember"), Some("3/3")),
        (&held(7, &all), Enforcement::Disabled, ("True", "Valid"), ("False", "Disabled"), None),
        (&held(7, &two), Enforcement::Enforce, ("True", "Valid"), ("False", "Spreading"), Some("2/3")),
        (&held(7, &none), Enforcement::Enforce, ("True", "Valid"), ("False", "Spreading"), Some("0/0")),
        (
            &Standing::Held { revision: 7, members: None },
            Enforcement::Enforce,
            ("True", "Valid"),
            ("False", "Spreading"),
            None,
        ),
        (&not_sent, Enforcement::Enforce, ("Unknown", "NotSent"), ("False", "NotSent"), None),
        (&refused, Enforcement::Enforce, ("False", "NamespaceNotAllowed"), ("False", "NamespaceNotAllowed"), None),
    ] {
        let mut policy = policy("shop/search", "edge", 100);
        policy.spec.enforcement = enforcement;
        let Told { status, findings } = told(&policy, None, standing, 1);
        let said: Vec<_> = status.conditions.iter().map(|c| (c.status.as_str(), c.reason.as_str())).collect();
        assert_eq!(said, [accepted, enforced], "{standing:?}");
        assert_eq!(status.enforced_on.as_deref(), on, "{standing:?}");
        assert!(status.conditions.iter().all(|c| c.observed_generation == Some(1)));
        assert_eq!(findings.map(|finding| finding.condition), [ConditionType::Accepted, ConditionType::Enforced]);
        assert_eq!(status.revision.is_some(), matches!(standing, Standing::Held { .. }));
    }
}

#[test]
fn refusal_says_whether_what_was_before_stays_in_force() {
    let refusal = Refusal::new(Reason::Invalid, "spec.limits[0].limit: -1 is out of bounds");
    let policy = policy("shop/search", "edge", 1);
    let message = |is_kept| {
        told(&policy, None, &Standing::Refused { refusal: &refusal, is_kept }, 1).status.conditions[0].message.clone()
    };
    assert_eq!(message(false), refusal.message);
    assert!(message(true).ends_with("What it was before stays in force"));
}

#[test]
fn same_again_is_not_written() {
    let (policy, members) = (policy("shop/search", "edge", 100), Members(vec![7, 7, 7]));
    let first = due(None, told(&policy, None, &held(7, &members), 1).status, false).unwrap();
    assert_eq!(first.limits.as_deref(), Some("100/1m"));
    for settled in [false, true] {
        assert_eq!(due(Some(&first), told(&policy, Some(&first), &held(7, &members), 99).status, settled), None);
    }
    let denied = tell(&policy, Some(&first), &edge(), &held(7, &members), Some(12), &at(99)).status;
    assert_eq!(due(Some(&first), denied, false).unwrap().denied.as_deref(), Some("10+"));
}

#[test]
fn member_that_comes_or_goes_is_told_once_it_lasts() {
    let (policy, all) = (policy("shop/search", "edge", 100), Members(vec![7, 7, 7]));
    let enforced = told(&policy, None, &held(7, &all), 1).status;
    for blip in [Members(vec![7, 7]), Members(vec![7, 7, 0])] {
        let next = told(&policy, Some(&enforced), &held(7, &blip), 5).status;
        assert_eq!(due(Some(&enforced), next.clone(), false), None, "{blip:?}");
        assert_eq!(due(Some(&enforced), next.clone(), true), Some(next));
    }
    let silence = told(&policy, Some(&enforced), &Standing::Held { revision: 7, members: None }, 5).status;
    assert_eq!(due(Some(&enforced), silence, false), None);
}

#[test]
fn change_is_told_at_once_and_so_is_that_it_came_about() {
    let (mut policy, members) = (policy("shop/search", "edge", 100), Members(vec![7, 7, 7]));
    let enforced = told(&policy, None, &held(7, &members), 1).status;
    policy.metadata.generation = Some(2);
    let spreading = told(&policy, Some(&enforced), &held(8, &members), 5).status;
    let spreading = due(Some(&enforced), spreading, false).expect("another generation");
    assert_eq!(spreading.enforced_on.as_deref(), Some("0/3"));
    let done = told(&policy, Some(&spreading), &held(8, &Members(vec![8, 8, 9])), 6).status;
    let done = due(Some(&spreading), done, false).expect("now in force");
    assert_eq!((done.enforced_on.as_deref(), done.observed_generation), (Some("3/3"), Some(2)));
    let refusal = Refusal::new(Reason::ClusterDeleted, "gone");
    let gone = told(&policy, Some(&done), &Standing::Refused { refusal: &refusal, is_kept: false }, 7).status;
    assert_eq!(due(Some(&done), gone, false).unwrap().enforced_on, None);
}

#[test]
fn limits_read_as_people_write_them() {
    let spec = |limits: serde_json::Value, more: serde_json::Value| -> QuotaPolicySpec {
        let mut spec = serde_json::json!({ "limits": limits });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(spec).unwrap()
    };
    let limit = |algorithm: &str, limit: i64, window: &str, burst: Option<i64>| {
        let mut limit = serde_json::json!({ "name": "l", "algorithm": algorithm, "limit": limit, "window": window });
        if let Some(burst) = burst {
            limit["burst"] = burst.into();
        }
        limit
    };
    let plain = serde_json::json!({});
    let two = serde_json::json!([limit("FixedWindow", 100, "1m", None), limit("TokenBucket", 10, "1s", Some(20))]);
    assert_eq!(limits_text(&spec(two, plain.clone())), "100/1m, 10/1s burst 20");
    let shadow = serde_json::json!({ "enforcement": "Shadow", "overrides": [
        { "match": [{ "key": "client_id", "exact": "a" }], "limits": [{ "name": "l", "limit": 1 }] }] });
    let one = serde_json::json!([limit("TokenBucket", 10, "1s", Some(10))]);
    assert_eq!(limits_text(&spec(one, shadow)), "10/1s (1 override, shadow)");
    let many: Vec<_> = (0..16).map(|_| limit("TokenBucket", 1_000_000_000_000_000, "8783h59m59s", Some(1))).collect();
    let text = limits_text(&spec(many.into(), plain));
    assert!(text.len() < 256 && text.ends_with(" more"), "{text}");
}

#[test]
fn denied_is_rounded_down_to_few_values() {
    for (denied, text) in [
        (0, "0"),
        (1, "1+"),
        (4, "2+"),
        (5, "5+"),
        (9, "5+"),
        (10, "10+"),
        (199, "100+"),
        (999, "500+"),
        (1000, "1k+"),
        (54_321, "50k+"),
        (2_000_000, "2M+"),
        (u64::MAX, "10000000000G+"),
    ] {
        assert_eq!(denied_text(denied), text);
    }
}
