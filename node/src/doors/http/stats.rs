//! `GET /raft/stats`: Raft's figures by the names that hashicorp/raft gave them, all of them texts.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Response, StatusCode};
use quorate_crds::api::HexId;
use serde_json::json;

use super::{Doors, answer};
use crate::node::ClusterStatus;

/// `GET /raft/stats`.
pub(super) async fn stats(State(doors): State<Arc<Doors>>) -> Response<Body> {
    answer::json(StatusCode::OK, &json!({ "result": true, "stats": worded(&doors.node.status()) }))
}

fn worded(status: &ClusterStatus) -> BTreeMap<&'static str, String> {
    let number = |value: Option<u64>| value.unwrap_or(0).to_string();
    let committed = status.committed.map(|(index, _)| index);
    let pending = committed.unwrap_or(0).saturating_sub(status.applied.unwrap_or(0));
    let other_voters = status.members.iter().filter(|member| member.voter && member.id != status.id).count();
    BTreeMap::from([
        ("state", status.state.to_owned()),
        ("term", status.term.to_string()),
        ("last_log_index", number(status.last_log)),
        ("last_log_term", last_log_term(status).to_string()),
        ("commit_index", number(committed)),
        ("applied_index", number(status.applied)),
        ("fsm_pending", pending.to_string()),
        ("last_snapshot_index", number(status.snapshot.map(|(index, _)| index))),
        ("last_snapshot_term", number(status.snapshot.map(|(_, term)| term))),
        ("latest_configuration", configuration(status)),
        ("latest_configuration_index", number(status.membership_index)),
        ("last_contact", last_contact(status)),
        ("num_peers", other_voters.to_string()),
        ("protocol_version", "1".to_owned()),
        ("snapshot_version_min", "1".to_owned()),
        ("snapshot_version_max", "1".to_owned()),
    ])
}

/// The term of the last committed entry when nothing lies behind it; entries behind it are of the current term.
fn last_log_term(status: &ClusterStatus) -> u64 {
    match (status.committed, status.last_log) {
        (_, None) => 0,
        (Some((index, term)), Some(last)) if last <= index => term,
        _ => status.term,
    }
}

/// Since this node heard of its leader, as far as it keeps that.
fn last_contact(status: &ClusterStatus) -> String {
    match status.leader {
        Some(leader) if leader == status.id => "0".to_owned(),
        Some(_) => "unknown".to_owned(),
        None => "never".to_owned(),
    }
}

/// `[{Suffrage:Voter ID:… Address:…} …]`; the address is the member's name.
fn configuration(status: &ClusterStatus) -> String {
    let mut text = String::from("[");
    for (i, member) in status.members.iter().enumerate() {
        let separator = if i == 0 { "" } else { " " };
        let suffrage = if member.voter { "Voter" } else { "Nonvoter" };
        let _ = write!(text, "{separator}{{Suffrage:{suffrage} ID:{} Address:{}}}", HexId(member.id), member.name);
    }
    text.push(']');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::MemberStatus;

    fn member(id: u64, voter: bool) -> MemberStatus {
        MemberStatus {
            id,
            name: format!("node-{id}"),
            voter,
            lag: None,
            applied_revision: None,
            version: None,
            feature_level: None,
            reachable: true,
        }
    }

    fn status() -> ClusterStatus {
        ClusterStatus {
            cluster: None,
            id: 2,
            name: "node-2".to_owned(),
            state: "Follower",
            leader: Some(1),
            term: 3,
            revision: 4,
            last_log: Some(50),
            committed: Some((49, 2)),
            applied: Some(47),
            snapshot: Some((20, 2)),
            quorum_acked_ms: None,
            membership_index: Some(1),
            members: vec![member(1, true), member(2, true), member(3, true), member(4, false)],
            leaving: Vec::new(),
            autopilot: None,
            gossip_peers: 4,
        }
    }

    #[test]
    fn follower_tells_every_key_as_a_text() {
        let configuration = "[{Suffrage:Voter ID:0000000000000001 Address:node-1} \
                             {Suffrage:Voter ID:0000000000000002 Address:node-2} \
                             {Suffrage:Voter ID:0000000000000003 Address:node-3} \
                             {Suffrage:Nonvoter ID:0000000000000004 Address:node-4}]";
        let expected = [
            ("applied_index", "47"),
            ("commit_index", "49"),
            ("fsm_pending", "2"),
            ("last_contact", "unknown"),
            ("last_log_index", "50"),
            ("last_log_term", "3"),
            ("last_snapshot_index", "20"),
            ("last_snapshot_term", "2"),
            ("latest_configuration", configuration),
            ("latest_configuration_index", "1"),
            ("num_peers", "2"),
            ("protocol_version", "1"),
            ("snapshot_version_max", "1"),
            ("snapshot_version_min", "1"),
            ("state", "Follower"),
            ("term", "3"),
        ];
        assert_eq!(worded(&status()), expected.map(|(key, value)| (key, value.to_owned())).into());
    }

    #[test]
    fn last_contact_is_never_without_a_leader_and_0_on_the_leader() {
        let unheard = ClusterStatus { leader: None, ..status() };
        assert_eq!(worded(&unheard)["last_contact"], "never");
        let leader = ClusterStatus { leader: Some(2), state: "Leader", ..status() };
        assert_eq!(worded(&leader)["last_contact"], "0");
    }

    #[test]
    fn last_log_term_is_that_of_the_last_entry() {
        let all_committed = ClusterStatus { committed: Some((50, 2)), ..status() };
        assert_eq!(worded(&all_committed)["last_log_term"], "2");
        let empty = ClusterStatus { committed: None, last_log: None, ..status() };
        assert_eq!(worded(&empty)["last_log_term"], "0");
    }
}
