//! openraft behind one facade: propose, read barrier, members.
//!
//! No openraft type leaves this module but through the log adapter of `storage`.

mod acknowledged;
pub mod autopilot;
mod clock;
mod convert;
pub mod founding;
mod handover;
mod image;
mod link;
mod machine;
mod network;
pub mod older_disk;
mod receiver;
mod service;
mod types;
pub mod wire;

use std::collections::BTreeMap;
use std::io;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub use clock::ClusterClock;
pub use convert::{decode_payload, encode_payload, log_id_from_raft, log_id_to_raft, vote_from_raft, vote_to_raft};
pub use handover::{HANDOVER_TIMEOUT, Handover};
pub use link::{CallError, Link, answers_as};
pub use machine::{FEATURE_LEVEL, Machine, State};
use openraft::alias::CommittedLeaderIdOf;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::ClientWriteError;
use openraft::impls::ProgressResponder;
use openraft::{Config, Raft, ReadPolicy, SnapshotPolicy};
use quorate_limits::{Batch, Command, Outcome, PartOutcome};
pub use service::PeerService;
pub use types::{Applied, Member, Proposal, Types};

use self::network::Network;
use self::receiver::Receiver;
use crate::platform::Platform;
use crate::storage::{Disk, LogAdapter, LogId};

/// Between two looks at how much was written.
const VOLUME_LOOK_INTERVAL: Duration = Duration::from_secs(1);

type RaftOf<P> = Raft<Types<P>, Machine<P>>;

/// Timing and sizes of consensus.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// Between heartbeats.
    pub heartbeat: Duration,
    /// The shortest time without a leader before an election.
    pub election_min: Duration,
    /// The longest; also the leader's lease.
    pub election_max: Duration,
    /// Log entries between snapshots.
    pub snapshot_every: u64,
    /// Bytes of log between snapshots, whichever comes first: entries may be large.
    pub snapshot_bytes: u64,
    /// Log entries kept behind a snapshot, for followers that lag a little.
    pub keep_behind_snapshot: u64,
    /// Bytes of a snapshot that are written, read or sent at once.
    pub snapshot_piece_bytes: usize,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(100),
            election_min: Duration::from_millis(300),
            election_max: Duration::from_millis(600),
            snapshot_every: 50_000,
            snapshot_bytes: 256 << 20,
            keep_behind_snapshot: 5_000,
            snapshot_piece_bytes: 1 << 20,
        }
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl Tuning {
    fn config(&self) -> io::Result<Config> {
        let election_max = millis(self.election_max);
        Config {
            cluster_name: "quorate".to_owned(),
            heartbeat_interval: millis(self.heartbeat),
            election_timeout_min: millis(self.election_min),
            election_timeout_max: election_max,
            enable_pre_vote: Some(true),
            // Lets a connected majority elect although the old leader still reaches some of it (openraft #2080).
            quorum_loss_probe_interval: Some(2 * election_max),
            snapshot_policy: SnapshotPolicy::LogsSinceLast(self.snapshot_every),
            max_in_snapshot_log_to_keep: self.keep_behind_snapshot,
            replication_lag_threshold: self.snapshot_every * 2,
            install_snapshot_timeout: 30_000,
            // Entries are batches already; a frame of 64 stays within a few megabytes.
            max_payload_entries: 64,
            // A restarted leader stands for election like anybody else: its old lease means nothing any more.
            enable_leader_restore: Some(false),
            // A log that got shorter is a lost disk; the node must come back under a new id instead.
            allow_log_reversion: None,
            ..Config::default()
        }
        .validate()
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error.to_string()))
    }
}

/// Leadership as it was when it was looked at: proposals under it fail once it is lost.
#[derive(Clone, Debug)]
pub struct Leadership<P: Platform> {
    committed: CommittedLeaderIdOf<Types<P>>,
}

/// A proposal was not applied under the leadership it was made for. Whether it ever will be is unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotLeader {
    /// Who may lead now.
    pub leader: Option<u64>,
}

/// Consensus on one node.
pub struct Consensus<P: Platform> {
    raft: RaftOf<P>,
    state: Arc<State>,
    clock: Arc<ClusterClock<P>>,
    link: Arc<Link<P>>,
    receiver: Arc<Receiver>,
    platform: PhantomData<P>,
}

impl<P: Platform> Clone for Consensus<P> {
    fn clone(&self) -> Self {
        Self {
            raft: self.raft.clone(),
            state: Arc::clone(&self.state),
            clock: Arc::clone(&self.clock),
            link: Arc::clone(&self.link),
            receiver: Arc::clone(&self.receiver),
            platform: PhantomData,
        }
    }
}

impl<P: Platform> Consensus<P> {
    /// Starts consensus from what the disk holds.
    ///
    /// # Errors
    /// When the disk cannot be read or the settings contradict each other.
    pub async fn start(disk: &Disk, link: Arc<Link<P>>, tuning: &Tuning) -> io::Result<Self> {
        let clock = Arc::new(ClusterClock::default());
        let piece_bytes = tuning.snapshot_piece_bytes;
        let machine = Machine::open(Arc::clone(&disk.snapshots), Arc::clone(&clock), piece_bytes).await?;
        check_snapshot(machine.last(), disk.log.state().purged)?;
        let state = machine.state();
        link.judge_by(Arc::clone(&state));
        let observed = Arc::clone(&clock);
        let volume = Arc::new(AtomicU64::new(0));
        let written = Arc::clone(&volume);
        let observe = Arc::new(move |proposal: &Proposal| {
            written.fetch_add(proposal.0.len() as u64, Ordering::Relaxed);
            if let Some(stamp) = Batch::peek_stamp(&proposal.0) {
                observed.appended(stamp);
            }
        });
        let log = LogAdapter::<P>::new(Arc::clone(&disk.log), observe);
        let config = Arc::new(tuning.config()?);
        let network = Network::new(Arc::clone(&link), piece_bytes);
        let raft = Raft::new(link.me(), config, network, log, machine)
            .await
            .map_err(|fatal| io::Error::other(fatal.to_string()))?;
        P::spawn(snapshot_by_volume(raft.clone(), volume, tuning.snapshot_bytes));
        let receiver = Arc::new(Receiver::new(Arc::clone(&disk.snapshots)));
        Ok(Self { raft, state, clock, link, receiver, platform: PhantomData })
    }

    /// The applied state.
    pub fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// Cluster time on this node.
    pub fn clock(&self) -> &ClusterClock<P> {
        &self.clock
    }

    /// The way to other nodes.
    pub fn link(&self) -> &Arc<Link<P>> {
        &self.link
    }

    /// Snapshots on their way in.
    fn receiver(&self) -> &Receiver {
        &self.receiver
    }

    pub(crate) fn raft(&self) -> &RaftOf<P> {
        &self.raft
    }

    /// Who leads, as far as this node knows.
    pub fn leader(&self) -> Option<u64> {
        self.raft.server_metrics().borrow_watched().current_leader
    }

    /// Waits until somebody leads who is not `known`.
    pub async fn leader_other_than(&self, known: Option<u64>) -> Option<u64> {
        // Those of the server alone: the others change with every entry, and would wake every part under way.
        let mut server = self.raft.server_metrics();
        loop {
            let leader = server.borrow_watched().current_leader;
            if leader.is_some() && leader != known {
                return leader;
            }
            if server.changed().await.is_err() {
                // Consensus has stopped; nobody will lead.
                std::future::pending::<()>().await;
            }
        }
    }

    /// This node's leadership, if it leads.
    pub fn leadership(&self) -> Option<Leadership<P>> {
        let leader = self.raft.as_leader().ok()?;
        Some(Leadership { committed: leader.to_committed_leader_id() })
    }

    /// Hands a batch to the log under a leadership, and returns at once; the outcome comes through the future.
    /// Batches handed over one after the other stand in the log in that order.
    pub async fn propose(
        &self,
        leadership: &Leadership<P>,
        batch: &Batch,
    ) -> impl Future<Output = Result<Vec<PartOutcome>, NotLeader>> + Send + use<P> {
        let (responder, done) = ProgressResponder::complete_only();
        let request = self.raft.write(Proposal(batch.encode().into()));
        let sent = request.responder(responder).with_leader(leadership.committed).await.is_ok();
        async move {
            if !sent {
                return Err(NotLeader { leader: None });
            }
            match done.await {
                Ok(Ok(response)) => Ok(response.data.0),
                Ok(Err(ClientWriteError::ForwardToLeader(forward))) => Err(NotLeader { leader: forward.leader_id }),
                Ok(Err(_)) | Err(_) => Err(NotLeader { leader: None }),
            }
        }
    }

    /// Looks at the state as the leader: sees everything acknowledged before it was asked. Also the log index that the
    /// answers reflect at least.
    ///
    /// # Errors
    /// When this node does not lead or cannot show that it does.
    pub async fn read(&self, commands: &[Command]) -> Result<(Vec<Outcome>, u64), NotLeader> {
        let index = self.barrier().await?;
        let now = self.clock.now();
        let outcomes = self.state.read(|state| commands.iter().map(|command| state.evaluate(now, command)).collect());
        Ok((outcomes, index))
    }

    /// Shows to a majority that this node still leads, and waits until it has applied all that was committed before. The
    /// index of that.
    async fn barrier(&self) -> Result<u64, NotLeader> {
        #[cfg(feature = "deliberate-bugs")]
        if crate::bugs::active(crate::bugs::Bug::ReadWithoutBarrier) && self.leadership().is_some() {
            return Ok(self.raft.metrics().borrow_watched().last_applied.map_or(0, |id| id.index()));
        }
        let barrier = self.raft.ensure_linearizable(ReadPolicy::ReadIndex).await;
        let not_leader = |_| NotLeader { leader: self.leader().filter(|leader| *leader != self.link.me()) };
        barrier.map(|at| at.index()).map_err(not_leader)
    }

    /// Waits until this node has applied the entry at `index`.
    pub async fn applied(&self, index: u64) {
        let mut metrics = self.raft.metrics();
        loop {
            if metrics.borrow_watched().last_applied.is_some_and(|id| id.index() >= index) {
                return;
            }
            if metrics.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Founds the cluster with these members. Doing it again with the same members changes nothing.
    ///
    /// # Errors
    /// When consensus has stopped.
    pub async fn initialize(&self, members: BTreeMap<u64, Member>) -> Result<(), String> {
        match self.raft.initialize(members).await {
            Ok(()) => Ok(()),
            Err(error) if error.api_error().is_some() => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Waits until consensus has stopped on its own; says why.
    pub async fn failed(&self) -> String {
        // They change seldom, and end with the core, which by then has said why in the others.
        let mut server = self.raft.server_metrics();
        while server.changed().await.is_ok() {}
        match &self.raft.metrics().borrow_watched().running_state {
            Err(fatal) => fatal.to_string(),
            Ok(()) => "consensus has stopped".to_owned(),
        }
    }

    /// Whether consensus goes on: it was neither stopped nor has it failed.
    pub fn is_running(&self) -> bool {
        self.raft.metrics().borrow_watched().running_state.is_ok()
    }

    /// Hands leadership to `target`, which must have caught up.
    ///
    /// # Errors
    /// When consensus has stopped.
    pub async fn transfer_leader(&self, target: u64) -> Result<(), String> {
        self.raft.trigger().transfer_leader(target).await.map_err(|fatal| fatal.to_string())
    }

    /// Makes a snapshot, and lets the log before the last one go, for the room on the disk.
    pub async fn make_room(&self) {
        let upto = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            // openraft puts off what a leader still sends to somebody, and asserts that the snapshot that follows does not
            // ask for less. So only what all others have.
            let others = metrics.replication.iter().flatten().filter(|(id, _)| **id != metrics.id);
            let matched = others.map(|(_, matched)| matched.as_ref().map(openraft::LogId::index)).min();
            let snapshot = metrics.snapshot.map(|snapshot| snapshot.index());
            let upto = matched.map_or(snapshot, |matched| matched.min(snapshot));
            // While it is open who leads, it may be this node in a moment.
            upto.filter(|_| metrics.current_leader.is_some_and(|id| id != metrics.id || metrics.replication.is_some()))
        };
        // The only error is that consensus has stopped, which `failed` reports.
        if let Some(upto) = upto {
            let _ = self.raft.trigger().purge_log(upto).await;
        }
        let _ = self.raft.trigger().snapshot().await;
    }

    /// Stops consensus.
    pub async fn stop(&self) {
        // The only error is that the core had panicked, which `failed` reports.
        let _ = self.raft.shutdown().await;
    }
}

/// A log that was purged goes on behind a snapshot: an older one leaves a gap.
fn check_snapshot(snapshot: Option<LogId>, purged: Option<LogId>) -> io::Result<()> {
    if snapshot >= purged {
        return Ok(());
    }
    let name = |id: Option<LogId>| id.map_or_else(|| "nothing".to_owned(), |id| format!("entry {id}"));
    let reason = format!(
        "snapshot.bin holds everything up to {}, but the log begins behind {}: the snapshot is an older copy. Put the data \
         folder back as it was. Otherwise start this node with an empty DATA_DIR: it replaces its former self and copies the \
         state from the others",
        name(snapshot),
        name(purged)
    );
    Err(io::Error::new(io::ErrorKind::InvalidData, reason))
}

/// Asks for a snapshot whenever enough was written since the last one. Ends with consensus.
async fn snapshot_by_volume<P: Platform>(raft: RaftOf<P>, written: Arc<AtomicU64>, limit: u64) {
    loop {
        P::sleep(VOLUME_LOOK_INTERVAL).await;
        if written.load(Ordering::Relaxed) >= limit {
            written.store(0, Ordering::Relaxed);
            if raft.trigger().snapshot().await.is_err() {
                return;
            }
        } else if raft.metrics().borrow_watched().running_state.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshot_older_than_what_the_log_purged_is_refused() {
        let at = |index| Some(LogId { term: 3, index });
        for (snapshot, purged) in [(None, None), (at(5), None), (at(5), at(5)), (at(6), at(5))] {
            check_snapshot(snapshot, purged).unwrap();
        }
        for (snapshot, part) in [(None, "up to nothing"), (at(4), "up to entry 4 of term 3")] {
            let refusal = check_snapshot(snapshot, at(5)).unwrap_err().to_string();
            assert!(refusal.contains(part) && refusal.contains("behind entry 5 of term 3"), "{refusal}");
            assert!(refusal.contains("empty DATA_DIR"), "{refusal}");
        }
    }
}
