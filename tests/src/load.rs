//! Load on a cluster: many keep-alive connections, and what became of every request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use hyper::Method;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::client::{Client, Outcome};

/// What to send, and how hard.
#[derive(Clone, Debug)]
pub struct Load {
    /// Spread evenly over the connections.
    pub targets: Vec<SocketAddr>,
    /// Each has one request on its way at a time.
    pub connections: usize,
    /// In all; the load ends after so many, or when it is stopped.
    pub requests: u64,
    /// All requests are `POST`s of this path,
    pub path: String,
    /// with this JSON body, or none.
    pub body: Value,
}

/// All clients ask for a path at once, so often each; the statuses of their answers.
///
/// # Panics
/// A request has no answer.
pub async fn statuses(clients: Vec<Client>, path: &'static str, times: usize) -> Vec<u16> {
    let mut asking = JoinSet::new();
    for mut client in clients {
        asking.spawn(async move {
            let mut statuses = vec![];
            for _ in 0..times {
                statuses.push(client.get(path).await.expect("an answer").status);
            }
            statuses
        });
    }
    asking.join_all().await.concat()
}

/// How many of them are this one.
#[must_use]
pub fn count(statuses: &[u16], status: u16) -> usize {
    statuses.iter().filter(|other| **other == status).count()
}

/// One request.
#[derive(Clone, Debug)]
pub struct Record {
    /// The index of the target that answered.
    pub target: usize,
    /// Just before it was sent.
    pub started: Instant,
    /// Just after its answer was read.
    pub ended: Instant,
    /// What became of it.
    pub outcome: Outcome,
    /// The policies' revision it was judged by, where the answer names it.
    pub revision: Option<u64>,
    /// The limit of the first limit in the answer, where it names one.
    pub limit: Option<u64>,
    /// What went wrong, for one that failed or was unavailable.
    pub problem: Option<String>,
}

impl Record {
    /// Whether it was admitted or denied.
    #[must_use]
    pub fn is_decided(&self) -> bool {
        matches!(self.outcome, Outcome::Admitted | Outcome::Denied)
    }
}

/// All requests of a load, in no order.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The requests.
    pub records: Vec<Record>,
}

impl History {
    /// How many had this outcome.
    #[must_use]
    pub fn count(&self, outcome: Outcome) -> u64 {
        self.records.iter().filter(|record| record.outcome == outcome).count() as u64
    }

    /// How many were admitted.
    #[must_use]
    pub fn admitted(&self) -> u64 {
        self.count(Outcome::Admitted)
    }

    /// How many may have been charged without an admission being known.
    #[must_use]
    pub fn unknown(&self) -> u64 {
        self.count(Outcome::Unavailable) + self.count(Outcome::Failed)
    }

    /// The first few problems, for a message.
    #[must_use]
    pub fn problems(&self) -> Vec<&str> {
        self.records.iter().filter_map(|record| record.problem.as_deref()).take(5).collect()
    }
}

/// Counts that can be looked at while the load runs.
#[derive(Debug, Default)]
struct Progress {
    sent: AtomicU64,
    admitted: AtomicU64,
    denied: AtomicU64,
    stop: AtomicBool,
}

/// A load under way. Ends when dropped.
#[derive(Debug)]
pub struct Running {
    progress: Arc<Progress>,
    tasks: JoinSet<Vec<Record>>,
}

impl Load {
    /// `/rate/increment` of one client by 64 connections.
    #[must_use]
    pub fn increments(targets: Vec<SocketAddr>, client_id: &str) -> Self {
        let path = format!("/rate/increment?client_id={client_id}");
        Self { targets, connections: 64, requests: u64::MAX, path, body: Value::Null }
    }

    /// Starts it.
    #[must_use]
    pub fn start(self) -> Running {
        let progress = Arc::new(Progress::default());
        let mut tasks = JoinSet::new();
        for connection in 0..self.connections {
            let client = Client::across(self.targets.clone(), connection);
            tasks.spawn(self.clone().drive(client, Arc::clone(&progress)));
        }
        Running { progress, tasks }
    }

    /// Runs it to its end.
    pub async fn run(self) -> History {
        assert!(self.requests < u64::MAX, "a load without an end must be started and stopped");
        self.start().finish().await
    }

    async fn drive(self, mut client: Client, progress: Arc<Progress>) -> Vec<Record> {
        let mut records = vec![];
        let body = if self.body.is_null() { Bytes::new() } else { Bytes::from(self.body.to_string()) };
        while !progress.stop.load(Ordering::Relaxed) && progress.sent.fetch_add(1, Ordering::Relaxed) < self.requests {
            let started = Instant::now();
            let answer = client.send(Method::POST, &self.path, body.clone()).await;
            let mut record = Record {
                target: client.last_target(),
                started,
                ended: Instant::now(),
                outcome: answer.as_ref().map_or(Outcome::Failed, Outcome::of),
                revision: None,
                limit: None,
                problem: None,
            };
            match (record.outcome, answer) {
                (Outcome::Admitted | Outcome::Denied, Ok(answer)) if !self.body.is_null() => {
                    let body: Value = answer.json();
                    record.revision = body["revision"].as_u64();
                    record.limit = body["limits"][0]["limit"].as_u64();
                }
                (Outcome::Unavailable | Outcome::Failed, Ok(answer)) => {
                    record.problem = Some(format!("{} {}", answer.status, answer.text()));
                }
                (_, Err(unanswered)) => record.problem = Some(unanswered.to_string()),
                _ => {}
            }
            match record.outcome {
                Outcome::Admitted => progress.admitted.fetch_add(1, Ordering::Relaxed),
                Outcome::Denied => progress.denied.fetch_add(1, Ordering::Relaxed),
                _ => 0,
            };
            records.push(record);
        }
        records
    }
}

impl Running {
    /// Admitted so far.
    #[must_use]
    pub fn admitted(&self) -> u64 {
        self.progress.admitted.load(Ordering::Relaxed)
    }

    /// Denied so far.
    #[must_use]
    pub fn denied(&self) -> u64 {
        self.progress.denied.load(Ordering::Relaxed)
    }

    /// Waits until all requests have their outcome.
    pub async fn finish(self) -> History {
        History { records: self.tasks.join_all().await.into_iter().flatten().collect() }
    }

    /// Sends no more, and waits for the answers to what was sent.
    pub async fn stop(self) -> History {
        self.progress.stop.store(true, Ordering::Relaxed);
        self.finish().await
    }
}
