//! A `RateLimitCluster`, stage by stage. Each is a file; but for `observe`, `apply` and `reconcile` each is pure: no client,
//! no clock, no randomness.
//!
//! 1. [`observe`] reads everything there is (client), [`ownership`] says whose it is, and [`observed`] makes the planner's
//!    view of it;
//! 2. [`validate`] makes [`Wanted`] of the spec, or says what is wrong with it;
//! 3. [`mod@plan`] compares the two: one operation at a time, and its next [`Step`];
//! 4. [`status`] tells of it, with the conditions of [`findings`]; it is written before anything is done;
//! 5. [`build`] makes the objects of the cluster's present size; it cannot fail;
//! 6. [`apply`] brings objects and step about (client).
//!
//! `reconcile` goes through them, `refusals` says what of its failures is told, `pace` when to look again; [`pulse`] says when nodes, of which no watch tells, make it worth to look again.
//!
//! The membership belongs to the nodes' autopilot. The operator writes intents, and does what only Kubernetes can: pods,
//! claims, rollouts.

pub mod apply;
pub mod build;
pub mod findings;
pub mod names;
pub mod observe;
pub mod observed;
pub mod ownership;
mod pace;
pub mod plan;
pub mod pulse;
mod reconcile;
mod refusals;
pub mod status;
pub mod validate;

use std::fmt::Debug;
use std::sync::Arc;

use futures::channel::mpsc;
use futures::future::join_all;
use futures::{Stream, StreamExt as _};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::core::PartialObjectMeta;
use kube::runtime::controller::{self, Controller};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Api, Resource, ResourceExt as _};
use tokio::sync::watch;

use crate::context::Context;
use reconcile::{Guarded, Shared};

pub use names::Names;
pub use observed::Observed;
pub use plan::{InFlight, Plan, Step, plan};
pub use validate::Wanted;

/// The label `controller` of this controller's metrics.
const CONTROLLER: &str = "cluster";
/// The most clusters that are looked at at once.
const CONCURRENCY: u16 = 16;

/// Runs until it is told to stop, which is when `stop` turns true; what it is at is brought to its end.
pub async fn run(context: Context, stop: watch::Receiver<bool>) {
    let scopes = context.apis::<Guarded>().into_iter().map(|clusters| run_one(&context, clusters, stop.clone()));
    join_all(scopes).await;
}

/// One scope: all namespaces, or one.
async fn run_one(context: &Context, clusters: Api<Guarded>, mut stop: watch::Receiver<bool>) {
    let shared = Arc::new(Shared::new(context.clone()));
    let (tell, told) = mpsc::unbounded();
    let controller = controller(context, clusters, told).graceful_shutdown_on(async move {
        // An error says that whoever could tell is gone.
        let _ = stop.wait_for(|stop| *stop).await;
    });
    let looks = controller.run(reconcile::reconcile, reconcile::after_error, Arc::clone(&shared)).for_each(|look| {
        match look {
            Ok(_) | Err(controller::Error::ReconcilerFailed(..)) => {}
            // Something of a cluster that is gone changed, or its pulse.
            Err(controller::Error::ObjectNotFound(gone)) => {
                let key = ObjectRef::new(&gone.name).within(gone.namespace.as_deref().unwrap_or_default());
                shared.forget(&key);
            }
            Err(error) => {
                shared.context.metrics.failed(CONTROLLER, "Watch");
                tracing::warn!("a watch broke off and is begun anew: {error}");
            }
        }
        std::future::ready(())
    });
    let pulse = shared.pulse.run(&context.limiters, |key| {
        // An error says that the controller has ended.
        let _ = tell.unbounded_send(key);
    });
    tokio::select! {
        () = looks => {}
        () = pulse => {}
    }
}

/// What is watched: the clusters, all that they own, and pods and claims, by their labels. Of everything but the clusters
/// only the metadata comes: it says that something changed, and to which cluster.
fn controller(
    context: &Context,
    clusters: Api<Guarded>,
    told: impl Stream<Item = ObjectRef<Guarded>> + Send + 'static,
) -> Controller<Guarded> {
    let namespace = clusters.namespace().map(ToOwned::to_owned);
    let ours = || watcher::Config::default().labels(names::ANY_CLUSTER);
    let (client, namespace) = (&context.client, namespace.as_deref());
    Controller::new(clusters, watcher::Config::default())
        .with_config(controller::Config::default().concurrency(CONCURRENCY))
        .owns(metadata::<StatefulSet>(client, namespace), ours())
        .owns(metadata::<Service>(client, namespace), ours())
        .owns(metadata::<NetworkPolicy>(client, namespace), ours())
        .owns(metadata::<PodDisruptionBudget>(client, namespace), ours())
        .watches(metadata::<Pod>(client, namespace), ours(), |pod| cluster_of(&pod))
        .watches(metadata::<PersistentVolumeClaim>(client, namespace), ours(), |claim| cluster_of(&claim))
        .reconcile_on(told)
}

fn metadata<K>(client: &kube::Client, namespace: Option<&str>) -> Api<PartialObjectMeta<K>>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()> + Debug,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// The cluster that a pod's or claim's labels name.
fn cluster_of<K: Resource>(object: &K) -> Option<ObjectRef<Guarded>> {
    let cluster = object.labels().get(names::CLUSTER_LABEL)?;
    Some(ObjectRef::new(cluster).within(&object.namespace()?))
}
