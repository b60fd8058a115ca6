//! Autopilot: from what is seen of the members to the next change of the membership. Pure.
//!
//! A joint configuration is finished before anything else. A new node joins as a learner and becomes a voter once it has
//! caught up. Nobody is ever removed: a member leaves by an explicit intent only.

use std::collections::BTreeSet;

/// The most voters a cluster has; more members stay learners.
pub const VOTERS_MAX: usize = 5;

/// A member of the committed configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its Raft id.
    pub id: u64,
    /// Its name, which outlives its disk.
    pub name: String,
    /// Whether it votes; else it is a learner.
    pub voter: bool,
    /// Whether its log is close enough to the leader's to vote without holding up the rest.
    pub caught_up: bool,
    /// Whether the leader hears from it.
    pub reachable: bool,
}

/// A node that is ready to join, as gossip tells.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate {
    /// Its name.
    pub name: String,
    /// Its Raft id.
    pub id: u64,
}

/// What the leader sees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observation {
    /// The committed membership.
    pub members: Vec<Member>,
    /// Whether the membership is a joint one, in the middle of a change.
    pub joint: bool,
    /// Nodes that gossip shows and that wait to be let in.
    pub candidates: Vec<Candidate>,
}

/// The next change of the membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Finish the joint configuration.
    FinishJoint,
    /// Add a node that does not vote yet.
    AddLearner {
        /// Its Raft id.
        id: u64,
        /// Its name.
        name: String,
    },
    /// Make these the voters. All voters of today are among them.
    Promote {
        /// The new voters.
        ids: BTreeSet<u64>,
    },
    // To come: a replacement, when a candidate bears the name of a member whose disk is lost.
}

/// The next change to make, if any. One at a time: ask again once it is committed.
#[must_use]
pub fn plan(seen: &Observation) -> Option<Change> {
    if seen.joint {
        return Some(Change::FinishJoint);
    }
    promotion(seen).or_else(|| admission(seen))
}

/// The largest odd number of voters within the limit, from all voters and the learners that could vote.
fn promotion(seen: &Observation) -> Option<Change> {
    let mut ids: BTreeSet<u64> = seen.members.iter().filter(|member| member.voter).map(|member| member.id).collect();
    let voters = ids.len();
    let mut ready: Vec<&Member> =
        seen.members.iter().filter(|member| !member.voter && member.caught_up && member.reachable).collect();
    ready.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
    let most = largest_odd(seen.members.len().min(VOTERS_MAX)).min(largest_odd(voters + ready.len()));
    if most <= voters {
        return None;
    }
    ids.extend(ready.iter().take(most - voters).map(|member| member.id));
    Some(Change::Promote { ids })
}

/// The first candidate, by name, that is new. One with the name of a member, or of another candidate, waits: either its
/// disk was lost and it must replace its former self, or gossip has not settled who it is.
fn admission(seen: &Observation) -> Option<Change> {
    let known = |candidate: &Candidate| {
        seen.members.iter().any(|member| member.id == candidate.id || member.name == candidate.name)
    };
    let ambiguous = |candidate: &Candidate| {
        seen.candidates.iter().any(|other| other.name == candidate.name && other.id != candidate.id)
    };
    let next = seen.candidates.iter().filter(|candidate| !known(candidate) && !ambiguous(candidate)).min()?;
    Some(Change::AddLearner { id: next.id, name: next.name.clone() })
}

fn largest_odd(count: usize) -> usize {
    count.saturating_sub(1) / 2 * 2 + usize::from(count > 0)
}

#[cfg(test)]
mod tests;
