//! What followers acknowledged to this leader, to notice one whose log goes back: it runs on an older copy of its disk.
//!
//! openraft takes it for granted that this cannot happen, and no longer replicates in order once it does. So the network
//! keeps such an answer from it: the follower counts as unreachable until it is replaced.

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::storage::Vote;
use crate::sync::lock;

/// By follower: the vote this node led with, the last index acknowledged under it, and whether a loss was told.
#[derive(Debug, Default)]
pub struct Acknowledged(Mutex<BTreeMap<u64, (Vote, u64, bool)>>);

/// A follower lacks what it acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The index that it had acknowledged.
    pub acknowledged: u64,
    /// The index, not above it, at which it has nothing or something else now.
    pub lacks: u64,
    /// Whether it is the first time that this follower shows it under this vote.
    pub is_news: bool,
}

impl Acknowledged {
    /// Takes note that `follower` has everything up to `index`.
    pub fn note(&self, follower: u64, vote: Vote, index: u64) {
        let mut followers = lock(&self.0);
        let entry = followers.entry(follower).or_insert((vote, index, false));
        *entry = if entry.0 == vote { (vote, entry.1.max(index), entry.2) } else { (vote, index, false) };
    }

    /// Whether `follower`, which says that it lacks the entry at `index`, had acknowledged it to this leader.
    pub fn lost(&self, follower: u64, vote: Vote, index: u64) -> Option<Loss> {
        let mut followers = lock(&self.0);
        let (_, acknowledged, told) = followers.get_mut(&follower).filter(|(led, ..)| *led == vote)?;
        (index <= *acknowledged).then(|| Loss {
            acknowledged: *acknowledged,
            lacks: index,
            is_news: !std::mem::replace(told, true),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOTE: Vote = Vote { term: 3, node: 1, committed: true };

    #[test]
    fn follower_that_never_acknowledged_lacks_entries_nothing_is_lost() {
        let acknowledged = Acknowledged::default();
        assert_eq!(acknowledged.lost(2, VOTE, 5), None);
        acknowledged.note(2, VOTE, 4);
        assert_eq!(acknowledged.lost(2, VOTE, 5), None);
        assert_eq!(acknowledged.lost(7, VOTE, 4), None);
    }

    #[test]
    fn follower_that_acknowledged_lacks_it_later_it_is_lost_and_news_once() {
        let acknowledged = Acknowledged::default();
        acknowledged.note(2, VOTE, 9);
        acknowledged.note(2, VOTE, 8);
        let loss = |is_news| Some(Loss { acknowledged: 9, lacks: 9, is_news });
        assert_eq!(acknowledged.lost(2, VOTE, 9), loss(true));
        assert_eq!(acknowledged.lost(2, VOTE, 9), loss(false));
    }

    #[test]
    fn another_leadership_begins_it_knows_of_nothing_acknowledged() {
        let acknowledged = Acknowledged::default();
        acknowledged.note(2, VOTE, 9);
        let next = Vote { term: 4, ..VOTE };
        assert_eq!(acknowledged.lost(2, next, 1), None);
        acknowledged.note(2, next, 1);
        assert_eq!(acknowledged.lost(2, next, 9), None);
    }
}
