//! How often each policy of a cluster denied, added up over its nodes.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use quorate_crds::api::{DeniedAnswer, policy_ref};
use quorate_limits::PolicyName;
use tokio::time::Instant;

use crate::limiter::{Limiters, Target};

/// Between two looks.
pub const REFRESH: Duration = Duration::from_secs(30);

/// What each pod counted since it started.
#[derive(Debug, Default)]
pub struct Denied {
    asked: Option<Instant>,
    counts: BTreeMap<String, DeniedAnswer>,
}

impl Denied {
    /// Asks all pods, if it is time. A pod that does not answer keeps what it last said, one that is gone is forgotten.
    pub async fn refresh(&mut self, limiters: &Limiters, pods: &[Target]) {
        if pods.is_empty() || self.asked.is_some_and(|asked| asked.elapsed() < REFRESH) {
            return;
        }
        self.asked = Some(Instant::now());
        self.counts.retain(|pod, _| pods.iter().any(|target| target.pod == *pod));
        let mut calls = Vec::new();
        for target in pods {
            calls.push(limiters.denied(target));
        }
        for (target, answer) in pods.iter().zip(join_all(calls).await) {
            match answer {
                Ok(answer) => {
                    self.counts.insert(target.pod.clone(), answer);
                }
                Err(error) => tracing::debug!("denials are not counted: {error}"),
            }
        }
    }

    /// How often this policy denied; `None` while no pod has said anything, or when none of them counts it apart.
    #[must_use]
    pub fn of(&self, policy: &PolicyName) -> Option<u64> {
        let name = policy_ref(policy);
        let counts = self
            .counts
            .values()
            .filter_map(|answer| answer.policies.get(&name).copied().or_else(|| answer.is_complete.then_some(0)));
        counts.reduce(|a, b| a + b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::in_memory::World;

    #[tokio::test]
    async fn nodes_are_asked_at_once_and_then_again_when_it_is_time() {
        let world = World::default();
        let limiters = world.limiters().await;
        let pods = [1, 2].map(|last| Target { pod: format!("edge-{}", last - 1), ip: [127, 0, 0, last].into() });
        let name = PolicyName { namespace: "shop".to_owned(), name: "a".to_owned() };
        let mut denied = Denied::default();
        let say = |count| {
            for ordinal in 0..2 {
                world.node_says(ordinal, Some(serde_json::Value::Null));
                world.node_denied(ordinal, &[("shop/a", count)]);
            }
        };
        say(2);
        denied.refresh(&limiters, &pods).await;
        assert_eq!((denied.of(&name), world.reads().len()), (Some(4), 2));
        say(3);
        denied.asked = Instant::now().checked_sub(REFRESH.mul_f64(0.9));
        denied.refresh(&limiters, &pods).await;
        assert_eq!((denied.of(&name), world.reads().len()), (Some(4), 0), "it is not time yet");
        denied.asked = Instant::now().checked_sub(REFRESH);
        denied.refresh(&limiters, &pods).await;
        assert_eq!((denied.of(&name), world.reads().len()), (Some(6), 2));
        // It keeps what the one that is silent said, and forgets the one that is gone.
        world.node_says(0, None);
        denied.asked = None;
        denied.refresh(&limiters, &pods[..1]).await;
        assert_eq!(denied.of(&name), Some(3));
    }

    #[test]
    fn denials_add_up_over_pods_and_what_is_not_counted_is_not_known() {
        let answer =
            |count: u64, is_complete| DeniedAnswer { policies: [("shop/a".to_owned(), count)].into(), is_complete };
        let name = |name: &str| PolicyName { namespace: "shop".to_owned(), name: name.to_owned() };
        let mut denied = Denied::default();
        assert_eq!(denied.of(&name("a")), None);
        denied.counts.insert("edge-0".to_owned(), answer(2, false));
        assert_eq!((denied.of(&name("a")), denied.of(&name("b"))), (Some(2), None));
        denied.counts.insert("edge-1".to_owned(), answer(3, true));
        assert_eq!((denied.of(&name("a")), denied.of(&name("b"))), (Some(5), Some(0)));
    }
}
