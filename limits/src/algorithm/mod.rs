//! The algorithms: pure functions from (counter, time, limit, hits) to (counter, standing).
//!
//! Each keeps what was *used*, never what is left, so a changed limit, window or burst finds the same use in place and
//! judges it by the new figures, as though they had always been in force. All arithmetic is in integers; products
//! are taken in 128 bits, where any two `u64` fit.

pub mod fixed_window;
pub mod sliding_window;
pub mod token_bucket;

use crate::command::LimitState;
use crate::policy::{Algorithm, Limit};
use crate::time::ClusterTime;

/// What a counter holds. The first word is an instant of cluster time in nanoseconds from which the counter's life is
/// measured ([`life_ns`]); the others are the algorithm's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CounterState(pub [u64; 3]);

/// What charging a counter would come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evaluation {
    /// The counter after the charge; `None` when nothing changes (denied, a look, a refund of nothing).
    pub charged: Option<CounterState>,
    /// Where the limit stands after the charge; when it is exceeded, where it stands without.
    pub standing: LimitState,
}

/// Evaluates `hits` on a counter; `None` is a counter never used.
///
/// 0 hits look and negative hits give back; neither is ever denied. Giving back never takes the use below zero, and
/// has no effect on a counter never used or expired.
#[must_use]
pub fn evaluate(counter: Option<CounterState>, now: ClusterTime, limit: &Limit, hits: i64) -> Evaluation {
    match limit.algorithm {
        Algorithm::FixedWindow => fixed_window::evaluate(counter, now.0, limit, hits),
        Algorithm::SlidingWindow => sliding_window::evaluate(counter, now.0, limit, hits),
        Algorithm::TokenBucket => token_bucket::evaluate(counter, now.0, limit, hits),
    }
}

/// How long after the instant in its first word any counter of this limit is as good as never used, in nanoseconds.
#[must_use]
pub fn life_ns(limit: &Limit) -> u64 {
    match limit.algorithm {
        Algorithm::FixedWindow => limit.window_ns,
        Algorithm::SlidingWindow => limit.window_ns.saturating_mul(2),
        Algorithm::TokenBucket => token_bucket::life_ns(limit),
    }
}

/// The standing of a limit that lets the request through.
fn admitted(remaining: u64, reset_ns: u64) -> LimitState {
    LimitState { remaining, reset_ns, retry_ns: 0, exceeded: false }
}

/// The standing of a limit that stands against the request.
fn exceeded(remaining: u64, reset_ns: u64, retry_ns: u64) -> LimitState {
    LimitState { remaining, reset_ns, retry_ns, exceeded: true }
}

/// The nearest `u64`.
fn saturate(value: u128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
