use proptest::prelude::*;

use super::*;
use crate::parse_policy;

/// A policy with `spec` as its spec, or all that is wrong with it.
fn parse(spec: &str) -> Result<Policy, Vec<String>> {
    parse_named("{name: search, namespace: shop}", spec)
}

fn parse_named(metadata: &str, spec: &str) -> Result<Policy, Vec<String>> {
    let text = format!("{{apiVersion: quorate.dev/v1alpha1, kind: QuotaPolicy, metadata: {metadata}, spec: {spec}}}");
    parse_policy(text.as_bytes(), true).map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

const DAILY: &str = "{name: daily, algorithm: FixedWindow, limit: 100, window: 24h}";
const BUCKET: &str = "{name: bucket, algorithm: TokenBucket, limit: 10, window: 1s, burst: 20}";

fn limits_with(limit: &str) -> String {
    format!("{{limits: [{limit}]}}")
}

fn overrides_with(overrides: &str) -> String {
    format!("{{limits: [{DAILY}, {BUCKET}], overrides: [{overrides}]}}")
}

fn repeated(count: usize, item: impl Fn(usize) -> String) -> String {
    (0..count).map(item).collect::<Vec<_>>().join(", ")
}

fn limit_of(name: &str, algorithm: quorate_limits::Algorithm, limit: u64, window_s: u64, burst: u64) -> Limit {
    Limit { name: name.to_owned(), algorithm, limit, window_ns: window_s * 1_000_000_000, burst }
}

#[test]
fn shortest_policy_gets_the_defaults() {
    let policy = parse_named("{name: search}", &limits_with(DAILY)).unwrap();
    assert_eq!(
        policy,
        Policy {
            name: PolicyName { namespace: "default".to_owned(), name: "search".to_owned() },
            domain: "default".to_owned(),
            matches: Vec::new(),
            count_by: vec!["client_id".to_owned()],
            limits: vec![limit_of("daily", quorate_limits::Algorithm::FixedWindow, 100, 86_400, 100)],
            overrides: Vec::new(),
            enforcement: quorate_limits::Enforcement::Enforce,
            on_unavailable: quorate_limits::OnUnavailable::Deny,
            fallback: false,
        }
    );
}

#[test]
fn full_policy_keeps_all_it_says() {
    let policy = parse(&format!(
        "{{clusterRef: {{name: edge}}, domain: web, countBy: [client_id, path],
           match: [{{key: a, exact: ''}}, {{key: b, prefix: p}}, {{key: c, any: true}}],
           limits: [{DAILY}, {BUCKET}, {{name: s, algorithm: SlidingWindow, limit: 0, window: 1ms}}],
           enforcement: Shadow, onUnavailable: Allow}}"
    ))
    .unwrap();
    let key_match = |key: &str, value| KeyMatch { key: key.to_owned(), value };
    assert_eq!((policy.domain.as_str(), policy.count_by), ("web", vec!["client_id".to_owned(), "path".to_owned()]));
    assert_eq!(
        policy.matches,
        [
            key_match("a", ValueMatch::Exact(String::new())),
            key_match("b", ValueMatch::Prefix("p".to_owned())),
            key_match("c", ValueMatch::Any)
        ]
    );
    let sliding = Limit { window_ns: 1_000_000, ..limit_of("s", quorate_limits::Algorithm::SlidingWindow, 0, 0, 0) };
    let bucket = limit_of("bucket", quorate_limits::Algorithm::TokenBucket, 10, 1, 20);
    assert_eq!(policy.limits[1..], [bucket, sliding]);
    assert_eq!(policy.enforcement, quorate_limits::Enforcement::Shadow);
    assert_eq!(policy.on_unavailable, quorate_limits::OnUnavailable::Allow);
    assert_eq!(
        parse(&format!("{{limits: [{DAILY}], enforcement: Disabled}}")).unwrap().enforcement,
        quorate_limits::Enforcement::Disabled
    );
}

#[test]
fn only_the_policies_of_the_founding_are_fallbacks() {
    for (namespace, name, fallback) in [
        ("quorate", "default", true),
        ("quorate", "bucket", true),
        ("default", "default", false),
        ("default", "bucket", false),
        ("quorate", "search", false),
    ] {
        let metadata = format!("{{namespace: {namespace}, name: {name}}}");
        assert_eq!(parse_named(&metadata, &limits_with(DAILY)).unwrap().fallback, fallback, "{metadata}");
    }
}

#[test]
fn override_puts_its_figures_in_place() {
    use quorate_limits::Algorithm::{FixedWindow, TokenBucket};
    let daily = limit_of("daily", FixedWindow, 100, 86_400, 100);
    let bucket = limit_of("bucket", TokenBucket, 10, 1, 20);
    for (limits, expected) in [
        ("{name: daily, limit: 5}", [limit_of("daily", FixedWindow, 5, 86_400, 5), bucket.clone()]),
        ("{name: daily, window: 1h}", [limit_of("daily", FixedWindow, 100, 3_600, 100), bucket.clone()]),
        ("{name: bucket, limit: 50}", [daily.clone(), limit_of("bucket", TokenBucket, 50, 1, 50)]),
        ("{name: bucket, limit: 10}", [daily.clone(), limit_of("bucket", TokenBucket, 10, 1, 10)]),
        ("{name: bucket, window: 2s}", [daily.clone(), limit_of("bucket", TokenBucket, 10, 2, 20)]),
        ("{name: bucket, burst: 30}", [daily.clone(), limit_of("bucket", TokenBucket, 10, 1, 30)]),
        ("{name: bucket, limit: 0}", [daily.clone(), limit_of("bucket", TokenBucket, 0, 1, 0)]),
        (
            "{name: bucket, limit: 5, window: 3s, burst: 7}, {name: daily, limit: 1}",
            [limit_of("daily", FixedWindow, 1, 86_400, 1), limit_of("bucket", TokenBucket, 5, 3, 7)],
        ),
    ] {
        let policy = parse(&overrides_with(&format!("{{match: [{{key: k, exact: v}}], limits: [{limits}]}}"))).unwrap();
        assert_eq!(policy.overrides[0].limits, expected, "{limits}");
        let resource = QuotaPolicy::from(&policy);
        assert_eq!(Policy::try_from(&resource).unwrap(), policy, "{limits} and back");
    }
}

#[test]
fn name_that_is_no_dns_name_is_refused() {
    let words = "is not a DNS name; use at most 253 lower case letters, digits, '-' and '.', with a letter or digit at \
                 both ends of each part";
    for name in ["Search", "a_b", "-a", "a-", "a..b", ".a", "", "ä", &"a".repeat(254)] {
        let quoted = quoted(name);
        for field in ["name", "namespace"] {
            let other = if field == "name" { "namespace: a" } else { "name: a" };
            let errors = parse_named(&format!("{{{field}: '{name}', {other}}}"), &limits_with(DAILY)).unwrap_err();
            assert_eq!(errors, [format!("metadata.{field}: {quoted} {words}")]);
        }
    }
    assert_eq!(
        parse_named("{namespace: a}", &limits_with(DAILY)).unwrap_err(),
        ["metadata.name: is missing; name the policy"]
    );
    for name in ["a", "0", "a-b.c-d.0", &"a".repeat(253)] {
        assert_eq!(parse_named(&format!("{{name: '{name}'}}"), &limits_with(DAILY)).unwrap().name.name, name);
    }
}

#[test]
fn field_that_breaks_a_rule_is_refused_by_its_path() {
    let long = "x".repeat(257);
    let cut = format!("\"{}\"…", "x".repeat(64));
    for (spec, message) in [
        (format!("{{domain: '', limits: [{DAILY}]}}"), "spec.domain: is empty; give 1 to 128 bytes".to_owned()),
        (
            format!("{{domain: {}, limits: [{DAILY}]}}", "x".repeat(129)),
            format!("spec.domain: {cut} has 129 bytes; give at most 128"),
        ),
        (format!("{{countBy: [], limits: [{DAILY}]}}"), "spec.countBy: has 0 entries; give 1 to 8".to_owned()),
        (
            format!("{{countBy: [{}], limits: [{DAILY}]}}", repeated(9, |i| format!("k{i}"))),
            "spec.countBy: has 9 entries; give 1 to 8".to_owned(),
        ),
        (
            format!("{{countBy: [a, b, a], limits: [{DAILY}]}}"),
            r#"spec.countBy[2]: "a" is there twice; name each key once"#.to_owned(),
        ),
        (format!("{{countBy: [''], limits: [{DAILY}]}}"), "spec.countBy[0]: is empty; give 1 to 256 bytes".to_owned()),
        (
            format!("{{countBy: [{long}], limits: [{DAILY}]}}"),
            format!("spec.countBy[0]: {cut} has 257 bytes; give at most 256"),
        ),
        ("{limits: []}".to_owned(), "spec.limits: has 0 entries; give 1 to 16".to_owned()),
        (
            limits_with(&repeated(17, |i| DAILY.replace("daily", &format!("l{i}")))),
            "spec.limits: has 17 entries; give 1 to 16".to_owned(),
        ),
        (
            format!("{{limits: [{DAILY}, {DAILY}]}}"),
            r#"spec.limits[1].name: "daily" is there twice; name each limit apart"#.to_owned(),
        ),
        (
            overrides_with(&repeated(257, |i| {
                format!("{{match: [{{key: k, exact: v{i}}}], limits: [{{name: daily, limit: 1}}]}}")
            })),
            "spec.overrides: has 257 entries; give at most 256".to_owned(),
        ),
    ] {
        assert_eq!(parse(&spec).unwrap_err(), [message], "{spec}");
    }
}

#[test]
fn match_that_breaks_a_rule_is_refused_by_its_path() {
    let long = "x".repeat(257);
    let cut = format!("\"{}\"…", "x".repeat(64));
    for (matches, message) in [
        ("{key: a}".to_owned(), "[0]: says no value; give one of exact, prefix or any: true".to_owned()),
        (
            "{key: a, exact: b, prefix: b}".to_owned(),
            "[0]: says more than one value; give only one of exact, prefix and any: true".to_owned(),
        ),
        (
            "{key: a, exact: b, any: true}".to_owned(),
            "[0]: says more than one value; give only one of exact, prefix and any: true".to_owned(),
        ),
        (
            "{key: a, any: false}".to_owned(),
            "[0].any: can only be true; leave the entry out to match without this key".to_owned(),
        ),
        ("{key: '', any: true}".to_owned(), "[0].key: is empty; give 1 to 256 bytes".to_owned()),
        (format!("{{key: {long}, any: true}}"), format!("[0].key: {cut} has 257 bytes; give at most 256")),
        (format!("{{key: a, exact: {long}}}"), format!("[0].exact: {cut} has 257 bytes; give at most 256")),
        (format!("{{key: a, prefix: {long}}}"), format!("[0].prefix: {cut} has 257 bytes; give at most 256")),
        ("{key: a, prefix: ''}".to_owned(), "[0].prefix: is empty; write any: true for every value".to_owned()),
        ("{key: a, any: true}, {key: a, any: true}".to_owned(), "[1]: is there twice; remove one of them".to_owned()),
        (repeated(17, |i| format!("{{key: k{i}, any: true}}")), ": has 17 entries; give at most 16".to_owned()),
    ] {
        let spec = format!("{{match: [{matches}], limits: [{DAILY}]}}");
        assert_eq!(parse(&spec).unwrap_err(), [format!("spec.match{message}")], "{matches}");
        let spec = overrides_with(&format!("{{match: [{matches}], limits: [{{name: daily, limit: 1}}]}}"));
        assert_eq!(parse(&spec).unwrap_err(), [format!("spec.overrides[0].match{message}")], "{matches}");
    }
}

#[test]
fn limit_that_breaks_a_rule_is_refused_by_its_path() {
    for (old, new, message) in [
        (
            "name: bucket",
            "name: Bucket",
            r#"name: "Bucket" is not a limit's name; use at most 63 lower case letters, digits and '-', with a letter or digit at both ends"#,
        ),
        (
            "TokenBucket",
            "Concurrency",
            "algorithm: Concurrency is not supported by this version; use FixedWindow, SlidingWindow or TokenBucket",
        ),
        ("limit: 10", "limit: -1", "limit: -1 is out of bounds; give 0 to 1000000000000000"),
        (
            "limit: 10",
            "limit: 1000000000000001",
            "limit: 1000000000000001 is out of bounds; give 0 to 1000000000000000",
        ),
        ("window: 1s", "window: 0s", "window: 0s is too short; give at least 1ms"),
        ("window: 1s", "window: 8785h", "window: 8785h is too long; give at most 8784h (366 days)"),
        ("window: 1s", "window: 60", r#"window: "60" is not a duration; write it like 90s, 1h30m or 500ms"#),
        (
            "burst: 20",
            "burst: 0",
            "burst: 0 would admit nothing; give at least 1, or set limit to 0 to deny everything",
        ),
        ("burst: 20", "burst: -1", "burst: -1 is out of bounds; give 0 to 1000000000000000"),
        ("TokenBucket", "FixedWindow", "burst: belongs to TokenBucket; leave it out of a FixedWindow"),
        ("TokenBucket", "SlidingWindow", "burst: belongs to TokenBucket; leave it out of a SlidingWindow"),
    ] {
        let spec = format!("{{limits: [{DAILY}, {}]}}", BUCKET.replace(old, new));
        assert_eq!(parse(&spec).unwrap_err(), [format!("spec.limits[1].{message}")], "{new}");
    }
    for name in ["a".repeat(64), "a.b".to_owned(), "-a".to_owned(), String::new()] {
        let errors = parse(&limits_with(&BUCKET.replace("name: bucket", &format!("name: '{name}'")))).unwrap_err();
        assert!(errors[0].contains("is not a limit's name"), "{errors:?}");
    }
}

#[test]
fn figures_at_their_bounds_are_accepted() {
    for (old, new) in [
        ("limit: 10", "limit: 0"),
        ("limit: 10", "limit: 1000000000000000"),
        ("burst: 20", "burst: 1"),
        ("burst: 20", "burst: 1000000000000000"),
        ("limit: 10, window: 1s, burst: 20", "limit: 0, window: 1s, burst: 0"),
        ("window: 1s", "window: 1ms"),
        ("window: 1s", "window: 8784h"),
        ("bucket", &"a".repeat(63)),
    ] {
        let policy = parse(&limits_with(&BUCKET.replace(old, new))).unwrap();
        assert_eq!(Policy::try_from(&QuotaPolicy::from(&policy)).unwrap(), policy, "{new} and back");
    }
}

#[test]
fn override_that_breaks_a_rule_is_refused_by_its_path() {
    for (limits, message) in [
        ("", "limits: is empty; name the limits that differ"),
        (
            "{name: hourly, limit: 1}",
            r#"limits[0].name: "hourly" is no limit of this policy; it has "daily", "bucket""#,
        ),
        ("{name: daily}", "limits[0]: changes nothing; give limit, window or burst"),
        (
            "{name: daily, limit: 1}, {name: daily, limit: 2}",
            r#"limits[1].name: "daily" is there twice; name each limit once"#,
        ),
        ("{name: daily, burst: 1}", "limits[0].burst: belongs to TokenBucket; leave it out of a FixedWindow"),
        ("{name: daily, limit: -1}", "limits[0].limit: -1 is out of bounds; give 0 to 1000000000000000"),
        ("{name: daily, window: 0s}", "limits[0].window: 0s is too short; give at least 1ms"),
        (
            "{name: bucket, burst: 0}",
            "limits[0].burst: 0 would admit nothing; give at least 1, or set limit to 0 to deny everything",
        ),
    ] {
        let spec = overrides_with(&format!("{{match: [{{key: k, exact: v}}], limits: [{limits}]}}"));
        assert_eq!(parse(&spec).unwrap_err(), [format!("spec.overrides[0].{message}")], "{limits}");
    }
    assert_eq!(
        parse(&overrides_with("{match: [], limits: [{name: daily, limit: 1}]}")).unwrap_err(),
        ["spec.overrides[0].match: is empty; say what the override is for"]
    );
}

#[test]
fn override_for_the_same_match_is_refused_in_any_order_of_entries() {
    let one = "{match: [{key: a, exact: x}, {key: b, any: true}], limits: [{name: daily, limit: 1}]}";
    let other = "{match: [{key: b, any: true}, {key: a, exact: x}], limits: [{name: daily, limit: 2}]}";
    assert_eq!(
        parse(&overrides_with(&format!("{one}, {other}"))).unwrap_err(),
        ["spec.overrides[1].match: is the same as in spec.overrides[0]; make one override of them"]
    );
    let different = other.replace("exact", "prefix");
    assert_eq!(parse(&overrides_with(&format!("{one}, {different}"))).unwrap().overrides.len(), 2);
}

#[test]
fn all_broken_rules_are_reported_at_once() {
    let errors = parse_named(
        "{name: A}",
        "{domain: '', match: [{key: a}], limits: [{name: x, algorithm: Concurrency, limit: -1, window: 0s}], \
          overrides: [{match: [{key: a, any: false}], limits: [{name: x, limit: -5}, {name: y, limit: 1}]}]}",
    )
    .unwrap_err();
    let paths: Vec<_> = errors.iter().map(|error| error.split(": ").next().unwrap()).collect();
    assert_eq!(
        paths,
        [
            "metadata.name",
            "spec.domain",
            "spec.match[0]",
            "spec.limits[0].algorithm",
            "spec.limits[0].limit",
            "spec.limits[0].window",
            "spec.overrides[0].match[0].any",
            "spec.overrides[0].limits[1].name"
        ]
    );
}

fn key_match() -> impl Strategy<Value = KeyMatch> {
    let value = prop_oneof![
        ".{0,40}".prop_map(ValueMatch::Exact),
        ".{1,40}".prop_map(ValueMatch::Prefix),
        Just(ValueMatch::Any)
    ];
    (".{1,20}", value).prop_map(|(key, value)| KeyMatch { key, value })
}

fn key_matches(min: usize) -> impl Strategy<Value = Vec<KeyMatch>> {
    proptest::collection::vec(key_match(), min..4).prop_map(|mut matches| {
        matches.dedup();
        matches
    })
}

/// A figure at its bounds or between.
fn figure() -> impl Strategy<Value = u64> {
    prop_oneof![0..4_u64, 0..=Limit::LIMIT_MAX, Just(Limit::LIMIT_MAX)]
}

fn figures(algorithm: quorate_limits::Algorithm) -> impl Strategy<Value = (u64, u64, u64)> {
    let window_ms = prop_oneof![1..5_u64, 1..=Limit::WINDOW_NS_MAX / 1_000_000];
    (figure(), window_ms, prop_oneof![Just(None), figure().prop_map(Some)]).prop_map(
        move |(limit, window_ms, burst)| {
            let burst = match burst {
                Some(burst) if algorithm == quorate_limits::Algorithm::TokenBucket => burst.max(limit.min(1)),
                _ => limit,
            };
            (limit, window_ms * 1_000_000, burst)
        },
    )
}

/// A limit, and the figures an override might put in its place.
fn limit_and_others() -> impl Strategy<Value = (Limit, Vec<Limit>)> {
    use quorate_limits::Algorithm::{FixedWindow, SlidingWindow, TokenBucket};
    prop_oneof![Just(FixedWindow), Just(SlidingWindow), Just(TokenBucket)].prop_flat_map(|algorithm| {
        proptest::collection::vec(figures(algorithm), 4).prop_map(move |all| {
            let with = |(limit, window_ns, burst)| Limit { name: String::new(), algorithm, limit, window_ns, burst };
            let limits: Vec<_> = all.into_iter().map(with).collect();
            (limits[0].clone(), limits)
        })
    })
}

fn policy() -> impl Strategy<Value = Policy> {
    let name = ("[a-z0-9]([-a-z0-9]{0,8}[a-z0-9])?", prop_oneof![Just("default"), Just("x.y")]);
    let limits = proptest::collection::vec(limit_and_others(), 1..4);
    let overrides = proptest::collection::vec((key_matches(1), proptest::collection::vec(0..4_usize, 4)), 0..3);
    let choices = (0..3_usize, any::<bool>());
    (name, ".{1,20}", key_matches(0), proptest::collection::btree_set(".{1,20}", 1..4), limits, overrides, choices)
        .prop_map(|((namespace, name), domain, matches, count_by, mut limits, overrides, (enforcement, allow))| {
            for (i, (limit, others)) in limits.iter_mut().enumerate() {
                limit.name = format!("limit-{i}");
                for other in others {
                    other.name.clone_from(&limit.name);
                }
            }
            let mut overrides: Vec<_> = overrides
                .into_iter()
                .map(|(matches, picks)| Override {
                    matches,
                    limits: limits.iter().zip(picks).map(|((_, others), pick)| others[pick].clone()).collect(),
                })
                .collect();
            overrides.dedup_by_key(|o| sorted(&o.matches));
            Policy {
                name: PolicyName { namespace, name: name.to_owned() },
                domain,
                matches,
                count_by: count_by.into_iter().collect(),
                limits: limits.into_iter().map(|(limit, _)| limit).collect(),
                overrides,
                enforcement: [Enforcement::Enforce, Enforcement::Shadow, Enforcement::Disabled][enforcement].into(),
                on_unavailable: if allow { OnUnavailable::Allow } else { OnUnavailable::Deny }.into(),
                fallback: false,
            }
        })
}

proptest! {
    #[test]
    fn policy_as_resource_parses_to_itself(policy in policy()) {
        let resource = QuotaPolicy::from(&policy);
        prop_assert_eq!(&Policy::try_from(&resource).unwrap(), &policy);
        let json = serde_json::to_vec(&resource).unwrap();
        prop_assert_eq!(&parse_policy(&json, false).unwrap(), &policy);
        let yaml = serde_yaml::to_string(&resource).unwrap();
        prop_assert_eq!(&parse_policy(yaml.as_bytes(), true).unwrap(), &policy);
    }
}
