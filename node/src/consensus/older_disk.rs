//! Disks that were put back to an earlier state. A node on one has forgotten what it acknowledged, so its votes and
//! acknowledgements are not counted, and it is told to stop.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use openraft_rt::Instant as _;
use quorate_limits::Run;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::platform::{Instant, Platform};
use crate::sync::lock;

/// Between two words to the same node.
const TELL_INTERVAL: Duration = Duration::from_secs(1);
/// Between two lines in the log about the same node.
const LOG_INTERVAL: Duration = Duration::from_mins(1);

/// What shows that a node's disk is older than it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OlderDisk {
    /// This run of it is known, and the present one began from an earlier state.
    Run(Run),
    /// Its log lacks an entry that it had acknowledged to the leader.
    Log {
        /// It had acknowledged everything up to this index.
        acknowledged: u64,
        /// It lacks the entry at this one, which is not above it.
        lacks: u64,
    },
}

impl OlderDisk {
    /// For the node itself, which runs as `mine`: what is wrong, and what to do.
    #[must_use]
    pub fn reason(&self, mine: Run) -> String {
        let what = match self {
            Self::Run(latest) if mine.boot < latest.boot => format!(
                "this node starts for time {}, but the cluster has seen it start {} times: its data is an older copy",
                mine.boot, latest.boot
            ),
            Self::Run(latest) => format!(
                "another process has started for time {} from this node's data: one of the two has an older copy",
                latest.boot
            ),
            Self::Log { acknowledged, lacks } => format!(
                "this node had acknowledged the log up to entry {acknowledged}, and lacks entry {lacks} now: its data is \
                 an older copy"
            ),
        };
        format!(
            "{what}. It must not vote with what it has: start it on an empty DATA_DIR, it replaces its former self and \
             copies the state from the others"
        )
    }
}

#[derive(Clone, Copy)]
struct Told<I> {
    told: I,
    logged: I,
}

/// The nodes that were seen on an older disk, and whether this one is.
pub(super) struct OlderDisks<P: Platform> {
    others: Mutex<BTreeMap<u64, Told<Instant<P>>>>,
    uncounted: AtomicU64,
    own: Mutex<Option<OlderDisk>>,
    heard: Notify,
}

impl<P: Platform> Default for OlderDisks<P> {
    fn default() -> Self {
        Self { others: Mutex::default(), uncounted: AtomicU64::new(0), own: Mutex::default(), heard: Notify::new() }
    }
}

impl<P: Platform> OlderDisks<P> {
    /// A frame or an answer of `node` is not counted. Returns whether it is time to tell the node.
    pub(super) fn note(&self, node: u64, why: OlderDisk) -> bool {
        self.uncounted.fetch_add(1, Ordering::Relaxed);
        let now = P::now();
        let mut others = lock(&self.others);
        let before = others.get(&node).copied();
        let since = |then: Instant<P>| now.saturating_duration_since(then);
        let (tell, log) = before
            .map_or((true, true), |before| (since(before.told) >= TELL_INTERVAL, since(before.logged) >= LOG_INTERVAL));
        let keep = |then: Option<Instant<P>>, again: bool| then.filter(|_| !again).unwrap_or(now);
        let told = Told {
            told: keep(before.map(|before| before.told), tell),
            logged: keep(before.map(|before| before.logged), log),
        };
        others.insert(node, told);
        drop(others);
        if log {
            tracing::error!(
                node = format!("{node:016x}"),
                ?why,
                "its data is an older copy: it is not counted, and is told to stop; start it on an empty DATA_DIR"
            );
        }
        tell
    }

    /// Frames and answers that were not counted so far.
    pub(super) fn uncounted(&self) -> u64 {
        self.uncounted.load(Ordering::Relaxed)
    }

    /// Another member says that this node, which runs as `mine`, is on an older disk.
    pub(super) fn hear(&self, mine: Run, why: OlderDisk) {
        let about_me = match why {
            OlderDisk::Run(latest) => mine.is_older_than(latest),
            OlderDisk::Log { .. } => true,
        };
        if about_me {
            lock(&self.own).get_or_insert(why);
            self.heard.notify_waiters();
        }
    }

    /// Waits until this node is known to be on an older disk.
    pub(super) async fn heard(&self) -> OlderDisk {
        loop {
            let mut heard = std::pin::pin!(self.heard.notified());
            // Registered before looking, so that no word between is missed.
            heard.as_mut().enable();
            if let Some(why) = *lock(&self.own) {
                return why;
            }
            heard.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;
    use crate::platform::Tokio;

    const MINE: Run = Run { boot: 5, name: 1 };

    #[tokio::test]
    async fn word_of_a_later_run_or_the_same_start_twice_is_heard_and_of_an_earlier_one_not() {
        for (latest, heard) in [
            (Run { boot: 6, name: 9 }, true),
            (Run { boot: 5, name: 9 }, true),
            (Run { boot: 5, name: 1 }, false),
            (Run { boot: 4, name: 9 }, false),
        ] {
            let disks = OlderDisks::<Tokio>::default();
            disks.hear(MINE, OlderDisk::Run(latest));
            assert_eq!(disks.heard().now_or_never().is_some(), heard, "{latest:?}");
        }
    }

    #[tokio::test]
    async fn node_on_an_older_disk_is_told_once_in_a_while_and_counted_each_time() {
        let disks = OlderDisks::<Tokio>::default();
        let why = OlderDisk::Log { acknowledged: 9, lacks: 7 };
        assert!(disks.note(3, why));
        assert!(!disks.note(3, why));
        assert!(disks.note(4, why));
        assert_eq!(disks.uncounted(), 3);
    }

    #[test]
    fn reasons_say_what_shows_it_and_what_to_do() {
        let remedy = ". It must not vote with what it has: start it on an empty DATA_DIR, it replaces its former self \
                      and copies the state from the others";
        let run = OlderDisk::Run(Run { boot: 7, name: 2 }).reason(MINE);
        let seen = "this node starts for time 5, but the cluster has seen it start 7 times: its data is an older copy";
        assert_eq!(run, format!("{seen}{remedy}"));
        for (why, part) in [
            (OlderDisk::Run(Run { boot: 5, name: 2 }), "another process has started for time 5 from this node's data"),
            (OlderDisk::Log { acknowledged: 9, lacks: 7 }, "acknowledged the log up to entry 9, and lacks entry 7 now"),
        ] {
            let reason = why.reason(MINE);
            assert!(reason.contains(part) && reason.ends_with(remedy), "{reason}");
        }
    }
}
