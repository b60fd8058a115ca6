//! How soon a cluster is looked at again. What is watched, and the pulse, come sooner in any case.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;

use super::plan::Step;
use crate::sync::lock;

/// After a step that went well.
pub const AFTER_STEP: Duration = Duration::from_millis(200);
/// While something is in flight or awaited.
pub const IN_FLIGHT: Duration = Duration::from_secs(1);
/// The same, when nothing has changed for long.
pub const IN_FLIGHT_MAX: Duration = Duration::from_secs(10);
/// While all is as wanted.
pub const STEADY: Duration = Duration::from_mins(1);

/// A pod's name and the version of what is known of it.
type Version = (Option<String>, Option<String>);

/// What is known of each cluster's pace.
pub struct Pace<K>(Mutex<HashMap<K, Last>>);

struct Last {
    /// When its status said something new, or its pods were others than before.
    change: Instant,
    /// Its pods, as the API server has them.
    pods: Vec<Version>,
    /// What was done.
    step: Option<Step>,
}

impl Last {
    fn new(now: Instant) -> Self {
        Self { change: now, pods: Vec::new(), step: None }
    }

    fn pause(&self, now: Instant) -> Duration {
        (now.duration_since(self.change) / 4).clamp(IN_FLIGHT, IN_FLIGHT_MAX)
    }
}

impl<K> Default for Pace<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash> Pace<K> {
    /// Its status says something new.
    pub fn changed(&self, key: K, now: Instant) {
        lock(&self.0).entry(key).or_insert_with(|| Last::new(now)).change = now;
    }

    /// These are its pods. One that has just started will answer soon, which nobody tells.
    pub fn saw(&self, key: K, pods: &[Pod], now: Instant) {
        let version = |pod: &Pod| (pod.metadata.name.clone(), pod.metadata.resource_version.clone());
        let pods: Vec<_> = pods.iter().map(version).collect();
        let mut all = lock(&self.0);
        let last = all.entry(key).or_insert_with(|| Last::new(now));
        if last.pods != pods {
            (last.pods, last.change) = (pods, now);
        }
    }

    /// Something is awaited: a quarter of the time for which nothing has changed, so that it is seen soon and a cluster that
    /// waits for days costs little.
    pub fn waiting(&self, key: &K, now: Instant) -> Duration {
        lock(&self.0).get(key).map_or(IN_FLIGHT, |last| last.pause(now))
    }

    /// A step was done. The same one again is one whose effect is awaited.
    pub fn after(&self, key: K, step: &Step, now: Instant) -> Duration {
        let mut all = lock(&self.0);
        let last = all.entry(key).or_insert_with(|| Last::new(now));
        let again = last.step.replace(step.clone()).as_ref() == Some(step);
        if again { last.pause(now) } else { AFTER_STEP }
    }

    /// The cluster is gone.
    pub fn forget(&self, key: &K) {
        lock(&self.0).remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_that_nothing_changes_of_is_looked_at_less_often_up_to_a_bound() {
        let (pace, start) = (Pace::default(), Instant::now());
        pace.changed("a", start);
        let pauses = [0, 3, 8, 20, 40, 4000].map(|s| pace.waiting(&"a", start + Duration::from_secs(s)).as_secs());
        assert_eq!(pauses, [1, 1, 2, 5, 10, 10]);
        pace.changed("a", start + Duration::from_secs(4000));
        assert_eq!(pace.waiting(&"a", start + Duration::from_secs(4001)), IN_FLIGHT);
        assert_eq!(pace.waiting(&"b", start), IN_FLIGHT);
    }

    #[test]
    fn pod_that_has_changed_is_a_change() {
        let (pace, start) = (Pace::default(), Instant::now());
        let after = |version: &str, second| {
            let mut pod = Pod::default();
            pod.metadata.resource_version = Some(version.to_owned());
            let now = start + Duration::from_secs(second);
            pace.saw("a", &[pod], now);
            pace.waiting(&"a", now).as_secs()
        };
        assert_eq!([after("1", 0), after("1", 8), after("2", 20), after("2", 40)], [1, 2, 1, 5]);
    }

    #[test]
    fn step_done_again_and_again_is_waited_for() {
        let (pace, now) = (Pace::default(), Instant::now());
        let (one, other) = (Step::Decommission { id: 1 }, Step::Decommission { id: 2 });
        let pauses = [&one, &one, &other, &one].map(|step| pace.after("a", step, now));
        assert_eq!(pauses, [AFTER_STEP, IN_FLIGHT, AFTER_STEP, AFTER_STEP]);
    }
}
