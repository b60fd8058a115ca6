//! What the API server tells of policies, clusters and pods, kept up to date.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::FutureExt as _;
use futures::stream::{BoxStream, SelectAll, StreamExt as _, select_all};
use k8s_openapi::api::core::v1::Pod;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::{Lookup, Store, store};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Resource as _, ResourceExt as _};
use quorate_crds::{QuotaPolicy, RateLimitCluster};
use quorate_limits::PolicyName;
use serde::de::DeserializeOwned;

use super::desired::Unknown;
use super::select::{ClusterKey, name_of};
use crate::cluster::Names;
use crate::cluster::names::{ANY_CLUSTER, CLUSTER_LABEL};
use crate::context::Context;
use crate::limiter::Target;

/// A policy, or the error of one that cannot be read.
pub type GuardedPolicy = DeserializeGuard<QuotaPolicy>;
/// A cluster, or the error of one that cannot be read.
pub type GuardedCluster = DeserializeGuard<RateLimitCluster>;

/// Something changed.
#[expect(clippy::large_enum_variant, reason = "one at a time, on its way from a watch to the roster")]
pub enum Change {
    /// A policy.
    Policy(watcher::Event<GuardedPolicy>),
    /// A cluster.
    Cluster(watcher::Event<GuardedCluster>),
    /// A pod.
    Pod(watcher::Event<Pod>),
}

/// What changes, as it comes; errors are those of watches, which go on by themselves.
pub type Changes = SelectAll<BoxStream<'static, Result<Change, Broken>>>;

/// A watch that ended, and begins anew by itself.
#[derive(Debug)]
pub struct Broken {
    /// The namespace that it watches; `None` for all.
    pub namespace: Option<String>,
    /// Why.
    pub error: watcher::Error,
}

impl Broken {
    /// The namespace whose objects this operator may not list: with a namespace that is deleted, its rights there go.
    #[must_use]
    pub fn forbids(&self) -> Option<&str> {
        use watcher::Error::{InitialListFailed, WatchFailed, WatchStartFailed};
        match &self.error {
            InitialListFailed(kube::Error::Api(status))
            | WatchStartFailed(kube::Error::Api(status))
            | WatchFailed(kube::Error::Api(status))
                if status.is_forbidden() =>
            {
                self.namespace.as_deref()
            }
            _ => None,
        }
    }
}

/// All policies, clusters and pods that are looked after. It stays as fresh as its [`Changes`] are read.
pub struct World {
    policies: Vec<Scope<GuardedPolicy>>,
    clusters: Vec<Scope<GuardedCluster>>,
    pods: Vec<Scope<Pod>>,
}

/// Objects of one kind in one namespace, or in all.
struct Scope<K: Lookup<DynamicType = ()> + Clone + 'static> {
    namespace: Option<String>,
    objects: Store<K>,
    /// The first attempt to list them was refused, for this namespace alone.
    is_refused: Arc<AtomicBool>,
}

impl<K: Lookup<DynamicType = ()> + Clone + 'static> Scope<K> {
    fn is_listed(&self) -> bool {
        self.objects.wait_until_ready().now_or_never().is_some()
    }
}

impl World {
    /// Watches begin as the changes are read.
    pub fn watch(context: &Context) -> (Self, Changes) {
        let config = watcher::Config::default();
        let (policies, policy_changes) = watched(context.apis::<GuardedPolicy>(), &config, Change::Policy);
        let (clusters, cluster_changes) = watched(context.apis::<GuardedCluster>(), &config, Change::Cluster);
        let (pods, pod_changes) = watched(context.apis::<Pod>(), &config.labels(ANY_CLUSTER), Change::Pod);
        let changes = select_all(policy_changes.into_iter().chain(cluster_changes).chain(pod_changes));
        (Self { policies, clusters, pods }, changes)
    }

    /// Whether everything was listed once, but for namespaces where that was refused. Until then a policy that is not there
    /// may only not be known yet.
    #[must_use]
    pub fn is_listed(&self) -> bool {
        fn all<K: Lookup<DynamicType = ()> + Clone + 'static>(scopes: &[Scope<K>]) -> bool {
            scopes.iter().all(|scope| scope.is_listed() || scope.is_refused.load(Ordering::Relaxed))
        }
        all(&self.policies) && all(&self.clusters) && all(&self.pods)
    }

    /// The policies of which it is not known what they want: those that cannot be read, and all of a namespace whose
    /// policies were never listed.
    #[must_use]
    pub fn unknown(&self) -> Unknown {
        let unlisted = self.policies.iter().filter(|scope| !scope.is_listed());
        Unknown {
            policies: self.unreadable().into_keys().collect(),
            namespaces: unlisted.filter_map(|scope| scope.namespace.clone()).collect(),
        }
    }

    /// Whether a cluster that is not there may only not be known.
    #[must_use]
    pub fn may_have_cluster(&self, key: &ClusterKey) -> bool {
        let its = |scope: &&Scope<GuardedCluster>| scope.namespace.as_ref().is_none_or(|own| *own == key.namespace);
        self.clusters.iter().filter(its).any(|scope| !scope.is_listed())
    }

    /// All policies, those that cannot be read too.
    pub fn policies(&self) -> impl Iterator<Item = Arc<GuardedPolicy>> {
        self.policies.iter().flat_map(|scope| scope.objects.state())
    }

    /// Those that name this cluster and can be read.
    #[must_use]
    pub fn policies_of(&self, key: &ClusterKey) -> Vec<Arc<QuotaPolicy>> {
        let theirs = |policy: &GuardedPolicy| policy.0.as_ref().is_ok_and(|policy| ClusterKey::of(policy) == *key);
        self.policies
            .iter()
            .flat_map(|scope| scope.objects.state_filter(theirs))
            .filter_map(|policy| Some(Arc::new(policy.0.as_ref().ok()?.clone())))
            .collect()
    }

    /// Policies that cannot be read, so that it is not known what they want.
    #[must_use]
    pub fn unreadable(&self) -> BTreeMap<PolicyName, Arc<GuardedPolicy>> {
        let unreadable = |policy: &GuardedPolicy| policy.0.is_err();
        self.policies
            .iter()
            .flat_map(|scope| scope.objects.state_filter(unreadable))
            .map(|policy| (guarded_name(&policy), policy))
            .collect()
    }

    /// All clusters, those that cannot be read too.
    pub fn clusters(&self) -> impl Iterator<Item = Arc<GuardedCluster>> {
        self.clusters.iter().flat_map(|scope| scope.objects.state())
    }

    /// The cluster of this name.
    #[must_use]
    pub fn cluster(&self, key: &ClusterKey) -> Option<Arc<GuardedCluster>> {
        self.clusters.iter().find_map(|scope| scope.objects.find(|cluster| cluster_key(cluster) == *key))
    }

    /// The pods of a cluster that can be asked.
    #[must_use]
    pub fn pods(&self, key: &ClusterKey) -> Vec<Target> {
        let theirs = |pod: &Pod| pod_cluster(pod).as_ref() == Some(key);
        let pods = self.pods.iter().flat_map(|scope| scope.objects.state_filter(theirs));
        let mut targets: Vec<_> = pods.filter_map(|pod| Target::of(&pod)).collect();
        targets.sort_by(|a, b| a.pod.cmp(&b.pod));
        targets
    }
}

#[cfg(test)]
impl World {
    /// What there is at this moment, and stays so.
    pub(crate) fn still(memory: &crate::in_memory::World) -> Self {
        fn stored<K>(objects: Vec<serde_json::Value>) -> Vec<Scope<K>>
        where
            K: Lookup<DynamicType = ()> + Clone + DeserializeOwned + 'static,
        {
            let (reader, mut writer) = store();
            writer.apply_watcher_event(&watcher::Event::Init);
            for object in objects {
                writer.apply_watcher_event(&watcher::Event::InitApply(serde_json::from_value(object).unwrap()));
            }
            writer.apply_watcher_event(&watcher::Event::InitDone);
            vec![Scope { namespace: None, objects: reader, is_refused: Arc::default() }]
        }
        let of = |plural| memory.list(&format!("/apis/quorate.dev/v1alpha1/{plural}"));
        Self {
            policies: stored(of("quotapolicies")),
            clusters: stored(of("ratelimitclusters")),
            pods: stored(memory.list("/api/v1/pods")),
        }
    }
}

/// The name of a policy, whether it can be read or not.
#[must_use]
pub fn guarded_name(policy: &GuardedPolicy) -> PolicyName {
    match &policy.0 {
        Ok(policy) => name_of(policy),
        Err(invalid) => PolicyName {
            namespace: invalid.metadata.namespace.clone().unwrap_or_default(),
            name: invalid.metadata.name.clone().unwrap_or_default(),
        },
    }
}

/// The name of a cluster.
#[must_use]
pub fn cluster_key(cluster: &GuardedCluster) -> ClusterKey {
    ClusterKey { namespace: cluster.meta().namespace.clone().unwrap_or_default(), name: cluster.name_any() }
}

/// The id that a cluster's nodes have; `None` before its founding.
#[must_use]
pub fn cluster_id(cluster: &GuardedCluster) -> Option<&str> {
    cluster.0.as_ref().ok()?.status.as_ref()?.cluster_id.as_deref()
}

/// The cluster that a pod is of.
#[must_use]
pub fn pod_cluster(pod: &Pod) -> Option<ClusterKey> {
    let name = pod.metadata.labels.as_ref()?.get(CLUSTER_LABEL)?;
    // A pod with the labels of one of ours and another name is none of ours.
    Names::new(name.as_str()).ordinal_of_pod(pod.metadata.name.as_deref()?)?;
    Some(ClusterKey { namespace: pod.metadata.namespace.clone()?, name: name.clone() })
}

type Scopes<K> = (Vec<Scope<K>>, Vec<BoxStream<'static, Result<Change, Broken>>>);

fn watched<K>(apis: Vec<Api<K>>, config: &watcher::Config, change: fn(watcher::Event<K>) -> Change) -> Scopes<K>
where
    K: kube::Resource<DynamicType = ()> + Lookup<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
    K: Send + Sync + 'static,
{
    let one = |api: Api<K>| {
        let namespace = api.namespace().map(ToOwned::to_owned);
        let (objects, writer) = store();
        let scope = Scope { namespace: namespace.clone(), objects, is_refused: Arc::default() };
        let is_refused = Arc::clone(&scope.is_refused);
        let changes = watcher(api, config.clone())
            .default_backoff()
            .modify(|object: &mut K| object.meta_mut().managed_fields = None)
            .reflect(writer)
            .map(move |event| {
                event.map(change).map_err(|error| {
                    let broken = Broken { namespace: namespace.clone(), error };
                    if broken.forbids().is_some() {
                        is_refused.store(true, Ordering::Relaxed);
                    }
                    broken
                })
            })
            .boxed();
        (scope, changes)
    };
    apis.into_iter().map(one).unzip()
}
