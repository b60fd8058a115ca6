//! A million clients that nobody has seen before: memory is bounded, and whoever was there before is served exactly.

use quorate_tests::client::{Answer, Client, Outcome, limit, policy};
use quorate_tests::cluster::{Cluster, Plan, figure};
use rand::Rng as _;
use serde_json::{Value, json};

const FLOOD: usize = 1_000_000;
const BATCH: usize = 1000;
/// What each of the clients may have that are there before and after.
const LIMIT: u64 = 10;
const LIVE: usize = 3;
/// A counter is to take at most 100 bytes, tables are twice as large as need be right after they grew, and each of the
/// records of the flood is in the cache of the log once.
const COUNTER_BYTES_MAX: u64 = 200;
/// Buffers, the log's cache, and what the allocator keeps.
const REST_BYTES_MAX: u64 = 384 << 20;

async fn start(plan: Plan) -> Cluster {
    let cluster = plan.alone().start().await;
    for name in ["flood", "calm"] {
        let policy = policy(name, &format!("{name}-"), &json!([limit("FixedWindow", LIMIT, "24h")]));
        cluster.node(0).admin_client().put_policy(&policy).await.unwrap();
    }
    cluster
}

async fn increment(client: &mut Client, client_id: &str) -> Answer {
    client.post(&format!("/rate/increment?client_id={client_id}"), &Value::Null).await.unwrap()
}

/// Half of what each live client may have; all of the rest once `is_end`.
async fn use_live(cluster: &Cluster, is_end: bool) {
    let mut client = cluster.node(1).client();
    for live in 0..LIVE {
        let client_id = format!("flood-live-{live}");
        for _ in 0..LIMIT / 2 {
            assert_eq!(client.increment(&client_id).await, Outcome::Admitted);
        }
        if is_end {
            assert_eq!(client.increment(&client_id).await, Outcome::Denied);
        }
    }
}

/// Asks for a million random clients over all nodes. How many were admitted; the others were unavailable.
async fn flood(cluster: &Cluster) -> usize {
    let mut clients: Vec<Client> = cluster.nodes().iter().map(quorate_tests::cluster::Node::client).collect();
    let batches_each = FLOOD / BATCH / clients.len();
    let rest = FLOOD / BATCH % clients.len();
    let tasks = clients.drain(..).enumerate().map(|(index, mut client)| {
        let batches = batches_each + usize::from(index < rest);
        tokio::spawn(async move {
            let mut admitted = 0;
            for _ in 0..batches {
                admitted += batch(&mut client).await;
            }
            admitted
        })
    });
    futures::future::join_all(tasks).await.into_iter().map(Result::unwrap).sum()
}

async fn batch(client: &mut Client) -> usize {
    let check = |_| {
        let id = format!("flood-{:016x}", rand::rng().next_u64());
        json!({"descriptors": [[{"key": "client_id", "value": id}]]})
    };
    let checks: Vec<Value> = (0..BATCH).map(check).collect();
    let answer = client.post("/v1/check", &json!({"checks": checks})).await.unwrap().expect_status(200);
    let results = answer.json::<Value>()["results"].as_array().unwrap().clone();
    assert_eq!(results.len(), BATCH);
    let is_admitted = |result: &&Value| {
        let is_full = result["error"].as_str().is_some_and(|error| error.contains("share of counters"));
        assert!(is_full || result["admitted"] == true, "{result}");
        !is_full
    };
    results.iter().filter(is_admitted).count()
}

/// Floods, and holds what came of it against the policy's share.
async fn survive(cluster: &Cluster, share: usize) {
    use_live(cluster, false).await;
    let before: Vec<u64> = cluster.nodes().iter().map(quorate_tests::cluster::Node::resident_bytes).collect();
    let begun = std::time::Instant::now();
    let admitted = flood(cluster).await;
    let took = begun.elapsed();
    assert_eq!(admitted, (share - LIVE).min(FLOOD), "a policy may hold {share} counters");
    let after: Vec<u64> = cluster.nodes().iter().map(quorate_tests::cluster::Node::resident_bytes).collect();

    let mut client = cluster.node(2).client();
    let refused = increment(&mut client, "flood-one-more").await.expect_status(503);
    assert!(refused.text().contains("has used up its share of counters"), "{}", refused.text());
    use_live(cluster, true).await;
    for calm in 0..share.min(100) {
        assert_eq!(
            client.increment(&format!("calm-{calm}")).await,
            Outcome::Admitted,
            "another policy has its own share"
        );
    }
    let grown: Vec<u64> = before.iter().zip(&after).map(|(before, after)| after.saturating_sub(*before)).collect();
    let megabytes = |bytes: &[u64]| bytes.iter().map(|bytes| (bytes >> 20).to_string()).collect::<Vec<_>>().join(", ");
    figure(&format!(
        "{FLOOD} random clients, a share of {share} counters: {admitted} admitted in {took:.1?}, memory of the nodes from \
         {} MiB to {} MiB",
        megabytes(&before),
        megabytes(&after)
    ));
    let bound = admitted as u64 * COUNTER_BYTES_MAX + REST_BYTES_MAX;
    assert!(grown.iter().all(|grown| *grown < bound), "grown by {} MiB", megabytes(&grown));
}

#[tokio::test(flavor = "multi_thread")]
async fn million_random_clients_and_few_counters_new_ones_are_unavailable_and_live_ones_exact() {
    let cluster = start(Plan::of(3).set("COUNTERS_MAX", "4000")).await;
    survive(&cluster, 1000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn million_random_clients_and_counters_as_by_default_memory_is_bounded_and_live_ones_exact() {
    let cluster = start(Plan::of(3)).await;
    survive(&cluster, 1_000_000).await;
}
