//! Reads everything there is of one cluster: its objects from the API server, never from a cache, and what its nodes say.

use std::fmt::Debug;

use futures::future::join_all;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::ListParams;
use kube::{Api, Client, Resource};
use quorate_crds::api::ClusterAnswer;
use quorate_crds::cluster_status::RateLimitClusterStatus;
use serde::de::DeserializeOwned;

use super::observed::{self, Observed, Read};
use super::ownership::{InTheWay, Whose, whose};
use super::validate::Wanted;
use crate::error::Error;
use crate::limiter::{Limiters, Target};

/// One look at a cluster. Nothing in it is newer than the rest by more than a node may take to answer.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// Its `StatefulSet`.
    pub stateful_set: Option<StatefulSet>,
    /// The pods that its labels select.
    pub pods: Vec<Pod>,
    /// The claims that its labels select.
    pub claims: Vec<PersistentVolumeClaim>,
    /// Its founding.
    pub founding: Option<ConfigMap>,
    /// Those of its objects that are there, by kind.
    pub objects: Vec<(&'static str, ObjectMeta)>,
    /// What is not its own and stands where an object of its own should.
    pub in_the_way: Option<InTheWay>,
    /// What the pods answered to `GET /v1/cluster`; who did not answer is not there.
    pub answers: Vec<(String, ClusterAnswer)>,
}

impl Look {
    /// The planner's view of it, with what the status has told before.
    #[must_use]
    pub fn observed(&self, wanted: &Wanted, before: &RateLimitClusterStatus) -> Observed {
        let answers: Vec<_> = self.answers.iter().map(|(pod, answer)| (pod.as_str(), answer)).collect();
        let read = Read {
            uid: &wanted.uid,
            stateful_set: self.stateful_set.as_ref(),
            pods: &self.pods,
            claims: &self.claims,
            founding: self.founding.as_ref(),
            answers: &answers,
            in_the_way: self.in_the_way.as_ref(),
            was_founded: before.cluster_id.is_some(),
            operation: before.operation.as_ref(),
        };
        Observed::new(&wanted.names, &read)
    }

    /// What the leader answered.
    #[must_use]
    pub fn leader(&self) -> Option<&ClusterAnswer> {
        observed::leading(self.answers.iter().map(|(_, answer)| answer))
    }

    /// The uid of the cluster's object of this kind and name; `None` if there is none.
    #[must_use]
    pub fn uid_of(&self, kind: &str, name: &str) -> Option<String> {
        let is_it = |(other, metadata): &&(&str, ObjectMeta)| *other == kind && metadata.name.as_deref() == Some(name);
        self.objects.iter().find(is_it)?.1.uid.clone()
    }

    /// Where the node with this id is reached.
    #[must_use]
    pub fn target_of(&self, id: u64) -> Option<Target> {
        let (name, _) = self.answers.iter().find(|(_, answer)| answer.node.0 == id)?;
        self.pods.iter().filter_map(Target::of).find(|target| target.pod == *name)
    }
}

/// Reads it. What is there of a cluster of this name that was deleted is not looked at any closer.
///
/// # Errors
/// When the API server does not answer.
pub async fn look(client: &Client, limiters: &Limiters, wanted: &Wanted) -> Result<Look, Error> {
    let namespace = &wanted.namespace;
    let names = &wanted.names;
    let selector: Vec<_> = names.selector().into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    let selected = ListParams::default().labels(&selector.join(","));
    let sets: Api<StatefulSet> = Api::namespaced(client.clone(), namespace);
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let (set, peers, map) = (names.cluster(), names.peers(), names.founding());
    let (stateful_set, founding, claims, pods, others) = tokio::try_join!(
        async { sets.get_opt(&set).await.map_err(Error::api(format!("reading StatefulSet {namespace}/{set}"))) },
        async { maps.get_opt(&map).await.map_err(Error::api(format!("reading ConfigMap {namespace}/{map}"))) },
        async { claims.list(&selected).await.map_err(Error::api(format!("listing claims in {namespace}"))) },
        async { pods.list(&selected).await.map_err(Error::api(format!("listing pods in {namespace}"))) },
        Box::pin(async {
            tokio::try_join!(
                metadata::<Service>(client, namespace, &set),
                metadata::<Service>(client, namespace, &peers),
                metadata::<NetworkPolicy>(client, namespace, &set),
                metadata::<PodDisruptionBudget>(client, namespace, &set),
            )
        }),
    )?;
    let (service, headless, network_policy, budget) = others;
    // A single pod has no budget, so somebody else's is none of its business.
    let set_pods = stateful_set.as_ref().and_then(|set| set.spec.replicas).unwrap_or(0);
    let needs_budget = wanted.replicas > 1 || set_pods > 1;
    let found = [
        ("StatefulSet", stateful_set.as_ref().map(|set| set.metadata.clone())),
        ("ConfigMap", founding.as_ref().map(|map| map.metadata.clone())),
        ("Service", service),
        ("Service", headless),
        ("NetworkPolicy", network_policy),
        ("PodDisruptionBudget", budget),
    ];
    let mut found: Vec<_> = found.into_iter().filter_map(|(kind, metadata)| Some((kind, metadata?))).collect();
    let needed = found.iter().filter(|(kind, _)| needs_budget || *kind != "PodDisruptionBudget");
    let in_the_way = in_the_way(wanted, needed);
    if in_the_way.as_ref().is_some_and(|object| object.whose == Whose::Predecessor) {
        return Ok(Look { in_the_way, ..Look::default() });
    }
    let is_ours = |metadata: &ObjectMeta| whose(wanted, metadata) == Whose::Ours;
    found.retain(|(_, metadata)| is_ours(metadata));
    let answers = ask(limiters, &pods.items).await;
    Ok(Look {
        objects: found,
        stateful_set: stateful_set.filter(|set| is_ours(&set.metadata)),
        pods: pods.items,
        claims: claims.items,
        founding: founding.filter(|map| is_ours(&map.metadata)),
        in_the_way,
        answers,
    })
}

/// Whose it is, is all that matters of it.
async fn metadata<K>(client: &Client, namespace: &str, name: &str) -> Result<Option<ObjectMeta>, Error>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let found = api.get_metadata_opt(name).await;
    let found = found.map_err(Error::api(format!("reading {} {namespace}/{name}", K::kind(&()))))?;
    Ok(found.map(|found| found.metadata))
}

/// The first that does not go by itself; else the first of a cluster of this name that was deleted, which goes by itself.
fn in_the_way<'a>(wanted: &Wanted, found: impl Iterator<Item = &'a (&'static str, ObjectMeta)>) -> Option<InTheWay> {
    let others = found.map(|(kind, metadata)| {
        let name = metadata.name.as_deref().unwrap_or_default();
        InTheWay { what: format!("{kind} {}/{name}", wanted.namespace), whose: whose(wanted, metadata) }
    });
    let rank = |object: &InTheWay| u8::from(object.whose == Whose::Predecessor);
    others.filter(|object| object.whose != Whose::Ours).min_by_key(rank)
}

/// Asks all pods at once, so that one that does not answer costs no more than its own deadline.
async fn ask(limiters: &Limiters, pods: &[Pod]) -> Vec<(String, ClusterAnswer)> {
    let asked = pods.iter().filter_map(Target::of).map(|target| async move {
        match limiters.cluster(&target).await {
            Ok(answer) => target.gave(&answer).then_some((target.pod, answer)),
            Err(error) => {
                tracing::debug!("{error}");
                None
            }
        }
    });
    join_all(asked).await.into_iter().flatten().collect()
}
