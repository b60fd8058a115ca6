//! Objects under the names of a cluster that are not its own: they are left alone, and the cluster says so.

use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use quorate_tests::client::{Client, Outcome};
use quorate_tests::kubernetes::lab::Lab;
use quorate_tests::kubernetes::objects::cluster;
use quorate_tests::kubernetes::space::Space;

const PATIENCE: Duration = Duration::from_mins(2);

pub async fn service_of_somebody_else_is_left_alone_and_the_cluster_waits_until_it_goes(lab: &Lab) {
    lab.install_operator().await;
    let space = lab.space("taken").await;
    space.kubectl("create service clusterip edge --tcp=80:8080");
    let before = service(&space).await;
    space.apply(&cluster("edge", 1)).await;
    until_not_ours(&space, "Service taken/edge").await;
    assert_eq!(service(&space).await.metadata.resource_version, before.metadata.resource_version, "it was written to");
    assert_eq!(space.pods("edge").await.len(), 0, "nothing is begun beside it");

    space.kubectl("delete service edge");
    space.until_steady(PATIENCE, "edge").await;
    let owners = service(&space).await.metadata.owner_references.unwrap_or_default();
    assert_eq!(owners.iter().map(|owner| owner.kind.as_str()).collect::<Vec<_>>(), ["RateLimitCluster"]);
}

pub async fn orphaned_cluster_serves_on_and_is_handed_over_as_the_docs_say(lab: &Lab) {
    let space = lab.founded("orphan", &cluster("edge", 1), "counted", 2, PATIENCE).await;
    let address = space.service("edge").await;
    assert_eq!(Client::new(address).increment("counted").await, Outcome::Admitted);
    let before = space.pod_uids("edge").await;

    space.kubectl("delete ratelimitcluster edge --cascade=orphan");
    space.apply(&cluster("edge", 1)).await;
    until_not_ours(&space, "orphan/edge").await;
    assert_eq!(Client::new(address).increment("counted").await, Outcome::Admitted, "it serves on");

    let command = handed_over(lab).replace("kubectl ", &format!("kubectl --namespace {} ", space.name()));
    lab.type_in(&command).unwrap_or_else(|error| panic!("{error}"));
    space.until_steady(PATIENCE, "edge").await;
    assert_eq!(space.pod_uids("edge").await, before, "no pod is restarted");
    assert_eq!(Client::new(address).increment("counted").await, Outcome::Denied, "and all is still counted");
}

/// The command of docs/operator.md.
fn handed_over(lab: &Lab) -> String {
    let page = std::fs::read_to_string(lab.file("docs/operator.md")).expect("the page");
    let block = page.split("```\n").find(|block| block.starts_with("uid="));
    block.expect("the command that hands objects over").to_owned()
}

async fn service(space: &Space<'_>) -> Service {
    space.api::<Service>().get("edge").await.unwrap_or_else(|error| panic!("{error}"))
}

async fn until_not_ours(space: &Space<'_>, what: &str) {
    let edge = ("RateLimitCluster", "edge");
    let message = space.until_reason(PATIENCE, edge, "Degraded", ("True", "NotOurs")).await;
    assert!(message.contains(what), "{message}");
}
