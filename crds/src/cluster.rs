//! The `RateLimitCluster` resource as people write it: what they want, never what is. Rules are in the schema alone: no
//! webhook stands in the way of a change.

#![allow(clippy::duplicated_attributes, reason = "each printer column has a `type_` of its own")]

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Toleration;
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::cluster_status::RateLimitClusterStatus;
use crate::duration::Duration;

/// The kind of the resource.
pub const CLUSTER_KIND: &str = "RateLimitCluster";
/// The most pods of a cluster.
pub const REPLICAS_MAX: i32 = 9;
/// The longest name of a cluster. Pods, claims and Services have it in theirs, and a `StatefulSet` puts a hash behind it
/// into a label of at most 63 bytes.
pub const CLUSTER_NAME_BYTES_MAX: usize = 40;
/// What no name of a cluster ends in: the Service by which the nodes of a cluster find each other is its name with this.
pub const PEERS_SUFFIX: &str = "-peers";
/// In `allowedNamespaces`: every namespace.
pub const ALL_NAMESPACES: &str = "*";

/// A cluster of limiter nodes.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "quorate.dev",
    version = "v1alpha1",
    kind = "RateLimitCluster",
    plural = "ratelimitclusters",
    shortname = "rlc",
    category = "quorate",
    namespaced,
    status = "RateLimitClusterStatus",
    derive = "PartialEq",
    doc = "A cluster of limiter nodes that hold quotas together.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    validation = Rule::new(
        "self.metadata.name.size() <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')"
    )
        .message("metadata.name: use at most 40 lower case letters, digits and '-', with a letter in front: pods and \
                  Services are named after it"),
    validation = Rule::new("!self.metadata.name.endsWith('-peers')")
        .message("metadata.name: must not end in -peers: the Service by which nodes find each other is named so, and \
                  that of another cluster may be; use another name"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.ready"),
    printcolumn(name = "Leader", type_ = "string", json_path = ".status.leader"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version.running"),
    printcolumn(name = "Policies", type_ = "string", json_path = ".status.policies.enforced"),
    printcolumn(name = "Operation", type_ = "string", json_path = ".status.operation.kind"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Term", type_ = "integer", json_path = ".status.term", priority = 1),
    printcolumn(name = "Next", type_ = "string", json_path = ".status.nextSteps[0]", priority = 1)
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RateLimitClusterSpec {
    /// Pods. Up to five of them vote; more follow. Odd, because an even voter adds no safety.
    #[serde(default = "default_replicas")]
    #[schemars(range(min = 1, max = 9))]
    #[x_kube(validation = Rule::new("self % 2 == 1")
        .message("must be odd: one more than an odd number makes the cluster no safer; use 1, 3, 5, 7 or 9"))]
    pub replicas: i32,
    /// The limiter's version, which is the image's tag. It changes only here: a new operator restarts nothing.
    #[schemars(length(min = 5, max = 64), regex(pattern = r"^[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$"))]
    pub version: String,
    /// Where the image comes from.
    #[serde(default)]
    pub image: Image,
    /// The volume of each pod.
    #[serde(default)]
    pub storage: Storage,
    /// How changes of the pods are brought about.
    #[serde(default)]
    pub rollout: Rollout,
    /// What is done about losses without asking.
    #[serde(default)]
    pub recovery: Recovery,
    /// Which nodes of Kubernetes the pods run on.
    #[serde(default)]
    pub placement: Placement,
    /// CPU and memory of each pod.
    #[serde(default = "default_resources")]
    pub resources: Resources,
    /// What else the pods carry.
    #[serde(default)]
    pub pod_template: PodTemplate,
    /// What a client meets that no policy matches: `HITS/WINDOW`, counted by `client_id`, or `none`. It counts at the
    /// founding only.
    #[serde(default = "default_limit")]
    #[schemars(length(max = 45), regex(pattern = r"^(none|[0-9]{1,16}/([0-9]{1,5}(h|m|s|ms)){1,4})$"))]
    #[x_kube(
        validation = Rule::new("self == 'none' || int(self.split('/')[0]) <= 1000000000000000")
            .message("is out of bounds; give 0 to 1000000000000000 hits"),
        validation = Rule::new(
            "self == 'none' || (duration(self.split('/')[1]) >= duration('1ms') && \
             duration(self.split('/')[1]) <= duration('8784h'))"
        )
            .message("is out of bounds; give a window from 1ms to 8784h (366 days)"),
        validation = Rule::new("self == oldSelf")
            .message("counts at the founding only, so it cannot change; use a QuotaPolicy instead")
    )]
    pub default_limit: String,
    /// Namespaces whose policies may name this cluster, besides its own; `*` is every namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 63), regex(pattern = r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?|\*)$"))
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub allowed_namespaces: Vec<String>,
    /// `true`: the operator watches and changes nothing.
    #[serde(default)]
    pub paused: bool,
}

/// Where the image comes from. Its tag is the version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Image {
    /// The image without its tag.
    #[serde(default = "default_repository")]
    #[schemars(length(min = 1, max = 255), regex(pattern = r"^[a-z0-9]([a-z0-9._:/-]*[a-z0-9])?$"))]
    #[x_kube(validation = Rule::new("!self.matches(':[^/]*$')")
        .message("is given without a tag; spec.version is the tag"))]
    pub repository: String,
    /// When the kubelet asks the registry.
    #[serde(default)]
    pub pull_policy: PullPolicy,
    /// Secrets with credentials of the registry, in the cluster's namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(min = 1, max = 253)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub pull_secrets: Vec<String>,
}

impl Default for Image {
    fn default() -> Self {
        Self { repository: default_repository(), pull_policy: PullPolicy::default(), pull_secrets: Vec::new() }
    }
}

/// When the kubelet asks the registry for the image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs, reason = "docs on variants would turn the schema's enum into oneOf; these are Kubernetes' own")]
pub enum PullPolicy {
    Always,
    #[default]
    IfNotPresent,
    Never,
}

impl PullPolicy {
    /// As a pod spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

/// The volume of each pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new(
    "has(self.storageClassName) == has(oldSelf.storageClassName) && \
     (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)"
)
    .message("the class of volumes that are there cannot change; create another cluster")
    .field_path(".storageClassName"))]
pub struct Storage {
    /// Its size, 256Mi at least.
    #[serde(default = "default_size")]
    #[schemars(length(min = 1, max = 20), regex(pattern = r"^[0-9]+(Ki|Mi|Gi|Ti|k|M|G|T)?$"))]
    #[x_kube(
        validation = Rule::new("quantity(self).compareTo(quantity('256Mi')) >= 0")
            .message("is too small; give at least 256Mi"),
        validation = Rule::new("quantity(self).compareTo(quantity(oldSelf)) == 0")
            .message("of volumes that are there cannot change yet; create another cluster")
    )]
    pub size: String,
    /// Its class; the default class unless told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
    /// What becomes of it.
    #[serde(default)]
    pub retention: Retention,
}

impl Default for Storage {
    fn default() -> Self {
        Self { size: default_size(), storage_class_name: None, retention: Retention::default() }
    }
}

/// What becomes of the volumes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Retention {
    /// When the cluster is deleted.
    #[serde(default = "retain")]
    pub on_delete: RetentionPolicy,
    /// When its member has left by scaling down.
    #[serde(default = "delete")]
    pub on_scale_down: RetentionPolicy,
}

impl Default for Retention {
    fn default() -> Self {
        Self { on_delete: retain(), on_scale_down: delete() }
    }
}

/// `Retain` leaves a volume's claim where it is; `Delete` deletes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs, reason = "as in PullPolicy")]
pub enum RetentionPolicy {
    Retain,
    Delete,
}

/// How changes of the pods are brought about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rollout {
    /// Who replaces pods.
    #[serde(default)]
    pub strategy: RolloutStrategy,
    /// After this long an operation counts as stalled. It is told, and goes on.
    #[serde(default = "ten_minutes")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('30s') && duration(self) <= duration('24h')")
        .message("is out of bounds; give 30s to 24h"))]
    pub progress_deadline: Duration,
}

impl Default for Rollout {
    fn default() -> Self {
        Self { strategy: RolloutStrategy::default(), progress_deadline: ten_minutes() }
    }
}

/// `Automatic`: the operator, one at a time. `Manual`: whoever deletes them; the operator says which comes next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs, reason = "as in PullPolicy")]
pub enum RolloutStrategy {
    #[default]
    Automatic,
    Manual,
}

/// What is done about losses without asking.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Recovery {
    /// A member whose disk came back empty is swapped for the new one once its old self was away this long; one an hour,
    /// unless its claim was deleted.
    #[serde(default = "two_minutes")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('10s') && duration(self) <= duration('24h')")
        .message("is out of bounds; give 10s to 24h"))]
    pub replace_lost_disk_after: Duration,
}

impl Default for Recovery {
    fn default() -> Self {
        Self { replace_lost_disk_after: two_minutes() }
    }
}

/// Which nodes of Kubernetes the pods run on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Placement {
    /// How hard pods are kept apart.
    #[serde(default)]
    pub spread: Spread,
    /// Labels that a node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "texts::<32, 63>")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that are no obstacle.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "tolerations")]
    pub tolerations: Vec<Toleration>,
}

/// `Preferred`: on different nodes and in different zones where there is room. `Required`: never two on one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs, reason = "as in PullPolicy")]
pub enum Spread {
    #[default]
    Preferred,
    Required,
}

/// CPU and memory of each pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new(
    "!has(self.requests) || !has(self.limits) || self.requests.all(name, !(name in self.limits) || \
     quantity(self.requests[name]).compareTo(quantity(self.limits[name])) <= 0)"
)
    .message("no request may be above its limit; lower the request, or raise the limit"))]
pub struct Resources {
    /// What the scheduler sets aside.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "quantities")]
    pub requests: BTreeMap<String, String>,
    /// What they may use at most. Beyond the memory limit the kernel kills a node.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "quantities")]
    pub limits: BTreeMap<String, String>,
}

/// What else the pods carry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodTemplate {
    /// Labels, besides the operator's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "texts::<32, 63>")]
    #[x_kube(validation = foreign_keys())]
    pub labels: BTreeMap<String, String>,
    /// Annotations, besides the operator's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "texts::<32, 4096>")]
    #[x_kube(validation = foreign_keys())]
    pub annotations: BTreeMap<String, String>,
    /// The priority class of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
}

fn foreign_keys() -> kube::core::Rule {
    kube::core::Rule::new("self.all(key, !key.startsWith('app.kubernetes.io/') && !key.startsWith('quorate.dev/'))")
        .message("keys below app.kubernetes.io/ and quorate.dev/ are the operator's own; use another prefix")
}

fn default_replicas() -> i32 {
    3
}

fn default_limit() -> String {
    "10/60s".to_owned()
}

fn default_repository() -> String {
    "quorate/ratelimiter".to_owned()
}

fn default_size() -> String {
    "1Gi".to_owned()
}

fn retain() -> RetentionPolicy {
    RetentionPolicy::Retain
}

fn delete() -> RetentionPolicy {
    RetentionPolicy::Delete
}

fn ten_minutes() -> Duration {
    Duration::from_seconds(600)
}

fn two_minutes() -> Duration {
    Duration::from_seconds(120)
}

fn default_resources() -> Resources {
    let requests = [("cpu", "100m"), ("memory", "256Mi")];
    Resources {
        requests: requests.map(|(name, quantity)| (name.to_owned(), quantity.to_owned())).into(),
        limits: BTreeMap::new(),
    }
}

fn texts<const COUNT: usize, const LENGTH: usize>(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": COUNT,
        "additionalProperties": { "type": "string", "maxLength": LENGTH }
    })
}

fn quantities(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 8,
        "additionalProperties": {
            "type": "string",
            "maxLength": 20,
            "pattern": r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"
        }
    })
}

/// k8s-openapi's own schema of a toleration is without bounds.
fn tolerations(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 32,
        "items": {
            "type": "object",
            "properties": {
                "key": { "type": "string", "maxLength": 316 },
                "operator": { "type": "string", "enum": ["Equal", "Exists"] },
                "value": { "type": "string", "maxLength": 63 },
                "effect": { "type": "string", "enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"] },
                "tolerationSeconds": { "type": "integer", "format": "int64" }
            }
        }
    })
}
