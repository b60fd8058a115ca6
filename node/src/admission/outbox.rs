//! Collects single commands into parts, so that many requests share one message and one log entry.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use quorate_limits::{Command, Outcome};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};

use super::{BATCH_COMMANDS_MAX, Courier, IN_FLIGHT_MAX};
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

struct Item<I> {
    command: Command,
    until: I,
    reply: oneshot::Sender<Outcome>,
}

/// Commands on their way to the courier. Its task ends with the node; whoever waits then sees the channel close.
pub struct Outbox<P: Platform> {
    purpose: Purpose,
    courier: Arc<Courier<P>>,
    waiting: Mutex<VecDeque<Item<Instant<P>>>>,
    filled: Notify,
    slots: Arc<Semaphore>,
}

impl<P: Platform> Outbox<P> {
    /// An outbox in front of the courier; [`run`](Self::run) empties it.
    pub fn new(purpose: Purpose, courier: Arc<Courier<P>>) -> Self {
        Self {
            purpose,
            courier,
            waiting: Mutex::default(),
            filled: Notify::new(),
            slots: Arc::new(Semaphore::new(IN_FLIGHT_MAX)),
        }
    }

    /// Commands waiting now.
    pub fn waiting(&self) -> usize {
        lock(&self.waiting).len()
    }

    /// Adds a command that somebody waits for until `until`. The channel closes without an outcome when none is
    /// known by then.
    ///
    /// # Errors
    /// When too many wait already.
    pub fn submit(&self, command: Command, until: Instant<P>) -> Result<oneshot::Receiver<Outcome>, Overloaded> {
        let (reply, outcome) = oneshot::channel();
        {
            let mut waiting = lock(&self.waiting);
            if waiting.len() >= WAITING_MAX {
                return Err(Overloaded);
            }
            waiting.push_back(Item { command, until, reply });
        }
        self.filled.notify_one();
        Ok(outcome)
    }

    /// Sends what is collected for as long as the node lives.
    pub async fn run(self: Arc<Self>) {
        loop {
            if lock(&self.waiting).is_empty() {
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

    fn take(&self) -> Vec<Item<Instant<P>>> {
        let mut waiting = lock(&self.waiting);
        let count = waiting.len().min(BATCH_COMMANDS_MAX);
        waiting.drain(..count).filter(|item| !item.reply.is_closed()).collect()
    }

    async fn send(self: Arc<Self>, items: Vec<Item<Instant<P>>>, slot: OwnedSemaphorePermit) {
        let Some(until) = items.iter().map(|item| item.until).max() else { return };
        let (commands, replies): (Vec<_>, Vec<_>) = items.into_iter().map(|item| (item.command, item.reply)).unzip();
        match self.purpose {
            Purpose::Commit => {
                let outcomes = self.courier.commit(commands, until).await;
                drop(slot);
                for (reply, outcome) in replies.into_iter().zip(outcomes.iter().flat_map(|all| all.iter())) {
                    let _ = reply.send(outcome.clone());
                }
            }
            Purpose::Look => {
                let outcomes = self.courier.read(commands, until).await;
                drop(slot);
                for (reply, outcome) in replies.into_iter().zip(outcomes.into_iter().flat_map(|(all, _)| all)) {
                    let _ = reply.send(outcome);
                }
            }
        }
    }
}
