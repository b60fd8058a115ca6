//! What a node tells Prometheus. Names do not change once released.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus::core::Collector as _;
use prometheus::{
    Encoder as _, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};
use quorate_crds::api::DeniedAnswer;
use quorate_limits::{OnUnavailable, PolicyName};

use crate::admission::{LimitReport, Unavailable, Verdict};
use crate::gossip;
use crate::node::{ClusterStatus, Node};
use crate::platform::Platform;
use crate::sync::lock;

mod by_client;

pub use by_client::{LABELLED_CLIENTS_MAX, RequestsByClient};

/// The most policies a door names in labels; what comes later is counted as [`OTHER`].
pub const LABELLED_POLICIES_MAX: usize = 1000;
/// The most limits of one policy that a door names in labels, those since renamed included.
pub const LABELLED_LIMITS_MAX: usize = 16;
/// The label of a policy or limit beyond the bounds.
pub const OTHER: &str = "other";
/// The label of a decision that no policy took part in. No policy's name looks like it: those hold a slash.
pub const NONE: &str = "none";

/// Upper bounds in seconds, around the deadlines of doors (15 ms, 3 s).
const SECONDS_BUCKETS: [f64; 12] = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.015, 0.03, 0.1, 0.3, 1.0, 2.0, 3.0];

/// All metrics of a node.
pub struct Metrics {
    registry: Registry,
    decisions: IntCounterVec,
    seconds: HistogramVec,
    unavailable: IntCounterVec,
    by_client: RequestsByClient,
    /// Held while it is brought up to date and read, so that scrapes at once do not add twice.
    node: Mutex<NodeGauges>,
}

impl Metrics {
    /// A new set, all zero.
    ///
    /// # Errors
    /// When two metrics have one name.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let decisions = counters(
            "decisions_total",
            "Requests by each limit they met; a request denied by one limit is not counted by those that would admit it.",
            &["policy", "limit", "verdict", "door"],
        )?;
        let unavailable = counters(
            "unavailable_total",
            "Requests without a decision in time, and whether their policies let them through.",
            &["answer", "door"],
        )?;
        let opts = HistogramOpts::new("quorate_decision_seconds", "Time from a request to its decision.");
        let seconds = HistogramVec::new(opts.buckets(SECONDS_BUCKETS.to_vec()), &["door"])?;
        registry.register(Box::new(decisions.clone()))?;
        registry.register(Box::new(unavailable.clone()))?;
        registry.register(Box::new(seconds.clone()))?;
        let build = gauges("build_info", "Always 1; the version of the program.", &["version"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        registry.register(Box::new(build))?;
        let by_client = RequestsByClient::new(&registry)?;
        let node = Mutex::new(NodeGauges::new(&registry)?);
        Ok(Self { registry, decisions, seconds, unavailable, by_client, node })
    }

    /// Where other parts register what they count themselves.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The metrics of one door. Each door has a name of its own.
    #[must_use]
    pub fn door(&self, door: &'static str) -> DoorMetrics {
        let unavailable = |answer| self.unavailable.with_label_values(&[answer, door]);
        DoorMetrics {
            seconds: self.seconds.with_label_values(&[door]),
            unmatched: self.decisions.with_label_values(&[NONE, NONE, "admitted", door]),
            unavailable: self.decisions.with_label_values(&[NONE, NONE, "unavailable", door]),
            unavailable_allowed: unavailable("allowed"),
            unavailable_denied: unavailable("denied"),
            table: ArcSwap::default(),
            table_lock: Mutex::new(()),
            decisions: self.decisions.clone(),
            door,
        }
    }

    /// The requests of the `/bucket` API by the names of their clients.
    #[must_use]
    pub fn by_client(&self) -> &RequestsByClient {
        &self.by_client
    }

    /// How often each policy denied since the start, or would have as a shadow.
    #[must_use]
    pub fn denied(&self) -> DeniedAnswer {
        let mut denied = DeniedAnswer { policies: BTreeMap::new(), is_complete: true };
        for family in self.decisions.collect() {
            for metric in family.get_metric() {
                let label = |name| metric.get_label().iter().find(|l| l.name() == name).map_or("", |l| l.value());
                let policy = label("policy");
                denied.is_complete &= policy != OTHER;
                if matches!(label("verdict"), "denied" | "shadow_denied") && policy != OTHER && policy != NONE {
                    #[expect(
                        clippy::cast_possible_truncation,
                        clippy::cast_sign_loss,
                        reason = "a count of whole numbers"
                    )]
                    let count = metric.get_counter().get_value() as u64;
                    *denied.policies.entry(policy.to_owned()).or_default() += count;
                }
            }
        }
        denied.policies.retain(|_, count| *count > 0);
        denied
    }

    /// Everything in Prometheus' text form, with the node's figures as they are now.
    ///
    /// # Errors
    /// When a metric cannot be written.
    pub fn text(&self, figures: &NodeFigures) -> prometheus::Result<Vec<u8>> {
        let node = lock(&self.node);
        node.set(figures);
        let mut text = Vec::with_capacity(16 * 1024);
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

/// What one door counts.
pub struct DoorMetrics {
    seconds: Histogram,
    unmatched: IntCounter,
    unavailable: IntCounter,
    unavailable_allowed: IntCounter,
    unavailable_denied: IntCounter,
    /// Handles of the labels in use: looking them up here is far cheaper than in `decisions`.
    table: ArcSwap<Table>,
    /// Held while `table` is replaced.
    table_lock: Mutex<()>,
    decisions: IntCounterVec,
    door: &'static str,
}

type Table = HashMap<PolicyName, Vec<(String, LimitCounters)>>;

#[derive(Clone)]
struct LimitCounters {
    admitted: IntCounter,
    denied: IntCounter,
    shadow_denied: IntCounter,
}

impl DoorMetrics {
    /// Counts a decision and the time it took.
    pub fn count(&self, verdict: &Verdict, elapsed: Duration) {
        self.seconds.observe(elapsed.as_secs_f64());
        self.count_limits(verdict.admitted, verdict.limits());
    }

    fn count_limits<'a>(&self, is_admitted: bool, limits: impl Iterator<Item = LimitReport<'a>>) {
        let mut is_unmatched = true;
        for limit in limits {
            is_unmatched = false;
            self.with_counters(limit.policy, limit.name, |counters| match (limit.shadow, limit.exceeded) {
                (true, true) => counters.shadow_denied.inc(),
                (false, true) => counters.denied.inc(),
                // A denied request is charged nowhere.
                (_, false) if is_admitted => counters.admitted.inc(),
                (_, false) => {}
            });
        }
        if is_unmatched {
            self.unmatched.inc();
        }
    }

    /// Counts a request that got no decision, and the time it waited.
    pub fn count_unavailable(&self, unavailable: &Unavailable, elapsed: Duration) {
        self.seconds.observe(elapsed.as_secs_f64());
        self.unavailable.inc();
        match unavailable.on_unavailable {
            OnUnavailable::Allow => self.unavailable_allowed.inc(),
            OnUnavailable::Deny => self.unavailable_denied.inc(),
        }
    }

    fn with_counters(&self, policy: &PolicyName, limit: &str, count: impl FnOnce(&LimitCounters)) {
        match find(&self.table.load(), policy, limit) {
            Some(counters) => count(counters),
            None => count(&self.add(policy, limit)),
        }
    }

    fn add(&self, policy: &PolicyName, limit: &str) -> LimitCounters {
        let _lock = lock(&self.table_lock);
        let table = self.table.load_full();
        if let Some(counters) = find(&table, policy, limit) {
            return counters.clone();
        }
        match table.get(policy) {
            None if table.len() >= LABELLED_POLICIES_MAX => return self.counters(OTHER, OTHER),
            Some(limits) if limits.len() >= LABELLED_LIMITS_MAX => {
                return self.counters(&quorate_crds::api::policy_ref(policy), OTHER);
            }
            _ => {}
        }
        let counters = self.counters(&quorate_crds::api::policy_ref(policy), limit);
        let mut table = Table::clone(&table);
        table.entry(policy.clone()).or_default().push((limit.to_owned(), counters.clone()));
        self.table.store(Arc::new(table));
        counters
    }

    fn counters(&self, policy: &str, limit: &str) -> LimitCounters {
        let counter = |verdict| self.decisions.with_label_values(&[policy, limit, verdict, self.door]);
        LimitCounters {
            admitted: counter("admitted"),
            denied: counter("denied"),
            shadow_denied: counter("shadow_denied"),
        }
    }
}

fn find<'a>(table: &'a Table, policy: &PolicyName, limit: &str) -> Option<&'a LimitCounters> {
    table.get(policy)?.iter().find_map(|(name, counters)| (name == limit).then_some(counters))
}

/// What is asked of the node whenever somebody scrapes.
#[derive(Clone, Debug)]
pub struct NodeFigures {
    /// Whether it is ready.
    pub ready: bool,
    /// Counters it holds.
    pub counters: usize,
    /// Commands that wait to be sent or proposed.
    pub waiting: usize,
    /// Log entries it proposed since its start.
    pub entries_proposed: u64,
    /// Flushes of its log to the disk since its start.
    pub flushes: u64,
    /// Frames and answers of nodes on older disks, not counted since its start.
    pub older_disk_frames: u64,
    /// Bytes free on its disk, when known.
    pub free: Option<u64>,
    /// Whether its disk is short of room.
    pub short_of_room: bool,
    /// Gossip packets since its start.
    pub gossip: gossip::Counts,
    /// What it knows of its cluster.
    pub status: ClusterStatus,
}

impl NodeFigures {
    /// Asks a node.
    #[must_use]
    pub fn of<P: Platform>(node: &Node<P>) -> Self {
        Self {
            ready: node.ready().is_ok(),
            counters: node.counters(),
            waiting: node.waiting(),
            entries_proposed: node.entries_proposed(),
            flushes: node.flushes(),
            older_disk_frames: node.older_disk_frames(),
            free: node.room().free(),
            short_of_room: node.room().is_short(),
            gossip: node.gossip_counts(),
            status: node.status(),
        }
    }
}

/// [`NodeFigures`] as Prometheus sees them.
struct NodeGauges {
    counters: IntGauge,
    ready: IntGauge,
    policy_revision: IntGauge,
    term: IntGauge,
    is_leader: IntGauge,
    has_leader: IntGauge,
    last_log_index: IntGauge,
    commit_index: IntGauge,
    applied_index: IntGauge,
    snapshot_index: IntGauge,
    members: IntGaugeVec,
    peers: IntGauge,
    waiting: IntGauge,
    entries: IntCounter,
    flushes: IntCounter,
    older_disk_frames: IntCounter,
    free: IntGauge,
    short_of_room: IntGauge,
    packets: IntCounterVec,
}

impl NodeGauges {
    fn new(registry: &Registry) -> prometheus::Result<Self> {
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(format!("quorate_{name}"), help)?;
            registry.register(Box::new(gauge.clone()))?;
            prometheus::Result::Ok(gauge)
        };
        let members = gauges("raft_members", "Members of the cluster by their part in Raft.", &["role"])?;
        registry.register(Box::new(members.clone()))?;
        let packets = counters("gossip_packets_total", "Gossip packets by what became of them.", &["kind"])?;
        registry.register(Box::new(packets.clone()))?;
        let entries = IntCounter::new("quorate_admission_entries_total", "Log entries this node proposed as leader.")?;
        registry.register(Box::new(entries.clone()))?;
        let flushes = IntCounter::new("quorate_storage_flushes_total", "Flushes of the log to the disk (fsync).")?;
        registry.register(Box::new(flushes.clone()))?;
        let older_disk_frames = IntCounter::new(
            "quorate_raft_older_disk_frames_total",
            "Frames and answers not counted because their sender runs on an older copy of its disk.",
        )?;
        registry.register(Box::new(older_disk_frames.clone()))?;
        Ok(Self {
            counters: gauge("counters", "Counters this node holds.")?,
            ready: gauge(
                "ready",
                "1 when this node has caught up since its start, and neither drains nor is to leave.",
            )?,
            policy_revision: gauge("policy_revision", "Revision of the policies this node has applied.")?,
            term: gauge("raft_term", "Raft term.")?,
            is_leader: gauge("raft_is_leader", "1 when this node leads.")?,
            has_leader: gauge("raft_has_leader", "1 when this node knows of a leader.")?,
            last_log_index: gauge("raft_last_log_index", "Index of the last log entry.")?,
            commit_index: gauge("raft_commit_index", "Index of the last entry this node knows to be committed.")?,
            applied_index: gauge("raft_applied_index", "Index of the last entry this node has applied.")?,
            snapshot_index: gauge("raft_snapshot_index", "Index of the last entry in this node's last snapshot.")?,
            members,
            peers: gauge("gossip_peers", "Nodes that gossip shows alive, this one included.")?,
            waiting: gauge("admission_waiting", "Commands that wait to be sent to the leader or proposed.")?,
            entries,
            flushes,
            older_disk_frames,
            free: gauge("storage_free_bytes", "Bytes free on the disk of the data folder; 0 when not known.")?,
            short_of_room: gauge(
                "storage_short_of_room",
                "1 while less is free than DISK_RESERVE, or writes wait for room.",
            )?,
            packets,
        })
    }

    fn set(&self, figures: &NodeFigures) {
        self.set_counts(figures);
        self.set_cluster(&figures.status);
    }

    fn set_counts(&self, figures: &NodeFigures) {
        self.counters.set(number(figures.counters as u64));
        self.ready.set(figures.ready.into());
        self.waiting.set(number(figures.waiting as u64));
        raise(&self.entries, figures.entries_proposed);
        raise(&self.flushes, figures.flushes);
        raise(&self.older_disk_frames, figures.older_disk_frames);
        self.free.set(number(figures.free.unwrap_or(0)));
        self.short_of_room.set(i64::from(figures.short_of_room));
        let gossip::Counts { sent, received, foreign, malformed } = figures.gossip;
        for (kind, count) in [("sent", sent), ("received", received), ("foreign", foreign), ("malformed", malformed)] {
            raise(&self.packets.with_label_values(&[kind]), count);
        }
    }

    fn set_cluster(&self, status: &ClusterStatus) {
        self.policy_revision.set(number(status.revision));
        self.term.set(number(status.term));
        self.is_leader.set((status.leader == Some(status.id)).into());
        self.has_leader.set(status.leader.is_some().into());
        self.last_log_index.set(number(status.last_log.unwrap_or(0)));
        self.commit_index.set(number(status.committed.map_or(0, |(index, _)| index)));
        self.applied_index.set(number(status.applied.unwrap_or(0)));
        self.snapshot_index.set(number(status.snapshot.map_or(0, |(index, _)| index)));
        let voters = status.members.iter().filter(|member| member.voter).count();
        self.members.with_label_values(&["voter"]).set(number(voters as u64));
        self.members.with_label_values(&["learner"]).set(number((status.members.len() - voters) as u64));
        self.peers.set(number(status.gossip_peers as u64));
    }
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Brings a counter up to a total that is counted elsewhere.
fn raise(counter: &IntCounter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}

fn counters(name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
    IntCounterVec::new(Opts::new(format!("quorate_{name}"), help), labels)
}

fn gauges(name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
    IntGaugeVec::new(Opts::new(format!("quorate_{name}"), help), labels)
}

#[cfg(test)]
mod tests;
