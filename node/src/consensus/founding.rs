//! How a cluster begins, once, and how an empty node comes into one that is there.
//!
//! When the expected number of empty nodes see each other, the one with the lowest name asks every other for a
//! promise to found exactly this cluster with exactly these members. A promise is on the disk before it is given, and
//! a node that gave one refuses any other. Only when all have promised does the lowest name initialise consensus.
//! Nodes that come later are invited by the leader.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tracing::{info, warn};

use super::link::Link;
use super::types::Member;
use super::wire::{self, Kind, PromiseAnswer, PromiseAsk};
use crate::gossip::{Gossip, Peer};
use crate::platform::Platform;
use crate::storage::{ClusterId, Identity, IdentityStore, Promise};
use crate::sync::lock;
use crate::transport::Lane;

/// How long the others may take to promise, each time they are asked.
const PROMISE_TIMEOUT: Duration = Duration::from_secs(2);
/// Between two looks at who is there.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// A node's identity and the steps by which it gets a cluster.
pub struct Founding<P: Platform> {
    identity: Mutex<Identity>,
    store: Arc<dyn IdentityStore>,
    link: Arc<Link<P>>,
    gossip: Arc<Gossip<P>>,
}

/// What an empty node does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Wait; the reason is for people.
    Wait(String),
    /// Ask these for their promise.
    Found(BTreeMap<u64, String>),
}

/// Decides what an empty node does, from what gossip shows of it and the others. Pure.
#[must_use]
pub fn next_step(me: &Identity, peers: &[Peer], expect: usize) -> Step {
    if let Some(promise) = &me.promise {
        // Its own promise, from before a restart: it began to found and must end with the same members.
        return if lowest(&promise.members) == Some(me.node) {
            Step::Found(promise.members.clone())
        } else {
            Step::Wait("it has promised to found a cluster and waits for the first message from its leader".to_owned())
        };
    }
    if expect == 0 {
        return Step::Wait("it waits to be told its members (POST /v1/cluster/bootstrap)".to_owned());
    }
    if let Some(peer) = peers.iter().find(|peer| peer.cluster.is_some() && peer.name == me.name) {
        return Step::Wait(format!(
            "{} in the cluster has the same NODE_ID {}. If that is this node's former self, wait until the others take it \
             for lost; else give each its own",
            peer.raft_address, peer.name
        ));
    }
    if let Some(peer) = peers.iter().find(|peer| peer.cluster.is_some()) {
        return Step::Wait(format!("{} is in a cluster already and will have this node invited", peer.name));
    }
    let mut members: BTreeMap<u64, String> = peers.iter().map(|peer| (peer.node, peer.name.clone())).collect();
    members.insert(me.node, me.name.clone());
    let mut names: Vec<&String> = members.values().collect();
    names.sort();
    names.dedup();
    if names.len() < members.len() {
        return Step::Wait("two nodes have the same NODE_ID; give each its own".to_owned());
    }
    if members.len() != expect {
        return Step::Wait(format!("it sees {} of the {expect} nodes that found the cluster", members.len()));
    }
    if lowest(&members) == Some(me.node) {
        Step::Found(members)
    } else {
        Step::Wait("all are here; the node with the lowest name founds the cluster".to_owned())
    }
}

fn lowest(members: &BTreeMap<u64, String>) -> Option<u64> {
    members.iter().min_by_key(|(_, name)| name.as_str()).map(|(id, _)| *id)
}

impl<P: Platform> Founding<P> {
    /// Starts from the identity on the disk.
    pub fn new(identity: Identity, store: Arc<dyn IdentityStore>, link: Arc<Link<P>>, gossip: Arc<Gossip<P>>) -> Self {
        Self { identity: Mutex::new(identity), store, link, gossip }
    }

    /// Who this node is.
    pub fn identity(&self) -> Identity {
        lock(&self.identity).clone()
    }

    fn change(&self, change: impl FnOnce(&mut Identity)) -> io::Result<()> {
        let mut identity = lock(&self.identity);
        let mut next = identity.clone();
        change(&mut next);
        self.store.save(&next)?;
        *identity = next;
        Ok(())
    }

    /// Notes on the disk why it must not be used any more.
    pub fn refuse(&self, reason: &str) {
        if let Err(error) = self.change(|identity| identity.refused = Some(reason.to_owned())) {
            warn!("that this disk is refused could not be noted on it: {error}");
        }
    }

    /// Takes note, on the disk, that this node was removed from its cluster.
    ///
    /// # Errors
    /// When it could not be saved.
    pub fn note_removed(&self) -> io::Result<()> {
        self.change(|identity| identity.removed = true)
    }

    fn enter(&self, cluster: ClusterId) {
        self.link.join(cluster);
        if let Err(error) = self.gossip.update(|me| me.cluster = Some(cluster)) {
            warn!("gossip does not show the cluster: {error}");
        }
    }

    /// Answers a request to promise.
    ///
    /// # Errors
    /// Why it is refused, for people.
    pub fn promise(&self, cluster: ClusterId, members: BTreeMap<u64, String>) -> PromiseAnswer {
        let asked = Promise { cluster, members };
        let mine = self.identity();
        if mine.promise.as_ref() == Some(&asked) {
            return Ok(());
        }
        if let Some(cluster) = mine.cluster {
            return Err(format!("{} belongs to cluster {cluster}", mine.name));
        }
        if let Some(promise) = mine.promise {
            return Err(format!("{} has promised to found cluster {}", mine.name, promise.cluster));
        }
        if !asked.members.contains_key(&mine.node) {
            return Err(format!("{} is not among the founders", mine.name));
        }
        self.change(|identity| {
            identity.promise = Some(asked);
            identity.cluster = Some(cluster);
        })
        .map_err(|error| format!("{}: its promise could not be saved: {error}", mine.name))?;
        self.enter(cluster);
        Ok(())
    }

    /// Answers an invitation into a cluster that is there.
    ///
    /// # Errors
    /// Why it is refused, for people.
    pub fn welcome(&self, cluster: ClusterId) -> PromiseAnswer {
        let mine = self.identity();
        if mine.cluster == Some(cluster) {
            return Ok(());
        }
        if let Some(other) = mine.cluster.or(mine.promise.map(|promise| promise.cluster)) {
            return Err(format!("{} belongs to cluster {other}", mine.name));
        }
        self.change(|identity| identity.cluster = Some(cluster))
            .map_err(|error| format!("{}: the invitation could not be saved: {error}", mine.name))?;
        self.enter(cluster);
        info!(%cluster, "joined a cluster by invitation");
        Ok(())
    }

    /// Runs until this node has a cluster. Returns the founding members when it is this node that initialises.
    pub async fn run(&self, expect: usize) -> Option<BTreeMap<u64, Member>> {
        let mut said = String::new();
        loop {
            let me = self.identity();
            if let Some(cluster) = me.cluster {
                self.enter(cluster);
                // A founder that stopped between promise and initialisation goes on; again is harmless.
                let founders = me.promise.filter(|promise| lowest(&promise.members) == Some(me.node));
                return founders.map(|promise| self.addressed(&promise.members));
            }
            match next_step(&me, &self.gossip.peers(), expect) {
                Step::Found(members) => match self.found(members).await {
                    Ok(()) => continue,
                    Err(reason) => say(&mut said, reason),
                },
                Step::Wait(reason) => say(&mut said, reason),
            }
            P::sleep(LOOK_INTERVAL).await;
        }
    }

    fn addressed(&self, members: &BTreeMap<u64, String>) -> BTreeMap<u64, Member> {
        members
            .iter()
            .map(|(id, name)| {
                let address = self.link.address(*id).unwrap_or_default();
                (*id, Member { name: name.clone(), address })
            })
            .collect()
    }

    /// Takes this node's own promise and everybody else's.
    ///
    /// # Errors
    /// Why not all have promised, for people.
    pub async fn found(&self, members: BTreeMap<u64, String>) -> Result<(), String> {
        let me = self.identity();
        if !members.contains_key(&me.node) {
            return Err(format!("{} is not among the founders", me.name));
        }
        let promise = match me.promise {
            Some(promise) if promise.members == members => promise,
            Some(promise) => return Err(format!("it has promised to found cluster {}", promise.cluster)),
            None if me.cluster.is_some() => return Err(format!("{} is in a cluster already", me.name)),
            None => {
                let promise = Promise { cluster: ClusterId(P::random().max(1)), members };
                self.change(|identity| identity.promise = Some(promise.clone()))
                    .map_err(|error| format!("its promise could not be saved: {error}"))?;
                promise
            }
        };
        let ask = wire::encode(&PromiseAsk { members: promise.members.clone() });
        for (id, name) in promise.members.iter().filter(|(id, _)| **id != me.node) {
            let call =
                self.link.call_as(promise.cluster, *id, Kind::Promise, Lane::Control, &ask, PROMISE_TIMEOUT).await;
            let body = call.map_err(|error| format!("{name} has not promised yet: {error}"))?;
            let answer: PromiseAnswer = wire::decode(&body).map_err(|error| error.to_string())?;
            answer.map_err(|reason| format!("{name} refuses to found a cluster: {reason}"))?;
        }
        let cluster = promise.cluster;
        self.change(|identity| identity.cluster = Some(cluster))
            .map_err(|error| format!("its cluster could not be saved: {error}"))?;
        info!(%cluster, members = promise.members.len(), "founds the cluster");
        Ok(())
    }
}

/// Says what it waits for, once for each change of the reason.
fn say(said: &mut String, reason: String) {
    if *said != reason {
        if reason.contains("refuses") || reason.contains("same NODE_ID") {
            warn!("not in a cluster yet: {reason}");
        } else {
            info!("not in a cluster yet: {reason}");
        }
        *said = reason;
    }
}
