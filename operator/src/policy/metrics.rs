//! What the operator counts about policies.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, Opts, Registry};

/// Upper bounds in seconds, around the one second that a policy may take.
const SECONDS_BUCKETS: [f64; 9] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// The metrics of policies.
pub struct PolicyMetrics {
    pushes: IntCounterVec,
    spread: Histogram,
    status_writes: IntCounter,
}

impl PolicyMetrics {
    /// A new set, all zero.
    ///
    /// # Errors
    /// When two metrics have one name.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let pushes = IntCounterVec::new(
            Opts::new("quorate_operator_policy_pushes_total", "Sets of policies sent to clusters, by what came of it."),
            &["result"],
        )?;
        let spread = Histogram::with_opts(
            HistogramOpts::new(
                "quorate_operator_policy_spread_seconds",
                "Time from a push until every live member of the cluster judged by it.",
            )
            .buckets(SECONDS_BUCKETS.to_vec()),
        )?;
        let status_writes =
            IntCounter::new("quorate_operator_policy_status_writes_total", "Statuses of QuotaPolicies written.")?;
        registry.register(Box::new(pushes.clone()))?;
        registry.register(Box::new(spread.clone()))?;
        registry.register(Box::new(status_writes.clone()))?;
        Ok(Self { pushes, spread, status_writes })
    }

    /// A set was pushed; `result` is `taken`, `again` or `failed`.
    pub fn pushed(&self, result: &str) {
        self.pushes.with_label_values(&[result]).inc();
    }

    /// Every live member judges by a push that was begun this long ago.
    pub fn spread(&self, took: Duration) {
        self.spread.observe(took.as_secs_f64());
    }

    /// A status was written.
    pub fn status_written(&self) {
        self.status_writes.inc();
    }
}
