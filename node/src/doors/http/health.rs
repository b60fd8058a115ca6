//! What watches a node: `/health`, `/ready` and `/metrics`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Response, StatusCode};
use prometheus::TEXT_FORMAT;
use serde_json::json;

use super::{Doors, answer};
use crate::metrics::NodeFigures;

/// `GET /health`: the process answers. It also says if the disk is short of room, which no restart would help.
pub(super) async fn health(State(doors): State<Arc<Doors>>) -> Response<Body> {
    let room = doors.node.room();
    if room.is_short() {
        let (free, reserve) = (room.free().unwrap_or(0), room.reserve());
        let warning = format!("the disk is short of room: {free} bytes are free, DISK_RESERVE is {reserve}");
        return answer::json(StatusCode::OK, &json!({ "status": "ok", "warning": warning }));
    }
    answer::raw(StatusCode::OK, r#"{"status":"ok"}"#)
}

/// `GET /ready`: whether requests should be sent here.
pub(super) async fn ready(State(doors): State<Arc<Doors>>) -> Response<Body> {
    match doors.node.ready() {
        Ok(()) => answer::raw(StatusCode::OK, r#"{"status":"ready"}"#),
        Err(reason) => {
            let body = json!({ "status": "not ready", "reason": reason });
            answer::json(StatusCode::SERVICE_UNAVAILABLE, &body)
        }
    }
}

/// `GET /metrics`.
pub(super) async fn metrics(State(doors): State<Arc<Doors>>) -> Response<Body> {
    match doors.metrics.text(&NodeFigures::of(&doors.node)) {
        Ok(text) => {
            let mut response = Response::new(Body::from(text));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(TEXT_FORMAT));
            response
        }
        Err(error) => {
            answer::error(StatusCode::INTERNAL_SERVER_ERROR, format!("the metrics cannot be written: {error}"))
        }
    }
}
