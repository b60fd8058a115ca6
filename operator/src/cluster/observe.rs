//! Reads everything there is of one cluster: its objects from the API server, never from a cache, and what its nodes say.

use futures::future::join_all;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::ListParams;
use kube::{Api, Client};
use quorate_crds::api::ClusterAnswer;
use quorate_crds::cluster_status::Operation;

use super::observed::{self, Observed, Read};
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
    /// What the pods answered to `GET /v1/cluster`; who did not answer is not there.
    pub answers: Vec<(String, ClusterAnswer)>,
}

impl Look {
    /// The planner's view of it.
    #[must_use]
    pub fn observed(&self, wanted: &Wanted, operation: Option<&Operation>) -> Observed {
        let answers: Vec<_> = self.answers.iter().map(|(pod, answer)| (pod.as_str(), answer)).collect();
        let read = Read {
            uid: &wanted.uid,
            stateful_set: self.stateful_set.as_ref(),
            pods: &self.pods,
            claims: &self.claims,
            founding: self.founding.as_ref(),
            answers: &answers,
            operation,
        };
        Observed::new(&wanted.names, &read)
    }

    /// What the leader answered.
    #[must_use]
    pub fn leader(&self) -> Option<&ClusterAnswer> {
        observed::leading(self.answers.iter().map(|(_, answer)| answer))
    }

    /// Where the node with this id is reached.
    #[must_use]
    pub fn target_of(&self, id: u64) -> Option<Target> {
        let (name, _) = self.answers.iter().find(|(_, answer)| answer.node.0 == id)?;
        self.pods.iter().filter_map(Target::of).find(|target| target.pod == *name)
    }
}

/// Reads it.
///
/// # Errors
/// When the API server does not answer, or an object of that name belongs to somebody else.
pub async fn look(client: &Client, limiters: &Limiters, wanted: &Wanted) -> Result<Look, Error> {
    let namespace = &wanted.namespace;
    let names = &wanted.names;
    let selector: Vec<_> = names.selector().into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    let selected = ListParams::default().labels(&selector.join(","));
    let sets: Api<StatefulSet> = Api::namespaced(client.clone(), namespace);
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let (set, founding) = (names.cluster(), names.founding());
    let (stateful_set, founding, claims, pods) = tokio::try_join!(
        async { sets.get_opt(&set).await.map_err(Error::api(format!("reading StatefulSet {namespace}/{set}"))) },
        async {
            maps.get_opt(&founding).await.map_err(Error::api(format!("reading ConfigMap {namespace}/{founding}")))
        },
        async { claims.list(&selected).await.map_err(Error::api(format!("listing claims in {namespace}"))) },
        async { pods.list(&selected).await.map_err(Error::api(format!("listing pods in {namespace}"))) },
    )?;
    for (kind, metadata) in [
        ("StatefulSet", stateful_set.as_ref().map(|set| &set.metadata)),
        ("ConfigMap", founding.as_ref().map(|map| &map.metadata)),
    ] {
        if let Some(metadata) = metadata.filter(|metadata| !is_ours(metadata, &wanted.uid)) {
            let name = metadata.name.clone().unwrap_or_default();
            return Err(Error::NotOurs { what: format!("{kind} {namespace}/{name}") });
        }
    }
    let answers = ask(limiters, &pods.items).await;
    Ok(Look { stateful_set, pods: pods.items, claims: claims.items, founding, answers })
}

/// Whether this cluster controls the object. One that was deleted and created again under its name meets the objects of
/// the one before until they are gone.
fn is_ours(metadata: &ObjectMeta, uid: &str) -> bool {
    let mut owners = metadata.owner_references.iter().flatten();
    owners.any(|owner| owner.controller == Some(true) && owner.uid == uid)
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
