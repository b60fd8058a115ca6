//! The doors with the programs before them that people have: real Envoys and nginx, by the recipes in `docs/doors`.
//!
//! `make test-doors` fetches the programs and runs these.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod envoy;
mod every;
mod k6;
mod nginx;
mod together;

use quorate_tests::client::{Answer, limit, policy};
use quorate_tests::cluster::{Cluster, Plan};
use serde_json::{Value, json};

/// Asked at gateways: a client has no say in what it is counted by.
const PATH: &str = "/some/path?domain=nobodys";

/// A policy of the recipes' domain.
async fn put_edge_policy(cluster: &Cluster, hits: u64) {
    let mut edge = policy("edge", "", &json!([limit("FixedWindow", hits, "1h")]));
    edge["spec"]["domain"] = json!("edge");
    cluster.node(0).admin_client().put_policy(&edge).await.unwrap();
}

/// Three nodes of which only the first is left. In the recipes' domain requests of clients `open-…` pass without a decision,
/// those of `shut-…` do not.
async fn leaderless() -> Cluster {
    let cluster = Plan::of(3).start().await;
    for (name, on_unavailable) in [("open", "Allow"), ("shut", "Deny")] {
        let mut policy = policy(name, &format!("{name}-"), &json!([limit("FixedWindow", 1000, "1h")]));
        policy["spec"]["domain"] = json!("edge");
        policy["spec"]["onUnavailable"] = json!(on_unavailable);
        cluster.node(0).admin_client().put_policy(&policy).await.unwrap();
        // Then the first node has it.
        assert_eq!(left(&cluster, 0, &format!("{name}-a")).await, 1000);
    }
    cluster.node(1).kill();
    cluster.node(2).kill();
    cluster
}

/// What is left of a client's limit in the recipes' domain.
async fn left(cluster: &Cluster, node: usize, id: &str) -> u64 {
    let body = json!({"domain": "edge", "hits": 0, "descriptors": [[{"key": "client_id", "value": id}]]});
    let answer = cluster.node(node).client().post("/v1/check", &body).await.unwrap();
    answer.json::<Value>()["limits"][0]["remaining"].as_u64().unwrap()
}

/// Status, and what the limiter said.
fn decision(answer: &Answer) -> (u16, &str) {
    (answer.status, answer.header("x-ratelimit-decision"))
}
