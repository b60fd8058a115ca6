//! The leader's side: packs parts of all nodes into log entries.
//!
//! There is no timer under load: while an entry is on its way the next one fills up, so a quiet cluster writes one
//! command an entry and a busy one writes big batches.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openraft_rt::{AsyncRuntime, Instant as _, Select2};
use quorate_limits::{Batch, Part, PartOutcome};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};

use super::{BATCH_BYTES_MAX, BATCH_COMMANDS_MAX, ENTRIES_IN_FLIGHT_MAX};
use crate::consensus::{Consensus, Leadership, NotLeader};
use crate::platform::Platform;
use crate::sync::lock;

/// Cluster time moves at least this often, so that windows end and counters expire without traffic.
const TICK: Duration = Duration::from_millis(500);
/// Commands that may wait at the leader; parts beyond are turned away and come again.
const WAITING_COMMANDS_MAX: usize = 64 * BATCH_COMMANDS_MAX;

/// A part was not taken, or its entry was not applied under the leadership that it was proposed under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TurnedAway {
    /// This node does not lead, or no longer. The part may still be applied.
    NotLeader(NotLeader),
    /// The disk of this node, which leads, is short of room, and nobody with room can take over. The part was not proposed.
    DiskFull,
}

impl From<NotLeader> for TurnedAway {
    fn from(not_leader: NotLeader) -> Self {
        Self::NotLeader(not_leader)
    }
}

type Reply = oneshot::Sender<Result<PartOutcome, TurnedAway>>;

struct Waiting {
    part: Part,
    commands: usize,
    bytes: usize,
    reply: Reply,
}

#[derive(Default)]
struct Queue {
    parts: VecDeque<Waiting>,
    commands: usize,
}

/// Parts on their way into the log. Its task ends with consensus; parts left then are answered by nobody, and their
/// senders see the channel close.
pub struct LeaderQueue<P: Platform> {
    consensus: Consensus<P>,
    queue: Mutex<Queue>,
    filled: Notify,
    slots: Arc<Semaphore>,
    paused: AtomicBool,
    refusing: AtomicBool,
    entries: AtomicU64,
}

/// How large a part is when written: close enough to bound an entry.
fn size(part: &Part) -> (usize, usize) {
    match part {
        Part::Commands { commands, .. } => (commands.len(), commands.len() * 64),
        Part::Found { policies, .. } => (1, 64 + policies.len() * 256),
        Part::OpenSession { .. } | Part::RaiseFeatureLevel(_) | Part::Decommission { .. } => (1, 32),
    }
}

impl<P: Platform> LeaderQueue<P> {
    /// A queue in front of consensus; [`run`](Self::run) empties it.
    pub fn new(consensus: Consensus<P>) -> Self {
        Self {
            consensus,
            queue: Mutex::default(),
            filled: Notify::new(),
            slots: Arc::new(Semaphore::new(ENTRIES_IN_FLIGHT_MAX)),
            paused: AtomicBool::new(false),
            refusing: AtomicBool::new(false),
            entries: AtomicU64::new(0),
        }
    }

    /// Log entries proposed so far.
    pub fn entries(&self) -> u64 {
        self.entries.load(Ordering::Relaxed)
    }

    /// Commands waiting now.
    pub fn waiting(&self) -> usize {
        lock(&self.queue).commands
    }

    /// Stops (or goes on) proposing; parts wait meanwhile.
    pub fn pause(&self, paused: bool) {
        self.paused.store(paused, Ordering::SeqCst);
        self.filled.notify_one();
    }

    /// Refuses all parts for want of room on the disk, or takes them again. Time in the cluster goes on all the same: the
    /// next stamp is that of its clock.
    pub fn refuse(&self, refusing: bool) {
        self.refusing.store(refusing, Ordering::SeqCst);
        self.filled.notify_one();
    }

    /// Waits until nothing is on its way into the log.
    pub async fn idle(&self) {
        let all = u32::try_from(ENTRIES_IN_FLIGHT_MAX).unwrap_or(u32::MAX);
        // Fails only when the semaphore is closed, which it never is.
        drop(self.slots.acquire_many(all).await);
    }

    /// Puts a part into the log.
    ///
    /// # Errors
    /// When this node does not lead, or stopped leading before the part was applied; it may still be applied then. When
    /// its disk is full.
    pub async fn submit(&self, part: Part) -> Result<PartOutcome, TurnedAway> {
        if self.consensus.leadership().is_none() {
            return Err(self.not_leader());
        }
        if self.refusing.load(Ordering::SeqCst) {
            return Err(TurnedAway::DiskFull);
        }
        let (commands, bytes) = size(&part);
        let (reply, answer) = oneshot::channel();
        {
            let mut queue = lock(&self.queue);
            if queue.commands + commands > WAITING_COMMANDS_MAX {
                return Err(NotLeader { leader: Some(self.consensus.link().me()) }.into());
            }
            queue.commands += commands;
            queue.parts.push_back(Waiting { part, commands, bytes, reply });
        }
        self.filled.notify_one();
        answer.await.unwrap_or_else(|_| Err(self.not_leader()))
    }

    fn not_leader(&self) -> TurnedAway {
        let me = self.consensus.link().me();
        NotLeader { leader: self.consensus.leader().filter(|leader| *leader != me) }.into()
    }

    /// Empties the queue for as long as the node lives.
    pub async fn run(self: Arc<Self>) {
        let mut ticked = P::now();
        loop {
            let until_tick = TICK.saturating_sub(P::now().saturating_duration_since(ticked));
            if lock(&self.queue).parts.is_empty() || self.paused.load(Ordering::SeqCst) {
                let woken = P::Rt::select2(Box::pin(self.filled.notified()), Box::pin(P::sleep(until_tick))).await;
                if matches!(woken, Select2::First(())) && self.paused.load(Ordering::SeqCst) {
                    continue;
                }
            }
            let Some(leadership) = self.consensus.leadership() else {
                self.turn_away(&self.not_leader());
                ticked = P::now();
                continue;
            };
            if self.refusing.load(Ordering::SeqCst) {
                self.turn_away(&TurnedAway::DiskFull);
                ticked = P::now();
                continue;
            }
            if self.paused.load(Ordering::SeqCst) {
                ticked = P::now();
                continue;
            }
            let idle_for = P::now().saturating_duration_since(ticked);
            if lock(&self.queue).parts.is_empty() && idle_for < TICK {
                continue;
            }
            let Ok(slot) = Arc::clone(&self.slots).acquire_owned().await else { return };
            self.propose(&leadership, slot).await;
            ticked = P::now();
        }
    }

    fn turn_away(&self, why: &TurnedAway) {
        let parts = std::mem::take(&mut *lock(&self.queue)).parts;
        for waiting in parts {
            let _ = waiting.reply.send(Err(why.clone()));
        }
    }

    /// As many parts as fit into one entry, at least one if there is one.
    fn take(&self) -> (Vec<Part>, Vec<Reply>) {
        let mut queue = lock(&self.queue);
        let (mut commands, mut bytes) = (0, 0);
        let (mut parts, mut replies) = (Vec::new(), Vec::new());
        while let Some(next) = queue.parts.front() {
            let full = commands + next.commands > BATCH_COMMANDS_MAX || bytes + next.bytes > BATCH_BYTES_MAX;
            if full && !parts.is_empty() {
                break;
            }
            let Some(next) = queue.parts.pop_front() else { break };
            queue.commands -= next.commands;
            // Nobody waits for it any more: its sender has given up or has sent it elsewhere.
            if next.reply.is_closed() {
                continue;
            }
            commands += next.commands;
            bytes += next.bytes;
            parts.push(next.part);
            replies.push(next.reply);
        }
        (parts, replies)
    }

    async fn propose(&self, leadership: &Leadership<P>, slot: OwnedSemaphorePermit) {
        let (parts, replies) = self.take();
        let batch = Batch { stamp: self.consensus.clock().stamp(), parts };
        #[cfg(feature = "deliberate-bugs")]
        self.consensus.state().read(|state| crate::probe::show(&crate::probe::Step::Stamped(batch.stamp), state));
        self.entries.fetch_add(1, Ordering::Relaxed);
        let outcome = self.consensus.propose(leadership, &batch).await;
        // The task ends when the entry is applied or the leadership lost.
        P::spawn(async move {
            let outcome = outcome.await;
            drop(slot);
            match outcome {
                Ok(outcomes) => {
                    for (reply, outcome) in replies.into_iter().zip(outcomes) {
                        let _ = reply.send(Ok(outcome));
                    }
                }
                Err(not_leader) => {
                    for reply in replies {
                        let _ = reply.send(Err(not_leader.clone().into()));
                    }
                }
            }
        });
    }
}
