//! What the conditions of a `RateLimitCluster` say. Pure; the same view always finds the same, so that nothing is written
//! as long as nothing changes.

use std::collections::BTreeSet;

use quorate_crds::conditions::Finding;
use quorate_crds::{ConditionStatus, ConditionType, FieldError, Reason};

use super::observed::{Membership, Observed, SeenMember};
use super::plan::{InFlight, Plan};
use super::validate::Wanted;

use ConditionStatus::{False, True, Unknown};
use ConditionType::{Degraded, Progressing, QuorumHealthy, Ready, Upgradeable};

/// The remedy of what needs none.
const NOTHING: &str = "Nothing.";
/// The longest that is told of what is so, in characters: the remedy is to fit behind it.
const WHAT_CHARS_MAX: usize = 768;

/// How the nodes stand together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quorum {
    /// There is no cluster yet.
    Unfounded,
    /// A leader has a majority.
    Met,
    /// A leader is about to be elected.
    NoLeader,
    /// No majority is there to elect one.
    Lost,
    /// No pod answers, and nothing is known.
    Unknown,
}

/// All conditions. `stalled`: the operation in flight takes longer than it should.
#[must_use]
pub fn findings(wanted: &Wanted, seen: &Observed, plan: &Plan, stalled: bool) -> Vec<Finding> {
    let view = View { wanted, seen, plan, stalled, quorum: quorum(seen) };
    vec![view.ready(), view.progressing(), view.degraded(), view.quorum_healthy(), view.upgradeable()]
}

/// The conditions of a spec that cannot be read. What runs goes on as it was.
#[must_use]
pub fn invalid(errors: &[FieldError]) -> Vec<Finding> {
    let message = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    let finding = |condition, status| {
        let message = format!("{message}; nothing is changed until the spec is mended");
        Finding { condition, status, reason: Reason::InvalidSpec, message }
    };
    vec![finding(Progressing, False), finding(Degraded, True), finding(Upgradeable, False)]
}

/// The conditions of a cluster that could not even be looked at.
#[must_use]
pub fn refused(cluster: &str, what: &str) -> Vec<Finding> {
    let refused = Reason::Refused;
    [(Progressing, True), (Degraded, True), (Upgradeable, False)]
        .map(|(condition, status)| finding(cluster, condition, status, refused, what))
        .into()
}

fn finding(cluster: &str, condition: ConditionType, status: ConditionStatus, reason: Reason, what: &str) -> Finding {
    let told = if what.is_empty() { reason.meaning() } else { what }.trim_end_matches('.');
    let told: String = told.chars().take(WHAT_CHARS_MAX).collect();
    let mut message = format!("{cluster}: {told}");
    if reason.remedy() != NOTHING {
        message = format!("{message}. {}", reason.remedy());
    }
    Finding { condition, status, reason, message }
}

/// Healthy members of a membership that vote.
pub(super) fn healthy_voters(membership: &Membership) -> usize {
    membership.voters().filter(|voter| voter.healthy()).count()
}

fn quorum(seen: &Observed) -> Quorum {
    if let Some(membership) = &seen.membership {
        let met = 2 * healthy_voters(membership) > membership.voters().count();
        return if met { Quorum::Met } else { Quorum::Lost };
    }
    if seen.pods.values().all(|pod| pod.node.is_none()) {
        return if seen.founding.is_none() { Quorum::Unfounded } else { Quorum::Unknown };
    }
    // Founders have their cluster's id for a moment before they know who votes.
    if seen.cluster_id().is_none() || seen.voters.is_empty() {
        return Quorum::Unfounded;
    }
    if 2 * seen.answering_voters().count() > seen.voters.len() { Quorum::NoLeader } else { Quorum::Lost }
}

struct View<'a> {
    wanted: &'a Wanted,
    seen: &'a Observed,
    plan: &'a Plan,
    stalled: bool,
    quorum: Quorum,
}

impl View<'_> {
    fn finding(&self, condition: ConditionType, status: ConditionStatus, reason: Reason, what: &str) -> Finding {
        finding(&self.wanted.names.cluster(), condition, status, reason, what)
    }

    /// What the API server refuses, while it is asked for anything.
    fn refused(&self) -> Option<&str> {
        self.seen.refused.as_deref().filter(|_| self.plan.pods.is_some())
    }

    fn waits_for(&self) -> String {
        if self.plan.waits_for.is_empty() { String::new() } else { format!("waits for {}", self.plan.waits_for) }
    }

    fn ready(&self) -> Finding {
        let waits_for = self.waits_for();
        if self.wanted.deleting {
            return self.finding(Ready, False, Reason::Deleting, "");
        }
        match self.quorum {
            Quorum::Unfounded => match self.plan.reason {
                reason @ (Reason::ForeignClaims | Reason::FounderLost | Reason::NotOurs) => {
                    self.finding(Ready, False, reason, &waits_for)
                }
                _ => self.finding(Ready, False, Reason::Founding, &waits_for),
            },
            Quorum::NoLeader => self.finding(Ready, False, Reason::NoLeader, ""),
            Quorum::Lost => self.finding(Ready, False, Reason::QuorumLost, &self.missing_voters()),
            Quorum::Unknown if !self.seen.pods.values().any(|pod| pod.ready) => {
                self.finding(Ready, False, Reason::WaitingForPods, &waits_for)
            }
            Quorum::Unknown => self.finding(Ready, Unknown, Reason::Unreachable, ""),
            Quorum::Met if !self.seen.pods.values().any(|pod| pod.ready) => {
                self.finding(Ready, False, Reason::WaitingForPods, "no pod is ready")
            }
            Quorum::Met => self.finding(Ready, True, Reason::Serving, ""),
        }
    }

    fn progressing(&self) -> Finding {
        if let Some(what) = self.refused() {
            return self.finding(Progressing, True, Reason::Refused, what);
        }
        let reason = self.plan.reason;
        let status = if reason.conditions().contains(&(Progressing, True)) { True } else { False };
        self.finding(Progressing, status, reason, &self.waits_for())
    }

    fn degraded(&self) -> Finding {
        let reason = self.plan.reason;
        if matches!(reason, Reason::ForeignClaims | Reason::FounderLost | Reason::NotOurs) {
            return self.finding(Degraded, True, reason, &self.waits_for());
        }
        if let Some(what) = self.refused() {
            return self.finding(Degraded, True, Reason::Refused, what);
        }
        match self.quorum {
            Quorum::Lost => return self.finding(Degraded, True, Reason::QuorumLost, &self.missing_voters()),
            Quorum::NoLeader => return self.finding(Degraded, True, Reason::NoLeader, ""),
            _ if self.stalled => return self.finding(Degraded, True, Reason::RolloutStalled, &self.waits_for()),
            Quorum::Unknown => return self.finding(Degraded, Unknown, Reason::Unreachable, ""),
            Quorum::Unfounded => return self.finding(Degraded, False, Reason::AsWanted, "nothing is wrong so far"),
            Quorum::Met => {}
        }
        if let Some(pod) = self.lost_disk() {
            return self.finding(Degraded, True, Reason::DiskLost, &format!("pod {pod} came back with an empty disk"));
        }
        match self.sick_member() {
            Some(pod) => {
                let what = format!("member {pod} is unreachable or lags behind");
                self.finding(Degraded, True, Reason::MemberUnhealthy, &what)
            }
            None => self.finding(Degraded, False, Reason::AsWanted, ""),
        }
    }

    fn quorum_healthy(&self) -> Finding {
        match self.quorum {
            Quorum::Met => self.finding(QuorumHealthy, True, Reason::QuorumMet, ""),
            Quorum::Lost => self.finding(QuorumHealthy, False, Reason::QuorumLost, &self.missing_voters()),
            Quorum::NoLeader => self.finding(QuorumHealthy, False, Reason::NoLeader, ""),
            Quorum::Unfounded if self.plan.reason == Reason::FounderLost => {
                self.finding(QuorumHealthy, False, Reason::FounderLost, &self.waits_for())
            }
            Quorum::Unfounded => self.finding(QuorumHealthy, False, Reason::Founding, "it is not founded yet"),
            Quorum::Unknown => self.finding(QuorumHealthy, Unknown, Reason::Unreachable, ""),
        }
    }

    fn upgradeable(&self) -> Finding {
        if let Some(what) = self.refused() {
            return self.finding(Upgradeable, False, Reason::Refused, what);
        }
        let busy = self.plan.reason;
        if busy != Reason::Steady && busy.conditions().contains(&(Upgradeable, False)) {
            return self.finding(Upgradeable, False, busy, &self.waits_for());
        }
        match self.quorum {
            Quorum::Unfounded => return self.finding(Upgradeable, False, Reason::Founding, ""),
            Quorum::Unknown => return self.finding(Upgradeable, Unknown, Reason::Unreachable, ""),
            Quorum::Lost => return self.finding(Upgradeable, False, Reason::QuorumLost, &self.missing_voters()),
            Quorum::NoLeader => return self.finding(Upgradeable, False, Reason::NoLeader, ""),
            Quorum::Met => {}
        }
        let in_flight = match self.plan.operation {
            Some(InFlight::Found) => Some(Reason::Founding),
            Some(InFlight::ScaleUp) => Some(Reason::ScalingUp),
            Some(InFlight::ScaleDown(_)) => Some(Reason::ScalingDown),
            Some(InFlight::ReplacePod(_)) => Some(Reason::RollingOut),
            Some(InFlight::ReclaimClaim(_)) | None => None,
        };
        if let Some(reason) = in_flight {
            return self.finding(Upgradeable, False, reason, "");
        }
        let lost = self.lost_disk().map(|pod| (Reason::DiskLost, pod));
        if let Some((reason, pod)) = lost.or(self.any_sick().map(|pod| (Reason::MemberUnhealthy, pod))) {
            return self.finding(Upgradeable, False, reason, &format!("pod {pod} is not a healthy member"));
        }
        let versions: Vec<_> = self.versions().into_iter().collect();
        if versions.len() > 1 {
            let what = format!("members run {}", versions.join(" and "));
            return self.finding(Upgradeable, False, Reason::RollingOut, &what);
        }
        self.finding(Upgradeable, True, Reason::SameVersion, "every member is healthy")
    }

    /// The versions that members run, as far as they are known.
    fn versions(&self) -> BTreeSet<&str> {
        let members = self.seen.membership.iter().flat_map(|membership| &membership.members);
        members.filter_map(|member| member.version.as_deref()).collect()
    }

    /// The voters nobody hears, or as much as is known of them.
    fn missing_voters(&self) -> String {
        let names = &self.wanted.names;
        let answering: BTreeSet<usize> = self.seen.answering_voters().collect();
        let missing: Vec<String> = if let Some(membership) = &self.seen.membership {
            membership.voters().filter(|voter| !voter.healthy()).map(|voter| voter.name.clone()).collect()
        } else {
            self.seen.voters.values().filter(|ordinal| !answering.contains(ordinal)).map(|o| names.pod(*o)).collect()
        };
        format!("too few voters are there; missing: {}", missing.join(", "))
    }

    /// A pod whose node is none of the members, while a member of its name is: its disk is another than before.
    fn lost_disk(&self) -> Option<String> {
        let membership = self.seen.membership.as_ref()?;
        self.seen.pods.iter().find_map(|(ordinal, pod)| {
            let name = self.wanted.names.pod(*ordinal);
            let node = pod.node.as_ref().filter(|node| membership.member(node.id).is_none())?;
            let old = membership.members.iter().any(|member| member.name == name && member.id != node.id);
            old.then_some(name)
        })
    }

    fn any_sick(&self) -> Option<String> {
        let sick = |member: &&SeenMember| !member.healthy();
        self.seen.membership.iter().flat_map(|m| &m.members).find(sick).map(|member| member.name.clone())
    }

    /// A member that is not healthy, and not because the operator is at it right now.
    fn sick_member(&self) -> Option<String> {
        let names = &self.wanted.names;
        let at_work = |member: &SeenMember| match self.plan.operation {
            Some(InFlight::ReplacePod(pod) | InFlight::ScaleDown(pod)) => member.name == names.pod(pod),
            Some(InFlight::ScaleUp) => !member.voter,
            _ => false,
        };
        let mut members = self.seen.membership.iter().flat_map(|membership| &membership.members);
        members.find(|member| !member.healthy() && !at_work(member)).map(|member| member.name.clone())
    }
}
