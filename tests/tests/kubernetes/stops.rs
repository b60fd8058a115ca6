//! An operator that ends before and after its writes, again and again, and is started again each time: what was wanted
//! comes about all the same.

use std::fs::{File, read_to_string, write};
use std::path::Path;
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt as _;
use kube::api::{Patch, PatchParams};
use quorate_tests::cluster::{eventually, figure};
use quorate_tests::kubernetes::lab::Lab;
use quorate_tests::kubernetes::objects::{cluster, next_version, policy};
use quorate_tests::kubernetes::space::Space;
use quorate_tests::kubernetes::stop_at_write::EXIT_CODE;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use serde_json::{Value, json};
use tokio::process::Command;

const PATIENCE: Duration = Duration::from_mins(5);
/// So many points are taken, unless `STOP_AT` is `all`; which ones, a seed says, which may be set there.
const POINTS: usize = 8;

/// What came of a cluster's life.
struct Life {
    /// How it stood after each change.
    stages: Vec<Value>,
    /// The points that the operator came to, in order.
    passed: Vec<String>,
    /// Those at which it ended.
    stopped: Vec<String>,
    took: Duration,
}

pub async fn operator_that_ends_at_its_writes_brings_about_the_same(lab: &Lab) {
    lab.install_operator().await;
    let deployment = "--namespace quorate-system scale deployment quorate-operator --replicas";
    lab.kubectl(&format!("{deployment} 0"));
    lab.kubectl("--namespace quorate-system wait --for=delete pod --selector app.kubernetes.io/name=quorate-operator --timeout=60s");

    let clean = live(lab, "clean", &[]).await;
    let writes = clean.passed.iter().filter_map(|point| point.strip_prefix("after "));
    println!("writes of an operator that nothing happens to, in {:.0} s:", clean.took.as_secs_f64());
    for what in writes.clone() {
        println!("  {what}");
    }

    let points = choose(&clean.passed);
    let stopped = live(lab, "stops", &points).await;
    assert_eq!(stopped.stopped.len(), points.len(), "it ended once at each of {points:#?}: {:#?}", stopped.stopped);
    assert!(points.iter().all(|point| stopped.stopped.contains(point)), "{points:#?}: {:#?}", stopped.stopped);
    assert_eq!(stopped.stages, clean.stages, "the same comes about");
    figure(&format!(
        "an operator that ended at {} of the {} points before and after its {} writes, from founding to deletion: the same \
         in {:.0} s, {:.0} s without",
        points.len(),
        clean.passed.len(),
        writes.count(),
        stopped.took.as_secs_f64(),
        clean.took.as_secs_f64()
    ));
    lab.kubectl(&format!("{deployment} 1"));
    lab.kubectl("--namespace quorate-system rollout status deployment quorate-operator --timeout 60s");
}

/// The points to end at.
fn choose(points: &[String]) -> Vec<String> {
    let at = std::env::var("STOP_AT").unwrap_or_else(|_| rand::random::<u32>().to_string());
    let chosen: Vec<String> = if at == "all" {
        points.to_vec()
    } else {
        let seed = at.parse().unwrap_or_else(|_| panic!("STOP_AT: {at:?} is neither a seed nor \"all\""));
        points.sample(&mut StdRng::seed_from_u64(seed), POINTS).cloned().collect()
    };
    println!("STOP_AT={at}: it ends");
    for point in &chosen {
        println!("  {point}");
    }
    chosen
}

/// A cluster from founding to deletion, with an operator of its own that ends at these points.
async fn live(lab: &Lab, name: &str, points: &[String]) -> Life {
    let space = lab.space(name).await;
    let folder = tempfile::tempdir().unwrap();
    write(folder.path().join("at"), points.join("\n")).unwrap();
    let started = Instant::now();
    let stages = tokio::select! {
        stages = stages(&space) => stages,
        // It runs on for as long as it ends by order only.
        ended = operate(name, folder.path()) => panic!("{ended}"),
    };
    let mut passed: Vec<String> = vec![];
    for point in lines(folder.path(), "passed") {
        // Each process notes it anew.
        if !passed.contains(&point) {
            passed.push(point);
        }
    }
    Life { stages, passed, stopped: lines(folder.path(), "stopped"), took: started.elapsed() }
}

fn lines(folder: &Path, file: &str) -> Vec<String> {
    read_to_string(folder.join(file)).unwrap_or_default().lines().map(ToOwned::to_owned).collect()
}

/// Starts the operator again each time that it ends at a point; says so if it ends otherwise.
async fn operate(namespace: &str, folder: &Path) -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_quorate-operator-that-stops"));
    loop {
        let log = folder.join("log");
        let mut process = Command::new(program);
        process.args(["--leader-election", "false", "--metrics-port", "0", "--watch-namespaces", namespace]);
        process.env("STOPS", folder).stderr(File::create(&log).unwrap()).kill_on_drop(true);
        let ended = process.status().await.unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        if ended.code() != Some(EXIT_CODE) {
            return format!("the operator ended by itself: {ended}\n{}", read_to_string(log).unwrap_or_default());
        }
    }
}

async fn stages(space: &Space<'_>) -> Vec<Value> {
    space.apply(&cluster("edge", 1)).await;
    space.apply(&policy("clients", "edge", "client", 100, "1m")).await;
    space.until_steady(PATIENCE, "edge").await;
    let mut stages = vec![stage(space).await];
    for (spec, replicas) in
        [(json!({"replicas": 3}), 3), (json!({"version": next_version()}), 3), (json!({"replicas": 1}), 1)]
    {
        let (clusters, patch) = (space.resources("RateLimitCluster"), Patch::Merge(json!({ "spec": spec })));
        clusters.patch("edge", &PatchParams::default(), &patch).await.unwrap_or_else(|error| panic!("{error}"));
        space.until_steady(PATIENCE, "edge").await;
        let stage = stage(space).await;
        assert_eq!(stage["voters"], json!({"desired": replicas, "current": replicas, "healthy": replicas}), "{spec}");
        stages.push(stage);
    }
    space.delete("RateLimitCluster", "edge").await;
    eventually(PATIENCE, "pods and claims to be gone", async || {
        let (pods, claims) = (space.pods("edge").await.len(), space.claims("edge").await.len());
        if pods + claims == 0 { Ok(()) } else { Err(format!("{pods} pods, {claims} claims")) }
    })
    .await;
    space.until_condition(PATIENCE, ("QuotaPolicy", "clients"), "Accepted", "False").await;
    stages
}

/// How the cluster stands once its policy is in force, but for names and times that are new each time.
async fn stage(space: &Space<'_>) -> Value {
    space.until_condition(PATIENCE, ("QuotaPolicy", "clients"), "Enforced", "True").await;
    let all = |object: &Value| match &object["status"]["policies"]["enforced"] {
        text if text == "1/1" => Ok(()),
        other => Err(other.to_string()),
    };
    space.until(PATIENCE, ("RateLimitCluster", "edge"), "to say that its policy is in force", all).await;
    let status = space.get("RateLimitCluster", "edge").await.unwrap()["status"].clone();
    let set = space.api::<StatefulSet>().get("edge").await.unwrap();
    let budget = space.api::<PodDisruptionBudget>().get_opt("edge").await.unwrap();
    let pods = space.pods("edge").await.into_iter().map(|pod| {
        let image = pod.spec.as_ref().unwrap().containers[0].image.clone();
        json!({"pod": pod.name_any(), "image": image})
    });
    let claims = space.claims("edge").await.into_iter().map(|claim| {
        let owners: Vec<_> = claim.owner_references().iter().map(|owner| owner.kind.clone()).collect();
        json!({"claim": claim.name_any(), "owners": owners})
    });
    json!({
        "voters": status["voters"],
        "replicas": set.spec.replicas,
        "available": budget.and_then(|budget| budget.spec?.min_available),
        "pods": pods.collect::<Vec<_>>(),
        "claims": claims.collect::<Vec<_>>(),
    })
}
