//! The replicated state machine: policies, counters, buckets and sessions, and the only way to change them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::buckets::Buckets;
use crate::command::{Batch, Command, CounterId, Outcome, Part, PartOutcome, PolicyChange, Run};
use crate::counters::Counters;
use crate::decide::Write;
use crate::matcher::Rules;
use crate::members::Members;
use crate::policy::Owner;
use crate::policy_table::PolicyTable;
use crate::sessions::{Admission, Sessions};
use crate::settings::Settings;
use crate::snapshot::{Decoder, Frozen, SnapshotError, State};
use crate::time::ClusterTime;

/// Counters looked at for expiry with each batch, whatever it holds.
const SWEEP_BATCH: u64 = 256;
/// And for each counter it creates: the expired ones never come to more than about an eighth of the live ones.
const SWEEP_CREATED: u64 = 8;
/// With an empty batch, when there is nothing else to do.
const SWEEP_TICK: u64 = 4096;
/// In addition after a new counter found no room, until the sweep has gone round once.
const SWEEP_PRESSED: u64 = 16_384;

/// Commands whose counters are fetched into the cache together.
const WARMED: usize = 64;

/// The state of a cluster's limiter. Whoever applies the same batches (and the same memberships between them) holds the
/// same state, to the byte.
#[derive(Debug)]
pub struct StateMachine {
    state: State,
    rules: Arc<Rules>,
    /// Kept between decisions for its memory alone.
    writes: Vec<Write>,
}

impl Default for StateMachine {
    /// The state before the founding.
    fn default() -> Self {
        Self::new(Settings::default())
    }
}

impl StateMachine {
    /// The state at the founding: no policies, no counters, time 0.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self::from_state(State {
            settings,
            now: ClusterTime::default(),
            feature_level: 0,
            sweep_pressed: 0,
            table: Arc::new(PolicyTable::default()),
            sessions: Sessions::default(),
            members: Members::default(),
            buckets: Buckets::default(),
            counters: Counters::default(),
        })
    }

    /// Whether the cluster has been founded ([`Part::Found`]).
    #[must_use]
    pub fn founded(&self) -> bool {
        self.state.settings.founded()
    }

    pub(crate) fn from_state(state: State) -> Self {
        let rules = Arc::new(Rules::new(&state.settings, Arc::clone(&state.table)));
        Self { state, rules, writes: Vec::new() }
    }

    /// Applies a batch: one outcome for each part, in order.
    ///
    /// Time first moves to the batch's stamp, if that is later. Costs are linear in the batch's commands, but for a change
    /// of policies, which costs a walk over the policies of the domains it touches.
    pub fn apply(&mut self, batch: &Batch) -> Vec<PartOutcome> {
        self.state.now = self.state.now.max(batch.stamp);
        #[cfg(feature = "deliberate-bugs")]
        if crate::bugs::time_without_max() {
            self.state.now = batch.stamp;
        }
        let counters_before = self.state.counters.len();
        let mut touched = BTreeSet::new();
        let outcomes = batch.parts.iter().map(|part| self.apply_part(part, &mut touched)).collect();
        if !touched.is_empty() {
            self.rules = Arc::new(self.rules.updated(Arc::clone(&self.state.table), &touched));
        }
        self.sweep(batch.parts.is_empty(), self.state.counters.len().saturating_sub(counters_before));
        outcomes
    }

    /// Takes over the members (Raft id and name, learners included) of a membership entry that is applied. Whoever is not
    /// among them any more is remembered as removed; the sessions of all others end, and their runs are forgotten.
    pub fn set_members(&mut self, members: BTreeMap<u64, String>) {
        self.state.sessions.retain(&members.keys().copied().collect());
        self.state.members.set(members, self.state.now);
    }

    /// The members, as far as the state keeps them.
    #[must_use]
    pub fn members(&self) -> &Members {
        &self.state.members
    }

    /// What a command would come to at `now`, or at the machine's own time if that is later. Changes nothing.
    #[must_use]
    pub fn evaluate(&self, now: ClusterTime, command: &Command) -> Outcome {
        let scene = self.state.scene(now.max(self.state.now));
        match command {
            Command::Decide { revision, charges } => scene.decide(*revision, charges, &mut Vec::new()),
            Command::Reset { revision, charges } if scene.is_current(*revision, charges) => Outcome::Reset,
            Command::Reset { .. } => Outcome::Rematch,
            Command::ChangePolicies(change) => {
                Outcome::Policies(PolicyTable::clone(&self.state.table).change(change, &mut BTreeSet::new()))
            }
            Command::Bucket(command) => Outcome::Bucket(self.state.buckets.evaluate(command)),
        }
    }

    /// The latest run known of each node. The same `Arc` until one of them changes.
    #[must_use]
    pub fn runs(&self) -> &Arc<BTreeMap<u64, Run>> {
        self.state.sessions.runs()
    }

    /// The names of the `/bucket` API.
    #[must_use]
    pub fn buckets(&self) -> &Buckets {
        &self.state.buckets
    }

    /// The policies in force.
    #[must_use]
    pub fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules)
    }

    /// The time of the last batch applied.
    #[must_use]
    pub fn now(&self) -> ClusterTime {
        self.state.now
    }

    /// The feature level reached; 0 at the founding.
    #[must_use]
    pub fn feature_level(&self) -> u32 {
        self.state.feature_level
    }

    /// The revision of the whole policy table.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.state.table.revision()
    }

    /// What the cluster was founded with.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.state.settings
    }

    /// Counters in memory. Some may have expired: they count until a sweep drops them, some batches later.
    #[must_use]
    pub fn counters(&self) -> usize {
        usize::try_from(self.state.counters.len()).unwrap_or(usize::MAX)
    }

    /// A hash of the whole state, the same on all who applied the same batches. It guards against faults, not
    /// against forgery. The counters' part is kept up to date as they change, so a call costs about 20 ns for each policy and
    /// each result kept, never a walk over the counters.
    #[must_use]
    pub fn state_hash(&self) -> u128 {
        self.state.hash()
    }

    /// A copy of the state that later batches do not change, to be encoded elsewhere. Costs 256 reference counts and
    /// those of the results kept; counters are copied later, a shard at a time, as batches change them.
    #[must_use]
    pub fn freeze(&self) -> Frozen {
        Frozen(self.state.clone())
    }

    /// The state machine from an encoded [`Frozen`]; [`Decoder`] takes it piece by piece.
    ///
    /// # Errors
    /// When the bytes are of an unknown version or damaged; nothing is salvaged from them.
    pub fn decode(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let mut decoder = Decoder::default();
        decoder.push(bytes)?;
        decoder.finish()
    }

    fn apply_part(&mut self, part: &Part, touched: &mut BTreeSet<String>) -> PartOutcome {
        match part {
            // A part of it may still have been on its way.
            Part::OpenSession { node, .. } if self.state.members.is_removed(*node) => PartOutcome::UnknownSession,
            Part::OpenSession { node, run, session } => self.state.sessions.open(*node, *run, *session),
            Part::Commands { session, sequence, commands } => match self.state.sessions.admit(*session, *sequence) {
                Admission::Answer(outcome) => outcome,
                Admission::Apply => {
                    let mut outcomes = Vec::with_capacity(commands.len());
                    for stretch in commands.chunks(WARMED) {
                        self.state.counters.warm(stretch.iter().flat_map(counters_of));
                        outcomes.extend(stretch.iter().map(|command| self.apply_command(command, touched)));
                    }
                    let outcomes = Arc::new(outcomes);
                    self.state.sessions.keep(*session, *sequence, Arc::clone(&outcomes));
                    PartOutcome::Applied(outcomes)
                }
            },
            Part::Found { settings, policies } => {
                if !self.state.settings.founded() {
                    self.state.settings = settings.clone();
                    self.change_policies(&PolicyChange::Put(Owner::Builtin, policies.clone()), touched);
                    self.rules = Arc::new(Rules::new(&self.state.settings, Arc::clone(&self.state.table)));
                }
                PartOutcome::Done
            }
            Part::RaiseFeatureLevel(level) => {
                self.state.feature_level = self.state.feature_level.max(*level);
                PartOutcome::Done
            }
            Part::Decommission { node } => PartOutcome::Leaving(self.state.members.decommission(*node, self.state.now)),
        }
    }

    fn apply_command(&mut self, command: &Command, touched: &mut BTreeSet<String>) -> Outcome {
        match command {
            Command::Decide { revision, charges } => {
                let outcome = self.state.scene(self.state.now).decide(*revision, charges, &mut self.writes);
                for counter in self.writes.drain(..).filter_map(|write| write.counter) {
                    self.state.counters.put(counter);
                }
                if matches!(outcome, Outcome::CountersFull(_)) {
                    self.state.sweep_pressed = self.state.counters.round_steps();
                }
                outcome
            }
            Command::Reset { revision, charges } => {
                if !self.state.scene(self.state.now).is_current(*revision, charges) {
                    return Outcome::Rematch;
                }
                for charge in charges {
                    charge.counters.iter().for_each(|id| self.state.counters.remove(*id, charge.policy));
                }
                Outcome::Reset
            }
            Command::ChangePolicies(change) => Outcome::Policies(self.change_policies(change, touched)),
            Command::Bucket(command) => Outcome::Bucket(self.state.buckets.apply(command)),
        }
    }

    fn change_policies(
        &mut self,
        change: &PolicyChange,
        touched: &mut BTreeSet<String>,
    ) -> crate::command::PolicyOutcome {
        Arc::make_mut(&mut self.state.table).change(change, touched)
    }

    fn sweep(&mut self, tick: bool, created: u64) {
        let state = &mut self.state;
        let pressed = state.sweep_pressed.min(SWEEP_PRESSED);
        state.sweep_pressed -= pressed;
        let steps = if tick { SWEEP_TICK } else { SWEEP_BATCH } + created.saturating_mul(SWEEP_CREATED) + pressed;
        let table = &state.table;
        state.counters.sweep(state.now, steps, |policy, algorithm| Some(table.row(policy)?.life_ns(algorithm)));
    }
}

fn counters_of(command: &Command) -> impl Iterator<Item = CounterId> {
    let charges = match command {
        Command::Decide { charges, .. } => charges.as_slice(),
        Command::Reset { .. } | Command::ChangePolicies(_) | Command::Bucket(_) => &[],
    };
    charges.iter().flat_map(|charge| charge.counters.iter().copied())
}

#[cfg(test)]
mod tests;
