//! The counters: a map in 256 shards by the first byte of a counter's id, copied shard by shard when a frozen copy is
//! still in use.
//!
//! Counters that expired are as good as absent, so when one is dropped never shows in a decision. It shows only in
//! [`Counters::len`] and in what a policy holds of its share, hence dropping is part of the state: a cursor goes round
//! all counters in the order of their ids, a bounded stretch with each batch.

use std::collections::BTreeMap;
use std::hash::Hasher;
use std::ops::Bound;
use std::sync::Arc;

use siphasher::sip128::{Hasher128, SipHasher13};

use crate::algorithm::CounterState;
use crate::command::CounterId;
use crate::policy::{Algorithm, PolicyId};
use crate::time::ClusterTime;

/// Shards, one for each first byte of an id.
const SHARDS: usize = 256;

/// One counter. With its id it takes 48 bytes in a tree that is about two thirds full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counter {
    pub state: CounterState,
    pub policy: PolicyId,
    pub algorithm: Algorithm,
}

impl Counter {
    fn hash(&self, id: CounterId) -> u128 {
        let mut hasher = SipHasher13::new();
        hasher.write(&id.0);
        self.state.0.iter().for_each(|word| hasher.write_u64(*word));
        hasher.write_u64(u64::from(self.policy.0) << 8 | self.algorithm as u64);
        hasher.finish128().as_u128()
    }
}

type Shard = BTreeMap<CounterId, Counter>;

/// All counters. A clone shares every shard until one of the two changes it.
#[derive(Clone, Debug)]
pub(crate) struct Counters {
    shards: Vec<Arc<Shard>>,
    len: u64,
    held: BTreeMap<PolicyId, u64>,
    /// The sum of all counters' hashes; in whatever order they came and went, it is the same.
    sum: u128,
    /// Where the next sweep starts.
    cursor: CounterId,
}

impl Default for Counters {
    fn default() -> Self {
        let shards = (0..SHARDS).map(|_| Arc::default()).collect();
        Self { shards, len: 0, held: BTreeMap::new(), sum: 0, cursor: CounterId([0; 16]) }
    }
}

impl Counters {
    /// Counters in memory, expired ones that no sweep has met included.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Those of one policy.
    pub fn held(&self, policy: PolicyId) -> u64 {
        self.held.get(&policy).copied().unwrap_or(0)
    }

    pub fn sum(&self) -> u128 {
        self.sum
    }

    pub fn cursor(&self) -> CounterId {
        self.cursor
    }

    /// A counter, if it is this policy's; one left behind by a policy of the same name that is gone is not.
    pub fn get(&self, id: CounterId, policy: PolicyId) -> Option<CounterState> {
        self.shards[shard_of(id)].get(&id).filter(|counter| counter.policy == policy).map(|counter| counter.state)
    }

    pub fn put(&mut self, id: CounterId, counter: Counter) {
        self.sum = self.sum.wrapping_add(counter.hash(id));
        let before = Arc::make_mut(&mut self.shards[shard_of(id)]).insert(id, counter);
        if before.is_none_or(|before| before.policy != counter.policy) {
            self.len += 1;
            *self.held.entry(counter.policy).or_default() += 1;
            if let Some(before) = before {
                self.forget(before.policy);
            }
        }
        if let Some(before) = before {
            self.sum = self.sum.wrapping_sub(before.hash(id));
        }
    }

    /// Removes a counter of this policy.
    pub fn remove(&mut self, id: CounterId, policy: PolicyId) {
        if self.get(id, policy).is_some()
            && let Some(counter) = Arc::make_mut(&mut self.shards[shard_of(id)]).remove(&id)
        {
            self.sum = self.sum.wrapping_sub(counter.hash(id));
            self.forget(policy);
        }
    }

    fn forget(&mut self, policy: PolicyId) {
        self.len -= 1;
        if let Some(held) = self.held.get_mut(&policy) {
            *held -= 1;
            if *held == 0 {
                self.held.remove(&policy);
            }
        }
    }

    /// Goes on round the counters for at most `steps` of them and drops those that expired. `life_ns` says how long
    /// counters of a policy live; `None` drops them.
    pub fn sweep(
        &mut self,
        now: ClusterTime,
        mut steps: u64,
        life_ns: impl Fn(PolicyId, Algorithm) -> Option<u64>,
    ) -> u64 {
        let mut dropped = 0;
        let mut expired = Vec::new();
        for _ in 0..SHARDS {
            let shard = shard_of(self.cursor);
            let mut ahead = self.shards[shard].range((Bound::Included(self.cursor), Bound::Unbounded));
            self.cursor = loop {
                let Some((id, counter)) = ahead.next() else { break start_of(shard + 1) };
                if steps == 0 {
                    break *id;
                }
                steps -= 1;
                let age = now.0.saturating_sub(counter.state.0[0]);
                if life_ns(counter.policy, counter.algorithm).is_none_or(|life| age >= life) {
                    expired.push((*id, counter.policy));
                }
            };
            dropped += expired.len() as u64;
            for (id, policy) in expired.drain(..) {
                self.remove(id, policy);
            }
            if steps == 0 {
                break;
            }
        }
        dropped
    }

    /// All counters by id.
    pub fn iter(&self) -> impl Iterator<Item = (CounterId, &Counter)> {
        self.shards.iter().flat_map(|shard| shard.iter().map(|(id, counter)| (*id, counter)))
    }

    /// Continues sweeping where a snapshot says.
    pub fn set_cursor(&mut self, cursor: CounterId) {
        self.cursor = cursor;
    }
}

fn shard_of(id: CounterId) -> usize {
    usize::from(id.0[0])
}

/// The lowest id of a shard; of the first behind the last.
fn start_of(shard: usize) -> CounterId {
    let mut id = [0; 16];
    id[0] = u8::try_from(shard).unwrap_or(0);
    CounterId(id)
}

#[cfg(test)]
mod tests;
