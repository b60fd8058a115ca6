//! What to do next: one operation at a time, and one step of it. Pure; the same view gives the same plan, so a crash
//! anywhere only means to look and plan again. `tests/world` walks every path through a small world with it.
//!
//! An operation is written to the status before its first step, and finished before another begins, whatever the spec
//! says meanwhile. Only a step that takes a pod away can do harm, so each of them asks whether the cluster stands without
//! it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use quorate_crds::Reason;
use quorate_crds::cluster::RetentionPolicy;
use quorate_crds::cluster_status::NEXT_STEPS_MAX;

use super::observed::{Founding, Membership, Observed, SeenMember};
use super::ownership::Whose;
use super::validate::{Wanted, voters_of};

mod found;
mod roll;

/// The operation in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InFlight {
    /// The cluster is founded.
    Found,
    /// Pods are added; done when each is a healthy member.
    ScaleUp,
    /// The pod of this number leaves: as a voter, then as a pod.
    ScaleDown(usize),
    /// The pod of this number is made anew from the present template.
    ReplacePod(usize),
    /// The claim of this number is deleted; its member has left.
    ReclaimClaim(usize),
}

/// One thing to do. Each can be done again without harm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Create the founding's `ConfigMap`, which wins only once.
    RecordFounding(Founding),
    /// `POST /v1/cluster/bootstrap` with these members, id to pod, to this pod.
    Bootstrap {
        /// The pod to ask; the same each time.
        pod: usize,
        /// All of the founding's members.
        members: BTreeMap<u64, String>,
    },
    /// Note on this claim whose data is on it, and whether it goes when the `RateLimitCluster` goes.
    MarkClaim {
        /// Its number.
        claim: usize,
        /// Its uid.
        uid: String,
        /// The cluster's id.
        cluster: String,
        /// It goes with the `RateLimitCluster`, which then owns it; so nobody needs to be there to delete it.
        goes_along: bool,
    },
    /// `PUT /v1/cluster/members/{id}/decommission`, to the leader. The node stays out until it is started anew.
    Decommission {
        /// The member's id.
        id: u64,
    },
    /// Evict this pod, which respects the disruption budget.
    Evict {
        /// Its number.
        pod: usize,
        /// Its uid; another pod of that name is not meant.
        uid: String,
    },
    /// Delete this pod, which is not ready and whose member nobody hears.
    DeletePod {
        /// Its number.
        pod: usize,
        /// Its uid.
        uid: String,
    },
    /// Delete this claim.
    DeleteClaim {
        /// Its number.
        claim: usize,
        /// Its uid.
        uid: String,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RecordFounding(_) => f.write_str("record the founding"),
            Self::Bootstrap { members, .. } => write!(f, "found the cluster with {} nodes", members.len()),
            Self::MarkClaim { claim, .. } => write!(f, "note on claim {claim} whose data it has"),
            Self::Decommission { id } => write!(f, "decommission member {id:016x}"),
            Self::Evict { pod, .. } => write!(f, "evict pod {pod}"),
            Self::DeletePod { pod, .. } => write!(f, "delete pod {pod}, which is not ready"),
            Self::DeleteClaim { claim, .. } => write!(f, "delete claim {claim}"),
        }
    }
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Bring the cluster's objects about with this many pods; `None`: leave them as they are.
    pub pods: Option<usize>,
    /// The operation in flight from now on. If it differs from the one seen it is written down before anything is done.
    pub operation: Option<InFlight>,
    /// The step to do now, after the objects.
    pub step: Option<Step>,
    /// Why it is so.
    pub reason: Reason,
    /// What is waited for, and where to look; empty while things move, and when nothing is left to do.
    pub waits_for: String,
    /// What comes after, first to last, for people.
    pub next_steps: Vec<String>,
}

impl Plan {
    fn of(operation: Option<InFlight>, pods: usize, reason: Reason) -> Self {
        Self { pods: Some(pods), operation, step: None, reason, waits_for: String::new(), next_steps: Vec::new() }
    }

    fn step(mut self, step: Step) -> Self {
        self.step = Some(step);
        self
    }

    fn waiting(mut self, reason: Reason, what: impl Into<String>) -> Self {
        self.reason = reason;
        self.waits_for = what.into();
        self
    }

    /// Nothing is touched, the objects neither.
    fn hands_off(operation: Option<InFlight>, reason: Reason) -> Self {
        Self { pods: None, ..Self::of(operation, 0, reason) }
    }
}

/// The next operation and step. `template` is the name of the template that pods should be made from
/// ([`super::build::template_name`]).
#[must_use]
pub fn plan(wanted: &Wanted, template: &str, seen: &Observed) -> Plan {
    let view = View { wanted, template, seen };
    let mut plan = if wanted.deleting {
        // What it owns goes with it, claims too if they are to.
        Plan::hands_off(None, Reason::Deleting)
    } else if wanted.spec.paused {
        Plan::hands_off(seen.operation, Reason::Paused)
    } else {
        view.in_the_way().or_else(|| view.found()).unwrap_or_else(|| view.run())
    };
    plan.next_steps = view.outlook(&plan);
    plan
}

/// What both sides look like, with the questions that the stages ask.
struct View<'a> {
    wanted: &'a Wanted,
    template: &'a str,
    seen: &'a Observed,
}

impl View<'_> {
    /// What is another's is never touched, and nothing is done beside it.
    fn in_the_way(&self) -> Option<Plan> {
        let object = self.seen.in_the_way.as_ref()?;
        let what = &object.what;
        Some(match object.whose {
            Whose::Ours => return None,
            Whose::Predecessor => Plan::hands_off(self.seen.operation.or(Some(InFlight::Found)), Reason::Founding)
                .waiting(Reason::Founding, format!("{what} to go, of a cluster of this name that was deleted")),
            Whose::Orphan => Plan::hands_off(self.seen.operation, Reason::NotOurs).waiting(
                Reason::NotOurs,
                format!("{what} to be given to it or to go; a cluster that was deleted with --cascade=orphan left it"),
            ),
            Whose::Foreign => Plan::hands_off(self.seen.operation, Reason::NotOurs)
                .waiting(Reason::NotOurs, format!("{what} to go, which is not this cluster's")),
        })
    }

    /// Once founded: goes on with the operation in flight, else begins what is most pressing.
    fn run(&self) -> Plan {
        let begun = self.seen.operation.and_then(|operation| self.go_on(operation));
        begun.or_else(|| self.tidy()).or_else(|| self.scale()).or_else(|| self.roll()).unwrap_or_else(|| self.steady())
    }

    /// The plan for an operation in flight; `None` once it is done.
    fn go_on(&self, operation: InFlight) -> Option<Plan> {
        match operation {
            InFlight::Found => None,
            InFlight::ScaleUp => self.scale_up(),
            InFlight::ScaleDown(pod) => self.scale_down(pod),
            InFlight::ReplacePod(pod) => self.replace(pod),
            InFlight::ReclaimClaim(claim) => self.reclaim(claim),
        }
    }

    /// The pods that there are to be as long as nothing shrinks: those there are, those wanted, and the voters'. Somebody
    /// who scaled the `StatefulSet` down by hand takes voters away, so they are put back; somebody who scaled it up is
    /// undone the long way, by scaling down. A voter whose pod is gone is only needed back when there is no leader: else it
    /// is one to take out.
    fn pods(&self) -> usize {
        let led = self.seen.membership.is_some();
        let is_needed = |ordinal: &&usize| !self.is_let_go(**ordinal) && (!led || self.seen.pods.contains_key(ordinal));
        let voters = self.seen.voters.values().filter(is_needed).max().map_or(0, |ordinal| ordinal + 1);
        self.seen.replicas.unwrap_or(0).max(self.wanted.replicas).max(voters)
    }

    /// It is on its way out, and the others can decide, or at least elect who does.
    fn is_let_go(&self, ordinal: usize) -> bool {
        let others = self.seen.answering_voters().filter(|voter| *voter != ordinal).count();
        self.seen.operation == Some(InFlight::ScaleDown(ordinal))
            && (self.seen.membership.is_some() || 2 * others > self.seen.voters.len())
    }

    /// What needs no operation, or nobody waits for.
    fn tidy(&self) -> Option<Plan> {
        // Not steady: what the spec wants may be another thing, which comes next.
        let tidying = Plan::of(None, self.pods(), Reason::Tidying);
        let cluster = self.seen.cluster_id()?;
        if let Some(id) = self.replaced_member(cluster) {
            return Some(tidying.step(Step::Decommission { id }));
        }
        let goes_along = self.wanted.spec.storage.retention.on_delete == RetentionPolicy::Delete;
        let unmarked = self.seen.claims.iter().find(|(ordinal, claim)| {
            let marked = claim.cluster.as_deref() == Some(cluster);
            let to_mark = self.is_new_claim(**ordinal, cluster) && self.predecessor(**ordinal).is_none();
            !claim.terminating && (to_mark || marked && claim.goes_along != goes_along)
        });
        if let Some((&claim, seen)) = unmarked {
            let uid = seen.uid.clone();
            return Some(tidying.step(Step::MarkClaim { claim, uid, cluster: cluster.to_owned(), goes_along }));
        }
        // A member whose pod will not come back: a node that joined again while its pod was going, say.
        let pods = self.pods();
        let mut members = self.seen.membership.iter().flat_map(|membership| &membership.members);
        let homeless = members.find(|member| {
            self.wanted
                .names
                .ordinal_of_pod(&member.name)
                .is_none_or(|ordinal| ordinal >= pods && !self.seen.pods.contains_key(&ordinal))
        });
        if let Some(member) = homeless {
            return Some(tidying.step(Step::Decommission { id: member.id }));
        }
        let stray = self.seen.claims.keys().copied().find(|claim| self.may_reclaim(*claim))?;
        self.reclaim(stray)
    }

    /// A member whose disk is gone because somebody deleted its claim: the claim of its name is new, and the node on it has
    /// caught up as a learner. Told so, autopilot swaps the two by one change, and need not think that something eats disks.
    fn replaced_member(&self, cluster: &str) -> Option<u64> {
        let membership = self.seen.membership.as_ref()?;
        self.seen.claims.keys().filter(|ordinal| self.is_new_claim(**ordinal, cluster)).find_map(|&ordinal| {
            let heir = membership.member(self.seen.pods.get(&ordinal)?.node.as_ref()?.id)?;
            let old = self.predecessor(ordinal).filter(|old| !old.reachable && heir.healthy())?;
            Some(old.id)
        })
    }

    /// The claim does not say whose data it has, and the node on it is one of the cluster's.
    fn is_new_claim(&self, ordinal: usize, cluster: &str) -> bool {
        let node = self.seen.pods.get(&ordinal).and_then(|pod| pod.node.as_ref());
        let claim = self.seen.claims.get(&ordinal).filter(|claim| !claim.terminating);
        claim.is_some_and(|claim| claim.cluster.is_none())
            && node.is_some_and(|n| n.cluster.as_deref() == Some(cluster))
    }

    /// Another member of the name of this pod.
    fn predecessor(&self, ordinal: usize) -> Option<&SeenMember> {
        let (name, pod) = (self.wanted.names.pod(ordinal), self.seen.pods.get(&ordinal)?);
        let id = pod.node.as_ref()?.id;
        let mut members = self.seen.membership.iter().flat_map(|membership| &membership.members);
        members.find(|member| member.name == name && member.id != id)
    }

    /// Grows or shrinks to what is wanted.
    fn scale(&self) -> Option<Plan> {
        let now = self.seen.replicas.unwrap_or(0);
        if now < self.pods() {
            self.scale_up()
        } else if now > self.wanted.replicas {
            self.scale_down(now - 1)
        } else {
            None
        }
    }

    /// Done when every pod is a healthy member, and as many vote as should; dropped when fewer are wanted by then.
    fn scale_up(&self) -> Option<Plan> {
        if self.seen.replicas == Some(self.pods()) && self.pods() > self.wanted.replicas {
            return None;
        }
        let plan = Plan::of(Some(InFlight::ScaleUp), self.pods(), Reason::ScalingUp);
        if self.seen.replicas != Some(self.pods()) {
            return Some(plan);
        }
        if let Some(pod) = (0..self.pods()).find(|pod| !self.is_healthy(*pod)) {
            return Some(self.waits_for_pod(plan, pod));
        }
        let voters = self.seen.membership.as_ref().map_or(0, |membership| membership.voters().count());
        let due = voters_of(self.pods());
        (voters < due).then(|| plan.waiting(Reason::WaitingForMembers, format!("{voters} of {due} voters")))
    }

    /// The pod first: it drains, and nobody who was about to ask it notices. A node that is no member any more could only
    /// turn clients away. Then its member is out, which is soon: until then the voters stand one loss fewer. Done when both
    /// are gone.
    fn scale_down(&self, pod: usize) -> Option<Plan> {
        let now = self.seen.replicas.unwrap_or(0);
        if now < self.pods() {
            return None;
        }
        if let Some(&going) = self.seen.pods.keys().find(|ordinal| **ordinal >= now) {
            let plan = Plan::of(Some(InFlight::ScaleDown(going)), now, Reason::ScalingDown);
            return Some(plan.waiting(Reason::WaitingForPods, format!("pod {} to end", self.wanted.names.pod(going))));
        }
        let plan = Plan::of(Some(InFlight::ScaleDown(pod)), now, Reason::ScalingDown);
        let name = self.wanted.names.pod(pod);
        if pod == now {
            let Some(membership) = &self.seen.membership else {
                return Some(plan.waiting(Reason::NoLeader, "a leader"));
            };
            let own = membership.members.iter().find(|member| member.name == name);
            return own.map(|own| plan.step(Step::Decommission { id: own.id }));
        }
        // Not the last pod any more: somebody scaled the `StatefulSet` by hand.
        if pod + 1 != now || pod == 0 {
            return None;
        }
        let Some(membership) = &self.seen.membership else {
            return Some(plan.waiting(Reason::NoLeader, "a leader"));
        };
        // The last vote goes to another before its pod does; and of two that vote neither can be missed. Its node drains
        // before it is out, as it would when its pod ends.
        let own = membership.voters().find(|voter| voter.name == name);
        if let Some(own) = own.filter(|_| membership.voters().count() <= 2) {
            return Some(plan.step(Step::Decommission { id: own.id }));
        }
        if !self.stands_without(pod) {
            return Some(plan.waiting(Reason::WaitingForQuorum, format!("enough healthy voters to do without {name}")));
        }
        Some(Plan { pods: Some(pod), ..plan })
    }

    /// Done when the claim is gone; dropped when it must not go any more.
    fn reclaim(&self, claim: usize) -> Option<Plan> {
        let plan = Plan::of(Some(InFlight::ReclaimClaim(claim)), self.pods(), Reason::ReclaimingStorage);
        let seen = self.seen.claims.get(&claim).filter(|_| self.may_reclaim(claim))?;
        Some(if seen.terminating {
            plan.waiting(Reason::ReclaimingStorage, format!("claim {} to go", self.wanted.names.claim(claim)))
        } else {
            plan.step(Step::DeleteClaim { claim, uid: seen.uid.clone() })
        })
    }

    /// Only when nobody needs it: beyond all pods, without a pod, without a member, known to be this cluster's, and meant
    /// to go.
    fn may_reclaim(&self, claim: usize) -> bool {
        let name = self.wanted.names.pod(claim);
        self.wanted.spec.storage.retention.on_scale_down == RetentionPolicy::Delete
            && claim >= self.pods()
            && !self.seen.pods.contains_key(&claim)
            && self.seen.membership.as_ref().is_some_and(|m| m.members.iter().all(|member| member.name != name))
            && self.seen.cluster_id().is_some()
            && self.seen.claims.get(&claim).is_some_and(|seen| seen.cluster.as_deref() == self.seen.cluster_id())
    }

    /// Nothing to do, but perhaps something to tell.
    fn steady(&self) -> Plan {
        let plan = Plan::of(None, self.pods(), Reason::Steady);
        if self.seen.membership.is_none() {
            // Nobody is up yet who could say that there is none.
            let is_silent = |pod: &usize| self.seen.pods.get(pod).is_none_or(|pod| pod.node.is_none());
            return match (0..self.pods()).find(is_silent).filter(|_| self.seen.voters.is_empty()) {
                Some(pod) => self.waits_for_pod(plan, pod),
                None => plan.waiting(Reason::NoLeader, "a leader"),
            };
        }
        match (0..self.pods()).find(|pod| !self.is_healthy(*pod)) {
            Some(pod) => self.waits_for_pod(plan, pod),
            None => plan,
        }
    }

    /// Waits for this pod, unless one that is stuck can be freed meanwhile.
    fn waits_for_pod(&self, plan: Plan, ordinal: usize) -> Plan {
        if let Some((&pod, seen)) = self.seen.pods.iter().find(|(pod, _)| self.is_stuck(**pod)) {
            return plan.step(Step::DeletePod { pod, uid: seen.uid.clone() });
        }
        let name = self.wanted.names.pod(ordinal);
        match self.seen.pods.get(&ordinal) {
            Some(pod) if pod.terminating => plan.waiting(Reason::WaitingForPods, format!("pod {name} to end")),
            Some(pod) if pod.node.is_some() => {
                plan.waiting(Reason::WaitingForMembers, format!("pod {name} to be a healthy member"))
            }
            Some(_) => plan.waiting(Reason::WaitingForPods, format!("pod {name} to start")),
            None => plan.waiting(Reason::WaitingForPods, format!("pod {name} to be created")),
        }
    }

    /// The pod is ready, and its node is a member that can decide.
    fn is_healthy(&self, ordinal: usize) -> bool {
        let Some(pod) = self.seen.pods.get(&ordinal).filter(|pod| pod.ready && !pod.terminating) else { return false };
        let (Some(node), Some(membership)) = (&pod.node, &self.seen.membership) else { return false };
        membership.member(node.id).is_some_and(SeenMember::healthy)
    }

    /// The voters that go when this pod goes: its node's, and any that bears its name.
    fn voters_of_pod(&self, ordinal: usize) -> impl Iterator<Item = u64> {
        let name = self.wanted.names.pod(ordinal);
        let node = self.seen.pods.get(&ordinal).and_then(|pod| pod.node.as_ref()).map(|node| node.id);
        let voters = self.seen.membership.iter().flat_map(Membership::voters);
        voters.filter(move |member| member.name == name || Some(member.id) == node).map(|member| member.id)
    }

    /// Whether the voters keep a healthy majority without this pod. A single voter has none to keep: its cluster is away
    /// for as long as its pod is, and whoever wanted one replica wanted that.
    fn stands_without(&self, ordinal: usize) -> bool {
        let Some(membership) = &self.seen.membership else { return false };
        let voters = membership.voters().count();
        if voters == 1 && self.wanted.voters() == 1 {
            return true;
        }
        let gone: BTreeSet<u64> = self.voters_of_pod(ordinal).collect();
        let left = membership.voters().filter(|member| member.healthy() && !gone.contains(&member.id)).count();
        left > voters / 2
    }

    /// What is to come after this plan, for people.
    fn outlook(&self, plan: &Plan) -> Vec<String> {
        let names = &self.wanted.names;
        let mut steps: Vec<String> = plan.step.iter().map(ToString::to_string).collect();
        if self.wanted.deleting || self.wanted.spec.paused || self.seen.in_the_way.is_some() {
            return steps;
        }
        let (now, wanted) = (plan.pods.or(self.seen.replicas).unwrap_or(0), self.wanted.replicas);
        steps.extend((wanted..now).rev().map(|pod| format!("take out pod {}", names.pod(pod))));
        if self.seen.replicas.is_some_and(|replicas| replicas < now) {
            steps.push(format!("go to {now} pods"));
        }
        let doing = |pod: &usize| matches!(&plan.step, Some(Step::Evict { pod: own, .. } | Step::DeletePod { pod: own, .. }) if own == pod);
        let stale = self.rollout_order().into_iter().filter(|pod| *pod < wanted && !doing(pod));
        steps.extend(stale.map(|pod| format!("replace pod {}", names.pod(pod))));
        steps.truncate(NEXT_STEPS_MAX);
        steps
    }
}

#[cfg(test)]
mod tests;
