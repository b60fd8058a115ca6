//! Whom a change concerns: which clusters have to be looked at again. It knows of each object only what matters here, so
//! that the operator's own writes wake nobody.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::runtime::watcher::Event;
use quorate_limits::PolicyName;

use super::select::ClusterKey;
use super::world::{Change, GuardedCluster, GuardedPolicy, World, cluster_id, cluster_key, guarded_name, pod_cluster};
use crate::limiter::Target;

/// Whom a change concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Concerned {
    /// Everything was listed anew: all of them.
    All,
    /// These.
    Clusters(BTreeSet<ClusterKey>),
}

/// The generation of a spec, and whether the object is being deleted.
type Version = (Option<i64>, bool);

/// What was seen last.
#[derive(Debug, Default)]
pub struct Roster {
    policies: HashMap<PolicyName, (ClusterKey, Version)>,
    /// With the id that its nodes have, once it is founded.
    clusters: HashMap<ClusterKey, (Version, Option<String>)>,
    pods: HashMap<(ClusterKey, String), Option<IpAddr>>,
}

impl Roster {
    /// Takes note of a change. A policy that cannot be read concerns nobody: what its cluster holds of it stays.
    pub fn note(&mut self, change: &Change) -> Concerned {
        let clusters = match change {
            Change::Policy(Event::Apply(policy)) => self.policy(policy),
            Change::Policy(Event::Delete(policy)) => {
                self.policies.remove(&guarded_name(policy)).map(|(key, _)| key).into_iter().collect()
            }
            Change::Cluster(Event::Apply(cluster)) => self.cluster(cluster),
            Change::Cluster(Event::Delete(cluster)) => {
                let key = cluster_key(cluster);
                self.clusters.remove(&key);
                [key].into()
            }
            Change::Pod(Event::Apply(pod)) => self.pod(pod, Target::of(pod).map(|target| target.ip)),
            Change::Pod(Event::Delete(pod)) => self.pod(pod, None),
            Change::Policy(Event::InitDone) | Change::Cluster(Event::InitDone) | Change::Pod(Event::InitDone) => {
                return Concerned::All;
            }
            Change::Policy(_) | Change::Cluster(_) | Change::Pod(_) => BTreeSet::new(),
        };
        Concerned::Clusters(clusters)
    }

    /// Starts anew from everything there is. Returns whom it concerns: all clusters known before or now.
    pub fn list(&mut self, world: &World) -> BTreeSet<ClusterKey> {
        let before = self.keys();
        *self = Self::default();
        for policy in world.policies() {
            self.policy(&policy);
        }
        for cluster in world.clusters() {
            self.cluster(&cluster);
        }
        before.union(&self.keys()).cloned().collect()
    }

    /// Whether there is a reason to look after this cluster: it is there, or a policy names it.
    #[must_use]
    pub fn has(&self, key: &ClusterKey) -> bool {
        self.clusters.contains_key(key) || self.policies.values().any(|(named, _)| named == key)
    }

    fn keys(&self) -> BTreeSet<ClusterKey> {
        self.clusters.keys().chain(self.policies.values().map(|(key, _)| key)).cloned().collect()
    }

    fn policy(&mut self, guarded: &GuardedPolicy) -> BTreeSet<ClusterKey> {
        let Ok(policy) = &guarded.0 else { return BTreeSet::new() };
        let now = (ClusterKey::of(policy), version(guarded));
        match self.policies.insert(guarded_name(guarded), now.clone()) {
            Some(before) if before == now => BTreeSet::new(),
            Some((before, _)) => [before, now.0].into(),
            None => [now.0].into(),
        }
    }

    fn cluster(&mut self, cluster: &GuardedCluster) -> BTreeSet<ClusterKey> {
        let key = cluster_key(cluster);
        let now = (version(cluster), cluster_id(cluster).map(ToOwned::to_owned));
        if self.clusters.insert(key.clone(), now.clone()) == Some(now) { BTreeSet::new() } else { [key].into() }
    }

    fn pod(&mut self, pod: &Pod, now: Option<IpAddr>) -> BTreeSet<ClusterKey> {
        let Some(key) = pod_cluster(pod) else { return BTreeSet::new() };
        let name = (key.clone(), pod.name_any());
        let before = match now {
            Some(_) => self.pods.insert(name, now),
            None => self.pods.remove(&name),
        };
        if before.flatten() == now { BTreeSet::new() } else { [key].into() }
    }
}

fn version(object: &impl kube::Resource) -> Version {
    (object.meta().generation, object.meta().deletion_timestamp.is_some())
}

#[cfg(test)]
mod tests {
    use kube::core::DeserializeGuard;
    use quorate_crds::QuotaPolicy;

    use super::super::testing::{at, cluster, policy};
    use super::*;

    fn apply(policy: &QuotaPolicy) -> Change {
        Change::Policy(Event::Apply(DeserializeGuard(Ok(policy.clone()))))
    }

    fn keys(texts: &[&str]) -> Concerned {
        let key = |text: &&str| {
            let (namespace, name) = text.split_once('/').unwrap();
            ClusterKey { namespace: namespace.to_owned(), name: name.to_owned() }
        };
        Concerned::Clusters(texts.iter().map(key).collect())
    }

    #[test]
    fn policy_concerns_the_cluster_it_names_and_the_one_it_named_before() {
        let mut roster = Roster::default();
        let mut policy = policy("shop/p", "edge", 1);
        assert_eq!(roster.note(&apply(&policy)), keys(&["shop/edge"]));
        policy.status = Some(quorate_crds::QuotaPolicyStatus::default());
        assert_eq!(roster.note(&apply(&policy)), keys(&[]), "only its status changed");
        policy.metadata.generation = Some(2);
        policy.spec.cluster_ref.as_mut().unwrap().name = "other".to_owned();
        assert_eq!(roster.note(&apply(&policy)), keys(&["shop/edge", "shop/other"]));
        policy.metadata.deletion_timestamp = Some(at(1));
        assert_eq!(roster.note(&apply(&policy)), keys(&["shop/other"]));
        let gone = Change::Policy(Event::Delete(DeserializeGuard(Ok(policy))));
        assert_eq!(roster.note(&gone), keys(&["shop/other"]));
        assert!(!roster.has(&ClusterKey { namespace: "shop".to_owned(), name: "other".to_owned() }));
    }

    #[test]
    fn cluster_concerns_itself_when_its_spec_changes_or_it_is_founded_or_goes() {
        let mut roster = Roster::default();
        let mut cluster = cluster("shop/edge", &[]);
        let apply = |c: &quorate_crds::RateLimitCluster| Change::Cluster(Event::Apply(DeserializeGuard(Ok(c.clone()))));
        assert_eq!(roster.note(&apply(&cluster)), keys(&["shop/edge"]));
        assert_eq!(roster.note(&apply(&cluster)), keys(&[]));
        cluster.status = Some(serde_json::from_value(serde_json::json!({ "clusterId": "c1" })).unwrap());
        assert_eq!(roster.note(&apply(&cluster)), keys(&["shop/edge"]), "its nodes have an id");
        cluster.status.as_mut().unwrap().ready_replicas = 3;
        assert_eq!(roster.note(&apply(&cluster)), keys(&[]), "only what is told of it changed");
        cluster.metadata.deletion_timestamp = Some(at(1));
        assert_eq!(roster.note(&apply(&cluster)), keys(&["shop/edge"]));
        let gone = Change::Cluster(Event::Delete(DeserializeGuard(Ok(cluster))));
        assert_eq!(roster.note(&gone), keys(&["shop/edge"]));
    }

    #[test]
    fn pod_concerns_its_cluster_when_its_address_changes() {
        let mut roster = Roster::default();
        let pod = |name: &str, ip: &str| -> Pod {
            serde_json::from_value(serde_json::json!({
                "metadata": { "name": name, "namespace": "shop", "labels": { "app.kubernetes.io/instance": "edge" } },
                "status": { "phase": "Running", "podIP": ip }
            }))
            .unwrap()
        };
        assert_eq!(roster.note(&Change::Pod(Event::Apply(pod("edge-0", "10.0.0.1")))), keys(&["shop/edge"]));
        assert_eq!(roster.note(&Change::Pod(Event::Apply(pod("edge-0", "10.0.0.1")))), keys(&[]));
        assert_eq!(roster.note(&Change::Pod(Event::Apply(pod("edge-0", "10.0.0.2")))), keys(&["shop/edge"]));
        assert_eq!(roster.note(&Change::Pod(Event::Delete(pod("edge-0", "10.0.0.2")))), keys(&["shop/edge"]));
        assert_eq!(roster.note(&Change::Pod(Event::Apply(pod("edgy", "10.0.0.3")))), keys(&[]), "no pod of it");
    }
}
