//! A keep-alive HTTP/1.1 client, and typed helpers for the node's API. It shares no type with the product: a changed word
//! on the wire must fail a test.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::TcpStream;

mod answers;
mod bodies;

use answers::Changed;
pub use answers::{Autopilot, Check, ClusterStatus, LimitStatus, Member, RateCheck, Wait};
pub use bodies::{check_body, limit, policy};

/// Longer than the 3 s after which a node itself gives up.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(6);

/// A request without an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// It was never sent.
    NotSent(String),
    /// It may have been acted upon.
    Unknown(String),
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSent(reason) => write!(f, "not sent: {reason}"),
            Self::Unknown(reason) => write!(f, "sent, but no answer: {reason}"),
        }
    }
}

/// An HTTP answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Answer {
    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body read as JSON.
    ///
    /// # Panics
    /// It is not JSON of this shape.
    #[must_use]
    pub fn json<T: DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {} {}", self.status, self.text()))
    }

    /// A header's value, empty without it.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The answer itself when it has this status.
    ///
    /// # Panics
    /// It has another.
    #[must_use]
    pub fn expect_status(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }
}

/// What became of one request for admission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It may go on.
    Admitted,
    /// It may not; nothing was charged.
    Denied,
    /// The node says that it does not know.
    Unavailable,
    /// No answer, or one that is none of the above; it may have been charged.
    Failed,
}

impl Outcome {
    /// Reads the answer of `/rate/increment` or of one `/v1/check`.
    #[must_use]
    pub fn of(answer: &Answer) -> Self {
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        match (answer.status, body.get("result").or(body.get("admitted")).and_then(Value::as_bool)) {
            (200, Some(true)) => Self::Admitted,
            (200 | 429 | 403, Some(false)) => Self::Denied,
            (503, _) => Self::Unavailable,
            _ => Self::Failed,
        }
    }
}

/// One connection at a time: kept while it lasts, opened anew when it does not, to the next target when the current one
/// refuses it or has closed it in an orderly way.
#[derive(Debug)]
pub struct Client {
    targets: Vec<SocketAddr>,
    current: usize,
    last: usize,
    patience: Duration,
    /// Sent along with each request.
    headers: HeaderMap,
    sender: Option<SendRequest<Full<Bytes>>>,
    /// For a plain client, how long it keeps a connection that it does not use.
    idle: Option<Duration>,
    used: Instant,
}

impl Client {
    /// A client of one node. Connects with the first request.
    #[must_use]
    pub fn new(target: SocketAddr) -> Self {
        Self::across(vec![target], 0)
    }

    /// A client that starts at `targets[first]` and goes on to the next one whenever it must.
    #[must_use]
    pub fn across(targets: Vec<SocketAddr>, first: usize) -> Self {
        let current = first % targets.len();
        Self {
            targets,
            current,
            last: current,
            patience: ANSWER_TIMEOUT,
            headers: HeaderMap::new(),
            sender: None,
            idle: None,
            used: Instant::now(),
        }
    }

    /// Tries nothing twice, as clients do that know nothing of what they talk to. A connection that was idle this long, or
    /// that the other side has closed, is not used again.
    #[must_use]
    pub fn plain(mut self, idle: Duration) -> Self {
        self.idle = Some(idle);
        self
    }

    /// Waits longer, or less long, than 6 s for each answer.
    #[must_use]
    pub fn patient(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Sends this header along with each request, beside others of its name.
    ///
    /// # Panics
    /// The value is none.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &[u8]) -> Self {
        let value = HeaderValue::from_bytes(value).expect("a header's value");
        self.headers.append(HeaderName::from_static(name), value);
        self
    }

    /// The index of the target that the last request was for.
    #[must_use]
    pub fn last_target(&self) -> usize {
        self.last
    }

    /// Sends a request and reads the whole answer. A request that was surely not sent is tried once at each target, unless
    /// the client is [plain](Client::plain).
    ///
    /// # Errors
    /// There is no answer in time, the connection broke, or no target took it.
    pub async fn send(&mut self, method: Method, path: &str, body: Bytes) -> Result<Answer, Unanswered> {
        let mut reason = String::new();
        if let Some(idle) = self.idle {
            self.sender.take_if(|sender| sender.is_closed() || self.used.elapsed() >= idle);
        }
        // Once more than there are targets: the first try may find a kept connection closed.
        let tries = if self.idle.is_some() { 1 } else { self.targets.len() + 1 };
        for _ in 0..tries {
            match tokio::time::timeout(self.patience, self.try_send(&method, path, &body)).await {
                Ok(Err(Unanswered::NotSent(why))) => reason = why,
                Ok(result) => return result,
                Err(_) => {
                    self.move_on();
                    return Err(Unanswered::Unknown(format!("nothing within {:?}", self.patience)));
                }
            }
        }
        Err(Unanswered::NotSent(reason))
    }

    async fn try_send(&mut self, method: &Method, path: &str, body: &Bytes) -> Result<Answer, Unanswered> {
        self.last = self.current;
        let target = self.targets[self.last];
        let mut sender = match self.sender.take() {
            Some(sender) => sender,
            None => connect(target).await.map_err(|reason| {
                self.move_on();
                Unanswered::NotSent(reason)
            })?,
        };
        sender.ready().await.map_err(|error| Unanswered::NotSent(error.to_string()))?;
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, target.to_string())
            .header(CONTENT_TYPE, if body.starts_with(b"{") { "application/json" } else { "application/yaml" })
            .body(Full::new(body.clone()))
            .map_err(|error| Unanswered::NotSent(error.to_string()))?;
        request.headers_mut().extend(self.headers.clone());
        let response = sender.try_send_request(request).await.map_err(|mut failure| {
            if failure.take_message().is_some() {
                return Unanswered::NotSent(failure.into_error().to_string());
            }
            self.move_on();
            Unanswered::Unknown(format!("{:?}", failure.into_error()))
        })?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.into_body().collect().await.map_err(|error| {
            self.move_on();
            Unanswered::Unknown(error.to_string())
        })?;
        if headers.get(CONNECTION).is_some_and(|value| value == "close") {
            self.move_on();
        } else {
            self.sender = Some(sender);
            self.used = Instant::now();
        }
        Ok(Answer { status: status.as_u16(), headers, body: body.to_bytes() })
    }

    fn move_on(&mut self) {
        self.sender = None;
        self.current = (self.current + 1) % self.targets.len();
    }

    /// `GET`.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn get(&mut self, path: &str) -> Result<Answer, Unanswered> {
        self.send(Method::GET, path, Bytes::new()).await
    }

    /// `POST`, with a JSON body unless it is null.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn post(&mut self, path: &str, body: &Value) -> Result<Answer, Unanswered> {
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        self.send(Method::POST, path, body).await
    }

    /// `PUT /v1/cluster/members/{id}/decommission`; only on the admin port.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn decommission(&mut self, id: &str) -> Result<Answer, Unanswered> {
        self.send(Method::PUT, &format!("/v1/cluster/members/{id}/decommission"), Bytes::new()).await
    }

    /// `POST /rate/increment`.
    pub async fn increment(&mut self, client_id: &str) -> Outcome {
        let answer = self.post(&format!("/rate/increment?client_id={client_id}"), &Value::Null).await;
        answer.map_or(Outcome::Failed, |answer| Outcome::of(&answer))
    }

    /// `GET /rate/check`.
    ///
    /// # Errors
    /// There is no answer, or its status is not 200.
    pub async fn check(&mut self, client_id: &str) -> Result<RateCheck, String> {
        read(self.get(&format!("/rate/check?client_id={client_id}")).await)
    }

    /// `POST /v1/check` with one descriptor. Hits 0 peeks.
    ///
    /// # Errors
    /// There is no answer, or its status is neither 200 nor 429.
    pub async fn v1_check(&mut self, entries: &[(&str, &str)], hits: i64) -> Result<Check, String> {
        let answer = self.post("/v1/check", &check_body(entries, hits)).await;
        match answer {
            Ok(answer) if matches!(answer.status, 200 | 429) => Ok(answer.json()),
            other => read(other),
        }
    }

    /// `PUT /v1/policies/{ns}/{name}`; only on the admin port. Returns the revision.
    ///
    /// # Errors
    /// There is no answer, or its status is not 2xx.
    pub async fn put_policy(&mut self, policy: &Value) -> Result<u64, String> {
        let name = policy["metadata"]["name"].as_str().unwrap_or_default();
        let namespace = policy["metadata"]["namespace"].as_str().unwrap_or("default");
        let path = format!("/v1/policies/{namespace}/{name}");
        let changed: Changed = read(self.send(Method::PUT, &path, policy.to_string().into()).await)?;
        Ok(changed.revision)
    }

    /// `DELETE /v1/policies/{ns}/{name}`; only on the admin port. Returns the revision.
    ///
    /// # Errors
    /// There is no answer, or its status is not 2xx.
    pub async fn delete_policy(&mut self, namespace: &str, name: &str) -> Result<u64, String> {
        let path = format!("/v1/policies/{namespace}/{name}");
        let changed: Changed = read(self.send(Method::DELETE, &path, Bytes::new()).await)?;
        Ok(changed.revision)
    }

    /// `GET /v1/cluster`.
    ///
    /// # Errors
    /// There is no answer, or its status is not 200.
    pub async fn cluster_status(&mut self) -> Result<ClusterStatus, String> {
        read(self.get("/v1/cluster").await)
    }

    /// The stats of `GET /raft/stats`.
    ///
    /// # Errors
    /// There is no answer, or its status is not 200.
    pub async fn stats(&mut self) -> Result<BTreeMap<String, String>, String> {
        #[derive(Deserialize)]
        struct Stats {
            stats: BTreeMap<String, String>,
        }
        Ok(read::<Stats>(self.get("/raft/stats").await)?.stats)
    }
}

async fn connect(target: SocketAddr) -> Result<SendRequest<Full<Bytes>>, String> {
    let stream = TcpStream::connect(target).await.map_err(|error| format!("{target}: {error}"))?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    // It ends with the connection; whoever waits for an answer learns why.
    tokio::spawn(connection);
    Ok(sender)
}

fn read<T: DeserializeOwned>(answer: Result<Answer, Unanswered>) -> Result<T, String> {
    let answer = answer.map_err(|unanswered| unanswered.to_string())?;
    if !StatusCode::from_u16(answer.status).is_ok_and(|status| status.is_success()) {
        return Err(format!("{} {}", answer.status, answer.text()));
    }
    Ok(answer.json())
}

#[cfg(test)]
mod tests;
