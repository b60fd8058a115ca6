//! Many seeds on a few threads.

use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use super::run::{Report, run};
use super::totals::Totals;

/// Every so many seeds one is run twice, and must go the same way.
const REPLAY_EVERY: u64 = 10;
/// A seed takes less than a second. One that takes this long does not end: a task of it loops without time going on,
/// which the simulator's runtime notices but, holding a lock, cannot always report.
const SEED_TIME_MAX: Duration = Duration::from_mins(2);
/// After so many failures the rest is not run.
const FAILURES_MAX: usize = 3;

/// What a campaign came to.
#[derive(Debug, Default)]
pub struct Campaign {
    /// Seeds run.
    pub seeds: u64,
    /// Seeds run twice.
    pub replayed: u64,
    /// What all seeds held together.
    pub totals: Totals,
    /// The seeds that failed, for people.
    pub failures: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

/// Runs `seeds` seeds from `first` on, on `threads` threads.
#[must_use]
pub fn campaign(first: u64, seeds: u64, threads: usize) -> Campaign {
    let begun = Instant::now();
    let next = Mutex::new(first..first + seeds);
    let result = Mutex::new(Campaign::default());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while result.lock().unwrap().failures.len() < FAILURES_MAX {
                    let Some(seed) = next.lock().unwrap().next() else { return };
                    let report = watched(seed);
                    let again = (seed % REPLAY_EVERY == 0).then(|| watched(seed));
                    result.lock().unwrap().take(&report, again.as_ref());
                }
            });
        }
    });
    let mut result = result.into_inner().unwrap();
    result.took = begun.elapsed();
    result
}

/// Runs a seed, and ends the program when the seed does not end.
fn watched(seed: u64) -> Report {
    let (ended, end) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            if end.recv_timeout(SEED_TIME_MAX) == Err(mpsc::RecvTimeoutError::Timeout) {
                eprintln!("seed {seed} does not end: a task loops without time going on");
                eprintln!("replay: make simulate SEEDS=1 FIRST={seed}");
                std::process::exit(1);
            }
        });
        let report = run(seed, None);
        drop(ended);
        report
    })
}

impl Campaign {
    fn take(&mut self, report: &Report, again: Option<&Report>) {
        self.seeds += 1;
        self.totals.add(&report.totals);
        if report.violation.is_some() {
            self.failures.push(report.to_string());
        }
        if let Some(again) = again {
            self.replayed += 1;
            if again.hash != report.hash {
                self.failures.push(format!("seed {} went another way when it was run again", report.seed));
            }
        }
    }

    /// What failed: broken promises, and things that never happened.
    #[must_use]
    pub fn failed(&self) -> Option<String> {
        if !self.failures.is_empty() {
            return Some(self.failures.join("\n\n"));
        }
        let missing = self.totals.missing();
        (!missing.is_empty()).then(|| format!("no seed held any {}", missing.join(", nor any ")))
    }

    /// The figures, in a line or two.
    #[must_use]
    pub fn summary(&self) -> String {
        let per_seed = self.took / u32::try_from(self.seeds.max(1)).unwrap_or(u32::MAX);
        let Self { seeds, replayed, took, totals, .. } = self;
        format!("{seeds} seeds ({replayed} run twice) in {took:.1?}, {per_seed:.0?} each: {totals}")
    }
}
