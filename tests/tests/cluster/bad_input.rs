//! Requests and policies that are wrong: the right status, a message that says what is wrong, and nothing changed.

use bytes::Bytes;
use hyper::Method;
use quorate_tests::client::{Outcome, limit, policy};
use quorate_tests::cluster::{Cluster, Plan};
use serde_json::{Value, json};

/// A wrong request: what it is, method, path, body; the status, and words that the answer must hold.
type Case<'a> = (&'a str, Method, String, String, u16, &'a [&'a str]);

#[tokio::test(flavor = "multi_thread")]
async fn running_cluster_wrong_requests_come_each_is_told_what_is_wrong_and_nothing_changes() {
    let cluster = started().await;
    let (get, post, put) = (Method::GET, Method::POST, Method::PUT);
    let check = |body: &str| ("/v1/check".to_owned(), body.to_owned());
    let one = |entry: &str| check(&format!(r#"{{"descriptors":[[{entry}]]}}"#));
    let rate = |action: &str, query: &str| (format!("/rate/{action}{query}"), String::new());
    let long = "x".repeat(257);
    let many = format!(r#"{{"checks":[{}]}}"#, vec![r#"{"descriptors":[]}"#; 1001].join(","));
    let huge = format!(r#"{{"domain":"{}"}}"#, "x".repeat(300 << 10));
    let acme = r#"{"key":"client_id","value":"acme"}"#;
    let hits = |hits: &str| check(&format!(r#"{{"descriptors":[[{acme}]],"hits":{hits}}}"#));
    let cases: Vec<Case> = [
        ("no client_id", &post, rate("increment", ""), 400, &["Missing client_id."][..]),
        ("empty client_id", &post, rate("increment", "?client_id="), 400, &["Missing client_id."]),
        ("no client_id to check", &get, rate("check", ""), 400, &["Missing client_id."]),
        ("empty client_id to check", &get, rate("check", "?client_id="), 400, &["Missing client_id."]),
        ("no client_id to reset", &post, rate("reset", ""), 400, &["Missing client_id."]),
        ("client_id of 257 bytes", &post, rate("increment", &format!("?client_id={long}")), 400, &["client_id", "256"]),
        ("the same to check", &get, rate("check", &format!("?client_id={long}")), 400, &["client_id", "256"]),
        ("client_id not UTF-8", &post, rate("increment", "?client_id=%ff%fe"), 400, &["client_id"]),
        (
            "unknown deny_status",
            &post,
            rate("increment", "?client_id=acme&deny_status=500"),
            400,
            &["deny_status", "429"],
        ),
        ("GET of an increment", &get, rate("increment", "?client_id=acme"), 404, &[]),
        ("POST of a check", &post, rate("check", "?client_id=acme"), 404, &[]),
        ("no body", &post, check(""), 400, &[]),
        ("broken JSON", &post, check(r#"{"descriptors":[["#), 400, &["line 1"]),
        ("not JSON", &post, check("{hello}"), 400, &["line 1"]),
        ("a list", &post, check("[]"), 400, &[]),
        ("unknown field", &post, check(r#"{"descriptors":[[]],"hitz":2}"#), 400, &["hitz"]),
        ("unknown field inside", &post, one(r#"{"key":"client_id","valeu":"acme"}"#), 400, &["valeu"]),
        ("no descriptors", &post, check(r#"{"domain":"default"}"#), 400, &["descriptors"]),
        ("value of a number", &post, one(r#"{"key":"client_id","value":7}"#), 400, &["value"]),
        ("value of 257 bytes", &post, one(&format!(r#"{{"key":"client_id","value":"{long}"}}"#)), 400, &["256"]),
        ("key of 257 bytes", &post, one(&format!(r#"{{"key":"{long}","value":"acme"}}"#)), 400, &["256"]),
        ("hits of text", &post, hits(r#""one""#), 400, &["hits"]),
        ("hits of a fraction", &post, hits("1.5"), 400, &["hits"]),
        ("hits beyond 64 bits", &post, hits("99999999999999999999"), 400, &["hits"]),
        ("hits beyond all limits", &post, hits("1000000001"), 400, &["hits", "1000000000"]),
        ("hits below zero", &post, hits("-1"), 400, &["hits"]),
        ("1001 checks", &post, check(&many), 400, &["1001", "1000"]),
        ("checks and hits", &post, check(r#"{"checks":[],"hits":1}"#), 400, &["checks"]),
        ("body of 300 KiB", &post, check(&huge), 413, &[]),
        ("change on the data port", &put, ("/v1/policies/default/x".to_owned(), "{}".to_owned()), 404, &[]),
        (
            "policy that is not there",
            &get,
            ("/v1/policies/default/none".to_owned(), String::new()),
            404,
            &["default/none"],
        ),
    ]
    .into_iter()
    .map(|(what, method, (path, body), status, words)| (what, method.clone(), path, body, status, words))
    .collect();
    refused(&cluster, false, &cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn running_cluster_wrong_policies_come_each_is_told_what_is_wrong_and_nothing_changes() {
    let cluster = started().await;
    let good = policy("bad", "bad", &json!([limit("FixedWindow", 5, "1m")]));
    let with = |pointer: &str, value: Value| {
        let mut policy = good.clone();
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        match policy.pointer_mut(parent).unwrap() {
            Value::Array(list) => list.push(value),
            object => object[field] = value,
        }
        policy.to_string()
    };
    let path = "/v1/policies/default/bad";
    let cases: Vec<Case> = [
        ("no body", path, String::new(), 400, &[][..]),
        ("broken YAML", path, "apiVersion: [".to_owned(), 400, &["line"]),
        ("YAML that is no policy", path, "just text".to_owned(), 400, &[]),
        ("unknown kind", path, with("/kind", json!("QuotaPolcy")), 400, &["kind", "QuotaPolicy"]),
        ("unknown version", path, with("/apiVersion", json!("quorate.dev/v9")), 400, &["apiVersion"]),
        ("unknown field", path, with("/spec/limitz", json!([])), 400, &["limitz"]),
        ("no limits", path, with("/spec/limits", json!([])), 400, &["limits"]),
        ("unknown algorithm", path, with("/spec/limits/0/algorithm", json!("Leaky")), 400, &["Leaky", "TokenBucket"]),
        ("limit below zero", path, with("/spec/limits/0/limit", json!(-1)), 400, &["limit"]),
        ("window without a unit", path, with("/spec/limits/0/window", json!("60")), 400, &["window"]),
        ("window of nothing", path, with("/spec/limits/0/window", json!("0s")), 400, &["window"]),
        ("two limits of one name", path, with("/spec/limits/-", good["spec"]["limits"][0].clone()), 400, &["only"]),
        ("match of two kinds", path, with("/spec/match/0/exact", json!("a")), 400, &["match"]),
        ("unknown enforcement", path, with("/spec/enforcement", json!("Maybe")), 400, &["enforcement", "Shadow"]),
        (
            "override of no limit",
            path,
            with(
                "/spec/overrides",
                json!([{"match": [{"key": "client_id", "exact": "a"}], "limits": [{"name": "other", "limit": 1}]}]),
            ),
            400,
            &["other"],
        ),
        ("another name in the path", "/v1/policies/default/good", good.to_string(), 400, &["good", "bad"]),
        ("a name with a slash", path, with("/metadata/name", json!("a/b")), 400, &["name"]),
    ]
    .into_iter()
    .map(|(what, path, body, status, words)| (what, Method::PUT, path.to_owned(), body, status, words))
    .collect();
    refused(&cluster, true, &cases).await;
    let set = |body: &str| ("/v1/policies:apply".to_owned(), body.to_owned());
    let one_bad = format!(r#"{{"policies":[{},{}]}}"#, good, with("/spec/limitz", json!([])));
    let twice = format!(r#"{{"policies":[{good},{good}]}}"#);
    let cases: Vec<Case> = [
        ("a set with one wrong policy", set(&one_bad), 400, &["limitz"][..]),
        ("a set with one policy twice", set(&twice), 400, &["default/bad"]),
        ("a set of an unknown owner", set(r#"{"owner":"me","policies":[]}"#), 400, &["owner"]),
        ("a set that is none", set("{}"), 400, &["policies"]),
    ]
    .into_iter()
    .map(|(what, (path, body), status, words)| (what, Method::POST, path, body, status, words))
    .collect();
    refused(&cluster, true, &cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_client_ids_are_ids_like_any_other() {
    let cluster = Plan::of(3).set("DEFAULT_LIMIT", "2/24h").start().await;
    let long = "y".repeat(256);
    let odd =
        ["%20", "a%20b", "%00", "a/b", "a%26b", "%F0%9F%92%A7", "..", "%22%7B", "a%0Ab", "a%2Bb", "A", "a", &long];
    for client_id in odd {
        for (turn, expected) in [Outcome::Admitted, Outcome::Admitted, Outcome::Denied].into_iter().enumerate() {
            assert_eq!(cluster.node(turn).client().increment(client_id).await, expected, "{client_id:?}");
        }
        assert_eq!(cluster.node(0).client().check(client_id).await.unwrap().remaining_quota, Some(0));
    }
    let metrics = cluster.node(0).client().get("/metrics").await.unwrap().text();
    assert!(!metrics.contains(&long), "ids of clients must not become labels");
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_hits_and_domains_are_decided_as_written() {
    let cluster = started().await;
    let mut client = cluster.node(1).client();
    let acme = [("client_id", "acme")];
    // Looking charges nothing.
    for _ in 0..3 {
        assert_eq!(client.v1_check(&acme, 0).await.unwrap().limits[0].remaining, 9);
    }
    // More than the limit holds is denied, and charges nothing.
    for hits in [10, 11, 1_000_000_000] {
        let check = client.v1_check(&acme, hits).await.unwrap();
        assert!(!check.admitted, "{hits} hits");
        assert_eq!(check.limits[0].remaining, 9, "{hits} hits");
    }
    assert!(client.v1_check(&acme, 9).await.unwrap().admitted);
    // A domain without policies has no limits.
    let body = json!({"domain": "never-heard-of", "descriptors": [[{"key": "client_id", "value": "acme"}]]});
    let answer: Value = client.post("/v1/check", &body).await.unwrap().expect_status(200).json();
    assert_eq!((&answer["admitted"], &answer["limits"]), (&json!(true), &json!([])));
    // Neither has a descriptor that lacks the key it would be counted by.
    let other = client.v1_check(&[("user", "acme")], 1).await.unwrap();
    assert!(other.admitted && other.limits.is_empty(), "{other:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn batch_of_checks_each_is_decided_by_itself_in_order_and_a_wrong_one_refuses_all() {
    let cluster = started().await;
    let check = |id: &str, hits: i64| json!({"descriptors": [[{"key": "client_id", "value": id}]], "hits": hits});
    let mut client = cluster.node(2).client();
    let wrong = json!({"checks": [check("acme", 4), check(&"x".repeat(257), 1)]});
    let refused = client.post("/v1/check", &wrong).await.unwrap().expect_status(400).text();
    assert!(refused.contains("checks[1]") && refused.contains("256"), "{refused}");

    let body = json!({"checks": [check("acme", 4), check("other", 1), check("acme", 6), check("acme", 5)]});
    let answer: Value = client.post("/v1/check", &body).await.unwrap().expect_status(200).json();
    let results = answer["results"].as_array().unwrap();
    let told: Vec<_> =
        results.iter().map(|result| (result["admitted"] == true, result["limits"][0]["remaining"].as_u64())).collect();
    assert_eq!(told, [(true, Some(5)), (true, None), (false, Some(5)), (true, Some(0))], "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn decision_carries_the_rate_limit_headers() {
    let cluster = started().await;
    let mut client = cluster.node(0).client();
    let body = |hits: u64| json!({"descriptors": [[{"key": "client_id", "value": "acme"}]], "hits": hits});
    let admitted = client.post("/v1/check", &body(4)).await.unwrap().expect_status(200);
    assert!(admitted.header("ratelimit-policy").contains(";q=10;w=86400"), "{:?}", admitted.headers);
    assert!(admitted.header("ratelimit").contains(";r=5;t="), "{:?}", admitted.headers);
    assert_eq!(admitted.header("retry-after"), "");
    let denied = client.post("/v1/check", &body(6)).await.unwrap().expect_status(429);
    assert!(denied.header("ratelimit").contains(";r=5;t="), "{:?}", denied.headers);
    let retry: u64 = denied.header("retry-after").parse().unwrap();
    assert!((1..=86400).contains(&retry), "{retry}");
    let text = denied.text();
    assert!(text.contains(r#""policy":"default/acme""#) && text.contains(r#""name":"only""#), "{text}");
}

/// Three nodes and one policy: 10 in a day for `acme`, of which one is used.
async fn started() -> Cluster {
    let cluster = Plan::of(3).start().await;
    let policy = policy("acme", "acme", &json!([limit("FixedWindow", 10, "24h")]));
    cluster.node(0).admin_client().put_policy(&policy).await.unwrap();
    assert_eq!(cluster.node(2).client().increment("acme").await, Outcome::Admitted);
    cluster
}

/// Sends each; the cluster is as before after all of them.
async fn refused(cluster: &Cluster, admin: bool, cases: &[Case<'_>]) {
    let state = async || {
        let mut client = cluster.node(1).client();
        let policies = client.get("/v1/policies").await.unwrap().text();
        (policies, client.v1_check(&[("client_id", "acme")], 0).await.unwrap().limits[0].remaining)
    };
    let before = state().await;
    let mut wrong = vec![];
    for (what, method, path, body, status, words) in cases {
        let mut client = if admin { cluster.node(0).admin_client() } else { cluster.node(0).client() };
        let answer = client.send(method.clone(), path, Bytes::from(body.clone())).await;
        let answer = answer.unwrap_or_else(|error| panic!("{what}: {error}"));
        let text = answer.text();
        if answer.status != *status || !words.iter().all(|word| text.contains(word)) {
            wrong.push(format!("{what}: {} {text:.300}; expected {status} with {words:?}", answer.status));
        }
        if (400..500).contains(&answer.status) && answer.status != 404 {
            let is_error = serde_json::from_slice::<Value>(&answer.body).is_ok_and(|body| body["error"].is_string());
            if !is_error {
                wrong.push(format!("{what}: the body is not {{\"error\":…}}: {text:.300}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(state().await, before, "a refused request must change nothing");
    assert!(cluster.nodes().iter().all(quorate_tests::cluster::Node::is_running));
}
