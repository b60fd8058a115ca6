//! `GET /openapi.json`: the API described for programs, written by hand.

use axum::body::Body;
use axum::http::{Response, StatusCode};

use super::answer;

const DOCUMENT: &str = include_str!("openapi.json");

/// `GET /openapi.json`.
pub(super) async fn document() -> Response<Body> {
    answer::raw(StatusCode::OK, DOCUMENT)
}
