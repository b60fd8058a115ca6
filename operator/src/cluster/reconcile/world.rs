//! An API server and nodes in memory, for the scenarios: it keeps objects, records writes, and answers some requests as it
//! is told to. It knows as much of Kubernetes as the scenarios need.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::extract::{Request as NodeRequest, State};
use axum::http::header::HOST;
use axum::http::{Method, Request, Response, StatusCode};
use axum::response::IntoResponse;
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tower::service_fn;

use crate::limiter::{Limiters, Ports};
use crate::sync::lock;

/// The namespace of everything.
pub const NAMESPACE: &str = "shop";

#[derive(Default)]
struct Inner {
    /// By path: `/api/v1/namespaces/shop/pods/edge-0`.
    objects: BTreeMap<String, Value>,
    /// What was written, in order: method and path.
    writes: Vec<String>,
    /// Answers instead of what would be: the beginning of method and path, and the answer, once each.
    instead: Vec<(String, u16, Value)>,
    /// What the node of each pod says, by the last number of its address.
    nodes: HashMap<u8, Value>,
}

/// The whole of it.
#[derive(Clone, Default)]
pub struct World(Arc<Mutex<Inner>>);

impl World {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        lock(&self.0)
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
                let (status, answer) = world.answer(&head.method, head.uri.path(), head.uri.query(), &body);
                let answer = Body::from(serde_json::to_vec(&answer).unwrap());
                Ok::<_, std::convert::Infallible>(Response::builder().status(status).body(answer).unwrap())
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

    pub fn put(&self, path: &str, object: Value) {
        self.inner().objects.insert(path.to_owned(), object);
    }

    pub fn get(&self, path: &str) -> Option<Value> {
        self.inner().objects.get(path).cloned()
    }

    pub fn change(&self, path: &str, change: &Value) {
        merge(self.inner().objects.get_mut(path).unwrap(), change);
    }

    /// The next request that begins like this is answered so.
    pub fn answer_instead(&self, request: &str, status: u16, body: Value) {
        self.inner().instead.push((request.to_owned(), status, body));
    }

    /// What the node of this pod says from now on; `None`: it does not answer.
    pub fn node_says(&self, ordinal: u8, answer: Option<Value>) {
        let mut inner = self.inner();
        match answer {
            Some(answer) => inner.nodes.insert(ordinal + 1, answer),
            None => inner.nodes.remove(&(ordinal + 1)),
        };
    }

    /// What was written since the last question, without Events.
    pub fn writes(&self) -> Vec<String> {
        let mut writes = std::mem::take(&mut self.inner().writes);
        writes.retain(|write| !write.contains("/events"));
        writes
    }

    fn answer(&self, method: &Method, path: &str, query: Option<&str>, body: &Value) -> (u16, Value) {
        let mut inner = self.inner();
        if *method != Method::GET {
            inner.writes.push(format!("{method} {path}"));
        }
        let asked = format!("{method} {path}?{}", query.unwrap_or_default());
        if let Some(at) = inner.instead.iter().position(|(request, ..)| asked.starts_with(request)) {
            let (_, status, answer) = inner.instead.remove(at);
            return (status, answer);
        }
        match *method {
            Method::GET => inner.read(path),
            Method::POST => inner.create(path, body),
            Method::PATCH => inner.apply(path, body),
            Method::DELETE => inner.delete(path, body),
            _ => (405, Value::Null),
        }
    }
}

impl Inner {
    fn read(&self, path: &str) -> (u16, Value) {
        if let Some(object) = self.objects.get(path) {
            return (200, object.clone());
        }
        // `…/namespaces/shop/pods` is a list, `…/namespaces/shop/pods/edge-0` is not.
        if path.split('/').rev().nth(1) == Some(NAMESPACE) {
            let below = format!("{path}/");
            let items: Vec<_> = self.objects.iter().filter(|(p, _)| p.starts_with(&below)).map(|(_, o)| o).collect();
            return (200, json!({"metadata": {"resourceVersion": "1"}, "items": items}));
        }
        (404, failure(404, "NotFound"))
    }

    fn create(&mut self, path: &str, body: &Value) -> (u16, Value) {
        if let Some(pod) = path.strip_suffix("/eviction") {
            return self.delete(pod, &body["deleteOptions"]);
        }
        let path = format!("{path}/{}", body["metadata"]["name"].as_str().unwrap_or_default());
        if self.objects.contains_key(&path) {
            return (409, failure(409, "AlreadyExists"));
        }
        self.objects.insert(path, body.clone());
        (201, body.clone())
    }

    fn apply(&mut self, path: &str, body: &Value) -> (u16, Value) {
        let path = path.strip_suffix("/status").unwrap_or(path);
        let wanted = &body["metadata"]["uid"];
        let there = self.objects.get(path).map_or(&Value::Null, |object| &object["metadata"]["uid"]);
        if !wanted.is_null() && wanted != there {
            return (409, failure(409, "Conflict"));
        }
        let object = self.objects.entry(path.to_owned()).or_insert_with(|| json!({}));
        if let Some(status) = body.get("status") {
            object["status"] = status.clone();
        } else {
            merge(object, body);
        }
        (200, object.clone())
    }

    fn delete(&mut self, path: &str, options: &Value) -> (u16, Value) {
        let wanted = &options["preconditions"]["uid"];
        match self.objects.get(path) {
            None => (404, failure(404, "NotFound")),
            Some(object) if !wanted.is_null() && *wanted != object["metadata"]["uid"] => {
                (409, failure(409, "Conflict"))
            }
            Some(_) => {
                self.objects.remove(path);
                (200, json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}))
            }
        }
    }
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

async fn node(State(world): State<World>, request: NodeRequest) -> axum::response::Response {
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let address: std::net::SocketAddrV4 = host.parse().unwrap();
    let number = address.ip().octets()[3];
    let mut inner = world.inner();
    if request.method() != Method::GET {
        inner.writes.push(format!("{} node {} {}", request.method(), number - 1, request.uri().path()));
        let words = json!({"error": "a scenario says no"});
        return (StatusCode::CONFLICT, axum::Json(words)).into_response();
    }
    match inner.nodes.get(&number) {
        Some(answer) => axum::Json(answer.clone()).into_response(),
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}
