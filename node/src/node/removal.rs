//! A node that is to leave its cluster, or that was removed from it: how it finds out, and what becomes of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tracing::error;

use super::Node;
use crate::admission::UnavailableReason;
use crate::consensus::wire::Kind;
use crate::gossip::Peer;
use crate::platform::Platform;
use crate::transport::Lane;

/// Between two looks whether this member is to leave: a small part of the time that its clients have.
const LEAVING_LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Between two questions of a follower to another node, which would tell it that it was removed.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long the answer to that may take.
const TIMEOUT: Duration = Duration::from_secs(1);

impl<P: Platform> Node<P> {
    /// Whether an operator wants this member out, as far as this node has applied the log.
    pub(super) fn is_leaving(&self) -> bool {
        let me = self.consensus.link().me();
        self.consensus.state().read(|state| state.members().leaving().contains_key(&me))
    }

    /// Waits until this member is to leave. It goes on answering for a while, and is not ready any more.
    pub async fn leaves(&self) {
        while !self.is_leaving() {
            P::sleep(LEAVING_LOOK_INTERVAL).await;
        }
    }

    /// Finds out whether this node was removed from its cluster, and does what follows.
    ///
    /// Whoever it speaks to tells it. A learner with nothing to forward speaks to nobody, so it asks around.
    pub(super) async fn heed_removal(self: Arc<Self>) {
        let link = self.consensus.link();
        let mut turn = 0;
        while self.consensus.is_running() && !link.was_removed() {
            P::sleep(LOOK_INTERVAL).await;
            if self.consensus.state().is_removed(link.me()) {
                link.note_removed();
            } else if !link.was_removed() && self.consensus.leadership().is_none() {
                self.ask_another(turn).await;
                turn += 1;
            }
        }
        if !link.was_removed() {
            return;
        }
        if let Err(error) = self.founding.note_removed() {
            return self.refuse(format!("it was removed from its cluster, which could not be saved: {error}"));
        }
        self.end_tasks();
        self.consensus.stop().await;
        if self.caught_up.load(Ordering::SeqCst) {
            error!("{}", UnavailableReason::Removed);
        } else {
            self.anew.store(true, Ordering::SeqCst);
            self.anew_changed.notify_waiters();
        }
    }

    /// Asks one of the nodes of this cluster how it is; any answer will do.
    async fn ask_another(&self, turn: usize) {
        let link = self.consensus.link();
        let cluster = link.cluster();
        let is_other = |peer: &Peer| peer.node != link.me() && cluster.is_some() && peer.cluster == cluster;
        let others: Vec<u64> = self.gossip.peers().into_iter().filter(is_other).map(|peer| peer.node).collect();
        if let Some(other) = others.get(turn % others.len().max(1)) {
            // A refusal is noted by the link.
            let _ = link.call(*other, Kind::Status, Lane::Control, &[], TIMEOUT).await;
        }
    }

    /// Waits until this node must be started anew: its cluster removed it while it was away, and what it keeps is to be
    /// put aside, which [`Disk::open`](crate::storage::Disk::open) does.
    pub async fn starts_anew(&self) {
        loop {
            let mut changed = std::pin::pin!(self.anew_changed.notified());
            changed.as_mut().enable();
            if self.anew.load(Ordering::SeqCst) {
                return;
            }
            changed.await;
        }
    }
}
