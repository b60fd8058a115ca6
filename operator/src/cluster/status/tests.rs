use std::collections::BTreeMap;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use quorate_crds::{ConditionStatus, ConditionType, RateLimitCluster, Reason};
use serde_json::{Value, json};

use ConditionType::{Degraded, Progressing, QuorumHealthy, Ready, Upgradeable};

use super::*;
use crate::cluster::build::template_name;
use crate::cluster::plan::plan;
use crate::cluster::validate::validate;

/// A cluster of three as it is looked at, to be broken.
struct Seen {
    wanted: Wanted,
    look: Look,
    before: RateLimitClusterStatus,
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn at(second: i64) -> Time {
    Time(Timestamp::from_second(second).unwrap())
}

impl Seen {
    /// [`running`](Self::running), while the last pod is made anew.
    fn replacing() -> Self {
        let mut seen = Self::running();
        seen.look.pods[2].metadata.deletion_timestamp = Some(at(0));
        seen.before.operation = Some(Operation {
            kind: OperationKind::ReplacePod,
            pod: Some("edge-2".to_owned()),
            replicas: None,
            started_at: at(0),
            waits_for: None,
        });
        seen
    }

    fn running() -> Self {
        let cluster: RateLimitCluster = read(json!({
            "apiVersion": "quorate.dev/v1alpha1", "kind": "RateLimitCluster",
            "metadata": {"name": "edge", "namespace": "shop", "uid": "u"}, "spec": {"version": "0.1.0"},
        }));
        let wanted = validate(&cluster).unwrap();
        let template = template_name(&wanted);
        let pod = |ordinal: usize| {
            read(json!({
                "metadata": {
                    "name": format!("edge-{ordinal}"), "uid": format!("p{ordinal}"),
                    "annotations": {"quorate.dev/template": template},
                },
                "status": {"conditions": [{"type": "Ready", "status": "True"}]},
            }))
        };
        let claim = |ordinal: usize| {
            read(json!({"metadata": {
                "name": format!("data-edge-{ordinal}"), "uid": format!("c{ordinal}"),
                "annotations": {"quorate.dev/cluster-id": "c1"},
            }}))
        };
        let set: BTreeMap<&str, Value> = [
            ("metadata", json!({"name": "edge"})),
            (
                "spec",
                json!({
                    "replicas": 3, "selector": {}, "serviceName": "edge-peers", "template": {}
                }),
            ),
        ]
        .into();
        let look = Look {
            stateful_set: Some(read(json!(set))),
            pods: (0..3).map(pod).collect(),
            claims: (0..3).map(claim).collect(),
            founding: Some(read(json!({"data": {"adopted": "c1"}}))),
            objects: Vec::new(),
            in_the_way: None,
            answers: (0..3).map(|ordinal| (format!("edge-{ordinal}"), answer(ordinal))).collect(),
        };
        Self { wanted, look, before: RateLimitClusterStatus::default() }
    }

    fn leader(&mut self) -> &mut ClusterAnswer {
        &mut self.look.answers[1].1
    }

    /// No node knows a leader, and these do not answer.
    fn leaderless(mut self, silent: &[usize]) -> Self {
        self.look.answers.retain(|(pod, _)| silent.iter().all(|ordinal| *pod != format!("edge-{ordinal}")));
        for (_, answer) in &mut self.look.answers {
            answer.leader = None;
        }
        self
    }

    fn told_at(&self, second: i64) -> Told {
        let seen = self.look.observed(&self.wanted, &self.before);
        let plan = plan(&self.wanted, &template_name(&self.wanted), &seen);
        status(&self.before, Some(1), &self.wanted, &self.look, &seen, &plan, &at(second))
    }

    fn says(&self) -> Vec<(ConditionType, ConditionStatus, Reason)> {
        self.told_at(0).findings.iter().map(|f| (f.condition, f.status, f.reason)).collect()
    }
}

/// The answer of a node of the cluster that the second leads.
fn answer(ordinal: usize) -> ClusterAnswer {
    let member = |ordinal: usize| {
        json!({
            "name": format!("edge-{ordinal}"), "id": format!("{ordinal}"), "role": "Voter", "lag": 12,
            "appliedRevision": 1, "version": "0.1.0", "reachable": true,
        })
    };
    read(json!({
        "clusterId": "c1", "node": format!("{ordinal}"), "leader": "1", "term": 4, "revision": 1,
        "members": (0..3).map(member).collect::<Vec<_>>(), "intents": [], "autopilot": null,
    }))
}

#[test]
fn running_cluster_is_told_as_it_is() {
    let told = Seen::running().told_at(0);
    let status = told.status;
    assert_eq!(
        (status.ready.as_deref(), status.leader.as_deref(), status.term),
        (Some("3/3"), Some("edge-1"), Some(4))
    );
    assert_eq!((status.replicas, status.ready_replicas), (3, 3));
    assert_eq!(status.voters, Some(Voters { desired: 3, current: 3, healthy: 3 }));
    assert_eq!(status.version.unwrap().running.as_deref(), Some("0.1.0"));
    assert_eq!(
        status.members.iter().map(|m| (m.pod.as_str(), m.lag)).collect::<Vec<_>>(),
        [("edge-0", Some(0)), ("edge-1", Some(0)), ("edge-2", Some(0))]
    );
    assert_eq!(
        Seen::running().says(),
        [
            (Ready, ConditionStatus::True, Reason::Serving),
            (Progressing, ConditionStatus::False, Reason::Steady),
            (Degraded, ConditionStatus::False, Reason::AsWanted),
            (QuorumHealthy, ConditionStatus::True, Reason::QuorumMet),
            (Upgradeable, ConditionStatus::True, Reason::SameVersion),
        ]
    );
}

#[test]
fn second_look_at_the_same_cluster_writes_nothing() {
    let mut seen = Seen::running();
    seen.before = seen.told_at(0).status;
    seen.leader().members[0].lag = Some(999);
    assert_eq!(seen.told_at(60).status, seen.before, "neither the time nor a lag that is none");
    seen.leader().members[0].lag = Some(1001);
    assert_eq!(seen.told_at(60).status.members[0].lag, Some(1000));
}

#[test]
fn unreachable_member_degrades_and_leaves_it_ready() {
    let mut seen = Seen::running();
    seen.leader().members[2].reachable = false;
    let told = seen.told_at(0);
    assert_eq!(told.status.ready.as_deref(), Some("2/3"));
    assert!(seen.says().contains(&(Degraded, ConditionStatus::True, Reason::MemberUnhealthy)));
    assert!(seen.says().contains(&(Ready, ConditionStatus::True, Reason::Serving)));
    let degraded = told.findings.iter().find(|f| f.condition == Degraded).unwrap();
    assert!(degraded.message.contains("edge-2"), "{}", degraded.message);
}

#[test]
fn member_that_is_being_replaced_does_not_degrade() {
    let mut seen = Seen::replacing();
    seen.leader().members[2].reachable = false;
    assert!(seen.says().contains(&(Degraded, ConditionStatus::False, Reason::AsWanted)));
    let told = seen.told_at(601);
    assert!(told.findings.iter().any(|finding| finding.reason == Reason::RolloutStalled), "after its deadline it does");
    assert_eq!(told.status.operation.unwrap().started_at, at(0), "the same operation began when it began");
}

#[test]
fn operation_that_was_paused_stalls_neither_then_nor_when_it_goes_on() {
    let mut seen = Seen::replacing();
    let stalls = |told: &Told| told.findings.iter().any(|finding| finding.reason == Reason::RolloutStalled);
    seen.wanted.spec.paused = true;
    let told = seen.told_at(5000);
    assert!(!stalls(&told));
    assert_eq!(told.status.operation.as_ref().unwrap().started_at, at(0));
    seen.before = told.status;
    seen.wanted.spec.paused = false;
    let told = seen.told_at(6000);
    assert!(!stalls(&told));
    assert_eq!(told.status.operation.as_ref().unwrap().started_at, at(6000));
    seen.before = told.status;
    assert_eq!(seen.told_at(6300).status.operation.unwrap().started_at, at(6000));
    assert!(stalls(&seen.told_at(6601)));
}

#[test]
fn members_of_several_versions_are_not_called_the_same() {
    let mut seen = Seen::running();
    seen.leader().members[2].version = Some("0.2.0".to_owned());
    assert!(seen.says().contains(&(Upgradeable, ConditionStatus::False, Reason::RollingOut)));
    seen.leader().members[2].version = None;
    assert!(seen.says().contains(&(Upgradeable, ConditionStatus::True, Reason::SameVersion)), "one does not say");
}

#[test]
fn adopted_cluster_without_its_data_is_not_called_founding() {
    let mut seen = Seen::running();
    for (_, answer) in &mut seen.look.answers {
        (answer.leader, answer.cluster_id) = (None, String::new());
        answer.members.clear();
    }
    for claim in &mut seen.look.claims {
        claim.metadata.annotations = None;
    }
    let says = seen.says();
    for (condition, status) in
        [(Ready, ConditionStatus::False), (Degraded, ConditionStatus::True), (QuorumHealthy, ConditionStatus::False)]
    {
        assert!(says.contains(&(condition, status, Reason::FounderLost)), "{says:?}");
    }
}

#[test]
fn no_leader_with_a_majority_answering_is_told_from_a_lost_quorum() {
    let electing = Seen::running().leaderless(&[1]);
    assert!(electing.says().contains(&(Ready, ConditionStatus::False, Reason::NoLeader)));
    assert_eq!(electing.told_at(0).status.leader, None);
    let lost = Seen::running().leaderless(&[1, 2]);
    assert!(lost.says().contains(&(QuorumHealthy, ConditionStatus::False, Reason::QuorumLost)));
    let told = lost.told_at(0);
    assert!(told.findings.iter().any(|finding| finding.message.contains("missing: edge-1, edge-2")), "{told:?}");
}

#[test]
fn ready_pods_that_do_not_answer_the_operator_are_not_called_down() {
    let mut seen = Seen::running().leaderless(&[0, 1, 2]);
    seen.before = Seen::running().told_at(0).status;
    assert!(seen.says().contains(&(Ready, ConditionStatus::Unknown, Reason::Unreachable)));
    assert_eq!(seen.told_at(0).status.members, seen.before.members, "what was known stays");
}

#[test]
fn pod_with_an_empty_disk_under_a_members_name_is_a_lost_disk() {
    let mut seen = Seen::running();
    let stranger = &mut seen.look.answers[2].1;
    (stranger.node.0, stranger.cluster_id, stranger.leader) = (77, String::new(), None);
    stranger.members.clear();
    seen.leader().members[2].reachable = false;
    assert!(seen.says().contains(&(Degraded, ConditionStatus::True, Reason::DiskLost)));
    assert!(seen.says().contains(&(Upgradeable, ConditionStatus::False, Reason::DiskLost)));
}

#[test]
fn cluster_with_nothing_there_yet_is_being_founded() {
    let mut seen = Seen::running();
    seen.look = Look::default();
    let told = seen.told_at(5);
    assert!(seen.says().contains(&(Ready, ConditionStatus::False, Reason::Founding)));
    let operation = told.status.operation.unwrap();
    assert_eq!((operation.kind, operation.started_at), (OperationKind::Found, at(5)));
    assert_eq!(told.status.ready.as_deref(), Some("0/3"));
}

#[test]
fn spec_that_cannot_be_read_leaves_the_rest_of_the_status() {
    let before = Seen::running().told_at(0).status;
    let errors = [quorate_crds::FieldError::new("spec.replicas", "4 is not odd")];
    let told = blind(&before, Some(2), findings::invalid(&errors), &at(1));
    assert_eq!((told.status.leader, told.status.observed_generation), (before.leader, Some(2)));
    assert!(told.findings.iter().all(|finding| finding.message.contains("spec.replicas")));
    assert_eq!(told.status.conditions.len(), 5);
}

#[test]
fn lowest_version_goes_by_numbers() {
    let mut members = Seen::running().told_at(0).status.members;
    for (member, version) in members.iter_mut().zip(["0.10.0", "0.9.1", "1.0.0-rc1"]) {
        member.version = Some(version.to_owned());
    }
    assert_eq!(lowest(&members).as_deref(), Some("0.9.1"));
}

#[test]
fn clock_that_was_put_back_stalls_nothing() {
    let mut seen = Seen::running();
    seen.look = Look::default();
    seen.before = seen.told_at(100_000).status;
    assert!(
        seen.told_at(100_000 - SignedDuration::from_hours(5).as_secs())
            .findings
            .iter()
            .all(|f| f.reason != Reason::RolloutStalled)
    );
}
