//! `GET /v1/cluster`: the members as this node sees them.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Response, StatusCode};
use quorate_crds::api::{
    AutopilotAnswer, ClusterAnswer, HexId, IntentAction, IntentAnswer, MemberAnswer, Role, WaitAnswer,
};

use super::{Doors, answer};
use crate::node::ClusterStatus;

/// `GET /v1/cluster`. A node that has not joined yet has an empty cluster id and no members.
pub(super) async fn cluster(State(doors): State<Arc<Doors>>) -> Response<Body> {
    answer::json(StatusCode::OK, &worded(doors.node.survey().await))
}

fn worded(status: ClusterStatus) -> ClusterAnswer {
    let members = status.members.into_iter().map(|member| MemberAnswer {
        name: member.name,
        id: HexId(member.id),
        role: if member.voter { Role::Voter } else { Role::Learner },
        lag: member.lag,
        applied_revision: member.applied_revision,
        version: member.version,
        reachable: member.reachable,
    });
    ClusterAnswer {
        cluster_id: status.cluster.map(|id| id.to_string()).unwrap_or_default(),
        node: HexId(status.id),
        leader: status.leader.map(HexId),
        term: status.term,
        revision: status.revision,
        members: members.collect(),
        intents: status
            .leaving
            .into_iter()
            .map(|id| IntentAnswer { action: IntentAction::Decommission, member: HexId(id) })
            .collect(),
        autopilot: status.autopilot.map(|report| AutopilotAnswer {
            operation: report.operation,
            waits: report.waits.into_iter().map(|(reason, message)| WaitAnswer { reason, message }).collect(),
        }),
    }
}
