//! The counters against a plain map.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Ids that meet in few shards and few pages.
fn ids() -> impl Strategy<Value = CounterId> {
    (prop::sample::select(&[0u8, 7, 255]), any::<u16>(), any::<bool>()).prop_map(|(shard, number, last)| {
        let mut id = [0; 16];
        id[0] = shard;
        id[1..3].copy_from_slice(&number.to_be_bytes());
        id[15] = u8::from(last);
        CounterId(id)
    })
}

#[derive(Clone, Debug)]
enum Step {
    Put(CounterId, u32, u64),
    Remove(CounterId, u32),
    /// Drops what starts before the instant.
    Sweep(u64, u64),
    Freeze,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => (ids(), 0..3u32, 0..100u64).prop_map(|(id, policy, start)| Step::Put(id, policy, start)),
        3 => (ids(), 0..3u32).prop_map(|(id, policy)| Step::Remove(id, policy)),
        2 => (0..100u64, 0..300u64).prop_map(|(now, steps)| Step::Sweep(now, steps)),
        1 => Just(Step::Freeze),
    ];
    prop::collection::vec(step, 1..600)
}

fn counter(id: CounterId, policy: u32, start: u64) -> Counter {
    Counter { id, state: CounterState([start, 1, 2]), policy: PolicyId(policy), algorithm: Algorithm::SlidingWindow }
}

fn all(counters: &Counters) -> BTreeMap<CounterId, Counter> {
    counters.iter().map(|counter| (counter.id, *counter)).collect()
}

fn check(counters: &Counters, plain: &BTreeMap<CounterId, Counter>) {
    assert_eq!(&all(counters), plain);
    assert!(counters.iter().is_sorted_by_key(|counter| counter.id));
    assert_eq!(counters.len(), plain.len() as u64);
    let mut anew = Counters::default();
    for counter in plain.values() {
        anew.put(*counter);
    }
    assert_eq!(anew.sum(), counters.sum());
    for policy in (0..4).map(PolicyId) {
        let held = plain.values().filter(|counter| counter.policy == policy).count() as u64;
        assert_eq!(counters.held(policy), held);
    }
    for counter in plain.values() {
        assert_eq!(counters.get(counter.id, counter.policy), Some(counter.state));
        assert_eq!(counters.get(counter.id, PolicyId(77)), None);
    }
}

proptest! {
    /// And a clone stays what it was, whatever happens to the original.
    #[test]
    fn counters_equal_a_plain_map(steps in steps()) {
        let mut counters = Counters::default();
        let mut plain = BTreeMap::new();
        let mut frozen = vec![];
        for step in steps {
            match step {
                Step::Put(id, policy, start) => {
                    counters.put(counter(id, policy, start));
                    plain.insert(id, counter(id, policy, start));
                }
                Step::Remove(id, policy) => {
                    counters.remove(id, PolicyId(policy));
                    if plain.get(&id).is_some_and(|counter| counter.policy.0 == policy) {
                        plain.remove(&id);
                    }
                }
                Step::Sweep(now, steps) => {
                    let before = counters.len();
                    counters.sweep(ClusterTime(now + 1), steps, |policy, _| (policy.0 > 0).then_some(1));
                    let expired = |counter: &Counter| counter.policy.0 == 0 || counter.state.0[0] <= now;
                    // Which ones were met is the next test's matter; here, only expired ones go.
                    let left = all(&counters);
                    plain.retain(|id, counter| left.contains_key(id) || !expired(counter));
                    prop_assert!(before - counters.len() <= steps);
                }
                Step::Freeze => frozen.push((counters.clone(), plain.clone())),
            }
        }
        check(&counters, &plain);
        for (counters, plain) in &frozen {
            check(counters, plain);
        }
    }

    /// Steps are counted in counters and shards alone, so a round always ends, and meets each counter once.
    #[test]
    fn sweep_goes_round_in_the_same_steps_whatever_the_history(
        ids in prop::collection::btree_set(ids(), 0..400),
        extra in prop::collection::btree_set(ids(), 0..400),
        stretch in 1..200u64,
    ) {
        let mut fresh = Counters::default();
        let mut grown = Counters::default();
        for id in &ids {
            fresh.put(counter(*id, 1, 0));
        }
        for id in ids.union(&extra) {
            grown.put(counter(*id, 1, 0));
        }
        for id in extra.difference(&ids) {
            grown.remove(*id, PolicyId(1));
        }
        let met = std::cell::Cell::new(0);
        let look = |_: PolicyId, _: Algorithm| {
            met.set(met.get() + 1);
            Some(u64::MAX)
        };
        let mut last = CounterId([0; 16]);
        for _ in 0..=ids.len() + SHARDS {
            fresh.sweep(ClusterTime(5), stretch, look);
            grown.sweep(ClusterTime(5), stretch, |_, _| Some(u64::MAX));
            prop_assert_eq!(fresh.cursor(), grown.cursor());
            if fresh.cursor() <= last {
                prop_assert!(met.get() >= ids.len(), "went round and met {} of {}", met.get(), ids.len());
                return Ok(());
            }
            last = fresh.cursor();
        }
        prop_assert!(false, "does not go round");
    }

    #[test]
    fn sweep_of_a_rounds_steps_meets_all(ids in prop::collection::btree_set(ids(), 0..400), from in ids()) {
        let mut counters = Counters::default();
        for id in &ids {
            counters.put(counter(*id, 1, 0));
        }
        counters.set_cursor(from);
        counters.sweep(ClusterTime(5), counters.round_steps(), |_, _| Some(1));
        // Those before the cursor in its own shard come last.
        let left = ids.iter().filter(|id| **id < from && shard_of(**id) == shard_of(from)).count();
        prop_assert_eq!(counters.len(), left as u64);
    }
}

#[test]
fn counter_takes_56_bytes_at_most() {
    assert!(size_of::<Counter>() <= 56, "{}", size_of::<Counter>());
}

#[test]
fn clone_shares_all_but_the_pages_that_change() {
    let mut counters = Counters::default();
    let id = |number: u32| {
        let mut id = [0; 16];
        id[1..5].copy_from_slice(&number.to_be_bytes());
        CounterId(id)
    };
    (0..1000).for_each(|number| counters.put(counter(id(number << 22), 1, 0)));
    let frozen = counters.clone();
    counters.put(counter(id(5 << 22), 1, 9));
    let shared = |number: u32| {
        let of = |counters: &Counters| std::ptr::from_ref(counters.shards[0].get(id(number << 22)).unwrap());
        of(&counters) == of(&frozen)
    };
    assert!(!shared(5));
    assert_eq!((0..1000).filter(|number| !shared(*number)).count(), (0..24).filter(|number| !shared(*number)).count());
}
