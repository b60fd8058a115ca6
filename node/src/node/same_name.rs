//! A second node under the name of a member: it is refused, and says so; the member stays.

use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver as _;

use super::Node;
use crate::consensus::answers_as;
use crate::gossip::Peer;
use crate::platform::Platform;
use crate::transport::Transport;

/// Between two looks at who is there.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

impl<P: Platform> Node<P> {
    /// Until this node is a member: stops it when a node of a cluster runs under its name somewhere else. One that came
    /// back on an empty disk finds nobody, and may take its former self's place.
    pub(super) async fn keep_name(self: Arc<Self>, transport: Arc<dyn Transport>) {
        while !self.is_member() {
            for peer in self.gossip.peers().iter().filter(|peer| self.has_name(peer)) {
                if answers_as::<P>(&*transport, &peer.raft_address, peer.node).await && !self.is_member() {
                    self.refuse(format!(
                        "another node of the cluster runs under NODE_ID {} at {}, as node {:016x}: set NODE_ID to a name \
                         that no other node has and start this node again; or, if it is to take that node's place, stop \
                         that one first",
                        peer.name, peer.raft_address, peer.node
                    ));
                    return;
                }
            }
            P::sleep(LOOK_INTERVAL).await;
        }
    }

    /// A node of this cluster, or of one that this node may be invited into, under this node's name.
    fn has_name(&self, peer: &Peer) -> bool {
        let mine = self.consensus.link().cluster();
        peer.name == self.options.name
            && peer.node != self.consensus.link().me()
            && peer.raft_address != self.options.raft_address
            && peer.cluster.is_some_and(|theirs| mine.is_none_or(|mine| mine == theirs))
    }

    fn is_member(&self) -> bool {
        let metrics = self.consensus.raft().metrics();
        let me = self.consensus.link().me();
        metrics.borrow_watched().membership_config.membership().nodes().any(|(id, _)| *id == me)
    }
}
