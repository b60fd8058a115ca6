//! Nodes die under load: nothing admitted is forgotten, nothing is admitted twice, and decisions go on.

use std::time::{Duration, Instant};

use quorate_tests::client::{Outcome, check_body, limit, policy};
use quorate_tests::cluster::{PATIENCE, Plan, Signal, eventually, figure, pause};
use quorate_tests::load::{History, Load};
use serde_json::{Value, json};
use tokio::task::JoinSet;

const ROUNDS: usize = 20;
const LIMIT: u64 = 5000;

/// Each request counts for a client of its round and for one tenant of all rounds.
fn round_policies() -> [Value; 2] {
    let round = policy("round", "round-", &json!([limit("FixedWindow", LIMIT, "24h")]));
    let mut ledger = policy("ledger", "round-", &json!([limit("FixedWindow", 100_000_000, "24h")]));
    ledger["spec"]["match"] = json!([{"key": "tenant", "exact": "all"}]);
    ledger["spec"]["countBy"] = json!(["tenant"]);
    [round, ledger]
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_killed_under_load_twenty_times_decisions_go_on_and_every_admission_is_kept() {
    let cluster = Plan::of(3).alone().start().await;
    for policy in round_policies() {
        cluster.node(0).admin_client().put_policy(&policy).await.unwrap();
    }
    let (mut outages, mut admitted, mut unknown) = (vec![], 0, 0);
    for round in 0..ROUNDS {
        let client_id = format!("round-{round}");
        let entries = [("client_id", client_id.as_str()), ("tenant", "all")];
        let load = Load {
            path: "/v1/check".to_owned(),
            body: check_body(&entries, 1),
            connections: 16,
            ..Load::increments(cluster.addresses(), "")
        };
        let leader = cluster.leader().await;
        let running = load.start();
        eventually(PATIENCE, "requests are admitted", async || at_least(running.admitted(), 200)).await;
        let killed_at = Instant::now();
        cluster.node(leader).kill();
        eventually(PATIENCE, "the limit is reached after the kill", async || at_least(running.denied(), 200)).await;
        let history = running.stop().await;

        outages.push(outage(&history, killed_at));
        let survivor = cluster.node((leader + 1) % 3);
        let after = survivor.client().v1_check(&entries, 0).await.unwrap();
        let used = LIMIT - after.limit("default/round", "only").remaining;
        assert_eq!(used, LIMIT, "requests were denied, so nothing may remain");
        assert_accounted(&history, used);
        admitted += history.admitted();
        unknown += history.unknown();
        cluster.node(leader).start();
        cluster.ready().await;
    }
    let entries = [("client_id", "round-none"), ("tenant", "all")];
    let after = cluster.node(0).client().v1_check(&entries, 0).await.unwrap();
    let used = 100_000_000 - after.limit("default/ledger", "only").remaining;
    assert!((admitted..=admitted + unknown).contains(&used), "{admitted} admitted, {unknown} unknown, {used} used");

    outages.sort();
    let (worst, median) = (outages[ROUNDS - 1], outages[ROUNDS / 2]);
    figure(&format!(
        "kill -9 of the leader under load, {ROUNDS} times: decisions again after {median:.2?} (median), {worst:.2?} \
         (worst); {admitted} admitted, {unknown} unknown, {used} used"
    ));
    assert!(worst < Duration::from_secs(3), "{outages:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_paused_under_load_another_leads_and_the_limit_holds_when_it_wakes() {
    let cluster = Plan::of(3).alone().start().await;
    cluster.node(0).admin_client().put_policy(&round_policies()[0]).await.unwrap();
    let leader = cluster.leader().await;
    let running = Load { connections: 16, ..Load::increments(cluster.addresses(), "round-paused") }.start();
    eventually(PATIENCE, "requests are admitted", async || at_least(running.admitted(), 200)).await;
    cluster.node(leader).signal(Signal::STOP);
    let others: Vec<_> = cluster.nodes().iter().filter(|node| node.name() != cluster.node(leader).name()).collect();
    eventually(PATIENCE, "another node leads", async || {
        for node in &others {
            if node.client().stats().await.is_ok_and(|stats| stats["state"] == "Leader") {
                return Ok(());
            }
        }
        Err("none of the others".to_owned())
    })
    .await;
    let admitted = running.admitted();
    eventually(PATIENCE, "requests are decided meanwhile", async || {
        at_least(running.admitted() + running.denied(), admitted + 200)
    })
    .await;
    cluster.node(leader).signal(Signal::CONT);
    let denied = running.denied();
    eventually(PATIENCE, "the limit is reached", async || at_least(running.denied(), denied + 200)).await;
    let history = running.stop().await;
    assert_accounted(&history, LIMIT);
    for node in cluster.nodes() {
        assert_eq!(node.client().check("round-paused").await.unwrap().remaining_quota, Some(0), "{}", node.name());
    }
}

/// Nothing grows while nobody decides: a node holds 65,536 checks and says so to whoever asks for more.
#[tokio::test(flavor = "multi_thread")]
async fn requests_beyond_what_may_wait_are_turned_away_at_once() {
    const BATCH: usize = 1000;
    let cluster = Plan::of(3).alone().start().await;
    let quota = policy("all", "", &json!([limit("FixedWindow", 1_000_000, "24h")]));
    cluster.node(0).admin_client().put_policy(&quota).await.unwrap();
    cluster.node(1).kill();
    cluster.node(2).kill();
    let body = json!({ "checks": vec![json!({ "descriptors": [[{ "key": "client_id", "value": "a" }]] }); BATCH] });
    let mut asking = JoinSet::new();
    for _ in 0..100 {
        let (mut client, body) = (cluster.node(0).client(), body.clone());
        asking.spawn(async move { client.post("/v1/check", &body).await.unwrap().expect_status(200).text() });
    }
    let answers = asking.join_all().await;
    let said = |words: &str| answers.iter().map(|answer| answer.matches(words).count()).sum::<usize>();
    let (turned_away, waited) = (said("too many requests are waiting on this node"), said("no decision in time"));
    assert_eq!(turned_away + waited, 100 * BATCH);
    assert!(turned_away > 0 && waited <= 65_536 + 2 * 4096, "{turned_away} turned away, {waited} waited");
    cluster.node(1).start();
    cluster.node(1).ready().await;
    assert!(cluster.node(0).client().v1_check(&[("client_id", "b")], 1).await.unwrap().admitted);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_nodes_killed_and_restarted_counters_policies_and_reset_instants_are_as_before() {
    let cluster = Plan::of(3).alone().start().await;
    let mut admin = cluster.node(0).admin_client();
    let limits = json!([
        {"name": "window", "algorithm": "FixedWindow", "limit": 100, "window": "1h"},
        {"name": "sliding", "algorithm": "SlidingWindow", "limit": 100, "window": "1h"},
        {"name": "bucket", "algorithm": "TokenBucket", "limit": 1, "window": "24h", "burst": 100},
    ]);
    admin.put_policy(&policy("all-kinds", "kept-", &limits)).await.unwrap();
    let entries = [("client_id", "kept-1")];
    let mut client = cluster.node(1).client();
    for _ in 0..37 {
        assert!(client.v1_check(&entries, 1).await.unwrap().admitted);
    }
    // So that a reset instant that starts anew would be seen.
    pause(Duration::from_secs(3)).await;
    let policies = client.get("/v1/policies").await.unwrap().text();
    let cluster_id = client.cluster_status().await.unwrap().cluster_id;
    let before = client.v1_check(&entries, 0).await.unwrap();
    let asked_before = Instant::now();
    for node in cluster.nodes() {
        node.kill();
    }
    for node in cluster.nodes() {
        node.start();
    }
    cluster.ready().await;

    for node in cluster.nodes() {
        let mut client = node.client();
        let after = client.v1_check(&entries, 0).await.unwrap();
        // An outage lengthens a window by as much.
        let passed = asked_before.elapsed().as_secs();
        assert_eq!(after.revision, before.revision);
        assert_eq!(after.limits.len(), 3);
        for (now, then) in after.limits.iter().zip(&before.limits) {
            assert_eq!((now.remaining, now.limit, &now.name), (63, then.limit, &then.name));
            let expected = then.reset_seconds.saturating_sub(passed + 1)..=then.reset_seconds + 1;
            assert!(expected.contains(&now.reset_seconds), "{now:?}, before {then:?}, {passed} s ago");
        }
        assert_eq!(client.get("/v1/policies").await.unwrap().text(), policies);
        assert_eq!(client.cluster_status().await.unwrap().cluster_id, cluster_id);
    }
    // Nothing of the rest was lost either.
    for _ in 0..63 {
        assert!(client_of(&cluster).v1_check(&entries, 1).await.unwrap().admitted);
    }
    assert!(!client_of(&cluster).v1_check(&entries, 1).await.unwrap().admitted);
}

fn client_of(cluster: &quorate_tests::cluster::Cluster) -> quorate_tests::client::Client {
    cluster.node(2).client()
}

/// From the kill to the first decision on a request sent after it.
fn outage(history: &History, killed_at: Instant) -> Duration {
    let after = history.records.iter().filter(|record| record.started >= killed_at && record.is_decided());
    after.map(|record| record.ended).min().expect("requests were decided after the kill") - killed_at
}

/// Every admission that a client knows of is in the count, and what is in the count was asked for.
fn assert_accounted(history: &History, used: u64) {
    let (admitted, unknown) = (history.admitted(), history.unknown());
    assert!(admitted <= used, "{admitted} admitted, but only {used} counted");
    assert!(used <= admitted + unknown, "{used} counted, but only {admitted} admitted and {unknown} unknown");
    assert!(history.count(Outcome::Denied) > 0);
}

fn at_least(count: u64, wanted: u64) -> Result<(), String> {
    if count >= wanted { Ok(()) } else { Err(format!("{count} of {wanted}")) }
}
