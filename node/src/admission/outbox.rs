//! Collects single commands into parts, so that many requests share one message and one log entry.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use quorate_limits::{Command, Outcome};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};

use super::{BATCH_COMMANDS_MAX, Courier, PARTS_IN_FLIGHT_MAX, UnavailableReason};
use crate::platform::{Instant, Platform};
use crate::sync::lock;

/// Commands that may wait on one node; more are turned away at once.
const WAITING_MAX: usize = 65_536;

/// What becomes of the commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// They go through the log and count once.
    Commit,
    /// They are looked at by the leader and change nothing.
    Look,
}

/// Too many commands wait already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overloaded;

/// Commands that travel together: in one part, in order.
struct Item<I> {
    commands: Vec<Command>,
    until: I,
    reply: oneshot::Sender<Result<Vec<Outcome>, UnavailableReason>>,
}

struct Waiting<I> {
    items: VecDeque<Item<I>>,
    commands: usize,
}

/// Commands on their way to the courier. Its task ends with the node; whoever waits then sees the channel close.
pub struct Outbox<P: Platform> {
    purpose: Purpose,
    courier: Arc<Courier<P>>,
    waiting: Mutex<Waiting<Instant<P>>>,
    filled: Notify,
    slots: Arc<Semaphore>,
}

impl<P: Platform> Outbox<P> {
    /// An outbox in front of the courier; [`run`](Self::run) empties it.
    pub fn new(purpose: Purpose, courier: Arc<Courier<P>>) -> Self {
        Self {
            purpose,
            courier,
            waiting: Mutex::new(Waiting { items: VecDeque::new(), commands: 0 }),
            filled: Notify::new(),
            slots: Arc::new(Semaphore::new(PARTS_IN_FLIGHT_MAX)),
        }
    }

    /// Commands waiting now.
    pub fn waiting(&self) -> usize {
        lock(&self.waiting).commands
    }

    /// Adds commands that somebody waits for until `until`; they are applied in order, with nothing of this node between
    /// them. Without outcomes by then, or when they are refused, the channel says why.
    ///
    /// # Errors
    /// When too many wait already.
    pub fn submit(
        &self,
        commands: Vec<Command>,
        until: Instant<P>,
    ) -> Result<oneshot::Receiver<Result<Vec<Outcome>, UnavailableReason>>, Overloaded> {
        let (reply, outcomes) = oneshot::channel();
        {
            let mut waiting = lock(&self.waiting);
            if waiting.commands + commands.len() > WAITING_MAX {
                return Err(Overloaded);
            }
            waiting.commands += commands.len();
            waiting.items.push_back(Item { commands, until, reply });
        }
        self.filled.notify_one();
        Ok(outcomes)
    }

    /// Sends what is collected for as long as the node lives.
    pub async fn run(self: Arc<Self>) {
        loop {
            if lock(&self.waiting).items.is_empty() {
                self.filled.notified().await;
            }
            let Ok(slot) = Arc::clone(&self.slots).acquire_owned().await else { return };
            let items = self.take();
            if !items.is_empty() {
                // The task ends when the part is answered or its last waiter gives up.
                P::spawn(Arc::clone(&self).send(items, slot));
            }
        }
    }

    /// As many items as fit into one part, at least one if there is one.
    fn take(&self) -> Vec<Item<Instant<P>>> {
        let mut waiting = lock(&self.waiting);
        let (mut items, mut commands) = (Vec::new(), 0);
        while let Some(next) = waiting.items.front() {
            if commands + next.commands.len() > BATCH_COMMANDS_MAX && !items.is_empty() {
                break;
            }
            let Some(next) = waiting.items.pop_front() else { break };
            waiting.commands -= next.commands.len();
            // Nobody waits for it any more.
            if !next.reply.is_closed() {
                commands += next.commands.len();
                items.push(next);
            }
        }
        items
    }

    async fn send(self: Arc<Self>, items: Vec<Item<Instant<P>>>, slot: OwnedSemaphorePermit) {
        let Some(until) = items.iter().map(|item| item.until).max() else { return };
        let mut commands = Vec::new();
        let mut replies = Vec::with_capacity(items.len());
        for item in items {
            replies.push((item.commands.len(), item.reply));
            commands.extend(item.commands);
        }
        let outcomes = match self.purpose {
            Purpose::Commit => self.courier.commit(commands, until).await.map(Arc::unwrap_or_clone),
            Purpose::Look => self.courier.read(commands, until).await.map(|(outcomes, _)| outcomes),
        };
        drop(slot);
        let mut outcomes = outcomes.map(Vec::into_iter);
        for (count, reply) in replies {
            let part = outcomes.as_mut().map(|outcomes| outcomes.by_ref().take(count).collect());
            let _ = reply.send(part.map_err(|reason| *reason));
        }
    }
}
