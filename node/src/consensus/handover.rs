//! Handing over leadership: stop proposing, wait until the successor has everything, let it lead.
//!
//! Until the successor is told, the hand-over can be undone, and is when nobody catches up in time. From then on this
//! leader cannot propose any more (openraft, as Raft's dissertation 3.10), so it tells a successor again and again until
//! another node leads.

use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use tokio::sync::{Mutex, oneshot};
use tracing::{info, warn};

use super::Consensus;
use crate::admission::LeaderQueue;
use crate::gossip::Gossip;
use crate::platform::Platform;

/// How long a leader waits for its successor to catch up, and whoever asked for the hand-over for its end.
pub const HANDOVER_TIMEOUT: Duration = Duration::from_secs(3);
/// Between two looks whether a successor has caught up.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// Hands over the leadership of one node.
pub struct Handover<P: Platform> {
    consensus: Consensus<P>,
    queue: Arc<LeaderQueue<P>>,
    gossip: Arc<Gossip<P>>,
    /// How long a successor that was told may take to lead.
    election_max: Duration,
    /// One at a time.
    turn: Mutex<()>,
}

impl<P: Platform> Handover<P> {
    /// Of a node whose elections take `election_max` at most.
    pub fn new(
        consensus: Consensus<P>,
        queue: Arc<LeaderQueue<P>>,
        gossip: Arc<Gossip<P>>,
        election_max: Duration,
    ) -> Self {
        Self { consensus, queue, gossip, election_max, turn: Mutex::new(()) }
    }

    /// Hands leadership to `target`, or to whichever voter has caught up; says who leads then. Parts that wait go there.
    ///
    /// # Errors
    /// Why it was not done, or that nobody leads yet; it goes on then.
    pub async fn hand_over(self: &Arc<Self>, target: Option<u64>) -> Result<u64, String> {
        if self.consensus.leadership().is_none() {
            return Err("this node does not lead".to_owned());
        }
        let (done, end) = oneshot::channel();
        let this = Arc::clone(self);
        // Not given up with whoever asked: once the successor is told there is no way back.
        P::spawn(async move {
            let _turn = this.turn.lock().await;
            let ended = this.carry_out(target).await;
            this.queue.pause(false);
            // Nobody may wait for it any more.
            let _ = done.send(ended);
        });
        match P::timeout(HANDOVER_TIMEOUT + 2 * self.election_max, end).await {
            Some(Ok(ended)) => ended,
            Some(Err(_)) => Err("consensus has stopped".to_owned()),
            None => Err("nobody took over in time; it is tried on".to_owned()),
        }
    }

    async fn carry_out(&self, target: Option<u64>) -> Result<u64, String> {
        let me = self.consensus.link().me();
        let until = P::now() + HANDOVER_TIMEOUT;
        self.queue.pause(true);
        if P::timeout(HANDOVER_TIMEOUT, self.queue.idle()).await.is_none() {
            return Err("what was proposed did not come to an end in time; this node goes on leading".to_owned());
        }
        let mut told = false;
        while self.consensus.is_running() && self.consensus.leadership().is_some() {
            // Whoever was wished for may be gone by now.
            match self.successor(target.filter(|_| !told || P::now() < until)) {
                Ok(Some(successor)) => {
                    info!(to = format!("{successor:016x}"), "hands leadership over");
                    self.consensus.transfer_leader(successor).await?;
                    told = true;
                    let next = self.consensus.leader_other_than(Some(me));
                    if let Some(Some(leader)) = P::timeout(self.election_max * 2, next).await {
                        return Ok(leader);
                    }
                    warn!("the hand-over was lost; trying again");
                }
                Err(reason) if !told => return Err(reason),
                _ if !told && P::now() >= until => {
                    return Err("no other voter caught up in time; this node goes on leading".to_owned());
                }
                _ => {}
            }
            P::sleep(LOOK_INTERVAL).await;
        }
        let leader = self.consensus.leader().filter(|leader| *leader != me);
        leader.ok_or_else(|| "this node does not lead any more".to_owned())
    }

    /// The voter to hand leadership to, once it has the whole log; `None` while nobody has.
    ///
    /// # Errors
    /// There is no other voter, or not the one wished for.
    pub fn successor(&self, target: Option<u64>) -> Result<Option<u64>, String> {
        let metrics = self.consensus.raft().metrics().borrow_watched().clone();
        let me = metrics.id;
        // The voters to come: whoever leaves with a change under way must not lead.
        let voters = metrics.membership_config.membership().get_joint_config().last().cloned().unwrap_or_default();
        let leaving = self.consensus.state().read(|state| state.members().leaving().clone());
        let is_wanted = |id: &u64| target.map_or_else(|| !leaving.contains_key(id), |target| *id == target);
        let voters: Vec<u64> = voters.into_iter().filter(|id| *id != me && is_wanted(id)).collect();
        if voters.is_empty() {
            return Err("there is no other voter to take over".to_owned());
        }
        let replicated = metrics.replication.unwrap_or_default();
        let last = metrics.last_log_index;
        Ok(voters.into_iter().find(|id| {
            self.gossip.is_alive(*id) && replicated.get(id).and_then(Option::as_ref).map(openraft::LogId::index) >= last
        }))
    }
}
