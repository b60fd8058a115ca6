//! One `QuotaPolicy` out of text, or a set of them out of a body. JSON and YAML go the same way: text, tree, resource,
//! policy.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use quorate_limits::{Owner, Policy};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_yaml::Value;

use crate::api::{OwnerName, policy_ref};
use crate::error::{FieldError, quoted};
use crate::quota_policy::{API_VERSION, KIND, QuotaPolicy, QuotaPolicySpec};
use crate::tree::{SET_BYTES_MAX, TEXT_BYTES_MAX, json_value, yaml_value};

/// Reads the body of `PUT /v1/policies/{ns}/{name}`: one `QuotaPolicy`, as YAML or as JSON.
///
/// # Errors
/// All that is wrong with it, by field.
pub fn parse_policy(body: &[u8], is_yaml: bool) -> Result<Policy, Vec<FieldError>> {
    let value = if is_yaml { yaml_value(body) } else { json_value(body, TEXT_BYTES_MAX) };
    policy_from_value(value.map_err(|error| vec![error])?)
}

/// A set of policies, as a body gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsedSet {
    /// Whose they are; [`Owner::Api`] unless told.
    pub owner: Owner,
    /// The cluster they are for, when that was told.
    pub cluster_id: Option<String>,
    /// All of the owner's policies.
    pub policies: Vec<Policy>,
}

/// Reads the body of `POST /v1/policies:apply` (JSON).
///
/// # Errors
/// All that is wrong with it, by field. A name that is there twice is refused.
pub fn parse_policy_set(body: &[u8]) -> Result<ParsedSet, Vec<FieldError>> {
    #[derive(Deserialize)]
    #[serde(
        rename_all = "camelCase",
        deny_unknown_fields,
        expecting = "an object with `owner`, `clusterId` and `policies`"
    )]
    struct Set {
        owner: Option<OwnerName>,
        cluster_id: Option<String>,
        policies: Vec<Value>,
    }

    let value = json_value(body, SET_BYTES_MAX).map_err(|error| vec![error])?;
    let set: Set = serde_path_to_error::deserialize(value).map_err(|e| vec![FieldError::from_serde(&e)])?;
    let mut errors = Vec::new();
    if set.owner == Some(OwnerName::Builtin) {
        errors.push(FieldError::new("owner", "builtin is the limiter's own; use api, files or operator"));
    }
    let mut names = BTreeSet::new();
    let mut policies = Vec::with_capacity(set.policies.len());
    for (i, value) in set.policies.into_iter().enumerate() {
        let path = format!("policies[{i}]");
        match policy_from_value(value) {
            Ok(policy) => {
                if !names.insert(policy.name.clone()) {
                    let message = format!("{} is there twice; keep one of them", policy_ref(&policy.name));
                    errors.push(FieldError::new("metadata.name", message).within(&path));
                }
                policies.push(policy);
            }
            Err(found) => errors.extend(found.into_iter().map(|error| error.within(&path))),
        }
    }
    let owner = set.owner.map_or(Owner::Api, Owner::from);
    if errors.is_empty() { Ok(ParsedSet { owner, cluster_id: set.cluster_id, policies }) } else { Err(errors) }
}

/// Makes a policy of a document's tree.
pub(crate) fn policy_from_value(value: Value) -> Result<Policy, Vec<FieldError>> {
    check_kind(&value)?;
    let document: Document = serde_path_to_error::deserialize(value).map_err(|e| vec![FieldError::from_serde(&e)])?;
    Policy::try_from(&QuotaPolicy::from(document)).map_err(|invalid| invalid.0)
}

/// Looked at first: a document of another kind is told so, not that its fields are unknown.
fn check_kind(value: &Value) -> Result<(), Vec<FieldError>> {
    let Some(fields) = value.as_mapping() else {
        return Err(vec![FieldError::new(
            "",
            format!("is no object; write a {KIND} with apiVersion, kind, metadata and spec"),
        )]);
    };
    let errors: Vec<_> = [("apiVersion", API_VERSION), ("kind", KIND)]
        .into_iter()
        .filter_map(|(field, wanted)| match fields.get(field) {
            Some(Value::String(found)) if found == wanted => None,
            Some(Value::String(found)) => {
                Some(FieldError::new(field, format!("{} is not read here; write {wanted}", quoted(found))))
            }
            Some(_) => Some(FieldError::new(field, format!("is no text; write {wanted}"))),
            None => Some(FieldError::new(field, format!("is missing; write {wanted}"))),
        })
        .collect();
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// A resource as people write it: unlike kube's own type it refuses unknown fields outside `spec` as well, so that a slip
/// in `namespace` cannot put a policy elsewhere.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document {
    #[serde(rename = "apiVersion")]
    _api_version: IgnoredAny,
    #[serde(rename = "kind")]
    _kind: IgnoredAny,
    metadata: Metadata,
    spec: QuotaPolicySpec,
    #[serde(rename = "status")]
    _status: Option<IgnoredAny>,
}

/// The fields of an object's metadata. What the API server writes there is let pass, so that what `kubectl get -o yaml`
/// prints can be read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object with `name` and `namespace`")]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    #[serde(rename = "creationTimestamp")]
    _creation_timestamp: Option<IgnoredAny>,
    #[serde(rename = "finalizers")]
    _finalizers: Option<IgnoredAny>,
    #[serde(rename = "generation")]
    _generation: Option<IgnoredAny>,
    #[serde(rename = "managedFields")]
    _managed_fields: Option<IgnoredAny>,
    #[serde(rename = "ownerReferences")]
    _owner_references: Option<IgnoredAny>,
    #[serde(rename = "resourceVersion")]
    _resource_version: Option<IgnoredAny>,
    #[serde(rename = "uid")]
    _uid: Option<IgnoredAny>,
}

impl From<Document> for QuotaPolicy {
    fn from(document: Document) -> Self {
        let Metadata { name, namespace, labels, annotations, .. } = document.metadata;
        let metadata = ObjectMeta { name, namespace, labels, annotations, ..ObjectMeta::default() };
        Self { metadata, spec: document.spec, status: None }
    }
}

#[cfg(test)]
mod tests;
