//! The leader's hand on the membership: observes, lets the pure planner decide, carries the change out.
//!
//! It is the only writer of the membership after the founding. One change at a time; each look starts anew from the
//! membership in the log, so a new leader needs no memory of what the old one had begun. Only for how long a member has
//! been silent is counted anew.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::join_all;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::raft::Precondition;
use openraft::{ChangeMembers, RaftMetrics};
use openraft_rt::Instant as _;
use quorate_limits::autopilot::{Candidate, Change, Member as Seen, Observation, Replacing, Waits, plan};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::types::{Member, Types};
use super::wire::{self, Kind, PromiseAnswer, StatusAnswer};
use super::{Consensus, Handover};
use crate::gossip::{Gossip, Peer};
use crate::platform::{Instant, Platform};
use crate::sync::lock;
use crate::transport::Lane;

/// Between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// How long an empty node may take to answer an invitation.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(2);
/// How far behind the leader a learner may be to be made a voter, in log entries.
const CAUGHT_UP_LAG_MAX: u64 = 100;
/// How long each voter to be may take to say that it is there, right before voters change.
const CONFIRM_TIMEOUT: Duration = Duration::from_millis(300);
/// A member that acknowledged nothing for this long, a dozen heartbeats, does not count for a quorum.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_millis(1200);

/// What autopilot does, as the leader tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The change under way, for people.
    pub operation: Option<String>,
    /// Why other changes are not made yet: a word for programs, and a text for people.
    pub waits: Vec<(String, String)>,
}

/// The autopilot of one node. It does something only while that node leads.
pub struct Autopilot<P: Platform> {
    consensus: Consensus<P>,
    gossip: Arc<Gossip<P>>,
    handover: Arc<Handover<P>>,
    replacing: Replacing,
    drain: Duration,
    /// When each member was last heard from, since this node leads.
    heard: Mutex<BTreeMap<u64, Instant<P>>>,
    report: Mutex<Option<Report>>,
}

impl<P: Platform> Autopilot<P> {
    /// An autopilot; [`run`](Self::run) is its work.
    pub fn new(
        consensus: Consensus<P>,
        gossip: Arc<Gossip<P>>,
        handover: Arc<Handover<P>>,
        replacing: Replacing,
        drain: Duration,
    ) -> Self {
        Self { consensus, gossip, handover, replacing, drain, heard: Mutex::default(), report: Mutex::default() }
    }

    /// What it does and what it waits for, while this node leads.
    pub fn report(&self) -> Option<Report> {
        lock(&self.report).clone()
    }

    /// Looks after the membership while this node leads. Runs until the node ends.
    pub async fn run(self: Arc<Self>) {
        let mut told = Vec::new();
        loop {
            P::sleep(LOOK_INTERVAL).await;
            if self.consensus.leadership().is_none() {
                lock(&self.heard).clear();
                *lock(&self.report) = None;
                told.clear();
                continue;
            }
            self.invite().await;
            let metrics = self.consensus.raft().metrics().borrow_watched().clone();
            let plan = plan(&self.observe(&metrics));
            tell(&mut told, &plan.waits);
            let waits = plan.waits.iter().map(|wait| (wait.reason().to_owned(), wait.to_string())).collect();
            let operation = plan.change.as_ref().map(|change| worded(change, &metrics));
            *lock(&self.report) = Some(Report { operation: operation.clone(), waits });
            let (Some(change), Some(operation)) = (plan.change, operation) else { continue };
            info!("changes the membership: {operation}");
            if let Err(reason) = self.carry_out(change, &metrics).await {
                warn!("the membership was not changed, it will be tried again: {reason}");
            }
        }
    }

    /// Asks empty nodes that gossip shows into the cluster. One with the name of a member that is alive stays out.
    async fn invite(&self) {
        let link = self.consensus.link();
        let metrics = self.consensus.raft().metrics().borrow_watched().clone();
        let is_guest =
            |peer: &Peer| peer.cluster.is_none() && peer.node != link.me() && !self.is_taken(&metrics, &peer.name);
        for peer in self.gossip.peers().into_iter().filter(is_guest) {
            let call = link.call(peer.node, Kind::Welcome, Lane::Control, &[], WELCOME_TIMEOUT).await;
            match call.map(|body| wire::decode::<PromiseAnswer>(&body)) {
                Ok(Ok(Ok(()))) => info!(node = peer.name, "invited into the cluster"),
                Ok(Ok(Err(reason))) => warn!(node = peer.name, "does not accept the invitation: {reason}"),
                Ok(Err(error)) => warn!(node = peer.name, "invitation: {error}"),
                Err(error) => warn!(node = peer.name, "could not be invited: {error}"),
            }
        }
    }

    /// Whether a member of this name is alive.
    fn is_taken(&self, metrics: &RaftMetrics<Types<P>>, name: &str) -> bool {
        let mut members = metrics.membership_config.membership().nodes();
        members.any(|(id, member)| member.name == name && self.gossip.is_alive(*id))
    }

    fn observe(&self, metrics: &RaftMetrics<Types<P>>) -> Observation {
        let membership = metrics.membership_config.membership();
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        let last = metrics.last_log_index.unwrap_or(0);
        let peers = self.gossip.peers();
        let (leaving, removed, swapped) = self.consensus.state().read(|state| {
            let members = state.members();
            (members.leaving().clone(), members.removed().collect(), members.swapped())
        });
        let time = self.consensus.clock().now();
        let mut heard = lock(&self.heard);
        heard.retain(|id, _| membership.get_node(id).is_some());
        let members = membership.nodes().map(|(id, member)| {
            let is_leader = *id == metrics.id;
            let acknowledged = is_leader || Self::acknowledged_lately(metrics, *id);
            let reachable = acknowledged || peers.iter().any(|peer| peer.node == *id);
            let now = P::now();
            let last_heard = heard.entry(*id).or_insert(now);
            if reachable {
                *last_heard = now;
            }
            let matched =
                metrics.replication.as_ref().and_then(|all| all.get(id)?.as_ref().map(openraft::LogId::index));
            let close = matched.is_some_and(|index| last.saturating_sub(index) <= CAUGHT_UP_LAG_MAX);
            Seen {
                id: *id,
                name: member.name.clone(),
                voter: voters.contains(id),
                leaving: leaving.get(id).map(|since| time.since(*since)),
                caught_up: is_leader || acknowledged && close,
                silent: (!reachable).then(|| now.saturating_duration_since(*last_heard)),
            }
        });
        let members = members.collect();
        let cluster = self.consensus.link().cluster();
        // One that is not invited because of its name is shown to the planner, which says so.
        let is_new = |peer: &Peer| {
            let waits = peer.cluster == cluster || peer.cluster.is_none() && self.is_taken(metrics, &peer.name);
            waits && membership.get_node(&peer.node).is_none()
        };
        let candidates = peers
            .iter()
            .filter(|peer| is_new(peer))
            .map(|peer| Candidate { name: peer.name.clone(), id: peer.node })
            .collect();
        Observation {
            leader: metrics.id,
            members,
            // A change is finished once it is committed, not once it is written.
            joint: membership.get_joint_config().len() > 1,
            candidates,
            removed,
            since_swap: swapped.map(|at| time.since(at)),
            replacing: self.replacing,
            drain: self.drain,
        }
    }

    fn acknowledged_lately(metrics: &RaftMetrics<Types<P>>, id: u64) -> bool {
        let acknowledged = metrics.heartbeat.as_ref().and_then(|all| *all.get(&id)?);
        acknowledged.is_some_and(|at| at.elapsed() <= ACKNOWLEDGED_WITHIN)
    }

    /// Asks all that are to vote: one that died a moment ago still counts in what was observed, and with it gone the
    /// change itself could cost the quorum.
    ///
    /// # Errors
    /// Too few answer and have caught up.
    async fn confirm(&self, voters: &BTreeSet<u64>, metrics: &RaftMetrics<Types<P>>) -> Result<(), String> {
        let link = self.consensus.link();
        let enough = metrics.last_log_index.unwrap_or(0).saturating_sub(CAUGHT_UP_LAG_MAX);
        let asked = voters.iter().map(|id| async {
            if *id == link.me() {
                return true;
            }
            let body = link.call(*id, Kind::Status, Lane::Control, &[], CONFIRM_TIMEOUT).await;
            let answer = body.ok().and_then(|body| wire::decode::<StatusAnswer>(&body).ok());
            answer.is_some_and(|answer| answer.last >= enough)
        });
        let ready = join_all(asked).await.into_iter().filter(|ready| *ready).count();
        if ready > voters.len() / 2 {
            return Ok(());
        }
        Err(format!("only {ready} of the {} voters to be answer and have caught up", voters.len()))
    }

    async fn carry_out(&self, change: Change, metrics: &RaftMetrics<Types<P>>) -> Result<(), String> {
        let membership = metrics.membership_config.membership();
        let change = match change {
            Change::HandOver { to } => return self.handover.hand_over(Some(to)).await.map(|_| ()),
            // The same voters again: openraft then writes the uniform configuration that ends the joint one.
            Change::FinishJoint => {
                ChangeMembers::ReplaceAllVoters(membership.get_joint_config().last().cloned().unwrap_or_default())
            }
            Change::AddLearner { id, name } => {
                let address = self.gossip.address_of(id).ok_or_else(|| format!("no address is known for {name}"))?;
                ChangeMembers::AddNodes(BTreeMap::from([(id, Member { name, address })]))
            }
            Change::SetVoters { voters, drop } => {
                self.confirm(&voters, metrics).await?;
                // Voters that do not stay go by themselves at the end of the joint configuration.
                let learners: BTreeSet<u64> = membership.learner_ids().filter(|id| drop.contains(id)).collect();
                ChangeMembers::Batch(vec![
                    ChangeMembers::ReplaceAllVoters(voters),
                    ChangeMembers::RemoveNodes(learners),
                ])
            }
        };
        // What was planned for one membership must not be done to another.
        let seen = Precondition::LastMembershipLogId { last_membership_log_id: *metrics.membership_config.log_id() };
        let changed = self.consensus.raft().change_membership_if(change, false, [seen]).await;
        changed.map(|_| ()).map_err(|error| error.to_string())
    }
}

/// Says what is waited for, once for each change of it. How long it will still take is no news.
fn tell(told: &mut Vec<Waits>, waits: &[Waits]) {
    let same = |a: &Waits, b: &Waits| match (a, b) {
        (Waits::Silence { id, .. }, Waits::Silence { id: other, .. }) => id == other,
        (Waits::Interval { name, .. }, Waits::Interval { name: other, .. })
        | (Waits::Draining { name, .. }, Waits::Draining { name: other, .. }) => name == other,
        _ => a == b,
    };
    for wait in waits.iter().filter(|wait| !told.iter().any(|before| same(before, wait))) {
        match wait {
            Waits::Silence { .. } | Waits::CatchingUp { .. } | Waits::Interval { .. } | Waits::Draining { .. } => {
                info!("autopilot waits: {wait}");
            }
            Waits::Quorum { .. } | Waits::NameTwice { .. } | Waits::NobodyLeft { .. } => {
                warn!("autopilot waits: {wait}");
            }
        }
    }
    *told = waits.to_vec();
}

/// A change, for people.
fn worded<P: Platform>(change: &Change, metrics: &RaftMetrics<Types<P>>) -> String {
    let membership = metrics.membership_config.membership();
    let names = |ids: &BTreeSet<u64>| {
        let name = |id: &u64| membership.get_node(id).map_or("", |member| &member.name).to_owned();
        ids.iter().map(|id| format!("{} ({id:016x})", name(id))).collect::<Vec<_>>().join(", ")
    };
    match change {
        Change::FinishJoint => "finishes a change of voters that was begun".to_owned(),
        Change::AddLearner { id, name } => format!("adds {name} ({id:016x}) as a learner"),
        Change::SetVoters { voters, drop } if drop.is_empty() => format!("makes {} the voters", names(voters)),
        Change::SetVoters { voters, drop } => format!("removes {}; voters are {}", names(drop), names(voters)),
        Change::HandOver { to } => {
            format!("hands leadership to {}, since this node is to leave", names(&BTreeSet::from([*to])))
        }
    }
}
