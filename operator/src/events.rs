//! Events: what `kubectl describe` shows below an object. Their reasons are those of the conditions.

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use quorate_crds::conditions::Finding;
use quorate_crds::{ConditionStatus, ConditionType, Reason};

use crate::error::is_end_of_namespace;

/// What reports them, as `kubectl describe` shows it.
const CONTROLLER: &str = "quorate-operator";
/// An API server refuses longer ones.
const NOTE_BYTES_MAX: usize = 1000;

/// Publishes events. One that cannot be published is logged and forgotten: nothing depends on it.
#[derive(Clone)]
pub struct Events {
    recorder: Recorder,
}

impl Events {
    /// Publishes as this instance of the operator.
    #[must_use]
    pub fn new(client: Client, instance: String) -> Self {
        let reporter = Reporter { controller: CONTROLLER.to_owned(), instance: Some(instance) };
        Self { recorder: Recorder::new(client, reporter) }
    }

    /// Tells of every finding that is new, or now has another status or reason, compared with the conditions before.
    pub async fn tell(&self, about: &ObjectReference, before: &[Condition], findings: &[Finding]) {
        for finding in findings.iter().filter(|finding| is_news(before, finding)) {
            self.publish(about, finding).await;
        }
    }

    async fn publish(&self, about: &ObjectReference, finding: &Finding) {
        let event = Event {
            type_: if is_trouble(finding) { EventType::Warning } else { EventType::Normal },
            reason: finding.reason.as_str().to_owned(),
            note: Some(note(&finding.message, finding.reason)),
            action: finding.condition.as_str().to_owned(),
            secondary: None,
        };
        match self.recorder.publish(&event, about).await {
            Err(error) if !is_end_of_namespace(&error) => {
                tracing::warn!(reason = %finding.reason, "an Event could not be published: {error}");
            }
            _ => {}
        }
    }
}

/// Whether it says something that was not said before. That all is well from the start is no news.
fn is_news(before: &[Condition], finding: &Finding) -> bool {
    match before.iter().find(|condition| condition.type_ == finding.condition.as_str()) {
        Some(before) => before.status != finding.status.as_str() || before.reason != finding.reason.as_str(),
        None => is_trouble(finding) || finding.status == ConditionStatus::True,
    }
}

/// Whether a person may have to do something.
fn is_trouble(finding: &Finding) -> bool {
    match finding.condition {
        ConditionType::Degraded => finding.status != ConditionStatus::False,
        ConditionType::Ready | ConditionType::QuorumHealthy => {
            finding.status != ConditionStatus::True
                && !matches!(finding.reason, Reason::Founding | Reason::Deleting | Reason::WaitingForPods)
        }
        ConditionType::Accepted => finding.status != ConditionStatus::True,
        ConditionType::Progressing | ConditionType::Upgradeable | ConditionType::Enforced => false,
    }
}

fn note(message: &str, reason: Reason) -> String {
    let text = if message.is_empty() { reason.meaning() } else { message };
    let mut end = text.len().min(NOTE_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;
    use quorate_crds::conditions::set_condition;

    use super::*;

    fn finding(condition: ConditionType, status: ConditionStatus, reason: Reason) -> Finding {
        Finding { condition, status, reason, message: String::new() }
    }

    #[test]
    fn finding_that_was_told_before_is_no_news_until_its_status_or_reason_changes() {
        let ready = finding(ConditionType::Ready, ConditionStatus::True, Reason::Serving);
        let mut before = Vec::new();
        assert!(is_news(&before, &ready));
        set_condition(&mut before, &ready, None, &Time(Timestamp::UNIX_EPOCH));
        assert!(!is_news(&before, &ready));
        assert!(is_news(&before, &finding(ConditionType::Ready, ConditionStatus::False, Reason::NoLeader)));
    }

    #[test]
    fn that_all_is_well_from_the_start_is_no_news() {
        assert!(!is_news(&[], &finding(ConditionType::Degraded, ConditionStatus::False, Reason::AsWanted)));
        assert!(is_news(&[], &finding(ConditionType::Degraded, ConditionStatus::True, Reason::InvalidSpec)));
    }

    #[test]
    fn long_note_is_cut_to_what_an_api_server_takes() {
        assert_eq!(note(&"ä".repeat(2000), Reason::Serving).len(), NOTE_BYTES_MAX);
        assert_eq!(note("", Reason::Serving), Reason::Serving.meaning());
    }
}
