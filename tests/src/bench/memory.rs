//! What a counter costs in memory: the growth of real processes.
//!
//! First the nodes decide about few clients until what does not grow with counters has grown: the log's cache, buffers, the
//! allocator's reserves. Then come as many clients as are to be measured, one decision each, and then so many decisions
//! about the same clients that every node takes a snapshot.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use hyper::Method;

use super::process::Process;
use super::rig::WARM_UP_DOMAIN;
use crate::client::Client;
use crate::cluster::{Cluster, eventually, pause};

/// Counters that are made.
pub const COUNTERS: u32 = 1_000_000;
/// Clients before that.
const FEW: u32 = 1000;
/// Bytes of log that each node writes before that: more than it caches.
const WARM_BYTES: u64 = 192 << 20;
/// Checks in one request, the most there may be.
const CHECKS: u32 = 1000;
/// Requests under way.
const CONNECTIONS: u32 = 8;
/// Bytes a node's memory may still move by while it counts as settled, and for how long.
const SETTLED: (u64, Duration) = (1 << 20, Duration::from_millis(500));
/// More decisions than a snapshot ever waits for, in rounds of all counters.
const ROUNDS_MAX: u32 = 60;

/// What was found; bytes for each counter, the mean of the nodes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Memory {
    /// With all counters.
    pub held: f64,
    /// The most while a snapshot was taken under load.
    pub snapshot_peak: f64,
    /// A whole node with all counters, in bytes.
    pub node: f64,
}

/// Measures it on a cluster of its own.
///
/// # Errors
/// A node fails, or a request is not admitted.
pub async fn measure() -> Result<Memory, String> {
    let cluster = super::rig::cluster().await?;
    let targets = cluster.addresses();
    let begun = written(&cluster)?;
    while written(&cluster)? - begun < WARM_BYTES * targets.len() as u64 {
        decide(&targets, WARM_UP_DOMAIN, FEW, 500).await?;
    }
    let before = settled(&cluster).await?;
    decide(&targets, "default", COUNTERS, COUNTERS / CHECKS).await?;
    for node in cluster.nodes() {
        let wanted = f64::from(COUNTERS + FEW);
        eventually(Duration::from_secs(30), "every node holds all counters", async || {
            let held = figure(node.client(), "quorate_counters ").await?;
            if held >= wanted { Ok(()) } else { Err(format!("{} holds {held}", node.name())) }
        })
        .await;
    }
    let held = settled(&cluster).await?;
    let snapshots = snapshots(&cluster).await?;
    for process in processes(&cluster) {
        process.forget_peak()?;
    }
    let mut rounds = 0;
    while !self::snapshots(&cluster).await?.iter().zip(&snapshots).all(|(now, then)| now > then) {
        decide(&targets, "default", COUNTERS, COUNTERS / CHECKS).await?;
        rounds += 1;
        if rounds > ROUNDS_MAX {
            return Err(format!("{ROUNDS_MAX} million decisions, and not every node took a snapshot"));
        }
    }
    let peaks = processes(&cluster).map(Process::memory_peak).collect::<Result<Vec<_>, _>>()?;
    let mean = |of: &[u64]| of.iter().sum::<u64>() as f64 / of.len() as f64;
    let per_counter = |bytes: f64| (bytes - mean(&before)) / f64::from(COUNTERS);
    Ok(Memory { held: per_counter(mean(&held)), snapshot_peak: per_counter(mean(&peaks)), node: mean(&held) })
}

fn processes(cluster: &Cluster) -> impl Iterator<Item = Process> {
    cluster.nodes().iter().map(|node| Process(node.pid()))
}

fn written(cluster: &Cluster) -> Result<u64, String> {
    processes(cluster).map(Process::written).sum()
}

/// Each node's memory once it stays what it is.
async fn settled(cluster: &Cluster) -> Result<Vec<u64>, String> {
    let look = || processes(cluster).map(Process::memory).collect::<Result<Vec<_>, _>>();
    let mut last = look()?;
    loop {
        pause(SETTLED.1).await;
        let now = look()?;
        if now.iter().zip(&last).all(|(now, last)| now.abs_diff(*last) <= SETTLED.0) {
            return Ok(now);
        }
        last = now;
    }
}

async fn snapshots(cluster: &Cluster) -> Result<Vec<f64>, String> {
    let mut found = Vec::new();
    for node in cluster.nodes() {
        found.push(figure(node.client(), "quorate_raft_snapshot_index ").await?);
    }
    Ok(found)
}

async fn figure(mut client: Client, name: &str) -> Result<f64, String> {
    let text = client.get("/metrics").await.map_err(|error| error.to_string())?.text();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.parse().ok());
    value.ok_or_else(|| format!("a node does not tell {name}"))
}

/// Sends batches about clients in turn, over all nodes; all must be admitted.
async fn decide(targets: &[SocketAddr], domain: &'static str, clients: u32, batches: u32) -> Result<(), String> {
    let senders: Vec<_> = (0..CONNECTIONS)
        .map(|nth| {
            let mut client = Client::across(targets.to_vec(), nth as usize);
            tokio::spawn(async move {
                for batch in (nth..batches).step_by(CONNECTIONS as usize) {
                    let answer = client.send(Method::POST, "/v1/check", body(domain, clients, batch)).await;
                    let answer = answer.map_err(|error| error.to_string())?.text();
                    if answer.matches(r#""admitted":true"#).count() != CHECKS as usize {
                        return Err(format!("not all admitted: {}", answer.chars().take(300).collect::<String>()));
                    }
                }
                Ok(())
            })
        })
        .collect();
    for sender in senders {
        sender.await.map_err(|error| error.to_string())??;
    }
    Ok(())
}

fn body(domain: &str, clients: u32, batch: u32) -> Bytes {
    let mut body = String::from(r#"{"checks":["#);
    for at in 0..CHECKS {
        let client = (batch * CHECKS + at) % clients;
        let comma = if at == 0 { "" } else { "," };
        // Writing to memory cannot fail.
        let _ = write!(
            body,
            r#"{comma}{{"domain":"{domain}","descriptors":[[{{"key":"client_id","value":"client-{client}"}}]]}}"#
        );
    }
    body.push_str("]}");
    body.into()
}
