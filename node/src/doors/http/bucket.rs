//! The `/bucket` API: `POST /bucket` registers a client's name and tells its id, `GET /example` asks for one request of the
//! client that `X-Api-Id` names. The words are those of a forerunner, so that its clients find what they know.
//!
//! The admin port lists the names and gives them back.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode};
use quorate_limits::{BUCKET_NAME_BYTES_MAX, BUCKETS_MAX, BucketId, BucketOutcome, Descriptor, OnUnavailable, Request};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{CHANGE_DEADLINE, DECISION_DEADLINE, Doors, admin, answer};
use crate::admission::{Unavailable, Verdict};
use crate::config::{BUCKET_DOMAIN, BUCKET_KEY};
use crate::doors::headers::{self, Marked};

const HELLO: &str = r#"{"message":"Hello, World!"}"#;
const API_ID: &str = "x-api-id";
/// So much of an id that cannot be one is repeated in the answer.
const SHOWN_CHARACTERS_MAX: usize = 256;

/// A client, in the order of the forerunner's fields.
#[derive(Serialize)]
struct Bucket<'a> {
    name: &'a str,
    id: String,
}

/// The name in the body of `POST /bucket`. Whatever else it holds is ignored, as the forerunner does.
pub(crate) fn parse_body(body: &[u8]) -> Result<String, String> {
    let invalid = || "Invalid request payload".to_owned();
    let mut body: Map<String, Value> = serde_json::from_slice(body).map_err(|_| invalid())?;
    match body.remove("name") {
        Some(Value::String(name)) if name.len() > BUCKET_NAME_BYTES_MAX => {
            Err(format!("Bucket name has {} bytes; give at most {BUCKET_NAME_BYTES_MAX}", name.len()))
        }
        Some(Value::String(name)) if !name.is_empty() => Ok(name),
        None | Some(Value::Null | Value::String(_)) => Err("Bucket name is required".to_owned()),
        Some(_) => Err(invalid()),
    }
}

/// `POST /bucket`.
pub(super) async fn create(State(doors): State<Arc<Doors>>, body: Result<Bytes, BytesRejection>) -> Response<Body> {
    let body = match answer::whole(body) {
        Ok(body) => body,
        Err(response) => return *response,
    };
    let name = match parse_body(&body) {
        Ok(name) => name,
        Err(error) => return answer::bad_request([error]),
    };
    match doors.node.create_bucket(&name, DECISION_DEADLINE).await {
        Ok(outcome) => created(&name, &outcome),
        Err(unavailable) if unavailable.reason.may_have_taken_effect() => {
            let text = format!(
                "{}; the bucket may have been created: GET /v1/buckets on the admin port lists all",
                unavailable.reason
            );
            answer::error(StatusCode::SERVICE_UNAVAILABLE, text)
        }
        Err(unavailable) => answer::error(StatusCode::SERVICE_UNAVAILABLE, unavailable.reason.to_string()),
    }
}

fn created(name: &str, outcome: &BucketOutcome) -> Response<Body> {
    match outcome {
        BucketOutcome::Created(id) => answer::json(StatusCode::CREATED, &Bucket { name, id: id.to_string() }),
        BucketOutcome::Full => {
            let text = format!(
                "there are {BUCKETS_MAX} buckets already; give one back with DELETE /v1/buckets/{{name}} on the admin port"
            );
            answer::error(StatusCode::INSUFFICIENT_STORAGE, text)
        }
        // `NameTaken`: nothing else comes of it.
        _ => answer::bad_request([format!("bucket already exists: {name}")]),
    }
}

/// `GET /example`.
pub(super) async fn example(State(doors): State<Arc<Doors>>, headers: HeaderMap) -> Response<Body> {
    let asked = Instant::now();
    let text = headers.get(API_ID).map(HeaderValue::as_bytes).unwrap_or_default();
    if text.is_empty() {
        return answer::error(StatusCode::UNAUTHORIZED, "Api ID is required");
    }
    let text = String::from_utf8_lossy(text);
    // What is no id stands for nothing, and nobody need be asked.
    let Ok(id) = text.parse::<BucketId>() else { return not_found(&text) };
    let name = match doors.node.find_bucket(id, DECISION_DEADLINE).await {
        Ok(Some(name)) => name,
        Ok(None) => return not_found(&text),
        Err(unavailable) => {
            doors.bucketed.count_unavailable(&unavailable, asked.elapsed());
            return undecided(&unavailable);
        }
    };
    doors.metrics.by_client().count(&name);
    match doors.node.decide(&request(id), DECISION_DEADLINE.saturating_sub(asked.elapsed())).await {
        Ok(verdict) => {
            doors.bucketed.count(&verdict, asked.elapsed());
            decided(&verdict)
        }
        Err(unavailable) => {
            doors.bucketed.count_unavailable(&unavailable, asked.elapsed());
            undecided(&unavailable)
        }
    }
}

fn request(id: BucketId) -> Request {
    let descriptor = Descriptor::of([(BUCKET_KEY, id.to_string().as_str())]);
    Request { domain: BUCKET_DOMAIN.to_owned(), descriptors: vec![descriptor], hits: 1 }
}

fn not_found(id: &str) -> Response<Body> {
    let id: Cow<'_, str> = match id.char_indices().nth(SHOWN_CHARACTERS_MAX) {
        Some((end, _)) => Cow::Owned(format!("{}…", &id[..end])),
        None => Cow::Borrowed(id),
    };
    answer::error(StatusCode::NOT_FOUND, format!("bucket not found: bucket not found for=[bucket_{id}]"))
}

fn decided(verdict: &Verdict) -> Response<Body> {
    let mut response = if verdict.admitted {
        answer::raw(StatusCode::OK, HELLO)
    } else {
        answer::error(StatusCode::TOO_MANY_REQUESTS, "Rate limit exceeded")
    };
    headers::add_verdict(response.headers_mut(), verdict);
    response
}

fn undecided(unavailable: &Unavailable) -> Response<Body> {
    let mut response = match unavailable.on_unavailable {
        OnUnavailable::Allow => answer::raw(StatusCode::OK, HELLO),
        OnUnavailable::Deny => answer::error(StatusCode::SERVICE_UNAVAILABLE, unavailable.reason.to_string()),
    };
    headers::mark(response.headers_mut(), Marked::of(unavailable));
    response
}

/// `GET /v1/buckets` of the admin port: all that this node has applied, in the order of their names.
pub(super) async fn list(State(doors): State<Arc<Doors>>) -> Response<Body> {
    let buckets = doors.node.buckets();
    let buckets: Vec<_> = buckets.iter().map(|(name, id)| Bucket { name, id: id.to_string() }).collect();
    answer::json(StatusCode::OK, &json!({ "buckets": buckets }))
}

/// `DELETE /v1/buckets/{name}` of the admin port: one that does not exist is no error.
pub(super) async fn delete(State(doors): State<Arc<Doors>>, Path(name): Path<String>) -> Response<Body> {
    match doors.node.delete_bucket(name.clone(), CHANGE_DEADLINE).await {
        Ok(()) => answer::json(StatusCode::OK, &json!({ "name": name })),
        Err(unavailable) => admin::unknown(unavailable.reason),
    }
}

#[cfg(test)]
mod tests;
