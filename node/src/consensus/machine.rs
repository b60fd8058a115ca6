//! The replicated state machine on this node: applies entries, makes and installs snapshots.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use arc_swap::ArcSwap;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::{Stream, StreamExt};
use openraft::alias::{LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use quorate_limits::{Batch, Rules, Run, StateMachine};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::clock::ClusterClock;
use super::convert::{WireMembership, log_id_from_raft, log_id_to_raft};
use super::types::{Applied, Proposal, Types};
use super::wire;
use crate::platform::Platform;
use crate::storage::{LogId, SnapshotStore};
use crate::sync::lock;

/// The highest feature level this build can apply.
pub const FEATURE_LEVEL: u32 = 1;

/// The first byte of a snapshot image.
const IMAGE_VERSION: u8 = 1;

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
    fn new(machine: StateMachine) -> Self {
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

/// What stands before the state in a snapshot image.
#[derive(Serialize, Deserialize)]
struct ImageHead {
    last: Option<LogId>,
    membership_at: Option<LogId>,
    membership: WireMembership,
}

/// openraft's state machine.
pub struct Machine<P: Platform> {
    state: Arc<State>,
    clock: Arc<ClusterClock<P>>,
    last: Option<LogIdOf<Types<P>>>,
    membership: StoredMembershipOf<Types<P>>,
    snapshots: Arc<dyn SnapshotStore>,
    current: Arc<Mutex<Option<Bytes>>>,
}

impl<P: Platform> Machine<P> {
    /// The machine as its last snapshot left it; openraft replays the log behind it.
    ///
    /// # Errors
    /// When the snapshot cannot be read.
    pub async fn open(snapshots: Arc<dyn SnapshotStore>, clock: Arc<ClusterClock<P>>) -> io::Result<Self> {
        let mut machine = Self {
            state: Arc::new(State::new(StateMachine::default())),
            clock,
            last: None,
            membership: StoredMembershipOf::<Types<P>>::default(),
            snapshots,
            current: Arc::default(),
        };
        if let Some(image) = machine.snapshots.load().await? {
            machine.take(image)?;
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

    fn take(&mut self, image: Bytes) -> io::Result<()> {
        let (head, body) = open_image(image.clone())?;
        let machine = StateMachine::decode(&body).map_err(|error| invalid(format!("snapshot: {error}")))?;
        self.clock.installed(machine.now());
        self.last = head.last.map(log_id_to_raft::<P>);
        self.membership = StoredMembershipOf::<Types<P>>::new(
            head.membership_at.map(log_id_to_raft::<P>),
            head.membership.into_raft()?,
        );
        let mut shared = lock(&self.state.machine);
        *shared = machine;
        self.state.publish(shared);
        self.state.publish_removed();
        *lock(&self.current) = Some(image);
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

fn invalid(reason: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.into())
}

fn open_image(mut image: Bytes) -> io::Result<(ImageHead, Bytes)> {
    if image.len() < 5 {
        return Err(invalid("snapshot: too short"));
    }
    let version = image.get_u8();
    if version != IMAGE_VERSION {
        return Err(invalid(format!("snapshot: version {version} is unknown to this build; run a newer version")));
    }
    let length = image.get_u32_le() as usize;
    if image.len() < length {
        return Err(invalid("snapshot: too short"));
    }
    let head = wire::decode(&image.split_to(length))?;
    Ok((head, image))
}

fn close_image(head: &ImageHead, state: &[u8]) -> Vec<u8> {
    let head = wire::encode(head);
    let mut out = BytesMut::with_capacity(5 + head.len() + state.len());
    out.put_u8(IMAGE_VERSION);
    out.put_u32_le(u32::try_from(head.len()).unwrap_or(u32::MAX));
    out.put_slice(&head);
    out.put_slice(state);
    out.into()
}

impl<P: Platform> RaftStateMachine<Types<P>> for Machine<P> {
    type SnapshotData = Bytes;
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
            frozen: lock(&self.state.machine).freeze(),
            last: self.last,
            membership: self.membership.clone(),
            snapshots: Arc::clone(&self.snapshots),
            current: Arc::clone(&self.current),
        }
    }

    async fn install_snapshot(&mut self, _meta: &SnapshotMetaOf<Types<P>>, image: Bytes) -> io::Result<()> {
        let kept = image.clone();
        self.snapshots.save(Box::new(move || kept.to_vec())).await?;
        self.take(image)
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf<Types<P>, Bytes>>> {
        let Some(image) = lock(&self.current).clone() else { return Ok(None) };
        Ok(Some(SnapshotOf::<Types<P>, Bytes> { meta: image_meta::<P>(&image)?, snapshot: image }))
    }
}

/// What openraft wants to know of an image.
///
/// # Errors
/// When it cannot be read.
pub fn image_meta<P: Platform>(image: &Bytes) -> io::Result<SnapshotMetaOf<Types<P>>> {
    let (head, _) = open_image(image.clone())?;
    Ok(SnapshotMetaOf::<Types<P>> {
        last_log_id: head.last.map(log_id_to_raft::<P>),
        last_membership: StoredMembershipOf::<Types<P>>::new(
            head.membership_at.map(log_id_to_raft::<P>),
            head.membership.into_raft()?,
        ),
    })
}

/// Makes one snapshot from a frozen state while the machine goes on.
pub struct Builder<P: Platform> {
    frozen: quorate_limits::Frozen,
    last: Option<LogIdOf<Types<P>>>,
    membership: StoredMembershipOf<Types<P>>,
    snapshots: Arc<dyn SnapshotStore>,
    current: Arc<Mutex<Option<Bytes>>>,
}

impl<P: Platform> RaftSnapshotBuilder<Types<P>> for Builder<P> {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf<Types<P>, Bytes>> {
        let head = ImageHead {
            last: self.last.as_ref().map(log_id_from_raft::<P>),
            membership_at: self.membership.log_id().as_ref().map(log_id_from_raft::<P>),
            membership: WireMembership::from_raft(self.membership.membership()),
        };
        let frozen = self.frozen.clone();
        let image = self.snapshots.save(Box::new(move || close_image(&head, &frozen.encode()))).await?;
        *lock(&self.current) = Some(image.clone());
        Ok(SnapshotOf::<Types<P>, Bytes> { meta: image_meta::<P>(&image)?, snapshot: image })
    }
}
