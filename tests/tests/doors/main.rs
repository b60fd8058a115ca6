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
use quorate_tests::cluster::Cluster;
use serde_json::{Value, json};

/// Asked at gateways: a client has no say in what it is counted by.
const PATH: &str = "/some/path?domain=nobodys";

/// A policy of the recipes' domain.
async fn put_edge_policy(cluster: &Cluster, hits: u64) {
    let mut edge = policy("edge", "", &json!([limit("FixedWindow", hits, "1h")]));
    edge["spec"]["domain"] = json!("edge");
    cluster.node(0).admin_client().put_policy(&edge).await.unwrap();
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
