//! An API server and nodes in memory, for scenarios: it keeps objects and tells who watches them, records writes, and answers
//! some requests as it is told to. Its nodes hold one set of policies together. It knows as much of Kubernetes and of
//! limiters as the scenarios need.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::HOST;
use axum::http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use axum::response::IntoResponse;
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tower::service_fn;

use crate::context::Context;
use crate::events::Events;
use crate::limiter::{Limiters, Ports};
use crate::metrics::Metrics;
use crate::sync::lock;

/// The namespace of everything, unless told.
pub const NAMESPACE: &str = "shop";
/// How long a scenario waits before it fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// Awaits what a scenario is about, which never comes when the product is at fault.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

#[derive(Default)]
struct Inner {
    /// By path: `/api/v1/namespaces/shop/pods/edge-0`.
    objects: BTreeMap<String, Value>,
    /// The version of what was changed last.
    version: u64,
    /// What changed: its version, its path, how, and what it was made.
    changes: Vec<(u64, String, &'static str, Value)>,
    /// What was written, in order: method and path.
    writes: Vec<String>,
    /// What was read, in order: path, or node and path. Watches are not among it.
    reads: Vec<String>,
    /// Answers instead of what would be: the beginning of method and path, and the answer, once each.
    instead: Vec<(String, u16, Value)>,
    /// What the node of each pod says, by the last number of its address.
    nodes: HashMap<u8, Value>,
    /// How often policies denied on each, by the same.
    denied: HashMap<u8, Value>,
    /// What the nodes hold together.
    held: Held,
}

/// Policies as nodes list them, by namespace and name, and their revision; 0 for nodes that are not asked for them.
#[derive(Default)]
struct Held {
    revision: u64,
    rows: BTreeMap<String, Value>,
    /// What nodes list of each spec besides.
    besides: Value,
}

/// The whole of it.
#[derive(Clone, Default)]
pub struct World {
    inner: Arc<Mutex<Inner>>,
    /// Tells of each change.
    changed: watch::Sender<()>,
}

impl World {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }

    /// A client of its API server.
    pub fn client(&self) -> Client {
        let world = self.clone();
        let answer = move |request: Request<Body>| {
            let world = world.clone();
            async move {
                let (head, body) = request.into_parts();
                let bytes = body.collect().await.unwrap().to_bytes();
                let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
                let query = head.uri.query().unwrap_or_default();
                let (status, answer) = world.answer(&head.method, head.uri.path(), query, &body);
                if status == 0 {
                    std::future::pending::<()>().await;
                }
                let answer = match answer {
                    Some(answer) => serde_json::to_vec(&answer).unwrap(),
                    None => world.watched(head.uri.path(), query).await.into_bytes(),
                };
                Ok::<_, std::convert::Infallible>(Response::builder().status(status).body(Body::from(answer)).unwrap())
            }
        };
        Client::new(service_fn(answer), NAMESPACE)
    }

    /// A client of its nodes: pod `N` of the address `127.0.0.N+1`.
    pub async fn limiters(&self) -> Limiters {
        let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let routes = Router::new().fallback(node).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Limiters::new(Ports { http: port, admin: port })
    }

    /// What an operator in it works with.
    pub async fn context(&self) -> Context {
        let client = self.client();
        Context {
            events: Events::new(client.clone(), "test".to_owned()),
            client,
            limiters: self.limiters().await,
            namespaces: Vec::new(),
            metrics: Arc::new(Metrics::new().unwrap()),
        }
    }

    pub fn put(&self, path: &str, object: Value) {
        self.inner().store(path, object);
        self.changed.send_replace(());
    }

    pub fn get(&self, path: &str) -> Option<Value> {
        self.inner().objects.get(path).cloned()
    }

    /// All objects of a collection: `/api/v1/pods`, `/api/v1/namespaces/shop/pods`.
    pub fn list(&self, collection: &str) -> Vec<Value> {
        self.inner().list(collection)
    }

    pub fn change(&self, path: &str, change: &Value) {
        let mut object = self.get(path).unwrap();
        merge(&mut object, change);
        self.put(path, object);
    }

    pub fn remove(&self, path: &str) {
        self.inner().remove(path);
        self.changed.send_replace(());
    }

    /// Awaits what `probe` wants.
    pub async fn until<T>(&self, what: &str, probe: impl Fn(&Self) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = probe(self) {
                return found;
            }
            assert!(Instant::now() < end, "waited in vain for {what}; {:#?}", self.inner().objects);
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// The next request that begins like this is answered so; with status 0, never.
    pub fn answer_instead(&self, request: &str, status: u16, body: Value) {
        self.inner().instead.push((request.to_owned(), status, body));
    }

    /// What the node of this pod says from now on of its cluster; `None`: it does not answer.
    pub fn node_says(&self, ordinal: u8, answer: Option<Value>) {
        let mut inner = self.inner();
        match answer {
            Some(answer) => inner.nodes.insert(ordinal + 1, answer),
            None => inner.nodes.remove(&(ordinal + 1)),
        };
    }

    /// So often each of these policies denied on the node of this pod.
    pub fn node_denied(&self, ordinal: u8, counts: &[(&str, u64)]) {
        let counts = counts.iter().map(|(name, count)| ((*name).to_owned(), json!(count))).collect();
        self.inner().denied.insert(ordinal + 1, Value::Object(counts));
    }

    /// Somebody writes policies of an owner: all that it has.
    pub fn hold(&self, owner: &str, policies: &[Value]) {
        self.inner().held.apply(owner, policies);
    }

    /// Nodes list these fields in every spec from now on, as newer ones do.
    pub fn nodes_list_besides(&self, fields: Value) {
        self.inner().held.besides = fields;
    }

    /// The spec that the nodes hold of the policy `NAMESPACE/NAME`.
    pub fn held_spec(&self, name: &str) -> Value {
        self.inner().held.rows[name]["spec"].clone()
    }

    /// The revision of the policies that the nodes hold, and by name the first limit of each.
    pub fn held(&self) -> (u64, Vec<(String, i64)>) {
        let inner = self.inner();
        let limit = |row: &Value| row["spec"]["limits"][0]["limit"].as_i64().unwrap();
        (inner.held.revision, inner.held.rows.iter().map(|(name, row)| (name.clone(), limit(row))).collect())
    }

    /// What was written since the last question, without Events.
    pub fn writes(&self) -> Vec<String> {
        let mut writes = std::mem::take(&mut self.inner().writes);
        writes.retain(|write| !write.contains("/events"));
        writes
    }

    /// What was read since the last question: `/api/v1/pods`, `node 0 /v1/cluster`.
    pub fn reads(&self) -> Vec<String> {
        std::mem::take(&mut self.inner().reads)
    }

    /// `None` for a watch, which is answered as soon as there is something to tell.
    fn answer(&self, method: &Method, path: &str, query: &str, body: &Value) -> (u16, Option<Value>) {
        let mut inner = self.inner();
        if *method != Method::GET {
            inner.writes.push(format!("{method} {path}"));
        } else if !query.contains("watch=true") {
            inner.reads.push(path.to_owned());
        }
        if let Some(answer) = inner.instead(&format!("{method} {path}?{query}")) {
            return (answer.0, Some(answer.1));
        }
        if query.contains("watch=true") {
            return (200, None);
        }
        let (status, answer) = match *method {
            Method::GET => inner.read(path),
            Method::POST => inner.create(path, body),
            Method::PUT => inner.replace(path, body),
            Method::PATCH => inner.apply(path, body),
            Method::DELETE => inner.delete(path, body),
            _ => (405, Value::Null),
        };
        drop(inner);
        self.changed.send_replace(());
        (status, Some(answer))
    }

    /// What changed in a collection since the version that the query names, as soon as there is something. The watch ends
    /// with that and is begun anew.
    async fn watched(&self, collection: &str, query: &str) -> String {
        let since = query.split('&').find_map(|pair| pair.strip_prefix("resourceVersion="));
        let since: u64 = since.unwrap().parse().unwrap();
        let mut changed = self.changed.subscribe();
        loop {
            let lines: Vec<_> = self
                .inner()
                .changes
                .iter()
                .filter(|(version, path, ..)| *version > since && is_in(collection, path))
                .map(|(_, _, how, object)| json!({"type": how, "object": object}).to_string())
                .collect();
            if !lines.is_empty() {
                return lines.join("\n") + "\n";
            }
            changed.changed().await.unwrap();
        }
    }
}

impl Inner {
    fn instead(&mut self, asked: &str) -> Option<(u16, Value)> {
        let at = self.instead.iter().position(|(request, ..)| asked.starts_with(request))?;
        let (_, status, answer) = self.instead.remove(at);
        Some((status, answer))
    }

    /// Keeps an object under a version of its own, unless it is there just so.
    fn store(&mut self, path: &str, mut object: Value) -> Value {
        let before = self.objects.get(path);
        object["metadata"]["resourceVersion"] =
            before.map_or(Value::Null, |before| before["metadata"]["resourceVersion"].clone());
        if before != Some(&object) {
            if object["metadata"]["uid"].is_null() {
                object["metadata"]["uid"] = format!("uid-{}", self.version + 1).into();
            }
            let how = if before.is_some() { "MODIFIED" } else { "ADDED" };
            self.version += 1;
            object["metadata"]["resourceVersion"] = self.version.to_string().into();
            self.changes.push((self.version, path.to_owned(), how, object.clone()));
            self.objects.insert(path.to_owned(), object.clone());
        }
        object
    }

    fn remove(&mut self, path: &str) {
        let mut object = self.objects.remove(path).unwrap();
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.changes.push((self.version, path.to_owned(), "DELETED", object));
    }

    fn list(&self, collection: &str) -> Vec<Value> {
        self.objects.iter().filter(|(path, _)| is_in(collection, path)).map(|(_, object)| object.clone()).collect()
    }

    fn read(&self, path: &str) -> (u16, Value) {
        if split(path).is_none() {
            let version = self.version.to_string();
            return (200, json!({"metadata": {"resourceVersion": version}, "items": self.list(path)}));
        }
        self.objects.get(path).map_or_else(|| (404, failure(404, "NotFound")), |object| (200, object.clone()))
    }

    fn create(&mut self, path: &str, body: &Value) -> (u16, Value) {
        if let Some(pod) = path.strip_suffix("/eviction") {
            return self.delete(pod, &body["deleteOptions"]);
        }
        let path = format!("{path}/{}", body["metadata"]["name"].as_str().unwrap_or_default());
        if self.objects.contains_key(&path) {
            return (409, failure(409, "AlreadyExists"));
        }
        (201, self.store(&path, body.clone()))
    }

    /// Only the version that was read can be replaced.
    fn replace(&mut self, path: &str, body: &Value) -> (u16, Value) {
        match self.objects.get(path) {
            None => (404, failure(404, "NotFound")),
            Some(there) if there["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"] => {
                (409, failure(409, "Conflict"))
            }
            Some(_) => (200, self.store(path, body.clone())),
        }
    }

    fn apply(&mut self, path: &str, body: &Value) -> (u16, Value) {
        let (path, is_status) = path.strip_suffix("/status").map_or((path, false), |path| (path, true));
        let there = self.objects.get(path);
        let wanted = &body["metadata"]["uid"];
        if is_status && there.is_none() {
            return (404, failure(404, "NotFound"));
        }
        if !wanted.is_null() && there.is_none_or(|there| there["metadata"]["uid"] != *wanted) {
            return (409, failure(409, "Conflict"));
        }
        let mut object = there.cloned().unwrap_or_else(|| json!({}));
        if let Some(status) = body.get("status") {
            // Whoever writes the policies of a cluster's status writes nothing else, and nobody else writes those.
            let policies = object["status"]["policies"].clone();
            if status.get("policies").is_some_and(|_| status.as_object().unwrap().len() == 1) {
                object["status"]["policies"] = status["policies"].clone();
            } else {
                object["status"] = status.clone();
                if !policies.is_null() {
                    object["status"]["policies"] = policies;
                }
            }
        } else {
            merge(&mut object, body);
        }
        (200, self.store(path, object))
    }

    fn delete(&mut self, path: &str, options: &Value) -> (u16, Value) {
        let wanted = &options["preconditions"]["uid"];
        match self.objects.get(path) {
            None => (404, failure(404, "NotFound")),
            Some(object) if !wanted.is_null() && *wanted != object["metadata"]["uid"] => {
                (409, failure(409, "Conflict"))
            }
            Some(_) => {
                self.remove(path);
                (200, json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}))
            }
        }
    }
}

impl Held {
    /// From now on the owner's policies are exactly these.
    fn apply(&mut self, owner: &str, policies: &[Value]) {
        let mut rows = self.rows.clone();
        rows.retain(|_, row| row["owner"] != owner);
        for policy in policies {
            let metadata = &policy["metadata"];
            let name = [&metadata["namespace"], &metadata["name"]].map(|text| text.as_str().unwrap()).join("/");
            let before = self.rows.get(&name).filter(|row| row["owner"] == owner && row["spec"] == policy["spec"]);
            let revision = before.map_or(json!(self.revision + 1), |row| row["revision"].clone());
            rows.insert(
                name,
                json!({"metadata": metadata, "spec": policy["spec"], "owner": owner, "revision": revision}),
            );
        }
        if rows != self.rows {
            self.revision += 1;
            self.rows = rows;
        }
    }
}

/// The collection of an object, in its namespace and in all: `…/namespaces/shop/pods/edge-0`. `None` for a collection.
fn split(path: &str) -> Option<(String, String)> {
    let (above, below) = path.split_once("/namespaces/")?;
    let mut words = below.split('/');
    let (namespace, plural, _) = (words.next()?, words.next()?, words.next()?);
    Some((format!("{above}/namespaces/{namespace}/{plural}"), format!("{above}/{plural}")))
}

fn is_in(collection: &str, path: &str) -> bool {
    split(path).is_some_and(|(own, all)| collection == own || collection == all)
}

/// An answer that says no.
pub fn failure(code: u16, reason: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": reason, "reason": reason, "code": code})
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, from) => from.clone_into(into),
    }
}

async fn node(
    State(world): State<World>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> axum::response::Response {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let address: std::net::SocketAddrV4 = host.parse().unwrap();
    let number = address.ip().octets()[3];
    let mut inner = world.inner();
    if method == Method::GET {
        inner.reads.push(format!("node {} {}", number - 1, uri.path()));
    } else {
        inner.writes.push(format!("{method} node {} {}", number - 1, uri.path()));
    }
    if let Some((status, answer)) = inner.instead(&format!("{method} node {} {}", number - 1, uri.path())) {
        return (StatusCode::from_u16(status).unwrap(), axum::Json(answer)).into_response();
    }
    let Some(mut said) = inner.nodes.get(&number).cloned() else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let held = &mut inner.held;
    match (method, uri.path()) {
        (Method::POST, "/v1/policies:apply") => {
            let set: Value = serde_json::from_slice(&body).unwrap();
            if set["clusterId"] == said["clusterId"] {
                held.apply(set["owner"].as_str().unwrap(), set["policies"].as_array().unwrap());
                return axum::Json(json!({"revision": held.revision})).into_response();
            }
        }
        (Method::GET, "/v1/policies") => {
            let mut rows: Vec<_> = held.rows.values().cloned().collect();
            for row in rows.iter_mut().filter(|_| !held.besides.is_null()) {
                merge(&mut row["spec"], &held.besides);
            }
            return axum::Json(json!({"revision": held.revision, "policies": rows})).into_response();
        }
        (Method::GET, "/v1/denied") => {
            let counts = inner.denied.get(&number).cloned().unwrap_or_else(|| json!({}));
            return axum::Json(json!({"policies": counts, "isComplete": true})).into_response();
        }
        (Method::GET, _) => {
            // Who does not say what it has applied has applied all there is.
            for member in said["members"].as_array_mut().unwrap().iter_mut().filter(|_| held.revision > 0) {
                if member["reachable"] == true && member["appliedRevision"].is_null() {
                    member["appliedRevision"] = held.revision.into();
                }
            }
            if held.revision > 0 {
                said["revision"] = held.revision.into();
            }
            return axum::Json(said).into_response();
        }
        _ => {}
    }
    (StatusCode::CONFLICT, axum::Json(json!({"error": "a scenario says no"}))).into_response()
}
