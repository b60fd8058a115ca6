//! Calls to other nodes by their Raft id: finds the address, seals the envelope, checks the answer.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use quorate_limits::Run;

use super::machine::State;
use super::older_disk::{OlderDisk, OlderDisks};
use super::types::Member;
use super::wire::{self, Envelope, Kind, Refusal};
use crate::gossip::Gossip;
use crate::platform::Platform;
use crate::storage::ClusterId;
use crate::sync::lock;
use crate::transport::{Lane, Transport};

/// How long a node may take to hear that its disk is an older copy, or to say who it is.
const WORD_TIMEOUT: Duration = Duration::from_secs(1);

/// The way to other nodes.
pub struct Link<P: Platform> {
    me: u64,
    run: Run,
    cluster: Mutex<Option<ClusterId>>,
    transport: Arc<dyn Transport>,
    gossip: Arc<Gossip<P>>,
    /// Addresses from the membership, for those gossip has not met yet.
    members: Mutex<BTreeMap<u64, String>>,
    /// The applied state, by which other nodes' runs are judged.
    state: OnceLock<Arc<State>>,
    older: OlderDisks<P>,
    removed: AtomicBool,
}

/// Why a call got no answer.
#[derive(Debug)]
pub enum CallError {
    /// This node has no cluster yet.
    NoCluster,
    /// Nobody knows where the node is.
    NoAddress(u64),
    /// No answer in time; it may have been received.
    Timeout,
    /// The connection failed.
    Failed(io::Error),
    /// The other side refused it unread.
    Refused(Refusal),
    /// The node runs on an older copy of its disk: what it says does not count.
    OlderDisk(u64),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCluster => write!(f, "this node has no cluster yet"),
            Self::NoAddress(node) => write!(f, "no address is known for node {node:016x}"),
            Self::Timeout => write!(f, "no answer in time"),
            Self::Failed(error) => write!(f, "{error}"),
            Self::Refused(refusal) => write!(f, "refused: {refusal:?}"),
            Self::OlderDisk(node) => write!(f, "node {node:016x} runs on an older copy of its disk"),
        }
    }
}

impl<P: Platform> Link<P> {
    /// A link for node `me`, which runs as `run`.
    pub fn new(
        me: u64,
        run: Run,
        cluster: Option<ClusterId>,
        transport: Arc<dyn Transport>,
        gossip: Arc<Gossip<P>>,
    ) -> Self {
        let (cluster, members) = (Mutex::new(cluster), Mutex::default());
        Self {
            me,
            run,
            cluster,
            transport,
            gossip,
            members,
            state: OnceLock::new(),
            older: OlderDisks::default(),
            removed: AtomicBool::new(false),
        }
    }

    /// This process.
    pub fn run(&self) -> Run {
        self.run
    }

    /// Judges the runs of other nodes by this state from now on.
    pub(super) fn judge_by(&self, state: Arc<State>) {
        // Set once, by whoever made the link.
        let _ = self.state.set(state);
    }

    /// What shows that `node`, which runs as `run`, is on an older disk.
    fn judge(&self, node: u64, run: Run) -> Option<OlderDisk> {
        let latest = *self.state.get()?.runs().get(&node)?;
        run.is_older_than(latest).then_some(OlderDisk::Run(latest))
    }

    /// Whether frames of `node`, which runs as `run`, must not be counted, and why.
    pub(super) fn judge_sender(&self, node: u64, run: Run) -> Option<OlderDisk> {
        let why = self.judge(node, run)?;
        // It hears so from the refusal.
        self.older.note(node, why);
        Some(why)
    }

    /// A node was caught on an older disk: what it said is not counted, and it is told.
    pub(super) fn convict(&self, node: u64, why: OlderDisk) -> CallError {
        if self.older.note(node, why)
            && let (Some(cluster), Some(address)) = (self.cluster(), self.address(node))
        {
            let frame = self.envelope(Kind::OlderDisk, cluster, node).seal(&wire::encode(&why));
            let told = self.transport.call(&address, Lane::Control, frame);
            P::spawn(async move { drop(P::timeout(WORD_TIMEOUT, told).await) });
        }
        CallError::OlderDisk(node)
    }

    /// Another member says that this node's disk is an older copy.
    pub(super) fn hear(&self, why: OlderDisk) {
        self.older.hear(self.run, why);
    }

    /// Waits until this node is known to run on an older copy of its disk; says why it must stop.
    pub async fn outdated(&self) -> String {
        self.older.heard().await.reason(self.run)
    }

    /// Frames and answers of nodes on older disks that were not counted.
    pub fn older_disk_frames(&self) -> u64 {
        self.older.uncounted()
    }

    fn envelope(&self, kind: Kind, cluster: ClusterId, to: u64) -> Envelope {
        Envelope { kind, cluster, from: self.me, run: self.run, to }
    }

    /// This node's Raft id.
    pub fn me(&self) -> u64 {
        self.me
    }

    /// The cluster this node belongs to.
    pub fn cluster(&self) -> Option<ClusterId> {
        *lock(&self.cluster)
    }

    /// Takes note of the cluster this node joined.
    pub fn join(&self, cluster: ClusterId) {
        *lock(&self.cluster) = Some(cluster);
    }

    /// Whether this node was removed from its cluster, as another node of it or its own log says. There is no way back.
    pub fn was_removed(&self) -> bool {
        self.removed.load(Ordering::SeqCst)
    }

    /// Takes note that this node was removed from its cluster.
    pub fn note_removed(&self) {
        self.removed.store(true, Ordering::SeqCst);
    }

    /// Takes note of where the membership says a node is.
    pub fn learn(&self, node: u64, member: &Member) {
        lock(&self.members).insert(node, member.address.clone());
    }

    /// Gossip's address; the membership's for a node that gossip has not met.
    pub fn address(&self, node: u64) -> Option<String> {
        self.gossip.address_of(node).or_else(|| lock(&self.members).get(&node).cloned())
    }

    /// Calls a node of this cluster.
    ///
    /// # Errors
    /// When there is no answer within `limit`, or it is a refusal.
    pub async fn call(
        &self,
        to: u64,
        kind: Kind,
        lane: Lane,
        body: &[u8],
        limit: Duration,
    ) -> Result<Bytes, CallError> {
        let cluster = self.cluster().ok_or(CallError::NoCluster)?;
        self.call_as(cluster, to, kind, lane, body, limit).await
    }

    /// Calls a node in the name of a cluster that is being founded.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn call_as(
        &self,
        cluster: ClusterId,
        to: u64,
        kind: Kind,
        lane: Lane,
        body: &[u8],
        limit: Duration,
    ) -> Result<Bytes, CallError> {
        let address = self.address(to).ok_or(CallError::NoAddress(to))?;
        let frame = self.envelope(kind, cluster, to).seal(body);
        let bytes = P::timeout(limit, self.transport.call(&address, lane, frame))
            .await
            .ok_or(CallError::Timeout)?
            .map_err(CallError::Failed)?;
        let (run, answer) = wire::decode_answer(bytes).map_err(CallError::Failed)?;
        if let Some(why) = self.judge(to, run) {
            return Err(self.convict(to, why));
        }
        if let Err(Refusal::OlderDisk(why)) = answer {
            self.hear(why);
        }
        if matches!(answer, Err(Refusal::Removed)) {
            self.note_removed();
        }
        answer.map_err(CallError::Refused)
    }
}

/// Whether somebody at `address` answers as `node`, in whatever state; asked in nobody's name.
pub async fn answers_as<P: Platform>(transport: &dyn Transport, address: &str, node: u64) -> bool {
    let nobody = Envelope { kind: Kind::Status, cluster: ClusterId(0), from: 0, run: Run::default(), to: node };
    let answered = P::timeout(WORD_TIMEOUT, transport.call(address, Lane::Control, nobody.seal(&[]))).await;
    // Whoever is not meant says so before anything else.
    let Some(Ok(answer)) = answered else { return false };
    matches!(wire::decode_answer(answer), Ok((_, answer)) if !matches!(answer, Err(Refusal::OtherNode(_))))
}

#[cfg(test)]
mod tests;
