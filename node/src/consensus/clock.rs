//! Cluster time on this node: the last stamp received, carried on by the monotonic clock.
//!
//! No wall clock takes part. The estimate is never ahead of the leader that made the stamp: a stamp is received at or
//! after the moment it was made, and time goes on from there at the same rate. So a new leader continues where the
//! old one was, at most the delay of one message behind, and no window ends early. After an outage of the whole
//! cluster time continues from the last stamp in the log, and windows are longer by the outage.

use std::sync::Mutex;
use std::time::Duration;

use openraft_rt::Instant as _;
use quorate_limits::ClusterTime;

use crate::platform::{Instant, Platform};
use crate::sync::lock;

/// The clock of one node.
#[derive(Debug)]
pub struct ClusterClock<P: Platform> {
    anchor: Mutex<Anchor<Instant<P>>>,
}

#[derive(Debug)]
struct Anchor<I> {
    stamp: ClusterTime,
    received: I,
}

impl<P: Platform> Default for ClusterClock<P> {
    fn default() -> Self {
        Self { anchor: Mutex::new(Anchor { stamp: ClusterTime::default(), received: P::now() }) }
    }
}

impl<P: Platform> ClusterClock<P> {
    /// Takes note of a stamp. Only a newer one moves the anchor: an old message that arrives late must not set time
    /// back.
    pub fn observe(&self, stamp: ClusterTime) {
        let mut anchor = lock(&self.anchor);
        if stamp > anchor.stamp {
            *anchor = Anchor { stamp, received: P::now() };
        }
    }

    /// Cluster time now, as far as this node can know.
    pub fn now(&self) -> ClusterTime {
        let anchor = lock(&self.anchor);
        let elapsed: Duration = P::now().saturating_duration_since(anchor.received);
        anchor.stamp + elapsed
    }
}
