//! Brings the objects and the next step about. Everything here can be done again: what is done already stays as it is,
//! and an object that is not the one that was looked at is left alone.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod};
use k8s_openapi::api::policy::v1::{Eviction, PodDisruptionBudget};
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::Status;
use kube::{Api, Client, Resource};
use quorate_crds::api::HexId;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::build::{self, Objects};
use super::names::CLUSTER_ID_ANNOTATION;
use super::observe::Look;
use super::plan::Step;
use super::validate::Wanted;
use crate::error::Error;
use crate::limiter::{CallError, Limiters};

/// Who owns the fields that the operator applies.
pub const FIELD_MANAGER: &str = "quorate-operator";

/// What came of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is done, or was done already.
    Done,
    /// Somebody said no, for now; what it waits for.
    Refused(String),
}

/// Applies the objects. The `StatefulSet` comes last, so that all that its pods need is there before them.
///
/// # Errors
/// When the API server refuses, or does not answer.
pub async fn objects(client: &Client, wanted: &Wanted, look: &Look, objects: &Objects) -> Result<(), Error> {
    apply(client, wanted, look, &objects.service).await?;
    apply(client, wanted, look, &objects.peers).await?;
    apply(client, wanted, look, &objects.network_policy).await?;
    match &objects.disruption_budget {
        Some(budget) => apply(client, wanted, look, budget).await?,
        None => remove_budget(client, wanted, look).await?,
    }
    apply(client, wanted, look, &objects.stateful_set).await
}

/// The object that was looked at is put right, whoever changed it; the uid makes sure that it is that one. One that came
/// since is not taken from whoever made it: without force the API server refuses.
async fn apply<K>(client: &Client, wanted: &Wanted, look: &Look, object: &K) -> Result<(), Error>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned,
{
    let (namespace, kind) = (&wanted.namespace, K::kind(&()));
    let mut object = object.clone();
    let name = object.meta().name.clone().unwrap_or_default();
    object.meta_mut().uid = look.uid_of(&kind, &name);
    let params = PatchParams { force: object.meta().uid.is_some(), ..PatchParams::apply(FIELD_MANAGER) };
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let applied = api.patch(&name, &params, &Patch::Apply(object)).await;
    applied.map(drop).map_err(Error::api(format!("applying {kind} {namespace}/{name}")))
}

/// A single pod has none: it would stand in the way of every drain.
async fn remove_budget(client: &Client, wanted: &Wanted, look: &Look) -> Result<(), Error> {
    let (namespace, name) = (&wanted.namespace, wanted.names.cluster());
    let Some(uid) = look.uid_of(&PodDisruptionBudget::kind(&()), &name) else { return Ok(()) };
    let api: Api<PodDisruptionBudget> = Api::namespaced(client.clone(), namespace);
    let deleted = api.delete(&name, &only(Some(uid))).await;
    gone_or_done(deleted, format!("removing PodDisruptionBudget {namespace}/{name}"))
}

/// Does one step.
///
/// # Errors
/// When the API server refuses, or does not answer.
pub async fn step(
    client: &Client,
    limiters: &Limiters,
    wanted: &Wanted,
    look: &Look,
    step: &Step,
) -> Result<Outcome, Error> {
    let (namespace, names) = (&wanted.namespace, &wanted.names);
    let done = |result: Result<(), Error>| result.map(|()| Outcome::Done);
    match step {
        Step::RecordFounding(how) => {
            let map = build::founding(wanted, how);
            let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
            let what = format!("creating ConfigMap {namespace}/{}", names.founding());
            match api.create(&PostParams::default(), &map).await {
                // Whoever came first has founded; the next look shows how.
                Err(kube::Error::Api(status)) if status.code == 409 => Ok(Outcome::Done),
                created => done(created.map(drop).map_err(Error::api(what))),
            }
        }
        Step::Bootstrap { pod, members } => {
            let founder = members.iter().find(|(_, name)| **name == names.pod(*pod)).map(|(id, _)| *id);
            let Some(target) = founder.and_then(|id| look.target_of(id)) else {
                return Ok(Outcome::Refused(format!("pod {} to answer", names.pod(*pod))));
            };
            Ok(told(limiters.bootstrap(&target, members).await))
        }
        Step::Decommission { id } => {
            let leader = look.leader().and_then(|leader| look.target_of(leader.node.0));
            let Some(target) = leader else { return Ok(Outcome::Refused("a leader".to_owned())) };
            Ok(told(limiters.decommission(&target, HexId(*id)).await))
        }
        Step::MarkClaim { claim, uid, cluster, goes_along } => {
            let patch = mark(wanted, *claim, uid, cluster, *goes_along);
            let name = names.claim(*claim);
            let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
            let params = PatchParams::apply(FIELD_MANAGER).force();
            let marked = api.patch(&name, &params, &Patch::Apply(patch)).await;
            done(gone_or_done(marked, format!("marking claim {namespace}/{name}")))
        }
        Step::Evict { pod, uid } => {
            let name = names.pod(*pod);
            let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
            let (params, eviction) = (PostParams::default(), eviction(wanted, *pod, uid));
            match api.create_subresource::<_, Status>("eviction", &name, &params, &eviction).await {
                Err(kube::Error::Api(status)) if status.code == 429 => {
                    Ok(Outcome::Refused(format!("the disruption budget to let pod {name} go: {}", status.message)))
                }
                evicted => done(gone_or_done(evicted, format!("evicting pod {namespace}/{name}"))),
            }
        }
        Step::DeletePod { pod, uid } => {
            let name = names.pod(*pod);
            let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
            let deleted = api.delete(&name, &only(Some(uid.clone()))).await;
            done(gone_or_done(deleted, format!("deleting pod {namespace}/{name}")))
        }
        Step::DeleteClaim { claim, uid } => {
            let name = names.claim(*claim);
            let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
            let deleted = api.delete(&name, &only(Some(uid.clone()))).await;
            done(gone_or_done(deleted, format!("deleting claim {namespace}/{name}")))
        }
    }
}

/// The uid makes sure that it is the claim that was looked at: without it, a claim that is gone would be made anew.
fn mark(wanted: &Wanted, claim: usize, uid: &str, cluster: &str, goes_along: bool) -> serde_json::Value {
    let mut metadata = json!({
        "name": wanted.names.claim(claim),
        "namespace": wanted.namespace,
        "uid": uid,
        "annotations": {CLUSTER_ID_ANNOTATION: cluster},
    });
    if goes_along {
        metadata["ownerReferences"] = json!([build::owner(wanted, false)]);
    }
    json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata})
}

/// By hand: `Api::evict` of kube 5.0 writes `delete_options`, so an API server never sees the uid.
fn eviction(wanted: &Wanted, pod: usize, uid: &str) -> Eviction {
    let preconditions = meta::Preconditions { uid: Some(uid.to_owned()), resource_version: None };
    let delete_options = meta::DeleteOptions { preconditions: Some(preconditions), ..meta::DeleteOptions::default() };
    let metadata = meta::ObjectMeta {
        name: Some(wanted.names.pod(pod)),
        namespace: Some(wanted.namespace.clone()),
        ..meta::ObjectMeta::default()
    };
    Eviction { metadata, delete_options: Some(delete_options) }
}

/// Only the object of this uid; another of its name is not meant.
fn only(uid: Option<String>) -> DeleteParams {
    let preconditions = Preconditions { uid, resource_version: None };
    DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() }
}

/// That it is gone, or another by now, is for the next look.
fn gone_or_done<T>(result: kube::Result<T>, what: String) -> Result<(), Error> {
    match result {
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        result => result.map(drop).map_err(Error::api(what)),
    }
}

/// A node that refuses does so for a reason that may pass: founders that are not up yet, a leader that is none any more.
fn told<T>(result: Result<T, CallError>) -> Outcome {
    match result {
        Ok(_) => Outcome::Done,
        Err(error) => Outcome::Refused(error.to_string()),
    }
}
