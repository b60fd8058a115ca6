//! What is deleted goes, soon and as a whole, whoever is there to help.

use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use quorate_tests::cluster::{eventually, figure};
use quorate_tests::kubernetes::lab::{Lab, PATIENCE};
use quorate_tests::kubernetes::objects::{cluster, policy};
use quorate_tests::kubernetes::space::Space;
use serde_json::json;

const GONE_WITHIN: Duration = Duration::from_mins(1);
const POLICIES: usize = 20;

pub async fn cluster_deleted_takes_all_along_but_claims_that_are_to_stay(lab: &Lab) {
    lab.install_operator().await;
    let space = lab.space("delete-cluster").await;
    let mut retained = cluster("kept", 1);
    retained["spec"]["storage"]["retention"] = json!({"onDelete": "Retain"});
    space.apply(&retained).await;
    space.apply(&cluster("gone", 3)).await;
    for name in ["kept", "gone"] {
        space.until_steady(PATIENCE, name).await;
    }

    let started = Instant::now();
    for name in ["kept", "gone"] {
        space.delete("RateLimitCluster", name).await;
    }
    eventually(GONE_WITHIN, "both clusters, with all that was made for them, to be gone", async || {
        let left = left_of(&space).await;
        if left.is_empty() { Ok(()) } else { Err(left.join(", ")) }
    })
    .await;
    figure(&format!("two clusters deleted: gone after {:.1} s", started.elapsed().as_secs_f64()));
    eventually(GONE_WITHIN, "the claims of the one to be gone", async || match space.claims("gone").await.len() {
        0 => Ok(()),
        left => Err(format!("{left} are left")),
    })
    .await;
    let kept = space.claims("kept").await;
    assert_eq!(kept.iter().filter(|claim| claim.metadata.deletion_timestamp.is_none()).count(), 1, "onDelete: Retain");
}

pub async fn namespace_with_cluster_and_policies_is_gone_within_a_minute(lab: &Lab) {
    lab.install_operator().await;
    let space = lab.space("delete-namespace").await;
    furnish(&space).await;
    let took = until_gone(&space).await;
    figure(&format!("namespace with a cluster and {POLICIES} policies deleted: gone after {took:.1} s"));
}

pub async fn namespace_is_gone_within_a_minute_without_an_operator_too(lab: &Lab) {
    lab.install_operator().await;
    let space = lab.space("delete-alone").await;
    furnish(&space).await;
    lab.take_rights_away("helm uninstall quorate --namespace quorate-system --wait").await;
    let took = until_gone(&space).await;
    figure(&format!("operator uninstalled, then the namespace deleted: gone after {took:.1} s"));
    lab.install_operator().await;
}

/// A cluster of three, and policies that are enforced on it.
async fn furnish(space: &Space<'_>) {
    space.apply(&cluster("edge", 3)).await;
    for number in 0..POLICIES {
        space.apply(&policy(&format!("p{number}"), "edge", &format!("c{number}-"), 10, "1h")).await;
    }
    space.until_steady(PATIENCE, "edge").await;
    for number in 0..POLICIES {
        space.until_condition(PATIENCE, ("QuotaPolicy", &format!("p{number}")), "Enforced", "True").await;
    }
}

async fn until_gone(space: &Space<'_>) -> f64 {
    let namespaces = Api::<Namespace>::all(space.lab.client.clone());
    let started = Instant::now();
    namespaces.delete(space.name(), &DeleteParams::default()).await.unwrap();
    eventually(GONE_WITHIN, "the namespace to be gone", async || match namespaces.get_opt(space.name()).await {
        Ok(None) => Ok(()),
        Ok(Some(left)) => Err(serde_json::to_string(&left.status).unwrap()),
        Err(error) => Err(error.to_string()),
    })
    .await;
    started.elapsed().as_secs_f64()
}

/// All objects that a cluster is made of, claims apart.
async fn left_of(space: &Space<'_>) -> Vec<String> {
    let mut left = vec![];
    let all = ListParams::default().labels("app.kubernetes.io/name=quorate");
    macro_rules! note {
        ($($kind:ty),*) => {$(
            for object in space.api::<$kind>().list(&all).await.unwrap() {
                left.push(format!("{} {}", stringify!($kind), object.metadata.name.unwrap_or_default()));
            }
        )*};
    }
    note!(StatefulSet, Service, NetworkPolicy, PodDisruptionBudget, ConfigMap, k8s_openapi::api::core::v1::Pod);
    left
}
