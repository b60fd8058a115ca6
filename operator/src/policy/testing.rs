//! Resources, and a world with them, for the tests of this folder.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use quorate_crds::{QuotaPolicy, RateLimitCluster};
use serde_json::{Value, json};

use crate::context::Context;
use crate::in_memory::World;

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

/// The path of a policy `NAMESPACE/NAME`.
pub(crate) fn path(name: &str) -> String {
    let (namespace, name) = name.split_once('/').unwrap();
    format!("/apis/quorate.dev/v1alpha1/namespaces/{namespace}/quotapolicies/{name}")
}

/// The path of the cluster that [`serving`] makes.
pub(crate) const CLUSTER: &str = "/apis/quorate.dev/v1alpha1/namespaces/shop/ratelimitclusters/edge";

/// A world with a cluster `shop/edge` of three, which serves and holds its first policy; and what an operator there needs.
pub(crate) async fn serving() -> (World, Context) {
    let world = World::default();
    world.put(CLUSTER, founded("u"));
    for ordinal in 0..3 {
        let name = format!("edge-{ordinal}");
        world.put(
            &format!("/api/v1/namespaces/shop/pods/{name}"),
            json!({
                "metadata": { "name": name, "namespace": "shop", "labels": { "app.kubernetes.io/instance": "edge" } },
                "status": { "phase": "Running", "podIP": format!("127.0.0.{}", ordinal + 1) }
            }),
        );
        world.node_says(ordinal, Some(node(ordinal)));
    }
    let first =
        json!({ "metadata": { "name": "default", "namespace": "quorate" }, "spec": policy("q/d", "e", 10).spec });
    world.hold("builtin", &[first]);
    let context = world.context().await;
    (world, context)
}

/// The cluster of [`serving`], of this uid.
pub(crate) fn founded(uid: &str) -> Value {
    let mut cluster = serde_json::to_value(cluster("shop/edge", &[])).unwrap();
    cluster["metadata"]["uid"] = uid.into();
    cluster["status"] = json!({ "clusterId": "c1" });
    cluster
}

/// What a node of it says. Its members have applied whatever there is.
pub(crate) fn node(ordinal: u8) -> Value {
    let member = |ordinal: u8| {
        json!({
            "name": format!("edge-{ordinal}"), "id": format!("{}", ordinal + 1), "role": "Voter", "lag": 0,
            "appliedRevision": null, "version": "0.1.0", "reachable": true
        })
    };
    json!({
        "clusterId": "c1", "node": format!("{}", ordinal + 1), "leader": "1", "term": 1, "revision": 0,
        "members": [member(0), member(1), member(2)], "intents": [], "autopilot": null
    })
}

/// Somebody applies a policy of this many hits, for this cluster.
pub(crate) fn apply(world: &World, name: &str, cluster: &str, limit: i64) {
    let mut object = serde_json::to_value(policy(name, cluster, limit)).unwrap();
    if let Some(there) = world.get(&path(name)) {
        object["metadata"]["generation"] = (there["metadata"]["generation"].as_i64().unwrap() + 1).into();
        object["status"] = there["status"].clone();
    }
    world.put(&path(name), object);
}

/// What is told of a policy's present generation: `Accepted=True Valid, Enforced=True OnEveryMember, 3/3`.
pub(crate) fn told(world: &World, name: &str) -> String {
    let policy = world.get(&path(name)).unwrap();
    let status = &policy["status"];
    if status["observedGeneration"] != policy["metadata"]["generation"] {
        return "nothing".to_owned();
    }
    let mut told = Vec::new();
    for condition in status["conditions"].as_array().unwrap() {
        let [kind, is, reason] = ["type", "status", "reason"].map(|key| condition[key].as_str().unwrap());
        told.push(format!("{kind}={is} {reason}"));
    }
    told.extend(status["enforcedOn"].as_str().map(ToOwned::to_owned));
    told.join(", ")
}

/// As [`told`] of a policy that all judge by.
pub(crate) const ENFORCED: &str = "Accepted=True Valid, Enforced=True OnEveryMember, 3/3";
