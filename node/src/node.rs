//! A whole node below its doors: identity, consensus, gossip, admission. The simulator runs many of these.

mod disk_watch;
mod same_name;
mod status;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use openraft_rt::{AsyncRuntime, Select2};
use quorate_limits::{Part, Policy, PolicyChange, PolicyOutcome, Request, Rules, Run, Settings};
pub use status::{ClusterStatus, MemberStatus};
use tokio::sync::Notify;
use tracing::{info, warn};

use crate::admission::{Consistency, Courier, LeaderQueue, Limiter, Unavailable, UnavailableReason, Verdict};
use crate::consensus::founding::Founding;
use crate::consensus::{Consensus, FEATURE_LEVEL, Link, PeerService, Tuning, answers_as, autopilot};
use crate::gossip::{Contacts, Datagrams, Gossip, Peer};
use crate::platform::Platform;
use crate::storage::{Disk, Identity, Room};
use crate::transport::Transport;

/// How long a founding command or the first read may take before it is tried again.
const SETUP_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a leader waits for its successor to catch up before it goes anyway.
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(3);
/// How long saying goodbye to the others may take; without it they find out by themselves.
const LEAVE_TIMEOUT: Duration = Duration::from_millis(500);
/// How long consensus may take to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two looks at something that sends no signal.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// What a node is started with.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// Its name.
    pub name: String,
    /// Where its gossip can be reached.
    pub gossip_address: SocketAddr,
    /// Where its consensus can be reached, `host:port`.
    pub raft_address: String,
    /// Where its data door can be reached, `host:port`.
    pub http_address: String,
    /// Nodes that found the cluster; 0 waits to be told.
    pub bootstrap_expect: usize,
    /// The policies a cluster is founded with.
    pub first_policies: Vec<Policy>,
    /// Counters a cluster founded by this node may hold.
    pub counters_max: u64,
    /// Room on the disk that is kept in reserve, in bytes; 0 for none.
    pub disk_reserve: u64,
    /// Timing and sizes of consensus.
    pub tuning: Tuning,
}

/// A running node.
pub struct Node<P: Platform> {
    options: NodeOptions,
    consensus: Consensus<P>,
    queue: Arc<LeaderQueue<P>>,
    courier: Arc<Courier<P>>,
    limiter: Limiter<P>,
    founding: Arc<Founding<P>>,
    gossip: Arc<Gossip<P>>,
    caught_up: AtomicBool,
    draining: AtomicBool,
    disk: Disk,
    room: Arc<Room>,
    refused: std::sync::Mutex<Option<String>>,
    refused_changed: Notify,
}

/// Why a node is not ready, for people.
pub type NotReady = String;

impl<P: Platform> Node<P> {
    /// Starts a node on its disk. Returns at once; joining and catching up go on in the background.
    ///
    /// # Errors
    /// When the disk cannot be read or written.
    pub async fn start(
        options: NodeOptions,
        disk: &Disk,
        transport: Arc<dyn Transport>,
        datagrams: Arc<dyn Datagrams>,
        contacts: Arc<dyn Contacts>,
    ) -> io::Result<Arc<Self>> {
        let identity = boot::<P>(disk, &options, &*transport).await?;
        let run = Run { boot: identity.boot, name: P::random() };
        let me = Peer {
            node: identity.node,
            boot: identity.boot,
            version: 0,
            name: identity.name.clone(),
            cluster: identity.cluster,
            gossip_address: options.gossip_address,
            raft_address: options.raft_address.clone(),
            http_address: options.http_address.clone(),
        };
        let gossip = Gossip::start(me, datagrams, contacts)?;
        let link =
            Arc::new(Link::new(identity.node, run, identity.cluster, Arc::clone(&transport), Arc::clone(&gossip)));
        let consensus = Consensus::start(disk, Arc::clone(&link), &options.tuning).await?;
        let queue = Arc::new(LeaderQueue::new(consensus.clone()));
        let courier = Arc::new(Courier::new(consensus.clone(), Arc::clone(&queue)));
        let limiter = Limiter::start(consensus.clone(), &courier);
        let founding = Arc::new(Founding::new(identity, Arc::clone(&disk.identity), link, Arc::clone(&gossip)));
        let room = Arc::new(Room::new(options.disk_reserve));
        let node = Arc::new(Self {
            options,
            consensus,
            queue,
            courier,
            limiter,
            founding,
            gossip,
            caught_up: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            disk: disk.clone(),
            room,
            refused: std::sync::Mutex::default(),
            refused_changed: Notify::new(),
        });
        P::spawn(Arc::clone(&node.queue).run());
        P::spawn(autopilot::run(node.consensus.clone(), Arc::clone(&node.gossip)));
        P::spawn(Arc::clone(&node).join());
        P::spawn(Arc::clone(&node).keep_name(transport));
        P::spawn(Arc::clone(&node).watch_disk());
        P::spawn(Arc::clone(&node).heed_older_disk());
        Ok(node)
    }

    /// The receiving end of other nodes' frames.
    pub fn service(&self) -> Arc<PeerService<P>> {
        let (queue, founding) = (Arc::clone(&self.queue), Arc::clone(&self.founding));
        Arc::new(PeerService::new(self.consensus.clone(), queue, founding, Arc::clone(&self.room)))
    }

    /// From an empty disk (or a restart) to a member that has caught up.
    async fn join(self: Arc<Self>) {
        if let Some(members) = self.founding.run(self.options.bootstrap_expect).await
            && let Err(reason) = self.consensus.initialize(members).await
        {
            self.refuse(reason);
            return;
        }
        P::spawn(Arc::clone(&self).hold_session());
        P::spawn(Arc::clone(&self).found());
        P::spawn(Arc::clone(&self).raise_feature_level());
        self.catch_up().await;
        self.caught_up.store(true, Ordering::SeqCst);
        info!("ready: this node has caught up with its cluster");
    }

    async fn hold_session(self: Arc<Self>) {
        let refused = self.courier.keep_session().await;
        self.refuse_disk(refused.0);
    }

    async fn heed_older_disk(self: Arc<Self>) {
        let reason = self.consensus.link().outdated().await;
        self.refuse_disk(reason);
    }

    /// Stops this node, and every later one on its disk.
    fn refuse_disk(&self, reason: String) {
        self.founding.refuse(&reason);
        self.refuse(reason);
    }

    /// Until the cluster is founded, whoever leads proposes the founding; the first in the log counts.
    async fn found(self: Arc<Self>) {
        while !self.consensus.state().rules().founded() {
            if self.consensus.leadership().is_some() {
                let part = Part::Found { settings: self.settings(), policies: self.options.first_policies.clone() };
                P::timeout(SETUP_TIMEOUT, self.queue.submit(part)).await;
            }
            P::sleep(LOOK_INTERVAL).await;
        }
    }

    /// The leader raises the feature level once every member supports it: what an older build could not apply must
    /// not stand in the log before.
    async fn raise_feature_level(self: Arc<Self>) {
        while self.consensus.state().read(quorate_limits::StateMachine::feature_level) < FEATURE_LEVEL {
            if self.consensus.leadership().is_some() {
                let members = self.survey().await.members;
                let all = members.iter().all(|member| member.feature_level.is_some_and(|level| level >= FEATURE_LEVEL));
                if all {
                    P::timeout(SETUP_TIMEOUT, self.queue.submit(Part::RaiseFeatureLevel(FEATURE_LEVEL))).await;
                }
            }
            P::sleep(SETUP_TIMEOUT).await;
        }
    }

    fn settings(&self) -> Settings {
        let mut secret = [0; 16];
        secret[..8].copy_from_slice(&P::random().to_le_bytes());
        secret[8..].copy_from_slice(&P::random().to_le_bytes());
        Settings { secret, counters_max: self.options.counters_max }
    }

    /// Waits until this node has applied all that was committed when it asked.
    async fn catch_up(&self) {
        loop {
            let until = P::now() + SETUP_TIMEOUT;
            if let Ok((_, index)) = self.courier.read(Vec::new(), until).await {
                self.consensus.applied(index).await;
                if self.consensus.state().rules().founded() {
                    return;
                }
            }
            P::sleep(LOOK_INTERVAL).await;
        }
    }

    fn refuse(&self, reason: String) {
        *crate::sync::lock(&self.refused) = Some(reason);
        self.refused_changed.notify_waiters();
    }

    /// Decides a request: charges it when it is admitted, changes nothing when it is denied. Hits of 0 only look, as
    /// [`check`](Self::check) does.
    ///
    /// # Errors
    /// When no decision is known within `deadline`; it may have been charged then.
    pub async fn decide(&self, request: &Request, deadline: Duration) -> Result<Verdict, Unavailable> {
        self.limiter.decide(request, deadline).await
    }

    /// Decides requests one by one, in order: each sees what those before it were charged.
    pub async fn decide_all(&self, requests: &[Request], deadline: Duration) -> Vec<Result<Verdict, Unavailable>> {
        self.limiter.decide_all(requests, deadline).await
    }

    /// Looks where a request stands; changes nothing.
    ///
    /// # Errors
    /// When nothing is known within `deadline`.
    pub async fn check(
        &self,
        request: &Request,
        consistency: Consistency,
        deadline: Duration,
    ) -> Result<Verdict, Unavailable> {
        self.limiter.check(request, consistency, deadline).await
    }

    /// Makes the counters that a request meets as if never used.
    ///
    /// # Errors
    /// When it is not known within `deadline` whether it took effect.
    pub async fn reset(&self, request: &Request, deadline: Duration) -> Result<(), Unavailable> {
        self.limiter.reset(request, deadline).await
    }

    /// Changes policies. Once acknowledged, no node judges by the old ones.
    ///
    /// # Errors
    /// When it is not known within `deadline` whether it took effect.
    pub async fn change_policies(
        &self,
        change: PolicyChange,
        deadline: Duration,
    ) -> Result<PolicyOutcome, Unavailable> {
        self.limiter.change_policies(change, deadline).await
    }

    /// Founds the cluster with exactly these members (Raft id to name), for whoever starts nodes with
    /// `bootstrap_expect` 0. Again with the same members changes nothing.
    ///
    /// # Errors
    /// Why not all have promised, for people.
    pub async fn bootstrap(&self, members: std::collections::BTreeMap<u64, String>) -> Result<(), String> {
        self.founding.found(members).await
    }

    /// The rules this node has applied.
    #[must_use]
    pub fn rules(&self) -> Arc<Rules> {
        self.consensus.state().rules()
    }

    /// Counters this node holds.
    #[must_use]
    pub fn counters(&self) -> usize {
        self.consensus.state().read(quorate_limits::StateMachine::counters)
    }

    /// Commands that wait to be sent or proposed.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.limiter.waiting() + self.queue.waiting()
    }

    /// Log entries this node proposed while it led.
    #[must_use]
    pub fn entries_proposed(&self) -> u64 {
        self.queue.entries()
    }

    /// Gossip packets since the start.
    #[must_use]
    pub fn gossip_counts(&self) -> crate::gossip::Counts {
        self.gossip.counts()
    }

    /// Flushes of the log to the disk so far.
    #[must_use]
    pub fn flushes(&self) -> u64 {
        self.disk.log.flushes()
    }

    /// Frames and answers of nodes on older copies of their disks, which were not counted.
    #[must_use]
    pub fn older_disk_frames(&self) -> u64 {
        self.consensus.link().older_disk_frames()
    }

    /// The room on its disk.
    #[must_use]
    pub fn room(&self) -> &Room {
        &self.room
    }

    /// Who this node is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.founding.identity()
    }

    /// Whether this node has caught up once since it started and is not draining.
    ///
    /// # Errors
    /// The reason why not.
    pub fn ready(&self) -> Result<(), NotReady> {
        if self.draining.load(Ordering::SeqCst) {
            Err("this node is draining".to_owned())
        } else if self.caught_up.load(Ordering::SeqCst) {
            Ok(())
        } else {
            Err(self.why_not_caught_up())
        }
    }

    fn why_not_caught_up(&self) -> String {
        let Some(cluster) = self.consensus.link().cluster() else { return UnavailableReason::NotJoined.to_string() };
        if self.gossip.counts().foreign > 0 && self.gossip.peers().len() == 1 {
            return format!(
                "this node's data belongs to cluster {cluster}, but the nodes at CLUSTERS belong to another: point \
                 CLUSTERS at its own cluster, or start it on an empty DATA_DIR to join the other"
            );
        }
        "this node has not caught up with its cluster yet".to_owned()
    }

    /// Goes unready, and hands leadership over if it leads. Requests are still answered.
    pub async fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
        if self.consensus.leadership().is_some() {
            P::timeout(HANDOVER_TIMEOUT, self.hand_over(None)).await;
        }
        self.queue.pause(false);
    }

    /// Hands leadership to `target`, or to whichever voter is furthest.
    ///
    /// # Errors
    /// Why it cannot be done.
    pub async fn transfer_leader(&self, target: Option<u64>) -> Result<u64, String> {
        if self.consensus.leadership().is_none() {
            return Err("this node does not lead".to_owned());
        }
        let handed = P::timeout(HANDOVER_TIMEOUT, self.hand_over(target)).await;
        self.queue.pause(false);
        handed.unwrap_or_else(|| Err("nobody took over in time".to_owned()))
    }

    /// Stops proposing, waits until the successor has everything, then lets it lead. Parts that wait go to it.
    async fn hand_over(&self, target: Option<u64>) -> Result<u64, String> {
        let me = self.consensus.link().me();
        self.queue.pause(true);
        self.queue.idle().await;
        loop {
            let successor = self.successor(target)?;
            if let Some(successor) = successor {
                info!(to = format!("{successor:016x}"), "hands leadership over");
                self.consensus.transfer_leader(successor).await?;
                let next = self.consensus.leader_other_than(Some(me));
                if P::timeout(self.options.tuning.election_max * 2, next).await.is_some() {
                    return Ok(successor);
                }
                warn!("the hand-over was lost; trying again");
            }
            P::sleep(LOOK_INTERVAL / 10).await;
        }
    }

    /// Waits until the node can no longer go on (a disk that failed, an entry it does not know, an older copy of its
    /// disk); says why.
    pub async fn failed(&self) -> String {
        let refused = async {
            loop {
                let mut changed = std::pin::pin!(self.refused_changed.notified());
                changed.as_mut().enable();
                if let Some(reason) = crate::sync::lock(&self.refused).clone() {
                    return reason;
                }
                changed.await;
            }
        };
        match P::Rt::select2(Box::pin(refused), Box::pin(self.consensus.failed())).await {
            Select2::First(reason) | Select2::Second(reason) => reason,
        }
    }

    /// Stops consensus and gossip. Nothing is answered afterwards.
    pub async fn stop(&self) {
        P::timeout(LEAVE_TIMEOUT, self.gossip.leave()).await;
        // It may wait for room on a full disk.
        P::timeout(STOP_TIMEOUT, self.consensus.stop()).await;
    }
}

/// Counts this start, on the disk, before anything is sent in this node's name. On an empty disk a new identity begins.
async fn boot<P: Platform>(disk: &Disk, options: &NodeOptions, transport: &dyn Transport) -> io::Result<Identity> {
    let (name, address) = (options.name.clone(), Some(options.raft_address.clone()));
    let identity = match disk.identity.load()? {
        Some(Identity { refused: Some(reason), .. }) => return Err(io::Error::other(reason)),
        Some(identity) => {
            refuse_a_second_process::<P>(&identity, options, transport).await?;
            Identity { boot: identity.boot + 1, name, address, ..identity }
        }
        // Zero is kept free: frames use it for nobody.
        None => {
            Identity { node: P::random().max(1), name, boot: 1, cluster: None, address, refused: None, promise: None }
        }
    };
    disk.log.bind(identity.node, identity.boot)?;
    disk.snapshots.bind(identity.node);
    disk.identity.save(&identity)?;
    Ok(identity)
}

/// A copy of a data folder still says where its node ran. If somebody answers there as this node, that one goes on.
async fn refuse_a_second_process<P: Platform>(
    identity: &Identity,
    options: &NodeOptions,
    transport: &dyn Transport,
) -> io::Result<()> {
    let former = identity.address.as_ref().filter(|address| **address != options.raft_address);
    match former {
        Some(former) if answers_as::<P>(transport, former, identity.node).await => Err(io::Error::other(format!(
            "another process runs as node {:016x} at {former}: a data folder must not be used twice, nor a copy of it. \
             Start this node on an empty DATA_DIR and under a NODE_ID of its own, or stop the other process first",
            identity.node
        ))),
        _ => Ok(()),
    }
}
