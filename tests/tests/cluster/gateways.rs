//! The doors for gateways while a leader dies: never more than the limit, and decisions again soon. And what the tests of
//! each of these doors begin with.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quorate_tests::client::{Client, limit, policy};
use quorate_tests::cluster::{Cluster, Node, PATIENCE, Plan, eventually, figure};
use quorate_tests::grpc::{Connection, RateLimitRequest};
use serde_json::{Value, json};
use tokio::task::JoinSet;

const LIMIT: u64 = 4000;

pub(super) async fn put(cluster: &Cluster, policies: &[Value]) {
    for policy in policies {
        cluster.node(0).admin_client().put_policy(policy).await.unwrap();
    }
}

pub(super) fn hourly(name: &str, prefix: &str, hits: u64) -> Value {
    policy(name, prefix, &json!([limit("FixedWindow", hits, "1h")]))
}

/// Three nodes of which only the first is left, with two policies of five hits an hour: `open`, which allows what cannot be
/// decided, and `shut`, which does not. They meet ids that begin with `open-` and `shut-`.
pub(super) async fn leaderless() -> Cluster {
    let cluster = Plan::of(3).start().await;
    let mut open = hourly("open", "open-", 5);
    open["spec"]["onUnavailable"] = json!("Allow");
    put(&cluster, &[open, hourly("shut", "shut-", 5)]).await;
    let node = cluster.node(0);
    eventually(PATIENCE, "it has both policies", async || {
        let answer = node.client().get("/v1/policies/default/shut").await.map_err(|error| error.to_string())?;
        if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
    })
    .await;
    cluster.node(1).kill();
    cluster.node(2).kill();
    cluster
}

enum Door {
    RateLimitService(Connection),
    Authorize(Client),
    Bucket(Client),
}

impl Door {
    /// For the client `one`; for the one of this id where clients are registered.
    async fn of(node: &Node, name: &str, id: &str) -> Self {
        match name {
            "rls" => Self::RateLimitService(Connection::open(node.grpc()).await.unwrap()),
            "bucket" => Self::Bucket(node.client().header("x-api-id", id.as_bytes())),
            _ => Self::Authorize(node.client().header("x-client-id", b"one")),
        }
    }

    /// What it says, in the header for gateways.
    async fn ask(&mut self) -> String {
        match self {
            Self::RateLimitService(envoy) => {
                envoy.ask(&RateLimitRequest::of_client("one")).await.headers()["x-ratelimit-decision"].to_owned()
            }
            Self::Authorize(client) => {
                client.get("/v1/authorize?timeout=3s").await.unwrap().header("x-ratelimit-decision").to_owned()
            }
            Self::Bucket(client) => client.get("/example").await.unwrap().header("x-ratelimit-decision").to_owned(),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_killed_under_load_at_the_rate_limit_service_the_limit_holds_and_decisions_go_on() {
    leader_killed("rls").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_killed_under_load_at_authorize_the_limit_holds_and_decisions_go_on() {
    leader_killed("authorize").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_killed_under_load_at_example_the_limit_holds_and_decisions_go_on() {
    leader_killed("bucket").await;
}

async fn leader_killed(door: &'static str) {
    let cluster = Plan::of(3).alone().start().await;
    let quota = policy("p", "", &json!([limit("FixedWindow", LIMIT, "24h")]));
    let mut buckets = quota.clone();
    buckets["metadata"]["name"] = json!("buckets");
    buckets["spec"]["domain"] = json!("bucket");
    buckets["spec"]["countBy"] = json!(["api_id"]);
    buckets["spec"]["match"] = json!([]);
    put(&cluster, &[quota, buckets]).await;
    let created = cluster.node(0).client().post("/bucket", &json!({ "name": "one" })).await.unwrap();
    let id = created.json::<Value>()["id"].as_str().unwrap().to_owned();
    let leader = cluster.leader().await;
    let admitted = Arc::new(AtomicU64::new(0));
    let mut asking = JoinSet::new();
    for number in 0..8 {
        let mut asked = Door::of(cluster.node((leader + 1 + number % 2) % 3), door, &id).await;
        let admitted = Arc::clone(&admitted);
        asking.spawn(async move {
            let (mut unavailable, mut slowest) = (0, Duration::ZERO);
            loop {
                let since = Instant::now();
                match asked.ask().await.as_str() {
                    "admit" => {
                        admitted.fetch_add(1, Ordering::SeqCst);
                    }
                    "deny" => return (unavailable, slowest),
                    "unavailable" => unavailable += 1,
                    other => panic!("{other}"),
                }
                slowest = slowest.max(since.elapsed());
            }
        });
    }
    eventually(PATIENCE, "requests are admitted", async || {
        let admitted = admitted.load(Ordering::SeqCst);
        if admitted > LIMIT / 4 { Ok(()) } else { Err(admitted.to_string()) }
    })
    .await;
    cluster.node(leader).kill();
    let ended = asking.join_all().await;
    let unavailable: u64 = ended.iter().map(|(count, _)| count).sum();
    let slowest = ended.iter().map(|(_, slowest)| *slowest).max().unwrap();
    let admitted = admitted.load(Ordering::SeqCst);
    // An unavailable request may have been charged.
    assert!(admitted <= LIMIT && admitted + unavailable >= LIMIT, "{admitted} admitted, {unavailable} unavailable");
    let metrics = [1, 2].map(|behind| cluster.node((leader + behind) % 3)).map(|node| async {
        let text = node.client().get("/metrics").await.unwrap().text();
        let name = format!(r#"quorate_unavailable_total{{answer="denied",door="{door}"}} "#);
        text.lines().find_map(|line| line.strip_prefix(&name)?.parse::<u64>().ok()).unwrap()
    });
    assert_eq!(futures::future::join_all(metrics).await.iter().sum::<u64>(), unavailable, "each is counted");
    figure(&format!(
        "the leader killed under load at {door}: {admitted} of {LIMIT} admitted, {unavailable} unavailable, the slowest decision \
         took {slowest:.2?}"
    ));
    assert!(slowest < Duration::from_secs(3));
}
