//! What the objects of a cluster are called, and by which labels they are found.

use std::collections::BTreeMap;

use quorate_crds::cluster::PEERS_SUFFIX;

/// The annotation of a pod that says which template it was made from.
pub const TEMPLATE_ANNOTATION: &str = "quorate.dev/template";
/// The annotation of a claim that says whose data is on it.
pub const CLUSTER_ID_ANNOTATION: &str = "quorate.dev/cluster-id";
/// The key of the founding's [`k8s_openapi::api::core::v1::ConfigMap`] that holds its members: JSON, pod to id.
pub const FOUNDING_MEMBERS_KEY: &str = "members";
/// The key of the founding's `ConfigMap` that holds the id of a cluster that was there before.
pub const FOUNDING_ADOPTED_KEY: &str = "adopted";
/// The label that names the cluster of a pod or claim.
pub const CLUSTER_LABEL: &str = "app.kubernetes.io/instance";
/// Selects what belongs to any cluster.
pub const ANY_CLUSTER: &str = "app.kubernetes.io/name=quorate,app.kubernetes.io/component=limiter";
/// The name of the volume, and so the first part of each claim's name.
pub const VOLUME: &str = "data";

/// The names of one cluster's objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    cluster: String,
}

impl Names {
    /// The names of the objects of the cluster of this name, which is a DNS label of at most 40 bytes.
    #[must_use]
    pub fn new(cluster: impl Into<String>) -> Self {
        Self { cluster: cluster.into() }
    }

    /// The `StatefulSet`, the Service for clients, the disruption budget and the network policy.
    #[must_use]
    pub fn cluster(&self) -> String {
        self.cluster.clone()
    }

    /// The headless Service by which nodes and the operator find every pod. No cluster is named so.
    #[must_use]
    pub fn peers(&self) -> String {
        format!("{}{PEERS_SUFFIX}", self.cluster)
    }

    /// The `ConfigMap` that is created once, when the cluster is founded.
    #[must_use]
    pub fn founding(&self) -> String {
        format!("{}-founding", self.cluster)
    }

    /// The pod of this number.
    #[must_use]
    pub fn pod(&self, ordinal: usize) -> String {
        format!("{}-{ordinal}", self.cluster)
    }

    /// The claim of the pod of this number.
    #[must_use]
    pub fn claim(&self, ordinal: usize) -> String {
        format!("{VOLUME}-{}-{ordinal}", self.cluster)
    }

    /// The number of the pod of this name; `None` for a name that is not one of this cluster's pods.
    #[must_use]
    pub fn ordinal_of_pod(&self, pod: &str) -> Option<usize> {
        let digits = pod.strip_prefix(&self.cluster)?.strip_prefix('-')?;
        let ordinal: usize = digits.parse().ok()?;
        // `edge-01` and `edge-+1` are others' names.
        (self.pod(ordinal) == pod).then_some(ordinal)
    }

    /// The number of the pod that has the claim of this name.
    #[must_use]
    pub fn ordinal_of_claim(&self, claim: &str) -> Option<usize> {
        self.ordinal_of_pod(claim.strip_prefix(VOLUME)?.strip_prefix('-')?)
    }

    /// What selects this cluster's pods and claims. Never changes: what a template adds is no part of it.
    #[must_use]
    pub fn selector(&self) -> BTreeMap<String, String> {
        [
            ("app.kubernetes.io/component", "limiter"),
            (CLUSTER_LABEL, self.cluster.as_str()),
            ("app.kubernetes.io/name", "quorate"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
    }

    /// The labels of every object of this cluster.
    #[must_use]
    pub fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.selector();
        labels.insert("app.kubernetes.io/managed-by".to_owned(), "quorate-operator".to_owned());
        labels
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pod_and_claim_are_known_by_their_names_again() {
        let names = Names::new("edge-1");
        for ordinal in [0, 1, 12] {
            assert_eq!(names.ordinal_of_pod(&names.pod(ordinal)), Some(ordinal));
            assert_eq!(names.ordinal_of_claim(&names.claim(ordinal)), Some(ordinal));
        }
    }

    #[test]
    fn name_of_something_else_is_no_pod() {
        let names = Names::new("edge");
        for name in ["edge", "edge-", "edge-a", "edge-01", "edge-+1", "edge-1-0", "data-edge-0", "other-0"] {
            assert_eq!(names.ordinal_of_pod(name), None, "{name}");
        }
        assert_eq!(names.ordinal_of_claim("edge-0"), None);
    }
}
