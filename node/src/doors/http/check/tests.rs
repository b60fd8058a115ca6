use serde_json::json;

use super::*;
use crate::admission::UnavailableReason;
use crate::doors::http::testing::{admits, exceeded, policy, shadow, verdict, whole};

#[test]
fn verdict_is_worded_with_every_limit_that_can_deny() {
    let verdict = verdict(
        vec![policy("p", &[("minute", 100, 60_000)]), shadow("s", &[("day", 5, 86_400_000)])],
        vec![admits(99, 59_001), exceeded(0, Some(1_000))],
    );
    let expected = json!({
        "admitted": true,
        "limits": [{ "policy": "test/p", "name": "minute", "limit": 100, "remaining": 99, "resetSeconds": 60 }],
        "revision": 1,
    });
    assert_eq!(serde_json::to_value(worded(&verdict)).unwrap(), expected);
}

#[test]
fn denial_names_the_limit_that_stands_against_it_longest() {
    let limits: &[_] = &[("a", 10, 60_000), ("b", 10, 60_000), ("c", 10, 60_000)];
    let denied_by = |states| worded(&verdict(vec![policy("p", limits)], states)).denied_by.map(|limit| limit.name);
    assert_eq!(denied_by(vec![exceeded(0, Some(1)), exceeded(0, Some(9)), admits(1, 99)]).as_deref(), Some("b"));
    assert_eq!(denied_by(vec![exceeded(9, None), exceeded(0, Some(9)), admits(1, 99)]).as_deref(), Some("a"));
    assert_eq!(denied_by(vec![admits(1, 1), admits(1, 1), admits(1, 1)]), None);
}

#[tokio::test]
async fn no_decision_is_503_unless_the_policies_allow() {
    let unavailable = |on_unavailable| Unavailable { reason: UnavailableReason::NotJoined, on_unavailable };
    let denied = whole(undecided(&unavailable(OnUnavailable::Deny), 7)).await;
    assert_eq!(denied.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(denied.json(), json!({ "error": "this node has not joined a cluster yet" }));
    let allowed = whole(undecided(&unavailable(OnUnavailable::Allow), 7)).await;
    assert_eq!(allowed.status, StatusCode::OK);
    assert_eq!(allowed.json(), json!({ "admitted": true, "limits": [], "revision": 7, "unavailable": true }));
    assert_eq!(allowed.header("x-ratelimit-decision"), "allow-unavailable");
}
