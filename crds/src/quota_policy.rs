//! The `QuotaPolicy` resource as people write it. What the figures mean, and their bounds, is checked when it becomes a
//! [`quorate_limits::Policy`] (`TryFrom<&QuotaPolicy>`). This file is its shape, and the same rules in the words of an API
//! server: bounds, patterns and CEL. `tests/admission.rs` holds both to one table; a rule that is here and not there, or
//! the other way round, is named in that table.
//!
//! Every string, list and map has a bound, or the cost of the rules could not be known and the API server would refuse
//! the definition. `maxLength` counts characters and the limiter counts bytes, so the rules say `bytes(…)`.

#![allow(clippy::duplicated_attributes, reason = "each printer column has a `type_` of its own")]

use kube::{CustomResource, KubeSchema};
use quorate_limits::Limit;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::duration::Duration;
use crate::policy_status::QuotaPolicyStatus;

/// The group and version of the resource.
pub const API_VERSION: &str = "quorate.dev/v1alpha1";
/// The kind of the resource.
pub const KIND: &str = "QuotaPolicy";
/// The domain of a policy that names none.
pub const DEFAULT_DOMAIN: &str = "default";
/// The namespace of a policy in a file that names none.
pub const DEFAULT_NAMESPACE: &str = "default";
/// The key counted by when `countBy` is not given.
pub const DEFAULT_COUNT_BY: &str = "client_id";

/// How many requests a client may make, and what happens beyond that.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "quorate.dev",
    version = "v1alpha1",
    kind = "QuotaPolicy",
    plural = "quotapolicies",
    shortname = "qp",
    category = "quorate",
    namespaced,
    status = "QuotaPolicyStatus",
    derive = "PartialEq",
    doc = "A quota: which requests it counts, by which keys, and how many it admits.",
    printcolumn(name = "Limits", type_ = "string", json_path = ".status.limits"),
    printcolumn(name = "Cluster", type_ = "string", json_path = ".spec.clusterRef.name"),
    printcolumn(name = "Enforced", type_ = "string", json_path = ".status.enforcedOn"),
    printcolumn(name = "Denied", type_ = "string", json_path = ".status.denied"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Enforced')].message",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object with `limits`")]
#[x_kube(
    validation = Rule::new("has(self.clusterRef)")
        .message("names no cluster; write clusterRef: {name: …}")
        .field_path(".clusterRef"),
    validation = Rule::new(
        "!has(self.overrides) || self.overrides.all(o, o.limits.all(l, self.limits.exists(b, b.name == l.name)))"
    )
        .message("an override's limit is no limit of this policy; name one of spec.limits")
        .field_path(".overrides"),
    validation = Rule::new(
        "!has(self.overrides) || self.overrides.all(o, o.limits.all(l, !has(l.burst) || \
         !self.limits.exists(b, b.name == l.name && b.algorithm != 'TokenBucket')))"
    )
        .message("an override's burst belongs to TokenBucket; leave it out of other limits")
        .field_path(".overrides"),
    validation = Rule::new(
        "!has(self.overrides) || self.overrides.all(o, o.limits.all(l, !has(l.burst) || l.burst > 0 || \
         !self.limits.exists(b, b.name == l.name && (has(l.limit) ? l.limit : b.limit) > 0)))"
    )
        .message("a burst of 0 would admit nothing; give at least 1, or set limit to 0 to deny everything")
        .field_path(".overrides")
)]
pub struct QuotaPolicySpec {
    /// The cluster that enforces it, in the policy's own namespace unless that cluster admits this one. Ignored in files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_ref: Option<ClusterRef>,
    /// The domain whose requests it counts.
    #[serde(default = "default_domain")]
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = Rule::new("bytes(self).size() <= 128").message("has more than 128 bytes; give at most 128"))]
    pub domain: String,
    /// Conditions that must all hold within one descriptor. Without them: every descriptor of the domain that has the
    /// `countBy` keys.
    #[serde(default, rename = "match", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(validation = distinct_matches())]
    pub matches: Vec<Match>,
    /// The keys whose values are counted apart. A descriptor that lacks one of them does not match.
    #[serde(default = "default_count_by")]
    #[schemars(length(min = 1, max = 8), inner(length(min = 1, max = 256)))]
    #[x_kube(
        merge_strategy = ListMerge::Set,
        validation = Rule::new("self.all(key, bytes(key).size() <= 256)").message("a key has more than 256 bytes")
    )]
    pub count_by: Vec<String>,
    /// The limits, all of which must admit.
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_owned()]))]
    pub limits: Vec<LimitSpec>,
    /// Other figures for more specific matches; the most specific wins, exact before longest prefix.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub overrides: Vec<OverrideSpec>,
    /// What a request beyond the limits meets.
    #[serde(default)]
    pub enforcement: Enforcement,
    /// What is answered when no decision is known in time.
    #[serde(default)]
    pub on_unavailable: OnUnavailable,
}

/// Names the cluster that enforces a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object with `name`")]
pub struct ClusterRef {
    /// The cluster's name.
    #[schemars(length(min = 1, max = 40))]
    pub name: String,
    /// The cluster's namespace, which must admit the policy's own (`allowedNamespaces`). The policy's own unless told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
}

/// A condition on the entry of a descriptor: a key, and exactly one of `exact`, `prefix` and `any`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object like {key: client_id, exact: acme}")]
#[x_kube(
    validation = Rule::new("has(self.exact) || has(self.prefix) || has(self.any)")
        .message("says no value; give one of exact, prefix or any: true"),
    validation = Rule::new(
        "!(has(self.exact) && has(self.prefix)) && !(has(self.any) && (has(self.exact) || has(self.prefix)))"
    )
        .message("says more than one value; give only one of exact, prefix and any: true"),
    validation = Rule::new("bytes(self.key).size() <= 256").message("key has more than 256 bytes").field_path(".key"),
    validation = Rule::new("!has(self.exact) || bytes(self.exact).size() <= 256")
        .message("exact has more than 256 bytes")
        .field_path(".exact"),
    validation = Rule::new("!has(self.prefix) || bytes(self.prefix).size() <= 256")
        .message("prefix has more than 256 bytes")
        .field_path(".prefix")
)]
pub struct Match {
    /// The entry's key.
    #[schemars(length(min = 1, max = 256))]
    pub key: String,
    /// The value is exactly this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub exact: Option<String>,
    /// The value starts with this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub prefix: Option<String>,
    /// `true`: the key is present.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self").message("can only be true; leave the entry out to match without this key"))]
    pub any: Option<bool>,
}

/// One named limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "an object with `name`, `algorithm`, `limit` and `window`"
)]
#[x_kube(
    validation = Rule::new("!has(self.burst) || self.algorithm == 'TokenBucket'")
        .message("burst belongs to TokenBucket; leave it out of other limits")
        .field_path(".burst"),
    validation = Rule::new("!has(self.burst) || self.burst > 0 || self.limit == 0")
        .message("a burst of 0 would admit nothing; give at least 1, or set limit to 0 to deny everything")
        .field_path(".burst")
)]
pub struct LimitSpec {
    /// Unique within the policy; lower case letters, digits and dashes.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// How it counts.
    #[x_kube(validation = Rule::new("self != 'Concurrency'")
        .message("Concurrency is not supported by this version; use FixedWindow, SlidingWindow or TokenBucket"))]
    pub algorithm: Algorithm,
    /// Hits per window; 0 denies everything.
    #[schemars(schema_with = "hits")]
    pub limit: i64,
    /// The window's length, from 1ms to 8784h (366 days).
    #[x_kube(validation = window_bounds())]
    pub window: Duration,
    /// Capacity of a `TokenBucket` in hits; `limit` unless told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "optional_hits")]
    pub burst: Option<i64>,
}

/// Other figures for what matches more specifically.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object with `match` and `limits`")]
pub struct OverrideSpec {
    /// Conditions that must all hold within the descriptor that matched the policy.
    #[serde(rename = "match")]
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(validation = distinct_matches())]
    pub matches: Vec<Match>,
    /// The limits whose figures differ.
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_owned()]))]
    pub limits: Vec<OverrideLimit>,
}

/// Figures in place of those of the limit of the same name; at least one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object with `name` and the figures that differ")]
#[x_kube(validation = Rule::new("has(self.limit) || has(self.window) || has(self.burst)")
    .message("changes nothing; give limit, window or burst"))]
pub struct OverrideLimit {
    /// The name of one of the policy's limits.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Hits per window; 0 denies everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "optional_hits")]
    pub limit: Option<i64>,
    /// The window's length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = window_bounds())]
    pub window: Option<Duration>,
    /// Capacity of a `TokenBucket` in hits. When only `limit` is given, the capacity is that limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "optional_hits")]
    pub burst: Option<i64>,
}

/// How a limit counts: `FixedWindow` (starts with its first hit), `SlidingWindow` (the current window and a weighted
/// share of the one before), `TokenBucket` (refills steadily), `Concurrency` (later).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs, reason = "docs on variants would turn the schema's enum into oneOf; the type's docs name them")]
pub enum Algorithm {
    FixedWindow,
    SlidingWindow,
    TokenBucket,
    Concurrency,
}

/// What a request beyond the limits meets: `Enforce` denies it, `Shadow` counts and reports but denies nothing,
/// `Disabled` takes the policy out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs, reason = "as in Algorithm")]
pub enum Enforcement {
    #[default]
    Enforce,
    Shadow,
    Disabled,
}

/// What is answered when no decision is known in time: `Deny`, or `Allow` (which may admit more than the quota).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs, reason = "as in Algorithm")]
pub enum OnUnavailable {
    #[default]
    Deny,
    Allow,
}

fn default_domain() -> String {
    DEFAULT_DOMAIN.to_owned()
}

fn default_count_by() -> Vec<String> {
    vec![DEFAULT_COUNT_BY.to_owned()]
}

fn distinct_matches() -> kube::core::Rule {
    kube::core::Rule::new("self.all(m, self.exists_one(n, n == m))")
        .message("an entry is there twice; remove one of them")
}

fn window_bounds() -> kube::core::Rule {
    kube::core::Rule::new("duration(self) >= duration('1ms') && duration(self) <= duration('8784h')")
        .message("is out of bounds; give 1ms to 8784h (366 days)")
}

fn hits(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "format": "int64", "minimum": 0, "maximum": Limit::LIMIT_MAX })
}

fn optional_hits(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = hits(generator);
    schema.insert("nullable".to_owned(), true.into());
    schema
}
