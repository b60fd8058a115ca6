//! Ends the operator before or after one of its writes, to prove that whoever comes next goes on where it ended. Only in
//! `quorate-operator-that-stops`, which is built with the feature `stop-at-write` and is part of no image.
//!
//! A write has a name, `apply StatefulSet edge` say, and counts the first time that it is made with this content: what is
//! applied again as it is changes nothing. Names go, one a line, to the file that `WRITES` names. With
//! `STOP_AT_WRITE=before:NAME` or `after:NAME` the process ends there, without a word to anybody. Events and the lease do
//! not count. What nodes are asked for stands between two writes: before one is after the other.

use std::collections::HashSet;
use std::env;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use axum::http::{Method, Request, Response};
use futures::future::BoxFuture;
use http_body_util::BodyExt as _;
use kube::client::Body;
use serde_json::Value;
use tower::{BoxError, Layer, Service};

/// How the process ends: none of the operator's own codes.
pub const EXIT_CODE: i32 = 99;

/// The layer to put before a client.
#[derive(Clone, Debug)]
pub struct StopAtWrite(Arc<State>);

#[derive(Debug)]
struct State {
    /// Where names go.
    writes: Option<String>,
    /// Whether to end after it, and its name.
    stop: Option<(bool, String)>,
    /// What was written so far: name and content.
    made: Mutex<HashSet<(String, Vec<u8>)>>,
    named: Mutex<HashSet<String>>,
}

impl StopAtWrite {
    /// As the environment says.
    ///
    /// # Errors
    /// `STOP_AT_WRITE` is neither `before:NAME` nor `after:NAME`.
    pub fn from_env() -> Result<Self, String> {
        let stop = match env::var("STOP_AT_WRITE").unwrap_or_default() {
            text if text.is_empty() => None,
            text => match text.split_once(':') {
                Some((when @ ("before" | "after"), name)) => Some((when == "after", name.to_owned())),
                _ => return Err(format!("STOP_AT_WRITE: {text:?} is neither before:NAME nor after:NAME")),
            },
        };
        let writes = env::var("WRITES").ok();
        Ok(Self(Arc::new(State { writes, stop, made: Mutex::default(), named: Mutex::default() })))
    }
}

impl<S> Layer<S> for StopAtWrite {
    type Service = Stopping<S>;

    fn layer(&self, inner: S) -> Stopping<S> {
        Stopping { inner, state: Arc::clone(&self.0) }
    }
}

/// A client that ends its process.
#[derive(Clone, Debug)]
pub struct Stopping<S> {
    inner: S,
    state: Arc<State>,
}

impl<S, B> Service<Request<Body>> for Stopping<S>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
{
    type Response = Response<B>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<B>, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let ready = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, ready);
        let state = Arc::clone(&self.state);
        Box::pin(async move {
            if request.method() == Method::GET {
                return inner.call(request).await.map_err(Into::into);
            }
            let (head, body) = request.into_parts();
            let body = body.collect().await.map_err(BoxError::from)?.to_bytes().to_vec();
            let name = name(&head.method, head.uri.path(), &body);
            let counts = name.as_ref().is_some_and(|name| state.is_new(name, &body));
            let stop = state.stop.as_ref().filter(|(_, at)| counts && name.as_ref() == Some(at));
            if let (true, Some(name)) = (counts, &name) {
                state.note(name);
            }
            if stop.is_some_and(|(after, _)| !after) {
                std::process::exit(EXIT_CODE);
            }
            let answer = inner.call(Request::from_parts(head, Body::from(body))).await.map_err(Into::into)?;
            if stop.is_some() && answer.status().is_success() {
                std::process::exit(EXIT_CODE);
            }
            Ok(answer)
        })
    }
}

impl State {
    fn is_new(&self, name: &str, body: &[u8]) -> bool {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).insert((name.to_owned(), body.to_owned()))
    }

    /// Each name once, in the order of their first time.
    fn note(&self, name: &str) {
        if !self.named.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned()) {
            return;
        }
        let file = self.writes.as_ref().map(|path| OpenOptions::new().create(true).append(true).open(path));
        if let Some(Err(error)) = file.map(|file| writeln!(file?, "{name}")) {
            tracing::error!("WRITES: {error}");
        }
    }
}

/// What a write is called; `None` for one that does not count.
fn name(method: &Method, path: &str, body: &[u8]) -> Option<String> {
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let below = parts.iter().position(|part| *part == "namespaces").map(|at| &parts[(at + 2).min(parts.len())..])?;
    let body: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let named = body["metadata"]["name"].as_str().unwrap_or_default();
    match (method, below) {
        (_, ["events" | "leases", ..]) => None,
        // The operation, since all else is told again anyway; replicas tell two of a kind apart.
        (_, [_, name, "status"]) => {
            let operation = &body["status"]["operation"];
            let text = |key: &str| operation[key].as_str().map(ToOwned::to_owned).unwrap_or_default();
            let words =
                [text("kind"), text("pod"), operation["replicas"].as_i64().map(|n| n.to_string()).unwrap_or_default()];
            let words: Vec<_> = words.into_iter().filter(|word| !word.is_empty()).collect();
            (!words.is_empty()).then(|| format!("status {name}: {}", words.join(" ")))
        }
        (&Method::POST, [_, name, "eviction"]) => Some(format!("evict {name}")),
        (&Method::POST, [kind]) => Some(format!("create {kind} {named}")),
        (&Method::DELETE, [kind, name]) => Some(format!("delete {kind} {name}")),
        (_, ["statefulsets", name]) => Some(format!("apply statefulsets {name} of {}", body["spec"]["replicas"])),
        (_, ["poddisruptionbudgets", name]) => {
            Some(format!("apply poddisruptionbudgets {name} of {}", body["spec"]["minAvailable"]))
        }
        (_, [kind, name]) => Some(format!("apply {kind} {name}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn named(method: &Method, path: &str, body: &Value) -> Option<String> {
        name(method, &format!("/apis/x/v1/namespaces/shop/{path}"), &serde_json::to_vec(body).unwrap())
    }

    #[test]
    fn writes_are_named_for_what_they_are() {
        let some = |text: &str| Some(text.to_owned());
        let set = json!({"spec": {"replicas": 3}});
        assert_eq!(named(&Method::PATCH, "statefulsets/edge", &set), some("apply statefulsets edge of 3"));
        assert_eq!(named(&Method::POST, "pods/edge-1/eviction", &json!({})), some("evict edge-1"));
        let founding = json!({"metadata": {"name": "edge-founding"}});
        assert_eq!(named(&Method::POST, "configmaps", &founding), some("create configmaps edge-founding"));
        let operation = json!({"status": {"operation": {"kind": "ScaleDown", "pod": "edge-4", "replicas": 4}}});
        assert_eq!(
            named(&Method::PATCH, "ratelimitclusters/edge/status", &operation),
            some("status edge: ScaleDown edge-4 4")
        );
    }

    #[test]
    fn what_only_tells_does_not_count() {
        assert_eq!(named(&Method::PATCH, "ratelimitclusters/edge/status", &json!({"status": {"ready": "3/3"}})), None);
        assert_eq!(named(&Method::POST, "events", &json!({})), None);
        assert_eq!(named(&Method::PUT, "leases/quorate-operator", &json!({})), None);
    }
}
