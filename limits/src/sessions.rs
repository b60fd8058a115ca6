//! Sessions: what makes a part count once, however often it is sent.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use siphasher::sip128::{Hasher128, SipHasher13};

use crate::command::{Outcome, PartOutcome, Run, Sequence, SessionId};

/// Results kept for each session, and how far behind the highest sequence a part may still come.
pub const RESULTS_KEPT: u64 = 64;

/// The most a session keeps, in outcomes and limit states (32 bytes each): 8 MiB. Beyond it the oldest results go early,
/// and with them the chance to resend their parts.
pub const KEPT_STATES_MAX: u64 = 1 << 18;

/// The most sessions there may be; more members than that no cluster has.
pub const SESSIONS_MAX: usize = 1024;

/// What is to be done with a part.
pub(crate) enum Admission {
    /// It is new: apply it, then [`Sessions::keep`] its result.
    Apply,
    /// Nothing is to be applied; this is the answer.
    Answer(PartOutcome),
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Sessions {
    open: BTreeMap<SessionId, Session>,
    /// The latest run seen of each node. Shared with whoever looks at it beside the state machine.
    runs: Arc<BTreeMap<u64, Run>>,
}

#[derive(Clone, Debug)]
struct Session {
    node: u64,
    highest: Sequence,
    /// At or below this nothing is known any more.
    floor: Sequence,
    results: BTreeMap<Sequence, Kept>,
    /// Outcomes and limit states in `results`.
    states: u64,
}

#[derive(Clone, Debug)]
struct Kept {
    outcomes: Arc<Vec<Outcome>>,
    states: u64,
    digest: u128,
}

impl Kept {
    fn new(outcomes: Arc<Vec<Outcome>>) -> Self {
        let states = outcomes.iter().map(states_of).sum();
        let mut hasher = SipHasher13::new();
        outcomes.iter().for_each(|outcome| hash_outcome(outcome, &mut hasher));
        Self { states, digest: hasher.finish128().as_u128(), outcomes }
    }
}

impl Sessions {
    /// Opens a session in place of any earlier one of the node.
    pub fn open(&mut self, node: u64, run: Run, session: SessionId) -> PartOutcome {
        if let Some(latest) = self.runs.get(&node).copied().filter(|latest| run.is_older_than(*latest)) {
            return PartOutcome::OlderDisk { latest };
        }
        if let Some(open) = self.open.get(&session) {
            // The same part again, or a name drawn twice.
            return if open.node == node { PartOutcome::Done } else { PartOutcome::UnknownSession };
        }
        if !self.runs.contains_key(&node) && self.runs.len() >= SESSIONS_MAX {
            return PartOutcome::UnknownSession;
        }
        if self.runs.get(&node) != Some(&run) {
            Arc::make_mut(&mut self.runs).insert(node, run);
        }
        self.open.retain(|_, open| open.node != node);
        self.open.insert(session, Session { node, highest: 0, floor: 0, results: BTreeMap::new(), states: 0 });
        PartOutcome::Done
    }

    /// What to do with a part.
    pub fn admit(&self, session: SessionId, sequence: Sequence) -> Admission {
        let Some(session) = self.open.get(&session) else {
            return Admission::Answer(PartOutcome::UnknownSession);
        };
        if sequence <= session.floor {
            return Admission::Answer(PartOutcome::SequenceTooOld);
        }
        match session.results.get(&sequence) {
            Some(kept) => Admission::Answer(PartOutcome::Applied(Arc::clone(&kept.outcomes))),
            None => Admission::Apply,
        }
    }

    /// Keeps the result of a part that was just applied.
    pub fn keep(&mut self, session: SessionId, sequence: Sequence, outcomes: Arc<Vec<Outcome>>) {
        let Some(session) = self.open.get_mut(&session) else { return };
        let kept = Kept::new(outcomes);
        session.states += kept.states;
        session.results.insert(sequence, kept);
        session.highest = session.highest.max(sequence);
        session.floor = session.floor.max(session.highest.saturating_sub(RESULTS_KEPT));
        while let Some(oldest) = session.results.first_entry() {
            if *oldest.key() > session.floor && session.states <= KEPT_STATES_MAX {
                break;
            }
            session.floor = session.floor.max(*oldest.key());
            session.states -= oldest.remove().states;
        }
    }

    /// The latest run of each node.
    pub fn runs(&self) -> &Arc<BTreeMap<u64, Run>> {
        &self.runs
    }

    /// Ends the sessions, and forgets the runs, of all but these nodes.
    pub fn retain(&mut self, members: &BTreeSet<u64>) {
        self.open.retain(|_, session| members.contains(&session.node));
        if self.runs.keys().any(|node| !members.contains(node)) {
            Arc::make_mut(&mut self.runs).retain(|node, _| members.contains(node));
        }
    }

    /// Feeds all sessions to a state hash. Linear in the number of results kept, not in their size.
    pub fn hash(&self, hasher: &mut SipHasher13) {
        hasher.write_u64(self.open.len() as u64);
        for (id, session) in &self.open {
            for word in [id.0, session.node, session.highest, session.floor, session.results.len() as u64] {
                hasher.write_u64(word);
            }
            for (sequence, kept) in &session.results {
                hasher.write_u64(*sequence);
                hasher.write(&kept.digest.to_le_bytes());
            }
        }
        for (node, run) in &*self.runs {
            for word in [*node, run.boot, run.name] {
                hasher.write_u64(word);
            }
        }
    }

    pub fn to_stored(&self) -> StoredSessions {
        let open = self.open.iter().map(|(id, session)| StoredSession {
            id: *id,
            node: session.node,
            highest: session.highest,
            floor: session.floor,
            results: session.results.iter().map(|(sequence, kept)| (*sequence, Arc::clone(&kept.outcomes))).collect(),
        });
        StoredSessions { open: open.collect(), runs: Arc::clone(&self.runs) }
    }

    pub fn from_stored(stored: StoredSessions) -> Self {
        let open = stored.open.into_iter().map(|StoredSession { id, node, highest, floor, results }| {
            let results: BTreeMap<_, _> =
                results.into_iter().map(|(sequence, out)| (sequence, Kept::new(out))).collect();
            let states = results.values().map(|kept| kept.states).sum();
            (id, Session { node, highest, floor, results, states })
        });
        Self { open: open.collect(), runs: stored.runs }
    }
}

fn states_of(outcome: &Outcome) -> u64 {
    match outcome {
        Outcome::Decided(decision) => 1 + decision.limits.len() as u64,
        _ => 1,
    }
}

fn hash_outcome(outcome: &Outcome, hasher: &mut SipHasher13) {
    match outcome {
        Outcome::Decided(decision) => {
            hasher.write_u64(decision.limits.len() as u64 * 2 + u64::from(decision.admitted));
            for limit in &decision.limits {
                hasher.write_u64(limit.remaining);
                hasher.write_u64(limit.reset_ns);
                hasher.write_u64(limit.retry_ns);
                hasher.write_u64(u64::from(limit.exceeded));
            }
        }
        other => hasher.write(&postcard::to_stdvec(other).unwrap_or_default()),
    }
}

/// The sessions' form in a snapshot.
#[derive(Serialize, Deserialize)]
pub(crate) struct StoredSessions {
    open: Vec<StoredSession>,
    runs: Arc<BTreeMap<u64, Run>>,
}

#[derive(Serialize, Deserialize)]
struct StoredSession {
    id: SessionId,
    node: u64,
    highest: Sequence,
    floor: Sequence,
    results: Vec<(Sequence, Arc<Vec<Outcome>>)>,
}

#[cfg(test)]
mod tests;
