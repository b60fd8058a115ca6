//! Policies from apply to delete: in force within a second, proven, and put right when somebody else changes them.

use std::time::{Duration, Instant};

use futures::{StreamExt as _, TryStreamExt as _};
use kube::api::{DeleteParams, ListParams};
use quorate_tests::client::{Client, Outcome};
use quorate_tests::cluster::{eventually, figure, pause};
use quorate_tests::kubernetes::lab::{Lab, PATIENCE};
use quorate_tests::kubernetes::objects::{cluster, has_condition, policy};
use quorate_tests::kubernetes::space::Space;
use serde_json::json;

/// How often a policy is made, changed and deleted.
const ROUNDS: usize = 20;
/// Policies on one cluster.
const MANY: usize = 2000;
/// The most writes of a policy's status when nothing else happens to it.
const STATUS_WRITES_MAX: usize = 2;

pub async fn policy_created_changed_and_deleted_is_in_force_within_a_second(lab: &Lab) {
    lab.install_operator().await;
    let space = lab.space("policies").await;
    furnish(&space).await;
    let mut client = Client::new(space.service("edge").await);
    let (mut created, mut changed, mut deleted) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let (name, id) = (format!("round{round}"), format!("r{round}-client"));
        let started = Instant::now();
        space.apply(&policy(&name, "edge", &format!("r{round}-"), 3, "1h")).await;
        enforced(&space, &name).await;
        created.push(started.elapsed());
        for expected in [Outcome::Admitted, Outcome::Admitted, Outcome::Admitted, Outcome::Denied] {
            assert_eq!(client.increment(&id).await, expected, "round {round}");
        }

        let started = Instant::now();
        space.apply(&policy(&name, "edge", &format!("r{round}-"), 5, "1h")).await;
        enforced(&space, &name).await;
        changed.push(started.elapsed());
        let left = client.check(&id).await.unwrap().remaining_quota;
        assert_eq!(left, Some(2), "of 5 hits 3 were used before the limit was raised; round {round}");

        if round == ROUNDS - 1 {
            println!("$ kubectl get quotapolicies\n{}", space.kubectl("get quotapolicies").trim_end());
            println!(
                "$ kubectl get quotapolicies -o wide\n{}",
                space.kubectl("get quotapolicies --output wide").trim_end()
            );
        }
        let started = Instant::now();
        space.delete("QuotaPolicy", &name).await;
        eventually(PATIENCE, "the policy to be out of force", async || {
            let left = client.check(&id).await?.remaining_quota;
            if left == Some(2) { Err("still counted".to_owned()) } else { Ok(()) }
        })
        .await;
        deleted.push(started.elapsed());
    }
    for (what, outcome, times) in [
        ("created", "in force", &mut created),
        ("changed", "in force", &mut changed),
        ("deleted", "out of force", &mut deleted),
    ] {
        times.sort_unstable();
        let [p50, p95] = [times[ROUNDS / 2], times[ROUNDS * 95 / 100]].map(|time| time.as_millis());
        figure(&format!("QuotaPolicy {what} {ROUNDS} times: {outcome} after {p50} ms (p50), {p95} ms (p95)"));
        assert!(p95 < 1000, "{what}: {times:?}");
    }
    let told = space.get("RateLimitCluster", "edge").await.expect("it is there");
    eprintln!("status.policies of the cluster: {}", told["status"]["policies"]);
}

pub async fn policies_of_other_namespaces_are_admitted_or_refused_as_the_cluster_says(lab: &Lab) {
    lab.install_operator().await;
    let (home, guest, stranger) =
        (lab.space("policies-home").await, lab.space("policies-guest").await, lab.space("policies-stranger").await);
    let mut edge = cluster("edge", 3);
    edge["spec"]["allowedNamespaces"] = json!([guest.name()]);
    home.apply(&edge).await;
    home.until_steady(PATIENCE, "edge").await;
    let mut elsewhere = policy("visitor", "edge", "v-", 2, "1h");
    elsewhere["spec"]["clusterRef"]["namespace"] = home.name().into();
    for space in [&guest, &stranger] {
        space.apply(&elsewhere).await;
    }
    enforced(&guest, "visitor").await;
    let message = refused(&stranger, "visitor", "NamespaceNotAllowed").await;
    assert!(message.contains("allowedNamespaces"), "{message}");

    // Admission given later, and taken back.
    edge["spec"]["allowedNamespaces"] = json!([stranger.name()]);
    home.apply(&edge).await;
    enforced(&stranger, "visitor").await;
    refused(&guest, "visitor", "NamespaceNotAllowed").await;

    // Without a cluster there is nobody to judge by a policy.
    let mut nowhere = policy("nowhere", "none", "n-", 2, "1h");
    home.apply(&nowhere).await;
    refused(&home, "nowhere", "ClusterNotFound").await;
    nowhere["spec"]["clusterRef"]["name"] = "edge".into();
    home.apply(&nowhere).await;
    enforced(&home, "nowhere").await;
    home.delete("RateLimitCluster", "edge").await;
    refused(&home, "nowhere", "ClusterDeleted").await;
    refused(&stranger, "visitor", "ClusterDeleted").await;
}

pub async fn policy_changed_behind_the_operators_back_is_put_right(lab: &Lab) {
    lab.install_operator().await;
    let space = lab.space("policies-drift").await;
    furnish(&space).await;
    for name in ["kept", "other"] {
        space.apply(&policy(name, "edge", name, 2, "1h")).await;
        enforced(&space, name).await;
    }
    let pod = space.pods("edge").await.remove(0).status.and_then(|status| status.pod_ip).unwrap();
    let mut admin = Client::new(format!("{pod}:8180").parse().unwrap());
    let mut data = Client::new(format!("{pod}:8080").parse().unwrap());

    // The API of the operator's own owner: everything it holds is taken away.
    let started = Instant::now();
    let nothing = json!({"owner": "operator", "policies": []});
    let answer = admin.post("/v1/policies:apply", &nothing).await.unwrap();
    assert_eq!(answer.status, 200);
    let path = format!("/v1/policies/{}/kept", space.name());
    eventually(PATIENCE, "the policies to be back", async || match data.get(&path).await {
        Ok(answer) if answer.status == 200 => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    figure(&format!("policies taken away through the admin API: back after {:.1} s", started.elapsed().as_secs_f64()));

    // One of the same name that somebody else wrote stands against this one alone, until it goes.
    let mut theirs = policy("theirs", "edge", "t-", 9, "1h");
    theirs["metadata"]["namespace"] = space.name().into();
    admin.put_policy(&theirs).await.unwrap();
    for name in ["theirs", "after"] {
        space.apply(&policy(name, "edge", name, 2, "1h")).await;
    }
    enforced(&space, "after").await;
    let message = refused(&space, "theirs", "OwnedElsewhere").await;
    assert!(message.contains("delete it there"), "{message}");
    // It comes after the status.
    eventually(PATIENCE, "an Event", async || {
        let events = space.kubectl("get events --field-selector reason=OwnedElsewhere");
        if events.contains("theirs") { Ok(()) } else { Err(events) }
    })
    .await;
    admin.delete_policy(space.name(), "theirs").await.unwrap();
    enforced(&space, "theirs").await;
}

pub async fn operator_started_anew_pushes_and_writes_nothing_when_nothing_changed(lab: &Lab) {
    lab.install_operator().await;
    let space = lab.space("policies-restart").await;
    furnish(&space).await;
    for number in 0..5 {
        space.apply(&policy(&format!("p{number}"), "edge", &format!("p{number}-"), 2, "1h")).await;
    }
    for number in 0..5 {
        enforced(&space, &format!("p{number}")).await;
    }
    let before = versions(&space).await;
    // It is told a little later than the policies themselves.
    let revision_before = space
        .until(PATIENCE, ("RateLimitCluster", "edge"), "to tell of its policies", |edge| {
            let told = &edge["status"]["policies"];
            if told["enforced"] == "5/5" { Ok(told["revision"].clone()) } else { Err(told.to_string()) }
        })
        .await;
    lab.kubectl("--namespace quorate-system rollout restart deployment quorate-operator");
    lab.kubectl("--namespace quorate-system rollout status deployment quorate-operator --timeout 60s");
    // What the new one does shows that it has looked at the cluster.
    space.apply(&policy("later", "edge", "later-", 2, "1h")).await;
    enforced(&space, "later").await;
    let mut after = versions(&space).await;
    after.retain(|(name, _)| name != "later");
    assert_eq!(after, before, "no policy was written again");
    let later = space.get("QuotaPolicy", "later").await.unwrap()["status"]["revision"].clone();
    assert_eq!(later.as_i64(), revision_before.as_i64().map(|before| before + 1), "one change since");
}

pub async fn two_thousand_policies_on_one_cluster_are_all_in_force(lab: &Lab) {
    lab.install_operator().await;
    let space = lab.space("policies-many").await;
    furnish(&space).await;
    let started = Instant::now();
    let many: Vec<_> =
        (0..MANY).map(|number| policy(&format!("m{number}"), "edge", &format!("m{number}-"), 10, "1h")).collect();
    futures::stream::iter(&many)
        .map(|one| space.try_apply(one))
        .buffer_unordered(16)
        .try_collect::<()>()
        .await
        .unwrap();
    let applied = started.elapsed();
    let all = ListParams::default();
    eventually(PATIENCE, "all policies to be in force", async || {
        let listed = space.resources("QuotaPolicy").list(&all).await.map_err(|error| error.to_string())?;
        let open = listed
            .items
            .iter()
            .filter(|one| has_condition(&serde_json::to_value(one).expect("JSON"), "Enforced", "True").is_err());
        match open.count() {
            0 => Ok(()),
            open => Err(format!("{open} are not")),
        }
    })
    .await;
    let enforced_after = started.elapsed();
    // Longer than it takes until denials are counted again, and members that came or went are told of.
    pause(Duration::from_secs(35)).await;
    let writes = operator_metric(lab, "quorate_operator_policy_status_writes_total");
    let pushes = operator_metric(lab, "quorate_operator_policy_pushes_total");
    let most = lab.most_status_writes("quotapolicies", space.name());
    figure(&format!(
        "{MANY} QuotaPolicies: applied in {:.1} s, all in force {:.1} s later; {writes} status writes and {pushes} pushes by \
         this operator so far, at most {most} writes of one status",
        applied.as_secs_f64(),
        enforced_after.saturating_sub(applied).as_secs_f64()
    ));
    assert!(most <= STATUS_WRITES_MAX, "{most} writes of one status");

    let started = Instant::now();
    space.apply(&policy("one-more", "edge", "one-more-", 2, "1h")).await;
    enforced(&space, "one-more").await;
    figure(&format!("one more beside {MANY}: in force after {} ms", started.elapsed().as_millis()));
    println!("{}", space.kubectl("get ratelimitclusters"));

    let started = Instant::now();
    space.resources("QuotaPolicy").delete_collection(&DeleteParams::default(), &all).await.unwrap();
    space
        .until(PATIENCE, ("RateLimitCluster", "edge"), "to hold no policies", |edge| {
            let told = &edge["status"]["policies"]["enforced"];
            if *told == "0/0" { Ok(()) } else { Err(told.to_string()) }
        })
        .await;
    figure(&format!("{MANY} QuotaPolicies deleted: out of the cluster after {:.1} s", started.elapsed().as_secs_f64()));
}

/// A cluster of three, ready.
async fn furnish(space: &Space<'_>) {
    space.apply(&cluster("edge", 3)).await;
    space.until_steady(PATIENCE, "edge").await;
}

async fn enforced(space: &Space<'_>, name: &str) -> Duration {
    space.until_condition(PATIENCE, ("QuotaPolicy", name), "Enforced", "True").await
}

/// Awaits that a policy is not accepted for this reason, and returns what is said to it.
async fn refused(space: &Space<'_>, name: &str, reason: &str) -> String {
    space.until_reason(PATIENCE, ("QuotaPolicy", name), "Accepted", ("False", reason)).await
}

async fn versions(space: &Space<'_>) -> Vec<(String, Option<String>)> {
    let listed = space.resources("QuotaPolicy").list(&ListParams::default()).await.unwrap();
    listed.items.into_iter().map(|one| (one.metadata.name.unwrap(), one.metadata.resource_version)).collect()
}

/// The sum of a metric of the operator over its labels.
fn operator_metric(lab: &Lab, name: &str) -> u64 {
    let text = lab.kubectl("get --raw /api/v1/namespaces/quorate-system/services/quorate-operator:http/proxy/metrics");
    let values = text.lines().filter(|line| line.starts_with(name)).filter_map(|line| line.rsplit(' ').next());
    values.map(|value| value.parse::<u64>().expect("a count")).sum()
}
