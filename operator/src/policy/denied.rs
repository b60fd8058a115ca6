//! How often each policy of a cluster denied, added up over its nodes.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use quorate_crds::api::policy_ref;
use quorate_limits::PolicyName;
use tokio::time::Instant;

use crate::limiter::{Limiters, Target};

/// Between two looks.
pub const REFRESH: Duration = Duration::from_secs(30);

/// What each pod counted since it started.
#[derive(Debug, Default)]
pub struct Denied {
    asked: Option<Instant>,
    counts: BTreeMap<String, BTreeMap<String, u64>>,
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
                    self.counts.insert(target.pod.clone(), answer.policies);
                }
                Err(error) => tracing::debug!("denials are not counted: {error}"),
            }
        }
    }

    /// How often this policy denied; `None` while no pod has said anything.
    #[must_use]
    pub fn of(&self, policy: &PolicyName) -> Option<u64> {
        let name = policy_ref(policy);
        (!self.counts.is_empty()).then(|| self.counts.values().filter_map(|counts| counts.get(&name)).sum())
    }
}
