//! The pods and their claims.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{
    StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec, StatefulSetUpdateStrategy,
};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Size, owned, pod, pods};
use crate::cluster::names::VOLUME;
use crate::cluster::validate::Wanted;

/// `Parallel`, because nodes found their cluster together. `OnDelete`, because which pod may go next is the planner's to
/// say: Kubernetes' own order may take a healthy voter while another is sick. The volumes outlive it, because only the
/// planner knows whose data nobody needs.
pub(super) fn stateful_set(wanted: &Wanted, size: Size) -> StatefulSet {
    StatefulSet {
        metadata: owned(wanted, wanted.names.cluster()),
        spec: StatefulSetSpec {
            replicas: Some(i32::try_from(size.pods).unwrap_or(i32::MAX)),
            service_name: Some(wanted.names.peers()),
            pod_management_policy: Some("Parallel".to_owned()),
            update_strategy: Some(StatefulSetUpdateStrategy {
                type_: Some("OnDelete".to_owned()),
                rolling_update: None,
            }),
            persistent_volume_claim_retention_policy: Some(StatefulSetPersistentVolumeClaimRetentionPolicy {
                when_deleted: Some("Retain".to_owned()),
                when_scaled: Some("Retain".to_owned()),
            }),
            revision_history_limit: Some(2),
            selector: pods(wanted),
            template: pod::template(wanted),
            volume_claim_templates: Some(vec![claim(wanted)]),
            ..StatefulSetSpec::default()
        },
        status: None,
    }
}

fn claim(wanted: &Wanted) -> PersistentVolumeClaim {
    let storage = &wanted.spec.storage;
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(VOLUME.to_owned()),
            labels: Some(wanted.names.labels()),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            storage_class_name: storage.storage_class_name.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([("storage".to_owned(), Quantity(storage.size.clone()))])),
                limits: None,
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}
