//! Autopilot: from what is seen of the members to the next change of the membership. Pure.
//!
//! A joint configuration is finished before anything else. A new node joins as a learner and becomes a voter once it has
//! caught up. A member leaves when an operator says so, or when its disk was lost and its name came back on an empty one;
//! never because it is gone. No change is made that could leave the voters without a quorum that is there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

mod waits;

pub use waits::Waits;

/// The most voters a cluster has; more members stay learners.
pub const VOTERS_MAX: usize = 5;

/// A member of the configuration that the leader acts by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    /// Its Raft id.
    pub id: u64,
    /// Its name, which outlives its disk.
    pub name: String,
    /// Whether it votes; else it is a learner.
    pub voter: bool,
    /// For how long an operator has wanted it out, in cluster time; `None`: it stays.
    pub leaving: Option<Duration>,
    /// Whether its log is close enough to the leader's to vote without holding up the rest.
    pub caught_up: bool,
    /// For how long nothing was heard from it; `None` while it is reachable.
    pub silent: Option<Duration>,
}

impl Member {
    fn is_leaving(&self) -> bool {
        self.leaving.is_some()
    }

    fn is_reachable(&self) -> bool {
        self.silent.is_none()
    }

    /// Whether it can take part in a decision now.
    fn is_ready(&self) -> bool {
        self.is_reachable() && self.caught_up
    }
}

/// A node that is ready to join, as gossip tells.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Candidate {
    /// Its name.
    pub name: String,
    /// Its Raft id.
    pub id: u64,
}

/// How careful a lost disk is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replacing {
    /// For so long the old id must have been silent.
    pub lost_after: Duration,
    /// Between two replacements of voters, in cluster time.
    pub interval: Duration,
}

impl Default for Replacing {
    fn default() -> Self {
        Self { lost_after: Duration::from_secs(10), interval: Duration::from_hours(1) }
    }
}

/// What the leader sees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observation {
    /// The leader itself.
    pub leader: u64,
    /// All members.
    pub members: Vec<Member>,
    /// Whether the membership is a joint one, in the middle of a change.
    pub joint: bool,
    /// Nodes that gossip shows and that wait to be let in.
    pub candidates: Vec<Candidate>,
    /// Former members: they never come back under their ids.
    pub removed: BTreeSet<u64>,
    /// Cluster time since a lost disk was last replaced, if one ever was.
    pub since_swap: Option<Duration>,
    /// How careful a lost disk is replaced.
    pub replacing: Replacing,
    /// For so long a member that is to leave goes on answering, so that its clients find others first.
    pub drain: Duration,
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
    /// Make these the voters and drop those from the membership, in one change.
    SetVoters {
        /// The new voters: members, and none of them dropped.
        voters: BTreeSet<u64>,
        /// Who is no member any more afterwards.
        drop: BTreeSet<u64>,
    },
    /// The leader is to leave: this voter must lead first.
    HandOver {
        /// Its Raft id.
        to: u64,
    },
}

/// What to do now, and what cannot be done yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The change to make. One at a time: plan again once it is committed.
    pub change: Option<Change>,
    /// Why other changes are not made yet, for people.
    pub waits: Vec<Waits>,
}

/// Members that go together, and the one that takes their place.
struct Departure<'a> {
    name: &'a str,
    drop: BTreeSet<u64>,
    successor: Option<u64>,
}

/// What to do next.
#[must_use]
pub fn plan(seen: &Observation) -> Plan {
    if seen.joint {
        return Plan { change: Some(Change::FinishJoint), waits: Vec::new() };
    }
    let mut waits = Vec::new();
    let change = if seen.has_quorum(&seen.voters(), &mut waits) { seen.next(&mut waits) } else { None };
    let mut told: Vec<Waits> = Vec::new();
    for wait in waits {
        if !told.contains(&wait) {
            told.push(wait);
        }
    }
    Plan { change, waits: told }
}

impl Observation {
    fn next(&self, waits: &mut Vec<Waits>) -> Option<Change> {
        let mut departures = self.replacements(waits);
        departures.extend(self.departures(waits));
        departures
            .iter()
            .find_map(|departure| self.depart(departure, waits))
            .or_else(|| self.promotion(waits))
            .or_else(|| self.admission(waits))
    }

    fn member(&self, id: u64) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }

    fn voters(&self) -> BTreeSet<u64> {
        self.members.iter().filter(|member| member.voter).map(|member| member.id).collect()
    }

    /// Whether so many of these voters can take part that they could decide.
    fn has_quorum(&self, voters: &BTreeSet<u64>, waits: &mut Vec<Waits>) -> bool {
        let ready = voters.iter().filter(|id| self.member(**id).is_some_and(Member::is_ready)).count();
        let needed = voters.len() / 2 + 1;
        if ready < needed {
            waits.push(Waits::Quorum { ready, needed, voters: voters.len() });
        }
        ready >= needed
    }

    /// Whether a member is taken for lost: an operator says so, or it was silent for long enough.
    fn is_lost(&self, old: &Member, waits: &mut Vec<Waits>) -> bool {
        let lost_after = self.replacing.lost_after;
        let lost = old.silent.is_some_and(|silent| old.is_leaving() || silent >= lost_after);
        if !lost {
            let left = lost_after.saturating_sub(old.silent.unwrap_or_default());
            waits.push(Waits::Silence { id: old.id, name: old.name.clone(), left });
        }
        lost
    }

    /// Whether the last replacement was long enough ago.
    fn may_replace(&self, name: &str, waits: &mut Vec<Waits>) -> bool {
        let left = self.since_swap.map_or(Duration::ZERO, |since| self.replacing.interval.saturating_sub(since));
        if !left.is_zero() {
            waits.push(Waits::Interval { name: name.to_owned(), left });
        }
        left.is_zero()
    }

    /// Lost disks whose successor, a learner under the same name, can take over.
    fn replacements(&self, waits: &mut Vec<Waits>) -> Vec<Departure<'_>> {
        let mut by_name: BTreeMap<&str, Vec<&Member>> = BTreeMap::new();
        for member in &self.members {
            by_name.entry(&member.name).or_default().push(member);
        }
        let mut ready = Vec::new();
        for (name, members) in by_name.into_iter().filter(|(_, members)| members.len() > 1) {
            let (alive, silent): (Vec<&Member>, Vec<&Member>) =
                members.iter().partition(|member| member.is_reachable());
            let [successor] = alive[..] else {
                if alive.len() > 1 && alive.iter().all(|member| !member.is_leaving()) {
                    let ids = alive.iter().map(|member| member.id).collect();
                    waits.push(Waits::NameTwice { name: name.to_owned(), ids });
                }
                continue;
            };
            if successor.voter || successor.is_leaving() {
                continue;
            }
            if !silent.iter().all(|old| self.is_lost(old, waits)) {
                continue;
            }
            if !successor.caught_up {
                waits.push(Waits::CatchingUp { id: successor.id, name: name.to_owned() });
                continue;
            }
            // Learners take no part in decisions, and an operator knows what they do.
            let at_once = silent.iter().all(|old| !old.voter) || silent.iter().any(|old| old.is_leaving());
            if at_once || self.may_replace(name, waits) {
                let drop = silent.iter().map(|old| old.id).collect();
                ready.push(Departure { name, drop, successor: Some(successor.id) });
            }
        }
        ready
    }

    /// Members that an operator wants out, one by one; those that are gone already come first. One that is still there
    /// drains.
    fn departures(&self, waits: &mut Vec<Waits>) -> impl Iterator<Item = Departure<'_>> {
        let mut leaving: Vec<&Member> = self.members.iter().filter(|member| member.is_leaving()).collect();
        leaving.retain(
            |member| if member.is_reachable() { self.has_drained(member, waits) } else { !self.has_heir(member) },
        );
        leaving.sort_by_key(|member| (member.is_reachable(), member.id));
        leaving.into_iter().map(|member| Departure {
            name: &member.name,
            drop: BTreeSet::from([member.id]),
            successor: None,
        })
    }

    /// Whether it has been about to leave for long enough that its clients are gone.
    fn has_drained(&self, member: &Member, waits: &mut Vec<Waits>) -> bool {
        let left = self.drain.saturating_sub(member.leaving.unwrap_or_default());
        if !left.is_zero() {
            waits.push(Waits::Draining { name: member.name.clone(), left });
        }
        left.is_zero()
    }

    /// Whether a node of the same name is about to take this one's place.
    fn has_heir(&self, old: &Member) -> bool {
        let is_heir = |other: &Member| {
            other.id != old.id && other.name == old.name && !other.voter && other.is_reachable() && !other.is_leaving()
        };
        self.members.iter().any(is_heir) || self.fresh().any(|candidate| candidate.name == old.name)
    }

    /// The learners that could vote: no other member that stays bears their name.
    fn able<'a>(staying: &[&'a Member]) -> Vec<&'a Member> {
        let is_alone = |learner: &Member| !staying.iter().any(|o| o.id != learner.id && o.name == learner.name);
        let mut able: Vec<&Member> = staying
            .iter()
            .copied()
            .filter(|member| !member.voter && !member.is_leaving() && member.is_ready() && is_alone(member))
            .collect();
        able.sort_by_key(|member| (&member.name, member.id));
        able
    }

    /// Adds learners to these voters, up to the largest odd number within the limit.
    fn fill(voters: &mut BTreeSet<u64>, staying: &[&Member]) {
        let able = Self::able(staying).into_iter().filter(|member| !voters.contains(&member.id));
        let able: Vec<u64> = able.map(|member| member.id).collect();
        let most = wanted_voters(staying).min(largest_odd(voters.len() + able.len()));
        let missing = most.saturating_sub(voters.len());
        voters.extend(able.into_iter().take(missing));
    }

    /// The change by which members go, if it is safe.
    fn depart(&self, departure: &Departure<'_>, waits: &mut Vec<Waits>) -> Option<Change> {
        let drop = &departure.drop;
        let staying: Vec<&Member> = self.members.iter().filter(|member| !drop.contains(&member.id)).collect();
        let current = self.voters();
        let mut voters: BTreeSet<u64> = current.difference(drop).copied().collect();
        if voters.len() < current.len() {
            voters.extend(departure.successor);
        }
        Self::fill(&mut voters, &staying);
        if voters.is_empty() {
            waits.push(Waits::NobodyLeft { name: departure.name.to_owned() });
            return None;
        }
        if !self.has_quorum(&voters, waits) {
            return None;
        }
        if !drop.contains(&self.leader) {
            return Some(Change::SetVoters { voters, drop: drop.clone() });
        }
        let is_ready = |id: &u64| self.member(*id).is_some_and(Member::is_ready);
        let successor = voters.intersection(&current).copied().find(is_ready);
        Some(successor.map_or_else(
            // Only a voter can lead: whoever is to take over becomes one first.
            || Change::SetVoters { voters: voters.union(&current).copied().collect(), drop: BTreeSet::new() },
            |to| Change::HandOver { to },
        ))
    }

    fn promotion(&self, waits: &mut Vec<Waits>) -> Option<Change> {
        let all: Vec<&Member> = self.members.iter().collect();
        let current = self.voters();
        let mut voters = current.clone();
        Self::fill(&mut voters, &all);
        if voters.len() == current.len() {
            let behind =
                |member: &&Member| !member.voter && !member.is_leaving() && member.is_reachable() && !member.caught_up;
            if current.len() < wanted_voters(&all) {
                let behind = self.members.iter().filter(behind);
                waits.extend(behind.map(|member| Waits::CatchingUp { id: member.id, name: member.name.clone() }));
            }
            return None;
        }
        self.has_quorum(&voters, waits).then_some(Change::SetVoters { voters, drop: BTreeSet::new() })
    }

    /// Candidates that were never members.
    fn fresh(&self) -> impl Iterator<Item = &Candidate> {
        let known = |id| self.removed.contains(&id) || self.member(id).is_some();
        self.candidates.iter().filter(move |candidate| !known(candidate.id))
    }

    /// The first candidate, by name, that may join. One with the name of a member must wait until that member is taken for
    /// lost; one with the name of another candidate, until there is only one of them.
    fn admission(&self, waits: &mut Vec<Waits>) -> Option<Change> {
        let mut by_name: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
        for candidate in self.fresh() {
            by_name.entry(&candidate.name).or_default().insert(candidate.id);
        }
        let mut next = None;
        for (name, mut ids) in by_name {
            let namesakes: Vec<&Member> = self.members.iter().filter(|member| member.name == name).collect();
            let alive = namesakes.iter().filter(|member| member.is_reachable()).map(|member| member.id);
            ids.extend(alive);
            if ids.len() > 1 {
                waits.push(Waits::NameTwice { name: name.to_owned(), ids });
            } else if namesakes.iter().all(|old| self.is_lost(old, waits)) {
                next = next.or_else(|| Some((name, *ids.first()?)));
            }
        }
        next.map(|(name, id)| Change::AddLearner { id, name: name.to_owned() })
    }
}

/// How many voters there should be once all of these have caught up.
fn wanted_voters(staying: &[&Member]) -> usize {
    let names: BTreeSet<&str> =
        staying.iter().filter(|member| !member.is_leaving()).map(|member| member.name.as_str()).collect();
    largest_odd(names.len().min(VOTERS_MAX))
}

fn largest_odd(count: usize) -> usize {
    count.saturating_sub(1) / 2 * 2 + usize::from(count > 0)
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod walk;
