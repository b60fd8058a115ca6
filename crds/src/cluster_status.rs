//! What the operator writes about a `RateLimitCluster`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::api::{HexId, Role};
use crate::conditions;

/// The most members a status lists. One cluster has at most [`crate::cluster::REPLICAS_MAX`] pods; a lost disk's old
/// member stands beside its new one for a while.
pub const MEMBERS_MAX: usize = 32;
/// The most next steps a status tells.
pub const NEXT_STEPS_MAX: usize = 5;

/// Where a cluster stands. Texts are made for `kubectl get`; programs read `conditions`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RateLimitClusterStatus {
    /// The generation of the spec that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The cluster's id, drawn once, as its nodes show it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub cluster_id: Option<String>,
    /// Healthy voters of those there should be: `3/3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub ready: Option<String>,
    /// Pods there are.
    #[serde(default)]
    pub replicas: i32,
    /// Pods that are ready.
    #[serde(default)]
    pub ready_replicas: i32,
    /// Selects the pods; for `kubectl scale` and autoscalers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub selector: Option<String>,
    /// How many vote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub voters: Option<Voters>,
    /// The pod that leads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub leader: Option<String>,
    /// The leader's term.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub term: Option<i64>,
    /// The members of the committed membership.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["id".to_owned()]))]
    pub members: Vec<MemberStatus>,
    /// Which versions run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<VersionStatus>,
    /// The policies of this cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policies: Option<PoliciesStatus>,
    /// The one operation in flight, written before its first step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<Operation>,
    /// What the operator will do next, first to last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5), inner(length(max = 256)))]
    pub next_steps: Vec<String>,
    /// `Ready`, `Progressing`, `Degraded`, `QuorumHealthy` and `Upgradeable`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions::schema")]
    pub conditions: Vec<Condition>,
}

/// How many vote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Voters {
    /// How many there should be: the largest odd number of at most five within the pods.
    pub desired: i32,
    /// How many there are.
    pub current: i32,
    /// How many of them are reachable and caught up.
    pub healthy: i32,
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct MemberStatus {
    /// Its Raft id, which belongs to one disk.
    #[schemars(schema_with = "hex_id")]
    pub id: HexId,
    /// Its pod.
    #[schemars(length(max = 63))]
    pub pod: String,
    /// Its part in Raft.
    #[schemars(schema_with = "role")]
    pub role: Role,
    /// Whether the leader hears from it.
    pub reachable: bool,
    /// Log entries it is behind the leader, in whole thousands; fewer count as caught up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<i64>,
    /// The version of its program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub version: Option<String>,
}

/// Which versions run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct VersionStatus {
    /// The lowest that a member runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub running: Option<String>,
    /// What all are to run.
    #[schemars(length(max = 64))]
    pub target: String,
}

/// The policies of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoliciesStatus {
    /// Those every live member judges by, of those there are: `14/14`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub enforced: Option<String>,
    /// The revision of the cluster's policies.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub revision: i64,
}

/// The operation in flight.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Operation {
    /// What is being done.
    pub kind: OperationKind,
    /// To which pod; without: to the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub pod: Option<String>,
    /// How many pods there are once it is done; only for the two kinds of scaling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// When it began, or went on after `spec.paused`.
    #[schemars(schema_with = "time")]
    pub started_at: Time,
    /// What it waits for; absent while it moves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub waits_for: Option<String>,
}

/// What is being done: `Found` the cluster, `ScaleUp`, `ScaleDown`, `ReplacePod` (roll one pod), `ReclaimClaim` (delete
/// the claim of a member that left).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs, reason = "docs on variants would turn the schema's enum into oneOf; the type's docs name them")]
pub enum OperationKind {
    Found,
    ScaleUp,
    ScaleDown,
    ReplacePod,
    ReclaimClaim,
}

fn hex_id(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "maxLength": 16 })
}

fn role(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": ["Voter", "Learner"] })
}

fn time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "format": "date-time" })
}
