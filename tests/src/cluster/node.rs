//! One node: its process, and what stays of it.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{
    ADMIN_PORT, DATA_PORT, GOSSIP_PORT, GRPC_PORT, LOG_TAIL_LINES, PATIENCE, Place, RAFT_PORT, binary, eventually,
    pause,
};
use crate::client::Client;
use crate::sync::lock;

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
    pub(super) fn new(name: String, Place { address, launcher }: Place, dir: &Path) -> Self {
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

    /// The id of its process. A launcher has become the node by the time the node answers.
    ///
    /// # Panics
    /// Its process does not run.
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

    /// The bytes of memory that its process holds (`VmRSS`).
    ///
    /// # Panics
    /// Its process does not run.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has memory");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number of kB") * 1024
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// Its process does not run.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid().cast_signed()).expect("a process has an id");
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

    /// Waits for its process to end by itself. `None` when it goes on for longer than `deadline`.
    pub async fn ends_within(&self, deadline: Duration) -> Option<ExitStatus> {
        let end = Instant::now() + deadline;
        loop {
            let ended = lock(&self.child).as_mut().expect("it runs").try_wait().expect("it is a child");
            if ended.is_some() {
                *lock(&self.child) = None;
                return ended;
            }
            if Instant::now() >= end {
                return None;
            }
            pause(Duration::from_millis(10)).await;
        }
    }

    /// Waits for its process to end by itself.
    ///
    /// # Panics
    /// It goes on for longer than `deadline`.
    pub async fn ended(&self, deadline: Duration) -> ExitStatus {
        let status = self.ends_within(deadline).await;
        status.unwrap_or_else(|| panic!("{} goes on for longer than {deadline:?}", self.name))
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

    pub(super) fn log_tail(&self, lines: usize) -> String {
        let log = self.log();
        let skipped = log.lines().count().saturating_sub(lines);
        log.lines().skip(skipped).collect::<Vec<_>>().join("\n")
    }
}
