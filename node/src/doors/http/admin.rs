//! The admin port: changes of policies and members.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, Response, StatusCode};
use quorate_crds::api::{
    BootstrapAnswer, BootstrapBody, DecommissionAnswer, DecommissionState, HexId, OwnerName, PolicyChanged,
    TransferAnswer, TransferBody, policy_ref,
};
use quorate_crds::{ParsedSet, parse_policy, parse_policy_set};
use quorate_limits::{Leaving, Owner, PolicyChange, PolicyConflict, PolicyName, PolicyOutcome};

use super::{CHANGE_DEADLINE, Doors, answer};
use crate::admission::UnavailableReason;
use crate::config::NODES_MAX;

/// `PUT /v1/policies/{ns}/{name}`: creates or replaces one policy of owner `api`.
pub(super) async fn put_policy(
    State(doors): State<Arc<Doors>>,
    Path((namespace, name)): Path<(String, String)>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response<Body> {
    let body = match answer::whole(body) {
        Ok(body) => body,
        Err(response) => return *response,
    };
    let policy = match parse_policy(&body, is_yaml(&headers)) {
        Ok(policy) => policy,
        Err(errors) => return answer::bad_body(&errors),
    };
    let named = PolicyName { namespace, name };
    if policy.name != named {
        let (body, path) = (policy_ref(&policy.name), policy_ref(&named));
        return answer::bad_request([format!("metadata: names {body}, the path names {path}; make them one")]);
    }
    change(&doors, PolicyChange::Put(Owner::Api, vec![policy])).await
}

/// `DELETE /v1/policies/{ns}/{name}`: one that does not exist is no error.
pub(super) async fn delete_policy(
    State(doors): State<Arc<Doors>>,
    Path((namespace, name)): Path<(String, String)>,
) -> Response<Body> {
    change(&doors, PolicyChange::Delete(Owner::Api, vec![PolicyName { namespace, name }])).await
}

/// `POST /v1/policies:apply`: the owner's policies are exactly these, from one revision on.
pub(super) async fn apply_policies(
    State(doors): State<Arc<Doors>>,
    body: Result<Bytes, BytesRejection>,
) -> Response<Body> {
    let body = match answer::whole(body) {
        Ok(body) => body,
        Err(response) => return *response,
    };
    let ParsedSet { owner, cluster_id, policies } = match parse_policy_set(&body) {
        Ok(set) => set,
        Err(errors) => return answer::bad_body(&errors),
    };
    let own = doors.node.identity().cluster.map(|id| id.to_string()).unwrap_or_default();
    if let Some(named) = cluster_id.filter(|named| *named != own) {
        let named: String = named.chars().take(64).collect();
        let text = format!("the set is for cluster {named:?}, this node belongs to {own:?}; nothing was changed");
        return answer::error(StatusCode::CONFLICT, text);
    }
    change(&doors, PolicyChange::ReplaceAll(owner, policies)).await
}

/// `PUT /v1/cluster/members/{id}/decommission`: the member is to leave; autopilot sees to it. Again is no error.
pub(super) async fn decommission(State(doors): State<Arc<Doors>>, Path(id): Path<String>) -> Response<Body> {
    let id = match id.parse::<HexId>() {
        Ok(id) => id,
        Err(error) => return answer::bad_request([error]),
    };
    let answered = |status, state| answer::json(status, &DecommissionAnswer { member: id, state });
    match doors.node.decommission(id.0, CHANGE_DEADLINE).await {
        Ok(Leaving::Intended) => answered(StatusCode::ACCEPTED, DecommissionState::Leaving),
        Ok(Leaving::Left) => answered(StatusCode::OK, DecommissionState::Left),
        Ok(Leaving::Unknown) => {
            answer::error(StatusCode::NOT_FOUND, format!("there is no member {id}; GET /v1/cluster lists all"))
        }
        Ok(Leaving::Last) => {
            let text = format!("{id} is the last member that is to stay; add another first, nothing was changed");
            answer::error(StatusCode::CONFLICT, text)
        }
        Err(unavailable) => unknown(unavailable.reason),
    }
}

/// It is not known whether a change was made.
pub(super) fn unknown(reason: UnavailableReason) -> Response<Body> {
    let effect = if reason.may_have_taken_effect() { "may have been" } else { "was not" };
    let text = format!("{reason}; the change {effect} made: send it again");
    answer::error(StatusCode::SERVICE_UNAVAILABLE, text)
}

/// `POST /v1/cluster/transfer-leader`, with `{"to":ID}` or without a body; only the leader can.
pub(super) async fn transfer_leader(
    State(doors): State<Arc<Doors>>,
    body: Result<Bytes, BytesRejection>,
) -> Response<Body> {
    let body = match answer::whole(body) {
        Ok(body) => body,
        Err(response) => return *response,
    };
    let body = if body.is_empty() { b"{}" } else { &body[..] };
    let transfer: TransferBody = match serde_json::from_slice(body) {
        Ok(transfer) => transfer,
        Err(error) => return answer::bad_request([error]),
    };
    match doors.node.transfer_leader(transfer.to.map(|id| id.0)).await {
        Ok(leader) => answer::json(StatusCode::OK, &TransferAnswer { leader: HexId(leader) }),
        Err(reason) => answer::error(StatusCode::CONFLICT, reason),
    }
}

/// `POST /v1/cluster/bootstrap`: founds the cluster with exactly these members. Again with the same is no error.
pub(super) async fn bootstrap(State(doors): State<Arc<Doors>>, body: Result<Bytes, BytesRejection>) -> Response<Body> {
    let body = match answer::whole(body) {
        Ok(body) => body,
        Err(response) => return *response,
    };
    let members = match serde_json::from_slice::<BootstrapBody>(&body) {
        Ok(BootstrapBody { members }) => members,
        Err(error) => return answer::bad_request([error]),
    };
    if !(1..=NODES_MAX).contains(&members.len()) {
        return answer::bad_request([format!("members: has {} entries; give 1 to {NODES_MAX}", members.len())]);
    }
    let members: BTreeMap<_, _> = members.into_iter().map(|member| (member.id.0, member.name)).collect();
    let me = doors.node.identity();
    if !members.contains_key(&me.node) {
        return answer::bad_request([format!(
            "members: this node, {}, is none of them; ask one that is",
            HexId(me.node)
        )]);
    }
    if let Some(cluster) = me.cluster.filter(|_| me.promise.is_none_or(|promise| promise.members != members)) {
        return answer::error(StatusCode::CONFLICT, format!("this node belongs to cluster {cluster} already"));
    }
    match doors.node.bootstrap(members).await {
        Ok(()) => {
            let cluster_id = doors.node.identity().cluster.map(|id| id.to_string()).unwrap_or_default();
            answer::json(StatusCode::OK, &BootstrapAnswer { cluster_id })
        }
        Err(reason) => answer::error(StatusCode::CONFLICT, reason),
    }
}

async fn change(doors: &Doors, change: PolicyChange) -> Response<Body> {
    match doors.node.change_policies(change, CHANGE_DEADLINE).await {
        Ok(outcome) => worded(&outcome),
        Err(unavailable) => unknown(unavailable.reason),
    }
}

fn worded(outcome: &PolicyOutcome) -> Response<Body> {
    match outcome {
        PolicyOutcome::Applied { revision } => answer::json(StatusCode::OK, &PolicyChanged { revision: *revision }),
        PolicyOutcome::Conflict(conflict) => answer::error(StatusCode::CONFLICT, conflict_text(conflict)),
    }
}

/// Why a change was refused as a whole, and what to do.
pub(crate) fn conflict_text(conflict: &PolicyConflict) -> String {
    match conflict {
        PolicyConflict::OwnedBy(name, owner) => {
            let owner = match OwnerName::from(*owner) {
                OwnerName::Builtin => "the limiter itself",
                OwnerName::Files => "the nodes' policy files",
                OwnerName::Api => "the admin API",
                OwnerName::Operator => "the operator",
            };
            format!("policy {} belongs to {owner}; change it there, nothing was changed here", policy_ref(name))
        }
        PolicyConflict::TooMany { max } => {
            format!("there would be more than {max} policies; remove some first, nothing was changed")
        }
    }
}

/// Whatever does not call itself JSON is read as YAML, which JSON is too: curl sends a file under another name.
fn is_yaml(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind != "application/json" && !kind.ends_with("+json")
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn body_is_yaml_unless_it_calls_itself_json() {
        for (kind, yaml) in [
            ("application/json", false),
            ("Application/JSON; charset=utf-8", false),
            ("application/merge-patch+json", false),
            ("application/yaml", true),
            ("text/yaml", true),
            ("application/x-www-form-urlencoded", true),
        ] {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))]);
            assert_eq!(is_yaml(&headers), yaml, "{kind}");
        }
        assert!(is_yaml(&HeaderMap::new()));
    }

    #[test]
    fn change_is_answered_with_its_revision_or_the_owner_that_stands_against_it() {
        assert_eq!(worded(&PolicyOutcome::Applied { revision: 7 }).status(), StatusCode::OK);
        let name = PolicyName { namespace: "shop".to_owned(), name: "search".to_owned() };
        let conflict = PolicyConflict::OwnedBy(name, Owner::Operator);
        assert_eq!(
            conflict_text(&conflict),
            "policy shop/search belongs to the operator; change it there, nothing was changed here"
        );
        assert_eq!(worded(&PolicyOutcome::Conflict(conflict)).status(), StatusCode::CONFLICT);
        assert_eq!(
            conflict_text(&PolicyConflict::TooMany { max: 5 }),
            "there would be more than 5 policies; remove some first, nothing was changed"
        );
    }
}
