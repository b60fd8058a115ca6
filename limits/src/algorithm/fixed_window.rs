//! A window that starts with its first hit and lets through `limit` hits until it ends.
//!
//! Words of the counter: start, hits used, unused.

use super::{CounterState, Evaluation, admitted, exceeded};
use crate::policy::Limit;

/// See [`super::evaluate`]. The first hit after the end of a window starts the next one and is judged on it.
#[must_use]
pub fn evaluate(counter: Option<CounterState>, now: u64, limit: &Limit, hits: i64) -> Evaluation {
    let live = counter.map(|CounterState([start, used, _])| (start, used));
    let live = live.filter(|(start, _)| now.saturating_sub(*start) < limit.window_ns);
    let (start, used) = live.unwrap_or((now, 0));
    let size = hits.unsigned_abs();
    let reset_ns = |used| if used == 0 { 0 } else { limit.window_ns - now.saturating_sub(start) };

    if hits > 0 && used.saturating_add(size) > limit.limit {
        let retry_ns = if size > limit.limit { u64::MAX } else { reset_ns(used) };
        let standing = exceeded(limit.limit.saturating_sub(used), reset_ns(used), retry_ns);
        return Evaluation { charged: None, standing };
    }
    let after = if hits < 0 { used.saturating_sub(size) } else { used.saturating_add(size) };
    Evaluation {
        charged: (hits > 0 || (hits < 0 && live.is_some())).then_some(CounterState([start, after, 0])),
        standing: admitted(limit.limit.saturating_sub(after), reset_ns(after)),
    }
}
