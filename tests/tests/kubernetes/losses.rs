//! Pods, processes, nodes and disks that go: the quorum stays, counters stay exact, and all becomes as it was.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::DeleteParams;
use quorate_tests::client::{Client, Outcome};
use quorate_tests::cluster::{eventually, figure};
use quorate_tests::kubernetes::lab::Lab;
use quorate_tests::kubernetes::objects::{cluster, has_condition, policy};
use quorate_tests::kubernetes::space::Space;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_mins(4);
const QUOTA: u64 = 100;

/// Does something to a pod.
type Lose = fn(&Space<'_>, &str);

async fn leader(space: &Space<'_>) -> String {
    space.get("RateLimitCluster", "edge").await.unwrap()["status"]["leader"].as_str().unwrap_or_default().to_owned()
}

/// Takes some of the quota, each with an answer.
async fn take(space: &Space<'_>, hits: u64) {
    let service = space.service("edge").await;
    for _ in 0..hits {
        let outcome = eventually(PATIENCE, "an answer", async || {
            // A connection of its own each time: the pod behind the last one may be gone.
            match Client::new(service).increment("counted").await {
                outcome @ (Outcome::Admitted | Outcome::Denied) => Ok(outcome),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        assert_eq!(outcome, Outcome::Admitted);
    }
}

pub async fn pods_processes_and_nodes_lost_leave_quorum_and_counters(lab: &Lab) {
    let space = lab.three("losses", "counted", QUOTA, PATIENCE).await;
    let lost: [(&str, Lose); 4] = [
        ("deleted", |space, pod| drop(space.kubectl(&format!("delete pod {pod} --wait=false")))),
        ("force-deleted", |space, pod| drop(space.kubectl(&format!("delete pod {pod} --grace-period=0 --force")))),
        ("killed", |space, pod| drop(space.lab.machine(&format!("kill-pod {} {pod}", space.name())))),
        ("drained", |space, pod| {
            let node = space.kubectl(&format!("get pod {pod} --output jsonpath={{.spec.nodeName}}"));
            space.lab.kubectl(&format!(
                "drain {node} --ignore-daemonsets --delete-emptydir-data --timeout=90s --pod-selector app.kubernetes.io/instance=edge"
            ));
            space.lab.kubectl(&format!("uncordon {node}"));
        }),
    ];
    for (how, lose) in lost {
        // The leader, which is the hardest to do without.
        let pod = leader(&space).await;
        let before = space.api::<Pod>().get(&pod).await.unwrap();
        let started = Instant::now();
        lose(&space, &pod);
        take(&space, 5).await;
        eventually(PATIENCE, "another container", async || match space.api::<Pod>().get_opt(&pod).await.unwrap() {
            Some(now) if started_anew(&before, &now) => Ok(()),
            _ => Err(format!("{pod} is still what it was, or away")),
        })
        .await;
        space.until_steady(PATIENCE, "edge").await;
        figure(&format!("leader's pod {how}: all as before after {:.1} s", started.elapsed().as_secs_f64()));
        assert_eq!(voters(&space).await, 3, "{how}");
    }
    take(&space, QUOTA - 20).await;
    let mut client = Client::new(space.service("edge").await);
    assert_eq!(client.increment("counted").await, Outcome::Denied, "every admission was kept");
}

fn started_anew(before: &Pod, now: &Pod) -> bool {
    let restarts = |pod: &Pod| {
        pod.status.as_ref().and_then(|status| status.container_statuses.as_ref()?.first().map(|c| c.restart_count))
    };
    before.metadata.uid != now.metadata.uid || restarts(now) > restarts(before)
}

pub async fn claim_and_pod_of_each_ordinal_deleted_are_replaced_in_place_under_a_new_id(lab: &Lab) {
    let space = lab.three("disks", "counted", QUOTA, PATIENCE).await;
    take(&space, 40).await;
    for ordinal in 0..3 {
        lab.offer_volumes().await;
        let (pod, claim) = (format!("edge-{ordinal}"), format!("data-edge-{ordinal}"));
        let old = id_of(&space, &pod).await;
        let started = Instant::now();
        // The claim goes once its pod is gone; then both are made anew.
        space.api::<PersistentVolumeClaim>().delete(&claim, &DeleteParams::default()).await.unwrap();
        space.api::<Pod>().delete(&pod, &DeleteParams::default()).await.unwrap();
        let new = eventually(PATIENCE, "a new member in its place", async || {
            let status = space.get("RateLimitCluster", "edge").await.unwrap()["status"].clone();
            let id = id_in(&status, &pod).filter(|id| *id != old).ok_or_else(|| status["members"].to_string())?;
            let members = status["members"].as_array().map_or(0, Vec::len);
            if members == 3 { Ok(id) } else { Err(status["members"].to_string()) }
        })
        .await;
        space.until_steady(PATIENCE, "edge").await;
        figure(&format!(
            "claim and pod {ordinal} deleted: {old} replaced by {new} after {:.1} s",
            started.elapsed().as_secs_f64()
        ));
        assert_eq!(voters(&space).await, 3);
    }
    take(&space, QUOTA - 40).await;
    assert_eq!(Client::new(space.service("edge").await).increment("counted").await, Outcome::Denied);
}

pub async fn operator_away_leaves_decisions_alone_and_goes_on_when_it_is_back(lab: &Lab) {
    let space = lab.three("away", "counted", QUOTA, PATIENCE).await;
    let deployment = "--namespace quorate-system scale deployment quorate-operator --replicas";
    lab.kubectl(&format!("{deployment} 0"));
    eventually(PATIENCE, "the operator to be gone", async || {
        let pods = lab.kubectl("--namespace quorate-system get pods --output name");
        if pods.trim().is_empty() { Ok(()) } else { Err(pods) }
    })
    .await;
    space.kubectl(&format!("delete pod {} --wait=false", leader(&space).await));
    take(&space, 20).await;
    lab.kubectl(&format!("{deployment} 1"));
    lab.kubectl("--namespace quorate-system rollout status deployment quorate-operator --timeout 60s");
    space.until_steady(PATIENCE, "edge").await;
}

pub async fn cluster_created_again_over_its_claims_has_its_counters(lab: &Lab) {
    lab.install_operator().await;
    let space = lab.space("again").await;
    let mut kept = cluster("edge", 3);
    kept["spec"]["storage"]["retention"]["onDelete"] = "Retain".into();
    space.apply(&kept).await;
    space.apply(&policy("counted", "edge", "counted", QUOTA, "24h")).await;
    space.until_steady(PATIENCE, "edge").await;
    space.until_condition(PATIENCE, ("QuotaPolicy", "counted"), "Enforced", "True").await;
    take(&space, QUOTA).await;
    let id = cluster_id(&space).await;
    space.delete("RateLimitCluster", "edge").await;
    eventually(PATIENCE, "the pods to be gone", async || match space.pods("edge").await.len() {
        0 => Ok(()),
        pods => Err(format!("{pods} pods")),
    })
    .await;
    space.apply(&kept).await;
    space.until_steady(PATIENCE, "edge").await;
    assert_eq!(cluster_id(&space).await, id, "it is the cluster that it was");
    assert_eq!(Client::new(space.service("edge").await).increment("counted").await, Outcome::Denied);
    for claim in space.claims("edge").await {
        let name = claim.metadata.name.unwrap_or_default();
        space.kubectl(&format!("annotate --overwrite persistentvolumeclaim {name} quorate.dev/cluster-id={name}"));
    }
    space
        .until(PATIENCE, ("RateLimitCluster", "edge"), "to call the claims foreign", |object| {
            has_condition(object, "Degraded", "True")?;
            let said = object["status"]["conditions"].to_string();
            if said.contains("ForeignClaims") { Ok(()) } else { Err(said) }
        })
        .await;
    assert_eq!(space.pods("edge").await.len(), 3, "nothing is touched");
}

async fn voters(space: &Space<'_>) -> Value {
    space.get("RateLimitCluster", "edge").await.unwrap()["status"]["voters"]["current"].clone()
}

async fn cluster_id(space: &Space<'_>) -> Value {
    space.get("RateLimitCluster", "edge").await.unwrap()["status"]["clusterId"].clone()
}

async fn id_of(space: &Space<'_>, pod: &str) -> String {
    let status = space.get("RateLimitCluster", "edge").await.unwrap()["status"].clone();
    id_in(&status, pod).unwrap_or_else(|| panic!("{pod} is no member: {status}"))
}

fn id_in(status: &Value, pod: &str) -> Option<String> {
    let member = status["members"].as_array()?.iter().find(|member| member["pod"] == pod)?;
    member["id"].as_str().map(ToOwned::to_owned)
}
