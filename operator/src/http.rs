//! The operator's own port: `/health`, `/ready` and `/metrics`.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::metrics::Metrics;

/// Why the operator is not ready; `None` once it is.
pub type NotReady = Option<String>;

#[derive(Clone)]
struct Shown {
    metrics: Arc<Metrics>,
    ready: watch::Receiver<NotReady>,
}

/// Serves for as long as the process lives.
///
/// # Errors
/// When the port cannot be bound, with the setting that names it.
pub async fn serve(
    address: SocketAddr,
    metrics: Arc<Metrics>,
    ready: watch::Receiver<NotReady>,
) -> Result<SocketAddr, String> {
    let listener = TcpListener::bind(address).await.map_err(|error| {
        format!("cannot listen on {address}: {error}; set METRICS_PORT to a free port, or BIND_HOST to an own address")
    })?;
    let bound = listener.local_addr().map_err(|error| error.to_string())?;
    let routes = Router::new()
        .route("/health", get(|| async { ([(CONTENT_TYPE, "application/json")], r#"{"status":"ok"}"#) }))
        .route("/ready", get(is_ready))
        .route("/metrics", get(all_metrics))
        .with_state(Shown { metrics, ready });
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, routes).await {
            tracing::error!("health and metrics are not served any more: {error}");
        }
    });
    Ok(bound)
}

async fn is_ready(State(shown): State<Shown>) -> Response {
    let not_ready = shown.ready.borrow().clone();
    match not_ready {
        None => StatusCode::OK.into_response(),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason).into_response(),
    }
}

async fn all_metrics(State(shown): State<Shown>) -> Response {
    match shown.metrics.text() {
        Ok(text) => ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
