//! The replicated state machine on this node: applies entries, makes and installs snapshots.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use openraft::alias::{LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use quorate_limits::{Batch, Frozen, Rules, Run, StateMachine};
use tokio::sync::Notify;

use super::clock::ClusterClock;
use super::convert::log_id_from_raft;
use super::image::{self, Head, invalid};
use super::types::{Applied, Proposal, Types};
use crate::platform::Platform;
use crate::storage::{Image, LogId, SnapshotStore};
use crate::sync::lock;

/// The highest feature level this build can apply.
pub const FEATURE_LEVEL: u32 = 1;

/// The state that requests are matched and read against.
pub struct State {
    machine: Mutex<StateMachine>,
    rules: ArcSwap<Rules>,
    runs: ArcSwap<BTreeMap<u64, Run>>,
    /// Former members, apart from the machine: asked with every frame, while a batch may be applied.
    removed: ArcSwap<BTreeSet<u64>>,
    changed: Notify,
}

impl State {
    pub(super) fn new(machine: StateMachine) -> Self {
        let rules = ArcSwap::new(machine.rules());
        let runs = ArcSwap::new(Arc::clone(machine.runs()));
        let removed = ArcSwap::from_pointee(machine.members().removed().collect());
        Self { machine: Mutex::new(machine), rules, runs, removed, changed: Notify::new() }
    }

    /// The rules as applied so far.
    pub fn rules(&self) -> Arc<Rules> {
        self.rules.load_full()
    }

    /// The latest run known of each node; does not wait for what is being applied.
    pub fn runs(&self) -> Arc<BTreeMap<u64, Run>> {
        self.runs.load_full()
    }

    /// Waits until the rules are others than `known`.
    pub async fn rules_other_than(&self, known: &Arc<Rules>) -> Arc<Rules> {
        loop {
            let changed = self.changed.notified();
            let mut changed = std::pin::pin!(changed);
            // Registered before looking, so that no change between is missed.
            changed.as_mut().enable();
            let rules = self.rules();
            if !Arc::ptr_eq(&rules, known) {
                return rules;
            }
            changed.await;
        }
    }

    /// Looks at the state. Keep it short: applying waits.
    pub fn read<T>(&self, look: impl FnOnce(&StateMachine) -> T) -> T {
        look(&lock(&self.machine))
    }

    /// Whether this id was a member's and is no more, as far as this node has applied the log. It never will be again.
    pub fn is_removed(&self, id: u64) -> bool {
        self.removed.load().contains(&id)
    }

    /// Takes over the state's former members after a membership was applied or a snapshot installed.
    fn publish_removed(&self) {
        let removed = self.read(|machine| machine.members().removed().collect());
        self.removed.store(Arc::new(removed));
    }

    /// Shows what is looked at beside the machine. Takes it locked, so that nobody sees an older state after a newer one.
    fn publish(&self, machine: MutexGuard<'_, StateMachine>) {
        if !Arc::ptr_eq(&self.runs.load(), machine.runs()) {
            self.runs.store(Arc::clone(machine.runs()));
        }
        let rules = machine.rules();
        drop(machine);
        if !Arc::ptr_eq(&self.rules.load(), &rules) {
            self.rules.store(rules);
            self.changed.notify_waiters();
        }
    }
}

/// openraft's state machine.
pub struct Machine<P: Platform> {
    state: Arc<State>,
    clock: Arc<ClusterClock<P>>,
    last: Option<LogIdOf<Types<P>>>,
    membership: StoredMembershipOf<Types<P>>,
    snapshots: Snapshots,
}

/// Where snapshots are kept.
#[derive(Clone)]
struct Snapshots {
    store: Arc<dyn SnapshotStore>,
    /// What the one that is kept reaches.
    kept: Arc<tokio::sync::Mutex<Option<LogId>>>,
    /// Bytes made, or read, at once.
    piece_bytes: usize,
}

impl<P: Platform> Machine<P> {
    /// The machine as its last snapshot left it; openraft replays the log behind it. Snapshots go in pieces of `piece_bytes`.
    ///
    /// # Errors
    /// When the snapshot cannot be read.
    pub async fn open(
        store: Arc<dyn SnapshotStore>,
        clock: Arc<ClusterClock<P>>,
        piece_bytes: usize,
    ) -> io::Result<Self> {
        let last = store.last().await?;
        let mut machine = Self {
            state: Arc::new(State::new(StateMachine::default())),
            clock,
            last: None,
            membership: StoredMembershipOf::<Types<P>>::default(),
            snapshots: Snapshots { store, kept: Arc::default(), piece_bytes },
        };
        if let Some(image) = last {
            machine.install(&image).await?;
        }
        Ok(machine)
    }

    /// The state, shared with whoever matches and reads.
    #[must_use]
    pub fn state(&self) -> Arc<State> {
        Arc::clone(&self.state)
    }

    /// What the snapshot it began from reaches up to.
    pub(super) fn last(&self) -> Option<LogId> {
        self.last.as_ref().map(log_id_from_raft::<P>)
    }

    /// Takes over the state in an image, once all of it is read and its place on the disk is its own.
    async fn install(&mut self, image: &Arc<dyn Image>) -> io::Result<()> {
        let (head, offset) = Head::read(image).await?;
        let meta = head.meta::<P>()?;
        let machine = image::read_state(image, offset, self.snapshots.piece_bytes).await?;
        self.snapshots.keep::<P>(image, head.last).await?;
        self.clock.installed(machine.now());
        self.last = meta.last_log_id;
        self.membership = meta.last_membership;
        let mut shared = lock(&self.state.machine);
        *shared = machine;
        self.state.publish(shared);
        self.state.publish_removed();
        #[cfg(feature = "deliberate-bugs")]
        self.show(&crate::probe::Step::Installed(self.last.as_ref().map(log_id_from_raft::<P>)));
        Ok(())
    }

    #[cfg(feature = "deliberate-bugs")]
    fn show(&self, step: &crate::probe::Step<'_>) {
        crate::probe::show(step, &lock(&self.state.machine));
    }

    fn apply_proposal(&self, proposal: &Proposal) -> io::Result<Applied> {
        let batch = Batch::decode(&proposal.0).map_err(|error| invalid(format!("log entry: {error}")))?;
        let mut machine = lock(&self.state.machine);
        let outcomes = machine.apply(&batch);
        self.clock.applied(machine.now());
        if machine.feature_level() > FEATURE_LEVEL {
            return Err(invalid(format!(
                "the cluster has moved to feature level {}, this build knows {FEATURE_LEVEL}; run a newer version",
                machine.feature_level()
            )));
        }
        self.state.publish(machine);
        Ok(Applied(outcomes))
    }
}

impl Snapshots {
    /// Keeps an image unless one that reaches as far or further is kept: what was made here may be older by now than what came
    /// from another node.
    async fn keep<P: Platform>(&self, image: &Arc<dyn Image>, last: Option<LogId>) -> io::Result<()> {
        let mut kept = self.kept.lock().await;
        if *kept < last {
            image::when_room::<P, _>(|| Arc::clone(image).keep()).await?;
            *kept = last;
        }
        Ok(())
    }
}

impl<P: Platform> RaftStateMachine<Types<P>> for Machine<P> {
    type SnapshotData = Arc<dyn Image>;
    type SnapshotBuilder = Builder<P>;

    async fn applied_state(&mut self) -> io::Result<(Option<LogIdOf<Types<P>>>, StoredMembershipOf<Types<P>>)> {
        Ok((self.last, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types<P>>>> + Unpin + OptionalSend,
    {
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            let applied = match &entry.payload {
                EntryPayload::Blank => Applied::default(),
                EntryPayload::Normal(proposal) => self.apply_proposal(proposal)?,
                EntryPayload::Membership(membership) => {
                    self.membership = StoredMembershipOf::<Types<P>>::new(Some(entry.log_id), membership.clone());
                    let members = membership.nodes().map(|(id, member)| (*id, member.name.clone())).collect();
                    let mut machine = lock(&self.state.machine);
                    machine.set_members(members);
                    self.state.publish(machine);
                    self.state.publish_removed();
                    Applied::default()
                }
            };
            self.last = Some(entry.log_id);
            #[cfg(feature = "deliberate-bugs")]
            self.show(&crate::probe::Step::Applied {
                at: log_id_from_raft::<P>(&entry.log_id),
                payload: super::encode_payload::<P>(&entry.payload),
                outcomes: &applied.0,
            });
            if let Some(responder) = responder {
                responder.send(applied);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder<P> {
        Builder {
            frozen: Some(lock(&self.state.machine).freeze()),
            last: self.last,
            membership: self.membership.clone(),
            snapshots: self.snapshots.clone(),
        }
    }

    async fn install_snapshot(&mut self, _meta: &SnapshotMetaOf<Types<P>>, image: Arc<dyn Image>) -> io::Result<()> {
        self.install(&image).await
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf<Types<P>, Arc<dyn Image>>>> {
        let Some(image) = self.snapshots.store.last().await? else { return Ok(None) };
        let (head, _) = Head::read(&image).await?;
        Ok(Some(SnapshotOf::<Types<P>, Arc<dyn Image>> { meta: head.meta::<P>()?, snapshot: image }))
    }
}

/// Makes one snapshot from a frozen state while the machine goes on.
pub struct Builder<P: Platform> {
    /// Let go as it is written.
    frozen: Option<Frozen>,
    last: Option<LogIdOf<Types<P>>>,
    membership: StoredMembershipOf<Types<P>>,
    snapshots: Snapshots,
}

impl<P: Platform> RaftSnapshotBuilder<Types<P>> for Builder<P> {
    type SnapshotData = Arc<dyn Image>;

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf<Types<P>, Arc<dyn Image>>> {
        let frozen = self.frozen.take().ok_or_else(|| io::Error::other("a snapshot is made once"))?;
        let head = Head::new::<P>(self.last.as_ref(), &self.membership);
        let image = image::when_room::<P, _>(|| self.snapshots.store.begin()).await?;
        for piece in std::iter::once(head.encode()).chain(frozen.into_pieces(self.snapshots.piece_bytes)) {
            let piece = Bytes::from(piece);
            image::when_room::<P, _>(|| Arc::clone(&image).append(piece.clone())).await?;
        }
        self.snapshots.keep::<P>(&image, head.last).await?;
        Ok(SnapshotOf::<Types<P>, Arc<dyn Image>> { meta: head.meta::<P>()?, snapshot: image })
    }
}

#[cfg(test)]
mod tests;
