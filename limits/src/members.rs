//! The members as the replicated state knows them: who they are, who is to leave, and who has left.

use std::collections::{BTreeMap, VecDeque};
use std::hash::Hasher;

use serde::{Deserialize, Serialize};
use siphasher::sip128::SipHasher13;

use crate::time::ClusterTime;

/// So many former members are remembered, the newest. A node that was away for longer than it took so many others to
/// leave is not told that it was removed.
pub const REMOVED_MAX: usize = 4096;

/// What came of the wish that a member leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Leaving {
    /// It is to leave; the leader's autopilot sees to it.
    Intended,
    /// It has left already.
    Left,
    /// There is no such member, and none of those remembered was it.
    Unknown,
    /// No member would be left to take its place; nothing was noted.
    Last,
}

/// Changed by the log alone: by membership entries, and by [`crate::Part::Decommission`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Members {
    /// Raft id and name of each member, learners included, as the last membership entry applied says.
    present: BTreeMap<u64, String>,
    /// Those of them that are to leave, and since when.
    leaving: BTreeMap<u64, ClusterTime>,
    /// Ids of former members, the newest last.
    removed: VecDeque<u64>,
    /// When a member last took the place of another of its name.
    swapped: Option<ClusterTime>,
}

impl Members {
    /// The members: Raft id and name, learners included.
    #[must_use]
    pub fn present(&self) -> &BTreeMap<u64, String> {
        &self.present
    }

    /// The members that are to leave, and since when.
    #[must_use]
    pub fn leaving(&self) -> &BTreeMap<u64, ClusterTime> {
        &self.leaving
    }

    /// The ids of former members that are remembered. No id is ever used again.
    pub fn removed(&self) -> impl Iterator<Item = u64> {
        self.removed.iter().copied()
    }

    /// Whether `id` is remembered as a former member.
    #[must_use]
    pub fn is_removed(&self, id: u64) -> bool {
        self.removed.contains(&id)
    }

    /// When a member last took the place of another of its name, whose disk was lost.
    #[must_use]
    pub fn swapped(&self) -> Option<ClusterTime> {
        self.swapped
    }

    /// Takes over what a membership entry says, at the time of the batch before it.
    pub(crate) fn set(&mut self, members: BTreeMap<u64, String>, now: ClusterTime) {
        let former = std::mem::replace(&mut self.present, members);
        for (id, name) in former.iter().filter(|(id, _)| !self.present.contains_key(id)) {
            self.removed.push_back(*id);
            if self.present.values().any(|other| other == name) {
                self.swapped = Some(now);
            }
        }
        self.removed.drain(..self.removed.len().saturating_sub(REMOVED_MAX));
        self.leaving.retain(|id, _| self.present.contains_key(id));
    }

    /// Notes the wish; it counts from the first time it was said.
    pub(crate) fn decommission(&mut self, id: u64, now: ClusterTime) -> Leaving {
        if !self.present.contains_key(&id) {
            return if self.is_removed(id) { Leaving::Left } else { Leaving::Unknown };
        }
        if self.present.keys().all(|other| *other == id || self.leaving.contains_key(other)) {
            return Leaving::Last;
        }
        self.leaving.entry(id).or_insert(now);
        Leaving::Intended
    }

    pub(crate) fn hash(&self, hasher: &mut SipHasher13) {
        hasher.write_u64(self.present.len() as u64);
        for (id, name) in &self.present {
            hasher.write_u64(*id);
            hasher.write_u64(name.len() as u64);
            hasher.write(name.as_bytes());
        }
        hasher.write_u64(self.leaving.len() as u64);
        for (id, since) in &self.leaving {
            hasher.write_u64(*id);
            hasher.write_u64(since.0);
        }
        hasher.write_u64(self.removed.len() as u64);
        self.removed.iter().for_each(|id| hasher.write_u64(*id));
        hasher.write_u64(self.swapped.map_or(0, |at| at.0.saturating_add(1)));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn members(ids: &[(u64, &str)]) -> BTreeMap<u64, String> {
        ids.iter().map(|(id, name)| (*id, (*name).to_owned())).collect()
    }

    fn three() -> Members {
        let mut members = Members::default();
        members.set(self::members(&[(1, "a"), (2, "b"), (3, "c")]), ClusterTime(5));
        members
    }

    #[test]
    fn member_that_an_entry_drops_is_removed_and_its_intent_ends() {
        let mut members = three();
        assert_eq!(members.decommission(2, ClusterTime(6)), Leaving::Intended);
        assert_eq!(members.decommission(2, ClusterTime(8)), Leaving::Intended);
        assert_eq!(members.leaving(), &BTreeMap::from([(2, ClusterTime(6))]), "since it was first said");
        members.set(self::members(&[(1, "a"), (3, "c")]), ClusterTime(9));
        assert!(members.leaving().is_empty() && members.is_removed(2) && !members.is_removed(1));
        assert_eq!(members.swapped(), None, "nobody took its place");
        assert_eq!(members.decommission(2, ClusterTime(9)), Leaving::Left);
        assert_eq!(members.decommission(7, ClusterTime(9)), Leaving::Unknown);
    }

    #[test]
    fn member_dropped_while_another_bears_its_name_is_a_swap_at_that_time() {
        let mut members = three();
        members.set(self::members(&[(1, "a"), (2, "b"), (3, "c"), (4, "b")]), ClusterTime(7));
        assert_eq!(members.swapped(), None);
        members.set(self::members(&[(1, "a"), (3, "c"), (4, "b")]), ClusterTime(9));
        assert_eq!((members.swapped(), members.is_removed(2)), (Some(ClusterTime(9)), true));
    }

    #[test]
    fn all_but_one_leave_the_last_stays() {
        let mut members = three();
        assert_eq!(members.decommission(1, ClusterTime(6)), Leaving::Intended);
        assert_eq!(members.decommission(3, ClusterTime(7)), Leaving::Intended);
        assert_eq!(members.decommission(2, ClusterTime(8)), Leaving::Last);
        assert_eq!(members.leaving(), &BTreeMap::from([(1, ClusterTime(6)), (3, ClusterTime(7))]));
    }

    #[test]
    fn only_the_newest_former_members_are_remembered() {
        let mut members = three();
        for id in 10..10 + REMOVED_MAX as u64 {
            members.set(self::members(&[(id, "a")]), ClusterTime(id));
        }
        assert_eq!(members.removed.len(), REMOVED_MAX);
        assert!(!members.is_removed(1) && members.is_removed(10) && members.is_removed(8 + REMOVED_MAX as u64));
    }

    #[test]
    fn everything_counts_in_the_hash() {
        let hash = |members: &Members| {
            use siphasher::sip128::Hasher128 as _;
            let mut hasher = SipHasher13::new();
            members.hash(&mut hasher);
            hasher.finish128().as_u128()
        };
        let base = three();
        let mut others = vec![base.clone(); 5];
        others[0].present.insert(1, "A".to_owned());
        others[1].leaving.insert(1, ClusterTime(0));
        others[2].removed.push_back(9);
        others[3].swapped = Some(ClusterTime(0));
        others[4].leaving.insert(1, ClusterTime(1));
        let hashes: BTreeSet<u128> = others.iter().chain([&base]).map(hash).collect();
        assert_eq!(hashes.len(), others.len() + 1, "{others:?}");
    }
}
