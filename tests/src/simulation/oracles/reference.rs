//! The algorithms once more, told from the whole list of charges each time: slow and obvious.

use quorate_limits::{Algorithm, Limit};

/// A charge: cluster time in nanoseconds, and hits (below zero gave back).
pub type Charge = (u64, i64);

/// Hits left at `now` after these charges.
#[must_use]
pub fn remaining(limit: &Limit, charges: &[Charge], now: u64) -> u64 {
    match limit.algorithm {
        Algorithm::FixedWindow => limit.limit.saturating_sub(fixed_window(limit.window_ns, charges, now)),
        Algorithm::SlidingWindow => limit.limit.saturating_sub(sliding_window(limit.window_ns, charges, now)),
        Algorithm::TokenBucket => limit.burst.saturating_sub(token_bucket(limit, charges, now)),
    }
}

/// A window starts with its first hit. Giving back takes from the window that is open.
fn fixed_window(window_ns: u64, charges: &[Charge], now: u64) -> u64 {
    let mut open: Option<(u64, u64)> = None;
    for (at, hits) in charges {
        open = open.filter(|(start, _)| at - start < window_ns);
        open = match open {
            Some((start, used)) => Some((start, used.saturating_add_signed(*hits))),
            None if *hits > 0 => Some((*at, hits.unsigned_abs())),
            None => None,
        };
    }
    open.filter(|(start, _)| now - start < window_ns).map_or(0, |(_, used)| used)
}

/// Windows follow each other until one passes unused; the one before counts by the share still covered, rounded up.
fn sliding_window(window_ns: u64, charges: &[Charge], now: u64) -> u64 {
    let mut windows: Option<(u64, u64, u64)> = None;
    let at_time = |windows: Option<(u64, u64, u64)>, now: u64| {
        let (start, current, previous) = windows?;
        match (now - start) / window_ns {
            0 => Some((start, current, previous)),
            1 => Some((start + window_ns, 0, current)),
            _ => None,
        }
    };
    for (at, hits) in charges {
        let (start, current, previous) = at_time(windows, *at).unwrap_or((*at, 0, 0));
        windows = Some((start, current + hits.unsigned_abs(), previous));
    }
    at_time(windows, now).map_or(0, |(start, current, previous)| {
        let covered = u128::from(previous) * u128::from(window_ns - (now - start));
        current + u64::try_from(covered.div_ceil(u128::from(window_ns))).unwrap()
    })
}

/// A level that drains `limit` hits per window, in units of one hit per `window_ns`.
fn token_bucket(limit: &Limit, charges: &[Charge], now: u64) -> u64 {
    let window = u128::from(limit.window_ns);
    let drained =
        |level: u128, from: u64, to: u64| level.saturating_sub(u128::from(to - from) * u128::from(limit.limit));
    let (mut level, mut since) = (0, 0);
    for (at, hits) in charges {
        level = drained(level, since, *at) + u128::from(hits.unsigned_abs()) * window;
        since = *at;
    }
    u64::try_from(drained(level, since, now).div_ceil(window)).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(algorithm: Algorithm) -> Limit {
        Limit { name: String::new(), algorithm, limit: 10, window_ns: 100, burst: 20 }
    }

    #[test]
    fn fixed_windows_end_a_window_after_their_first_hit() {
        let limit = limit(Algorithm::FixedWindow);
        let charges = [(50, 3), (149, 4)];
        assert_eq!(remaining(&limit, &charges, 149), 3);
        assert_eq!(remaining(&limit, &charges, 150), 10);
        assert_eq!(remaining(&limit, &[(50, 3), (60, -2)], 60), 9);
    }

    #[test]
    fn sliding_windows_count_the_share_still_covered() {
        let limit = limit(Algorithm::SlidingWindow);
        assert_eq!(remaining(&limit, &[(50, 8)], 149), 2);
        assert_eq!(remaining(&limit, &[(50, 8)], 200), 6);
        assert_eq!(remaining(&limit, &[(50, 8)], 250), 10);
    }

    #[test]
    fn token_buckets_drain_steadily() {
        let limit = limit(Algorithm::TokenBucket);
        assert_eq!(remaining(&limit, &[(50, 20)], 50), 0);
        assert_eq!(remaining(&limit, &[(50, 20)], 59), 0);
        assert_eq!(remaining(&limit, &[(50, 20)], 60), 1);
    }
}
