//! Tells of policies that cannot be read: of a newer version than this operator, say, or older than their definition. It is
//! not known which cluster they name, so no keeper tells of them; keepers leave in force what their clusters hold of them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::Resource as _;
use kube::core::error_boundary::InvalidObject;
use quorate_crds::quota_policy::KIND;
use quorate_crds::{QuotaPolicy, QuotaPolicyStatus};
use quorate_limits::PolicyName;
use tokio::sync::watch;
use tokio::time::timeout;

use super::status;
use super::world::{GuardedPolicy, World};
use super::writer::FIELD_MANAGER;
use crate::context::Context;
use crate::error::Error;
use crate::write_status::{status_alone, write_status};

/// Before the next look while there are some: what could not be told is tried again, and those that are mended or gone are
/// counted no more.
const AGAIN: Duration = Duration::from_secs(5);
/// While there are none, nothing happens until it is woken.
const IDLE: Duration = Duration::from_hours(1);
/// As which their conditions are counted; no cluster is named so.
const GROUP: &str = "unreadable";

/// Which object, and the generation of its spec.
type Version = (Option<String>, Option<i64>);

/// Runs until whoever wakes it lets go of it.
pub async fn run(context: Context, world: Arc<World>, mut woken: watch::Receiver<()>) {
    // Which generation of each was told of, and what.
    let mut told: HashMap<PolicyName, (Version, Vec<Condition>)> = HashMap::new();
    loop {
        woken.mark_unchanged();
        let unreadable = world.unreadable();
        told.retain(|name, _| unreadable.contains_key(name));
        let pause = if unreadable.is_empty() { IDLE } else { AGAIN };
        for (name, policy) in unreadable {
            let version = (policy.meta().uid.clone(), policy.meta().generation);
            if told.get(&name).is_some_and(|(told, _)| *told == version) {
                continue;
            }
            match tell(&context, &policy).await {
                Ok(conditions) => {
                    told.insert(name, (version, conditions));
                }
                // It is gone, or another of its name is there, which will be looked at in turn.
                Err(error) if matches!(error.label(), "NotFound" | "Conflict") => {}
                Err(error) => {
                    context.metrics.failed("policy", error.label());
                    tracing::warn!("{error}");
                }
            }
        }
        let conditions = told.values().flat_map(|(_, conditions)| conditions);
        context.metrics.set_conditions(KIND, GROUP.to_owned(), conditions);
        // An error says that whoever wakes it is gone.
        if let Ok(Err(_)) = timeout(pause, woken.changed()).await {
            return;
        }
    }
}

/// Writes it, if it is not what is there, and says what the conditions are.
async fn tell(context: &Context, policy: &GuardedPolicy) -> Result<Vec<Condition>, Error> {
    let Err(InvalidObject { error, metadata }) = &policy.0 else { return Ok(Vec::new()) };
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    let name = metadata.name.as_deref().unwrap_or_default();
    let current: QuotaPolicyStatus = status_alone::<QuotaPolicy, _>(&context.client, namespace, name).await?;
    let told = status::unreadable(metadata.generation, current.clone(), error, &Time(Timestamp::now()));
    if told.status != current {
        write_status::<GuardedPolicy>(&context.client, FIELD_MANAGER, metadata, &told.status).await?;
        context.metrics.policies().status_written();
        context.events.tell(&policy.object_ref(&()), &current.conditions, &told.findings).await;
    }
    Ok(told.status.conditions)
}
