//! Not one admission more or less than the limit, whatever node the requests go to.

use std::time::Instant;

use quorate_tests::client::{Outcome, limit, policy};
use quorate_tests::cluster::{Cluster, Plan, figure};
use quorate_tests::load::Load;
use serde_json::{Value, json};

const LIMIT: u64 = 1000;
const REQUESTS: u64 = 20_000;

/// Runs of each case: 20, or what `RUNS` says.
fn runs() -> u64 {
    std::env::var("RUNS").map_or(20, |runs| runs.parse().expect("RUNS is a number"))
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_under_load_on_a_fixed_window_admit_exactly_the_limit() {
    one_policy("FixedWindow", &limit("FixedWindow", LIMIT, "24h")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_under_load_on_a_sliding_window_admit_exactly_the_limit() {
    one_policy("SlidingWindow", &limit("SlidingWindow", LIMIT, "24h")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_under_load_on_a_token_bucket_admit_exactly_its_burst() {
    // One token a day: none in the time of the test.
    let bucket = json!({"name": "only", "algorithm": "TokenBucket", "limit": 1, "window": "24h", "burst": LIMIT});
    one_policy("TokenBucket", &bucket).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_under_load_on_two_policies_admit_exactly_the_smaller_limit_and_charge_both_alike() {
    let cluster = Plan::of(3).alone().start().await;
    let mut admin = cluster.node(1).admin_client();
    admin.put_policy(&policy("small", "run-", &json!([limit("FixedWindow", LIMIT, "24h")]))).await.unwrap();
    admin.put_policy(&policy("large", "run-", &json!([limit("SlidingWindow", LIMIT * 2, "24h")]))).await.unwrap();
    for run in 0..runs() {
        let client_id = format!("run-{run}");
        admit_exactly(&cluster, &client_id).await;
        let after = cluster.node(0).client().v1_check(&[("client_id", &client_id)], 0).await.unwrap();
        assert_eq!(after.limit("default/small", "only").remaining, 0);
        assert_eq!(after.limit("default/large", "only").remaining, LIMIT, "a denied request must charge nothing");
    }
    figure(&format!("two policies at once: exactly {LIMIT} of {REQUESTS} admitted in {} of {0} runs", runs()));
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_under_load_of_seven_hits_each_admit_what_fits_and_leave_the_rest() {
    let cluster = Plan::of(3).alone().start().await;
    let bucket = policy("sevens", "seven", &json!([limit("FixedWindow", LIMIT, "24h")]));
    cluster.node(2).admin_client().put_policy(&bucket).await.unwrap();
    let load = Load {
        path: "/v1/check".to_owned(),
        body: json!({"descriptors": [[{"key": "client_id", "value": "seven"}]], "hits": 7}),
        requests: 2000,
        ..Load::increments(cluster.addresses(), "")
    };
    let history = load.run().await;
    assert_eq!(history.unknown(), 0, "{:?}", history.problems());
    assert_eq!(history.admitted(), LIMIT / 7);
    let left = cluster.node(1).client().check("seven").await.unwrap().remaining_quota;
    assert_eq!(left, Some(LIMIT % 7));
}

async fn one_policy(name: &str, limit: &Value) {
    let cluster = Plan::of(3).alone().start().await;
    let policy = policy("exact", "run-", &json!([limit]));
    cluster.node(0).admin_client().put_policy(&policy).await.unwrap();
    let started = Instant::now();
    for run in 0..runs() {
        admit_exactly(&cluster, &format!("run-{run}")).await;
    }
    let rate = u128::from(runs() * REQUESTS) * 1000 / started.elapsed().as_millis();
    figure(&format!("{name}: exactly {LIMIT} of {REQUESTS} admitted in {} of {0} runs, {rate} decisions/s", runs()));
}

/// 64 connections over all nodes ask for one client; a fresh one, so that its counters are.
async fn admit_exactly(cluster: &Cluster, client_id: &str) {
    let load = Load { requests: REQUESTS, ..Load::increments(cluster.addresses(), client_id) };
    let history = load.run().await;
    assert_eq!(history.unknown(), 0, "an undisturbed cluster decides everything: {:?}", history.problems());
    assert_eq!(history.admitted(), LIMIT);
    assert_eq!(history.count(Outcome::Denied), REQUESTS - LIMIT);
    for node in cluster.nodes() {
        let check = node.client().check(client_id).await.unwrap();
        assert_eq!((check.remaining_quota, check.result), (Some(0), false), "as {} sees it", node.name());
    }
}
