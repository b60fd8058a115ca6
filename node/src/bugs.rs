//! Deliberate bugs that the simulator must catch. Built only with the feature `deliberate-bugs`, never into a product.

use std::cell::Cell;

/// A bug put back into the product's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Apply takes a stamp as it is, so cluster time may step back.
    TimeWithoutMax,
    /// The log reports an append as durable before it is.
    AcknowledgeBeforeFlush,
    /// A voter that lost its disk comes back under its old id.
    EmptyDiskOldId,
    /// A leader looks at its state without showing that it still leads.
    ReadWithoutBarrier,
    /// Cluster time goes a hundredth faster than the clock of the machine.
    ClockTooFast,
}

thread_local! {
    /// One seed runs on one thread, several seeds side by side.
    static ACTIVE: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// Switches to this bug, or to none, on this thread.
pub fn set(bug: Option<Bug>) {
    ACTIVE.set(bug);
    quorate_limits::bugs::set_time_without_max(bug == Some(Bug::TimeWithoutMax));
}

/// Whether the bug is switched on, on this thread.
#[must_use]
pub fn active(bug: Bug) -> bool {
    ACTIVE.get() == Some(bug)
}
