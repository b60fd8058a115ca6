//! Pods, processes, nodes and disks that go: the quorum stays, counters stay exact, and all becomes as it was.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::Api;
use kube::api::DeleteParams;
use quorate_tests::client::{Client, Outcome};
use quorate_tests::cluster::{eventually, figure};
use quorate_tests::kubernetes::lab::{HELM_UPGRADE, Lab};
use quorate_tests::kubernetes::objects::{cluster, has_condition};
use quorate_tests::kubernetes::rights::{NAMESPACE, OPERATOR};
use quorate_tests::kubernetes::space::Space;
use quorate_tests::kubernetes::watcher::Watcher;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_mins(4);
const QUOTA: u64 = 100;

/// Does something to a pod.
type Lose = fn(&Space<'_>, &str);

async fn leader(space: &Space<'_>) -> String {
    space.get("RateLimitCluster", "edge").await.unwrap()["status"]["leader"].as_str().unwrap_or_default().to_owned()
}

/// Takes so much of the quota, each hit admitted in the end. Returns how many tries were not answered: each may have been
/// charged all the same.
async fn take(space: &Space<'_>, hits: u64) -> u64 {
    let service = space.service("edge").await;
    let mut unknown = 0;
    for _ in 0..hits {
        let outcome = eventually(PATIENCE, "an answer", async || {
            // A connection of its own each time: the pod behind the last one may be gone.
            match Client::new(service).increment("counted").await {
                outcome @ (Outcome::Admitted | Outcome::Denied) => Ok(outcome),
                other => {
                    unknown += 1;
                    Err(format!("{other:?}"))
                }
            }
        })
        .await;
        assert_eq!(outcome, Outcome::Admitted);
    }
    unknown
}

/// Asserts that all that was admitted is gone from the quota, and of what was not answered at most all: the rest is
/// there, and no more.
async fn assert_exact(space: &Space<'_>, admitted: u64, unknown: u64) {
    let mut client = Client::new(space.service("edge").await);
    let check = client.check("counted").await.unwrap_or_else(|error| panic!("{error}"));
    let left = check.remaining_quota.expect("a policy applies");
    let most = QUOTA - admitted;
    assert!(
        (most.saturating_sub(unknown)..=most).contains(&left),
        "{left} left of {QUOTA}, {admitted} admitted, {unknown} unknown"
    );
    for _ in 0..left {
        assert_eq!(client.increment("counted").await, Outcome::Admitted);
    }
    assert_eq!(client.increment("counted").await, Outcome::Denied, "every admission was kept");
}

pub async fn pods_processes_and_nodes_lost_leave_quorum_and_counters(lab: &Lab) {
    let space = lab.three("losses", "counted", QUOTA, PATIENCE).await;
    assert_eq!(nodes(&space).await.len(), 3, "each pod is on a node of its own: {:?}", nodes(&space).await);
    let lost: [(&str, Lose); 4] = [
        ("deleted", |space, pod| drop(space.kubectl(&format!("delete pod {pod} --wait=false")))),
        ("force-deleted", |space, pod| drop(space.kubectl(&format!("delete pod {pod} --grace-period=0 --force")))),
        ("killed", |space, pod| drop(space.lab.machine(&format!("kill-pod {} {pod}", space.name())))),
        ("drained", |space, pod| {
            let node = space.kubectl(&format!("get pod {pod} --output jsonpath={{.spec.nodeName}}"));
            // As everybody drains: all that is on it goes, the operator too if it is there.
            space.lab.kubectl(&format!("drain {node} --ignore-daemonsets --delete-emptydir-data --timeout=90s"));
        }),
    ];
    let watcher = Watcher::start(&space, "edge").await;
    let (mut admitted, mut unknown) = (0, 0);
    for (how, lose) in lost {
        // The leader, which is the hardest to do without.
        let pod = leader(&space).await;
        let before = space.api::<Pod>().get(&pod).await.unwrap();
        let started = Instant::now();
        lose(&space, &pod);
        unknown += take(&space, 5).await;
        admitted += 5;
        let decided = started.elapsed();
        // Its volume is on its node, so there it comes back.
        lab.kubectl("uncordon node1 node2 node3");
        eventually(PATIENCE, "another container", async || match space.api::<Pod>().get_opt(&pod).await.unwrap() {
            Some(now) if started_anew(&before, &now) => Ok(()),
            _ => Err(format!("{pod} is still what it was, or away")),
        })
        .await;
        space.until_steady(PATIENCE, "edge").await;
        figure(&format!(
            "leader's pod {how}: five more decisions after {:.1} s, all as before after {:.1} s",
            decided.as_secs_f64(),
            started.elapsed().as_secs_f64()
        ));
        assert_eq!(voters(&space).await, 3, "{how}");
    }
    let seen = watcher.stop().await;
    assert!(seen.voters_min >= Some(3), "{seen:?}");
    assert_exact(&space, admitted, unknown).await;
    figure(&format!(
        "after these four losses: the counter exact, {unknown} requests not answered, never fewer than three voters in {} looks",
        seen.looks
    ));
}

/// The nodes that its pods are on.
async fn nodes(space: &Space<'_>) -> BTreeSet<String> {
    space.pods("edge").await.into_iter().filter_map(|pod| pod.spec?.node_name).collect()
}

fn started_anew(before: &Pod, now: &Pod) -> bool {
    let restarts = |pod: &Pod| {
        pod.status.as_ref().and_then(|status| status.container_statuses.as_ref()?.first().map(|c| c.restart_count))
    };
    before.metadata.uid != now.metadata.uid || restarts(now) > restarts(before)
}

pub async fn claim_and_pod_of_each_ordinal_deleted_are_replaced_in_place_under_a_new_id(lab: &Lab) {
    let mut edge = cluster("edge", 3);
    // As long as the shortest that is admitted: the scenario waits for it three times.
    edge["spec"]["recovery"]["replaceLostDiskAfter"] = "10s".into();
    let space = lab.founded("disks", &edge, "counted", QUOTA, PATIENCE).await;
    let unknown = take(&space, 40).await;
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
    assert_exact(&space, 40, unknown).await;
}

pub async fn operator_away_leaves_decisions_alone_and_goes_on_when_it_is_back(lab: &Lab) {
    let space = lab.three("away", "counted", QUOTA, PATIENCE).await;
    let deployment = "--namespace quorate-system scale deployment quorate-operator --replicas";
    lab.kubectl(&format!("{deployment} 0"));
    lab.kubectl("--namespace quorate-system wait --for=delete pod --selector app.kubernetes.io/name=quorate-operator --timeout=60s");
    let before = space.pod_uids("edge").await;
    space.kubectl(&format!("delete pod {} --wait=false", leader(&space).await));
    let unknown = take(&space, 20).await;
    // A replica that nobody asked for, and nobody to put that right.
    space.kubectl("scale statefulset edge --replicas 4");
    eventually(PATIENCE, "the pod to be back", async || {
        let now = space.pod_uids("edge").await;
        if now.len() == 4 && !before.iter().all(|uid| now.contains(uid)) { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
    lab.kubectl(&format!("{deployment} 1"));
    lab.kubectl("--namespace quorate-system rollout status deployment quorate-operator --timeout 60s");
    let back = Instant::now();
    eventually(PATIENCE, "the fourth pod to have left", async || match space.pods("edge").await.len() {
        3 => Ok(()),
        pods => Err(format!("{pods} pods")),
    })
    .await;
    space.until_steady(PATIENCE, "edge").await;
    assert_exact(&space, 20, unknown).await;
    figure(&format!(
        "operator away: decisions went on, {unknown} not answered; put right {:.1} s after it was back",
        back.elapsed().as_secs_f64()
    ));
}

/// How long a lease is kept without being renewed, twice: whoever waits may just have looked.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(30);

pub async fn of_two_operators_the_other_acts_once_the_first_is_deleted_or_killed(lab: &Lab) {
    lab.install_operator().await;
    let space = lab.space("two").await;
    space.apply(&cluster("edge", 1)).await;
    space.until_steady(PATIENCE, "edge").await;
    let before = space.pod_uids("edge").await;
    lab.type_in(&format!("{HELM_UPGRADE} --set replicas=2")).unwrap_or_else(|error| panic!("{error}"));
    let leases = Api::<Lease>::namespaced(lab.client.clone(), NAMESPACE);
    let holder = async || {
        let lease = leases.get(OPERATOR).await.unwrap();
        lease.spec.and_then(|spec| spec.holder_identity).unwrap_or_default()
    };
    for (how, command) in [
        ("deleted", "kubectl --namespace quorate-system delete pod --wait=false"),
        ("killed", "tests/kubernetes/kill-pod quorate-system"),
    ] {
        let first = eventually(PATIENCE, "one to hold the lease", async || {
            let holder = holder().await;
            if holder.is_empty() { Err("nobody".to_owned()) } else { Ok(holder) }
        })
        .await;
        // Its name is its pod's, and something that a process started after it in the same pod has not.
        let pod = first.split('_').next().unwrap_or_default();
        lab.type_in(&format!("{command} {pod}")).unwrap_or_else(|error| panic!("{error}"));
        let started = Instant::now();
        eventually(TAKEN_OVER_WITHIN, "another to hold the lease", async || match holder().await {
            other if other.is_empty() || other == first => Err(other),
            _ => Ok(()),
        })
        .await;
        let taken = started.elapsed();
        space.kubectl(&format!(
            "patch ratelimitcluster edge --type merge --patch {{\"spec\":{{\"allowedNamespaces\":[\"{how}\"]}}}}"
        ));
        let acted = space.until_condition(PATIENCE, ("RateLimitCluster", "edge"), "Ready", "True").await;
        figure(&format!(
            "of two operators the one that acts {how}: another holds the lease after {:.1} s, and acts upon a change in {:.1} s",
            taken.as_secs_f64(),
            acted.as_secs_f64()
        ));
    }
    assert_eq!(space.pod_uids("edge").await, before, "no pod was touched");
    lab.take_rights_away(HELM_UPGRADE).await;
}

pub async fn cluster_created_again_over_its_claims_has_its_counters(lab: &Lab) {
    let mut kept = cluster("edge", 3);
    kept["spec"]["storage"]["retention"]["onDelete"] = "Retain".into();
    let space = lab.founded("again", &kept, "counted", QUOTA, PATIENCE).await;
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
