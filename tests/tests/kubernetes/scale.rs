//! More pods, fewer pods, and another version, while clients ask.

use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{Patch, PatchParams};
use quorate_tests::client::Client;
use quorate_tests::cluster::{eventually, figure};
use quorate_tests::kubernetes::clients::Clients;
use quorate_tests::kubernetes::lab::Lab;
use quorate_tests::kubernetes::objects::{VERSION, has_condition, next_version};
use quorate_tests::kubernetes::space::Space;
use quorate_tests::kubernetes::watcher::Watcher;
use serde_json::{Value, json};

/// Two pods start, catch up, and leave one after the other, each after a drain of ten seconds.
const PATIENCE: Duration = Duration::from_mins(4);
/// Far more than the clients come to: only what is admitted goes through the log.
const QUOTA: u64 = 1_000_000;

async fn change(space: &Space<'_>, spec: &Value) {
    let patch = Patch::Merge(json!({ "spec": spec }));
    let changed = space.resources("RateLimitCluster").patch("edge", &PatchParams::default(), &patch).await;
    changed.unwrap_or_else(|error| panic!("{error}"));
}

pub async fn three_to_five_to_three_under_load_disturbs_nobody(lab: &Lab) {
    let space = lab.three("scale", "load", QUOTA, PATIENCE).await;
    let watcher = Watcher::start(&space, "edge").await;
    let clients = Clients::increments(space.service("edge").await, "load").start();

    let started = Instant::now();
    change(&space, &json!({"replicas": 5})).await;
    space.until_steady(PATIENCE, "edge").await;
    let up = started.elapsed();
    assert_eq!(voters(&space).await, json!({"desired": 5, "current": 5, "healthy": 5}));

    let started = Instant::now();
    change(&space, &json!({"replicas": 3})).await;
    space.until_steady(PATIENCE, "edge").await;
    let down = started.elapsed();
    assert_eq!(voters(&space).await, json!({"desired": 3, "current": 3, "healthy": 3}));

    let (tally, seen) = (clients.stop().await, watcher.stop().await);
    figure(&format!(
        "3 to 5 pods in {:.0} s, back to 3 in {:.0} s: {tally}; never fewer than {:?} voters in {} looks",
        up.as_secs_f64(),
        down.as_secs_f64(),
        seen.voters_min,
        seen.looks
    ));
    tally.assert_undisturbed(QUOTA, remaining(&space).await);
    assert!(seen.voters_min >= Some(3), "{seen:?}");
    let operations: Vec<_> = seen.operations.iter().map(|(operation, _)| operation.as_str()).collect();
    assert!(operations.starts_with(&["ScaleUp", "ScaleDown edge-4"]), "{operations:?}");
    // Claims of members that left go, as the retention's default says.
    eventually(PATIENCE, "the claims of those that left to be gone", async || match space.claims("edge").await.len() {
        3 => Ok(()),
        claims => Err(format!("{claims} claims")),
    })
    .await;
}

pub async fn three_to_one_to_three_under_load_disturbs_nobody(lab: &Lab) {
    let space = lab.three("single", "load", QUOTA, PATIENCE).await;
    let clients = Clients::increments(space.service("edge").await, "load").start();
    let budgets = space.api::<PodDisruptionBudget>();

    let started = Instant::now();
    change(&space, &json!({"replicas": 1})).await;
    space.until_steady(PATIENCE, "edge").await;
    let down = started.elapsed();
    assert_eq!(voters(&space).await, json!({"desired": 1, "current": 1, "healthy": 1}));
    assert!(budgets.get_opt("edge").await.unwrap().is_none(), "a single pod must not stand in the way of a drain");

    let started = Instant::now();
    change(&space, &json!({"replicas": 3})).await;
    space.until_steady(PATIENCE, "edge").await;
    let up = started.elapsed();
    assert_eq!(voters(&space).await, json!({"desired": 3, "current": 3, "healthy": 3}));
    assert!(budgets.get_opt("edge").await.unwrap().is_some());

    let tally = clients.stop().await;
    figure(&format!("3 pods to 1 in {:.0} s, back to 3 in {:.0} s: {tally}", down.as_secs_f64(), up.as_secs_f64()));
    tally.assert_undisturbed(QUOTA, remaining(&space).await);
}

pub async fn version_without_an_image_stops_at_one_pod_and_is_taken_back(lab: &Lab) {
    const NO_IMAGE: &str = "0.404.0";
    let space = lab.three("no-image", "load", QUOTA, PATIENCE).await;
    let before = space.pod_uids("edge").await;
    let clients = Clients::increments(space.service("edge").await, "load").start();

    let started = Instant::now();
    change(&space, &json!({"version": NO_IMAGE, "rollout": {"progressDeadline": "30s"}})).await;
    let edge = ("RateLimitCluster", "edge");
    let message = space.until_reason(PATIENCE, edge, "Degraded", ("True", "RolloutStalled")).await;
    let told = started.elapsed();
    let pods = space.pods("edge").await;
    let without = pods.iter().filter(|pod| image(pod).ends_with(NO_IMAGE)).count();
    assert_eq!(without, 1, "a version that does not run stops at its first pod");
    has_condition(&space.get("RateLimitCluster", "edge").await.unwrap(), "QuorumHealthy", "True").unwrap();

    let started = Instant::now();
    change(&space, &json!({"version": VERSION})).await;
    space.until_steady(PATIENCE, "edge").await;
    let back = started.elapsed();
    assert!(space.pods("edge").await.iter().all(|pod| image(pod).ends_with(VERSION)));
    let after = space.pod_uids("edge").await;
    let left_alone = before.iter().zip(&after).filter(|(before, after)| before == after).count();
    assert_eq!(left_alone, 2, "only the pod that did not start was replaced");

    let tally = clients.stop().await;
    figure(&format!(
        "a version without an image: told after {:.0} s ({message}), taken back in {:.0} s: {tally}",
        told.as_secs_f64(),
        back.as_secs_f64()
    ));
    tally.assert_undisturbed(QUOTA, remaining(&space).await);
}

pub async fn new_version_under_load_disturbs_nobody_and_takes_the_leader_last(lab: &Lab) {
    let space = lab.three("rollout", "load", QUOTA, PATIENCE).await;
    let watcher = Watcher::start(&space, "edge").await;
    let clients = Clients::increments(space.service("edge").await, "load").start();

    let started = Instant::now();
    change(&space, &json!({"version": next_version()})).await;
    space.until_steady(PATIENCE, "edge").await;
    let took = started.elapsed();
    for pod in space.pods("edge").await {
        assert!(image(&pod).ends_with(&format!(":{}", next_version())), "{}", image(&pod));
    }

    let (tally, seen) = (clients.stop().await, watcher.stop().await);
    figure(&format!(
        "three pods rolled to a new image in {:.0} s: {tally}; never fewer than {:?} voters in {} looks; order {:?}, \
         leaders by term {:?}",
        took.as_secs_f64(),
        seen.voters_min,
        seen.looks,
        seen.operations,
        seen.leaders
    ));
    tally.assert_undisturbed(QUOTA, remaining(&space).await);
    assert!(seen.voters_min >= Some(3), "{seen:?}");
    let replaced: Vec<_> = seen.operations.iter().filter(|(what, _)| what.starts_with("ReplacePod")).collect();
    assert_eq!(replaced.len(), 3, "{seen:?}");
    for (at, (what, leader)) in replaced.iter().enumerate() {
        let takes_the_leader = *what == format!("ReplacePod {leader}");
        assert_eq!(takes_the_leader, at == 2, "the leader goes last: {seen:?}");
    }
    assert_eq!(seen.leaders.len(), 2, "leadership moves once: {seen:?}");
}

pub async fn statefulset_scaled_by_hand_is_put_right(lab: &Lab) {
    let space = lab.three("by-hand", "load", QUOTA, PATIENCE).await;
    let before = space.pod_uids("edge").await;
    let sets = space.api::<StatefulSet>();
    space.kubectl("scale statefulset edge --replicas 2");
    let replicas = async || sets.get("edge").await.unwrap().spec.replicas;
    eventually(PATIENCE, "the StatefulSet to have its three pods back", async || match replicas().await {
        Some(3) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    space.until_steady(PATIENCE, "edge").await;
    assert_eq!(voters(&space).await["current"], 3);
    assert_eq!(space.pod_uids("edge").await[..2], before[..2], "the others were left alone");
    space.kubectl("scale statefulset edge --replicas 4");
    eventually(PATIENCE, "the fourth pod to have left", async || {
        let (pods, replicas) = (space.pods("edge").await.len(), replicas().await);
        if pods == 3 && replicas == Some(3) { Ok(()) } else { Err(format!("{pods} pods, replicas {replicas:?}")) }
    })
    .await;
    space.until_steady(PATIENCE, "edge").await;
    assert_eq!(voters(&space).await["current"], 3);
}

async fn remaining(space: &Space<'_>) -> u64 {
    let check = Client::new(space.service("edge").await).check("load").await;
    check.unwrap_or_else(|error| panic!("{error}")).remaining_quota.expect("a policy applies")
}

async fn voters(space: &Space<'_>) -> Value {
    space.get("RateLimitCluster", "edge").await.unwrap()["status"]["voters"].clone()
}

fn image(pod: &Pod) -> String {
    pod.spec.as_ref().unwrap().containers[0].image.clone().unwrap_or_default()
}
