//! A whole node below its doors: identity, consensus, gossip, admission. The simulator runs many of these.

mod boot;
mod buckets;
mod disk_watch;
mod removal;
mod same_name;
mod status;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::{AbortHandle, abortable};
use openraft_rt::{AsyncRuntime, Select2};
use quorate_limits::autopilot::Replacing;
use quorate_limits::{
    Leaving, OnUnavailable, Part, PartOutcome, Policy, PolicyChange, PolicyOutcome, Request, Rules, Run, Settings,
};
pub use status::{ClusterStatus, MemberStatus};
use tokio::sync::Notify;
use tracing::info;

use crate::admission::{Consistency, Courier, LeaderQueue, Limiter, Unavailable, UnavailableReason, Verdict};
use crate::consensus::autopilot::Autopilot;
use crate::consensus::founding::Founding;
use crate::consensus::{Consensus, FEATURE_LEVEL, HANDOVER_TIMEOUT, Handover, Link, PeerService, Tuning};
use crate::gossip::{Contacts, Datagrams, Gossip, Peer};
use crate::platform::Platform;
use crate::storage::{Disk, Identity, Room};
use crate::sync::lock;
use crate::transport::Transport;

/// How long a founding command or the first read may take before it is tried again.
const SETUP_TIMEOUT: Duration = Duration::from_secs(2);
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
    /// How careful a lost disk is replaced.
    pub replacing: Replacing,
    /// For so long a member that is to leave goes on answering before this node, if it leads, takes it out.
    pub drain: Duration,
}

/// A running node.
pub struct Node<P: Platform> {
    options: NodeOptions,
    consensus: Consensus<P>,
    queue: Arc<LeaderQueue<P>>,
    courier: Arc<Courier<P>>,
    limiter: Limiter<P>,
    founding: Arc<Founding<P>>,
    handover: Arc<Handover<P>>,
    autopilot: Arc<Autopilot<P>>,
    gossip: Arc<Gossip<P>>,
    caught_up: AtomicBool,
    draining: AtomicBool,
    disk: Disk,
    room: Arc<Room>,
    refused: Mutex<Option<String>>,
    refused_changed: Notify,
    /// Whether it was told that it was removed before it had caught up, and must begin anew.
    anew: AtomicBool,
    anew_changed: Notify,
    /// End with the node.
    tasks: Mutex<Vec<AbortHandle>>,
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
        let identity = boot::boot::<P>(disk, &options, &*transport).await?;
        let run = Run { boot: identity.boot, name: P::random() };
        let me = Peer {
            node: identity.node,
            boot: identity.boot,
            version: 0,
            name: identity.name.clone(),
            cluster: identity.cluster,
            gossip_address: options.gossip_address,
            raft_address: options.raft_address.clone(),
        };
        let gossip = Gossip::start(me, datagrams, contacts)?;
        let link =
            Arc::new(Link::new(identity.node, run, identity.cluster, Arc::clone(&transport), Arc::clone(&gossip)));
        let consensus = Consensus::start(disk, Arc::clone(&link), &options.tuning).await?;
        let queue = Arc::new(LeaderQueue::new(consensus.clone()));
        let courier = Arc::new(Courier::new(consensus.clone(), Arc::clone(&queue)));
        let limiter = Limiter::new(consensus.clone(), &courier);
        let founding = Arc::new(Founding::new(identity, Arc::clone(&disk.identity), link, Arc::clone(&gossip)));
        let room = Arc::new(Room::new(options.disk_reserve));
        let election_max = options.tuning.election_max;
        let handover =
            Arc::new(Handover::new(consensus.clone(), Arc::clone(&queue), Arc::clone(&gossip), election_max));
        let autopilot = Arc::new(Autopilot::new(
            consensus.clone(),
            Arc::clone(&gossip),
            Arc::clone(&handover),
            options.replacing,
            options.drain,
        ));
        let node = Arc::new(Self {
            options,
            consensus,
            queue,
            courier,
            limiter,
            founding,
            handover,
            autopilot,
            gossip,
            caught_up: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            disk: disk.clone(),
            room,
            refused: Mutex::default(),
            refused_changed: Notify::new(),
            anew: AtomicBool::new(false),
            anew_changed: Notify::new(),
            tasks: Mutex::default(),
        });
        node.spawn(Arc::clone(&node.queue).run());
        node.limiter.runs().into_iter().for_each(|outbox| node.spawn(outbox));
        node.spawn(Arc::clone(&node.autopilot).run());
        node.spawn(Arc::clone(&node).join());
        node.spawn(Arc::clone(&node).keep_name(transport));
        node.spawn(Arc::clone(&node).watch_disk());
        node.spawn(Arc::clone(&node).heed_older_disk());
        P::spawn(Arc::clone(&node).heed_removal());
        Ok(node)
    }

    /// Starts a task that ends with the node.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let (task, handle) = abortable(task);
        lock(&self.tasks).push(handle);
        P::spawn(async move {
            // Whether it came to its end or was ended is all the same.
            let _ = task.await;
        });
    }

    fn end_tasks(&self) {
        lock(&self.tasks).drain(..).for_each(|task| task.abort());
    }

    /// The receiving end of other nodes' frames.
    pub fn service(&self) -> Arc<PeerService<P>> {
        let (queue, founding) = (Arc::clone(&self.queue), Arc::clone(&self.founding));
        let (room, autopilot) = (Arc::clone(&self.room), Arc::clone(&self.autopilot));
        Arc::new(PeerService::new(self.consensus.clone(), queue, founding, room, autopilot))
    }

    /// From an empty disk (or a restart) to a member that has caught up.
    async fn join(self: Arc<Self>) {
        if let Some(members) = self.founding.run(self.options.bootstrap_expect).await
            && let Err(reason) = self.consensus.initialize(members).await
        {
            self.refuse(reason);
            return;
        }
        self.spawn(Arc::clone(&self).hold_session());
        self.spawn(Arc::clone(&self).found());
        self.spawn(Arc::clone(&self).raise_feature_level());
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

    /// Waits until this node has applied all that was committed when it asked, an entry among it that was made since it
    /// started. With what was in its log alone its cluster time would be that of the last stamp there, and what it showed
    /// before as ended would be open again for a moment.
    async fn catch_up(&self) {
        self.courier.session_open().await;
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
        *lock(&self.refused) = Some(reason);
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

    /// Notes in the log that a member is to leave; the leader's autopilot sees to it. Again changes nothing.
    ///
    /// # Errors
    /// When it is not known within `deadline` whether it was noted.
    pub async fn decommission(&self, member: u64, deadline: Duration) -> Result<Leaving, Unavailable> {
        let unavailable = |reason| Unavailable { reason, on_unavailable: OnUnavailable::Deny };
        if self.consensus.link().was_removed() {
            return Err(unavailable(UnavailableReason::Removed));
        }
        if !self.rules().founded() {
            return Err(unavailable(UnavailableReason::NotJoined));
        }
        match self.courier.deliver(&Part::Decommission { node: member }, P::now() + deadline).await {
            Ok(PartOutcome::Leaving(leaving)) => Ok(leaving),
            Ok(_) => Err(unavailable(UnavailableReason::Deadline)),
            Err(reason) => Err(unavailable(reason)),
        }
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

    /// Whether this node has caught up once since it started, and neither drains nor is to leave its cluster.
    ///
    /// # Errors
    /// The reason why not.
    pub fn ready(&self) -> Result<(), NotReady> {
        if self.consensus.link().was_removed() {
            Err(UnavailableReason::Removed.to_string())
        } else if self.is_draining() {
            Err("this node is draining".to_owned())
        } else if self.is_leaving() {
            Err("this node is to leave its cluster".to_owned())
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

    /// Whether it is about to stop.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// Goes unready, and hands leadership over if it leads. Requests are still answered.
    pub async fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
        if self.consensus.leadership().is_some() {
            // Without a successor the others elect one when this node is gone.
            if let Some(Err(reason)) = P::timeout(HANDOVER_TIMEOUT, self.handover.hand_over(None)).await {
                info!("leadership was not handed over: {reason}");
            }
        }
    }

    /// Hands leadership to `target`, or to whichever voter has caught up.
    ///
    /// # Errors
    /// Why it was not done.
    pub async fn transfer_leader(&self, target: Option<u64>) -> Result<u64, String> {
        self.handover.hand_over(target).await
    }

    /// Waits until the node can no longer go on (a disk that failed, an entry it does not know, an older copy of its
    /// disk); says why.
    pub async fn failed(&self) -> String {
        let refused = async {
            loop {
                let mut changed = std::pin::pin!(self.refused_changed.notified());
                changed.as_mut().enable();
                if let Some(reason) = lock(&self.refused).clone() {
                    return reason;
                }
                changed.await;
            }
        };
        let failed = async {
            let reason = self.consensus.failed().await;
            if self.consensus.link().was_removed() {
                // It was stopped on purpose; the doors stay open to say so.
                std::future::pending::<()>().await;
            }
            reason
        };
        match P::Rt::select2(Box::pin(refused), Box::pin(failed)).await {
            Select2::First(reason) | Select2::Second(reason) => reason,
        }
    }

    /// Stops consensus and gossip. Nothing is answered afterwards.
    pub async fn stop(&self) {
        self.end_tasks();
        P::timeout(LEAVE_TIMEOUT, self.gossip.leave()).await;
        // It may wait for room on a full disk.
        P::timeout(STOP_TIMEOUT, self.consensus.stop()).await;
    }
}
