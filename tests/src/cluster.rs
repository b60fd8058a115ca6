//! Local clusters of processes: started, stopped, killed, paused and restarted on the same data.
//!
//! The harness builds nothing. It runs `$RATELIMITER_BIN`, or `target/debug/ratelimiter` of the workspace, and fails when
//! there is none. Each cluster has addresses of its own in 127.0.0.0/8, so clusters never meet, and each node has one of
//! them, so all nodes use the same ports.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub use rustix::process::Signal;
use tempfile::TempDir;

mod node;
mod plan;

pub use node::Node;
pub use plan::{Place, Plan};
use plan::{Subnet, Turn};

/// Ports below the range that the kernel gives to outgoing connections.
pub const DATA_PORT: u16 = 20001;
/// [`DATA_PORT`] + 100, the product's default.
pub const ADMIN_PORT: u16 = 20101;
/// [`DATA_PORT`] + 200, the product's default.
pub const GRPC_PORT: u16 = 20201;
/// Between nodes.
pub const RAFT_PORT: u16 = 21001;
/// Gossip.
pub const GOSSIP_PORT: u16 = 21011;

/// How long a healthy machine may take for what takes milliseconds to seconds: only a failing test waits that long.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Lines of each node's log that a failing test prints.
const LOG_TAIL_LINES: usize = 60;

/// Lets time pass that is part of what a test does to the system. To wait for something, use [`eventually`].
#[expect(clippy::disallowed_methods, reason = "the one place; everything else awaits a condition")]
pub async fn pause(span: Duration) {
    tokio::time::sleep(span).await;
}

/// Asks `probe` until it says `Ok`, and returns that.
///
/// # Panics
/// Not within `deadline`; the message says what was awaited and the probe's last reason.
pub async fn eventually<T>(deadline: Duration, what: &str, mut probe: impl AsyncFnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + deadline;
    loop {
        match probe().await {
            Ok(value) => return value,
            Err(reason) => assert!(Instant::now() < end, "not within {deadline:?}: {what}; last: {reason}"),
        }
        pause(Duration::from_millis(10)).await;
    }
}

/// The product's binary.
///
/// # Panics
/// There is none; the message says how to build it.
#[must_use]
pub fn binary() -> PathBuf {
    let path = std::env::var_os("RATELIMITER_BIN").map_or_else(
        || {
            let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace");
            let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), PathBuf::from);
            target.join("debug").join("ratelimiter")
        },
        PathBuf::from,
    );
    assert!(
        path.is_file(),
        "there is no limiter at {}: build it with `cargo build -p quorate-node`, or name one in RATELIMITER_BIN",
        path.display()
    );
    path
}

/// A cluster of processes; they end with it.
pub struct Cluster {
    nodes: Vec<Node>,
    dir: Option<TempDir>,
    subnet: Subnet,
    _turn: Turn,
}

impl Cluster {
    /// Its nodes, `node-1` first.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node at `index`, from 0.
    #[must_use]
    pub fn node(&self, index: usize) -> &Node {
        &self.nodes[index]
    }

    /// The folder that holds the nodes' data and logs.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.as_ref().expect("held until drop").path()
    }

    /// An address of the cluster's that no node uses.
    #[must_use]
    pub fn spare_address(&self, host: u8) -> Ipv4Addr {
        assert!(usize::from(host) > self.nodes.len() && host < 254, "127.x.y.{host} is taken");
        self.subnet.address(host)
    }

    /// The data addresses of all nodes.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(Node::data).collect()
    }

    /// Waits until every node that runs says that it is ready.
    pub async fn ready(&self) {
        for node in self.nodes.iter().filter(|node| node.is_running()) {
            node.ready().await;
        }
    }

    /// The index of the node that leads, once a node that runs says so of itself.
    pub async fn leader(&self) -> usize {
        eventually(PATIENCE, "one running node leads", async || {
            for (index, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.is_running()) {
                if node.client().stats().await.is_ok_and(|stats| stats["state"] == "Leader") {
                    return Ok(index);
                }
            }
            Err("no node says that it leads".to_owned())
        })
        .await
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &self.nodes {
            node.kill();
        }
        if std::thread::panicking() {
            for node in &self.nodes {
                eprintln!("--- the last lines of {}'s log\n{}", node.name(), node.log_tail(LOG_TAIL_LINES));
            }
            if let Some(dir) = self.dir.take() {
                eprintln!("--- data and logs are kept in {}", dir.keep().display());
            }
        }
    }
}

/// Prints a measured figure past the test runner's capture, so that it is seen when the test passes.
pub fn figure(line: &str) {
    use std::io::Write as _;
    // Past the capture: only the print macros are captured.
    let _ = writeln!(std::io::stderr().lock(), "figure: {line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    #[should_panic(expected = "not within 20ms: the moon; last: no moon")]
    async fn eventually_never_met_panics_with_what_and_the_last_reason() {
        eventually(Duration::from_millis(20), "the moon", async || Err::<(), _>("no moon".to_owned())).await;
    }
}
