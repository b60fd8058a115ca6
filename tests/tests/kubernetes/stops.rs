//! An operator that ends before and after its writes, again and again, and is started again each time: what was wanted
//! comes about all the same.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kube::api::{Patch, PatchParams};
use quorate_tests::cluster::{eventually, figure, pause};
use quorate_tests::kubernetes::lab::Lab;
use quorate_tests::kubernetes::objects::{cluster, next_version};
use quorate_tests::kubernetes::space::Space;
use serde_json::{Value, json};
use tokio::process::Command;

const PATIENCE: Duration = Duration::from_mins(5);
/// How the operator ends at a point: `quorate_operator::stop_at_write::EXIT_CODE`.
const STOPPED: i32 = 99;
/// One point of so many is taken, unless `STOP_AT` says otherwise: some eight of them.
const ONE_IN: u64 = 6;

pub async fn operator_that_ends_at_its_writes_brings_about_the_same(lab: &Lab) {
    let at = std::env::var("STOP_AT").unwrap_or_else(|_| format!("{}/{ONE_IN}", rand::random::<u32>()));
    println!("STOP_AT={at}");
    lab.install_operator().await;
    let deployment = "--namespace quorate-system scale deployment quorate-operator --replicas";
    lab.kubectl(&format!("{deployment} 0"));
    lab.kubectl("--namespace quorate-system wait --for=delete pod --selector app.kubernetes.io/name=quorate-operator --timeout=60s");
    let space = lab.space("stops").await;
    let folder = tempfile::tempdir().unwrap();
    let stops = folder.path().join("stops");
    let done = Arc::new(AtomicBool::new(false));
    let program = lab.file("target/debug/quorate-operator-that-stops");
    let operator = {
        let (done, stops, namespace) = (Arc::clone(&done), stops.clone(), space.name().to_owned());
        tokio::spawn(async move {
            let mut ends = 0;
            while !done.load(Ordering::Relaxed) {
                let mut process = Command::new(&program);
                process.args(["--leader-election", "false", "--metrics-port", "0", "--watch-namespaces", &namespace]);
                process.env("STOPS", &stops).env("STOP_AT", &at).stderr(Stdio::null()).kill_on_drop(true);
                let mut process = process.spawn().unwrap_or_else(|error| panic!("{}: {error}", program.display()));
                let ended = loop {
                    tokio::select! {
                        ended = process.wait() => break Some(ended.unwrap()),
                        () = pause(Duration::from_millis(100)) => {
                            if done.load(Ordering::Relaxed) { break None }
                        }
                    }
                };
                if let Some(ended) = ended {
                    assert_eq!(ended.code(), Some(STOPPED), "the operator ended by itself: {ended:?}");
                    ends += 1;
                }
            }
            ends
        })
    };
    let started = Instant::now();
    space.apply(&cluster("edge", 1)).await;
    space.until_steady(PATIENCE, "edge").await;
    for spec in [json!({"replicas": 3}), json!({"version": next_version()}), json!({"replicas": 1})] {
        change(&space, &spec).await;
        let wanted = spec["replicas"].as_u64().unwrap_or(3);
        space.until_steady(PATIENCE, "edge").await;
        let status = space.get("RateLimitCluster", "edge").await.unwrap()["status"].clone();
        assert_eq!(status["voters"], json!({"desired": wanted, "current": wanted, "healthy": wanted}), "{spec}");
    }
    space.delete("RateLimitCluster", "edge").await;
    eventually(PATIENCE, "pods and claims to be gone", async || {
        let (pods, claims) = (space.pods("edge").await.len(), space.claims("edge").await.len());
        if pods + claims == 0 { Ok(()) } else { Err(format!("{pods} pods, {claims} claims")) }
    })
    .await;
    done.store(true, Ordering::Relaxed);
    let ends = operator.await.unwrap();
    let points = std::fs::read_to_string(&stops).unwrap_or_default();
    println!("{points}");
    figure(&format!(
        "an operator that ended {ends} times at its writes, from founding to deletion: the same in {:.0} s",
        started.elapsed().as_secs_f64()
    ));
    assert_eq!(points.lines().count(), ends);
    assert!(ends > 0, "no point was chosen");
    lab.kubectl(&format!("{deployment} 1"));
    lab.kubectl("--namespace quorate-system rollout status deployment quorate-operator --timeout 60s");
}

async fn change(space: &Space<'_>, spec: &Value) {
    let patch = Patch::Merge(json!({ "spec": spec }));
    let changed = space.resources("RateLimitCluster").patch("edge", &PatchParams::default(), &patch).await;
    changed.unwrap_or_else(|error| panic!("{error}"));
}
