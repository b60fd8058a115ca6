//! SIGTERM: a node leaves without a request failing.

use std::time::Instant;

use quorate_tests::client::{Outcome, limit, policy};
use quorate_tests::cluster::{PATIENCE, Plan, Signal, eventually, figure};
use quorate_tests::load::Load;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn leader_drained_under_load_another_leads_no_request_fails_and_it_ends_well() {
    let cluster = Plan::of(3).alone().set("DRAIN_DELAY", "3s").start().await;
    let quota = policy("drained", "drain", &json!([limit("FixedWindow", 100_000_000, "24h")]));
    cluster.node(0).admin_client().put_policy(&quota).await.unwrap();
    let leader = cluster.leader().await;
    let draining = cluster.node(leader);
    let term = draining.client().cluster_status().await.unwrap().term;
    let running = Load { connections: 12, ..Load::increments(cluster.addresses(), "drain") }.start();
    eventually(PATIENCE, "requests are admitted", async || more_than(running.admitted(), 500)).await;

    draining.signal(Signal::TERM);
    let asked = Instant::now();
    eventually(PATIENCE, "it is not ready at once", async || {
        let answer = draining.client().get("/ready").await.map_err(|error| error.to_string())?;
        if answer.status == 503 { Ok(()) } else { Err(answer.text()) }
    })
    .await;
    // Whoever has not heard yet still gets decisions, and is asked to go elsewhere.
    for _ in 0..20 {
        let mut client = draining.client();
        let answer = client.post("/rate/increment?client_id=drain", &serde_json::Value::Null).await.unwrap();
        assert_eq!(Outcome::of(&answer), Outcome::Admitted, "{}", answer.text());
        assert_eq!(answer.header("connection"), "close");
    }
    let status = draining.ended(PATIENCE).await;
    let took = asked.elapsed();
    assert!(status.success(), "{status:?}");
    let enough = running.admitted() + 500;
    eventually(PATIENCE, "the load goes on", async || more_than(running.admitted(), enough)).await;
    let history = running.stop().await;
    assert_eq!(history.unknown(), 0, "{:?}", history.problems());
    let left = cluster.node((leader + 1) % 3).client().check("drain").await.unwrap().remaining_quota.unwrap();
    assert_eq!(100_000_000 - left, history.admitted() + 20, "each admission is counted once");
    let after = cluster.node((leader + 1) % 3).client().cluster_status().await.unwrap();
    assert_eq!((after.members.len(), after.count("Voter")), (3, 3), "a drained node stays a member");
    // Handed over: one new term. An election after a silence may need several.
    assert_eq!(after.term, term + 1);
    let slowest = history.records.iter().map(|record| record.ended - record.started).max().unwrap();
    figure(&format!(
        "SIGTERM of the leader under load: {} requests, none failed, the slowest took {slowest:.2?}; it ended after {took:.1?}",
        history.records.len()
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_drained_in_turn_the_cluster_decides_all_the_time() {
    let cluster = Plan::of(3).alone().set("DRAIN_DELAY", "1s").set("DEFAULT_LIMIT", "100000000/24h").start().await;
    let running = Load { connections: 6, ..Load::increments(cluster.addresses(), "rolled") }.start();
    for node in cluster.nodes() {
        node.stop().await;
        node.start();
        node.ready().await;
    }
    let history = running.stop().await;
    assert_eq!(history.unknown(), 0, "{:?}", history.problems());
    let left = cluster.node(0).client().check("rolled").await.unwrap().remaining_quota.unwrap();
    assert_eq!(100_000_000 - left, history.admitted());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_voters_decommissioned_under_load_sends_its_clients_away_first_and_no_request_fails() {
    let cluster = Plan::of(2).alone().set("DRAIN_DELAY", "2s").set("DEFAULT_LIMIT", "100000000/24h").start().await;
    let leader = cluster.leader().await;
    let (leaving, stays) = (cluster.node(leader), cluster.node(1 - leader));
    let members = stays.client().cluster_status().await.unwrap().members;
    let id = members.iter().find(|member| member.name == leaving.name()).unwrap().id.clone();
    let first = Load { connections: 6, ..Load::increments(cluster.addresses(), "leaves") }.start();
    eventually(PATIENCE, "requests are admitted", async || more_than(first.admitted(), 500)).await;

    assert_eq!(stays.admin_client().decommission(&id).await.unwrap().status, 202);
    eventually(PATIENCE, "it says that it is not ready, and why", async || {
        let answer = leaving.client().get("/ready").await.map_err(|error| error.to_string())?;
        let reason = answer.text();
        if reason.contains("to leave its cluster") { Ok(()) } else { Err(reason) }
    })
    .await;
    eventually(PATIENCE, "it asks its clients to go elsewhere", async || {
        let answer = leaving.client().get("/rate/check?client_id=leaves").await.map_err(|error| error.to_string())?;
        assert_eq!(answer.status, 200, "it still answers: {}", answer.text());
        if answer.header("connection") == "close" { Ok(()) } else { Err("it asks nobody to go".to_owned()) }
    })
    .await;
    let status = stays.client().cluster_status().await.unwrap();
    assert_eq!(status.members.len(), 2, "it is still a member");
    // What a Service does with a pod that is not ready.
    let second = Load { connections: 6, ..Load::increments(vec![stays.data()], "leaves") }.start();
    let mut history = first.stop().await;
    eventually(PATIENCE, "it has left", async || {
        let status = stays.client().cluster_status().await?;
        if status.members.len() == 1 { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
    let enough = second.admitted() + 500;
    eventually(PATIENCE, "the load goes on", async || more_than(second.admitted(), enough)).await;
    history.records.extend(second.stop().await.records);
    assert_eq!(history.unknown(), 0, "{:?}", history.problems());
    let left = stays.client().check("leaves").await.unwrap().remaining_quota.unwrap();
    assert_eq!(100_000_000 - left, history.admitted(), "each admission is counted once");
    let slowest = history.records.iter().map(|record| record.ended - record.started).max().unwrap();
    figure(&format!(
        "the leader of two voters decommissioned under load: {} requests, none failed, the slowest took {slowest:.2?}",
        history.records.len()
    ));
}

fn more_than(count: u64, wanted: u64) -> Result<(), String> {
    if count > wanted { Ok(()) } else { Err(format!("{count} of {wanted}")) }
}
