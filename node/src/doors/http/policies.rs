//! `GET /v1/policies`: the policies that this node has applied.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{Response, StatusCode};
use quorate_crds::QuotaPolicy;
use quorate_crds::api::{PolicyList, PolicyView, policy_ref};
use quorate_limits::{Owner, Policy, PolicyName};

use super::{Doors, answer};

/// `GET /v1/policies`, in the order of their names.
pub(super) async fn list(State(doors): State<Arc<Doors>>) -> Response<Body> {
    let rules = doors.node.rules();
    let mut policies: Vec<_> = rules.policies().collect();
    policies.sort_by(|(_, _, _, a), (_, _, _, b)| a.name.cmp(&b.name));
    let policies = policies.into_iter().map(|(_, owner, revision, policy)| view(owner, revision, policy)).collect();
    answer::json(StatusCode::OK, &PolicyList { revision: rules.revision(), policies })
}

/// `GET /v1/policies/{ns}/{name}`.
pub(super) async fn get(
    State(doors): State<Arc<Doors>>,
    Path((namespace, name)): Path<(String, String)>,
) -> Response<Body> {
    let name = PolicyName { namespace, name };
    if let Some((_, owner, revision, policy)) = doors.node.rules().find(&name) {
        return answer::json(StatusCode::OK, &view(owner, revision, policy));
    }
    let text = format!("there is no policy {}; GET /v1/policies lists all", policy_ref(&name));
    answer::error(StatusCode::NOT_FOUND, text)
}

/// `GET /v1/denied`: how many requests each policy denied on this node since its start.
pub(super) async fn denied(State(doors): State<Arc<Doors>>) -> Response<Body> {
    answer::json(StatusCode::OK, &doors.metrics.denied())
}

fn view(owner: Owner, revision: u64, policy: &Policy) -> PolicyView {
    PolicyView { policy: QuotaPolicy::from(policy), revision, owner: owner.into() }
}
