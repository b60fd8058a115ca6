//! A bucket of `burst` hits that refills at `limit` hits per window, without steps: the generic cell rate algorithm.
//!
//! Words of the counter: the instant of its last change, hits used then, and what has already refilled of the next hit,
//! in units of one hit per `window_ns`. What is used is exactly `hits − refilled / window_ns`; nothing is ever
//! rounded, however often the bucket is asked. (When a policy changes the window's length, the part of the one hit that
//! was refilling is taken over in the new unit; at most that one hit is misjudged by a fraction.)
//!
//! A limit of 0 refills nothing and denies everything.

use super::{CounterState, Evaluation, admitted, exceeded, saturate};
use crate::policy::Limit;

/// A bucket at one instant.
#[derive(Clone, Copy)]
struct Bucket {
    used: u64,
    /// Less than the window's length; 0 when nothing is used.
    refilled: u64,
}

/// The most the bucket holds.
fn capacity(limit: &Limit) -> u64 {
    if limit.limit == 0 { 0 } else { limit.burst }
}

/// See [`super::life_ns`]: the time in which a full use refills.
pub(super) fn life_ns(limit: &Limit) -> u64 {
    if limit.limit == 0 { limit.window_ns } else { Bucket { used: limit.burst, refilled: 0 }.refill_ns(0, limit) }
}

impl Bucket {
    /// What is used at `now`: what was, at most all of it, less what refilled since.
    fn at(CounterState([at, used, refilled]): CounterState, now: u64, limit: &Limit) -> Self {
        let window = limit.window_ns.max(1);
        let used_then = used.min(limit.burst);
        let refilled = if used_then < used { 0 } else { refilled.min(window - 1) };
        let elapsed = now.saturating_sub(at);
        let units = u128::from(elapsed) * u128::from(limit.limit) + u128::from(refilled);
        let hits = saturate(units / u128::from(window));
        if hits >= used_then {
            return Self { used: 0, refilled: 0 };
        }
        // Less than the window, so it fits.
        Self { used: used_then - hits, refilled: saturate(units % u128::from(window)) }
    }

    /// Until at most `target` hits are used; `u64::MAX` when nothing refills.
    fn refill_ns(self, target: u64, limit: &Limit) -> u64 {
        let over = self.used.saturating_sub(target);
        if over == 0 {
            return 0;
        }
        let units = u128::from(over) * u128::from(limit.window_ns) - u128::from(self.refilled.min(limit.window_ns));
        if limit.limit == 0 { u64::MAX } else { saturate(units.div_ceil(u128::from(limit.limit))) }
    }
}

/// See [`super::evaluate`].
#[must_use]
pub fn evaluate(counter: Option<CounterState>, now: u64, limit: &Limit, hits: i64) -> Evaluation {
    let capacity = capacity(limit);
    let mut bucket = counter.map_or(Bucket { used: 0, refilled: 0 }, |counter| Bucket::at(counter, now, limit));
    let in_use = bucket.used > 0;
    let size = hits.unsigned_abs();

    if hits > 0 && bucket.used.saturating_add(size) > capacity {
        let retry_ns = if size > capacity { u64::MAX } else { bucket.refill_ns(capacity - size, limit) };
        let standing = exceeded(capacity.saturating_sub(bucket.used), reset_ns(bucket, limit), retry_ns);
        return Evaluation { charged: None, standing };
    }
    if hits < 0 {
        bucket.used = bucket.used.saturating_sub(size);
        bucket.refilled = if bucket.used == 0 { 0 } else { bucket.refilled };
    } else {
        bucket.used = bucket.used.saturating_add(size);
    }
    Evaluation {
        charged: (hits > 0 || (hits < 0 && in_use)).then_some(CounterState([now, bucket.used, bucket.refilled])),
        standing: admitted(capacity.saturating_sub(bucket.used), reset_ns(bucket, limit)),
    }
}

/// Until the bucket is full again; a bucket that holds nothing always is.
fn reset_ns(bucket: Bucket, limit: &Limit) -> u64 {
    if capacity(limit) == 0 { 0 } else { bucket.refill_ns(0, limit) }
}
