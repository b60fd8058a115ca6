//! What is told of a policy: its conditions and the columns of `kubectl get quotapolicies`. Pure.

use std::fmt::Write as _;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use quorate_crds::conditions::{Finding, set_condition};
use quorate_crds::quota_policy::{Algorithm, Enforcement, LimitSpec};
use quorate_crds::{ConditionStatus, ConditionType, QuotaPolicy, QuotaPolicySpec, QuotaPolicyStatus, Reason};

use super::select::{ClusterKey, Refusal};

/// The longest text of the column LIMITS, in characters, without what stands behind it.
const LIMITS_CHARS_MAX: usize = 200;

/// The live members of a cluster: for each the revision of the policies it judges by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members(pub Vec<u64>);

impl Members {
    /// How many judge by this revision or a later one.
    #[must_use]
    pub fn judging_by(&self, revision: u64) -> usize {
        self.0.iter().filter(|applied| **applied >= revision).count()
    }

    /// How many there are.
    #[must_use]
    pub fn live(&self) -> usize {
        self.0.len()
    }
}

/// Where a policy stands with its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing<'a> {
    /// It takes no part.
    Refused {
        /// Why.
        refusal: &'a Refusal,
        /// What it was before is still in force.
        is_kept: bool,
    },
    /// The cluster has not taken it yet.
    NotSent {
        /// Why.
        why: &'a str,
    },
    /// The cluster holds it.
    Held {
        /// Since this revision.
        revision: u64,
        /// Who judges by it; `None` when nobody could be asked.
        members: Option<&'a Members>,
    },
}

/// The status of a policy, and what it says in one word each.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// To be written.
    pub status: QuotaPolicyStatus,
    /// `Accepted` and `Enforced`.
    pub findings: [Finding; 2],
}

/// What to tell of a policy. `current` is what is told so far; `denied` is how many requests its cluster denied by it, when
/// that is known.
#[must_use]
pub fn tell(
    policy: &QuotaPolicy,
    current: Option<&QuotaPolicyStatus>,
    cluster: &ClusterKey,
    standing: &Standing<'_>,
    denied: Option<u64>,
    now: &Time,
) -> Told {
    let findings = findings(&policy.spec, cluster, standing);
    let mut status = QuotaPolicyStatus {
        observed_generation: policy.metadata.generation,
        limits: Some(limits_text(&policy.spec)),
        conditions: current.map(|status| status.conditions.clone()).unwrap_or_default(),
        ..QuotaPolicyStatus::default()
    };
    if let Standing::Held { revision, members } = standing {
        status.revision = i64::try_from(*revision).ok();
        let is_on = policy.spec.enforcement != Enforcement::Disabled;
        status.enforced_on = members.filter(|_| is_on).map(|m| format!("{}/{}", m.judging_by(*revision), m.live()));
        status.denied = denied.map(denied_text);
    }
    for finding in &findings {
        set_condition(&mut status.conditions, finding, policy.metadata.generation, now);
    }
    Told { status, findings }
}

/// What to tell of a policy that cannot be read, for this reason.
#[must_use]
pub fn unreadable(generation: Option<i64>, current: QuotaPolicyStatus, why: &str, now: &Time) -> Told {
    let message = format!(
        "this operator cannot read it: {why}. Mend that, or upgrade the operator if it is older than what was written; what a \
         cluster holds of this policy stays in force"
    );
    let finding = |condition| Finding {
        condition,
        status: ConditionStatus::False,
        reason: Reason::Invalid,
        message: message.clone(),
    };
    let findings = [finding(ConditionType::Accepted), finding(ConditionType::Enforced)];
    let mut status =
        QuotaPolicyStatus { observed_generation: generation, conditions: current.conditions, ..Default::default() };
    for finding in &findings {
        set_condition(&mut status.conditions, finding, generation, now);
    }
    Told { status, findings }
}

/// What to write now; `None` when it is nothing new.
///
/// Members come and go for moments, whenever a pod is replaced. A policy that was in force on all of them is not told anew
/// for that until the members are `settled`: with thousands of policies it would be thousands of writes for each pod.
#[must_use]
pub fn due(
    current: Option<&QuotaPolicyStatus>,
    mut next: QuotaPolicyStatus,
    settled: bool,
) -> Option<QuotaPolicyStatus> {
    let Some(current) = current else { return Some(next) };
    let of = |status: &QuotaPolicyStatus| (status.observed_generation, status.revision);
    let is_enforced = |status: &QuotaPolicyStatus| {
        status.conditions.iter().any(|c| c.type_ == ConditionType::Enforced.as_str() && c.status == "True")
    };
    if !settled && is_enforced(current) && of(current) == of(&next) && next.revision.is_some() {
        next.enforced_on.clone_from(&current.enforced_on);
        next.conditions.clone_from(&current.conditions);
    }
    (next != *current).then_some(next)
}

fn findings(spec: &QuotaPolicySpec, cluster: &ClusterKey, standing: &Standing<'_>) -> [Finding; 2] {
    let accepted = |status, reason, message| Finding { condition: ConditionType::Accepted, status, reason, message };
    let enforced = |status, reason, message| Finding { condition: ConditionType::Enforced, status, reason, message };
    let (yes, no) = (ConditionStatus::True, ConditionStatus::False);
    match standing {
        Standing::Refused { refusal, is_kept } => {
            let kept = if *is_kept { ". What it was before stays in force" } else { "" };
            let message = format!("{}{kept}", refusal.message);
            [accepted(no, refusal.reason, message.clone()), enforced(no, refusal.reason, message)]
        }
        Standing::NotSent { why } => {
            let message = format!("RateLimitCluster {cluster} has not taken it yet: {why}");
            let unknown = ConditionStatus::Unknown;
            [accepted(unknown, Reason::NotSent, message.clone()), enforced(no, Reason::NotSent, message)]
        }
        Standing::Held { revision, members } => {
            let taken = accepted(yes, Reason::Valid, format!("RateLimitCluster {cluster} takes it"));
            let on_all = members.is_some_and(|m| m.live() > 0 && m.judging_by(*revision) == m.live());
            let told = match (spec.enforcement, members) {
                (Enforcement::Disabled, _) => {
                    enforced(no, Reason::Disabled, "spec.enforcement is Disabled, so it takes no part".to_owned())
                }
                (Enforcement::Enforce, _) if on_all => {
                    let message = format!("every live member judges by it since revision {revision}");
                    enforced(yes, Reason::OnEveryMember, message)
                }
                (Enforcement::Shadow, _) if on_all => {
                    let message = format!(
                        "every live member judges by it since revision {revision}; as a shadow, it counts and denies nothing"
                    );
                    enforced(yes, Reason::OnEveryMember, message)
                }
                (_, Some(members)) => {
                    let (judging, live) = (members.judging_by(*revision), members.live());
                    let message = format!("{judging} of {live} live members judge by it since revision {revision}");
                    enforced(no, Reason::Spreading, message)
                }
                (_, None) => {
                    let message = format!("RateLimitCluster {cluster} holds it, and no pod says who judges by it");
                    enforced(no, Reason::Spreading, message)
                }
            };
            [taken, told]
        }
    }
}

/// The limits in short, as they are written: `100/1m, 10/1s burst 20 (2 overrides, shadow)`.
fn limits_text(spec: &QuotaPolicySpec) -> String {
    let mut text = String::new();
    for (i, limit) in spec.limits.iter().enumerate() {
        let next = limit_text(limit);
        if text.len() + next.len() > LIMITS_CHARS_MAX {
            let _ = write!(text, ", {} more", spec.limits.len() - i);
            break;
        }
        let _ = write!(text, "{}{next}", if i == 0 { "" } else { ", " });
    }
    let mut notes = Vec::new();
    match spec.overrides.len() {
        0 => {}
        1 => notes.push("1 override".to_owned()),
        count => notes.push(format!("{count} overrides")),
    }
    match spec.enforcement {
        Enforcement::Enforce => {}
        Enforcement::Shadow => notes.push("shadow".to_owned()),
        Enforcement::Disabled => notes.push("disabled".to_owned()),
    }
    if !notes.is_empty() {
        let _ = write!(text, " ({})", notes.join(", "));
    }
    text
}

fn limit_text(limit: &LimitSpec) -> String {
    match limit.burst {
        Some(burst) if limit.algorithm == Algorithm::TokenBucket && burst != limit.limit => {
            format!("{}/{} burst {burst}", limit.limit, limit.window)
        }
        _ => format!("{}/{}", limit.limit, limit.window),
    }
}

/// A number of requests, rounded down to 1, 2 or 5 of its size: a policy that denies all the time is written ever more
/// seldom.
fn denied_text(denied: u64) -> String {
    if denied == 0 {
        return "0".to_owned();
    }
    let size = 10_u64.pow(denied.ilog10());
    let step = match denied / size {
        5.. => 5 * size,
        2..5 => 2 * size,
        _ => size,
    };
    let (figure, unit) = match step {
        1_000_000_000.. => (step / 1_000_000_000, "G"),
        1_000_000.. => (step / 1_000_000, "M"),
        1_000.. => (step / 1_000, "k"),
        _ => (step, ""),
    };
    format!("{figure}{unit}+")
}

#[cfg(test)]
mod tests;
