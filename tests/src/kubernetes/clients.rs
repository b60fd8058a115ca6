//! Plain clients of a cluster's Service: connections that are kept alive, one request at a time on each, and nothing tried
//! twice. Whatever a limiter or its pod does, these must not notice.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::task::JoinSet;

use crate::client::{Client, Outcome};
use crate::cluster::pause;

/// How long a client keeps a connection that it does not use. Stated with each figure: a limiter that stops waits for idle
/// connections of clients that have been told, and a client that keeps them longer than that would find them closed.
pub const IDLE: Duration = Duration::from_secs(5);
/// Problems that are kept to be shown.
const PROBLEMS_MAX: usize = 8;

/// Clients, and what they ask for.
#[derive(Clone, Debug)]
pub struct Clients {
    target: SocketAddr,
    path: String,
    kinds: Vec<(usize, Duration)>,
}

/// What became of all requests.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// They may go on.
    pub admitted: u64,
    /// They may not; nothing was charged.
    pub denied: u64,
    /// A limiter said that it does not know.
    pub unavailable: u64,
    /// No answer, or no understandable one.
    pub failed: u64,
    /// The longest that one took.
    pub slowest: Duration,
    /// The first few that were unavailable or failed, and when.
    pub problems: Vec<String>,
}

/// Clients at work. They end when this is dropped.
#[derive(Debug)]
pub struct Running {
    stop: Arc<AtomicBool>,
    tasks: JoinSet<Tally>,
}

impl Clients {
    /// `POST /rate/increment` for one client id: 12 connections, each with a request every 20 ms, and 6 with one every
    /// 4 s, whose connections are idle for almost as long as they are kept.
    #[must_use]
    pub fn increments(target: SocketAddr, client_id: &str) -> Self {
        let path = format!("/rate/increment?client_id={client_id}");
        Self { target, path, kinds: vec![(12, Duration::from_millis(20)), (6, Duration::from_secs(4))] }
    }

    /// Starts them.
    #[must_use]
    pub fn start(self) -> Running {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        let began = Instant::now();
        for &(count, pace) in &self.kinds {
            for _ in 0..count {
                tasks.spawn(drive(
                    Client::new(self.target).plain(IDLE),
                    self.path.clone(),
                    pace,
                    began,
                    Arc::clone(&stop),
                ));
            }
        }
        Running { stop, tasks }
    }
}

async fn drive(mut client: Client, path: String, pace: Duration, began: Instant, stop: Arc<AtomicBool>) -> Tally {
    let mut tally = Tally::default();
    while !stop.load(Ordering::Relaxed) {
        let sent = Instant::now();
        let answer = client.post(&path, &Value::Null).await;
        let outcome = answer.as_ref().map_or(Outcome::Failed, Outcome::of);
        tally.slowest = tally.slowest.max(sent.elapsed());
        match outcome {
            Outcome::Admitted => tally.admitted += 1,
            Outcome::Denied => tally.denied += 1,
            Outcome::Unavailable => tally.unavailable += 1,
            Outcome::Failed => tally.failed += 1,
        }
        if matches!(outcome, Outcome::Unavailable | Outcome::Failed) && tally.problems.len() < PROBLEMS_MAX {
            let what = answer
                .map_or_else(|reason| reason.to_string(), |answer| format!("{} {}", answer.status, answer.text()));
            let (after, took) = (sent - began, sent.elapsed());
            tally.problems.push(format!(
                "after {:.1} s, a client of a request every {pace:?}, in {took:?}: {what}",
                after.as_secs_f64()
            ));
        }
        // In short steps, so that the slow ones stop too.
        let next = sent + pace;
        while Instant::now() < next && !stop.load(Ordering::Relaxed) {
            pause(Duration::from_millis(50).min(next.saturating_duration_since(Instant::now()))).await;
        }
    }
    tally
}

impl Running {
    /// Sends no more, waits for the answers to what was sent, and counts.
    pub async fn stop(mut self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Tally::default();
        while let Some(tally) = self.tasks.join_next().await {
            all.add(tally.expect("a client does not panic"));
        }
        all
    }
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.admitted += other.admitted;
        self.denied += other.denied;
        self.unavailable += other.unavailable;
        self.failed += other.failed;
        self.slowest = self.slowest.max(other.slowest);
        self.problems.extend(other.problems);
        self.problems.truncate(PROBLEMS_MAX);
    }

    /// Asserts that every request was decided, that a quota beyond what they came to denied none, and that exactly those
    /// admitted are gone from it: `remaining` is what the limiter says is left.
    ///
    /// # Panics
    /// It is not so; the message shows the first few problems.
    pub fn assert_undisturbed(&self, quota: u64, remaining: u64) {
        assert!(self.unavailable + self.failed == 0, "{self}: {:#?}", self.problems);
        assert!(self.admitted > 0, "the load did nothing: {self}");
        assert!(self.admitted < quota, "the quota of {quota} was used up: {self}");
        assert_eq!(self.denied, 0, "denied, though the quota of {quota} was not used up: {self}");
        assert_eq!(quota - self.admitted, remaining, "what is left of {quota} is not what was not admitted: {self}");
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { admitted, denied, unavailable, failed, slowest, .. } = self;
        write!(
            f,
            "{admitted} admitted, {denied} denied, {unavailable} unavailable, {failed} failed, the slowest in {} ms \
             (plain clients, keep-alive, no retries, idle connections kept {} s)",
            slowest.as_millis(),
            IDLE.as_secs()
        )
    }
}
