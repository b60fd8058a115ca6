//! Local clusters of processes: started, stopped, killed, paused and restarted on the same data.
//!
//! The harness builds nothing. It runs `$RATELIMITER_BIN`, or `target/debug/ratelimiter` of the workspace, and fails when
//! there is none. Each cluster has addresses of its own in 127.0.0.0/8, so clusters never meet, and each node has one of
//! them, so all nodes use the same ports.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};
use tempfile::TempDir;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::client::Client;

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

/// Tests under load or with a stopwatch run alone; the others share the machine.
static MACHINE: RwLock<()> = RwLock::const_new(());

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

/// A /24 of loopback addresses that no other cluster uses: a listener on one of them is the claim to all.
struct Subnet {
    octets: [u8; 2],
    _claim: TcpListener,
}

impl Subnet {
    fn claim() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        loop {
            let number = std::process::id().wrapping_mul(101).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
            // 127.0.x.x stays free for whatever else runs on the machine.
            let octets = [u8::try_from(number / 256 % 255).expect("below 255") + 1, number.to_le_bytes()[0]];
            if let Ok(claim) = TcpListener::bind((Ipv4Addr::new(127, octets[0], octets[1], 254), 21999)) {
                return Self { octets, _claim: claim };
            }
        }
    }

    fn address(&self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, self.octets[0], self.octets[1], host)
    }
}

/// Holds the machine, alone or together with others.
#[derive(Debug)]
enum Turn {
    Shared(#[expect(dead_code, reason = "held until dropped")] RwLockReadGuard<'static, ()>),
    Alone(#[expect(dead_code, reason = "held until dropped")] RwLockWriteGuard<'static, ()>),
    OfAnother,
}

#[derive(Clone, Copy, Debug)]
enum Wanted {
    Shared,
    Alone,
    /// A second turn within one test would wait for ever behind a test that waits to be alone.
    None,
}

/// Where a node lives, when not on an address of the cluster's own.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its address there.
    pub address: Ipv4Addr,
    /// The command that runs another one there, with its arguments so far.
    pub launcher: Vec<String>,
}

/// What a cluster is to be like.
#[derive(Clone, Debug)]
pub struct Plan {
    nodes: u8,
    places: Vec<Place>,
    launcher: Vec<String>,
    contacts: Option<u8>,
    turn: Wanted,
    settings: Vec<(String, String)>,
}

impl Plan {
    /// A cluster of `nodes` with the product's default settings, but no default policy and a short drain.
    #[must_use]
    pub fn of(nodes: u8) -> Self {
        Self { nodes, places: vec![], launcher: vec![], contacts: None, turn: Wanted::Shared, settings: vec![] }
            .set("DEFAULT_LIMIT", "none")
            .set("DRAIN_DELAY", "200ms")
    }

    /// A setting of every node. `{dir}` stands for the cluster's folder.
    #[must_use]
    pub fn set(mut self, name: &str, value: impl Into<String>) -> Self {
        self.settings.retain(|(known, _)| known != name);
        self.settings.push((name.to_owned(), value.into()));
        self
    }

    /// Only the first `contacts` nodes are in `CLUSTERS`, and found the cluster.
    #[must_use]
    pub fn contacts(mut self, contacts: u8) -> Self {
        self.contacts = Some(contacts);
        self
    }

    /// The nodes live there, the first in the first place.
    #[must_use]
    pub fn at(mut self, places: Vec<Place>) -> Self {
        assert_eq!(places.len(), usize::from(self.nodes), "a place for each node");
        self.places = places;
        self
    }

    /// Nodes are started by this command, which runs what is behind it.
    #[must_use]
    pub fn launched_by(mut self, words: &[&str]) -> Self {
        self.launcher = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// The test runs alone on the machine.
    #[must_use]
    pub fn alone(mut self) -> Self {
        self.turn = Wanted::Alone;
        self
    }

    /// The test already has `_other`, and with it its turn on the machine.
    #[must_use]
    pub fn beside(mut self, _other: &Cluster) -> Self {
        self.turn = Wanted::None;
        self
    }

    /// Claims addresses and a folder; starts nothing.
    pub async fn build(self) -> Cluster {
        let turn = match self.turn {
            Wanted::Shared => Turn::Shared(MACHINE.read().await),
            Wanted::Alone => Turn::Alone(MACHINE.write().await),
            Wanted::None => Turn::OfAnother,
        };
        let subnet = Subnet::claim();
        let dir = tempfile::Builder::new().prefix("quorate-").tempdir().expect("a temporary folder");
        let here = |host| Place { address: subnet.address(host), launcher: self.launcher.clone() };
        let place = |host: u8| self.places.get(usize::from(host) - 1).cloned().unwrap_or_else(|| here(host));
        let contacts: Vec<_> = (1..=self.contacts.unwrap_or(self.nodes))
            .map(|host| SocketAddr::from((place(host).address, GOSSIP_PORT)).to_string())
            .collect();
        let nodes = (1..=self.nodes)
            .map(|host| {
                let node = Node::new(format!("node-{host}"), place(host), dir.path());
                node.set("CLUSTERS", contacts.join(","));
                for (name, value) in &self.settings {
                    node.set(name, value.replace("{dir}", &dir.path().display().to_string()));
                }
                node
            })
            .collect();
        Cluster { nodes, dir: Some(dir), subnet, _turn: turn }
    }

    /// Starts all nodes and waits until each says that it is ready.
    pub async fn start(self) -> Cluster {
        let cluster = self.build().await;
        for node in &cluster.nodes {
            node.start();
        }
        cluster.ready().await;
        cluster
    }
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
                eprintln!("--- the last lines of {}'s log\n{}", node.name, node.log_tail(LOG_TAIL_LINES));
            }
            if let Some(dir) = self.dir.take() {
                eprintln!("--- data and logs are kept in {}", dir.keep().display());
            }
        }
    }
}

/// One node: a process that can come and go, and what stays of it.
pub struct Node {
    name: String,
    address: Ipv4Addr,
    launcher: Vec<String>,
    data_dir: PathBuf,
    log: PathBuf,
    settings: Mutex<Vec<(String, String)>>,
    child: Mutex<Option<Child>>,
}

impl Node {
    fn new(name: String, Place { address, launcher }: Place, dir: &Path) -> Self {
        let (data_dir, log) = (dir.join(&name), dir.join(format!("{name}.log")));
        let node = Self { name, address, launcher, data_dir, log, settings: Mutex::default(), child: Mutex::default() };
        node.set("NODE_ID", &*node.name);
        node.set("DATA_DIR", node.data_dir.display().to_string());
        for name in ["BIND_HOST", "ADMIN_HOST", "ADVERTISE_HOST"] {
            node.set(name, address.to_string());
        }
        for (name, port) in [("SERVER_PORT", DATA_PORT), ("RAFT_PORT", RAFT_PORT), ("DISCOVERY_PORT", GOSSIP_PORT)] {
            node.set(name, port.to_string());
        }
        node
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address.
    #[must_use]
    pub fn ip(&self) -> Ipv4Addr {
        self.address
    }

    /// Its data folder, as first planned.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Where it answers requests.
    #[must_use]
    pub fn data(&self) -> SocketAddr {
        (self.address, DATA_PORT).into()
    }

    /// Where it takes changes of policies and members.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        (self.address, ADMIN_PORT).into()
    }

    /// Where it answers Envoy's rate limit filter.
    #[must_use]
    pub fn grpc(&self) -> SocketAddr {
        (self.address, GRPC_PORT).into()
    }

    /// A new connection to its data port.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(self.data())
    }

    /// A new connection to its admin port.
    #[must_use]
    pub fn admin_client(&self) -> Client {
        Client::new(self.admin())
    }

    /// Changes a setting from the next start on.
    pub fn set(&self, name: &str, value: impl Into<String>) {
        let mut settings = lock(&self.settings);
        settings.retain(|(known, _)| known != name);
        settings.push((name.to_owned(), value.into()));
    }

    /// Takes a setting away from the next start on.
    pub fn unset(&self, name: &str) {
        lock(&self.settings).retain(|(known, _)| known != name);
    }

    /// Starts its process.
    ///
    /// # Panics
    /// It runs already, or cannot be started.
    pub fn start(&self) {
        assert!(!self.is_running(), "{} runs already", self.name);
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&self.log).expect("the log opens");
        let mut words = self.launcher.iter().map(Into::into).chain([binary().into_os_string()]);
        let child = Command::new(words.next().expect("the binary, at least"))
            .args(words)
            .env_clear()
            .envs(lock(&self.settings).iter().map(|(name, value)| (name, value)))
            .current_dir(self.log.parent().expect("the log lies in the cluster's folder"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log opens twice"))
            .stderr(log)
            .spawn()
            .expect("the limiter starts");
        *lock(&self.child) = Some(child);
    }

    /// Its process.
    ///
    /// # Panics
    /// None runs.
    #[must_use]
    pub fn pid(&self) -> u32 {
        lock(&self.child).as_ref().unwrap_or_else(|| panic!("{} does not run", self.name)).id()
    }

    /// Whether its process runs, or is paused.
    #[must_use]
    pub fn is_running(&self) -> bool {
        lock(&self.child).as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Waits until it says that it is ready.
    pub async fn ready(&self) {
        eventually(PATIENCE, &format!("{} is ready", self.name), async || {
            assert!(self.is_running(), "{} ended:\n{}", self.name, self.log_tail(LOG_TAIL_LINES));
            match self.client().get("/ready").await {
                Ok(answer) if answer.status == 200 => Ok(()),
                Ok(answer) => Err(answer.text()),
                Err(error) => Err(error.to_string()),
            }
        })
        .await;
    }

    /// The id of its process. A launcher has become the node by the time the node answers.
    ///
    /// # Panics
    /// Its process does not run.
    #[must_use]
    pub fn process_id(&self) -> u32 {
        lock(&self.child).as_ref().unwrap_or_else(|| panic!("{} does not run", self.name)).id()
    }

    /// The bytes of memory that its process holds (`VmRSS`).
    ///
    /// # Panics
    /// Its process does not run.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process_id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has memory");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number of kB") * 1024
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// Its process does not run.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.process_id().cast_signed()).expect("a process has an id");
        kill_process(pid, signal).unwrap_or_else(|error| panic!("{signal:?} to {}: {error}", self.name));
    }

    /// Kills its process as `kill -9` does, and waits for its end. Does nothing when none runs.
    pub fn kill(&self) {
        if let Some(mut child) = lock(&self.child).take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Waits for its process to end by itself.
    pub async fn ended(&self, deadline: Duration) -> ExitStatus {
        let status = eventually(deadline, &format!("{} ends", self.name), async || {
            let mut child = lock(&self.child);
            let child = child.as_mut().ok_or("it does not run")?;
            child.try_wait().map_err(|error| error.to_string())?.ok_or_else(|| "it still runs".to_owned())
        })
        .await;
        *lock(&self.child) = None;
        status
    }

    /// Asks it to end (SIGTERM) and waits until it has.
    ///
    /// # Panics
    /// It does not end with status 0.
    pub async fn stop(&self) {
        self.signal(Signal::TERM);
        let status = self.ended(PATIENCE).await;
        assert!(status.success(), "{} ended with {:?}, signal {:?}", self.name, status.code(), status.signal());
    }

    /// Everything it wrote since the cluster was built.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    fn log_tail(&self, lines: usize) -> String {
        let log = self.log();
        let skipped = log.lines().count().saturating_sub(lines);
        log.lines().skip(skipped).collect::<Vec<_>>().join("\n")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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

    #[tokio::test]
    async fn subnets_claimed_at_once_never_meet() {
        let subnets: Vec<_> = (0..300).map(|_| Subnet::claim()).collect();
        let mut octets: Vec<_> = subnets.iter().map(|subnet| subnet.octets).collect();
        octets.sort_unstable();
        octets.dedup();
        assert_eq!(octets.len(), 300);
    }
}
