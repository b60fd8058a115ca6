//! Looks at a cluster all the time while something is done to it: who votes, who leads, and which pod goes when.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinHandle;

use super::space::Space;
use crate::client::Client;
use crate::cluster::pause;

/// Between two looks.
const PACE: Duration = Duration::from_millis(200);

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The fewest committed voters.
    pub voters_min: Option<usize>,
    /// Each operation that the status told of, with the pod that led when it was first seen.
    pub operations: Vec<(String, String)>,
    /// How often the members were looked at.
    pub looks: usize,
}

/// Looks on until it is stopped.
#[derive(Debug)]
pub struct Watcher {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

impl Watcher {
    /// Looks at this cluster: its members by its Service, its operation by the API server.
    pub async fn start(space: &Space<'_>, cluster: &str) -> Self {
        let service = space.service(cluster).await;
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Seen::default())));
        let objects = space.resources("RateLimitCluster");
        let (stopped, noted, name) = (Arc::clone(&stop), Arc::clone(&seen), cluster.to_owned());
        let task = tokio::spawn(async move {
            while !stopped.load(Ordering::Relaxed) {
                let voters = voters(service).await;
                let object = objects.get(&name).await.ok();
                let status = object.map(|object| object.data["status"].clone()).unwrap_or_default();
                note(&noted, voters, &status);
                pause(PACE).await;
            }
        });
        Self { stop, seen, task }
    }

    /// Stops, and tells.
    ///
    /// # Panics
    /// It never saw the members.
    pub async fn stop(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("it does not panic");
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        assert!(seen.looks > 0, "the members were never seen");
        seen
    }
}

/// Voters as any node has them in its log; `None` if none answers this time.
async fn voters(service: SocketAddr) -> Option<usize> {
    let answer = Client::new(service).get("/v1/cluster").await.ok()?;
    let members: Value = serde_json::from_slice(&answer.body).ok()?;
    Some(members["members"].as_array()?.iter().filter(|member| member["role"] == "Voter").count())
}

fn note(seen: &Mutex<Seen>, voters: Option<usize>, status: &Value) {
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(voters) = voters {
        seen.looks += 1;
        seen.voters_min = Some(seen.voters_min.map_or(voters, |min| min.min(voters)));
    }
    let operation = &status["operation"];
    let [kind, pod] = [&operation["kind"], &operation["pod"]].map(|text| text.as_str().unwrap_or_default());
    let operation = format!("{kind} {pod}").trim().to_owned();
    if !operation.is_empty() && seen.operations.last().is_none_or(|(last, _)| *last != operation) {
        let leader = status["leader"].as_str().unwrap_or_default().to_owned();
        seen.operations.push((operation, leader));
    }
}
