//! One HTTP call to a node, for the commands that need one.

use std::time::Duration;

use axum::body::Bytes;
use axum::http::header::{CONTENT_TYPE, HOST};
use axum::http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use quorate_crds::api::ErrorBody;
use tokio::net::TcpStream;

/// Longer than a node itself waits for a change.
const TIMEOUT: Duration = Duration::from_secs(15);
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Sends a request to `server` (`host:port`, with or without `http://`) and returns status and body.
///
/// # Errors
/// The server cannot be reached or broke off; the text names it.
pub(super) async fn call(server: &str, method: Method, path: &str, body: Bytes) -> Result<(StatusCode, Bytes), String> {
    let host = server.strip_prefix("http://").unwrap_or(server).trim_end_matches('/');
    let exchange = async {
        let stream = TcpStream::connect(host).await.map_err(|error| format!("{host} cannot be reached: {error}"))?;
        exchange(stream, host, method, path, body).await.map_err(|error| format!("{host} gave no answer: {error}"))
    };
    match tokio::time::timeout(TIMEOUT, exchange).await {
        Ok(result) => result,
        Err(_) => Err(format!("{host} gave no answer within {TIMEOUT:?}")),
    }
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

async fn exchange(
    stream: TcpStream,
    host: &str,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<(StatusCode, Bytes), AnyError> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // It ends with the connection, whose errors reach the sender.
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, host)
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(body))?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await?;
    Ok((status, body.to_bytes()))
}

/// What the node said was wrong.
pub(super) fn error_text(status: StatusCode, body: &[u8]) -> String {
    match serde_json::from_slice::<ErrorBody>(body) {
        Ok(ErrorBody { error, .. }) => format!("{status}: {error}"),
        Err(_) => format!("{status}: {}", String::from_utf8_lossy(&body[..body.len().min(500)])),
    }
}
