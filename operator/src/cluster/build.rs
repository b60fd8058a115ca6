//! The objects of a cluster. Cannot fail, asks nobody: the same cluster at the same size gives the same bytes, which the
//! golden files of `tests/golden` hold. What a pod is made of depends on the spec alone, so a new operator restarts
//! nothing as long as those files stay.

mod disruption;
mod founding;
mod network;
mod pod;
mod services;
mod stateful_set;

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use quorate_crds::cluster::CLUSTER_KIND;
use quorate_crds::quota_policy::API_VERSION;

use super::validate::Wanted;

pub use founding::founding;
pub use pod::template_name;

/// Where a pod serves clients over HTTP.
pub const HTTP_PORT: u16 = 8080;
/// Where a pod serves Envoy.
pub const GRPC_PORT: u16 = 8081;
/// Where a pod takes changes from the operator.
pub const ADMIN_PORT: u16 = 8180;
/// TCP, between nodes.
pub const RAFT_PORT: u16 = 50001;
/// UDP, between nodes.
pub const GOSSIP_PORT: u16 = 50011;

/// How large the cluster is at present, which is not always what is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Pods there are to be now.
    pub pods: usize,
    /// Members that vote now; 0 before the founding.
    pub voters: usize,
}

/// All objects but the founding, which is created once and not applied.
#[derive(Clone, Debug, PartialEq)]
pub struct Objects {
    /// Serves clients: ready pods only.
    pub service: Service,
    /// Names every pod, ready or not.
    pub peers: Service,
    /// Who may reach which port.
    pub network_policy: NetworkPolicy,
    /// How many pods may be evicted; `None`, and so absent, for a single pod, which a drain may move.
    pub disruption_budget: Option<PodDisruptionBudget>,
    /// The pods. Last, so that all they need is there before them.
    pub stateful_set: StatefulSet,
}

/// Builds them.
#[must_use]
pub fn build(wanted: &Wanted, size: Size) -> Objects {
    Objects {
        service: services::clients(wanted),
        peers: services::peers(wanted),
        network_policy: network::policy(wanted),
        disruption_budget: disruption::budget(wanted, size),
        stateful_set: stateful_set::stateful_set(wanted, size),
    }
}

/// The metadata of an object that goes with its cluster.
fn owned(wanted: &Wanted, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(wanted.namespace.clone()),
        labels: Some(wanted.names.labels()),
        owner_references: Some(vec![owner(wanted, true)]),
        ..ObjectMeta::default()
    }
}

/// Names the `RateLimitCluster` as an owner; one that controls, or one that only takes the object with it.
pub(super) fn owner(wanted: &Wanted, controls: bool) -> OwnerReference {
    OwnerReference {
        api_version: API_VERSION.to_owned(),
        kind: CLUSTER_KIND.to_owned(),
        name: wanted.names.cluster(),
        uid: wanted.uid.clone(),
        controller: Some(controls),
        block_owner_deletion: Some(controls),
    }
}

/// Selects the cluster's pods.
fn pods(wanted: &Wanted) -> LabelSelector {
    LabelSelector { match_labels: Some(wanted.names.selector()), match_expressions: None }
}

/// `None` for a map without entries: an applied field is an owned field.
fn some_map(map: &BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
    (!map.is_empty()).then(|| map.clone())
}
