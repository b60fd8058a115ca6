//! The routes with a whole node of one behind them.

use std::collections::BTreeSet;

use axum::http::Method;
use serde_json::{Value, json};

use super::testing::{Alone, Answer, ask};
use super::*;

const QUOTA: &str = r#"{"apiVersion":"quorate.dev/v1alpha1","kind":"QuotaPolicy","metadata":{"name":"one","namespace":"shop"},
    "spec":{"match":[{"key":"client_id","exact":"one"}],
            "limits":[{"name":"day","algorithm":"FixedWindow","limit":1,"window":"24h"}]}}"#;

async fn get(routes: &Router, path: &str) -> Answer {
    ask(routes, Method::GET, path, "").await
}

async fn post(routes: &Router, path: &str, body: &str) -> Answer {
    ask(routes, Method::POST, path, body.to_owned()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn simple_api_counts_to_the_limit_looks_and_resets() {
    let Alone { data, .. } = &Alone::ready().await;
    assert_eq!(get(data, "/rate/check?client_id=a").await.body, r#"{"remaining_quota":2,"result":true}"#);
    for _ in 0..2 {
        let answer = post(data, "/rate/increment?client_id=a", "").await;
        assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, &br#"{"result":true}"#[..]));
    }
    let denied = post(data, "/rate/increment?client_id=a", "").await;
    assert_eq!((denied.status.as_u16(), &denied.body[..]), (200, &br#"{"result":false}"#[..]));
    assert_eq!(post(data, "/rate/increment?client_id=a&deny_status=429", "").await.status.as_u16(), 429);
    for consistency in ["linearizable", "local"] {
        let answer = get(data, &format!("/rate/check?client_id=a&consistency={consistency}")).await;
        assert_eq!(answer.body, r#"{"remaining_quota":0,"result":false}"#);
    }
    assert_eq!(post(data, "/rate/reset?client_id=a", "").await.body, r#"{"result":true}"#);
    assert_eq!(get(data, "/rate/check?client_id=a").await.body, r#"{"remaining_quota":2,"result":true}"#);
    let metrics = String::from_utf8(get(data, "/metrics").await.body.to_vec()).unwrap();
    for (verdict, count) in [("admitted", 2), ("denied", 2)] {
        let line = format!(
            r#"quorate_decisions_total{{door="http",limit="default",policy="quorate/default",verdict="{verdict}"}} {count}"#
        );
        assert!(metrics.contains(&line), "{line} in {metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_are_put_listed_applied_and_deleted() {
    let Alone { data, admin, .. } = &Alone::ready().await;
    let put = ask(admin, Method::PUT, "/v1/policies/shop/one", QUOTA).await;
    assert_eq!((put.status.as_u16(), put.json()), (200, json!({ "revision": 2 })));
    let view = get(data, "/v1/policies/shop/one").await.json();
    assert_eq!((&view["owner"], &view["revision"], &view["kind"]), (&json!("api"), &json!(2), &json!("QuotaPolicy")));
    let list = get(data, "/v1/policies").await.json();
    let names: Vec<_> = list["policies"].as_array().unwrap().iter().map(|view| &view["metadata"]["name"]).collect();
    assert_eq!(names, ["bucket", "default", "one"]);

    let body = r#"{"descriptors":[[{"key":"client_id","value":"one"}]]}"#;
    let admitted = post(data, "/v1/check", body).await;
    assert_eq!(admitted.status.as_u16(), 200);
    let limit = json!({ "policy": "shop/one", "name": "day", "limit": 1, "remaining": 0, "resetSeconds": 86400 });
    assert_eq!(admitted.json(), json!({ "admitted": true, "limits": [limit], "revision": 2 }));
    let denied = post(data, "/v1/check", body).await;
    assert_eq!(denied.status.as_u16(), 429);
    assert_eq!(denied.json()["deniedBy"], json!({ "policy": "shop/one", "name": "day" }));
    assert_eq!(denied.header("x-ratelimit-decision"), "deny");
    assert_ne!(denied.header("retry-after"), "");
    let batch = format!(r#"{{"checks":[{body},{{"domain":"none","descriptors":[[{{"key":"k","value":""}}]]}}]}}"#);
    let batch = post(data, "/v1/check", &batch).await;
    let admitted: Vec<_> =
        batch.json()["results"].as_array().unwrap().iter().map(|result| result["admitted"] == true).collect();
    assert_eq!((batch.status.as_u16(), admitted), (200, vec![false, true]));

    let set = post(admin, "/v1/policies:apply", r#"{"owner":"operator","policies":[]}"#).await;
    assert_eq!(set.json(), json!({ "revision": 2 }));
    let denied_so_far = get(data, "/v1/denied").await.json();
    assert_eq!(denied_so_far, json!({ "policies": { "shop/one": 2 }, "isComplete": true }));
    let own = get(data, "/v1/cluster").await.json()["clusterId"].as_str().unwrap().to_owned();
    for (cluster, status) in [(own.as_str(), 200), ("0123", 409), ("", 409)] {
        let set = json!({ "owner": "operator", "clusterId": cluster, "policies": [] });
        let answer = post(admin, "/v1/policies:apply", &set.to_string()).await;
        assert_eq!(answer.status.as_u16(), status, "{cluster:?}: {}", answer.json());
    }
    let concurrency = QUOTA.replace("FixedWindow", "Concurrency");
    let set = format!(r#"{{"owner":"operator","policies":[{concurrency}]}}"#);
    let refused = post(admin, "/v1/policies:apply", &set).await;
    assert_eq!(refused.status.as_u16(), 400);
    assert_eq!(refused.json()["faults"][0]["path"], "policies[0].spec.limits[0].algorithm");
    let theirs = post(admin, "/v1/policies:apply", &format!(r#"{{"owner":"operator","policies":[{QUOTA}]}}"#)).await;
    assert_eq!(theirs.status.as_u16(), 409);
    assert!(theirs.json()["error"].as_str().unwrap().contains("shop/one belongs to the admin API"));
    let deleted = ask(admin, Method::DELETE, "/v1/policies/shop/one", "").await;
    assert_eq!((deleted.status.as_u16(), deleted.json()), (200, json!({ "revision": 3 })));
    assert_eq!(get(data, "/v1/policies/shop/one").await.status.as_u16(), 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn ready_node_tells_of_itself() {
    let alone = &Alone::ready().await;
    assert_eq!(get(&alone.data, "/health").await.body, r#"{"status":"ok"}"#);
    assert_eq!(get(&alone.data, "/ready").await.status.as_u16(), 200);
    let cluster = get(&alone.data, "/v1/cluster").await.json();
    assert_eq!(cluster["members"][0]["name"], "alone");
    assert_eq!(cluster["members"][0]["role"], "Voter");
    assert_eq!((&cluster["leader"], &cluster["node"]), (&cluster["members"][0]["id"], &cluster["members"][0]["id"]));
    let stats = get(&alone.data, "/raft/stats").await.json();
    assert_eq!((&stats["result"], &stats["stats"]["state"]), (&json!(true), &json!("Leader")));
    assert!(stats["stats"].as_object().unwrap().values().all(Value::is_string), "{stats}");
    alone.node.drain().await;
    let draining = get(&alone.data, "/ready").await;
    assert_eq!(draining.status.as_u16(), 503);
    assert_eq!(draining.json(), json!({ "status": "not ready", "reason": "this node is draining" }));
}

#[tokio::test(flavor = "multi_thread")]
async fn unfounded_node_answers_unavailable_and_is_founded_by_a_call() {
    let alone = &Alone::unfounded().await;
    let increment = post(&alone.data, "/rate/increment?client_id=a", "").await;
    assert_eq!(increment.status.as_u16(), 503);
    assert_eq!(increment.json(), json!({ "error": "this node has not joined a cluster yet", "result": false }));
    assert_eq!(get(&alone.data, "/rate/check?client_id=a").await.status.as_u16(), 503);
    assert_eq!(post(&alone.data, "/rate/reset?client_id=a", "").await.status.as_u16(), 503);
    let check = post(&alone.data, "/v1/check", r#"{"descriptors":[[{"key":"k","value":"v"}]]}"#).await;
    assert_eq!((check.status.as_u16(), check.header("x-ratelimit-decision")), (503, "unavailable"));
    assert_eq!(ask(&alone.admin, Method::PUT, "/v1/policies/shop/one", QUOTA).await.status.as_u16(), 503);
    assert_eq!(get(&alone.data, "/ready").await.status.as_u16(), 503);
    let cluster = get(&alone.data, "/v1/cluster").await.json();
    assert_eq!((&cluster["clusterId"], &cluster["members"]), (&json!(""), &json!([])));

    let members = json!({ "members": [{ "id": cluster["node"], "name": "alone" }] }).to_string();
    let founded = post(&alone.admin, "/v1/cluster/bootstrap", &members).await;
    assert_eq!(founded.status.as_u16(), 200, "{founded:?}");
    assert_ne!(founded.json()["clusterId"], "");
    while alone.node.ready().is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(post(&alone.data, "/rate/increment?client_id=a", "").await.status.as_u16(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn members_are_changed_only_as_asked_for() {
    let Alone { admin, node, .. } = &Alone::ready().await;
    let alone = post(admin, "/v1/cluster/transfer-leader", "").await;
    assert_eq!(
        (alone.status.as_u16(), alone.json()),
        (409, json!({ "error": "there is no other voter to take over" }))
    );
    let unknown = post(admin, "/v1/cluster/transfer-leader", r#"{"whom":"1"}"#).await;
    assert!(
        unknown.status.as_u16() == 400 && unknown.json()["error"].as_str().unwrap().contains("whom"),
        "{unknown:?}"
    );
    let decommission = |id: String| async move {
        let answer = ask(admin, Method::PUT, &format!("/v1/cluster/members/{id}/decommission"), "").await;
        (answer.status.as_u16(), answer.json()["error"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(decommission("node-1".to_owned()).await.0, 400);
    let unknown = decommission("1f".to_owned()).await;
    assert_eq!(unknown, (404, "there is no member 000000000000001f; GET /v1/cluster lists all".to_owned()));
    let (status, error) = decommission(format!("{:x}", node.identity().node)).await;
    assert!(
        status == 409 && error.ends_with("is the last member that is to stay; add another first, nothing was changed")
    );
    assert_eq!(post(admin, "/v1/cluster/bootstrap", "{}").await.status.as_u16(), 400);
    assert_eq!(post(admin, "/v1/cluster/bootstrap", r#"{"members":[]}"#).await.status.as_u16(), 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_path_or_method_is_404_in_json() {
    let Alone { data, admin, .. } = &Alone::unfounded().await;
    for (routes, method, path) in [
        (data, Method::GET, "/"),
        (data, Method::GET, "/rate/increment?client_id=a"),
        (data, Method::PUT, "/rate/increment?client_id=a"),
        (data, Method::POST, "/rate/check?client_id=a"),
        (data, Method::POST, "/rate/increment/?client_id=a"),
        (data, Method::PUT, "/v1/policies/shop/one"),
        (data, Method::POST, "/v1/policies:apply"),
        (admin, Method::POST, "/rate/increment?client_id=a"),
        (admin, Method::GET, "/v1/policies/shop/one"),
    ] {
        let answer = ask(routes, method.clone(), path, "").await;
        assert_eq!(answer.status.as_u16(), 404, "{method} {path}");
        assert!(answer.json()["error"].is_string());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reset_without_the_setting_is_404() {
    let alone = Alone::unfounded().await;
    let settings = DoorSettings { rate_reset: false, ..DoorSettings::default() };
    let doors = Doors::new(Arc::clone(&alone.node), Arc::new(Metrics::new().unwrap()), settings);
    assert_eq!(post(&doors.data_routes(), "/rate/reset?client_id=a", "").await.status.as_u16(), 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_body_is_refused_by_what_is_wrong() {
    let Alone { data, admin, .. } = &Alone::unfounded().await;
    let too_long = post(data, "/v1/check", &format!("\"{}\"", "x".repeat(BODY_BYTES_MAX))).await;
    assert_eq!(too_long.status.as_u16(), 413);
    for (body, word) in [
        ("", "EOF"),
        ("{", "EOF"),
        ("[]", "expected"),
        ("{}", "descriptors"),
        (r#"{"descriptors":[],"hitz":1}"#, "hitz"),
        (r#"{"descriptors":[]}"#, "descriptors: has 0 entries"),
        (r#"{"descriptors":[[{"key":"k","value":"v"}]],"hits":-1}"#, "hits: -1"),
        (r#"{"checks":[{"descriptors":[[{"key":"k","value":"v"}]]},{"descriptors":[]}]}"#, "checks[1].descriptors"),
    ] {
        let answer = post(data, "/v1/check", body).await;
        let error = answer.json()["error"].as_str().unwrap().to_owned();
        assert!(answer.status.as_u16() == 400 && error.contains(word), "{body}: {answer:?}");
    }
    let elsewhere = ask(admin, Method::PUT, "/v1/policies/shop/two", QUOTA).await;
    assert_eq!(elsewhere.status.as_u16(), 400);
    assert_eq!(elsewhere.json()["error"], "metadata: names shop/one, the path names shop/two; make them one");
}

#[tokio::test(flavor = "multi_thread")]
async fn openapi_describes_every_route_and_no_other() {
    let Alone { data, .. } = &Alone::unfounded().await;
    let document = get(data, "/openapi.json").await.json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3."));
    let mut described = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if method == "parameters" || method == "servers" {
                continue;
            }
            assert!(operation["operationId"].is_string() && operation["responses"].is_object(), "{method} {path}");
            described.insert((method.to_ascii_uppercase(), path.clone()));
        }
    }
    let routes = ROUTES.iter().map(|(method, path)| ((*method).to_owned(), (*path).to_owned())).collect();
    assert_eq!(described, routes);
}

#[test]
fn every_route_is_documented() {
    let document: Value = serde_json::from_str(include_str!("openapi.json")).unwrap();
    let mut routes = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let methods = item.as_object().unwrap().keys().filter(|key| !matches!(key.as_str(), "parameters" | "servers"));
        routes.extend(methods.map(|method| format!("{} {path}", method.to_ascii_uppercase())));
    }
    let heading = |line: &'static str| Some(line.strip_prefix("### `")?.strip_suffix('`')?.to_owned());
    let page = include_str!("../../../../docs/http.md");
    assert_eq!(page.lines().filter_map(heading).collect::<BTreeSet<_>>(), routes, "docs/http.md");
}

#[tokio::test(flavor = "multi_thread")]
async fn openapi_refers_only_to_what_it_holds() {
    let document: Value = get(&Alone::unfounded().await.data, "/openapi.json").await.json();
    let mut open = vec![&document];
    let mut references = 0;
    while let Some(value) = open.pop() {
        match value {
            Value::Object(fields) => {
                if let Some(Value::String(reference)) = fields.get("$ref") {
                    references += 1;
                    assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
                }
                open.extend(fields.values());
            }
            Value::Array(values) => open.extend(values),
            _ => {}
        }
    }
    assert!(references > 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_listed_is_served_on_one_port() {
    let Alone { data, admin, .. } = &Alone::unfounded().await;
    for (method, path) in ROUTES {
        let path = path.replace("{namespace}", "n").replace("{name}", "p").replace("{id}", "1");
        let method: Method = method.parse().unwrap();
        let mut served = 0;
        for routes in [data, admin] {
            let answer = ask(routes, method.clone(), &path, "").await;
            // A policy that is not there is 404 too, but says so in other words.
            served += u32::from(!String::from_utf8_lossy(&answer.body).contains("on this port"));
        }
        assert_eq!(served, 1, "{method} {path}");
    }
}

/// Every route of both ports.
const ROUTES: &[(&str, &str)] = &[
    ("POST", "/rate/increment"),
    ("GET", "/rate/check"),
    ("POST", "/rate/reset"),
    ("GET", "/raft/stats"),
    ("POST", "/v1/check"),
    ("GET", "/v1/authorize"),
    ("POST", "/bucket"),
    ("GET", "/example"),
    ("GET", "/v1/buckets"),
    ("DELETE", "/v1/buckets/{name}"),
    ("GET", "/v1/policies"),
    ("GET", "/v1/policies/{namespace}/{name}"),
    ("PUT", "/v1/policies/{namespace}/{name}"),
    ("DELETE", "/v1/policies/{namespace}/{name}"),
    ("POST", "/v1/policies:apply"),
    ("GET", "/v1/denied"),
    ("GET", "/v1/cluster"),
    ("PUT", "/v1/cluster/members/{id}/decommission"),
    ("POST", "/v1/cluster/transfer-leader"),
    ("POST", "/v1/cluster/bootstrap"),
    ("GET", "/health"),
    ("GET", "/ready"),
    ("GET", "/metrics"),
    ("GET", "/openapi.json"),
];
