use std::collections::BTreeSet;
use std::time::Duration;

use quorate_limits::OnUnavailable;

use super::*;
use crate::admission::UnavailableReason;
use crate::doors::http::testing::{admits, exceeded, policy, shadow, verdict};

const SPAN: Duration = Duration::from_millis(1);

fn status() -> ClusterStatus {
    ClusterStatus {
        cluster: None,
        id: 1,
        name: "node-1".to_owned(),
        state: "Leader",
        leader: Some(1),
        term: 3,
        revision: 4,
        last_log: Some(50),
        committed: Some((49, 3)),
        applied: Some(48),
        snapshot: Some((20, 2)),
        quorum_acked_ms: None,
        membership_index: None,
        members: vec![],
        leaving: Vec::new(),
        autopilot: None,
        gossip_peers: 3,
    }
}

fn figures() -> NodeFigures {
    NodeFigures {
        ready: true,
        counters: 12,
        waiting: 3,
        entries_proposed: 40,
        flushes: 50,
        older_disk_frames: 6,
        free: Some(7000),
        short_of_room: false,
        gossip: gossip::Counts { sent: 9, received: 8, foreign: 1, malformed: 0 },
        status: status(),
    }
}

fn text(metrics: &Metrics) -> String {
    String::from_utf8(metrics.text(&figures()).unwrap()).unwrap()
}

fn decisions(metrics: &Metrics) -> Vec<String> {
    let is_counted = |line: &&str| line.starts_with("quorate_decisions_total{") && !line.ends_with(" 0");
    text(metrics).lines().filter(is_counted).map(|line| line.replace("quorate_decisions_total", "")).collect()
}

#[test]
fn decision_is_counted_by_each_limit_and_what_it_said() {
    let metrics = Metrics::new().unwrap();
    let door = metrics.door("http");
    let policies = || vec![policy("p", &[("a", 10, 1000), ("b", 10, 1000)]), shadow("s", &[("c", 1, 1000)])];
    door.count(&verdict(policies(), vec![admits(9, 1), admits(9, 1), admits(0, 1)]), SPAN);
    door.count(&verdict(policies(), vec![admits(8, 1), admits(8, 1), exceeded(0, Some(1))]), SPAN);
    door.count(&verdict(policies(), vec![admits(8, 1), exceeded(0, Some(1)), exceeded(0, Some(1))]), SPAN);
    assert_eq!(
        decisions(&metrics),
        [
            r#"{door="http",limit="a",policy="test/p",verdict="admitted"} 2"#,
            r#"{door="http",limit="b",policy="test/p",verdict="admitted"} 2"#,
            r#"{door="http",limit="b",policy="test/p",verdict="denied"} 1"#,
            r#"{door="http",limit="c",policy="test/s",verdict="admitted"} 1"#,
            r#"{door="http",limit="c",policy="test/s",verdict="shadow_denied"} 2"#,
        ]
    );
    assert!(text(&metrics).contains(r#"quorate_decision_seconds_count{door="http"} 3"#));
}

#[test]
fn request_that_meets_no_policy_or_gets_no_decision_is_counted_too() {
    let metrics = Metrics::new().unwrap();
    let door = metrics.door("http");
    door.count(&verdict(vec![], vec![]), SPAN);
    for on_unavailable in [OnUnavailable::Allow, OnUnavailable::Deny, OnUnavailable::Deny] {
        door.count_unavailable(&Unavailable { reason: UnavailableReason::Deadline, on_unavailable }, SPAN);
    }
    assert_eq!(
        decisions(&metrics),
        [
            r#"{door="http",limit="none",policy="none",verdict="admitted"} 1"#,
            r#"{door="http",limit="none",policy="none",verdict="unavailable"} 3"#,
        ]
    );
    let text = text(&metrics);
    assert!(text.contains(r#"quorate_unavailable_total{answer="allowed",door="http"} 1"#), "{text}");
    assert!(text.contains(r#"quorate_unavailable_total{answer="denied",door="http"} 2"#), "{text}");
}

#[test]
fn policies_and_limits_beyond_the_bounds_are_counted_together() {
    let metrics = Metrics::new().unwrap();
    let door = metrics.door("http");
    let name = |name: String| PolicyName { namespace: "n".to_owned(), name };
    for i in 0..LABELLED_POLICIES_MAX + 5 {
        door.with_counters(&name(format!("p{i}")), "a", |counters| counters.admitted.inc());
    }
    for i in 0..LABELLED_LIMITS_MAX + 3 {
        door.with_counters(&name("p0".to_owned()), &format!("l{i}"), |counters| counters.admitted.inc());
    }
    let decisions = decisions(&metrics);
    assert!(decisions.contains(&r#"{door="http",limit="other",policy="other",verdict="admitted"} 5"#.to_owned()));
    assert!(decisions.contains(&r#"{door="http",limit="other",policy="n/p0",verdict="admitted"} 4"#.to_owned()));
    assert_eq!(decisions.len(), LABELLED_POLICIES_MAX + 1 + (LABELLED_LIMITS_MAX - 1) + 1);
}

#[test]
fn scrape_shows_the_node_as_it_is_now() {
    let metrics = Metrics::new().unwrap();
    // Totals that are counted elsewhere must not add up.
    text(&metrics);
    let text = text(&metrics);
    for line in [
        concat!(r#"quorate_build_info{version=""#, env!("CARGO_PKG_VERSION"), r#""} 1"#),
        "quorate_counters 12",
        "quorate_ready 1",
        "quorate_policy_revision 4",
        "quorate_raft_term 3",
        "quorate_raft_is_leader 1",
        "quorate_raft_has_leader 1",
        "quorate_raft_last_log_index 50",
        "quorate_raft_commit_index 49",
        "quorate_raft_applied_index 48",
        "quorate_raft_snapshot_index 20",
        r#"quorate_raft_members{role="voter"} 0"#,
        "quorate_gossip_peers 3",
        "quorate_admission_waiting 3",
        "quorate_admission_entries_total 40",
        "quorate_storage_flushes_total 50",
        r#"quorate_gossip_packets_total{kind="sent"} 9"#,
        r#"quorate_gossip_packets_total{kind="foreign"} 1"#,
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
}

#[test]
fn every_metric_is_documented() {
    let metrics = Metrics::new().unwrap();
    // Metrics with labels show once their labels are used.
    let _door = metrics.door("http");
    metrics.by_client().count("a");
    let text = text(&metrics);
    let names: BTreeSet<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let is_name = |word: &&str| word.starts_with("quorate_") || word.starts_with("requests_");
    let row = |line: &'static str| line.strip_prefix("| `")?.split(['`', '{']).next().filter(is_name);
    let page = include_str!("../../../docs/operation.md");
    assert_eq!(page.lines().filter_map(row).collect::<BTreeSet<_>>(), names, "docs/operation.md");
}
