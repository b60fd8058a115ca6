//! How long to wait before an object that failed is tried again: each for itself, longer each time.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Mutex;
use std::time::Duration;

use crate::sync::lock;

const FIRST: Duration = Duration::from_secs(1);
const LAST: Duration = Duration::from_mins(1);

/// The failures in a row of each object.
#[derive(Debug)]
pub struct Backoff<K>(Mutex<HashMap<K, u32>>);

impl<K> Default for Backoff<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash> Backoff<K> {
    /// It failed; how long to wait.
    pub fn failed(&self, key: K) -> Duration {
        let mut failures = lock(&self.0);
        let failed = failures.entry(key).or_default();
        let pause = (FIRST * 2_u32.saturating_pow(*failed)).min(LAST);
        *failed = failed.saturating_add(1).min(16);
        // Objects that failed together are not tried together for ever.
        pause.mul_f64(rand::random_range(0.8..1.2))
    }

    /// It went well, or is gone.
    pub fn forget(&self, key: &K) {
        lock(&self.0).remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_that_fails_again_waits_longer_up_to_a_bound_and_others_do_not() {
        let backoff = Backoff::default();
        let pauses: Vec<_> = (0..20).map(|_| backoff.failed("a")).collect();
        assert!(pauses[0] < FIRST * 2 && pauses[3] > FIRST * 6, "{pauses:?}");
        assert!(pauses.iter().all(|pause| *pause <= LAST.mul_f64(1.2)));
        assert!(backoff.failed("b") < FIRST * 2);
        backoff.forget(&"a");
        assert!(backoff.failed("a") < FIRST * 2);
    }
}
