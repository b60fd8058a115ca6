//! Every step of every state machine, held against each other and against the reference.
//!
//! Entries are taken up in the order of the log when the first node applies them. Whoever applies one later, after a
//! restart too, must find the same entry and come to the same outcomes and the same state.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use quorate_limits::{
    Batch, Charge, Command, CounterId, Decision, Limit, Outcome, Part, PartOutcome, Policy, PolicyChange, PolicyId,
    PolicyOutcome, Sequence, SessionId, StateMachine,
};
use quorate_node::probe::Step;
use quorate_node::storage::LogId;

use super::names::Registered;
use super::reference;
use super::time::Time;

/// The first two bytes of a payload that carries a batch: version and kind.
const PROPOSAL: [u8; 2] = [1, 1];

/// What one counter was charged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Hits of admitted requests.
    pub admitted: u64,
    /// Requests denied.
    pub denied: u64,
}

/// How often things happened in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// 1 when the hosts' clocks run at different rates.
    pub drifting: u64,
    /// Terms in which something was committed.
    pub terms: u64,
    /// Snapshots that took a state's place on a node that runs or starts.
    pub installed: u64,
    /// Parts that came a second time and were answered from their session.
    pub resent: u64,
    /// Requests admitted.
    pub admissions: u64,
    /// Requests denied.
    pub denials: u64,
    /// Changes of policies that took effect.
    pub policy_changes: u64,
    /// Requests turned back because the policies had changed.
    pub rematches: u64,
    /// Members that took the place of one of their name whose disk was lost.
    pub swaps: u64,
    /// Members that left.
    pub departures: u64,
    /// Names of buckets registered.
    pub names: u64,
}

struct Entry {
    at: LogId,
    payload: bytes::Bytes,
    outcomes: Vec<PartOutcome>,
    state_hash: u128,
}

/// The log as the first node to apply each entry saw it, and what follows from it.
#[derive(Default)]
pub struct Ledger {
    entries: Vec<Entry>,
    /// The highest stamp so far.
    now: u64,
    time: Time,
    answered: BTreeMap<(SessionId, Sequence), Arc<Vec<Outcome>>>,
    policies: BTreeMap<PolicyId, Policy>,
    names: Registered,
    charges: BTreeMap<CounterId, Vec<reference::Charge>>,
    tallies: BTreeMap<CounterId, Tally>,
    members: BTreeSet<u64>,
    leaving: BTreeSet<u64>,
    counts: Counts,
}

/// What is wrong.
type Verdict = Result<(), String>;

fn hold(holds: bool, what: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(what()) }
}

impl Ledger {
    /// What a counter was charged so far.
    #[must_use]
    pub fn tally(&self, counter: CounterId) -> Tally {
        self.tallies.get(&counter).copied().unwrap_or_default()
    }

    /// All counters that were ever charged or denied.
    pub fn tallies(&self) -> impl Iterator<Item = (CounterId, Tally)> {
        self.tallies.iter().map(|(counter, tally)| (*counter, *tally))
    }

    /// How often things happened.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Whether exactly these are members, and none of them is to leave.
    #[must_use]
    pub fn has_exactly(&self, ids: &BTreeSet<u64>) -> bool {
        self.members == *ids && self.leaving.is_empty()
    }

    /// Whether the membership holds this id.
    #[must_use]
    pub fn has_member(&self, id: u64) -> bool {
        self.members.contains(&id)
    }

    /// Takes over the members after a new entry: an id that left never comes back.
    fn members(&mut self, state: &StateMachine) -> Verdict {
        let members: BTreeSet<u64> = state.members().present().keys().copied().collect();
        let gone: BTreeSet<u64> = self.members.difference(&members).copied().collect();
        let came: Vec<u64> = members.difference(&self.members).copied().collect();
        let asked = gone.iter().all(|id| self.leaving.contains(id));
        self.counts.departures += gone.len() as u64;
        self.counts.swaps += u64::from(!asked);
        hold(asked || gone.len() == 1, || format!("{gone:?} left at once unasked"))?;
        hold(gone.iter().all(|id| state.members().is_removed(*id)), || format!("of {gone:?} not all are removed"))?;
        hold(!came.iter().any(|id| state.members().is_removed(*id)), || format!("of {came:?} one was removed before"))?;
        self.members = members;
        self.leaving = state.members().leaving().keys().copied().collect();
        Ok(())
    }

    /// The number of entries applied by somebody.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.entries.len() as u64
    }

    /// Whether nobody has applied anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How fast the hosts' clocks run, in thousandths.
    pub fn clocks_run(&mut self, rates: &[u64]) {
        self.counts.drifting = u64::from(rates.iter().any(|rate| *rate != rates[0]));
        self.time = Time::by_clocks(rates);
    }

    /// Takes in a step, taken `elapsed_ns` after the beginning.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn observe(&mut self, step: &Step<'_>, state: &StateMachine, elapsed_ns: u64) -> Result<Option<u128>, String> {
        match step {
            Step::Stamped(stamp) => {
                self.time.made(stamp.0, elapsed_ns);
                Ok(None)
            }
            Step::Installed(at) => self.installed(*at, state).map(|()| None),
            Step::Applied { at, payload, outcomes } => {
                let index = usize::try_from(at.index).unwrap();
                let state_hash = state.state_hash();
                if let Some(entry) = self.entries.get(index) {
                    return compare(entry, *at, payload, outcomes, state_hash).map(|()| None);
                }
                hold(index == self.entries.len(), || {
                    format!("entry {at} was applied, but nobody has applied those behind {}", self.entries.len())
                })?;
                let term = self.entries.last().map_or(0, |entry| entry.at.term);
                hold(term <= at.term, || format!("entry {at} follows one of term {term}"))?;
                self.counts.terms += u64::from(term < at.term);
                let (payload, outcomes) = (payload.clone(), outcomes.to_vec());
                if payload.starts_with(&PROPOSAL) {
                    let batch = Batch::decode(&payload[2..]).map_err(|error| error.to_string())?;
                    self.batch(at.term, &batch, &outcomes).map_err(|what| format!("entry {at}: {what}"))?;
                }
                self.entries.push(Entry { at: *at, payload, outcomes, state_hash });
                self.members(state).map_err(|what| format!("entry {at}: {what}"))?;
                hold(state.now().0 == self.now, || {
                    format!("entry {at}: cluster time went to {} ns instead of {} ns", state.now().0, self.now)
                })?;
                Ok(Some(state_hash))
            }
        }
    }

    fn installed(&mut self, at: Option<LogId>, state: &StateMachine) -> Verdict {
        let Some(at) = at else { return Ok(()) };
        self.counts.installed += 1;
        let entry = self.entries.get(usize::try_from(at.index).unwrap());
        let entry = entry.ok_or_else(|| format!("a snapshot reflects entry {at}, which nobody has applied"))?;
        hold(entry.at == at, || format!("a snapshot reflects entry {at}, others have applied {} there", entry.at))?;
        hold(entry.state_hash == state.state_hash(), || format!("a snapshot at entry {at} holds another state"))
    }

    fn batch(&mut self, term: u64, batch: &Batch, outcomes: &[PartOutcome]) -> Verdict {
        self.now = self.now.max(batch.stamp.0);
        self.time.entered(term, batch.stamp.0, self.now)?;
        hold(batch.parts.len() == outcomes.len(), || "not one outcome for each part".to_owned())?;
        batch.parts.iter().zip(outcomes).try_for_each(|(part, outcome)| self.part(part, outcome))
    }

    fn part(&mut self, part: &Part, outcome: &PartOutcome) -> Verdict {
        match (part, outcome) {
            (Part::Found { policies, .. }, PartOutcome::Done) => {
                if self.policies.is_empty() {
                    self.put(policies);
                }
                Ok(())
            }
            (Part::Commands { session, sequence, commands }, PartOutcome::Applied(outcomes)) => {
                let name = (*session, *sequence);
                if let Some(first) = self.answered.get(&name) {
                    self.counts.resent += 1;
                    return hold(first == outcomes, || {
                        format!("part {sequence} came again and was answered otherwise")
                    });
                }
                self.answered.insert(name, Arc::clone(outcomes));
                hold(commands.len() == outcomes.len(), || "not one outcome for each command".to_owned())?;
                commands.iter().zip(outcomes.iter()).try_for_each(|(command, outcome)| self.command(command, outcome))
            }
            _ => Ok(()),
        }
    }

    fn put(&mut self, policies: &[Policy]) {
        let mut policies: Vec<&Policy> = policies.iter().collect();
        policies.sort_by(|a, b| a.name.cmp(&b.name));
        for policy in policies {
            let known = self.policies.iter().find(|(_, known)| known.name == policy.name).map(|(id, _)| *id);
            let last = self.policies.last_key_value().map_or(0, |(id, _)| id.0);
            self.policies.insert(known.unwrap_or(PolicyId(last + 1)), policy.clone());
        }
    }

    fn command(&mut self, command: &Command, outcome: &Outcome) -> Verdict {
        match (command, outcome) {
            (Command::Decide { charges, .. }, Outcome::Decided(decision)) => self.decided(charges, decision),
            (Command::Reset { charges, .. }, Outcome::Reset) => {
                charges.iter().flat_map(|charge| &charge.counters).for_each(|id| drop(self.charges.remove(id)));
                Ok(())
            }
            (Command::ChangePolicies(change), Outcome::Policies(PolicyOutcome::Applied { .. })) => {
                let PolicyChange::Put(_, policies) = change else { return Err("a change nobody asked for".to_owned()) };
                self.counts.policy_changes += 1;
                self.put(policies);
                Ok(())
            }
            (Command::Bucket(command), Outcome::Bucket(outcome)) => {
                self.counts.names += u64::from(self.names.apply(command, outcome)?);
                Ok(())
            }
            (_, Outcome::Rematch) => {
                self.counts.rematches += 1;
                Ok(())
            }
            _ => Err(format!("an outcome that does not fit its command: {outcome:?}")),
        }
    }

    /// The limits in force that a request meets, each with its counter and hits.
    fn met(&self, charges: &[Charge]) -> Result<Vec<(Limit, CounterId, i64)>, String> {
        let mut met = Vec::new();
        for charge in charges {
            let policy = self.policies.get(&charge.policy).ok_or("a policy that does not exist")?;
            hold(charge.overridden.is_none(), || "an override that does not exist".to_owned())?;
            hold(policy.limits.len() == charge.counters.len(), || "not one counter for each limit".to_owned())?;
            met.extend(policy.limits.iter().zip(&charge.counters).map(|(limit, id)| (limit.clone(), *id, charge.hits)));
        }
        Ok(met)
    }

    fn decided(&mut self, charges: &[Charge], decision: &Decision) -> Verdict {
        let met = self.met(charges)?;
        let left = |ledger: &Self, limit: &Limit, id: &CounterId| {
            reference::remaining(limit, ledger.charges.get(id).map_or(&[], Vec::as_slice), ledger.now)
        };
        let fits = met.iter().all(|(limit, id, hits)| *hits <= 0 || left(self, limit, id) >= hits.unsigned_abs());
        hold(fits == decision.admitted, || {
            let left: Vec<u64> = met.iter().map(|(limit, id, _)| left(self, limit, id)).collect();
            let verdict = if decision.admitted { "admitted" } else { "denied" };
            format!("{verdict} although {left:?} hits were left for {charges:?} at {} ns", self.now)
        })?;
        for (_, id, hits) in &met {
            let tally = self.tallies.entry(*id).or_default();
            if !decision.admitted {
                tally.denied += 1;
            } else if *hits != 0 {
                tally.admitted += u64::try_from(*hits).unwrap_or(0);
                self.charges.entry(*id).or_default().push((self.now, *hits));
            }
        }
        self.counts.admissions += u64::from(decision.admitted);
        self.counts.denials += u64::from(!decision.admitted);
        hold(met.len() == decision.limits.len(), || "not one standing for each limit".to_owned())?;
        for ((limit, id, _), standing) in met.iter().zip(&decision.limits) {
            let left = left(self, limit, id);
            hold(left == standing.remaining, || {
                format!(
                    "says that {} hits are left of {} for {id:?}, there are {left}",
                    standing.remaining, limit.limit
                )
            })?;
        }
        Ok(())
    }
}

fn compare(entry: &Entry, at: LogId, payload: &[u8], outcomes: &[PartOutcome], state_hash: u128) -> Verdict {
    hold(entry.at == at && entry.payload == payload, || {
        format!("entry {at} was applied where another node had applied {}, or differs from it", entry.at)
    })?;
    hold(entry.outcomes == outcomes, || format!("entry {at} came to other outcomes than on another node"))?;
    hold(entry.state_hash == state_hash, || format!("entry {at} led to another state than on another node"))
}
