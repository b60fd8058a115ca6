use super::*;
use crate::doors::http::testing::{admits, exceeded, policy, shadow, verdict};

fn headers(verdict: &Verdict) -> Vec<(String, String)> {
    let mut headers = HeaderMap::new();
    add_verdict(&mut headers, verdict);
    let mut all: Vec<_> =
        headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
    all.sort();
    all
}

fn pairs<const N: usize>(expected: [(&str, &str); N]) -> Vec<(String, String)> {
    expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

#[test]
fn admitted_request_is_told_each_limit_and_window() {
    let verdict = verdict(
        vec![policy("p", &[("burst", 10, 1000), ("daily", 1000, 86_400_000)])],
        vec![admits(9, 300), admits(50, 3_600_001)],
    );
    let expected = pairs([
        ("ratelimit", r#""test/p/burst";r=9;t=1, "test/p/daily";r=50;t=3601"#),
        ("ratelimit-policy", r#""test/p/burst";q=10;w=1, "test/p/daily";q=1000;w=86400"#),
        ("x-ratelimit-decision", "admit"),
    ]);
    assert_eq!(headers(&verdict), expected);
}

#[test]
fn denied_request_is_told_when_to_come_again_rounded_up() {
    let verdict = verdict(
        vec![policy("p", &[("a", 10, 60_000), ("b", 10, 60_000), ("c", 5, 60_000)])],
        vec![exceeded(0, Some(1_001)), exceeded(2, Some(30_000)), admits(5, 0)],
    );
    let expected = pairs([
        ("ratelimit", r#""test/p/a";r=0;t=2, "test/p/b";r=2;t=30, "test/p/c";r=5;t=0"#),
        ("ratelimit-policy", r#""test/p/a";q=10;w=60, "test/p/b";q=10;w=60, "test/p/c";q=5;w=60"#),
        ("retry-after", "30"),
        ("x-ratelimit-decision", "deny"),
    ]);
    assert_eq!(headers(&verdict), expected);
}

#[test]
fn request_that_never_fits_is_not_told_to_come_again() {
    let verdict = verdict(
        vec![policy("p", &[("a", 10, 60_000), ("b", 20, 60_000)])],
        vec![exceeded(10, None), exceeded(0, Some(5_000))],
    );
    let headers = headers(&verdict);
    assert!(!headers.iter().any(|(name, _)| name == "retry-after"), "{headers:?}");
    assert_eq!(headers[0].1, r#""test/p/a";r=10, "test/p/b";r=0;t=5"#);
}

#[test]
fn policy_that_only_watches_is_not_told_of() {
    let watched = verdict(vec![shadow("p", &[("a", 10, 60_000)])], vec![exceeded(0, Some(5_000))]);
    assert_eq!(headers(&watched), pairs([("x-ratelimit-decision", "admit")]));
}

#[test]
fn request_without_limits_has_only_its_decision() {
    assert_eq!(headers(&verdict(vec![], vec![])), pairs([("x-ratelimit-decision", "admit")]));
}

#[test]
fn window_of_part_seconds_is_left_out_and_large_limits_fit_the_field() {
    let verdict = verdict(
        vec![policy("p", &[("a", 1_000_000_000_000_000, 1500), ("b", 3, 500)])],
        vec![admits(1_000_000_000_000_000, 1), admits(3, 0)],
    );
    let expected = pairs([
        ("ratelimit", r#""test/p/a";r=999999999999999;t=1, "test/p/b";r=3;t=0"#),
        ("ratelimit-policy", r#""test/p/a";q=999999999999999, "test/p/b";q=3"#),
        ("x-ratelimit-decision", "admit"),
    ]);
    assert_eq!(headers(&verdict), expected);
}

#[test]
fn many_limits_are_cut_to_16_those_against_the_request_first() {
    let names: Vec<_> = (0..20).map(|i| format!("p{i:02}")).collect();
    let policies = names.iter().map(|name| policy(name, &[("a", 10, 60_000)])).collect();
    let mut limits = vec![admits(5, 0); 19];
    limits.push(exceeded(0, Some(1_000)));
    let headers = headers(&verdict(policies, limits));
    let items: Vec<_> = headers[0].1.split(", ").collect();
    assert_eq!(items.len(), 16);
    assert_eq!((items[0], items[1]), (r#""test/p19/a";r=0;t=1"#, r#""test/p00/a";r=5;t=0"#));
}

#[test]
fn limit_met_twice_is_told_once_by_its_tightest_counter() {
    let name = quorate_limits::PolicyName { namespace: "n".to_owned(), name: "p".to_owned() };
    let report = |(remaining, exceeded)| LimitReport {
        descriptor: 0,
        policy: &name,
        name: "a",
        limit: 10,
        window: Duration::from_mins(1),
        remaining,
        reset: Duration::from_secs(1),
        retry: Some(Duration::from_secs(1)),
        exceeded,
        shadow: false,
    };
    for (met, told) in [
        (vec![(5, false), (3, false), (4, false)], (3, false)),
        (vec![(1, false), (7, true)], (7, true)),
        (vec![(7, true), (1, false)], (7, true)),
        (vec![(7, true), (2, true)], (2, true)),
    ] {
        let kept = tightest(met.into_iter().map(report));
        assert_eq!(kept, [report(told)]);
    }
}

#[test]
fn spans_round_up_to_whole_seconds() {
    for (millis, seconds) in [(0, 0), (1, 1), (999, 1), (1000, 1), (1001, 2)] {
        assert_eq!(whole_seconds(Duration::from_millis(millis)), seconds, "{millis}");
    }
}
