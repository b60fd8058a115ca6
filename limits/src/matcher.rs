//! Which policies apply to a request, and which counters they use.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::Hasher;
use std::sync::Arc;

use siphasher::sip128::{Hasher128, SipHasher13};

use crate::command::{Charge, CounterId};
use crate::conditions::{ConditionIndex, all_hold, value_of};
use crate::few::Few;
use crate::policy::{Enforcement, KeyMatch, Limit, Owner, Policy, PolicyId, PolicyName, ValueMatch};
use crate::policy_table::PolicyTable;
use crate::request::{Descriptor, Request};
use crate::settings::Settings;

/// What a request meets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matched {
    /// The revision of the request's domain; that of the whole table when no policy applies, so that a request that
    /// met nothing is judged anew after any change.
    pub revision: u64,
    /// One for each policy and descriptor that match, by descriptor, then by policy id. Empty: no limit applies and
    /// the request is admitted.
    pub charges: Few<Charge, 1>,
    /// For each charge the number of the descriptor that it is for, from 0.
    pub descriptors: Few<usize, 2>,
}

/// The policies at one revision, indexed for matching. Immutable; share it as `Arc<Rules>`.
pub struct Rules {
    founded: bool,
    secret: [u8; 16],
    table: Arc<PolicyTable>,
    domains: BTreeMap<String, Arc<DomainIndex>>,
}

impl Rules {
    /// Indexes all of a table.
    pub(crate) fn new(settings: &Settings, table: Arc<PolicyTable>) -> Self {
        let (founded, secret) = (settings.founded(), settings.secret);
        let empty = Self { founded, secret, table: Arc::default(), domains: BTreeMap::new() };
        let all = table.domains().cloned().collect();
        empty.updated(table, &all)
    }

    /// The same with another table that differs in the domains named. Copies references to all other domains.
    pub(crate) fn updated(&self, table: Arc<PolicyTable>, touched: &BTreeSet<String>) -> Self {
        let mut domains = self.domains.clone();
        for name in touched {
            match DomainIndex::build(&self.secret, &table, name) {
                Some(index) => domains.insert(name.clone(), Arc::new(index)),
                None => domains.remove(name),
            };
        }
        Self { founded: self.founded, secret: self.secret, table, domains }
    }

    /// The policies that apply to a request, and the counters to charge.
    ///
    /// Each descriptor that a policy matches makes one charge, with the descriptor's hits or else the request's. A
    /// disabled policy takes no part. Fallback policies apply when no other policy matches any descriptor.
    #[must_use]
    pub fn match_request(&self, request: &Request) -> Matched {
        let Some(domain) = self.domains.get(&request.domain) else {
            return Matched { revision: self.revision(), ..Matched::default() };
        };
        let mut matched = domain.match_in(&domain.regular, request);
        if matched.charges.is_empty() {
            matched = domain.match_in(&domain.fallback, request);
        }
        if matched.charges.is_empty() {
            matched.revision = self.revision();
        }
        matched
    }

    /// The limit that a charge's counter at `index` stands for, its override considered.
    #[must_use]
    pub fn limit(&self, charge: &Charge, index: usize) -> Option<&Limit> {
        self.table.row(charge.policy)?.limits(charge.overridden)?.get(index)
    }

    /// A policy by its id.
    #[must_use]
    pub fn policy(&self, id: PolicyId) -> Option<&Policy> {
        Some(&self.table.row(id)?.policy)
    }

    /// All policies by id, each with its owner and the revision at which it last changed.
    pub fn policies(&self) -> impl Iterator<Item = (PolicyId, Owner, u64, &Policy)> {
        self.table.rows().map(|(id, row)| (id, row.owner, row.revision, &*row.policy))
    }

    /// A policy by its name, as in [`Rules::policies`].
    #[must_use]
    pub fn find(&self, name: &PolicyName) -> Option<(PolicyId, Owner, u64, &Policy)> {
        self.table.find(name).map(|(id, row)| (id, row.owner, row.revision, &*row.policy))
    }

    /// Whether the cluster has been founded; before that nothing can be matched or decided.
    #[must_use]
    pub fn founded(&self) -> bool {
        self.founded
    }

    /// The revision of the whole table; 0 before the first policy.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.table.revision()
    }
}

impl fmt::Debug for Rules {
    /// Leaves out the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules").field("table", &self.table).finish_non_exhaustive()
    }
}

/// One domain's policies, disabled ones left out.
struct DomainIndex {
    revision: u64,
    policies: Vec<IndexedPolicy>,
    regular: ConditionIndex,
    fallback: ConditionIndex,
}

struct IndexedPolicy {
    id: PolicyId,
    policy: Arc<Policy>,
    /// One for each limit; each has taken in all of a counter's identity but the values.
    identities: Vec<SipHasher13>,
    overrides: ConditionIndex,
}

impl DomainIndex {
    fn build(secret: &[u8; 16], table: &PolicyTable, name: &str) -> Option<Self> {
        let (revision, rows) = table.domain(name)?;
        let enabled = rows.filter(|(_, row)| row.policy.enforcement != Enforcement::Disabled);
        let policies: Vec<_> = enabled.map(|(id, row)| IndexedPolicy::new(secret, id, &row.policy)).collect();
        let index = |fallback: bool| {
            let numbered = (0..).zip(&policies).filter(|(_, indexed)| indexed.policy.fallback == fallback);
            ConditionIndex::build(numbered.map(|(number, IndexedPolicy { policy, .. })| {
                (number, policy.matches.as_slice(), policy.count_by.as_slice())
            }))
        };
        Some(Self { revision, regular: index(false), fallback: index(true), policies })
    }

    fn match_in(&self, index: &ConditionIndex, request: &Request) -> Matched {
        let (mut charges, mut descriptors): (Few<Charge, 1>, _) = (Few::new(), Few::new());
        for (number, descriptor) in request.descriptors.iter().enumerate() {
            let first = charges.len();
            index.candidates(&descriptor.entries, |number| {
                if let Some(indexed) = self.policies.get(number as usize) {
                    charges.extend(indexed.charge(descriptor, request.hits));
                }
            });
            charges[first..].sort_unstable_by_key(|charge| charge.policy);
            descriptors.resize(charges.len(), number);
        }
        Matched { revision: self.revision, charges, descriptors }
    }
}

impl IndexedPolicy {
    fn new(secret: &[u8; 16], id: PolicyId, policy: &Arc<Policy>) -> Self {
        let overrides = (0..).zip(&policy.overrides).map(|(number, over)| (number, over.matches.as_slice(), &[][..]));
        Self {
            id,
            policy: Arc::clone(policy),
            identities: policy.limits.iter().map(|limit| identity(secret, policy, limit)).collect(),
            overrides: ConditionIndex::build(overrides),
        }
    }

    /// The charge of a descriptor; `None` when the policy does not match it.
    fn charge(&self, descriptor: &Descriptor, hits: i64) -> Option<Charge> {
        let entries = &descriptor.entries;
        if !all_hold(&self.policy.matches, entries) {
            return None;
        }
        let values: Option<Few<&str, 2>> = self.policy.count_by.iter().map(|key| value_of(entries, key)).collect();
        let values = values?;
        let counters = self.identities.iter().map(|identity| {
            let mut hasher = *identity;
            for value in &values {
                absorb(&mut hasher, value);
            }
            CounterId(hasher.finish128().as_bytes())
        });
        Some(Charge {
            policy: self.id,
            overridden: self.overridden(entries),
            hits: descriptor.hits.unwrap_or(hits),
            counters: counters.collect(),
            given: descriptor.limit,
        })
    }

    /// The most specific override that holds, the first of equals.
    fn overridden(&self, entries: &[(String, String)]) -> Option<u16> {
        let overrides = &self.policy.overrides;
        let mut best: Option<(Specificity, u32)> = None;
        self.overrides.candidates(entries, |number| {
            let Some(over) = overrides.get(number as usize) else { return };
            let rank = specificity(&over.matches);
            if all_hold(&over.matches, entries)
                && best.is_none_or(|(other, first)| rank > other || (rank == other && number < first))
            {
                best = Some((rank, number));
            }
        });
        best.and_then(|(_, number)| u16::try_from(number).ok())
    }
}

/// Exact conditions, then characters of prefixes, then the number of conditions: more is more specific.
type Specificity = (usize, usize, usize);

fn specificity(conditions: &[KeyMatch]) -> Specificity {
    let mut rank = (0, 0, conditions.len());
    for condition in conditions {
        match &condition.value {
            ValueMatch::Exact(_) => rank.0 += 1,
            ValueMatch::Prefix(text) => rank.1 += text.len(),
            ValueMatch::Any => {}
        }
    }
    rank
}

/// All of a counter's identity but the values of the keys: policy, limit name, algorithm, keys. Each text goes in
/// behind its length, so no two identities share a reading.
fn identity(secret: &[u8; 16], policy: &Policy, limit: &Limit) -> SipHasher13 {
    let mut hasher = SipHasher13::new_with_key(secret);
    absorb(&mut hasher, &policy.name.namespace);
    absorb(&mut hasher, &policy.name.name);
    absorb(&mut hasher, &limit.name);
    hasher.write_u8(limit.algorithm as u8);
    hasher.write_u64(policy.count_by.len() as u64);
    for key in &policy.count_by {
        absorb(&mut hasher, key);
    }
    hasher
}

fn absorb(hasher: &mut SipHasher13, text: &str) {
    hasher.write_u64(text.len() as u64);
    hasher.write(text.as_bytes());
}

#[cfg(test)]
mod tests;
