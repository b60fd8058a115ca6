//! Feels the pulse of clusters with nothing to do: every [`PERIOD`] their leader is asked how things stand, one small
//! request a cluster, and one that answers differently from before, or not at all, is looked at as a whole. So a change of
//! leader and a lost member show in the status within seconds, though no object of Kubernetes changed.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::iter;
use quorate_crds::api::{ClusterAnswer, MemberAnswer, Role};
use tokio::time::{MissedTickBehavior, interval};

use super::observed::is_caught_up;
use crate::limiter::{Limiters, Target};
use crate::sync::lock;

/// Between two questions to the same cluster.
pub const PERIOD: Duration = Duration::from_secs(2);
/// The most questions under way at once.
const ASKED_MAX: usize = 32;

/// The clusters by some key.
pub struct Pulse<K>(Mutex<HashMap<K, Patient>>);

#[derive(Clone)]
struct Patient {
    leader: Target,
    signs: Signs,
}

/// What counts as a change.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Signs {
    leader: Option<u64>,
    term: u64,
    /// Id, whether it votes, whether it is reachable, and whether it is caught up.
    members: Vec<(u64, bool, bool, bool)>,
}

impl Signs {
    fn of(answer: &ClusterAnswer) -> Self {
        let sign = |m: &MemberAnswer| (m.id.0, m.role == Role::Voter, m.reachable, is_caught_up(m));
        let mut members: Vec<_> = answer.members.iter().map(sign).collect();
        members.sort_unstable();
        Self { leader: answer.leader.map(|id| id.0), term: answer.term, members }
    }
}

impl<K> Default for Pulse<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Clone + Eq + std::hash::Hash> Pulse<K> {
    /// From now on this cluster is asked there.
    pub fn watch(&self, key: K, leader: Target, answer: &ClusterAnswer) {
        let patient = Patient { leader, signs: Signs::of(answer) };
        lock(&self.0).insert(key, patient);
    }

    /// No more.
    pub fn forget(&self, key: &K) {
        lock(&self.0).remove(key);
    }

    /// Asks until nobody wants to know any more. A cluster that is told of is asked again once it was looked at.
    pub async fn run(&self, limiters: &Limiters, tell: impl Fn(K)) {
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let patients = lock(&self.0).clone();
            let asked = iter(patients).map(|(key, patient)| async move {
                let answer = limiters.cluster(&patient.leader).await.ok();
                (answer.as_ref().map(Signs::of).as_ref() != Some(&patient.signs)).then_some(key)
            });
            let mut changed = asked.buffer_unordered(ASKED_MAX);
            while let Some(key) = changed.next().await {
                if let Some(key) = key {
                    self.forget(&key);
                    tell(key);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn change_of_leader_or_of_what_a_member_can_do_is_a_change_and_a_little_lag_is_none() {
        let answer = |leader: &str, role: &str, lag: u64, reachable: bool| {
            let member = json!({
                "name": "edge-1", "id": "2", "role": role, "lag": lag, "appliedRevision": 1, "version": "0.1.0",
                "reachable": reachable,
            });
            let answer: ClusterAnswer = serde_json::from_value(json!({
                "clusterId": "c1", "node": "1", "leader": leader, "term": 1, "revision": 1, "members": [member],
                "intents": [], "autopilot": null,
            }))
            .unwrap();
            Signs::of(&answer)
        };
        let before = answer("1", "Voter", 0, true);
        assert_eq!(answer("1", "Voter", 7, true), before);
        for other in [
            answer("2", "Voter", 0, true),
            answer("1", "Learner", 0, true),
            answer("1", "Voter", 5000, true),
            answer("1", "Voter", 0, false),
        ] {
            assert_ne!(other, before);
        }
    }
}
