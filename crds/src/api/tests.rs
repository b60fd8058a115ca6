use quorate_limits::{Owner, Policy};
use serde_json::json;

use super::*;
use crate::{ParsedSet, parse_policy};

#[test]
fn check_body_gets_the_defaults() {
    let body = br#"{"descriptors":[[{"key":"client_id","value":"a"}],[]]}"#;
    let CheckRequest::One(check) = CheckRequest::parse(body).unwrap() else { panic!("one check") };
    assert_eq!((check.domain.as_str(), check.hits, check.descriptors.len()), ("default", 1, 2));
    let request = Request::from(check);
    assert_eq!(request.descriptors[0].entries, [("client_id".to_owned(), "a".to_owned())]);
    assert_eq!((request.domain.as_str(), request.hits, request.descriptors[0].hits), ("default", 1, None));
}

#[test]
fn check_body_keeps_all_it_says() {
    let text = r#"{"domain":"web","descriptors":[[{"key":"k","value":"v"}]],"hits":-3}"#;
    let request = CheckRequest::parse(text.as_bytes()).unwrap();
    assert_eq!(serde_json::to_string(&request).unwrap(), text);
    let batch = format!(r#"{{"checks":[{text},{text}]}}"#);
    let request = CheckRequest::parse(batch.as_bytes()).unwrap();
    assert!(matches!(&request, CheckRequest::Batch { checks } if checks.len() == 2));
    assert_eq!(serde_json::to_string(&request).unwrap(), batch);
}

#[test]
fn check_body_with_a_fault_is_refused_by_field() {
    for (body, message) in [
        ("", "EOF while parsing a value"),
        ("{", "EOF while parsing an object"),
        ("{}", "missing field `descriptors`"),
        (r#"{"descriptors":[]} x"#, "trailing characters"),
        (
            r#"{"descriptors":[],"hit":1}"#,
            "hit: unknown field `hit`, expected one of `checks`, `domain`, `descriptors`, `hits`",
        ),
        (r#"{"descriptors":[[{"key":"a","value":"b","x":1}]]}"#, "descriptors[0][0].x: unknown field `x`"),
        (r#"{"descriptors":[[{"key":"a"}]]}"#, "descriptors[0][0]: missing field `value`"),
        (
            r#"{"descriptors":[[{"key":"a","value":5}]]}"#,
            "descriptors[0][0].value: invalid type: integer `5`, expected a string",
        ),
        (r#"{"descriptors":[],"hits":"1"}"#, "hits: invalid type: string \"1\", expected i64"),
        (r#"{"descriptors":[],"hits":9223372036854775808}"#, "hits: invalid value"),
        (r#"{"descriptors":[],"descriptors":[]}"#, "duplicate field `descriptors`"),
        (r#"{"checks":[{"descriptors":[],"hit":1}]}"#, "checks[0].hit: unknown field `hit`"),
        (r#"{"checks":[{"hits":1}]}"#, "checks[0]: missing field `descriptors`"),
        (r#"{"checks":[],"hits":1}"#, "`checks` stands alone; put domain, descriptors and hits into each check"),
    ] {
        let error = CheckRequest::parse(body.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with(message), "{body}: {error}");
    }
}

#[test]
fn batch_beyond_its_bound_is_refused() {
    let batch = |count| format!(r#"{{"checks":[{}]}}"#, vec![r#"{"descriptors":[]}"#; count].join(","));
    assert!(CheckRequest::parse(batch(CHECKS_MAX).as_bytes()).is_ok());
    let error = CheckRequest::parse(batch(CHECKS_MAX + 1).as_bytes()).unwrap_err().to_string();
    assert!(error.starts_with("1001 checks are too many; send at most 1000 at once"), "{error}");
}

#[test]
fn answers_have_the_promised_shapes_both_ways() {
    let limit = LimitAnswer {
        policy: "ns/p".to_owned(),
        name: "minute".to_owned(),
        limit: 100,
        remaining: 99,
        reset_seconds: 60,
    };
    let answer = CheckAnswer { admitted: true, limits: vec![limit], denied_by: None, revision: 7, unavailable: false };
    let limits = json!([{"policy":"ns/p","name":"minute","limit":100,"remaining":99,"resetSeconds":60}]);
    let admitted = json!({"admitted":true,"limits":limits,"revision":7});
    assert_eq!(serde_json::to_value(&answer).unwrap(), admitted);

    let denied_by = Some(LimitRef { policy: "ns/p".to_owned(), name: "minute".to_owned() });
    let denied = CheckAnswer { admitted: false, denied_by, ..answer.clone() };
    let failed = ErrorBody::from("no leader".to_owned());
    let batch = BatchAnswer {
        results: vec![BatchResult::Decided(answer), BatchResult::Decided(denied), BatchResult::Failed(failed)],
    };
    let value = json!({"results":[
        admitted,
        {"admitted":false,"limits":limits,"deniedBy":{"policy":"ns/p","name":"minute"},"revision":7},
        {"error":"no leader"},
    ]});
    assert_eq!(serde_json::to_value(&batch).unwrap(), value);
    assert_eq!(serde_json::from_value::<BatchAnswer>(value).unwrap(), batch);
}

#[test]
fn cluster_answer_has_the_promised_shape_both_ways() {
    let member = MemberAnswer {
        name: "node-0".to_owned(),
        id: HexId(255),
        role: Role::Voter,
        lag: Some(0),
        applied_revision: Some(3),
        version: None,
        reachable: true,
    };
    let answer = ClusterAnswer {
        cluster_id: "0a".to_owned(),
        node: HexId(10),
        leader: Some(HexId(u64::MAX)),
        term: 2,
        revision: 3,
        members: vec![member],
        intents: vec![IntentAnswer { action: IntentAction::Decommission, member: HexId(255) }],
        autopilot: Some(AutopilotAnswer {
            operation: Some("removes node-0".to_owned()),
            waits: vec![WaitAnswer { reason: "Quorum".to_owned(), message: "bring them back".to_owned() }],
        }),
    };
    let value = json!({"clusterId":"0a","node":"000000000000000a","leader":"ffffffffffffffff","term":2,"revision":3,"members":[
        {"name":"node-0","id":"00000000000000ff","role":"Voter","lag":0,"appliedRevision":3,"version":null,"reachable":true}
    ],"intents":[{"action":"Decommission","member":"00000000000000ff"}],"autopilot":{"operation":"removes node-0","waits":[
        {"reason":"Quorum","message":"bring them back"}
    ]}});
    assert_eq!(serde_json::to_value(&answer).unwrap(), value);
    assert_eq!(serde_json::from_value::<ClusterAnswer>(value).unwrap(), answer);
}

#[test]
fn id_that_is_no_hex_is_refused() {
    for text in ["", "+f", "-1", "0x1", "g", "00000000000000001", "é"] {
        let error = text.parse::<HexId>().unwrap_err().to_string();
        assert!(error.contains("is not an id; an id is 1 to 16 hex digits"), "{error}");
    }
    assert_eq!("FF".parse(), Ok(HexId(255)));
}

#[test]
fn policy_view_is_the_policy_with_revision_and_owner_beside_it() {
    let body = r#"{"apiVersion":"quorate.dev/v1alpha1","kind":"QuotaPolicy","metadata":{"name":"p","namespace":"ns"},
        "spec":{"limits":[{"name":"daily","algorithm":"TokenBucket","limit":5,"window":"86400s","burst":9}]}}"#;
    let policy = parse_policy(body.as_bytes(), false).unwrap();
    let view = PolicyView { policy: QuotaPolicy::from(&policy), revision: 7, owner: Owner::Files.into() };
    let value = json!({
        "apiVersion":"quorate.dev/v1alpha1","kind":"QuotaPolicy","metadata":{"name":"p","namespace":"ns"},
        "spec":{
            "domain":"default","countBy":["client_id"],"enforcement":"Enforce","onUnavailable":"Deny",
            "limits":[{"name":"daily","algorithm":"TokenBucket","limit":5,"window":"24h","burst":9}]},
        "revision":7,"owner":"files"});
    assert_eq!(serde_json::to_value(&view).unwrap(), value);
    let list = PolicyList { revision: 7, policies: vec![view] };
    let read: PolicyList = serde_json::from_slice(&serde_json::to_vec(&list).unwrap()).unwrap();
    assert_eq!(read, list);
    assert_eq!(Policy::try_from(&read.policies[0].policy), Ok(policy));
}

#[test]
fn policy_set_as_written_is_read_by_the_node() {
    let body = br#"{"apiVersion":"quorate.dev/v1alpha1","kind":"QuotaPolicy","metadata":{"name":"p","namespace":"ns"},
        "spec":{"limits":[{"name":"daily","algorithm":"FixedWindow","limit":5,"window":"24h"}]}}"#;
    let policy = parse_policy(body, false).unwrap();
    let set = PolicySet {
        owner: Some(OwnerName::Operator),
        cluster_id: Some("c1".to_owned()),
        policies: vec![QuotaPolicy::from(&policy)],
    };
    let body = serde_json::to_vec(&set).unwrap();
    let read = ParsedSet { owner: Owner::Operator, cluster_id: Some("c1".to_owned()), policies: vec![policy] };
    assert_eq!(crate::parse_policy_set(&body), Ok(read));
}
