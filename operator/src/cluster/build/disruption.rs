//! How many pods may be evicted at once.

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Size, owned, pods};
use crate::cluster::validate::{Wanted, voters_of};

/// As many as the voters can do without, now and at the size that is wanted. A number, never a share: a share would move
/// with the pods while the membership shrinks.
pub(super) fn budget(wanted: &Wanted, size: Size) -> Option<PodDisruptionBudget> {
    if size.pods <= 1 {
        return None;
    }
    let target = voters_of(size.pods.min(wanted.replicas));
    // Before the founding nobody votes yet, and all that are there found it.
    let voters = if size.voters == 0 { target } else { size.voters.min(target) };
    let spare = voters.saturating_sub(1) / 2;
    let min_available = i32::try_from(size.pods - spare).unwrap_or(i32::MAX);
    Some(PodDisruptionBudget {
        metadata: owned(wanted, wanted.names.cluster()),
        spec: Some(PodDisruptionBudgetSpec {
            min_available: Some(IntOrString::Int(min_available)),
            selector: Some(pods(wanted)),
            unhealthy_pod_eviction_policy: Some("IfHealthyBudget".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    })
}
