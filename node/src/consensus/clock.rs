//! Cluster time on this node: the last stamp received, carried on by the monotonic clock.
//!
//! No wall clock takes part. A node's estimate goes on from the stamp that stands last in its log, from the moment it
//! received it, which is at or after the moment it was made. So between two entries of the log cluster time advances at
//! most by what passed between their making, by the faster of the clocks that took part, and no window ends early. It
//! advances less by the delay of one message when leadership moves. After an outage of the whole cluster time continues
//! from the last stamp in the log, and windows are longer by the outage.
//!
//! Two things would break this, and are avoided. An estimate that is ahead of the stamp received last must be set back to
//! it: what it is ahead by stems from entries that never came into the log. And a leader must not go on from its own
//! stamps as they come by: each would cost it the time from the stamp to the log, which under load adds up.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use openraft_rt::Instant as _;
use quorate_limits::ClusterTime;

use crate::admission::ENTRIES_IN_FLIGHT_MAX;
use crate::platform::{Instant, Platform};
use crate::sync::lock;

/// The clock of one node.
#[derive(Debug)]
pub struct ClusterClock<P: Platform> {
    state: Mutex<State<P>>,
}

#[derive(Debug)]
struct State<P: Platform> {
    stamp: ClusterTime,
    received: Instant<P>,
    /// Stamps made here that did not come into the log yet, or never will.
    made: VecDeque<ClusterTime>,
}

impl<P: Platform> State<P> {
    fn now(&self) -> ClusterTime {
        let elapsed: Duration = P::now().saturating_duration_since(self.received);
        #[cfg(feature = "deliberate-bugs")]
        if crate::bugs::active(crate::bugs::Bug::ClockTooFast) {
            return self.stamp + elapsed * 101 / 100;
        }
        self.stamp + elapsed
    }

    fn go_on_from(&mut self, stamp: ClusterTime) {
        (self.stamp, self.received) = (stamp, P::now());
    }
}

impl<P: Platform> Default for ClusterClock<P> {
    fn default() -> Self {
        let (stamp, received) = (ClusterTime::default(), P::now());
        Self { state: Mutex::new(State { stamp, received, made: VecDeque::new() }) }
    }
}

impl<P: Platform> ClusterClock<P> {
    /// Makes a stamp for a log entry.
    pub fn stamp(&self) -> ClusterTime {
        let mut state = lock(&self.state);
        let stamp = state.now();
        if state.made.len() == ENTRIES_IN_FLIGHT_MAX {
            state.made.pop_front();
        }
        state.made.push_back(stamp);
        stamp
    }

    /// Takes note of the stamp of an entry that is appended to the log.
    pub fn appended(&self, stamp: ClusterTime) {
        let mut state = lock(&self.state);
        match state.made.iter().position(|made| *made == stamp) {
            Some(mine) => drop(state.made.remove(mine)),
            None => state.go_on_from(stamp),
        }
    }

    /// Takes note of the time of a state that took the place of the log before it.
    pub fn installed(&self, time: ClusterTime) {
        lock(&self.state).go_on_from(time);
    }

    /// Takes note of the time of the applied state: an entry that is read from the disk at the start is not appended.
    pub fn applied(&self, time: ClusterTime) {
        let mut state = lock(&self.state);
        if time > state.now() {
            state.go_on_from(time);
        }
    }

    /// Cluster time now, as far as this node can know.
    pub fn now(&self) -> ClusterTime {
        lock(&self.state).now()
    }
}

#[cfg(test)]
mod tests {
    use openraft_rt::AsyncRuntime as _;
    use openraft_rt_sim::SimRuntime;

    use super::*;

    const HOUR: ClusterTime = ClusterTime(3_600_000_000_000);
    const SECOND: Duration = Duration::from_secs(1);

    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
    struct Virtual;

    impl Platform for Virtual {
        type Rt = SimRuntime;
    }

    fn in_virtual_time(test: impl AsyncFnOnce(ClusterClock<Virtual>)) {
        SimRuntime::with_seed(0).block_on(async { test(ClusterClock::default()).await });
    }

    #[test]
    fn own_stamps_come_by_late_time_does_not_wait_for_them() {
        in_virtual_time(async |clock| {
            clock.appended(HOUR);
            for _ in 0..100 {
                let stamp = clock.stamp();
                Virtual::sleep(SECOND / 100).await;
                clock.appended(stamp);
                clock.applied(stamp);
            }
            assert_eq!(clock.now(), HOUR + SECOND);
        });
    }

    #[test]
    fn another_leaders_stamp_is_behind_the_estimate_it_is_set_back() {
        in_virtual_time(async |clock| {
            clock.appended(HOUR + 2 * SECOND);
            clock.appended(HOUR);
            Virtual::sleep(SECOND).await;
            assert_eq!(clock.now(), HOUR + SECOND);
        });
    }

    #[test]
    fn applied_state_is_ahead_or_behind_only_ahead_counts() {
        in_virtual_time(async |clock| {
            clock.applied(HOUR);
            Virtual::sleep(SECOND).await;
            clock.applied(HOUR + SECOND / 2);
            assert_eq!(clock.now(), HOUR + SECOND);
            clock.applied(HOUR + 5 * SECOND);
            assert_eq!(clock.now(), HOUR + 5 * SECOND);
        });
    }

    #[test]
    fn snapshot_takes_the_logs_place_time_is_that_of_the_snapshot() {
        in_virtual_time(async |clock| {
            clock.appended(HOUR + 2 * SECOND);
            clock.installed(HOUR);
            assert_eq!(clock.now(), HOUR);
        });
    }
}
