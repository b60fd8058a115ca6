//! Keeps an eye on the room on the disk: a node that is short of it stops writing what it can do without.
//!
//! A leader hands over to a voter with room, or refuses proposals when there is none. Every node makes a snapshot, so that
//! the log before it can go. What must be written all the same, as a follower's entries, uses the reserve up; once the disk
//! is full it waits (see `storage`), and goes on by itself when there is room.

use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver as _;
use openraft_rt::Instant as _;
use tracing::{info, warn};

use super::Node;
use crate::consensus::wire::{self, Kind, StatusAnswer};
use crate::platform::{Instant, Platform};
use crate::transport::Lane;

/// Between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Between two attempts to free room by a snapshot.
const SNAPSHOT_INTERVAL: Duration = Duration::from_secs(10);
/// How long letting the leadership go may take, and how often to look.
const LET_GO_TIMEOUT: Duration = Duration::from_secs(2);
const LET_GO_LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// How long a voter may take to say whether it has room.
const ASK_TIMEOUT: Duration = Duration::from_millis(300);

impl<P: Platform> Node<P> {
    /// Runs for as long as the node lives.
    pub(super) async fn watch_disk(self: Arc<Self>) {
        let mut made_room: Option<Instant<P>> = None;
        loop {
            let was_short = self.room.is_short();
            self.room.note(self.disk.space.free(), self.disk.log.waits_for_room());
            let is_short = self.room.is_short();
            if is_short != was_short {
                self.tell_room();
            }
            let refuses = is_short && self.consensus.leadership().is_some() && !self.hand_over_to_room().await;
            self.queue.refuse(refuses);
            let now = P::now();
            if is_short && made_room.is_none_or(|last| now.saturating_duration_since(last) >= SNAPSHOT_INTERVAL) {
                made_room = Some(now);
                self.consensus.make_room().await;
            }
            P::sleep(LOOK_INTERVAL).await;
        }
    }

    fn tell_room(&self) {
        let (free, reserve) = (self.room.free().unwrap_or(0), self.room.reserve());
        if self.room.is_short() {
            warn!(
                free,
                reserve,
                "the disk is short of room: this node will not lead if another voter has room, and nothing is decided if \
                 none has. Free space, or enlarge the disk"
            );
        } else {
            info!(free, reserve, "the disk has room again");
        }
    }

    /// Lets a voter with room lead, if there is one.
    async fn hand_over_to_room(&self) -> bool {
        let voters: Vec<u64> = {
            let metrics = self.consensus.raft().metrics();
            let metrics = metrics.borrow_watched();
            metrics.membership_config.membership().voter_ids().filter(|id| *id != metrics.id).collect()
        };
        for voter in voters {
            let asked = self.consensus.link().call(voter, Kind::Status, Lane::Control, &[], ASK_TIMEOUT).await;
            let Ok(answer) = asked.map(|body| wire::decode::<StatusAnswer>(&body)) else { continue };
            if answer.is_ok_and(|answer| !answer.short_of_room) {
                let handed = if self.disk.log.waits_for_room() {
                    self.let_go(voter).await
                } else {
                    self.transfer_leader(Some(voter)).await
                };
                match handed {
                    Ok(_) => return true,
                    Err(reason) => warn!(to = format!("{voter:016x}"), "a voter with room did not take over: {reason}"),
                }
            }
        }
        false
    }

    /// As [`transfer_leader`](Node::transfer_leader), when writes wait already: what this leader has under way is never
    /// flushed here, so it is not waited for. Whoever takes over has it, or nobody was told of it.
    async fn let_go(&self, voter: u64) -> Result<u64, String> {
        self.queue.pause(true);
        let go = async {
            while self.handover.successor(Some(voter))?.is_none() {
                P::sleep(LET_GO_LOOK_INTERVAL).await;
            }
            self.consensus.transfer_leader(voter).await?;
            self.consensus.leader_other_than(Some(self.consensus.link().me())).await;
            Ok(voter)
        };
        let gone = P::timeout(LET_GO_TIMEOUT, go).await;
        self.queue.pause(false);
        // Its own consensus may wait too, with the next leader's term to write.
        gone.unwrap_or_else(|| Err("it was asked to, and nothing was heard of it yet".to_owned()))
    }
}
