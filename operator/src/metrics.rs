//! What the operator tells Prometheus. Names do not change once released; docs/operator.md lists them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use prometheus::{
    Encoder as _, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::policy::metrics::PolicyMetrics;
use crate::sync::lock;

/// Upper bounds in seconds: a look alone, a look with writes, a look at nodes that do not answer.
const SECONDS_BUCKETS: [f64; 10] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// A kind of object, and of whose objects of that kind the conditions are counted together.
type Group = (&'static str, String);

/// All metrics of an operator.
pub struct Metrics {
    registry: Registry,
    reconciles: HistogramVec,
    errors: IntCounterVec,
    leading: IntGauge,
    objects: IntGaugeVec,
    policies: PolicyMetrics,
    /// The conditions of all objects: type and status.
    conditions: Mutex<HashMap<Group, Vec<(String, String)>>>,
}

impl Metrics {
    /// A new set, all zero.
    ///
    /// # Errors
    /// When two metrics have one name.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let opts = HistogramOpts::new("quorate_operator_reconcile_seconds", "Time to look at one object and act.");
        let reconciles = HistogramVec::new(opts.buckets(SECONDS_BUCKETS.to_vec()), &["controller"])?;
        let errors = IntCounterVec::new(
            Opts::new("quorate_operator_errors_total", "What could not be read or written, and was tried again."),
            &["controller", "reason"],
        )?;
        let leading = IntGauge::new("quorate_operator_leading", "1 while this operator is the one that acts.")?;
        let objects = IntGaugeVec::new(
            Opts::new("quorate_operator_objects", "Objects by what their conditions say."),
            &["kind", "condition", "status"],
        )?;
        let build = IntGaugeVec::new(
            Opts::new("quorate_operator_build_info", "Always 1; the version of the program."),
            &["version"],
        )?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        registry.register(Box::new(reconciles.clone()))?;
        registry.register(Box::new(errors.clone()))?;
        registry.register(Box::new(leading.clone()))?;
        registry.register(Box::new(objects.clone()))?;
        registry.register(Box::new(build))?;
        let policies = PolicyMetrics::new(&registry)?;
        Ok(Self { registry, reconciles, errors, leading, objects, policies, conditions: Mutex::default() })
    }

    /// What is counted about policies.
    #[must_use]
    pub fn policies(&self) -> &PolicyMetrics {
        &self.policies
    }

    /// One object was looked at.
    pub fn reconciled(&self, controller: &str, took: Duration) {
        self.reconciles.with_label_values(&[controller]).observe(took.as_secs_f64());
    }

    /// Something failed, and will be tried again.
    pub fn failed(&self, controller: &str, reason: &str) {
        self.errors.with_label_values(&[controller, reason]).inc();
    }

    /// Whether this operator acts.
    pub fn lead(&self, leading: bool) {
        self.leading.set(leading.into());
    }

    /// What the conditions of objects of a kind say now, instead of what those of this group said before: a group is one
    /// object, or all of whoever looks after them.
    pub fn set_conditions<'a>(
        &self,
        kind: &'static str,
        group: String,
        conditions: impl IntoIterator<Item = &'a Condition>,
    ) {
        let said = conditions.into_iter().map(|c| (c.type_.clone(), c.status.clone())).collect();
        lock(&self.conditions).insert((kind, group), said);
    }

    /// The group has no objects any more.
    pub fn forget(&self, kind: &'static str, group: String) {
        lock(&self.conditions).remove(&(kind, group));
    }

    /// All of them as Prometheus reads them.
    ///
    /// # Errors
    /// When they cannot be written as text.
    pub fn text(&self) -> prometheus::Result<Vec<u8>> {
        let conditions = lock(&self.conditions);
        let mut counts: BTreeMap<(&str, &str, &str), i64> = BTreeMap::new();
        for ((kind, _), said) in conditions.iter() {
            for (condition, status) in said {
                *counts.entry((*kind, condition.as_str(), status.as_str())).or_default() += 1;
            }
        }
        self.objects.reset();
        for ((kind, condition, status), count) in counts {
            self.objects.with_label_values(&[kind, condition, status]).set(count);
        }
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;
    use quorate_crds::conditions::{Finding, set_condition};
    use quorate_crds::{ConditionStatus, ConditionType, Reason};

    use super::*;

    fn text(metrics: &Metrics) -> String {
        String::from_utf8(metrics.text().unwrap()).unwrap()
    }

    fn ready(status: ConditionStatus, reason: Reason) -> Vec<Condition> {
        let mut conditions = Vec::new();
        let finding = Finding { condition: ConditionType::Ready, status, reason, message: String::new() };
        set_condition(&mut conditions, &finding, None, &Time(Timestamp::UNIX_EPOCH));
        conditions
    }

    #[test]
    fn objects_are_counted_by_what_their_conditions_say_now() {
        let metrics = Metrics::new().unwrap();
        let line = |status: &str, count: usize| {
            format!(
                r#"quorate_operator_objects{{condition="Ready",kind="RateLimitCluster",status="{status}"}} {count}"#
            )
        };
        for name in ["a/edge", "b/edge"] {
            let serving = ready(ConditionStatus::True, Reason::Serving);
            metrics.set_conditions("RateLimitCluster", name.to_owned(), &serving);
        }
        assert!(text(&metrics).contains(&line("True", 2)));
        let leaderless = ready(ConditionStatus::False, Reason::NoLeader);
        metrics.set_conditions("RateLimitCluster", "a/edge".to_owned(), &leaderless);
        let now = text(&metrics);
        assert!(now.contains(&line("True", 1)) && now.contains(&line("False", 1)), "{now}");
        metrics.forget("RateLimitCluster", "a/edge".to_owned());
        assert!(!text(&metrics).contains("False"));
    }

    #[test]
    fn every_metric_is_documented() {
        let metrics = Metrics::new().unwrap();
        // Metrics with labels show once their labels are used.
        metrics.reconciled("cluster", Duration::ZERO);
        metrics.failed("cluster", "Conflict");
        metrics.policies().pushed("taken");
        metrics.set_conditions("RateLimitCluster", "a/b".to_owned(), &ready(ConditionStatus::True, Reason::Serving));
        let text = text(&metrics);
        let names: BTreeSet<_> = text.lines().filter_map(|l| l.strip_prefix("# TYPE ")?.split(' ').next()).collect();
        let row = |line: &'static str| {
            line.strip_prefix("| `").filter(|l| l.starts_with("quorate_"))?.split(['`', '{']).next()
        };
        let page = include_str!("../../docs/operator.md");
        assert_eq!(page.lines().filter_map(row).collect::<BTreeSet<_>>(), names, "docs/operator.md");
    }
}
