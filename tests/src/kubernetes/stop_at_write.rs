//! Ends the operator before and after its writes, to prove that whoever comes next goes on where it ended: a layer before
//! the client of `quorate-operator-that-stops`.
//!
//! A write has a name, `apply statefulsets edge of 3` say, and two points: before it and after it. `STOPS` names a folder. In
//! its file `passed` each point is noted that a process comes to. At a point in the file `at` the process ends, the first
//! time that any comes there, without a word to anybody, and notes it in `stopped`, so that the next process goes further.
//! Events and the lease have no points. What nodes are asked for stands between two writes: before one of them is after the
//! other.

use std::collections::HashSet;
use std::env;
use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use axum::http::{Method, Request, Response};
use futures::future::BoxFuture;
use http_body_util::BodyExt as _;
use kube::client::{Body, ClientBuilder};
use kube::{Client, Config};
use serde_json::Value;
use tower::{BoxError, Layer, Service};

use crate::sync::lock;

/// How the process ends: none of the operator's own codes.
pub const EXIT_CODE: i32 = 99;

/// A client with the layer before it, as the folder says that `STOPS` names.
///
/// # Errors
/// It names none, or no client can be made.
pub fn connect(config: Config) -> Result<Client, String> {
    let builder = ClientBuilder::try_from(config).map_err(|error| error.to_string())?;
    Ok(builder.with_layer(&StopAtWrite::from_env()?).build())
}

/// The layer to put before a client.
#[derive(Clone, Debug)]
pub struct StopAtWrite(Arc<Points>);

#[derive(Debug)]
struct Points {
    folder: PathBuf,
    /// Where to end, as far as no process has.
    ends: HashSet<String>,
    passed: Mutex<HashSet<String>>,
}

impl StopAtWrite {
    fn from_env() -> Result<Self, String> {
        let folder = env::var("STOPS").map(PathBuf::from);
        let folder = folder.ok().filter(|folder| folder.is_dir()).ok_or("STOPS must name a folder")?;
        let lines = |file: &str| -> HashSet<String> {
            let text = fs::read_to_string(folder.join(file)).unwrap_or_default();
            text.lines().map(ToOwned::to_owned).collect()
        };
        let ends = &lines("at") - &lines("stopped");
        Ok(Self(Arc::new(Points { ends, folder, passed: Mutex::default() })))
    }
}

impl<S> Layer<S> for StopAtWrite {
    type Service = Stopping<S>;

    fn layer(&self, inner: S) -> Stopping<S> {
        Stopping { inner: Arc::new(Mutex::new(inner)), points: Arc::clone(&self.0) }
    }
}

/// A client that ends its process.
#[derive(Clone, Debug)]
pub struct Stopping<S> {
    /// Shared with the calls under way: kube's inner client cannot be cloned, and a call waits for its point first.
    inner: Arc<Mutex<S>>,
    points: Arc<Points>,
}

impl<S, B> Service<Request<Body>> for Stopping<S>
where
    S: Service<Request<Body>, Response = Response<B>> + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
{
    type Response = Response<B>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<B>, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        lock(&self.inner).poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let inner = Arc::clone(&self.inner);
        let call = move |request| lock(&inner).call(request);
        let points = Arc::clone(&self.points);
        Box::pin(async move {
            if request.method() == Method::GET {
                return call(request).await.map_err(Into::into);
            }
            let (head, body) = request.into_parts();
            let body = body.collect().await.map_err(BoxError::from)?.to_bytes().to_vec();
            let name = name(&head.method, head.uri.path(), &body);
            if let Some(name) = &name {
                points.pass(&format!("before {name}"))?;
            }
            let answer = call(Request::from_parts(head, Body::from(body))).await.map_err(Into::into)?;
            if let Some(name) = name.filter(|_| answer.status().is_success()) {
                points.pass(&format!("after {name}"))?;
            }
            Ok(answer)
        })
    }
}

impl Points {
    /// Notes the point, and ends the process if it is to end there.
    fn pass(&self, point: &str) -> io::Result<()> {
        if !lock(&self.passed).insert(point.to_owned()) {
            return Ok(());
        }
        self.note("passed", point)?;
        if self.ends.contains(point) {
            self.note("stopped", point)?;
            std::process::exit(EXIT_CODE);
        }
        Ok(())
    }

    fn note(&self, file: &str, point: &str) -> io::Result<()> {
        let file = fs::OpenOptions::new().create(true).append(true).open(self.folder.join(file));
        file?.write_all(format!("{point}\n").as_bytes())
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
        // Whatever they say: how often it is said on the way depends on how quickly members follow.
        (_, ["quotapolicies", name, "status"]) => Some(format!("status of policy {name}")),
        (_, [_, name, "status"]) if !body["status"]["policies"].is_null() => Some(format!("status {name}: policies")),
        // The operation, since all else of a cluster is told again anyway; replicas tell two of a kind apart.
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
        let policies = json!({"status": {"policies": {"enforced": "1/1", "revision": 2}}});
        assert_eq!(named(&Method::PATCH, "ratelimitclusters/edge/status", &policies), some("status edge: policies"));
        let told = json!({"status": {"limits": "1/1m"}});
        assert_eq!(named(&Method::PATCH, "quotapolicies/clients/status", &told), some("status of policy clients"));
    }

    #[test]
    fn what_only_tells_does_not_count() {
        assert_eq!(named(&Method::PATCH, "ratelimitclusters/edge/status", &json!({"status": {"ready": "3/3"}})), None);
        assert_eq!(named(&Method::POST, "events", &json!({})), None);
        assert_eq!(named(&Method::PUT, "leases/quorate-operator", &json!({})), None);
    }
}
