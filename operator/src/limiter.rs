//! How the operator speaks to limiter nodes: HTTP to a pod's address, one call a method, each with a deadline and a bounded
//! answer. Nothing is tried again here: whoever calls looks at the world anew and decides.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Body as _;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use quorate_crds::api::{
    BootstrapAnswer, BootstrapBody, ClusterAnswer, DecommissionAnswer, DeniedAnswer, ErrorBody, Fault, FoundingMember,
    HexId, OwnerName, PolicyChanged, PolicySet, TransferAnswer, TransferBody,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cluster::build::{ADMIN_PORT, HTTP_PORT};

/// How long a connection may take. Addresses of pods that are gone answer nothing at all.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(1);
/// How long a node may take to say how things are. It asks the other members meanwhile, for at most 300 ms.
pub const LOOK_DEADLINE: Duration = Duration::from_secs(2);
/// How long a node may take for a change; it gives up itself after 10 s.
pub const CHANGE_DEADLINE: Duration = Duration::from_secs(12);
/// How long a connection may be idle before it is closed, or up to twice that. A node would keep it for ten minutes.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// The most bytes of an answer: all of a cluster's policies fit, with what the node says of each.
pub const ANSWER_BYTES_MAX: usize = 64 << 20;
/// The most bytes of a node's words that an error repeats.
const WORDS_BYTES_MAX: usize = 2048;

/// A node to speak to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its pod.
    pub pod: String,
    /// The pod's address. Kubernetes gives an address to another pod once this one is gone, so whoever changes something
    /// names the cluster or the node it is for.
    pub ip: IpAddr,
}

impl Target {
    /// The node of a pod: from when the pod has an address, which may be before its phase says that it runs, until it has
    /// ended, since its address may be another's then.
    #[must_use]
    pub fn of(pod: &Pod) -> Option<Self> {
        let status = pod.status.as_ref()?;
        if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
            return None;
        }
        Some(Self { pod: pod.metadata.name.clone()?, ip: status.pod_ip.as_ref()?.parse().ok()? })
    }

    /// Whether the pod itself gave this answer, and not another that has its address by now.
    #[must_use]
    pub fn gave(&self, answer: &ClusterAnswer) -> bool {
        let own = answer.members.iter().find(|member| member.id == answer.node);
        own.is_none_or(|member| member.name == self.pod)
    }
}

/// The ports on which nodes listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Data: what can be read.
    pub http: u16,
    /// Changes of policies and members.
    pub admin: u16,
}

impl Default for Ports {
    /// Those of the pods that the operator builds.
    fn default() -> Self {
        Self { http: HTTP_PORT, admin: ADMIN_PORT }
    }
}

/// A client of all nodes. Connections are kept and shared; clones are the same client.
#[derive(Clone, Debug)]
pub struct Limiters {
    http: Client<HttpConnector, Full<Bytes>>,
    ports: Ports,
}

impl Limiters {
    /// A client of nodes that listen on these ports.
    #[must_use]
    pub fn new(ports: Ports) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_DEADLINE));
        connector.set_nodelay(true);
        // Addresses come and go with pods. Without a timer nothing would close what is idle.
        let mut pool = Client::builder(TokioExecutor::new());
        let http = pool.pool_idle_timeout(IDLE_MAX).pool_timer(TokioTimer::new()).build(connector);
        Self { http, ports }
    }

    /// `GET /v1/cluster`: the members as this node sees them, and how far each says it is.
    ///
    /// # Errors
    /// The node gave no such answer in time.
    pub async fn cluster(&self, target: &Target) -> Result<ClusterAnswer, CallError> {
        self.look(target, "/v1/cluster").await
    }

    /// `GET /v1/policies`: the policies this node has applied, of all owners.
    ///
    /// # Errors
    /// The node gave no such answer in time.
    pub async fn policies(&self, target: &Target) -> Result<PolicyRows, CallError> {
        self.look(target, "/v1/policies").await
    }

    /// `GET /v1/denied`: how often each policy denied on this node since its start, by `namespace/name`.
    ///
    /// # Errors
    /// The node gave no such answer in time.
    pub async fn denied(&self, target: &Target) -> Result<DeniedAnswer, CallError> {
        self.look(target, "/v1/denied").await
    }

    /// `POST /v1/policies:apply`: from the answer on, the owner's policies are exactly these.
    ///
    /// # Errors
    /// The node refused, or gave no answer in time; in the latter case the change may have been made.
    pub async fn apply_policies<P: Serialize>(
        &self,
        target: &Target,
        set: &PolicySet<P>,
    ) -> Result<PolicyChanged, CallError> {
        self.change(target, Method::POST, "/v1/policies:apply", Some(set)).await
    }

    /// `POST /v1/cluster/bootstrap`: founds a cluster with exactly these members, id to pod. Again with the same is no
    /// error.
    ///
    /// # Errors
    /// The node refused, or gave no answer in time; in the latter case the founding may have begun.
    pub async fn bootstrap(
        &self,
        target: &Target,
        members: &BTreeMap<u64, String>,
    ) -> Result<BootstrapAnswer, CallError> {
        let members = members.iter().map(|(id, name)| FoundingMember { id: HexId(*id), name: name.clone() }).collect();
        self.change(target, Method::POST, "/v1/cluster/bootstrap", Some(&BootstrapBody { members })).await
    }

    /// `PUT /v1/cluster/members/{id}/decommission`: the member is to leave. Again is no error.
    ///
    /// # Errors
    /// The node refused, or gave no answer in time; in the latter case the intent may have been noted.
    pub async fn decommission(&self, target: &Target, member: HexId) -> Result<DecommissionAnswer, CallError> {
        self.change(target, Method::PUT, &format!("/v1/cluster/members/{member}/decommission"), None::<&()>).await
    }

    /// `POST /v1/cluster/transfer-leader`, at the leader: `to` is to lead, or whichever voter is the furthest.
    ///
    /// # Errors
    /// The node refused, or gave no answer in time; in the latter case the leader may have changed.
    pub async fn transfer_leader(&self, target: &Target, to: Option<HexId>) -> Result<TransferAnswer, CallError> {
        self.change(target, Method::POST, "/v1/cluster/transfer-leader", Some(&TransferBody { to })).await
    }

    async fn look<A: DeserializeOwned>(&self, target: &Target, path: &str) -> Result<A, CallError> {
        let address = SocketAddr::new(target.ip, self.ports.http);
        self.call(&Route { pod: &target.pod, address, method: Method::GET, path }, Bytes::new(), LOOK_DEADLINE).await
    }

    async fn change<B: Serialize, A: DeserializeOwned>(
        &self,
        target: &Target,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<A, CallError> {
        let route = Route { pod: &target.pod, address: SocketAddr::new(target.ip, self.ports.admin), method, path };
        let body = match body.map(serde_json::to_vec).transpose() {
            Ok(body) => body.unwrap_or_default().into(),
            Err(error) => return Err(route.failed(Failure::NotSent(error.to_string()))),
        };
        self.call(&route, body, CHANGE_DEADLINE).await
    }

    async fn call<A: DeserializeOwned>(
        &self,
        route: &Route<'_>,
        body: Bytes,
        deadline: Duration,
    ) -> Result<A, CallError> {
        let exchange = tokio::time::timeout(deadline, self.exchange(route, body));
        let (status, body) = match exchange.await {
            Ok(answer) => answer.map_err(|failure| route.failed(failure))?,
            Err(_) => return Err(route.failed(Failure::Late(deadline))),
        };
        if !status.is_success() {
            let ErrorBody { error, faults } = said(&body);
            return Err(route.failed(Failure::Refused { status, words: error, faults }));
        }
        serde_json::from_slice(&body).map_err(|error| route.failed(Failure::Unreadable(error.to_string())))
    }

    async fn exchange(&self, route: &Route<'_>, body: Bytes) -> Result<(StatusCode, Bytes), Failure> {
        let mut request = Request::new(Full::new(body));
        let uri = format!("http://{}{}", route.address, route.path);
        *request.uri_mut() = uri.parse().map_err(|error| Failure::NotSent(format!("{uri}: {error}")))?;
        *request.method_mut() = route.method.clone();
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let response = self.http.request(request).await.map_err(|error| {
            let text = causes(&error);
            if error.is_connect() { Failure::NotSent(text) } else { Failure::BrokeOff(text) }
        })?;
        let status = response.status();
        if response.body().size_hint().lower() > ANSWER_BYTES_MAX as u64 {
            return Err(Failure::TooLong);
        }
        match Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await {
            Ok(body) => Ok((status, body.to_bytes())),
            Err(error) if error.is::<LengthLimitError>() => Err(Failure::TooLong),
            Err(error) => Err(Failure::BrokeOff(causes(&*error))),
        }
    }
}

/// The answer of `GET /v1/policies` as far as any version of a limiter words it alike: a newer one may know more of a
/// policy than this operator.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct PolicyRows {
    /// The revision of the whole table.
    pub revision: u64,
    /// All policies.
    pub policies: Vec<PolicyRow>,
}

/// A policy that a node listed.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct PolicyRow {
    /// Its name and namespace.
    pub metadata: ObjectMeta,
    /// What it says.
    pub spec: Value,
    /// The revision it came into force with.
    pub revision: u64,
    /// Who wrote it.
    pub owner: OwnerName,
}

/// One call, for its errors.
struct Route<'a> {
    pod: &'a str,
    address: SocketAddr,
    method: Method,
    path: &'a str,
}

impl Route<'_> {
    fn failed(&self, failure: Failure) -> CallError {
        CallError {
            pod: self.pod.to_owned(),
            address: self.address,
            route: format!("{} {}", self.method, self.path),
            failure,
        }
    }
}

/// A call without the answer it was made for.
#[derive(Clone, Debug, thiserror::Error)]
#[error("pod {pod} at {address}, {route}: {failure}")]
pub struct CallError {
    /// The pod that was called.
    pub pod: String,
    /// Where.
    pub address: SocketAddr,
    /// Method and path.
    pub route: String,
    /// What went wrong.
    pub failure: Failure,
}

/// What went wrong with a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It was never sent.
    NotSent(String),
    /// It was sent, and the connection ended.
    BrokeOff(String),
    /// No answer came in time.
    Late(Duration),
    /// The answer had more than [`ANSWER_BYTES_MAX`].
    TooLong,
    /// The node said no.
    Refused {
        /// The answer's status.
        status: StatusCode,
        /// The node's own words.
        words: String,
        /// The fields of the body that it found fault with, if it was that.
        faults: Vec<Fault>,
    },
    /// The answer is not of the shape it should have.
    Unreadable(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSent(error) => write!(f, "cannot be reached: {error}"),
            Self::BrokeOff(error) => write!(f, "broke off: {error}"),
            Self::Late(deadline) => write!(f, "gave no answer within {deadline:?}"),
            Self::TooLong => write!(f, "answered with more than {ANSWER_BYTES_MAX} bytes"),
            Self::Refused { status, words, .. } => write!(f, "answered {status}: {words}"),
            Self::Unreadable(error) => write!(f, "answered what this operator cannot read: {error}"),
        }
    }
}

/// What a node said when it refused, its words cut to a length that a condition can bear.
fn said(body: &[u8]) -> ErrorBody {
    let text = || ErrorBody::from(String::from_utf8_lossy(body).into_owned());
    let ErrorBody { mut error, faults } = serde_json::from_slice(body).unwrap_or_else(|_| text());
    if let Some((end, _)) = error.char_indices().find(|(at, _)| *at >= WORDS_BYTES_MAX) {
        error.truncate(end);
        error.push('…');
    }
    ErrorBody { error, faults }
}

/// An error with all that caused it: hyper's own text leaves that out.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests;
