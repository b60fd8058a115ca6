//! Tells of policies that cannot be read: of a newer version than this operator, say, or older than their definition. It is
//! not known which cluster they name, so no keeper tells of them; keepers leave in force what their clusters hold of them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
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

/// Before it is tried again to tell what could not be told.
const AGAIN: Duration = Duration::from_secs(5);
/// Otherwise nothing happens until it is woken.
const IDLE: Duration = Duration::from_hours(1);

/// Runs until whoever wakes it lets go of it.
pub async fn run(context: Context, world: Arc<World>, mut woken: watch::Receiver<()>) {
    // Which generation of each was told of.
    let mut told: HashMap<PolicyName, (Option<String>, Option<i64>)> = HashMap::new();
    loop {
        woken.mark_unchanged();
        let unreadable = world.unreadable();
        told.retain(|name, _| unreadable.contains_key(name));
        let mut pause = IDLE;
        for (name, policy) in unreadable {
            let version = (policy.meta().uid.clone(), policy.meta().generation);
            if told.get(&name) == Some(&version) {
                continue;
            }
            match tell(&context, &policy).await {
                Ok(()) => {
                    told.insert(name, version);
                }
                // It is gone, or another of its name is there, which will be looked at in turn.
                Err(error) if matches!(error.label(), "NotFound" | "Conflict") => {}
                Err(error) => {
                    context.metrics.failed("policy", error.label());
                    tracing::warn!("{error}");
                    pause = AGAIN;
                }
            }
        }
        // An error says that whoever wakes it is gone.
        if let Ok(Err(_)) = timeout(pause, woken.changed()).await {
            return;
        }
    }
}

async fn tell(context: &Context, policy: &GuardedPolicy) -> Result<(), Error> {
    let Err(InvalidObject { error, metadata }) = &policy.0 else { return Ok(()) };
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    let name = metadata.name.as_deref().unwrap_or_default();
    let current: QuotaPolicyStatus = status_alone::<QuotaPolicy, _>(&context.client, namespace, name).await?;
    let told = status::unreadable(metadata.generation, current.clone(), error, &Time(Timestamp::now()));
    if told.status != current {
        write_status::<GuardedPolicy>(&context.client, FIELD_MANAGER, metadata, &told.status).await?;
        context.metrics.policies().status_written();
        context.events.tell(&policy.object_ref(&()), &current.conditions, &told.findings).await;
    }
    context.metrics.set_conditions(KIND, format!("{namespace}/{name}"), &told.status.conditions);
    Ok(())
}
