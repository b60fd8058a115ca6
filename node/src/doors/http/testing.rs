//! Verdicts to word, and a whole node of one to ask.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, Method, Request as HttpRequest, StatusCode};
use http_body_util::BodyExt as _;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use quorate_limits::autopilot::Replacing;
use quorate_limits::{
    Algorithm, Batch, Decision, Enforcement, Limit, LimitState, Part, Policy, PolicyName, Request, Settings,
    StateMachine,
};
use tempfile::TempDir;

use super::{DoorSettings, Doors};
use crate::admission::Verdict;
use crate::config::{DefaultLimit, bucket_policy};
use crate::consensus::Tuning;
use crate::gossip::{ContactList, DnsContacts, UdpDatagrams};
use crate::metrics::Metrics;
use crate::node::{Node, NodeOptions};
use crate::platform::Tokio;
use crate::storage::{DirectoryLock, Disk};
use crate::transport::TcpTransport;

/// A policy `test/{name}` by `client_id` with fixed windows: name, hits, window in milliseconds.
pub(crate) fn policy(name: &str, limits: &[(&str, u64, u64)]) -> Policy {
    let limit = |(name, limit, millis): &(&str, u64, u64)| Limit {
        name: (*name).to_owned(),
        algorithm: Algorithm::FixedWindow,
        limit: *limit,
        window_ns: millis * 1_000_000,
        burst: *limit,
    };
    Policy {
        name: PolicyName { namespace: "test".to_owned(), name: name.to_owned() },
        limits: limits.iter().map(limit).collect(),
        fallback: false,
        ..DefaultLimit { limit: 1, window: Duration::from_secs(1) }.policy()
    }
}

/// The same, only watching.
pub(crate) fn shadow(name: &str, limits: &[(&str, u64, u64)]) -> Policy {
    Policy { enforcement: Enforcement::Shadow, ..policy(name, limits) }
}

/// Where a limit stands that admits: hits left, milliseconds until all are.
pub(crate) fn admits(remaining: u64, reset_millis: u64) -> LimitState {
    LimitState { remaining, reset_ns: reset_millis * 1_000_000, retry_ns: 0, exceeded: false }
}

/// Where a limit stands that does not: hits left, milliseconds until the same request may pass; `None` for never.
pub(crate) fn exceeded(remaining: u64, retry_millis: Option<u64>) -> LimitState {
    let retry_ns = retry_millis.map_or(u64::MAX, |millis| millis * 1_000_000);
    LimitState { remaining, reset_ns: retry_millis.unwrap_or(9_000) * 1_000_000, retry_ns, exceeded: true }
}

/// A verdict by these policies, whose limits stand as told, in order.
pub(crate) fn verdict(policies: Vec<Policy>, limits: Vec<LimitState>) -> Verdict {
    let watching: Vec<bool> = policies
        .iter()
        .flat_map(|policy| policy.limits.iter().map(|_| policy.enforcement == Enforcement::Shadow))
        .collect();
    let admitted = !limits.iter().zip(watching).any(|(limit, watches)| limit.exceeded && !watches);
    let settings = Settings { secret: [7; 16], counters_max: 1000 };
    let mut machine = StateMachine::new(Settings::default());
    machine.apply(&Batch { parts: vec![Part::Found { settings, policies }], ..Batch::default() });
    let rules = machine.rules();
    let matched = rules.match_request(&Request::of_client("a"));
    let counters = matched.charges.iter().map(|charge| charge.counters.len());
    assert_eq!(counters.sum::<usize>(), limits.len(), "one state a limit");
    Verdict::new(rules, matched, Decision { admitted, limits: limits.into() })
}

/// A node of one that runs in this process, with `DEFAULT_LIMIT` of 2 a day.
pub(crate) struct Alone {
    pub data: Router,
    pub admin: Router,
    pub node: Arc<Node<Tokio>>,
    _lock: DirectoryLock,
    _dir: TempDir,
}

impl Alone {
    /// It has founded its cluster and is ready.
    pub async fn ready() -> Self {
        let alone = Self::start(1).await;
        while alone.node.ready().is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        alone
    }

    /// It waits to be told whom to found a cluster with.
    pub async fn unfounded() -> Self {
        Self::start(0).await
    }

    async fn start(bootstrap_expect: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (disk, lock) = Disk::open(dir.path()).unwrap();
        let datagrams = UdpDatagrams::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let options = NodeOptions {
            name: "alone".to_owned(),
            gossip_address: datagrams.local_addr().unwrap(),
            raft_address: "127.0.0.1:1".to_owned(),
            bootstrap_expect,
            first_policies: vec![DefaultLimit { limit: 2, window: Duration::from_hours(24) }.policy(), bucket_policy()],
            counters_max: 1000,
            disk_reserve: 0,
            tuning: Tuning::default(),
            replacing: Replacing::default(),
            drain: Duration::ZERO,
        };
        let contacts = Arc::new(DnsContacts::new(ContactList::default(), None).unwrap());
        let transport = Arc::new(TcpTransport::new());
        let node = Node::start(options, &disk, transport, Arc::new(datagrams), contacts).await.unwrap();
        let doors = Doors::new(Arc::clone(&node), Arc::new(Metrics::new().unwrap()), DoorSettings::default());
        Self { data: doors.data_routes(), admin: doors.admin_routes(), node, _lock: lock, _dir: dir }
    }
}

/// An answer, whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// Reads an answer to its end.
pub(crate) async fn whole(response: axum::http::Response<Body>) -> Answer {
    let (parts, body) = response.into_parts();
    Answer { status: parts.status, headers: parts.headers, body: body.collect().await.unwrap().to_bytes() }
}

/// Asks routes without a connection.
pub(crate) async fn ask(routes: &Router, method: Method, path: &str, body: impl Into<Body>) -> Answer {
    let request = HttpRequest::builder().method(method).uri(path).header(CONTENT_TYPE, "application/json");
    let request = request.body(body.into()).unwrap();
    whole(TowerToHyperService::new(routes.clone()).call(request).await.unwrap()).await
}
