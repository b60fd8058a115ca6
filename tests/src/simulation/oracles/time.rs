//! Cluster time, held against true time.
//!
//! Clocks run at most as fast as the fastest host's. So between two entries of the log cluster time must not advance by
//! more than that clock shows between the moments at which they were stamped: a window is never shorter in true time than
//! its length divided by the fastest rate. Under one leader it must not advance by less than the slowest clock shows.

use std::collections::BTreeMap;

/// Clocks show whole nanoseconds, so that each stamp and each receipt may be off by one. In thousandths of a nanosecond.
const ROUNDING: i128 = 1_000_000;

/// What is known of the stamps so far. Times are in nanoseconds, true ones since the beginning of the run.
#[derive(Debug, Default)]
pub struct Time {
    /// The rates of the slowest and the fastest clock, in thousandths.
    rates: (i128, i128),
    /// The first and the last moment at which a leader made a stamp; hardly ever two make the same.
    made: BTreeMap<u64, (u64, u64)>,
    /// The least that cluster time was ahead of the fastest clock by after any entry so far, in thousandths.
    least_ahead: Option<i128>,
    /// The last entry: its term, its stamp, and when it was made.
    last: Option<(u64, u64, u64)>,
}

impl Time {
    /// By clocks of these rates, in thousandths.
    #[must_use]
    pub fn by_clocks(rates: &[u64]) -> Self {
        let rate = |rate: Option<&u64>| rate.copied().unwrap_or_default().into();
        Self { rates: (rate(rates.iter().min()), rate(rates.iter().max())), ..Self::default() }
    }

    /// A leader made a stamp.
    pub fn made(&mut self, stamp: u64, at: u64) {
        self.made.entry(stamp).or_insert((at, at)).1 = at;
    }

    /// The next entry of the log has a stamp, and cluster time is `now` from there on.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn entered(&mut self, term: u64, stamp: u64, now: u64) -> Result<(), String> {
        let (first, last) = *self.made.get(&stamp).ok_or_else(|| format!("nobody made its stamp, {stamp} ns"))?;
        let (slowest, fastest) = self.rates;
        let ahead_at = |made: u64| i128::from(now) * 1000 - i128::from(made) * fastest;
        if let Some(least) = self.least_ahead
            && ahead_at(last) > least + ROUNDING
        {
            let early = (ahead_at(last) - least) / 1000;
            return Err(format!(
                "windows end {early} ns early: cluster time went on to {now} ns, stamped at {last} ns"
            ));
        }
        let ahead = ahead_at(first);
        self.least_ahead = Some(self.least_ahead.map_or(ahead, |least| least.min(ahead)));
        if let Some((before, from, made)) = self.last
            && before == term
            && i128::from(stamp - from.min(stamp)) * 1000 + ROUNDING < i128::from(first.saturating_sub(made)) * slowest
        {
            return Err(format!(
                "cluster time falls behind: under one leader from {from} ns to {stamp} ns, stamped at {made} ns and {first} ns"
            ));
        }
        self.last = Some((term, stamp, last));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In microseconds.
    fn entered(time: &mut Time, term: u64, stamp: u64, at: u64) -> Result<(), String> {
        let (stamp, at) = (stamp * 1000, at * 1000);
        time.made(stamp, at);
        time.entered(term, stamp, stamp)
    }

    #[test]
    fn time_that_goes_as_fast_as_the_fastest_clock_is_well_and_faster_is_not() {
        let mut time = Time::by_clocks(&[900, 1000, 1100]);
        entered(&mut time, 1, 5_000, 50_000).unwrap();
        entered(&mut time, 2, 5_100, 52_000).unwrap();
        entered(&mut time, 3, 6_200, 53_000).unwrap();
        assert!(entered(&mut time, 3, 7_303, 54_000).unwrap_err().contains("early"));
    }

    #[test]
    fn time_that_is_set_back_with_a_new_leader_must_not_be_made_up_for() {
        let mut time = Time::by_clocks(&[1000]);
        entered(&mut time, 1, 5_000, 5_000).unwrap();
        // The new leader lags by 500 µs; the old one's clock would be right again, but a window begun here would be short.
        entered(&mut time, 2, 5_500, 6_000).unwrap();
        assert!(entered(&mut time, 3, 7_000, 7_000).unwrap_err().contains("500000 ns early"));
    }

    #[test]
    fn time_that_falls_behind_under_one_leader_is_wrong_and_under_two_is_not() {
        let mut time = Time::by_clocks(&[900, 1000]);
        entered(&mut time, 1, 10_000, 10_000).unwrap();
        entered(&mut time, 1, 19_000, 20_000).unwrap();
        entered(&mut time, 2, 19_100, 30_000).unwrap();
        assert!(entered(&mut time, 2, 20_000, 40_000).unwrap_err().contains("falls behind"));
    }
}
