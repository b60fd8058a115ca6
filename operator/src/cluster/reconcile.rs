//! One look at a `RateLimitCluster`, and one step: observe → validate → plan → status → build and apply → status. What is
//! in flight is in the status before anything is done about it, so whoever comes after a crash goes on where it ended.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource as _};
use quorate_crds::cluster::CLUSTER_KIND;
use quorate_crds::cluster_status::RateLimitClusterStatus;
use quorate_crds::quota_policy::API_VERSION;
use quorate_crds::{FieldError, RateLimitCluster};
use tokio::time::timeout;

use super::apply::{self, FIELD_MANAGER, Outcome};
use super::build::{Size, build, template_name};
use super::observe::{Look, look};
use super::observed::Observed;
use super::pace::{AFTER_STEP, IN_FLIGHT, Pace, STEADY};
use super::plan::{Plan, Step, plan};
use super::pulse::Pulse;
use super::refusals::Refusals;
use super::status::{self, Told};
use super::validate::{Wanted, validate};
use super::{CONTROLLER, findings};
use crate::backoff::Backoff;
use crate::context::Context;
use crate::error::Error;
use crate::sync::lock;
use crate::write_status::{status_alone, write_status};

/// A cluster as it is watched: one that cannot be read stops no other.
pub(super) type Guarded = DeserializeGuard<RateLimitCluster>;

/// The longest that one look and step may take.
const RECONCILE_MAX: Duration = Duration::from_secs(30);

/// What the looks at the clusters of one controller share.
pub(super) struct Shared {
    pub context: Context,
    pub backoff: Backoff<ObjectRef<Guarded>>,
    pub pulse: Pulse<ObjectRef<Guarded>>,
    /// How soon each is looked at again.
    pub pace: Pace<ObjectRef<Guarded>>,
    /// What the API server refused each.
    pub refusals: Refusals<ObjectRef<Guarded>>,
    /// The step that each was refused last, and for what. That stands in the status until something else is tried: taken out
    /// and put back at each try, it would be a change to look at, and so the next try at once.
    pub refused: Mutex<HashMap<ObjectRef<Guarded>, (Step, String)>>,
}

impl Shared {
    pub fn new(context: Context) -> Self {
        Self {
            context,
            backoff: Backoff::default(),
            pulse: Pulse::default(),
            pace: Pace::default(),
            refusals: Refusals::default(),
            refused: Mutex::default(),
        }
    }

    /// The cluster is gone.
    pub fn forget(&self, key: &ObjectRef<Guarded>) {
        self.backoff.forget(key);
        self.pulse.forget(key);
        self.pace.forget(key);
        self.refusals.forget(key);
        lock(&self.refused).remove(key);
        self.context.metrics.forget(CLUSTER_KIND, object_name(key));
    }

    /// What is to be told of a failure. A namespace that goes is none.
    fn failed(&self, key: &ObjectRef<Guarded>, error: &Error, generation: Option<i64>) -> Option<String> {
        if error.is_end_of_namespace() {
            return None;
        }
        self.refusals.failed(key.clone(), error, generation, Instant::now())
    }

    /// Nodes without a leader have no pulse, so whatever changes there is not told.
    fn pause(&self, key: &ObjectRef<Guarded>, plan: &Plan, seen: &Observed) -> Duration {
        let is_waiting = plan.operation.is_some() || !plan.waits_for.is_empty() || seen.membership.is_none();
        if is_waiting { self.pace.waiting(key, Instant::now()) } else { STEADY }
    }

    /// Writes the status if it is another than before, tells of what changed, and returns what is there now.
    async fn tell(
        &self,
        key: &ObjectRef<Guarded>,
        metadata: &ObjectMeta,
        before: &RateLimitClusterStatus,
        told: Told,
    ) -> Result<RateLimitClusterStatus, Error> {
        let context = &self.context;
        context.metrics.set_conditions(CLUSTER_KIND, object_name(key), &told.status.conditions);
        // The policies are another writer's.
        let next = RateLimitClusterStatus { policies: before.policies.clone(), ..told.status.clone() };
        if next == *before {
            return Ok(next);
        }
        self.pace.changed(key.clone(), Instant::now());
        write_status::<Guarded>(&context.client, FIELD_MANAGER, metadata, &told.status).await?;
        let about = ObjectReference {
            api_version: Some(API_VERSION.to_owned()),
            kind: Some(CLUSTER_KIND.to_owned()),
            namespace: metadata.namespace.clone(),
            name: metadata.name.clone(),
            uid: metadata.uid.clone(),
            ..ObjectReference::default()
        };
        context.events.tell(&about, &before.conditions, &told.findings).await;
        Ok(next)
    }
}

fn object_name(key: &ObjectRef<Guarded>) -> String {
    format!("{}/{}", key.namespace.as_deref().unwrap_or_default(), key.name)
}

/// Looks at a cluster and does the next step.
pub(super) async fn reconcile(cluster: Arc<Guarded>, shared: Arc<Shared>) -> Result<Action, Error> {
    let key = ObjectRef::from_obj(&*cluster);
    let started = Instant::now();
    let result = timeout(RECONCILE_MAX, Box::pin(look_and_step(&key, &shared))).await;
    shared.context.metrics.reconciled(CONTROLLER, started.elapsed());
    let result = result.unwrap_or_else(|_| {
        let what = format!("a look at RateLimitCluster {}", object_name(&key));
        Err(Error::TooSlow { what, seconds: RECONCILE_MAX.as_secs() })
    });
    match result {
        Ok(action) => {
            shared.backoff.forget(&key);
            // The status says so as soon as the API server takes everything again.
            Ok(if shared.refusals.forget(&key) { Action::requeue(AFTER_STEP) } else { action })
        }
        // Nothing can be made there any more, and all that is there goes.
        Err(error) if error.is_end_of_namespace() => {
            tracing::debug!(cluster = object_name(&key), "its namespace is being deleted: {error}");
            Ok(Action::requeue(IN_FLIGHT * 5))
        }
        Err(error) => Err(error),
    }
}

/// Says how long to wait after an error, longer each time.
#[allow(clippy::needless_pass_by_value, reason = "as the controller calls it")]
pub(super) fn after_error(cluster: Arc<Guarded>, error: &Error, shared: Arc<Shared>) -> Action {
    let key = ObjectRef::from_obj(&*cluster);
    let pause = shared.backoff.failed(key.clone());
    shared.context.metrics.failed(CONTROLLER, error.label());
    tracing::warn!(cluster = object_name(&key), reason = error.label(), ?pause, "tried again later: {error}");
    Action::requeue(pause)
}

async fn look_and_step(key: &ObjectRef<Guarded>, shared: &Shared) -> Result<Action, Error> {
    let context = &shared.context;
    let namespace = key.namespace.as_deref().unwrap_or_default();
    let api: Api<Guarded> = Api::namespaced(context.client.clone(), namespace);
    // What the watch showed may be older than what was written last.
    let found = api.get_opt(&key.name).await;
    let found = found.map_err(Error::api(format!("reading RateLimitCluster {}", object_name(key))))?;
    let Some(DeserializeGuard(found)) = found else {
        shared.forget(key);
        return Ok(Action::await_change());
    };
    match found {
        Ok(cluster) => match validate(&cluster) {
            Ok(wanted) => Box::pin(step(shared, key, &cluster, &wanted)).await,
            Err(errors) => {
                let before = cluster.status.unwrap_or_default();
                refuse(shared, key, &cluster.metadata, &before, &errors).await
            }
        },
        Err(invalid) => {
            let before = status_alone::<RateLimitCluster, _>(&context.client, namespace, &key.name).await?;
            refuse(shared, key, &invalid.metadata, &before, &[FieldError::new("", invalid.error)]).await
        }
    }
}

/// Says what is wrong, and touches nothing.
async fn refuse(
    shared: &Shared,
    key: &ObjectRef<Guarded>,
    metadata: &ObjectMeta,
    before: &RateLimitClusterStatus,
    errors: &[FieldError],
) -> Result<Action, Error> {
    shared.pulse.forget(key);
    let told = status::blind(before, metadata.generation, findings::invalid(errors), &now());
    shared.tell(key, metadata, before, told).await?;
    Ok(Action::await_change())
}

async fn step(
    shared: &Shared,
    key: &ObjectRef<Guarded>,
    cluster: &RateLimitCluster,
    wanted: &Wanted,
) -> Result<Action, Error> {
    let Context { client, limiters, .. } = &shared.context;
    let generation = cluster.meta().generation;
    let before = cluster.status.clone().unwrap_or_default();
    let look = match look(client, limiters, wanted).await {
        Ok(look) => look,
        Err(error) => {
            if let Some(what) = shared.failed(key, &error, generation) {
                let findings = findings::refused(&key.name, &what);
                let told = status::blind(&before, generation, findings, &now());
                shared.tell(key, &cluster.metadata, &before, told).await?;
            }
            return Err(error);
        }
    };
    shared.pace.saw(key.clone(), &look.pods, Instant::now());
    let seen = Observed { refused: shared.refusals.told(key, generation), ..look.observed(wanted, &before) };
    let mut plan = plan(wanted, &template_name(wanted), &seen);
    let refused = lock(&shared.refused).remove(key);
    if let Some((_, what)) = refused.filter(|(step, _)| plan.step.as_ref() == Some(step)) {
        plan.waits_for = what;
    }
    match look.leader().and_then(|leader| Some((look.target_of(leader.node.0)?, leader))) {
        Some((target, answer)) => shared.pulse.watch(key.clone(), target, answer),
        None => shared.pulse.forget(key),
    }
    // Before anything is done: the operation that it belongs to.
    let told = status::status(&before, generation, wanted, &look, &seen, &plan, &now());
    let before = shared.tell(key, &cluster.metadata, &before, told).await?;
    match act(shared, key, wanted, &look, &seen, &plan).await {
        Ok(None) => Ok(Action::requeue(shared.pause(key, &plan, &seen))),
        Ok(Some((Outcome::Done, step))) => Ok(Action::requeue(shared.pace.after(key.clone(), &step, Instant::now()))),
        Ok(Some((Outcome::Refused(what), step))) => {
            tracing::info!(cluster = object_name(key), "not yet: it waits for {what}");
            lock(&shared.refused).insert(key.clone(), (step, what.clone()));
            let plan = Plan { waits_for: what, ..plan };
            let told = status::status(&before, generation, wanted, &look, &seen, &plan, &now());
            shared.tell(key, &cluster.metadata, &before, told).await?;
            Ok(Action::requeue(shared.pace.waiting(key, Instant::now())))
        }
        Err(error) => {
            if let Some(what) = shared.failed(key, &error, generation) {
                let seen = Observed { refused: Some(what), ..seen };
                let told = status::status(&before, generation, wanted, &look, &seen, &plan, &now());
                shared.tell(key, &cluster.metadata, &before, told).await?;
            }
            Err(error)
        }
    }
}

/// The objects, then the step, if there is one to do.
async fn act(
    shared: &Shared,
    key: &ObjectRef<Guarded>,
    wanted: &Wanted,
    look: &Look,
    seen: &Observed,
    plan: &Plan,
) -> Result<Option<(Outcome, Step)>, Error> {
    let Context { client, limiters, .. } = &shared.context;
    if let Some(pods) = plan.pods {
        let voters = seen.membership.as_ref().map_or(seen.voters.len(), |known| known.voters().count());
        apply::objects(client, wanted, look, &build(wanted, Size { pods, voters })).await?;
    }
    let Some(next) = &plan.step else { return Ok(None) };
    tracing::info!(cluster = object_name(key), operation = ?plan.operation, "{next}");
    let outcome = apply::step(client, limiters, wanted, look, next).await?;
    Ok(Some((outcome, next.clone())))
}

fn now() -> Time {
    Time(Timestamp::now())
}

#[cfg(test)]
mod tests;
