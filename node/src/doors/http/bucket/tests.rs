//! What is answered when, row by row of the table in docs/doors/bucket.md.

use axum::Router;
use axum::http::{Method, Request as HttpRequest};
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;

use super::super::testing::{Alone, Answer, ask, whole};
use super::*;

async fn post(data: &Router, body: &str) -> Answer {
    ask(data, Method::POST, "/bucket", body.to_owned()).await
}

async fn example(data: &Router, id: Option<&[u8]>) -> Answer {
    let mut request = HttpRequest::builder().uri("/example");
    if let Some(id) = id {
        request = request.header("X-Api-Id", id);
    }
    let service = TowerToHyperService::new(data.clone());
    whole(service.call(request.body(Body::empty()).unwrap()).await.unwrap()).await
}

fn said(answer: &Answer) -> (u16, &str) {
    (answer.status.as_u16(), std::str::from_utf8(&answer.body).unwrap())
}

async fn id_of(data: &Router, name: &str) -> String {
    let answer = post(data, &json!({ "name": name }).to_string()).await;
    answer.json()["id"].as_str().unwrap_or_else(|| panic!("{answer:?}")).to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn post_bucket_answers_as_the_table_says() {
    let Alone { data, .. } = &Alone::ready().await;
    let created = post(data, r#"{"name":"x"}"#).await;
    let id = created.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(said(&created), (201, format!(r#"{{"name":"x","id":"{id}"}}"#).as_str()));
    assert_eq!(created.header("content-type"), "application/json");
    assert!(id.parse::<BucketId>().is_ok() && id.as_bytes()[14] == b'4', "a UUID of version 4: {id}");
    let longest = "é".repeat(BUCKET_NAME_BYTES_MAX / 2);
    for name in [longest.as_str(), " ", "\"\n{}", "X"] {
        assert_eq!(post(data, &json!({ "name": name }).to_string()).await.status.as_u16(), 201, "{name:?}");
    }
    assert_eq!(post(data, r#"{"name":"y","unknown":[1]}"#).await.status.as_u16(), 201);
    for (body, status, error) in [
        ("", 400, "Invalid request payload"),
        ("{", 400, "Invalid request payload"),
        (r#"["z"]"#, 400, "Invalid request payload"),
        ("[]", 400, "Invalid request payload"),
        (r#"{"name":1}"#, 400, "Invalid request payload"),
        (r#"{"name":"z"} {}"#, 400, "Invalid request payload"),
        ("{}", 400, "Bucket name is required"),
        (r#"{"name":""}"#, 400, "Bucket name is required"),
        (r#"{"name":null}"#, 400, "Bucket name is required"),
        (r#"{"name":"x"}"#, 400, "bucket already exists: x"),
        (&json!({ "name": longest + "x" }).to_string(), 400, "Bucket name has 257 bytes; give at most 256"),
    ] {
        let answer = post(data, body).await;
        assert_eq!(said(&answer), (status, json!({ "error": error }).to_string().as_str()), "{body}");
    }
    let huge = json!({ "name": "x".repeat(super::super::BODY_BYTES_MAX) });
    assert_eq!(post(data, &huge.to_string()).await.status.as_u16(), 413);
}

#[tokio::test(flavor = "multi_thread")]
async fn get_example_answers_as_the_table_says() {
    let Alone { data, .. } = &Alone::ready().await;
    for none in [None, Some(&b""[..])] {
        assert_eq!(said(&example(data, none).await), (401, r#"{"error":"Api ID is required"}"#));
    }
    let id = id_of(data, "x").await;
    let shouted = id.to_ascii_uppercase();
    let nobody = "00000000-0000-4000-8000-000000000000";
    for unknown in ["x", shouted.as_str(), nobody, "\"}", "é"] {
        let error = format!("bucket not found: bucket not found for=[bucket_{unknown}]");
        let answer = example(data, Some(unknown.as_bytes())).await;
        assert_eq!(said(&answer), (404, json!({ "error": error }).to_string().as_str()));
    }
    let long = example(data, Some("é".repeat(2000).as_bytes())).await.json();
    let shown = format!("[bucket_{}…]", "é".repeat(SHOWN_CHARACTERS_MAX));
    assert!(long["error"].as_str().unwrap().ends_with(&shown), "{long}");
    assert_eq!(example(data, Some(b"\xff")).await.status.as_u16(), 404);
    let admitted = example(data, Some(id.as_bytes())).await;
    assert_eq!(said(&admitted), (200, r#"{"message":"Hello, World!"}"#));
    assert_eq!(admitted.header("ratelimit"), r#""quorate/bucket/default";r=99;t=60"#);
    assert_eq!(admitted.header("x-ratelimit-decision"), "admit");
    for left in (0..99).rev() {
        let answer = example(data, Some(id.as_bytes())).await;
        assert!(answer.header("ratelimit").contains(&format!(";r={left};")), "{answer:?}");
    }
    for _ in 0..3 {
        let denied = example(data, Some(id.as_bytes())).await;
        assert_eq!(said(&denied), (429, r#"{"error":"Rate limit exceeded"}"#));
        assert_eq!(denied.header("x-ratelimit-decision"), "deny");
        assert!((1..=60).contains(&denied.header("retry-after").parse().unwrap()));
    }
    let other = id_of(data, "other client").await;
    assert_eq!(example(data, Some(other.as_bytes())).await.status.as_u16(), 200);
    let metrics = ask(data, Method::GET, "/metrics", "").await;
    let metrics = String::from_utf8(metrics.body.to_vec()).unwrap();
    for line in [
        r#"requests_by_client{client="x"} 103"#,
        r#"requests_by_client{client="other client"} 1"#,
        r#"quorate_decisions_total{door="bucket",limit="default",policy="quorate/bucket",verdict="admitted"} 101"#,
        r#"quorate_decisions_total{door="bucket",limit="default",policy="quorate/bucket",verdict="denied"} 3"#,
    ] {
        assert!(metrics.lines().any(|other| other == line), "{line} in\n{metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn node_without_a_cluster_answers_503_and_says_why() {
    let Alone { data, admin, .. } = &Alone::unfounded().await;
    let why = r#"{"error":"this node has not joined a cluster yet"}"#;
    assert_eq!(said(&post(data, r#"{"name":"x"}"#).await), (503, why));
    let undecided = example(data, Some(b"00000000-0000-4000-8000-000000000000")).await;
    assert_eq!((said(&undecided), undecided.header("x-ratelimit-decision")), ((503, why), "unavailable"));
    assert_eq!(ask(admin, Method::DELETE, "/v1/buckets/x", "").await.status.as_u16(), 503);
    assert_eq!(ask(admin, Method::GET, "/v1/buckets", "").await.body, r#"{"buckets":[]}"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_listed_and_given_back_on_the_admin_port() {
    let Alone { data, admin, .. } = &Alone::ready().await;
    let (second, first) = (id_of(data, "b/2").await, id_of(data, "a").await);
    let list = async || ask(admin, Method::GET, "/v1/buckets", "").await.json()["buckets"].take();
    assert_eq!(list().await, json!([{ "name": "a", "id": first }, { "name": "b/2", "id": second }]));
    for _ in 0..2 {
        let deleted = ask(admin, Method::DELETE, "/v1/buckets/b%2F2", "").await;
        assert_eq!(said(&deleted), (200, r#"{"name":"b/2"}"#));
    }
    assert_eq!(list().await, json!([{ "name": "a", "id": first }]));
    assert_eq!(example(data, Some(second.as_bytes())).await.status.as_u16(), 404);
    assert_ne!(id_of(data, "b/2").await, second, "a name that comes again has another id");
}

#[tokio::test(flavor = "multi_thread")]
async fn built_in_policy_is_replaced_like_any_other() {
    let Alone { data, admin, .. } = &Alone::ready().await;
    let id = id_of(data, "x").await;
    let policy = |namespace: &str, name: &str, limit: u64| {
        json!({
            "apiVersion": "quorate.dev/v1alpha1", "kind": "QuotaPolicy",
            "metadata": { "name": name, "namespace": namespace },
            "spec": {
                "domain": BUCKET_DOMAIN, "countBy": [BUCKET_KEY],
                "limits": [{ "name": "default", "algorithm": "FixedWindow", "limit": limit, "window": "60s" }],
            },
        })
    };
    let put = async |path: &str, policy: Value| ask(admin, Method::PUT, path, policy.to_string()).await.status.as_u16();
    let stands = async || example(data, Some(id.as_bytes())).await.header("ratelimit").to_owned();
    assert!(stands().await.starts_with(r#""quorate/bucket/default";r=99"#));
    assert_eq!(put("/v1/policies/quorate/bucket", policy("quorate", "bucket", 3)).await, 200);
    assert!(stands().await.starts_with(r#""quorate/bucket/default";r=1"#), "what was used counts");
    assert_eq!(put("/v1/policies/shop/mine", policy("shop", "mine", 7)).await, 200);
    assert!(stands().await.starts_with(r#""shop/mine/default";r=6"#), "it meets only what no other policy does");
}

#[test]
fn only_so_many_clients_are_named_in_labels() {
    let metrics = crate::metrics::Metrics::new().unwrap();
    let max = crate::metrics::LABELLED_CLIENTS_MAX;
    for _ in 0..2 {
        (0..max + 5).for_each(|number| metrics.by_client().count(&format!("client-{number}")));
    }
    let families = metrics.registry().gather();
    let family = families.iter().find(|family| family.name() == "requests_by_client").unwrap();
    assert_eq!(family.get_metric().len(), max + 1);
    let others = family.get_metric().iter().find(|metric| metric.get_label()[0].value().is_empty()).unwrap();
    assert!((others.get_counter().get_value() - 10.0).abs() < f64::EPSILON);
}
