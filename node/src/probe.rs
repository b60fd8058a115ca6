//! What the simulator sees of every state machine on its thread. Built only with the feature `deliberate-bugs`.

use std::cell::RefCell;

use bytes::Bytes;
use quorate_limits::{ClusterTime, PartOutcome, StateMachine};

use crate::storage::LogId;

/// A step of one node, just taken.
pub enum Step<'a> {
    /// An entry was applied.
    Applied {
        /// Its position.
        at: LogId,
        /// The entry's payload as it is written.
        payload: Bytes,
        /// What it came to, a proposal's parts in order.
        outcomes: &'a [PartOutcome],
    },
    /// A snapshot took the state's place; after the entry at this position, as its maker says.
    Installed(Option<LogId>),
    /// A leader made a stamp; the state is what it has applied so far.
    Stamped(ClusterTime),
}

/// Called after each step with the state of the node that took it.
pub type Watcher = Box<dyn FnMut(&Step<'_>, &StateMachine)>;

thread_local! {
    static WATCHER: RefCell<Option<Watcher>> = const { RefCell::new(None) };
}

/// Shows all steps on this thread to `watcher` from now on, or to nobody.
pub fn watch(watcher: Option<Watcher>) {
    WATCHER.replace(watcher);
}

pub(crate) fn show(step: &Step<'_>, state: &StateMachine) {
    WATCHER.with_borrow_mut(|watcher| {
        if let Some(watcher) = watcher {
            watcher(step, state);
        }
    });
}
