//! Resources for the tests of this folder.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use quorate_crds::{QuotaPolicy, RateLimitCluster};
use serde_json::json;

/// A policy `NAMESPACE/NAME` for `CLUSTER` or `NAMESPACE/CLUSTER`, of this many hits a minute.
pub(crate) fn policy(name: &str, cluster: &str, limit: i64) -> QuotaPolicy {
    let (namespace, name) = name.split_once('/').unwrap();
    let cluster = match cluster.split_once('/') {
        Some((namespace, name)) => json!({ "name": name, "namespace": namespace }),
        None => json!({ "name": cluster }),
    };
    serde_json::from_value(json!({
        "apiVersion": "quorate.dev/v1alpha1",
        "kind": "QuotaPolicy",
        "metadata": { "name": name, "namespace": namespace, "uid": format!("uid-{name}"), "generation": 1 },
        "spec": {
            "clusterRef": cluster,
            "limits": [{ "name": "minute", "algorithm": "FixedWindow", "limit": limit, "window": "1m" }]
        }
    }))
    .unwrap()
}

/// A cluster `NAMESPACE/NAME` that admits these namespaces.
pub(crate) fn cluster(name: &str, allowed: &[&str]) -> RateLimitCluster {
    let (namespace, name) = name.split_once('/').unwrap();
    serde_json::from_value(json!({
        "apiVersion": "quorate.dev/v1alpha1",
        "kind": "RateLimitCluster",
        "metadata": { "name": name, "namespace": namespace },
        "spec": { "version": "0.1.0", "allowedNamespaces": allowed }
    }))
    .unwrap()
}

/// An instant.
pub(crate) fn at(second: i64) -> Time {
    Time(Timestamp::from_second(second).unwrap())
}
