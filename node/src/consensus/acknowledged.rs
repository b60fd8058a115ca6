//! What followers acknowledged to this leader, to notice one whose log goes back: it runs on an older copy of its disk.
//!
//! openraft takes it for granted that this cannot happen, and no longer replicates in order once it does. So the network
//! keeps such an answer from it: the follower counts as unreachable until it is replaced.

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::storage::Vote;
use crate::sync::lock;

/// By follower: the vote this node led with, and the last index acknowledged under it.
#[derive(Debug, Default)]
pub struct Acknowledged(Mutex<BTreeMap<u64, (Vote, u64)>>);

impl Acknowledged {
    /// Takes note that `follower` has everything up to `index`.
    pub fn note(&self, follower: u64, vote: Vote, index: u64) {
        let mut followers = lock(&self.0);
        let entry = followers.entry(follower).or_insert((vote, index));
        *entry = if entry.0 == vote { (vote, entry.1.max(index)) } else { (vote, index) };
    }

    /// The last index that `follower` has acknowledged under `vote` so far. A frame sent from now on meets a follower that
    /// has it, unless its disk is an older one.
    pub fn so_far(&self, follower: u64, vote: Vote) -> Option<u64> {
        lock(&self.0).get(&follower).filter(|(led, _)| *led == vote).map(|(_, index)| *index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOTE: Vote = Vote { term: 3, node: 1, committed: true };

    #[test]
    fn acknowledgements_out_of_order_the_highest_counts() {
        let acknowledged = Acknowledged::default();
        assert_eq!(acknowledged.so_far(2, VOTE), None);
        acknowledged.note(2, VOTE, 9);
        acknowledged.note(2, VOTE, 8);
        assert_eq!(acknowledged.so_far(2, VOTE), Some(9));
        assert_eq!(acknowledged.so_far(7, VOTE), None);
    }

    #[test]
    fn another_leadership_begins_it_knows_of_nothing_acknowledged() {
        let acknowledged = Acknowledged::default();
        acknowledged.note(2, VOTE, 9);
        let next = Vote { term: 4, ..VOTE };
        assert_eq!(acknowledged.so_far(2, next), None);
        acknowledged.note(2, next, 1);
        assert_eq!((acknowledged.so_far(2, next), acknowledged.so_far(2, VOTE)), (Some(1), None));
    }
}
