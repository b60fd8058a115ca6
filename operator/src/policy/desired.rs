//! What a cluster is to hold of the operator's policies, compared with what it holds. Pure.
//!
//! A cluster's policies have one revision, which every change raises by one. So the same cluster at the same revision
//! holds the same policies, and nothing needs to be read again to know that nobody changed them.

use std::collections::{BTreeMap, BTreeSet};

use quorate_crds::api::OwnerName;
use quorate_crds::{QuotaPolicy, QuotaPolicySpec, Reason, SET_BYTES_MAX};
use quorate_limits::{Policy, PolicyName};

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
    /// The policy; `None` when a newer limiter knows more of it than this operator can read.
    pub policy: Option<Policy>,
}

impl Held {
    /// What a node listed.
    #[must_use]
    pub fn read(cluster_id: &str, rows: PolicyRows) -> Self {
        let read = rows.policies.into_iter().map(|row| {
            let spec: Option<QuotaPolicySpec> = serde_json::from_value(row.spec).ok();
            let resource = spec.map(|spec| QuotaPolicy { metadata: row.metadata.clone(), spec, status: None });
            let name = PolicyName {
                namespace: row.metadata.namespace.unwrap_or_default(),
                name: row.metadata.name.unwrap_or_default(),
            };
            let policy = resource.and_then(|resource| Policy::try_from(&resource).ok());
            (name, HeldRow { owner: row.owner, revision: row.revision, policy })
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
    pub fn is(&self, set: &BTreeMap<PolicyName, Policy>) -> bool {
        let ours = self.rows.iter().filter(|(_, row)| row.owner == OwnerName::Operator);
        ours.map(|(name, row)| (name, row.policy.as_ref())).eq(set.iter().map(|(name, policy)| (name, Some(policy))))
    }

    /// What is held once the cluster answered a push of this set with this revision. `None` when somebody else changed
    /// policies meanwhile, so that it has to be read.
    #[must_use]
    pub fn after(mut self, set: &BTreeMap<PolicyName, Policy>, revision: u64) -> Option<Self> {
        let changed = !self.is(set);
        if revision != self.revision + u64::from(changed) {
            return None;
        }
        self.rows.retain(|name, row| row.owner != OwnerName::Operator || set.contains_key(name));
        for (name, policy) in set {
            let row = self.ours(name);
            if row.is_none_or(|row| row.policy.as_ref() != Some(policy)) {
                let row = HeldRow { owner: OwnerName::Operator, revision, policy: Some(policy.clone()) };
                self.rows.insert(name.clone(), row);
            }
        }
        self.revision = revision;
        Some(self)
    }
}

/// What the limiters of a cluster refused, and in which words. It is tried again when it, or their version, changes.
pub type Unsupported = BTreeMap<PolicyName, (Policy, String)>;

/// What a cluster is to hold of the operator's policies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// The set to push.
    pub set: BTreeMap<PolicyName, Policy>,
    /// The policies that take no part, and why.
    pub refused: BTreeMap<PolicyName, Refusal>,
}

/// The desired set: every candidate that may take part. One that is wrong loses nothing: what the cluster holds of it stays
/// in force. So does what is `frozen`: policies of which it is not known what they want.
#[must_use]
pub fn desired(
    candidates: &[Candidate],
    frozen: &BTreeSet<PolicyName>,
    held: &Held,
    unsupported: &Unsupported,
) -> Desired {
    let mut desired = Desired::default();
    let others =
        held.rows.values().filter(|row| !matches!(row.owner, OwnerName::Operator | OwnerName::Builtin)).count();
    let mut room = Room {
        policies: (Policy::COUNT_MAX as usize).saturating_sub(others + 1),
        bytes: SET_BYTES_MAX - ENVELOPE_BYTES,
    };
    for name in frozen {
        keep(held, name, &mut room, &mut desired);
    }
    for candidate in candidates {
        let name = name_of(&candidate.resource);
        let policy = match takes_part(candidate, &name, held, unsupported) {
            Ok(policy) => policy,
            Err(refusal) => {
                if matches!(refusal.reason, Reason::Invalid | Reason::Unsupported) {
                    keep(held, &name, &mut room, &mut desired);
                }
                desired.refused.insert(name, refusal);
                continue;
            }
        };
        if room.take(policy) {
            desired.set.insert(name, policy.clone());
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
    if let Some(policy) = held.ours(name).and_then(|row| row.policy.as_ref())
        && room.take(policy)
    {
        desired.set.insert(name.clone(), policy.clone());
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
    fn take(&mut self, policy: &Policy) -> bool {
        let bytes = serde_json::to_vec(&QuotaPolicy::from(policy)).map_or(usize::MAX, |json| json.len() + 1);
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
