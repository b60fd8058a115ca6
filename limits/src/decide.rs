//! One decision over several counters: all charges, or none.

use std::borrow::Cow;

use crate::algorithm;
use crate::command::{Charge, CounterId, Decision, LimitState, Outcome};
use crate::counters::Counters;
use crate::few::Few;
use crate::policy::{Enforcement, Limit, PolicyId};
use crate::policy_table::{PolicyTable, Row};
use crate::shard::Counter;
use crate::time::ClusterTime;

/// What a decision looks at.
#[derive(Clone, Copy)]
pub(crate) struct Scene<'a> {
    pub now: ClusterTime,
    pub table: &'a PolicyTable,
    pub counters: &'a Counters,
    /// The most counters there may be; a policy may hold a quarter of them.
    pub counters_max: u64,
}

/// A counter that a decision would change. No two writes of a decision name the same counter.
#[derive(Debug)]
pub(crate) struct Write {
    /// The counter as charged; `None` when it stays as it is.
    pub counter: Option<Counter>,
    id: CounterId,
    policy: PolicyId,
    /// The sum of all charges on the counter so far.
    hits: i64,
    known: bool,
}

impl Scene<'_> {
    /// Decides; `writes` then holds what is to be written, nothing unless the request is admitted.
    pub fn decide(&self, revision: u64, charges: &[Charge], writes: &mut Vec<Write>) -> Outcome {
        writes.clear();
        if !self.is_current(revision, charges) {
            return Outcome::Rematch;
        }
        let mut limits = Few::new();
        let mut denied = false;
        let mut shadowed = false;
        for charge in charges {
            let Some(row) = self.table.row(charge.policy) else { continue };
            let shadow = row.policy.enforcement == Enforcement::Shadow;
            for (limit, id) in limits_of(row, charge) {
                let standing = self.evaluate(charge, &limit, *id, charges.len() > 1, writes);
                limits.push(standing);
                denied |= standing.exceeded && !shadow;
                shadowed |= standing.exceeded && shadow;
            }
        }
        if denied {
            writes.clear();
            self.look_again(charges, &mut limits, |_| true);
            return Outcome::Decided(Decision { admitted: false, limits });
        }
        if shadowed {
            self.drop_exceeded_shadows(charges, &mut limits, writes);
        }
        if let Some(policy) = self.drop_full(charges, &mut limits, writes) {
            writes.clear();
            return Outcome::CountersFull(policy);
        }
        Outcome::Decided(Decision { admitted: true, limits })
    }

    /// Whether the charges were matched against the policies in force. Before the founding nothing is.
    pub fn is_current(&self, revision: u64, charges: &[Charge]) -> bool {
        if self.counters_max == 0 {
            return false;
        }
        if charges.is_empty() {
            return self.table.revision() == revision;
        }
        let mut domain = None;
        let fits = |charge: &Charge| {
            self.table.row(charge.policy).is_some_and(|row| {
                row.domain_revision == revision
                    && *domain.get_or_insert(&row.policy.domain) == &row.policy.domain
                    && row.policy.enforcement != Enforcement::Disabled
                    && row.limits(charge.overridden).is_some_and(|limits| limits.len() == charge.counters.len())
            })
        };
        charges.iter().all(fits)
    }

    /// Evaluates one charge on one counter on top of the earlier charges of the request, and notes the write.
    fn evaluate(
        &self,
        charge: &Charge,
        limit: &Limit,
        id: CounterId,
        repeats: bool,
        writes: &mut Vec<Write>,
    ) -> LimitState {
        let held = self.counters.get(id, charge.policy);
        let earlier = if repeats { writes.iter().position(|write| write.id == id) } else { None };
        let hits = charge.hits.saturating_add(earlier.map_or(0, |index| writes[index].hits));
        let evaluation = algorithm::evaluate(held, self.now, limit, hits);
        let (policy, algorithm) = (charge.policy, limit.algorithm);
        let counter = evaluation.charged.map(|state| Counter { id, state, policy, algorithm });
        let write = Write { counter, id, policy, hits, known: held.is_some() };
        match earlier {
            Some(index) => writes[index] = write,
            None => writes.push(write),
        }
        evaluation.standing
    }

    /// Restates limits that were evaluated as charged, for the charges that are not charged after all.
    fn look_again(&self, charges: &[Charge], limits: &mut [LimitState], uncharged: impl Fn(PolicyId) -> bool) {
        let mut standing = limits.iter_mut();
        for charge in charges {
            let Some(row) = self.table.row(charge.policy) else { continue };
            for (limit, id) in limits_of(row, charge) {
                let Some(standing) = standing.next() else { return };
                if !standing.exceeded && uncharged(charge.policy) {
                    let held = self.counters.get(*id, charge.policy);
                    *standing = algorithm::evaluate(held, self.now, &limit, 0).standing;
                }
            }
        }
    }

    /// A shadow policy that would have denied the request is not charged: it counts as though it were in force.
    fn drop_exceeded_shadows(&self, charges: &[Charge], limits: &mut [LimitState], writes: &mut Vec<Write>) {
        let mut exceeded = Vec::new();
        let mut standing = limits.iter();
        for charge in charges {
            if standing.by_ref().take(charge.counters.len()).filter(|standing| standing.exceeded).count() > 0 {
                exceeded.push(charge.policy);
            }
        }
        writes.retain(|write| !exceeded.contains(&write.policy));
        self.look_again(charges, limits, |policy| exceeded.contains(&policy));
    }

    /// Finds a policy without room for the counters it needs. A shadow policy without room is left uncharged instead, since
    /// it must not stand against a request.
    fn drop_full(&self, charges: &[Charge], limits: &mut [LimitState], writes: &mut Vec<Write>) -> Option<PolicyId> {
        let mut needs: Few<(PolicyId, u64), 2> = Few::new();
        for write in writes.iter().filter(|write| write.counter.is_some() && !write.known) {
            match needs.iter_mut().find(|(policy, _)| *policy == write.policy) {
                Some((_, needed)) => *needed += 1,
                None => needs.push((write.policy, 1)),
            }
        }
        let share = (self.counters_max / 4).max(1);
        let mut room = self.counters_max.saturating_sub(self.counters.len());
        for (policy, needed) in needs {
            if needed <= room && self.counters.held(policy) + needed <= share {
                room -= needed;
            } else if self.table.row(policy).is_some_and(|row| row.policy.enforcement == Enforcement::Shadow) {
                writes.retain(|write| write.policy != policy);
                self.look_again(charges, limits, |dropped| dropped == policy);
            } else {
                return Some(policy);
            }
        }
        None
    }
}

/// A charge's limits as they hold for it, each with its counter.
fn limits_of<'a>(row: &'a Row, charge: &'a Charge) -> impl Iterator<Item = (Cow<'a, Limit>, &'a CounterId)> {
    let limits = row.limits(charge.overridden).unwrap_or_default().iter();
    limits.map(|limit| charge.in_force(limit)).zip(&charge.counters)
}

#[cfg(test)]
mod tests;
