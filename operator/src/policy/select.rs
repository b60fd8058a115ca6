//! Which policies a cluster is asked to enforce, and which of them it may. Pure.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use kube::ResourceExt as _;
use quorate_crds::cluster::ALL_NAMESPACES;
use quorate_crds::quota_policy::DEFAULT_NAMESPACE;
use quorate_crds::{QuotaPolicy, RateLimitCluster, Reason};
use quorate_limits::{Policy, PolicyName};

/// Names a cluster, whether there is one or not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterKey {
    /// Its namespace.
    pub namespace: String,
    /// Its name; empty for policies that name none.
    pub name: String,
}

impl ClusterKey {
    /// The cluster that a policy names.
    #[must_use]
    pub fn of(policy: &QuotaPolicy) -> Self {
        let own = || policy.namespace().unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
        match &policy.spec.cluster_ref {
            Some(named) => Self { namespace: named.namespace.clone().unwrap_or_else(own), name: named.name.clone() },
            None => Self { namespace: own(), name: String::new() },
        }
    }
}

impl fmt::Display for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The name by which limiters know a policy.
#[must_use]
pub fn name_of(policy: &QuotaPolicy) -> PolicyName {
    PolicyName {
        namespace: policy.namespace().unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned()),
        name: policy.name_any(),
    }
}

/// Why a policy does not take part, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// In one word.
    pub reason: Reason,
    /// Which object, and what to do.
    pub message: String,
}

impl Refusal {
    /// A refusal for this reason.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// A policy that names the cluster.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// As it was read.
    pub resource: Arc<QuotaPolicy>,
    /// As limiters know it, or why it is none for this cluster.
    pub policy: Result<Policy, Refusal>,
}

/// What becomes of the policies that name a cluster: oldest first, so that none that is in force has to go for one that
/// comes later.
#[must_use]
pub fn select(
    key: &ClusterKey,
    cluster: Option<&RateLimitCluster>,
    policies: impl IntoIterator<Item = Arc<QuotaPolicy>>,
) -> Vec<Candidate> {
    let mut candidates: Vec<_> = policies
        .into_iter()
        .filter(|policy| ClusterKey::of(policy) == *key && policy.metadata.deletion_timestamp.is_none())
        .map(|resource| Candidate { policy: judge(key, cluster, &resource), resource })
        .collect();
    candidates.sort_by_cached_key(|candidate| {
        let made = candidate.resource.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (made, name_of(&candidate.resource))
    });
    candidates
}

fn judge(key: &ClusterKey, cluster: Option<&RateLimitCluster>, resource: &QuotaPolicy) -> Result<Policy, Refusal> {
    if key.name.is_empty() {
        return Err(Refusal::new(Reason::Invalid, "spec.clusterRef: names no cluster; write clusterRef: {name: …}"));
    }
    let Some(cluster) = cluster else { return Err(no_cluster(key, resource)) };
    if cluster.metadata.deletion_timestamp.is_some() {
        return Err(deleted(key));
    }
    let namespace = name_of(resource).namespace;
    if !admits(cluster, &namespace) {
        let message = format!(
            "RateLimitCluster {key} does not admit policies of namespace {namespace}; add it to the cluster's \
             spec.allowedNamespaces, or name a cluster in {namespace}"
        );
        return Err(Refusal::new(Reason::NamespaceNotAllowed, message));
    }
    Policy::try_from(resource).map_err(|invalid| Refusal::new(Reason::Invalid, invalid.to_string()))
}

/// Whether policies of a namespace may name this cluster.
fn admits(cluster: &RateLimitCluster, namespace: &str) -> bool {
    let allowed: BTreeSet<&str> = cluster.spec.allowed_namespaces.iter().map(String::as_str).collect();
    cluster.metadata.namespace.as_deref() == Some(namespace)
        || allowed.contains(namespace)
        || allowed.contains(ALL_NAMESPACES)
}

/// A cluster that the policy once had was deleted; one that it never had is not found.
fn no_cluster(key: &ClusterKey, resource: &QuotaPolicy) -> Refusal {
    let conditions = resource.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let was_there = conditions.iter().any(|condition| {
        condition.type_ == "Accepted" && (condition.status == "True" || condition.reason == "ClusterDeleted")
    });
    let is_about_this = resource.status.as_ref().is_some_and(|s| s.observed_generation == resource.metadata.generation);
    if was_there && is_about_this {
        return deleted(key);
    }
    let message = format!(
        "there is no RateLimitCluster {key} that this operator looks after; mend spec.clusterRef, or create the cluster"
    );
    Refusal::new(Reason::ClusterNotFound, message)
}

fn deleted(key: &ClusterKey) -> Refusal {
    let message = format!(
        "RateLimitCluster {key} was deleted, so nobody judges by this policy; name another, or create it again"
    );
    Refusal::new(Reason::ClusterDeleted, message)
}

#[cfg(test)]
mod tests;
