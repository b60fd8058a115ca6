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

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use futures::StreamExt as _;
use kube::core::DeserializeGuard;
use kube::runtime::watcher::Event;
use quorate_crds::quota_policy::KIND;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::context::Context;
use keeper::Keeper;
use roster::{Concerned, Roster};
use select::ClusterKey;
use world::{Change, Changes, World, guarded_name};

/// Runs until it is told to stop, which is when `stop` turns true. Keepers end what they are at.
pub async fn run(context: Context, mut stop: watch::Receiver<bool>) {
    let (world, changes) = World::watch(&context);
    let world = Arc::new(world);
    let (unread, woken) = watch::channel(());
    let mut tasks = JoinSet::new();
    tasks.spawn(unreadable::run(context.clone(), Arc::clone(&world), woken));
    let mut keepers = Keepers { context, world, unread, roster: Roster::default(), awake: HashMap::new(), tasks };
    tokio::select! {
        // An error says that whoever could tell is gone.
        _ = stop.wait_for(|stop| *stop) => {}
        () = keepers.follow(changes) => {}
    }
    let Keepers { mut tasks, awake, unread, .. } = keepers;
    drop((awake, unread));
    while tasks.join_next().await.is_some() {}
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
}

impl Keepers {
    async fn follow(&mut self, mut changes: Changes) {
        let mut is_listed = false;
        while let Some(change) = changes.next().await {
            let change = match change {
                Ok(change) => change,
                Err(error) => {
                    // The watch begins anew by itself, later each time.
                    self.context.metrics.failed("policy", "Watch");
                    tracing::warn!("a watch ended: {error}");
                    continue;
                }
            };
            if let Change::Policy(Event::Delete(policy)) = &change {
                let name = guarded_name(policy);
                self.context.metrics.forget(KIND, format!("{}/{}", name.namespace, name.name));
            }
            if matches!(&change, Change::Policy(Event::Apply(DeserializeGuard(Err(_))) | Event::InitDone)) {
                self.unread.send_replace(());
            }
            let concerned = self.roster.note(&change);
            is_listed = is_listed || self.world.is_listed();
            match concerned {
                // As long as not everything was listed once, a policy that is not there may only not be known yet.
                _ if !is_listed => {}
                Concerned::All => {
                    let all = self.roster.list(&self.world);
                    self.wake(all);
                }
                Concerned::Clusters(keys) => self.wake(keys),
            }
            while self.tasks.try_join_next().is_some() {}
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
