//! The status of a `RateLimitCluster`, made of one look and the plan for it. Pure; what is as it was stays as it was, to
//! the byte, so that only changes are written.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use quorate_crds::api::{ClusterAnswer, MemberAnswer, Role};
use quorate_crds::cluster_status::{
    MEMBERS_MAX, MemberStatus, Operation, OperationKind, RateLimitClusterStatus, VersionStatus, Voters,
};
use quorate_crds::conditions::{Finding, set_condition};
use quorate_crds::{ConditionType, Reason};

use super::findings;
use super::observe::Look;
use super::observed::{LAG_MAX, Observed};
use super::plan::{InFlight, Plan};
use super::validate::{Wanted, voters_of};

/// The longest texts that the schema admits in an operation and in a next step, in characters.
const TEXT_CHARS_MAX: usize = 256;

/// What is to be written, and what is to be told.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// The status.
    pub status: RateLimitClusterStatus,
    /// Its conditions, for the Events.
    pub findings: Vec<Finding>,
}

/// The status after this look.
#[must_use]
pub fn status(
    before: &RateLimitClusterStatus,
    generation: Option<i64>,
    wanted: &Wanted,
    look: &Look,
    seen: &Observed,
    plan: &Plan,
    now: &Time,
) -> Told {
    let operation = plan.operation.map(|in_flight| operation(before, wanted, plan, in_flight, now));
    let deadline = std::time::Duration::from_nanos(wanted.spec.rollout.progress_deadline.as_nanos());
    let stalled = operation.as_ref().is_some_and(|operation| {
        !wanted.spec.paused
            && now.0.duration_since(operation.started_at.0).unsigned_abs() > deadline
            && now.0 > operation.started_at.0
    });
    let findings = findings::findings(wanted, seen, plan, stalled);
    let mut conditions = before.conditions.clone();
    for finding in &findings {
        set_condition(&mut conditions, finding, generation, now);
    }
    let source =
        look.leader().or_else(|| look.answers.iter().map(|(_, answer)| answer).max_by_key(|answer| answer.term));
    let members = source.map_or_else(|| before.members.clone(), members);
    let leader = look.leader().and_then(|leader| {
        leader.members.iter().find(|member| member.id == leader.node).map(|member| member.name.clone())
    });
    let voters = voters(wanted, seen);
    let selector: Vec<_> = wanted.names.selector().into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    let status = RateLimitClusterStatus {
        observed_generation: generation,
        cluster_id: seen.cluster_id().map(ToOwned::to_owned).or_else(|| before.cluster_id.clone()),
        ready: Some(format!("{}/{}", voters.healthy, voters.desired)),
        replicas: number(seen.pods.len()),
        ready_replicas: number(seen.pods.values().filter(|pod| pod.ready && !pod.terminating).count()),
        selector: Some(selector.join(",")),
        voters: Some(voters),
        leader,
        term: look.leader().map(|leader| i64::try_from(leader.term).unwrap_or(i64::MAX)),
        version: Some(VersionStatus { running: lowest(&members), target: wanted.spec.version.clone() }),
        members,
        // Whoever brings the policies about tells of them.
        policies: None,
        operation,
        next_steps: plan.next_steps.iter().map(|step| cut(step)).collect(),
        conditions,
    };
    Told { status, findings }
}

/// The status after a look that came to nothing: as it was, with the conditions that say why.
#[must_use]
pub fn blind(before: &RateLimitClusterStatus, generation: Option<i64>, findings: Vec<Finding>, now: &Time) -> Told {
    let mut status = RateLimitClusterStatus { observed_generation: generation, policies: None, ..before.clone() };
    for finding in &findings {
        set_condition(&mut status.conditions, finding, generation, now);
    }
    Told { status, findings }
}

fn operation(
    before: &RateLimitClusterStatus,
    wanted: &Wanted,
    plan: &Plan,
    in_flight: InFlight,
    now: &Time,
) -> Operation {
    let pod = |ordinal| Some(wanted.names.pod(ordinal));
    let (kind, pod, replicas) = match in_flight {
        InFlight::Found => (OperationKind::Found, None, None),
        InFlight::ScaleUp => (OperationKind::ScaleUp, None, plan.pods.map(number)),
        InFlight::ScaleDown(ordinal) => (OperationKind::ScaleDown, pod(ordinal), Some(number(ordinal))),
        InFlight::ReplacePod(ordinal) => (OperationKind::ReplacePod, pod(ordinal), None),
        InFlight::ReclaimClaim(ordinal) => (OperationKind::ReclaimClaim, pod(ordinal), None),
    };
    let begun = before.operation.as_ref().filter(|before| before.kind == kind && before.pod == pod);
    let replicas = replicas.or_else(|| begun.and_then(|begun| begun.replicas));
    // Time that it was paused for is not time that it took.
    let goes_on_only_now = plan.reason != Reason::Paused && was_paused(before);
    let started_at = begun.filter(|_| !goes_on_only_now).map_or_else(|| now.clone(), |begun| begun.started_at.clone());
    let waits_for = Some(cut(&plan.waits_for)).filter(|what| !what.is_empty());
    Operation { kind, pod, replicas, started_at, waits_for }
}

fn was_paused(before: &RateLimitClusterStatus) -> bool {
    let (progressing, paused) = (ConditionType::Progressing.as_str(), Reason::Paused.as_str());
    before.conditions.iter().any(|condition| condition.type_ == progressing && condition.reason == paused)
}

/// As the leader counts them; without one, those that answer.
fn voters(wanted: &Wanted, seen: &Observed) -> Voters {
    let desired = number(voters_of(wanted.replicas));
    if let Some(membership) = &seen.membership {
        let healthy = number(findings::healthy_voters(membership));
        return Voters { desired, current: number(membership.voters().count()), healthy };
    }
    let healthy = number(seen.answering_voters().count());
    Voters { desired, current: number(seen.voters.len()), healthy }
}

fn members(answer: &ClusterAnswer) -> Vec<MemberStatus> {
    let mut members: Vec<_> = answer.members.iter().take(MEMBERS_MAX).map(member).collect();
    members.sort_by(|a, b| (&a.pod, a.id).cmp(&(&b.pod, b.id)));
    members
}

fn member(member: &MemberAnswer) -> MemberStatus {
    MemberStatus {
        id: member.id,
        pod: member.name.clone(),
        role: match member.role {
            Role::Voter => Role::Voter,
            Role::Learner => Role::Learner,
        },
        reachable: member.reachable,
        // Under load it is never quite the same.
        lag: member.lag.map(|lag| i64::try_from(lag / LAG_MAX * LAG_MAX).unwrap_or(i64::MAX)),
        version: member.version.clone(),
    }
}

/// The lowest version, by its numbers.
fn lowest(members: &[MemberStatus]) -> Option<String> {
    let numbers = |version: &str| -> Vec<u64> {
        let release = version.split(['-', '+']).next().unwrap_or_default();
        release.split('.').map(|part| part.parse().unwrap_or(0)).collect()
    };
    let versions = members.iter().filter_map(|member| member.version.as_deref());
    versions.min_by_key(|version| (numbers(version), (*version).to_owned())).map(ToOwned::to_owned)
}

fn cut(text: &str) -> String {
    text.chars().take(TEXT_CHARS_MAX).collect()
}

fn number(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests;
