//! Nodes that start, crash and come back.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _, Shared};
use openraft_rt::{AsyncRuntime as _, Select2};
use quorate_limits::autopilot::Replacing;
use quorate_limits::{Policy, Settings};
use quorate_node::consensus::Tuning;
use quorate_node::node::{ClusterStatus, Node, NodeOptions};
use quorate_node::platform::Platform as _;
use tokio::sync::oneshot;

use super::disk::{Copy, FLUSH_FAILED, FlushTime, SimDisk};
use super::history::History;
use super::host::Host;
use super::network::{Incarnation, Network, SimContacts, SimDatagrams, SimTransport};
use super::{Sim, chance};

/// What a node keeps in reserve; a disk has this much to spare, or nothing.
pub const DISK_RESERVE: u64 = 64 << 20;
/// How long a member that is to leave goes on answering.
const DRAIN: Duration = Duration::from_secs(2);
/// Between two looks at something that sends no signal.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// How a world is made.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Nodes that found the cluster.
    pub founders: usize,
    /// Nodes that come later.
    pub latecomers: usize,
    /// How fast each host's clock runs, in thousandths.
    pub rates: Vec<u64>,
    /// Policies the cluster is founded with.
    pub policies: Vec<Policy>,
    /// Timing and sizes of consensus.
    pub tuning: Tuning,
    /// How careful a lost disk is replaced.
    pub replacing: Replacing,
    /// Of a thousand disks so many flush slowly.
    pub slow_disks_permille: u64,
}

impl Shape {
    /// Nodes there will be.
    #[must_use]
    pub fn hosts(&self) -> usize {
        self.founders + self.latecomers
    }
}

/// A node that runs. Clones are the same one.
#[derive(Clone)]
pub struct Running {
    /// Which run of which host.
    pub incarnation: Incarnation,
    /// The node.
    pub node: Arc<Node<Sim>>,
    host: Arc<Host>,
    death: Shared<BoxFuture<'static, ()>>,
}

impl Running {
    /// What the node knows by itself.
    #[must_use]
    pub fn status(&self) -> ClusterStatus {
        self.host.here(|| self.node.status())
    }

    /// Does something with the node; `None` when it crashes meanwhile, as a client whose connection breaks. It takes as
    /// long as the host is stopped.
    pub async fn alive<T: Send>(&self, what: impl Future<Output = T> + Send) -> Option<T> {
        match Sim::select(self.death.clone(), self.host.run(what)).await {
            Select2::First(()) => None,
            Select2::Second(value) => Some(value),
        }
    }
}

impl Sim {
    async fn select<A: Send, B: Send>(
        first: impl Future<Output = A> + Send,
        second: impl Future<Output = B> + Send,
    ) -> Select2<A, B> {
        openraft_rt_sim::SimRuntime::select2(Box::pin(first), Box::pin(second)).await
    }
}

struct Place {
    disk: SimDisk,
    running: Option<(Running, oneshot::Sender<()>)>,
    /// Between the beginning of a start and the node's being there.
    starting: bool,
    /// What a node that runs here may stop for by itself: a part of its reason.
    may_stop: Option<&'static str>,
    /// What its disk held once.
    copy: Option<Copy>,
}

/// All hosts and the network between them.
pub struct World {
    shape: Shape,
    network: Arc<Network>,
    hosts: Mutex<Vec<Place>>,
    history: Arc<Mutex<History>>,
}

impl World {
    /// A world in which nothing runs yet.
    #[must_use]
    pub fn new(shape: Shape, history: Arc<Mutex<History>>) -> Arc<Self> {
        let flush_time =
            |slow| FlushTime { max: Duration::from_millis(if slow { 40 } else { 2 }), ..FlushTime::default() };
        let disk = || SimDisk::new(flush_time(chance::happens(shape.slow_disks_permille)));
        let host = |_| Place { disk: disk(), running: None, starting: false, may_stop: None, copy: None };
        let hosts = Mutex::new((0..shape.hosts()).map(host).collect());
        Arc::new(Self { shape, network: Arc::default(), hosts, history })
    }

    /// How it was made.
    #[must_use]
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The network.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// What happened.
    pub fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap()
    }

    fn hosts(&self) -> MutexGuard<'_, Vec<Place>> {
        self.hosts.lock().unwrap()
    }

    /// The node that runs on a host now.
    #[must_use]
    pub fn running(&self, host: usize) -> Option<Running> {
        self.hosts()[host].running.as_ref().map(|(running, _)| running.clone())
    }

    /// All nodes that run now.
    #[must_use]
    pub fn all_running(&self) -> Vec<Running> {
        (0..self.shape.hosts()).filter_map(|host| self.running(host)).collect()
    }

    /// The node that thinks it leads; the one with the highest term when several do.
    #[must_use]
    pub fn leader(&self) -> Option<Running> {
        let leads = |running: &Running| Some(running.status()).filter(|status| status.state == "Leader");
        let leaders = self.all_running().into_iter().filter_map(|running| Some((leads(&running)?.term, running)));
        leaders.max_by_key(|(term, running)| (*term, running.incarnation.host)).map(|(_, running)| running)
    }

    fn options(&self, host: usize) -> NodeOptions {
        NodeOptions {
            name: format!("node-{host}"),
            gossip_address: self.network.gossip_address(host),
            raft_address: self.network.raft_address(host),
            bootstrap_expect: self.shape.founders,
            first_policies: self.shape.policies.clone(),
            counters_max: Settings::COUNTERS_MAX_DEFAULT,
            disk_reserve: DISK_RESERVE,
            tuning: self.shape.tuning.clone(),
            replacing: self.shape.replacing,
            drain: DRAIN,
        }
    }

    /// Waits until there is a cluster.
    pub async fn founded(&self) {
        while !self.all_running().iter().any(|running| running.node.rules().founded()) {
            Sim::sleep(LOOK_INTERVAL).await;
        }
    }

    /// Starts a host's node on its disk, unless it runs already.
    pub async fn start(self: &Arc<Self>, host: usize) {
        let disk = {
            let mut hosts = self.hosts();
            if hosts[host].starting || hosts[host].running.is_some() {
                return;
            }
            hosts[host].starting = true;
            if hosts[host].disk.identity().is_some_and(|identity| identity.removed) {
                // The product puts its files aside.
                hosts[host].disk.wipe();
            }
            hosts[host].disk.open()
        };
        let process = Host::new(self.shape.rates[host]);
        let incarnation = self.network.start(host, Arc::clone(&process));
        self.history().note(format_args!("start {host} at {}", self.network.raft_address(host)));
        let transport = Arc::new(SimTransport::new(Arc::clone(&self.network), incarnation));
        let datagrams = Arc::new(SimDatagrams::new(Arc::clone(&self.network), incarnation));
        let contacts = Arc::new(SimContacts::new(Arc::clone(&self.network), self.shape.founders));
        let starting = Node::<Sim>::start(self.options(host), &disk, transport, datagrams, contacts);
        let started = process.run(starting).await;
        self.hosts()[host].starting = false;
        match started {
            Ok(node) => self.run(incarnation, process, node),
            Err(error) if error.to_string().contains("older copy") => {
                self.history().note(format_args!("node {host} does not start: {error}"));
            }
            Err(error) => self.history().violated(format_args!("node {host} does not start: {error}")),
        }
    }

    fn run(self: &Arc<Self>, incarnation: Incarnation, host: Arc<Host>, node: Arc<Node<Sim>>) {
        let (die, dead) = oneshot::channel();
        let death = dead.map(|_| ()).boxed().shared();
        self.network.listen(incarnation, node.service());
        let running = Running { incarnation, node, host, death };
        Sim::spawn(Arc::clone(self).watch(running.clone()));
        self.hosts()[incarnation.host].running = Some((running, die));
    }

    /// A node stops by itself only for what was done to it. Whoever watches over it starts it again. One that was removed
    /// while it was away begins anew.
    async fn watch(self: Arc<Self>, running: Running) {
        let host = running.incarnation.host;
        let reason = match running.alive(Sim::select(running.node.failed(), running.node.starts_anew())).await {
            Some(Select2::First(reason)) => reason,
            Some(Select2::Second(())) => {
                self.history().note(format_args!("{host} was removed while it was away"));
                self.crash(host);
                self.start(host).await;
                return;
            }
            None => return,
        };
        let may_stop = self.hosts()[host].may_stop;
        match may_stop.filter(|part| reason.contains(part)) {
            Some(FLUSH_FAILED) => {
                self.history().note(format_args!("node {host} stopped: {reason}"));
                self.crash(host);
                Sim::sleep(chance::millis(10, 500)).await;
                self.start(host).await;
            }
            // Whoever put the older disk there waits for it.
            Some(_) => {
                self.history().note(format_args!("node {host} stopped: {reason}"));
                self.crash(host);
            }
            None => self.history().violated(format_args!("node {host} stopped by itself: {reason}")),
        }
    }

    /// The next flush on a host fails: its node must stop, and is started again. Whether there is such a node.
    pub fn fail_flush(&self, host: usize) -> bool {
        let mut hosts = self.hosts();
        let Place { disk, running: Some(_), may_stop, .. } = &mut hosts[host] else { return false };
        disk.fail();
        *may_stop = Some(FLUSH_FAILED);
        true
    }

    /// Keeps a copy of what a host's disk holds now.
    pub fn copy_disk(&self, host: usize) {
        let host = &mut self.hosts()[host];
        if let Some(copy) = host.disk.copy() {
            host.copy = Some(copy);
        }
    }

    /// The copy kept last.
    #[must_use]
    pub fn kept_copy(&self, host: usize) -> Option<Copy> {
        self.hosts()[host].copy.clone()
    }

    /// What a node on this host may stop for from now on.
    pub fn let_stop(&self, host: usize, part: &'static str) {
        self.hosts()[host].may_stop = Some(part);
    }

    /// Power loss on a host: what was not flushed is lost, but for some of it.
    pub fn crash(&self, host: usize) -> bool {
        let Some((running, die)) = self.hosts()[host].running.take() else { return false };
        self.hosts()[host].may_stop = None;
        let disk = self.hosts()[host].disk.clone();
        let unflushed = disk.unflushed();
        let kept = if chance::happens(500) { 0 } else { chance::index(unflushed + 1) };
        self.history().note(format_args!("crash {host} with {kept} of {unflushed} unflushed writes kept"));
        self.network.crash(running.incarnation);
        disk.crash(kept);
        drop(die);
        // What is left of it has neither network nor disk; this only ends its tasks.
        running.host.go_on();
        Sim::spawn(async move { running.host.run(running.node.stop()).await });
        true
    }

    /// Stops a host's processes for a while, unless they are stopped or gone.
    pub fn stop(self: &Arc<Self>, host: usize, span: Duration) -> bool {
        let Some(running) = self.running(host).filter(|running| !running.host.is_stopped()) else { return false };
        self.history().note(format_args!("stop {host} for {span:?}"));
        running.host.stop();
        let world = Arc::clone(self);
        Sim::spawn(async move {
            Sim::sleep(span).await;
            if running.host.is_stopped() {
                world.history().note(format_args!("{host} goes on"));
                running.host.go_on();
            }
        });
        true
    }

    /// All hosts' processes go on.
    pub fn go_on(&self) {
        self.all_running().iter().for_each(|running| running.host.go_on());
    }

    /// Everything stops; nothing keeps anything else in memory any more.
    pub fn end(&self) {
        for host in 0..self.shape.hosts() {
            self.crash(host);
        }
    }

    /// The host's disk, to be tampered with.
    #[must_use]
    pub fn disk(&self, host: usize) -> SimDisk {
        self.hosts()[host].disk.clone()
    }

    /// Waits until `found` finds something, at most `limit`.
    ///
    /// # Errors
    /// When it has found nothing by then.
    pub async fn eventually<T>(&self, limit: Duration, mut found: impl FnMut(&Self) -> Option<T>) -> io::Result<T> {
        let until = Sim::now() + limit;
        loop {
            if let Some(value) = found(self) {
                return Ok(value);
            }
            if Sim::now() >= until {
                return Err(io::ErrorKind::TimedOut.into());
            }
            Sim::sleep(LOOK_INTERVAL).await;
        }
    }
}

#[cfg(test)]
mod tests;
