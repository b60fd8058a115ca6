//! `QuotaPolicies`: what each cluster is to hold of them, and what is told of each.
//!
//! [`World`] is what the API server says, kept up to date; the [`Roster`] knows which clusters a change concerns. Each
//! cluster that is there, or that a policy names, has a [`Keeper`] of its own, which goes through these stages:
//!
//! 1. [`select`](mod@select) finds the policies that name the cluster, and those it may not have (pure);
//! 2. [`desired`](mod@desired) makes the set it is to hold (pure);
//! 3. [`table`] makes the cluster hold it, through any node, as one set: absence removes, so there is no finalizer;
//! 4. [`status`] words where each policy stands (pure), and [`writer`] writes what is new of that.
//!
//! Which cluster a policy names that cannot be read is not known, so [`unreadable`] tells of those.

pub mod denied;
pub mod desired;
pub mod keeper;
pub mod metrics;
pub mod roster;
pub mod select;
pub mod status;
pub mod table;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
pub mod unreadable;
pub mod world;
pub mod writer;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use futures::StreamExt as _;
use kube::core::DeserializeGuard;
use kube::runtime::watcher::Event;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};

use crate::context::Context;
use keeper::Keeper;
use roster::{Concerned, Roster};
use select::ClusterKey;
use world::{Broken, Change, Changes, World};

/// Runs until it is told to stop, which is when `stop` turns true. Keepers end what they are at.
///
/// # Errors
/// One of those that it has started panicked. Nobody would do its work any more.
pub async fn run(context: Context, mut stop: watch::Receiver<bool>) -> Result<(), String> {
    let (mut keepers, changes) = Keepers::new(context);
    tokio::select! {
        // An error says that whoever could tell is gone.
        _ = stop.wait_for(|stop| *stop) => {}
        ended = keepers.follow(changes) => ended?,
    }
    let Keepers { mut tasks, awake, unread, .. } = keepers;
    drop((awake, unread));
    while let Some(ended) = tasks.join_next().await {
        check(ended)?;
    }
    Ok(())
}

fn check(ended: Result<(), JoinError>) -> Result<(), String> {
    ended.map_err(|error| format!("who looks after QuotaPolicies ended by a fault of this operator: {error}"))
}

/// A keeper for each cluster that there is a reason to look after.
struct Keepers {
    context: Context,
    world: Arc<World>,
    /// Wakes who tells of policies that cannot be read.
    unread: watch::Sender<()>,
    roster: Roster,
    /// Wakes a keeper; one whose waker is gone ends after its pass.
    awake: HashMap<ClusterKey, watch::Sender<()>>,
    tasks: JoinSet<()>,
    is_listed: bool,
    /// Namespaces of which it was said that they cannot be listed.
    forbidden: HashSet<String>,
}

impl Keepers {
    fn new(context: Context) -> (Self, Changes) {
        let (world, changes) = World::watch(&context);
        let world = Arc::new(world);
        let (unread, woken) = watch::channel(());
        let mut tasks = JoinSet::new();
        tasks.spawn(unreadable::run(context.clone(), Arc::clone(&world), woken));
        let (roster, awake, forbidden) = (Roster::default(), HashMap::new(), HashSet::new());
        (Self { context, world, unread, roster, awake, tasks, is_listed: false, forbidden }, changes)
    }

    async fn follow(&mut self, mut changes: Changes) -> Result<(), String> {
        loop {
            tokio::select! {
                change = changes.next() => match change {
                    Some(Ok(change)) => self.take(&change),
                    Some(Err(broken)) => self.broke(&broken),
                    None => return Ok(()),
                },
                Some(ended) = self.tasks.join_next() => check(ended)?,
            }
        }
    }

    fn take(&mut self, change: &Change) {
        if matches!(change, Change::Policy(Event::Apply(DeserializeGuard(Err(_))) | Event::InitDone)) {
            self.unread.send_replace(());
        }
        match self.roster.note(change) {
            // As long as not everything was listed once, a policy that is not there may only not be known yet.
            Concerned::Clusters(keys) if self.is_listed => self.wake(keys),
            Concerned::Clusters(_) => {}
            Concerned::All => self.look_at_all(),
        }
    }

    /// Of the watch of a namespace that was deleted, or whose rights were taken away, it is said once.
    fn broke(&mut self, broken: &Broken) {
        // The watch begins anew by itself, later each time.
        self.context.metrics.failed("policy", "Watch");
        match broken.forbids() {
            Some(namespace) if !self.forbidden.insert(namespace.to_owned()) => {}
            Some(namespace) => tracing::warn!(
                "namespace {namespace} cannot be watched, so what clusters hold of its policies stays: {}; give this \
                 operator its rights there, or take the namespace out of WATCH_NAMESPACES",
                broken.error
            ),
            None => tracing::warn!("a watch ended: {}", broken.error),
        }
        if !self.is_listed {
            self.look_at_all();
        }
    }

    fn look_at_all(&mut self) {
        self.is_listed = self.is_listed || self.world.is_listed();
        if self.is_listed {
            let all = self.roster.list(&self.world);
            self.wake(all);
        }
    }

    fn wake(&mut self, keys: BTreeSet<ClusterKey>) {
        for key in keys {
            if !self.roster.has(&key) {
                self.awake.remove(&key);
                continue;
            }
            if let Some(waker) = self.awake.get(&key) {
                waker.send_replace(());
                continue;
            }
            let (waker, woken) = watch::channel(());
            let keeper = Keeper::new(key.clone(), self.context.clone(), Arc::clone(&self.world));
            self.tasks.spawn(keeper.run(woken));
            self.awake.insert(key, waker);
        }
    }
}
