//! The simple API: `/rate/increment`, `/rate/check` and `/rate/reset`, one client a call.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Response, StatusCode, Uri};
use quorate_limits::{OnUnavailable, Request};
use serde_json::json;

use super::answer;
use super::query::{BadEncoding, parameter};
use super::{DECISION_DEADLINE, Doors};
use crate::admission::{Consistency, Unavailable, Verdict};
use crate::doors::headers::{self, Marked};

/// The most bytes in a client's id.
const CLIENT_ID_BYTES_MAX: usize = 256;
const TRUE: &str = r#"{"result":true}"#;
const FALSE: &str = r#"{"result":false}"#;

/// `POST /rate/increment?client_id=`, with `deny_status` for gateways that go by the status.
pub(super) async fn increment(State(doors): State<Arc<Doors>>, uri: Uri) -> Response<Body> {
    let (request, deny_status) = match (client(&uri), deny_status(&uri)) {
        (Ok(request), Ok(status)) => (request, status),
        (Err(error), _) | (_, Err(error)) => return refused(&error),
    };
    let asked = Instant::now();
    match doors.node.decide(&request, DECISION_DEADLINE).await {
        Ok(verdict) => {
            doors.counted.count(&verdict, asked.elapsed());
            decided(&verdict, deny_status)
        }
        Err(unavailable) => {
            doors.counted.count_unavailable(&unavailable, asked.elapsed());
            undecided(&unavailable, TRUE)
        }
    }
}

/// `GET /rate/check?client_id=`; `consistency=local` asks only what this node has applied.
pub(super) async fn check(State(doors): State<Arc<Doors>>, uri: Uri) -> Response<Body> {
    let (mut request, consistency) = match (client(&uri), consistency(&uri)) {
        (Ok(request), Ok(consistency)) => (request, consistency),
        (Err(error), _) | (_, Err(error)) => return refused(&error),
    };
    request.hits = 0;
    match doors.node.check(&request, consistency, DECISION_DEADLINE).await {
        Ok(verdict) => checked(&verdict),
        Err(unavailable) => undecided(&unavailable, r#"{"remaining_quota":null,"result":true}"#),
    }
}

/// `POST /rate/reset?client_id=`.
pub(super) async fn reset(State(doors): State<Arc<Doors>>, uri: Uri) -> Response<Body> {
    let request = match client(&uri) {
        Ok(request) => request,
        Err(error) => return refused(&error),
    };
    match doors.node.reset(&request, DECISION_DEADLINE).await {
        Ok(()) => answer::raw(StatusCode::OK, TRUE),
        // No policy can word a reset that may not have happened.
        Err(unavailable) => unavailable_answer(&unavailable),
    }
}

/// The request of the client that the query names.
fn client(uri: &Uri) -> Result<Request, String> {
    match parameter(uri.query(), "client_id") {
        Ok(Some(id)) if id.len() > CLIENT_ID_BYTES_MAX => {
            Err(format!("client_id has {} bytes; give at most {CLIENT_ID_BYTES_MAX}.", id.len()))
        }
        Ok(Some(id)) if !id.is_empty() => Ok(Request::of_client(&id)),
        Ok(_) => Err("Missing client_id.".to_owned()),
        Err(BadEncoding) => Err("client_id is not percent-encoded UTF-8.".to_owned()),
    }
}

fn deny_status(uri: &Uri) -> Result<StatusCode, String> {
    match parameter(uri.query(), "deny_status").as_ref().map(Option::as_deref) {
        Ok(None | Some("200")) => Ok(StatusCode::OK),
        Ok(Some("403")) => Ok(StatusCode::FORBIDDEN),
        Ok(Some("429")) => Ok(StatusCode::TOO_MANY_REQUESTS),
        Ok(Some(_)) | Err(BadEncoding) => Err("deny_status is none of 200, 403 and 429.".to_owned()),
    }
}

fn consistency(uri: &Uri) -> Result<Consistency, String> {
    match parameter(uri.query(), "consistency").as_ref().map(Option::as_deref) {
        Ok(None | Some("linearizable")) => Ok(Consistency::Linearizable),
        Ok(Some("local")) => Ok(Consistency::Local),
        Ok(Some(_)) | Err(BadEncoding) => Err("consistency is neither linearizable nor local.".to_owned()),
    }
}

/// Reads a query as all of these do.
pub(crate) fn parse_query(query: &str) {
    if let Ok(uri) = Uri::try_from(format!("/rate/check?{query}")) {
        let _ = (client(&uri), deny_status(&uri), consistency(&uri));
    }
}

fn refused(error: &str) -> Response<Body> {
    answer::json(StatusCode::BAD_REQUEST, &json!({ "error": error, "result": false }))
}

fn decided(verdict: &Verdict, deny_status: StatusCode) -> Response<Body> {
    let mut response =
        if verdict.admitted { answer::raw(StatusCode::OK, TRUE) } else { answer::raw(deny_status, FALSE) };
    headers::add_verdict(response.headers_mut(), verdict);
    response
}

fn checked(verdict: &Verdict) -> Response<Body> {
    let remaining = verdict.limits().filter(|limit| !limit.shadow).map(|limit| limit.remaining).min();
    let body = match remaining {
        None => r#"{"remaining_quota":null,"result":true}"#.to_owned(),
        Some(remaining) => format!(r#"{{"remaining_quota":{remaining},"result":{}}}"#, remaining > 0),
    };
    answer::raw(StatusCode::OK, body)
}

/// `admitted` is the body when the policies let through what is not decided.
fn undecided(unavailable: &Unavailable, admitted: &'static str) -> Response<Body> {
    let mut response = match unavailable.on_unavailable {
        OnUnavailable::Allow => answer::raw(StatusCode::OK, admitted),
        OnUnavailable::Deny => unavailable_answer(unavailable),
    };
    headers::mark(response.headers_mut(), Marked::of(unavailable));
    response
}

fn unavailable_answer(unavailable: &Unavailable) -> Response<Body> {
    let body = json!({ "error": unavailable.reason.to_string(), "result": false });
    answer::json(StatusCode::SERVICE_UNAVAILABLE, &body)
}

#[cfg(test)]
mod tests;
