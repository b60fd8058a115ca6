//! The leader's hand on the membership: observes, lets the pure planner decide, carries the change out.
//!
//! It is the only writer of the membership after the founding. One change at a time; each look starts anew from the
//! committed membership, so a new leader needs no memory of what the old one had begun.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::async_runtime::watch::WatchReceiver;
use quorate_limits::autopilot::{Candidate, Change, Member as Seen, Observation, plan};
use tracing::{info, warn};

use super::Consensus;
use super::types::Member;
use super::wire::{self, Kind, PromiseAnswer};
use crate::gossip::{Gossip, Peer};
use crate::platform::Platform;
use crate::transport::Lane;

/// Between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// How long an empty node may take to answer an invitation.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(2);
/// How far behind the leader a learner may be to be made a voter, in log entries.
const CAUGHT_UP_LAG_MAX: u64 = 100;

/// Looks after the membership while this node leads. Runs until the node ends.
pub async fn run<P: Platform>(consensus: Consensus<P>, gossip: Arc<Gossip<P>>) {
    loop {
        P::sleep(LOOK_INTERVAL).await;
        if consensus.leadership().is_none() {
            continue;
        }
        invite(&consensus, &gossip).await;
        let Some(change) = plan(&observe(&consensus, &gossip)) else { continue };
        info!(?change, "changes the membership");
        if let Err(reason) = carry_out(&consensus, &gossip, change).await {
            warn!("the membership was not changed, it will be tried again: {reason}");
        }
    }
}

/// Asks empty nodes that gossip shows into the cluster.
async fn invite<P: Platform>(consensus: &Consensus<P>, gossip: &Gossip<P>) {
    let link = consensus.link();
    for peer in gossip.peers().into_iter().filter(|peer| peer.cluster.is_none() && peer.node != link.me()) {
        let call = link.call(peer.node, Kind::Welcome, Lane::Control, &[], WELCOME_TIMEOUT).await;
        match call.map(|body| wire::decode::<PromiseAnswer>(&body)) {
            Ok(Ok(Ok(()))) => info!(node = peer.name, "invited into the cluster"),
            Ok(Ok(Err(reason))) => warn!(node = peer.name, "does not accept the invitation: {reason}"),
            Ok(Err(error)) => warn!(node = peer.name, "invitation: {error}"),
            Err(error) => warn!(node = peer.name, "could not be invited: {error}"),
        }
    }
}

fn observe<P: Platform>(consensus: &Consensus<P>, gossip: &Gossip<P>) -> Observation {
    let metrics = consensus.raft().metrics().borrow_watched().clone();
    let membership = metrics.membership_config.membership();
    let voters: BTreeSet<u64> = membership.voter_ids().collect();
    let last = metrics.last_log_index.unwrap_or(0);
    let replicated = metrics.replication.unwrap_or_default();
    let alive: BTreeMap<u64, Peer> = gossip.peers().into_iter().map(|peer| (peer.node, peer)).collect();
    let members = membership.nodes().map(|(id, member)| {
        let matched = replicated.get(id).and_then(Option::as_ref).map(openraft::LogId::index);
        Seen {
            id: *id,
            name: member.name.clone(),
            voter: voters.contains(id),
            caught_up: matched.is_some_and(|index| last.saturating_sub(index) <= CAUGHT_UP_LAG_MAX),
            reachable: alive.contains_key(id),
        }
    });
    let known: BTreeSet<u64> = membership.nodes().map(|(id, _)| *id).collect();
    let cluster = consensus.link().cluster();
    let candidates = alive
        .values()
        .filter(|peer| peer.cluster == cluster && !known.contains(&peer.node))
        .map(|peer| Candidate { name: peer.name.clone(), id: peer.node })
        .collect();
    Observation {
        members: members.collect(),
        // A change is finished once it is committed, not once it is written.
        joint: membership.get_joint_config().len() > 1,
        candidates,
    }
}

async fn carry_out<P: Platform>(consensus: &Consensus<P>, gossip: &Gossip<P>, change: Change) -> Result<(), String> {
    let raft = consensus.raft();
    match change {
        Change::FinishJoint => {
            // The same voters again: openraft then writes the uniform configuration that ends the joint one.
            let voters = {
                let metrics = raft.metrics();
                let metrics = metrics.borrow_watched();
                metrics.membership_config.membership().get_joint_config().last().cloned().unwrap_or_default()
            };
            raft.change_membership(ChangeMembers::ReplaceAllVoters(voters), true).await
        }
        Change::AddLearner { id, name } => {
            let address = gossip.address_of(id).ok_or_else(|| format!("no address is known for {name}"))?;
            let nodes = BTreeMap::from([(id, Member { name, address })]);
            raft.change_membership(ChangeMembers::AddNodes(nodes), true).await
        }
        Change::Promote { ids } => raft.change_membership(ChangeMembers::ReplaceAllVoters(ids), true).await,
    }
    .map(|_| ())
    .map_err(|error| error.to_string())
}
