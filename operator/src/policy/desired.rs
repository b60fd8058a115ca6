//! What a cluster is to hold of the operator's policies, compared with what it holds. Pure.
//!
//! A cluster's policies have one revision, which every change raises by one. So the same cluster at the same revision
//! holds the same policies, and nothing needs to be read again to know that nobody changed them.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use quorate_crds::api::OwnerName;
use quorate_crds::quota_policy::{API_VERSION, KIND};
use quorate_crds::{QuotaPolicy, QuotaPolicySpec, Reason, SET_BYTES_MAX};
use quorate_limits::{Policy, PolicyName};
use serde::{Deserialize as _, Serialize};
use serde_json::{Value, json};

use super::select::{Candidate, Refusal, name_of};
use crate::limiter::PolicyRows;

/// What the body of a set holds besides its policies.
const ENVELOPE_BYTES: usize = 1024;

/// A cluster's policies as they were last known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Whose they are.
    pub cluster_id: String,
    /// Their revision.
    pub revision: u64,
    /// All of them, of every owner.
    pub rows: BTreeMap<PolicyName, HeldRow>,
}

/// A policy that a cluster holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldRow {
    /// Who wrote it.
    pub owner: OwnerName,
    /// The revision it came into force with.
    pub revision: u64,
    /// What it says.
    pub content: Content,
}

/// What a policy says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A policy.
    Known(Policy),
    /// The spec of one of which a newer limiter knows more than this operator can read. Pushed back word for word, it stays
    /// what it is.
    Raw(Value),
}

impl Content {
    fn read(metadata: &ObjectMeta, spec: Value) -> Self {
        let read = || {
            let spec = QuotaPolicySpec::deserialize(&spec).ok()?;
            Policy::try_from(&QuotaPolicy { metadata: metadata.clone(), spec, status: None }).ok()
        };
        match read() {
            Some(policy) => Self::Known(policy),
            None => Self::Raw(spec),
        }
    }

    /// As a node reads the policy of this name.
    #[must_use]
    pub fn resource(&self, name: &PolicyName) -> Resource<'_> {
        match self {
            Self::Known(policy) => Resource::Known(Box::new(policy.into())),
            Self::Raw(spec) => {
                let metadata = json!({ "name": name.name, "namespace": name.namespace });
                Resource::Raw { api_version: API_VERSION, kind: KIND, metadata, spec }
            }
        }
    }
}

impl Held {
    /// What a node listed.
    #[must_use]
    pub fn read(cluster_id: &str, rows: PolicyRows) -> Self {
        let read = rows.policies.into_iter().map(|row| {
            let content = Content::read(&row.metadata, row.spec);
            let name = PolicyName {
                namespace: row.metadata.namespace.unwrap_or_default(),
                name: row.metadata.name.unwrap_or_default(),
            };
            (name, HeldRow { owner: row.owner, revision: row.revision, content })
        });
        Self { cluster_id: cluster_id.to_owned(), revision: rows.revision, rows: read.collect() }
    }

    /// The operator's policy of this name.
    #[must_use]
    pub fn ours(&self, name: &PolicyName) -> Option<&HeldRow> {
        self.rows.get(name).filter(|row| row.owner == OwnerName::Operator)
    }

    /// Whether the operator's policies are exactly these.
    #[must_use]
    pub fn is(&self, set: &BTreeMap<PolicyName, Content>) -> bool {
        let ours = self.rows.iter().filter(|(_, row)| row.owner == OwnerName::Operator);
        ours.map(|(name, row)| (name, &row.content)).eq(set)
    }

    /// What is held once the cluster answered a push of this set with this revision. `None` when that has to be read: when
    /// somebody else changed policies meanwhile, or may have.
    ///
    /// A push that changes nothing leaves the revision as it is. So the cluster says itself that what this operator could
    /// not read of it is what was pushed.
    #[must_use]
    pub fn after(mut self, set: &BTreeMap<PolicyName, Content>, revision: u64) -> Option<Self> {
        let is_ours = |row: &HeldRow| row.owner == OwnerName::Operator;
        let mut is_other = self.rows.iter().any(|(name, row)| is_ours(row) && !set.contains_key(name));
        let mut may_be_other = false;
        for (name, content) in set {
            match self.ours(name).map(|row| &row.content) {
                Some(held) if held == content => {}
                Some(Content::Raw(_)) => may_be_other = true,
                _ => is_other = true,
            }
        }
        let is_known = match revision.checked_sub(self.revision) {
            Some(0) => !is_other,
            Some(1) => is_other && !may_be_other,
            _ => false,
        };
        if !is_known {
            return None;
        }
        self.rows.retain(|name, row| !is_ours(row) || set.contains_key(name));
        for (name, content) in set {
            let before = self.ours(name);
            let since = before.filter(|row| !is_other || row.content == *content).map_or(revision, |row| row.revision);
            let row = HeldRow { owner: OwnerName::Operator, revision: since, content: content.clone() };
            self.rows.insert(name.clone(), row);
        }
        self.revision = revision;
        Some(self)
    }
}

/// A policy in the body of a set.
#[derive(Serialize)]
#[serde(untagged)]
pub enum Resource<'a> {
    /// One that this operator knows all of.
    Known(Box<QuotaPolicy>),
    /// One that it does not.
    #[serde(rename_all = "camelCase")]
    Raw {
        /// Of every policy.
        api_version: &'static str,
        /// Of every policy.
        kind: &'static str,
        /// Its name and namespace.
        metadata: Value,
        /// As a node told it.
        spec: &'a Value,
    },
}

/// Policies of which it is not known what they want.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unknown {
    /// These.
    pub policies: BTreeSet<PolicyName>,
    /// All of these namespaces.
    pub namespaces: BTreeSet<String>,
}

impl Unknown {
    fn contains(&self, name: &PolicyName) -> bool {
        self.policies.contains(name) || self.namespaces.contains(&name.namespace)
    }
}

/// What the limiters of a cluster refused, and in which words. It is tried again when it, or their version, changes.
pub type Unsupported = BTreeMap<PolicyName, (Policy, String)>;

/// What a cluster is to hold of the operator's policies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// The set to push.
    pub set: BTreeMap<PolicyName, Content>,
    /// The policies that take no part, and why.
    pub refused: BTreeMap<PolicyName, Refusal>,
}

/// The desired set: every candidate that may take part. One that is wrong loses nothing: what the cluster holds of it stays
/// in force. So does what is `unknown`.
#[must_use]
pub fn desired(candidates: &[Candidate], unknown: &Unknown, held: &Held, unsupported: &Unsupported) -> Desired {
    let mut desired = Desired::default();
    let others =
        held.rows.values().filter(|row| !matches!(row.owner, OwnerName::Operator | OwnerName::Builtin)).count();
    let mut room = Room {
        policies: (Policy::COUNT_MAX as usize).saturating_sub(others + 1),
        bytes: SET_BYTES_MAX - ENVELOPE_BYTES,
    };
    for name in held.rows.keys().filter(|name| unknown.contains(name)) {
        keep(held, name, &mut room, &mut desired);
    }
    for candidate in candidates {
        let name = name_of(&candidate.resource);
        let content = match takes_part(candidate, &name, held, unsupported) {
            Ok(policy) => Content::Known(policy.clone()),
            Err(refusal) => {
                if matches!(refusal.reason, Reason::Invalid | Reason::Unsupported) {
                    keep(held, &name, &mut room, &mut desired);
                }
                desired.refused.insert(name, refusal);
                continue;
            }
        };
        if room.take(&name, &content) {
            desired.set.insert(name, content);
        } else {
            desired.refused.insert(name, too_many());
        }
    }
    desired
}

fn takes_part<'a>(
    candidate: &'a Candidate,
    name: &PolicyName,
    held: &Held,
    unsupported: &Unsupported,
) -> Result<&'a Policy, Refusal> {
    let policy = candidate.policy.as_ref().map_err(Clone::clone)?;
    let elsewhere = match held.rows.get(name).map(|row| row.owner) {
        Some(OwnerName::Files) => Some("the nodes' policy files; delete it there"),
        Some(OwnerName::Api) => {
            Some("the admin API; delete it there (DELETE /v1/policies/NAMESPACE/NAME on the admin port)")
        }
        Some(OwnerName::Operator | OwnerName::Builtin) | None => None,
    };
    if let Some(owner) = elsewhere {
        let message = format!(
            "the cluster has a policy {}/{} from {owner}, or name this one differently",
            name.namespace, name.name
        );
        return Err(Refusal::new(Reason::OwnedElsewhere, message));
    }
    match unsupported.get(name) {
        Some((refused, words)) if refused == policy => Err(Refusal::new(
            Reason::Unsupported,
            format!("the cluster's limiters refuse it: {words}; raise the cluster's spec.version, or leave that out"),
        )),
        _ => Ok(policy),
    }
}

fn keep(held: &Held, name: &PolicyName, room: &mut Room, desired: &mut Desired) {
    if let Some(row) = held.ours(name)
        && room.take(name, &row.content)
    {
        desired.set.insert(name.clone(), row.content.clone());
    }
}

fn too_many() -> Refusal {
    let message = format!(
        "a cluster holds at most {} policies, whose set has at most {SET_BYTES_MAX} bytes; those that came first are in \
         force. Delete some, make one policy with overrides of several, or use another cluster",
        Policy::COUNT_MAX
    );
    Refusal::new(Reason::TooMany, message)
}

/// What still fits into the set.
struct Room {
    policies: usize,
    bytes: usize,
}

impl Room {
    fn take(&mut self, name: &PolicyName, content: &Content) -> bool {
        let bytes = serde_json::to_vec(&content.resource(name)).map_or(usize::MAX, |json| json.len() + 1);
        if self.policies == 0 || bytes > self.bytes {
            return false;
        }
        self.policies -= 1;
        self.bytes -= bytes;
        true
    }
}

#[cfg(test)]
mod tests;
