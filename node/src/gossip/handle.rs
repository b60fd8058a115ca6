//! The handle: what the rest of the node sees of gossip.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::marker::PhantomData;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;

use super::agent::Agent;
use super::codec::{Id, check};
use super::{Contacts, Datagrams, Peer};
use crate::platform::Platform;
use crate::sync::lock;

/// The membership agent of this node.
///
/// It runs as a task until [`leave`](Self::leave), [`stop`](Self::stop) or the last handle's drop.
pub struct Gossip<P: Platform> {
    shared: Arc<Shared>,
    platform: PhantomData<P>,
}

/// How many packets there were, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sent.
    pub sent: u64,
    /// Received, the refused included.
    pub received: u64,
    /// Refused because they came from another cluster.
    pub foreign: u64,
    /// Refused for any other reason.
    pub malformed: u64,
}

#[derive(Default)]
pub(super) struct Counters {
    pub(super) sent: AtomicU64,
    pub(super) received: AtomicU64,
    pub(super) foreign: AtomicU64,
    pub(super) malformed: AtomicU64,
}

pub(super) struct Shared {
    pub(super) view: Mutex<View>,
    pub(super) counters: Counters,
    /// Wakes the task: the own record or the phase changed.
    pub(super) wake: Notify,
    /// Wakes whoever waits for a change of the view.
    pub(super) changes: Notify,
}

/// What the outside sees.
pub(super) struct View {
    /// This node. Its version follows when the task took the change over.
    pub(super) me: Peer,
    pub(super) others: BTreeMap<u64, Known>,
    pub(super) generation: u64,
    pub(super) phase: Phase,
}

#[derive(Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) peer: Arc<Peer>,
    pub(super) alive: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Running,
    Leaving,
    Stopping,
    Ended,
}

impl Shared {
    pub(super) fn view(&self) -> MutexGuard<'_, View> {
        lock(&self.view)
    }

    /// Asks the task to end; does nothing when it is ending already.
    fn end(&self, phase: Phase) {
        let mut view = self.view();
        if view.phase == Phase::Running {
            view.phase = phase;
            self.wake.notify_one();
        }
    }

    /// Waits until `f` finds what it wants in the view.
    async fn wait_for<T>(&self, f: impl Fn(&View) -> Option<T>) -> T {
        loop {
            let mut changed = pin!(self.changes.notified());
            changed.as_mut().enable();
            let found = f(&self.view());
            match found {
                Some(found) => return found,
                None => changed.await,
            }
        }
    }
}

impl<P: Platform> Gossip<P> {
    /// Starts to look for others. `contacts` may name this node too.
    ///
    /// # Errors
    /// When the record `me` is unusable: a name longer than 63 bytes, say.
    pub fn start(me: Peer, datagrams: Arc<dyn Datagrams>, contacts: Arc<dyn Contacts>) -> io::Result<Arc<Self>> {
        check(&me).map_err(|why| unusable(&me, why))?;
        let id = Id(Arc::new(me.clone()));
        let view = View { me, others: BTreeMap::new(), generation: 0, phase: Phase::Running };
        let shared = Arc::new(Shared {
            view: Mutex::new(view),
            counters: Counters::default(),
            wake: Notify::new(),
            changes: Notify::new(),
        });
        let agent = Agent::<P>::new(id, Arc::clone(&shared), datagrams, contacts);
        P::spawn(agent.run());
        Ok(Arc::new(Self { shared, platform: PhantomData }))
    }

    /// This node first, then every other that is alive, by node id. Peers of other clusters are not among them.
    #[must_use]
    pub fn peers(&self) -> Vec<Peer> {
        let view = self.shared.view();
        let others = view.others.values().filter(|known| known.alive).map(|known| Peer::clone(&known.peer));
        std::iter::once(view.me.clone()).chain(others).collect()
    }

    /// Changes what this node says of itself and tells the others. `node`, `boot` and `version` are not changed by it.
    ///
    /// # Errors
    /// When the record would become unusable; it is left as it was.
    pub fn update(&self, change: impl FnOnce(&mut Peer)) -> io::Result<()> {
        let mut view = self.shared.view();
        let mut changed = view.me.clone();
        change(&mut changed);
        let Peer { node, boot, version, .. } = view.me;
        let changed = Peer { node, boot, version, ..changed };
        check(&changed).map_err(|why| unusable(&changed, why))?;
        if changed != view.me {
            view.me = changed;
            view.generation += 1;
            self.shared.changes.notify_waiters();
            self.shared.wake.notify_one();
        }
        Ok(())
    }

    /// Where consensus of `node` listens; for a peer that went down within the last hour, where it did.
    #[must_use]
    pub fn address_of(&self, node: u64) -> Option<String> {
        let view = self.shared.view();
        if node == view.me.node {
            return Some(view.me.raft_address.clone());
        }
        view.others.get(&node).map(|known| known.peer.raft_address.clone())
    }

    /// Whether `node` is thought to be alive; a suspected one still is. This node always is.
    #[must_use]
    pub fn is_alive(&self, node: u64) -> bool {
        let view = self.shared.view();
        node == view.me.node || view.others.get(&node).is_some_and(|known| known.alive)
    }

    /// Counts the changes of what is known of this node and the others.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.shared.view().generation
    }

    /// Waits until the [generation](Self::generation) is not `seen` any more, and gives it.
    pub fn changed(&self, seen: u64) -> impl Future<Output = u64> + Send + 'static + use<P> {
        let shared = Arc::clone(&self.shared);
        async move { shared.wait_for(|view| (view.generation != seen).then_some(view.generation)).await }
    }

    /// How many packets there were.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let counters = &self.shared.counters;
        Counts {
            sent: counters.sent.load(Ordering::Relaxed),
            received: counters.received.load(Ordering::Relaxed),
            foreign: counters.foreign.load(Ordering::Relaxed),
            malformed: counters.malformed.load(Ordering::Relaxed),
        }
    }

    /// Tells a few others that this node goes, and ends. There is no way back.
    pub fn leave(&self) -> impl Future<Output = ()> + Send + 'static + use<P> {
        self.shared.end(Phase::Leaving);
        let shared = Arc::clone(&self.shared);
        async move { shared.wait_for(|view| (view.phase == Phase::Ended).then_some(())).await }
    }

    /// Ends without a word, as a crash would. There is no way back.
    pub fn stop(&self) {
        self.shared.end(Phase::Stopping);
    }
}

impl<P: Platform> Drop for Gossip<P> {
    fn drop(&mut self) {
        self.stop();
    }
}

impl<P: Platform> fmt::Debug for Gossip<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gossip").field("peers", &self.peers()).finish()
    }
}

fn unusable(peer: &Peer, why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("gossip cannot announce node {:?}: {why}", peer.name))
}
