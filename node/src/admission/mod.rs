//! Requests to decisions.
//!
//! A node collects what its doors ask into parts ([`Outbox`]), sends them to the leader (itself, perhaps) and hands
//! the outcomes back. The leader packs parts into log entries ([`LeaderQueue`]). A part that got no answer is sent
//! again under the same sequence number, so it counts once.

mod courier;
mod leader_queue;
mod limiter;
mod outbox;
mod session;
mod verdict;

pub use courier::{Courier, SessionRefused};
pub use leader_queue::{LeaderQueue, TurnedAway};
pub use limiter::Limiter;
pub use outbox::{Outbox, Overloaded, Purpose};
pub use verdict::{Consistency, LimitReport, Unavailable, UnavailableReason, Verdict};

/// Commands in one part, and in one log entry.
pub const BATCH_COMMANDS_MAX: usize = 4096;
/// Bytes of parts in one log entry, about.
pub const BATCH_BYTES_MAX: usize = 256 << 10;
/// Parts of one node on their way at one time. While two are, the next one fills up: each costs messages, a log entry and
/// its share of flushes, whatever it holds.
pub const PARTS_IN_FLIGHT_MAX: usize = 2;
/// Log entries of the leader under way at one time.
pub const ENTRIES_IN_FLIGHT_MAX: usize = 8;
