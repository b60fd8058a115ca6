//! What a door gets: a verdict, or the reason why there is none.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use quorate_limits::{Algorithm, Decision, Enforcement, Matched, OnUnavailable, PolicyName, Rules};

/// How fresh a check must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// It sees every decision acknowledged before it was asked.
    Linearizable,
    /// What this node has applied.
    Local,
}

/// A decision, with the rules it was made by.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Whether the request may pass.
    pub admitted: bool,
    /// The revision of the whole policy table it was judged by.
    pub revision: u64,
    rules: Arc<Rules>,
    matched: Matched,
    decision: Decision,
}

/// Where one limit stands after a decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitReport<'a> {
    /// The number of the descriptor that it was met by, from 0.
    pub descriptor: usize,
    /// The policy.
    pub policy: &'a PolicyName,
    /// The limit's name.
    pub name: &'a str,
    /// Hits per window, those that the request brought along if it did; the burst of a token bucket.
    pub limit: u64,
    /// The window.
    pub window: Duration,
    /// Hits left.
    pub remaining: u64,
    /// Until all of it is available again.
    pub reset: Duration,
    /// Until the same request would pass this limit; `None` when it never will.
    pub retry: Option<Duration>,
    /// Whether it stands against the request.
    pub exceeded: bool,
    /// Whether its policy only watches.
    pub shadow: bool,
}

impl Verdict {
    /// A verdict from what was matched and what came out.
    #[must_use]
    pub fn new(rules: Arc<Rules>, matched: Matched, decision: Decision) -> Self {
        Self { admitted: decision.admitted, revision: rules.revision(), rules, matched, decision }
    }

    /// Every limit that applies, charge by charge. Empty when no policy matches.
    pub fn limits(&self) -> impl Iterator<Item = LimitReport<'_>> {
        let mut states = self.decision.limits.iter();
        self.matched.charges.iter().zip(&self.matched.descriptors).flat_map(move |(charge, descriptor)| {
            let states: Vec<_> = states.by_ref().take(charge.counters.len()).collect();
            states.into_iter().enumerate().filter_map(move |(index, state)| {
                let policy = self.rules.policy(charge.policy)?;
                let limit = self.rules.limit(charge, index)?;
                let is_bucket = limit.algorithm == Algorithm::TokenBucket;
                Some(LimitReport {
                    descriptor: *descriptor,
                    policy: &policy.name,
                    name: &limit.name,
                    limit: if is_bucket { limit.burst } else { charge.in_force(limit).limit },
                    window: Duration::from_nanos(limit.window_ns),
                    remaining: state.remaining,
                    reset: Duration::from_nanos(state.reset_ns),
                    retry: (state.retry_ns != u64::MAX).then(|| Duration::from_nanos(state.retry_ns)),
                    exceeded: state.exceeded,
                    shadow: policy.enforcement == Enforcement::Shadow,
                })
            })
        })
    }
}

/// No decision is known in time. The request may have been charged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unavailable {
    /// Why.
    pub reason: UnavailableReason,
    /// What the policies that apply say: `Allow` only when every one of them does.
    pub on_unavailable: OnUnavailable,
}

/// Why there is no decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnavailableReason {
    /// The node has not joined a cluster yet.
    NotJoined,
    /// The node was removed from its cluster.
    Removed,
    /// The deadline passed; most often because there is no leader.
    Deadline,
    /// Too many requests wait already.
    Overloaded,
    /// The policy's share of counters is used up and the request needs a new one.
    CountersFull,
    /// The disk of the leader is full, and so are those of all who could take over.
    DiskFull,
}

impl UnavailableReason {
    /// Whether what was asked may have taken effect all the same.
    #[must_use]
    pub fn may_have_taken_effect(self) -> bool {
        match self {
            Self::Deadline => true,
            Self::NotJoined | Self::Removed | Self::Overloaded | Self::CountersFull | Self::DiskFull => false,
        }
    }
}

impl fmt::Display for UnavailableReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotJoined => "this node has not joined a cluster yet",
            Self::Removed => {
                "this node was removed from its cluster; stop it, or restart it to let it join again as a new node"
            }
            Self::Deadline => "no decision in time; the cluster may be without a leader",
            Self::Overloaded => "too many requests are waiting on this node",
            Self::DiskFull => "the disk of the cluster's leader is full, and no other voter has room; free space",
            Self::CountersFull => "the policy has used up its share of counters and this request needs a new one",
        })
    }
}
