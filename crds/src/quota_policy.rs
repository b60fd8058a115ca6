//! The `QuotaPolicy` resource as people write it. What the figures mean, and their bounds, is checked when it becomes a
//! [`quorate_limits::Policy`] (`TryFrom<&QuotaPolicy>`); this file is only its shape.

use kube::CustomResource;
use quorate_limits::Limit;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::duration::Duration;

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
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "quorate.dev",
    version = "v1alpha1",
    kind = "QuotaPolicy",
    plural = "quotapolicies",
    shortname = "qp",
    category = "quorate",
    namespaced,
    derive = "PartialEq",
    doc = "A quota: which requests it counts, by which keys, and how many it admits."
)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object with `limits`")]
pub struct QuotaPolicySpec {
    /// The cluster that enforces it, in the policy's own namespace unless that cluster admits this one. Ignored in files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_ref: Option<ClusterRef>,
    /// The domain whose requests it counts.
    #[serde(default = "default_domain")]
    #[schemars(length(min = 1, max = 128))]
    pub domain: String,
    /// Conditions that must all hold within one descriptor. Without them: every descriptor of the domain that has the
    /// `countBy` keys.
    #[serde(default, rename = "match", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub matches: Vec<Match>,
    /// The keys whose values are counted apart. A descriptor that lacks one of them does not match.
    #[serde(default = "default_count_by")]
    #[schemars(length(min = 1, max = 8), inner(length(min = 1, max = 256)))]
    pub count_by: Vec<String>,
    /// The limits, all of which must admit.
    #[schemars(length(min = 1, max = 16))]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object with `name`")]
pub struct ClusterRef {
    /// The cluster's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// A condition on the entry of a descriptor: a key, and exactly one of `exact`, `prefix` and `any`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object like {key: client_id, exact: acme}")]
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
    pub any: Option<bool>,
}

/// One named limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "an object with `name`, `algorithm`, `limit` and `window`"
)]
pub struct LimitSpec {
    /// Unique within the policy; lower case letters, digits and dashes.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// How it counts.
    pub algorithm: Algorithm,
    /// Hits per window; 0 denies everything.
    #[schemars(schema_with = "hits")]
    pub limit: i64,
    /// The window's length, from 1ms to 8784h (366 days).
    pub window: Duration,
    /// Capacity of a `TokenBucket` in hits; `limit` unless told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "optional_hits")]
    pub burst: Option<i64>,
}

/// Other figures for what matches more specifically.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object with `match` and `limits`")]
pub struct OverrideSpec {
    /// Conditions that must all hold within the descriptor that matched the policy.
    #[serde(rename = "match")]
    #[schemars(length(min = 1, max = 16))]
    pub matches: Vec<Match>,
    /// The limits whose figures differ.
    #[schemars(length(min = 1, max = 16))]
    pub limits: Vec<OverrideLimit>,
}

/// Figures in place of those of the limit of the same name; at least one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object with `name` and the figures that differ")]
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

fn hits(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "format": "int64", "minimum": 0, "maximum": Limit::LIMIT_MAX })
}

fn optional_hits(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = hits(generator);
    schema.insert("nullable".to_owned(), true.into());
    schema
}
