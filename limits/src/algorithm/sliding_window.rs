//! Two windows side by side: the current one counts in full, the one before by the share of it that the sliding window
//! still covers.
//!
//! Words of the counter: start of the current window, hits used in it, hits used in the window before. The first
//! window starts with its first hit; windows follow each other without a gap until one passes unused, and the next hit
//! starts anew.
//!
//! # Measure and error
//!
//! At a fraction f of the current window, `used = current + ⌈previous × (1 − f)⌉`; a charge is admitted when `used + hits
//! ≤ limit`. The share is rounded up, so by this measure the limit is never passed, not by a fraction of a hit.
//!
//! A log of every hit would know where in the window before the hits fell; the measure takes them as spread evenly.
//! If all fell at its end, the true count of the last window's length is higher than the measure by at most `f ×
//! previous`; if all fell at its start, it is lower by at most `(1 − f) × previous`, plus the rounding of less
//! than one hit. Since `previous ≤ limit`, the error is below the limit either way, and no span of a window's
//! length ever sees twice the limit. Evenly spread use has no error but the rounding.

use super::{CounterState, Evaluation, admitted, exceeded, saturate};
use crate::policy::Limit;

/// The two windows at one instant.
#[derive(Clone, Copy)]
struct Windows {
    start: u64,
    current: u64,
    previous: u64,
    /// Since the start of the current window; less than the window's length.
    elapsed: u64,
    window: u64,
}

impl Windows {
    /// The windows at `now`; `None` when neither covers any of it.
    fn at(CounterState([start, current, previous]): CounterState, now: u64, window: u64) -> Option<Self> {
        let elapsed = now.saturating_sub(start);
        if elapsed < window {
            return Some(Self { start, current, previous, elapsed, window });
        }
        let elapsed = elapsed - window;
        (elapsed < window).then(|| Self { start: start + window, current: 0, previous: current, elapsed, window })
    }

    fn used(&self) -> u64 {
        let share = u128::from(self.previous) * u128::from(self.window - self.elapsed);
        self.current.saturating_add(saturate(share.div_ceil(u128::from(self.window))))
    }

    /// Until nothing is counted any more.
    fn reset_ns(&self) -> u64 {
        let left = self.window - self.elapsed;
        match (self.current, self.previous) {
            (0, 0) => 0,
            (0, _) => left,
            _ => left.saturating_add(self.window),
        }
    }

    /// Until `hits`, which are at most the limit and do not fit now, do.
    fn retry_ns(&self, hits: u64, limit: u64) -> u64 {
        let room = limit - hits;
        if let Some(room) = room.checked_sub(self.current) {
            return faded(self.previous, room, self.window) - self.elapsed;
        }
        (self.window - self.elapsed).saturating_add(faded(self.current, room, self.window))
    }

    fn state(&self) -> CounterState {
        CounterState([self.start, self.current, self.previous])
    }
}

/// How far into a window the share of the `previous` one has shrunk to `room`.
fn faded(previous: u64, room: u64, window: u64) -> u64 {
    if previous <= room {
        return 0;
    }
    let covered = u128::from(room) * u128::from(window) / u128::from(previous);
    window - saturate(covered)
}

/// See [`super::evaluate`].
#[must_use]
pub fn evaluate(counter: Option<CounterState>, now: u64, limit: &Limit, hits: i64) -> Evaluation {
    let window = limit.window_ns.max(1);
    let live = counter.and_then(|counter| Windows::at(counter, now, window));
    let mut windows = live.unwrap_or(Windows { start: now, current: 0, previous: 0, elapsed: 0, window });
    let used = windows.used();
    let size = hits.unsigned_abs();

    if hits > 0 && used.saturating_add(size) > limit.limit {
        let retry_ns = if size > limit.limit { u64::MAX } else { windows.retry_ns(size, limit.limit) };
        let standing = exceeded(limit.limit.saturating_sub(used), windows.reset_ns(), retry_ns);
        return Evaluation { charged: None, standing };
    }
    if hits < 0 {
        let rest = size.saturating_sub(windows.current);
        windows.current = windows.current.saturating_sub(size);
        windows.previous = windows.previous.saturating_sub(rest);
    } else {
        windows.current = windows.current.saturating_add(size);
    }
    Evaluation {
        charged: (hits > 0 || (hits < 0 && live.is_some())).then(|| windows.state()),
        standing: admitted(limit.limit.saturating_sub(windows.used()), windows.reset_ns()),
    }
}
