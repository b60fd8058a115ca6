//! Writes what is told of policies: only what is new, a few at a time.

use std::collections::HashMap;
use std::sync::Arc;

use futures::stream::{self, StreamExt as _};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use kube::Resource as _;
use quorate_crds::cluster_status::PoliciesStatus;
use quorate_crds::{ConditionStatus, QuotaPolicy, QuotaPolicyStatus, RateLimitCluster};
use quorate_limits::PolicyName;
use serde_json::json;

use super::select::name_of;
use super::status::Told;
use crate::context::Context;
use crate::error::Error;
use crate::write_status::write_status;

/// Who owns the fields that are written here.
pub(super) const FIELD_MANAGER: &str = "quorate-operator-policies";
/// So many are written at once.
const WRITES_MAX: usize = 8;

/// A status to write.
pub struct Write {
    /// Whose.
    pub policy: Arc<QuotaPolicy>,
    /// What is told.
    pub told: Told,
}

/// Writes statuses, and remembers them until they come back with the objects.
#[derive(Default)]
pub struct Writer {
    /// What was written last, and the version the object then had.
    written: HashMap<PolicyName, (u64, QuotaPolicyStatus)>,
}

impl Writer {
    /// What is told of a policy so far.
    #[must_use]
    pub fn current<'a>(&'a self, policy: &'a QuotaPolicy) -> Option<&'a QuotaPolicyStatus> {
        match self.written.get(&name_of(policy)) {
            Some((version, status)) if version_of(&policy.metadata) < *version => Some(status),
            _ => policy.status.as_ref(),
        }
    }

    /// Forgets what came back with its object, and objects that are gone.
    pub fn settle<'a>(&mut self, policies: impl Iterator<Item = &'a QuotaPolicy>) {
        if self.written.is_empty() {
            return;
        }
        let versions: HashMap<PolicyName, u64> =
            policies.map(|policy| (name_of(policy), version_of(&policy.metadata))).collect();
        self.written.retain(|name, (version, _)| versions.get(name).is_some_and(|seen| seen < version));
    }

    /// Writes them all. Returns how many failed and have to be tried again.
    pub async fn write(&mut self, context: &Context, writes: Vec<Write>) -> usize {
        let mut failed = 0;
        let mut results = stream::iter(writes).map(|write| patch(context, write)).buffer_unordered(WRITES_MAX);
        while let Some((write, result)) = results.next().await {
            let name = name_of(&write.policy);
            match result {
                Ok(version) => {
                    context.metrics.policies().status_written();
                    let before =
                        self.current(&write.policy).map(|status| status.conditions.clone()).unwrap_or_default();
                    tell(context, &write, &before).await;
                    self.written.insert(name, (version, write.told.status));
                }
                // It is gone, or another of its name is there, which will be looked at in turn.
                Err(error) if matches!(error.label(), "NotFound" | "Conflict") => {}
                Err(error) => {
                    failed += 1;
                    context.metrics.failed("policy", error.label());
                    tracing::warn!("{error}");
                }
            }
        }
        failed
    }
}

/// Writes what is told of a cluster's policies into its status, beside what the other controller tells there. Returns which
/// version the object has then.
///
/// # Errors
/// The API server refused, or could not be asked.
pub async fn write_cluster(context: &Context, cluster: &RateLimitCluster, told: &PoliciesStatus) -> Result<u64, Error> {
    let status = json!({ "policies": told });
    let written = write_status::<RateLimitCluster>(&context.client, FIELD_MANAGER, &cluster.metadata, &status).await;
    written.map(|cluster| version_of(&cluster.metadata))
}

/// An Event for what a person has to mend, and for that it is mended.
async fn tell(context: &Context, write: &Write, before: &[Condition]) {
    let accepted = &write.told.findings[0];
    let was_refused = before.iter().any(|c| c.type_ == accepted.condition.as_str() && c.status == "False");
    if accepted.status == ConditionStatus::False || (was_refused && accepted.status == ConditionStatus::True) {
        let about = write.policy.object_ref(&());
        context.events.tell(&about, before, std::slice::from_ref(accepted)).await;
    }
}

/// Writes one, and says which version the object has then.
async fn patch(context: &Context, write: Write) -> (Write, Result<u64, Error>) {
    let written =
        write_status::<QuotaPolicy>(&context.client, FIELD_MANAGER, &write.policy.metadata, &write.told.status).await;
    let version = written.map(|policy| version_of(&policy.metadata));
    (write, version)
}

/// The version of an object. Those of one object grow, and so do those of objects that have its name one after another.
#[must_use]
pub fn version_of(metadata: &ObjectMeta) -> u64 {
    metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}
