//! Answers in JSON.

use std::error::Error;
use std::io;

use axum::body::{Body, Bytes};
use axum::extract::rejection::BytesRejection;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Method, Response, StatusCode, Uri};
use quorate_crds::FieldError;
use quorate_crds::api::{ErrorBody, Fault};
use serde::Serialize;
use serde_json::json;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// An answer whose body is JSON already.
pub(super) fn raw(status: StatusCode, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

/// An answer with this value as its body.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(body) => raw(status, body),
        // No type that is answered here can fail to be written.
        Err(error) => raw(StatusCode::INTERNAL_SERVER_ERROR, json!({ "error": error.to_string() }).to_string()),
    }
}

/// `{"error":…}`.
pub(super) fn error(status: StatusCode, error: impl Into<String>) -> Response<Body> {
    json(status, &ErrorBody::from(error.into()))
}

/// Several complaints about one body, as one text.
pub(super) fn bad_request<E: ToString>(errors: impl IntoIterator<Item = E>) -> Response<Body> {
    let errors: Vec<_> = errors.into_iter().map(|error| error.to_string()).collect();
    error(StatusCode::BAD_REQUEST, errors.join("; "))
}

/// What is wrong with a body, field by field: as one text for people, and as a list for programs.
pub(super) fn bad_body(errors: &[FieldError]) -> Response<Body> {
    let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
    let fault = |error: &FieldError| Fault { path: error.path.clone(), message: error.message.clone() };
    let body = ErrorBody { error: texts.join("; "), faults: errors.iter().map(fault).collect() };
    json(StatusCode::BAD_REQUEST, &body)
}

/// A wrong path, or a wrong method on a right one.
pub(super) async fn not_found(method: Method, uri: Uri) -> Response<Body> {
    let path: String = uri.path().chars().take(256).collect();
    error(
        StatusCode::NOT_FOUND,
        format!("there is no {method} {path} on this port; GET /openapi.json on the data port lists all"),
    )
}

/// The answer to a body that is too long.
pub(crate) fn too_long() -> Response<Body> {
    error(StatusCode::PAYLOAD_TOO_LARGE, "the body is too long; send less at once")
}

/// Whether a body was given up because it took too long.
fn is_late(rejection: &BytesRejection) -> bool {
    let mut error: Option<&(dyn Error + 'static)> = Some(rejection);
    while let Some(this) = error {
        if this.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::TimedOut) {
            return true;
        }
        error = this.source();
    }
    false
}

/// The whole body, or the answer to one that is too long, too slow, or broke off.
pub(super) fn whole(body: Result<Bytes, BytesRejection>) -> Result<Bytes, Box<Response<Body>>> {
    body.map_err(|rejection| {
        let status = if is_late(&rejection) { StatusCode::REQUEST_TIMEOUT } else { rejection.status() };
        let text = match status {
            StatusCode::PAYLOAD_TOO_LARGE => return Box::new(too_long()),
            _ => format!("the body cannot be read: {}", rejection.body_text()),
        };
        Box::new(error(status, text))
    })
}
