//! The counters: a map in 256 shards by the first byte of a counter's id, copied piece by piece when a frozen copy is
//! still in use.
//!
//! Counters that expired are as good as absent, so when one is dropped never shows in a decision. It shows only in
//! [`Counters::len`] and in what a policy holds of its share, hence dropping is part of the state: a cursor goes round
//! all counters in the order of their ids, a bounded stretch with each batch.

use std::collections::BTreeMap;
use std::hash::Hasher;
use std::sync::Arc;

use siphasher::sip128::{Hasher128, SipHasher13};

use crate::algorithm::CounterState;
use crate::command::CounterId;
use crate::policy::{Algorithm, PolicyId};
use crate::shard::{Counter, Shard};
use crate::time::ClusterTime;

/// Shards, one for each first byte of an id.
const SHARDS: usize = 256;
/// What passing from one shard to the next costs a sweep, in counters looked at.
const SHARD_STEPS: u64 = 16;

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

    /// Continues sweeping where a snapshot says.
    pub fn set_cursor(&mut self, cursor: CounterId) {
        self.cursor = cursor;
    }

    /// A counter, if it is this policy's; one left behind by a policy of the same name that is gone is not.
    pub fn get(&self, id: CounterId, policy: PolicyId) -> Option<CounterState> {
        let counter = self.shards[shard_of(id)].get(id)?;
        (counter.policy == policy).then_some(counter.state)
    }

    /// Fetches counters that are about to be used into the processor's cache. With a million counters nearly each is a
    /// miss; here the misses overlap, one after the other they would take most of the time of a batch.
    pub fn warm(&self, ids: impl Iterator<Item = CounterId>) {
        let found = ids.filter(|id| self.shards[shard_of(*id)].get(*id).is_some()).count();
        std::hint::black_box(found);
    }

    pub fn put(&mut self, counter: Counter) {
        self.sum = self.sum.wrapping_add(hash(&counter));
        let before = Arc::make_mut(&mut self.shards[shard_of(counter.id)]).put(counter);
        if let Some(before) = before {
            self.sum = self.sum.wrapping_sub(hash(&before));
            if before.policy == counter.policy {
                return;
            }
            self.forget(before.policy);
        }
        self.len += 1;
        *self.held.entry(counter.policy).or_default() += 1;
    }

    /// Removes a counter of this policy.
    pub fn remove(&mut self, id: CounterId, policy: PolicyId) {
        if self.get(id, policy).is_some()
            && let Some(counter) = Arc::make_mut(&mut self.shards[shard_of(id)]).remove(id)
        {
            self.sum = self.sum.wrapping_sub(hash(&counter));
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

    /// Steps in which a sweep goes round once.
    pub fn round_steps(&self) -> u64 {
        self.len + SHARDS as u64 * SHARD_STEPS
    }

    /// Goes on round the counters, at most once, for as many `steps`, and drops those that expired. `life_ns` says
    /// how long counters of a policy live; `None` drops them.
    pub fn sweep(&mut self, now: ClusterTime, mut steps: u64, life_ns: impl Fn(PolicyId, Algorithm) -> Option<u64>) {
        let expired = |counter: &&Counter| {
            let age = now.0.saturating_sub(counter.state.0[0]);
            life_ns(counter.policy, counter.algorithm).is_none_or(|life| age >= life)
        };
        let mut dropped = Vec::new();
        for _ in 0..SHARDS {
            let shard = shard_of(self.cursor);
            let mut ahead = self.shards[shard].from(self.cursor);
            let within = usize::try_from(steps).unwrap_or(usize::MAX);
            let mut looked_at = 0;
            let looked = ahead.by_ref().take(within).inspect(|_| looked_at += 1);
            dropped.extend(looked.filter(expired).map(|counter| (counter.id, counter.policy)));
            steps -= looked_at;
            self.cursor = ahead.next().map_or_else(|| start_of(shard + 1), |counter| counter.id);
            drop(ahead);
            for (id, policy) in dropped.drain(..) {
                self.remove(id, policy);
            }
            steps = steps.saturating_sub(SHARD_STEPS);
            if steps == 0 {
                break;
            }
        }
    }

    /// The shards; together and in order they are all counters in the order of their ids.
    pub fn into_shards(self) -> Vec<Arc<Shard>> {
        self.shards
    }

    /// All counters by id.
    #[cfg(test)]
    pub fn iter(&self) -> impl Iterator<Item = &Counter> {
        self.shards.iter().flat_map(|shard| shard.iter())
    }
}

fn hash(counter: &Counter) -> u128 {
    let mut hasher = SipHasher13::new();
    hasher.write(&counter.id.0);
    counter.state.0.iter().for_each(|word| hasher.write_u64(*word));
    hasher.write_u64(u64::from(counter.policy.0) << 8 | counter.algorithm as u64);
    hasher.finish128().as_u128()
}

fn shard_of(id: CounterId) -> usize {
    usize::from(id.0[0])
}

/// The lowest id of a shard; behind the last shard comes the first.
fn start_of(shard: usize) -> CounterId {
    let mut id = [0; 16];
    id[0] = u8::try_from(shard).unwrap_or(0);
    CounterId(id)
}

#[cfg(test)]
mod tests;
