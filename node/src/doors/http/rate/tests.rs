use axum::http::Uri;
use quorate_limits::OnUnavailable;

use super::*;
use crate::admission::UnavailableReason;
use crate::doors::http::testing::{admits, exceeded, policy, shadow, verdict, whole};

fn uri(query: &str) -> Uri {
    format!("/rate/increment{query}").parse().unwrap()
}

fn unavailable(on_unavailable: OnUnavailable) -> Unavailable {
    Unavailable { reason: UnavailableReason::Deadline, on_unavailable }
}

#[test]
fn client_is_read_from_the_query() {
    assert_eq!(client(&uri("?client_id=a%20b")), Ok(Request::of_client("a b")));
    let longest = "x".repeat(256);
    assert_eq!(client(&uri(&format!("?client_id={longest}"))), Ok(Request::of_client(&longest)));
}

#[test]
fn client_that_is_missing_empty_too_long_or_no_text_is_refused() {
    for (query, error) in [
        ("", "Missing client_id."),
        ("?", "Missing client_id."),
        ("?client_id", "Missing client_id."),
        ("?client_id=", "Missing client_id."),
        ("?client_id=&client_id=a", "Missing client_id."),
        ("?Client_id=a", "Missing client_id."),
        ("?client_id=%ff", "client_id is not percent-encoded UTF-8."),
        ("?client_id=%2", "client_id is not percent-encoded UTF-8."),
    ] {
        assert_eq!(client(&uri(query)), Err(error.to_owned()), "{query}");
    }
    let too_long = format!("?client_id={}%C3%A9", "x".repeat(255));
    assert_eq!(client(&uri(&too_long)), Err("client_id has 257 bytes; give at most 256.".to_owned()));
}

#[test]
fn deny_status_is_200_403_or_429() {
    for (query, status) in [("", 200), ("?deny_status=200", 200), ("?deny_status=403", 403), ("?deny_status=429", 429)]
    {
        assert_eq!(deny_status(&uri(query)).map(|status| status.as_u16()), Ok(status), "{query}");
    }
    for query in ["?deny_status=", "?deny_status=500", "?deny_status=x", "?deny_status=%ff"] {
        assert!(deny_status(&uri(query)).is_err(), "{query}");
    }
}

#[test]
fn consistency_is_linearizable_unless_local() {
    assert_eq!(consistency(&uri("")), Ok(Consistency::Linearizable));
    assert_eq!(consistency(&uri("?consistency=local")), Ok(Consistency::Local));
    assert!(consistency(&uri("?consistency=eventual")).is_err());
}

#[tokio::test]
async fn refusal_is_400_with_error_and_result() {
    let answer = whole(refused("Missing client_id.")).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.body[..]),
        (400, &br#"{"error":"Missing client_id.","result":false}"#[..])
    );
    assert_eq!(answer.header("content-type"), "application/json");
}

#[tokio::test]
async fn decision_is_worded_with_the_status_asked_for() {
    let admitted = verdict(vec![policy("p", &[("a", 10, 60_000)])], vec![admits(9, 60_000)]);
    let answer = whole(decided(&admitted, StatusCode::TOO_MANY_REQUESTS)).await;
    assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, &br#"{"result":true}"#[..]));
    assert_eq!(answer.header("x-ratelimit-decision"), "admit");
    let denied = verdict(vec![policy("p", &[("a", 10, 60_000)])], vec![exceeded(0, Some(1_500))]);
    for status in [200, 403, 429] {
        let answer = whole(decided(&denied, StatusCode::from_u16(status).unwrap())).await;
        assert_eq!((answer.status.as_u16(), &answer.body[..]), (status, &br#"{"result":false}"#[..]));
        assert_eq!((answer.header("x-ratelimit-decision"), answer.header("retry-after")), ("deny", "2"));
    }
}

#[tokio::test]
async fn check_tells_the_smallest_remaining_of_what_can_deny() {
    let body = async |verdict: &Verdict| whole(checked(verdict)).await.body;
    let two = verdict(vec![policy("p", &[("a", 10, 60_000), ("b", 5, 60_000)])], vec![admits(9, 0), admits(3, 0)]);
    assert_eq!(body(&two).await, r#"{"remaining_quota":3,"result":true}"#);
    let used = verdict(vec![policy("p", &[("a", 10, 60_000)])], vec![admits(0, 1_000)]);
    assert_eq!(body(&used).await, r#"{"remaining_quota":0,"result":false}"#);
    let watched = verdict(vec![shadow("p", &[("a", 10, 60_000)])], vec![admits(0, 1_000)]);
    assert_eq!(body(&watched).await, r#"{"remaining_quota":null,"result":true}"#);
    assert_eq!(body(&verdict(vec![], vec![])).await, r#"{"remaining_quota":null,"result":true}"#);
}

#[tokio::test]
async fn no_decision_is_503_unless_the_policies_allow() {
    let denied = whole(undecided(&unavailable(OnUnavailable::Deny), TRUE)).await;
    assert_eq!(denied.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        denied.json(),
        json!({ "error": "no decision in time; the cluster may be without a leader", "result": false })
    );
    assert_eq!(denied.header("x-ratelimit-decision"), "unavailable");
    let allowed = whole(undecided(&unavailable(OnUnavailable::Allow), TRUE)).await;
    assert_eq!((allowed.status, &allowed.body[..]), (StatusCode::OK, TRUE.as_bytes()));
    assert_eq!(allowed.header("x-ratelimit-decision"), "allow-unavailable");
}
