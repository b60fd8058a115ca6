//! `status.conditions` of both resources.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::{Schema, SchemaGenerator, json_schema};

use crate::reason::{ConditionStatus, ConditionType, Reason};

/// The most conditions a status holds.
pub const CONDITIONS_MAX: usize = 8;
/// The longest message of a condition, in characters; longer ones are cut.
pub const MESSAGE_CHARS_MAX: usize = 1024;

/// A condition to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is about.
    pub condition: ConditionType,
    /// What it says.
    pub status: ConditionStatus,
    /// Why.
    pub reason: Reason,
    /// Which object, and what to do.
    pub message: String,
}

/// Puts a finding in its place. The time of the last transition stays while the status does, so that an unchanged finding
/// is no change of the object.
///
/// # Panics
/// In debug builds, for a reason that this condition cannot bear.
pub fn set_condition(conditions: &mut Vec<Condition>, finding: &Finding, generation: Option<i64>, now: &Time) {
    debug_assert!(
        finding.reason.conditions().contains(&(finding.condition, finding.status)),
        "{}={:?} cannot be {}",
        finding.condition,
        finding.status,
        finding.reason
    );
    let mut next = Condition {
        type_: finding.condition.as_str().to_owned(),
        status: finding.status.as_str().to_owned(),
        reason: finding.reason.as_str().to_owned(),
        message: finding.message.chars().take(MESSAGE_CHARS_MAX).collect(),
        observed_generation: generation,
        last_transition_time: now.clone(),
    };
    match conditions.iter_mut().find(|condition| condition.type_ == next.type_) {
        Some(current) => {
            if current.status == next.status {
                next.last_transition_time = current.last_transition_time.clone();
            }
            *current = next;
        }
        None => conditions.push(next),
    }
}

/// k8s-openapi's own schema of a condition is without bounds.
pub(crate) fn schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "description": "What is so at present, each with its reason; docs/operations.md lists all.",
        "maxItems": CONDITIONS_MAX,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["lastTransitionTime", "message", "reason", "status", "type"],
            "properties": {
                "type": { "type": "string", "maxLength": 64, "description": "What it is about." },
                "status": { "type": "string", "enum": ["True", "False", "Unknown"], "description": "What it says." },
                "reason": { "type": "string", "maxLength": 64, "description": "Why, in one word." },
                "message": {
                    "type": "string",
                    "maxLength": MESSAGE_CHARS_MAX,
                    "description": "Which object, and what to do."
                },
                "observedGeneration": {
                    "type": "integer",
                    "format": "int64",
                    "description": "The generation of the spec that it is about."
                },
                "lastTransitionTime": {
                    "type": "string",
                    "format": "date-time",
                    "description": "When the status last changed."
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    fn at(second: i64) -> Time {
        Time(Timestamp::from_second(second).unwrap())
    }

    fn finding(status: ConditionStatus, reason: Reason) -> Finding {
        Finding { condition: ConditionType::Ready, status, reason, message: "edge: m".to_owned() }
    }

    #[test]
    fn condition_set_again_keeps_its_time_until_its_status_changes() {
        let mut conditions = Vec::new();
        set_condition(&mut conditions, &finding(ConditionStatus::False, Reason::Founding), Some(1), &at(10));
        set_condition(&mut conditions, &finding(ConditionStatus::False, Reason::NoLeader), Some(1), &at(20));
        assert_eq!((conditions[0].reason.as_str(), &conditions[0].last_transition_time), ("NoLeader", &at(10)));
        let before = conditions.clone();
        set_condition(&mut conditions, &finding(ConditionStatus::False, Reason::NoLeader), Some(1), &at(30));
        assert_eq!(conditions, before, "nothing to write");
        set_condition(&mut conditions, &finding(ConditionStatus::True, Reason::Serving), Some(2), &at(40));
        assert_eq!(conditions.len(), 1);
        assert_eq!((conditions[0].observed_generation, &conditions[0].last_transition_time), (Some(2), &at(40)));
    }

    #[test]
    fn long_message_is_cut_to_its_bound() {
        let mut conditions = Vec::new();
        let long =
            Finding { message: "ä".repeat(2 * MESSAGE_CHARS_MAX), ..finding(ConditionStatus::True, Reason::Serving) };
        set_condition(&mut conditions, &long, None, &at(0));
        assert_eq!(conditions[0].message.chars().count(), MESSAGE_CHARS_MAX);
    }

    #[test]
    #[should_panic(expected = "Ready=True cannot be NoLeader")]
    fn reason_that_the_condition_cannot_bear_is_a_bug() {
        set_condition(&mut Vec::new(), &finding(ConditionStatus::True, Reason::NoLeader), None, &at(0));
    }
}
