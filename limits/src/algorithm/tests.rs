//! Every algorithm against a slow, obvious reference, and what holds for all of them.

use proptest::prelude::*;

use super::*;
use crate::testing::{ALGORITHMS, SECOND, limit};

/// One thing that happens to a counter, so many nanoseconds after the one before.
#[derive(Clone, Copy, Debug)]
struct Step {
    after_ns: u64,
    hits: i64,
}

/// Windows are 1000 ns here, so that steps meet their edges.
const WINDOW: u64 = 1000;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let after_ns =
        prop_oneof![0..5u64, 0..WINDOW, WINDOW - 2..WINDOW + 3, 2 * WINDOW - 2..2 * WINDOW + 3, 0..20_000u64];
    let hits = prop_oneof![4 => 1..4i64, 1 => 0..1i64, 1 => -3..0i64, 1 => 4..15i64];
    prop::collection::vec((after_ns, hits).prop_map(|(after_ns, hits)| Step { after_ns, hits }), 1..60)
}

fn any_limit(algorithm: Algorithm) -> impl Strategy<Value = Limit> {
    (0..12u64, 0..15u64, prop_oneof![Just(WINDOW), 1..3 * WINDOW]).prop_map(move |(hits, burst, window_ns)| {
        let burst = if algorithm == Algorithm::TokenBucket { burst } else { hits };
        Limit { window_ns, burst, ..limit("l", algorithm, hits, window_ns) }
    })
}

/// A counter kept the obvious way: judged before it is charged.
trait Reference {
    /// Hits used at `now`, rounded up.
    fn used(&mut self, now: u64) -> u64;
    fn add(&mut self, now: u64, hits: u64);
    fn take_back(&mut self, now: u64, hits: u64);
}

/// The hits of one window, forgotten when it ends.
struct FixedLog {
    window: u64,
    start: Option<u64>,
    hits: u64,
}

impl Reference for FixedLog {
    fn used(&mut self, now: u64) -> u64 {
        if self.start.is_some_and(|start| now >= start + self.window) {
            self.start = None;
            self.hits = 0;
        }
        self.hits
    }

    fn add(&mut self, now: u64, hits: u64) {
        self.start.get_or_insert(now);
        self.hits += hits;
    }

    fn take_back(&mut self, _: u64, hits: u64) {
        self.hits = self.hits.saturating_sub(hits);
    }
}

/// Every hit with the number of its window, counted from an anchor.
struct SlidingLog {
    window: u64,
    anchor: Option<u64>,
    /// The window last charged.
    last: u64,
    hits: Vec<u64>,
}

impl SlidingLog {
    fn number(&self, now: u64) -> Option<u64> {
        let number = (now - self.anchor?) / self.window;
        // A whole window passed without a charge: the next charge starts anew.
        (number <= self.last + 1).then_some(number)
    }

    fn of(&self, number: u64) -> u64 {
        self.hits.iter().filter(|hit| **hit == number).count() as u64
    }
}

impl Reference for SlidingLog {
    fn used(&mut self, now: u64) -> u64 {
        let Some(number) = self.number(now) else { return 0 };
        let elapsed = (now - self.anchor.unwrap()) % self.window;
        let previous = number.checked_sub(1).map_or(0, |number| self.of(number));
        self.of(number) + (previous * (self.window - elapsed)).div_ceil(self.window)
    }

    fn add(&mut self, now: u64, hits: u64) {
        if self.number(now).is_none() {
            self.anchor = Some(now);
            self.hits.clear();
        }
        self.last = (now - self.anchor.unwrap()) / self.window;
        self.hits.extend((0..hits).map(|_| self.last));
    }

    fn take_back(&mut self, now: u64, hits: u64) {
        let Some(number) = self.number(now) else { return };
        self.last = number;
        for _ in 0..hits {
            let newest = self.hits.iter().rposition(|hit| *hit == number);
            let newest = newest.or_else(|| self.hits.iter().rposition(|hit| *hit + 1 == number));
            if let Some(place) = newest {
                self.hits.remove(place);
            }
        }
    }
}

/// The level in hits × nanoseconds of the window, brought up to date at every step.
struct Leaky {
    window: u64,
    limit: u64,
    level: u128,
    at: u64,
}

impl Reference for Leaky {
    fn used(&mut self, now: u64) -> u64 {
        let drained = u128::from(now - self.at) * u128::from(self.limit);
        self.level = self.level.saturating_sub(drained);
        self.at = now;
        saturate(self.level.div_ceil(u128::from(self.window)))
    }

    fn add(&mut self, now: u64, hits: u64) {
        self.used(now);
        self.level += u128::from(hits) * u128::from(self.window);
    }

    fn take_back(&mut self, now: u64, hits: u64) {
        self.used(now);
        self.level = self.level.saturating_sub(u128::from(hits) * u128::from(self.window));
    }
}

fn reference(limit: &Limit) -> Box<dyn Reference> {
    let window = limit.window_ns;
    match limit.algorithm {
        Algorithm::FixedWindow => Box::new(FixedLog { window, start: None, hits: 0 }),
        Algorithm::SlidingWindow => Box::new(SlidingLog { window, anchor: None, last: 0, hits: vec![] }),
        Algorithm::TokenBucket => Box::new(Leaky { window, limit: limit.limit, level: 0, at: 0 }),
    }
}

fn most(limit: &Limit) -> u64 {
    match limit.algorithm {
        Algorithm::TokenBucket => token_bucket_capacity(limit),
        _ => limit.limit,
    }
}

fn token_bucket_capacity(limit: &Limit) -> u64 {
    if limit.limit == 0 { 0 } else { limit.burst }
}

/// Runs the steps; `each` sees the counter before each step and its evaluation.
fn run(limit: &Limit, steps: &[Step], mut each: impl FnMut(Option<CounterState>, u64, i64, &Evaluation)) {
    let mut counter = None;
    let mut now = 17;
    for step in steps {
        now += step.after_ns;
        let evaluation = evaluate(counter, ClusterTime(now), limit, step.hits);
        each(counter, now, step.hits, &evaluation);
        counter = evaluation.charged.or(counter);
    }
}

fn equals_reference(limit: &Limit, steps: &[Step]) {
    let mut slow = reference(limit);
    run(limit, steps, |_, now, hits, evaluation| {
        let size = hits.unsigned_abs();
        let admitted = hits <= 0 || slow.used(now) + size <= most(limit);
        assert_eq!(!evaluation.standing.exceeded, admitted, "{hits} hits at {now}");
        if admitted && hits > 0 {
            slow.add(now, size);
        } else if hits < 0 {
            slow.take_back(now, size);
        }
        assert_eq!(evaluation.standing.remaining, most(limit).saturating_sub(slow.used(now)), "at {now}");
        assert_eq!(evaluation.charged.is_some() && hits > 0, admitted && hits > 0);
    });
}

proptest! {
    #[test]
    fn fixed_window_equals_a_log(limit in any_limit(Algorithm::FixedWindow), steps in steps()) {
        equals_reference(&limit, &steps);
    }

    #[test]
    fn sliding_window_equals_a_log_by_windows(limit in any_limit(Algorithm::SlidingWindow), steps in steps()) {
        equals_reference(&limit, &steps);
    }

    #[test]
    fn token_bucket_equals_a_level_of_exact_fractions(limit in any_limit(Algorithm::TokenBucket), steps in steps()) {
        equals_reference(&limit, &steps);
    }

    /// The times told are exact to the nanosecond: then it is so, and a nanosecond before it is not.
    #[test]
    fn times_told_come_true(algorithm in prop::sample::select(&ALGORITHMS), seed in any::<u64>(), steps in steps()) {
        let window = 1 + seed % 3000;
        let limit = Limit { burst: seed % 11, ..limit("l", algorithm, seed % 9, window) };
        run(&limit, &steps, |before, now, hits, evaluation| {
            let standing = evaluation.standing;
            let after = evaluation.charged.or(before);
            let at = |ns: u64, hits: i64| evaluate(after, ClusterTime(now + ns), &limit, hits).standing;
            assert_eq!(at(standing.reset_ns, 0).remaining, most(&limit));
            assert_eq!(at(standing.reset_ns, 0).reset_ns, 0);
            if standing.reset_ns > 0 {
                assert_ne!(at(standing.reset_ns - 1, 0).reset_ns, 0);
            }
            match standing.retry_ns {
                0 => assert!(!standing.exceeded),
                u64::MAX => assert!(hits.unsigned_abs() > most(&limit)),
                retry => {
                    assert!(!at(retry, hits).exceeded, "denied after {retry}");
                    assert!(at(retry - 1, hits).exceeded, "admitted before {retry}");
                }
            }
        });
    }

    #[test]
    fn a_counter_at_the_end_of_its_life_equals_none(
        algorithm in prop::sample::select(&ALGORITHMS),
        (hits, burst, window) in (0..20u64, 0..20u64, 1..5000u64),
        words in [0..5000u64, 0..40u64, 0..5000u64],
        later in 0..3u64,
        charge in -5..30i64,
    ) {
        let limit = Limit { burst, ..limit("l", algorithm, hits, window) };
        let now = ClusterTime(words[0] + life_ns(&limit) + later);
        let old = evaluate(Some(CounterState(words)), now, &limit, charge);
        let none = evaluate(None, now, &limit, charge);
        if limit.limit == 0 && algorithm == Algorithm::TokenBucket {
            // It denies either way, and may keep what was used before it was set to 0.
            prop_assert_eq!(old.standing, none.standing);
        } else {
            prop_assert_eq!(old, none);
        }
    }

    /// Whatever bytes a snapshot or a policy may bring: no overflow, no panic.
    #[test]
    fn any_figures_are_survived(
        algorithm in prop::sample::select(&ALGORITHMS),
        words in any::<[u64; 3]>(),
        figures in any::<[u64; 3]>(),
        now in any::<u64>(),
        hits in any::<i64>(),
    ) {
        let pick = |value: u64| match value % 4 { 0 => 0, 1 => u64::MAX, _ => value };
        let limit = Limit { burst: pick(figures[1]), ..limit("l", algorithm, pick(figures[0]), pick(figures[2])) };
        let words = words.map(pick);
        let evaluation = evaluate(Some(CounterState(words)), ClusterTime(pick(now)), &limit, hits);
        let _ = (life_ns(&limit), evaluate(None, ClusterTime(pick(now)), &limit, hits));
        if let Some(charged) = evaluation.charged {
            let _ = evaluate(Some(charged), ClusterTime(u64::MAX), &limit, hits);
        }
    }

    #[test]
    fn a_look_changes_nothing(algorithm in prop::sample::select(&ALGORITHMS), steps in steps()) {
        let limit = limit("l", algorithm, 5, WINDOW);
        run(&limit, &steps, |before, now, _, _| {
            let look = evaluate(before, ClusterTime(now), &limit, 0);
            assert_eq!(look.charged, None);
            assert!(!look.standing.exceeded);
        });
    }

    /// The bound stated in the sliding window's documentation.
    #[test]
    fn no_span_of_a_window_sees_twice_the_limit(hits in 1..10u64, steps in steps()) {
        let limit = limit("l", Algorithm::SlidingWindow, hits, WINDOW);
        let steps: Vec<Step> = steps.into_iter().filter(|step| step.hits >= 0).collect();
        let mut log: Vec<u64> = vec![];
        run(&limit, &steps, |before, now, hits, evaluation| {
            if hits <= 0 {
                return;
            }
            let within = |log: &[u64]| log.iter().filter(|hit| now - **hit < WINDOW).count() as u64;
            let CounterState([start, _, previous]) = evaluation.charged.or(before).unwrap_or(CounterState([now, 0, 0]));
            if evaluation.charged.is_some() {
                log.extend((0..hits).map(|_| now));
                let measure = limit.limit - evaluation.standing.remaining;
                let faded = previous * (now - start) / WINDOW;
                assert!(within(&log) <= measure + faded, "{} over {measure} + {faded}", within(&log));
            }
            assert!(within(&log) < 2 * limit.limit);
        });
    }
}

/// Uses 6 of 10, then looks with other figures.
fn after_using_6(algorithm: Algorithm, change: impl Fn(&mut Limit)) -> u64 {
    let mut limit = limit("l", algorithm, 10, 60 * SECOND);
    let used = evaluate(None, ClusterTime(5), &limit, 6).charged;
    change(&mut limit);
    evaluate(used, ClusterTime(5), &limit, 0).standing.remaining
}

#[test]
fn figures_changed_use_kept() {
    for algorithm in ALGORITHMS {
        let raised = after_using_6(algorithm, |limit| (limit.limit, limit.burst) = (100, 100));
        assert_eq!(raised, 94, "{algorithm:?} raised");
        let lowered = after_using_6(algorithm, |limit| (limit.limit, limit.burst) = (5, 5));
        assert_eq!(lowered, 0, "{algorithm:?} lowered");
        let longer = after_using_6(algorithm, |limit| limit.window_ns *= 60);
        assert_eq!(longer, 4, "{algorithm:?} with a longer window");
        let shorter = after_using_6(algorithm, |limit| limit.window_ns /= 60);
        assert_eq!(shorter, 4, "{algorithm:?} with a shorter window");
    }
    assert_eq!(after_using_6(Algorithm::TokenBucket, |limit| limit.burst = 50), 44);
}

#[test]
fn more_hits_than_the_limit_never_admitted() {
    for algorithm in ALGORITHMS {
        let limit = limit("l", algorithm, 10, SECOND);
        let standing = evaluate(None, ClusterTime(0), &limit, 11).standing;
        assert!(standing.exceeded);
        assert_eq!((standing.retry_ns, standing.remaining, standing.reset_ns), (u64::MAX, 10, 0));
    }
}

#[test]
fn limit_of_0_denies_everything() {
    for algorithm in ALGORITHMS {
        let limit = Limit { burst: 5, ..limit("l", algorithm, 0, SECOND) };
        for now in [0, SECOND, 1000 * SECOND] {
            let standing = evaluate(None, ClusterTime(now), &limit, 1).standing;
            assert!(standing.exceeded, "{algorithm:?}");
            assert_eq!(standing.retry_ns, u64::MAX);
        }
    }
}

#[test]
fn refund_clamped_at_nothing_used() {
    for algorithm in ALGORITHMS {
        let limit = limit("l", algorithm, 10, SECOND);
        assert_eq!(evaluate(None, ClusterTime(1), &limit, -5).charged, None, "{algorithm:?}");
        let used = evaluate(None, ClusterTime(1), &limit, 3).charged;
        let refunded = evaluate(used, ClusterTime(1), &limit, i64::MIN);
        assert_eq!(refunded.standing.remaining, 10);
        assert_eq!(evaluate(refunded.charged, ClusterTime(1), &limit, 10).standing.remaining, 0);
    }
}

#[test]
fn largest_figures_stay_exact() {
    let limit = Limit {
        limit: Limit::LIMIT_MAX,
        burst: Limit::LIMIT_MAX,
        ..limit("l", Algorithm::TokenBucket, 0, Limit::WINDOW_NS_MAX)
    };
    let hits = i64::try_from(Limit::LIMIT_MAX).unwrap();
    let full = evaluate(None, ClusterTime(0), &limit, hits);
    assert_eq!(full.standing.reset_ns, Limit::WINDOW_NS_MAX);
    // One hit takes 31.6 ns, so the first is back after 32.
    let one = evaluate(full.charged, ClusterTime(31), &limit, 1).standing;
    assert_eq!((one.exceeded, one.retry_ns), (true, 1));
    assert!(!evaluate(full.charged, ClusterTime(32), &limit, 1).standing.exceeded);
}
