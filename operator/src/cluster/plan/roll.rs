//! Pods that were made from another template, one after another. Followers first, so that leadership moves once, to a pod
//! that is new already.

use quorate_crds::Reason;
use quorate_crds::cluster::RolloutStrategy;

use super::{InFlight, Plan, Step, View};
use crate::cluster::observed::SeenPod;

impl View<'_> {
    /// Replaces pods that were made from another template: the sick first, then learners, voters, the leader.
    pub(super) fn roll(&self) -> Option<Plan> {
        let order = self.rollout_order();
        let first = *order.first()?;
        if self.wanted.spec.rollout.strategy == RolloutStrategy::Manual {
            let plan = Plan::of(None, self.pods(), Reason::RollingOut);
            let what = format!("pod {} to be deleted by hand", self.wanted.names.pod(first));
            return Some(plan.waiting(Reason::WaitingForPerson, what));
        }
        self.replace(first)
    }

    /// The pods to replace, in their order.
    pub(super) fn rollout_order(&self) -> Vec<usize> {
        let stale = self.seen.pods.iter().filter(|(_, pod)| pod.template != self.template);
        let mut order: Vec<_> = stale
            .map(|(&ordinal, _)| {
                let rank = if !self.is_healthy(ordinal) {
                    0
                } else if !self.voters_of_pod(ordinal).any(|_| true) {
                    1
                } else {
                    2 + u8::from(self.leads(ordinal))
                };
                (rank, usize::MAX - ordinal, ordinal)
            })
            .collect();
        order.sort_unstable();
        order.into_iter().map(|(_, _, ordinal)| ordinal).collect()
    }

    /// Done when the pod is there, made from the present template, and a healthy member. So a template that does not run
    /// stops at its first pod.
    pub(super) fn replace(&self, ordinal: usize) -> Option<Plan> {
        if ordinal >= self.pods() {
            return None;
        }
        let plan = Plan::of(Some(InFlight::ReplacePod(ordinal)), self.pods(), Reason::RollingOut);
        let Some(pod) = self.seen.pods.get(&ordinal).filter(|pod| !pod.terminating) else {
            return Some(self.waits_for_pod(plan, ordinal));
        };
        if pod.template == self.template {
            return (!self.is_healthy(ordinal)).then(|| self.waits_for_pod(plan, ordinal));
        }
        if self.is_stuck(ordinal) {
            return Some(plan.step(Step::DeletePod { pod: ordinal, uid: pod.uid.clone() }));
        }
        // It has come to lead since it was chosen.
        if self.leads(ordinal) && self.rollout_order().first() != Some(&ordinal) {
            return None;
        }
        // The others first: a pod that is on its way back, or was never there, leaves no room for another to go.
        if let Some(other) = (0..self.pods()).find(|other| *other != ordinal && !self.is_healthy(*other)) {
            return Some(self.waits_for_pod(plan, other));
        }
        if !self.stands_without(ordinal) {
            let what = "enough healthy voters to do without one".to_owned();
            return Some(plan.waiting(Reason::WaitingForQuorum, what));
        }
        Some(plan.step(Step::Evict { pod: ordinal, uid: pod.uid.clone() }))
    }

    /// A pod that does not get better by waiting, and by whose end nobody loses anything: not ready, its members unheard,
    /// and made from another template (a `StatefulSet` would keep it for ever, kubernetes#67250) or wanted back after it
    /// was told to leave.
    pub(super) fn is_stuck(&self, ordinal: usize) -> bool {
        self.seen.pods.get(&ordinal).filter(|pod| !pod.ready && !pod.terminating).is_some_and(|pod| {
            let automatic = self.wanted.spec.rollout.strategy == RolloutStrategy::Automatic;
            let retired = pod.node.as_ref().is_some_and(|node| node.retired);
            let stale = automatic && pod.template != self.template;
            (stale || retired && ordinal < self.wanted.replicas) && self.is_silent(ordinal, pod)
        })
    }

    fn leads(&self, ordinal: usize) -> bool {
        let node = self.seen.pods.get(&ordinal).and_then(|pod| pod.node.as_ref());
        self.seen.membership.as_ref().is_some_and(|known| node.is_some_and(|node| node.id == known.leader))
    }

    /// Nobody hears its members. Without a leader to say so, its node does not even answer.
    fn is_silent(&self, ordinal: usize, pod: &SeenPod) -> bool {
        let name = self.wanted.names.pod(ordinal);
        match &self.seen.membership {
            Some(membership) => !membership.members.iter().any(|member| member.name == name && member.reachable),
            None => pod.node.is_none(),
        }
    }
}
