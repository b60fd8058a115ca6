//! The policies in the replicated state: who owns them, at which revision they changed, and how a change is taken.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use siphasher::sip128::{Hasher128, SipHasher13};

use crate::algorithm;
use crate::command::{PolicyChange, PolicyConflict, PolicyOutcome};
use crate::policy::{Algorithm, Limit, Owner, Policy, PolicyId, PolicyName};

/// One policy and what the table knows about it.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub owner: Owner,
    /// The table's revision at which this policy last changed.
    pub revision: u64,
    /// The table's revision at which the policy's domain last changed; the same in all rows of a domain.
    pub domain_revision: u64,
    pub policy: Arc<Policy>,
    lives: Lives,
    digest: u128,
}

impl Row {
    fn new(id: PolicyId, owner: Owner, revision: u64, policy: Arc<Policy>) -> Self {
        let mut hasher = SipHasher13::new();
        hasher.write_u32(id.0);
        hasher.write_u64(revision);
        hasher.write(&postcard::to_stdvec(&(owner, &policy)).unwrap_or_default());
        let digest = hasher.finish128().as_u128();
        Self { owner, revision, domain_revision: revision, lives: Lives::of(&policy), policy, digest }
    }

    /// The limits that hold with this override; `None` when the policy has no such override.
    pub fn limits(&self, overridden: Option<u16>) -> Option<&[Limit]> {
        match overridden {
            None => Some(&self.policy.limits),
            Some(index) => self.policy.overrides.get(usize::from(index)).map(|over| over.limits.as_slice()),
        }
    }

    /// How long after the instant in its first word a counter of this policy is surely as good as never used, whichever
    /// of the policy's limits and overrides it belongs to.
    pub fn life_ns(&self, algorithm: Algorithm) -> u64 {
        self.lives.0[algorithm as usize]
    }
}

/// The longest life of a counter, by algorithm.
#[derive(Clone, Copy, Debug, Default)]
struct Lives([u64; 3]);

impl Lives {
    fn of(policy: &Policy) -> Self {
        let mut lives = Self::default();
        for limit in policy.limits.iter().chain(policy.overrides.iter().flat_map(|over| &over.limits)) {
            let life = &mut lives.0[limit.algorithm as usize];
            *life = (*life).max(algorithm::life_ns(limit));
        }
        lives
    }
}

#[derive(Clone, Debug)]
struct Domain {
    revision: u64,
    policies: BTreeSet<PolicyId>,
}

/// All policies. Cheap to share, copied when it changes.
#[derive(Clone, Debug, Default)]
pub(crate) struct PolicyTable {
    revision: u64,
    next_id: u32,
    rows: BTreeMap<PolicyId, Row>,
    names: BTreeMap<PolicyName, PolicyId>,
    domains: BTreeMap<String, Domain>,
}

impl PolicyTable {
    pub fn revision(&self) -> u64 {
        self.revision
    }

    pub fn row(&self, id: PolicyId) -> Option<&Row> {
        self.rows.get(&id)
    }

    pub fn rows(&self) -> impl Iterator<Item = (PolicyId, &Row)> {
        self.rows.iter().map(|(id, row)| (*id, row))
    }

    pub fn find(&self, name: &PolicyName) -> Option<(PolicyId, &Row)> {
        let id = *self.names.get(name)?;
        Some((id, self.rows.get(&id)?))
    }

    /// The domains' names.
    pub fn domains(&self) -> impl Iterator<Item = &String> {
        self.domains.keys()
    }

    /// The revision of a domain and its policies, by id.
    pub fn domain(&self, name: &str) -> Option<(u64, impl Iterator<Item = (PolicyId, &Row)>)> {
        let domain = self.domains.get(name)?;
        Some((domain.revision, domain.policies.iter().filter_map(|id| Some((*id, self.rows.get(id)?)))))
    }

    /// Takes a change as a whole or refuses it as a whole. Adds the domains it touches to `touched`.
    pub fn change(&mut self, change: &PolicyChange, touched: &mut BTreeSet<String>) -> PolicyOutcome {
        let plan = match self.plan(change) {
            Ok(plan) => plan,
            Err(conflict) => return PolicyOutcome::Conflict(conflict),
        };
        if !plan.puts.is_empty() || !plan.deletes.is_empty() {
            self.revision += 1;
            let mut domains = BTreeSet::new();
            for id in plan.deletes {
                self.remove(id, &mut domains);
            }
            for policy in plan.puts {
                self.put(plan.owner, policy, &mut domains);
            }
            self.revise(&domains);
            touched.append(&mut domains);
        }
        PolicyOutcome::Applied { revision: self.revision }
    }

    /// What a change comes to: the policies that differ from what there is, and the ids to remove.
    fn plan<'a>(&self, change: &'a PolicyChange) -> Result<Plan<'a>, PolicyConflict> {
        let (owner, puts, names): (Owner, &[Policy], &[PolicyName]) = match change {
            PolicyChange::Put(owner, policies) | PolicyChange::ReplaceAll(owner, policies) => (*owner, policies, &[]),
            PolicyChange::Delete(owner, names) => (*owner, &[], names),
        };
        // Of two policies with one name in a change the later holds.
        let puts: BTreeMap<&PolicyName, &Policy> = puts.iter().map(|policy| (&policy.name, policy)).collect();
        for name in puts.keys().copied().chain(names) {
            if let Some((_, row)) = self.find(name)
                && row.owner != owner
                && row.owner != Owner::Builtin
            {
                return Err(PolicyConflict::OwnedBy(name.clone(), row.owner));
            }
        }
        let mut deletes: BTreeSet<PolicyId> = names.iter().filter_map(|name| self.names.get(name).copied()).collect();
        if matches!(change, PolicyChange::ReplaceAll(..)) {
            let left_out = self.rows().filter(|(_, row)| row.owner == owner && !puts.contains_key(&row.policy.name));
            deletes.extend(left_out.map(|(id, _)| id));
        }
        let new = puts.keys().filter(|name| !self.names.contains_key(**name)).count();
        let ids_left = usize::try_from(u32::MAX - self.next_id).unwrap_or(usize::MAX);
        if self.rows.len() - deletes.len() + new > Policy::COUNT_MAX as usize || new > ids_left {
            return Err(PolicyConflict::TooMany { max: Policy::COUNT_MAX });
        }
        let differs = |policy: &Policy| {
            self.find(&policy.name).is_none_or(|(_, row)| row.owner != owner || *row.policy != *policy)
        };
        Ok(Plan { owner, puts: puts.into_values().filter(|policy| differs(policy)).collect(), deletes })
    }

    fn remove(&mut self, id: PolicyId, touched: &mut BTreeSet<String>) {
        if let Some(row) = self.rows.remove(&id) {
            self.names.remove(&row.policy.name);
            self.leave(id, &row.policy.domain, touched);
        }
    }

    fn put(&mut self, owner: Owner, policy: &Policy, touched: &mut BTreeSet<String>) {
        let id = self.names.get(&policy.name).copied().unwrap_or_else(|| {
            self.next_id += 1;
            PolicyId(self.next_id)
        });
        let row = Row::new(id, owner, self.revision, Arc::new(policy.clone()));
        if let Some(before) = self.rows.insert(id, row) {
            self.leave(id, &before.policy.domain, touched);
        }
        self.enter(id, policy);
        touched.insert(policy.domain.clone());
    }

    fn enter(&mut self, id: PolicyId, policy: &Policy) {
        self.names.insert(policy.name.clone(), id);
        let domain = self.domains.entry(policy.domain.clone());
        domain.or_insert_with(|| Domain { revision: 0, policies: BTreeSet::new() }).policies.insert(id);
    }

    fn leave(&mut self, id: PolicyId, domain: &str, touched: &mut BTreeSet<String>) {
        touched.insert(domain.to_owned());
        if let Some(entry) = self.domains.get_mut(domain) {
            entry.policies.remove(&id);
        }
    }

    /// Gives the domains the table's revision; a domain without policies ends.
    fn revise(&mut self, domains: &BTreeSet<String>) {
        for name in domains {
            let Some(domain) = self.domains.get_mut(name) else { continue };
            domain.revision = self.revision;
            for id in &domain.policies {
                if let Some(row) = self.rows.get_mut(id) {
                    row.domain_revision = self.revision;
                }
            }
            if domain.policies.is_empty() {
                self.domains.remove(name);
            }
        }
    }

    /// Feeds all of the table to a state hash. Linear in the number of policies, not in their size.
    pub fn hash(&self, hasher: &mut SipHasher13) {
        hasher.write_u64(self.revision);
        hasher.write_u32(self.next_id);
        for (id, row) in &self.rows {
            hasher.write_u32(id.0);
            hasher.write(&row.digest.to_le_bytes());
            hasher.write_u64(row.domain_revision);
        }
    }

    pub fn to_stored(&self) -> StoredTable {
        let rows = self.rows().map(|(id, row)| StoredRow {
            id,
            owner: row.owner,
            revision: row.revision,
            domain_revision: row.domain_revision,
            policy: Arc::clone(&row.policy),
        });
        StoredTable { revision: self.revision, next_id: self.next_id, rows: rows.collect() }
    }

    /// The table as it was stored; the error says what does not fit together.
    pub fn from_stored(stored: StoredTable) -> Result<Self, &'static str> {
        let mut table = Self { revision: stored.revision, next_id: stored.next_id, ..Self::default() };
        if stored.rows.len() > Policy::COUNT_MAX as usize {
            return Err("more policies than there may be");
        }
        for StoredRow { id, owner, revision, domain_revision, policy } in stored.rows {
            if id.0 > stored.next_id || table.rows.last_key_value().is_some_and(|(last, _)| *last >= id) {
                return Err("policies out of order");
            }
            if table.names.contains_key(&policy.name) {
                return Err("two policies of one name");
            }
            table.enter(id, &policy);
            if let Some(domain) = table.domains.get_mut(&policy.domain) {
                if domain.policies.len() > 1 && domain.revision != domain_revision {
                    return Err("two revisions of one domain");
                }
                domain.revision = domain_revision;
            }
            table.rows.insert(id, Row { domain_revision, ..Row::new(id, owner, revision, policy) });
        }
        Ok(table)
    }
}

struct Plan<'a> {
    owner: Owner,
    puts: Vec<&'a Policy>,
    deletes: BTreeSet<PolicyId>,
}

/// The table's form in a snapshot.
#[derive(Serialize, Deserialize)]
pub(crate) struct StoredTable {
    revision: u64,
    next_id: u32,
    rows: Vec<StoredRow>,
}

#[derive(Serialize, Deserialize)]
struct StoredRow {
    id: PolicyId,
    owner: Owner,
    revision: u64,
    domain_revision: u64,
    policy: Arc<Policy>,
}

#[cfg(test)]
mod tests;
