//! What a node knows of itself and its cluster, for people and programs.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use openraft_rt::Instant as _;

use super::Node;
use crate::consensus::autopilot::Report;
use crate::consensus::wire::{self, Kind, StatusAnswer};
use crate::platform::Platform;
use crate::storage::ClusterId;
use crate::transport::Lane;

/// How long another member may take to say how far it is.
const SURVEY_TIMEOUT: Duration = Duration::from_millis(300);

/// A member of the cluster as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberStatus {
    /// Raft id.
    pub id: u64,
    /// Name.
    pub name: String,
    /// Whether it votes.
    pub voter: bool,
    /// Log entries it lags behind this node's log; `None` when it did not say.
    pub lag: Option<u64>,
    /// The policy revision it has applied, when it said.
    pub applied_revision: Option<u64>,
    /// Its version, when it said.
    pub version: Option<String>,
    /// The highest feature level it supports, when it said.
    pub feature_level: Option<u32>,
    /// Whether it answered.
    pub reachable: bool,
}

/// What a node knows of its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterStatus {
    /// The cluster, once there is one.
    pub cluster: Option<ClusterId>,
    /// This node's Raft id.
    pub id: u64,
    /// This node's name.
    pub name: String,
    /// Leader, Follower, Candidate or Learner.
    pub state: &'static str,
    /// The leader's Raft id; `None` too when this node leads without a quorum.
    pub leader: Option<u64>,
    /// The term.
    pub term: u64,
    /// The policy revision this node has applied.
    pub revision: u64,
    /// Index of the last log entry.
    pub last_log: Option<u64>,
    /// Index and term of the last committed entry this node knows of.
    pub committed: Option<(u64, u64)>,
    /// Index of the last applied entry.
    pub applied: Option<u64>,
    /// Index and term of the last snapshot.
    pub snapshot: Option<(u64, u64)>,
    /// Milliseconds since a leader heard of its quorum.
    pub quorum_acked_ms: Option<u64>,
    /// Log index of the membership.
    pub membership_index: Option<u64>,
    /// The members, without what only they can tell; [`Node::survey`] asks them.
    pub members: Vec<MemberStatus>,
    /// Members that are to leave, as this node has applied it.
    pub leaving: Vec<u64>,
    /// What the leader's autopilot does, when that is known.
    pub autopilot: Option<Report>,
    /// Peers that gossip shows alive, this node included.
    pub gossip_peers: usize,
}

impl<P: Platform> Node<P> {
    /// What this node knows by itself.
    #[must_use]
    pub fn status(&self) -> ClusterStatus {
        let metrics = self.consensus.raft().metrics().borrow_watched().clone();
        let membership = metrics.membership_config.membership();
        let voters: Vec<u64> = membership.voter_ids().collect();
        let members = membership.nodes().map(|(id, member)| MemberStatus {
            id: *id,
            name: member.name.clone(),
            voter: voters.contains(id),
            lag: None,
            applied_revision: None,
            version: None,
            feature_level: None,
            reachable: *id == metrics.id || self.gossip.is_alive(*id),
        });
        let quorum_acked = metrics.last_quorum_acked.map(|acked| acked.elapsed());
        // A leader that lost its quorum does not know of another; it leads nobody. One that is the only voter needs none
        // but itself, and openraft counts no acknowledgement then.
        let alone = voters.len() > 1 && quorum_acked.is_some_and(|ago| ago > 2 * self.options.tuning.election_max);
        ClusterStatus {
            cluster: self.consensus.link().cluster(),
            id: metrics.id,
            name: self.options.name.clone(),
            state: match metrics.state {
                ServerState::Leader => "Leader",
                ServerState::Candidate => "Candidate",
                ServerState::Learner => "Learner",
                ServerState::Follower | ServerState::Shutdown => "Follower",
            },
            leader: metrics.current_leader.filter(|leader| !(alone && *leader == metrics.id)),
            term: metrics.current_term,
            revision: self.rules().revision(),
            last_log: metrics.last_log_index,
            committed: metrics.local_committed.map(|id| (id.index(), **id.committed_leader_id())),
            applied: metrics.last_applied.map(|id| id.index()),
            snapshot: metrics.snapshot.map(|id| (id.index(), **id.committed_leader_id())),
            quorum_acked_ms: quorum_acked.map(|ago| u64::try_from(ago.as_millis()).unwrap_or(u64::MAX)),
            membership_index: metrics.membership_config.log_id().as_ref().map(openraft::LogId::index),
            members: members.collect(),
            leaving: self.consensus.state().read(|state| state.members().leaving().keys().copied().collect()),
            autopilot: self.autopilot.report(),
            gossip_peers: self.gossip.peers().len(),
        }
    }

    /// What this node knows, and what every member says of itself when asked.
    pub async fn survey(&self) -> ClusterStatus {
        let mut status = self.status();
        let link = self.consensus.link();
        let asked = status.members.iter().filter(|member| member.id != status.id).map(|member| async {
            let body = link.call(member.id, Kind::Status, Lane::Control, &[], SURVEY_TIMEOUT).await.ok()?;
            Some((member.id, wire::decode::<StatusAnswer>(&body).ok()?))
        });
        let mut answers: BTreeMap<u64, StatusAnswer> = join_all(asked).await.into_iter().flatten().collect();
        answers.insert(
            status.id,
            StatusAnswer {
                last: status.last_log.unwrap_or(0),
                revision: status.revision,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                feature_level: crate::consensus::FEATURE_LEVEL,
                short_of_room: self.room.is_short(),
                autopilot: status.autopilot.clone(),
            },
        );
        let last = answers.values().map(|answer| answer.last).max().unwrap_or(0);
        status.autopilot = status.leader.and_then(|leader| answers.get(&leader)?.autopilot.clone());
        for member in &mut status.members {
            let answer = answers.remove(&member.id);
            member.reachable = answer.is_some();
            if let Some(answer) = answer {
                member.lag = Some(last - answer.last);
                member.applied_revision = Some(answer.revision);
                member.version = Some(answer.version);
                member.feature_level = Some(answer.feature_level);
            }
        }
        status
    }
}
