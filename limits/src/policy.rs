//! Policies, in validated form only: what is here holds its own rules, so nothing behind it checks them again.

use serde::{Deserialize, Serialize};

/// A policy's name: a namespace and a name, both DNS labels or subdomains of at most 253 bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PolicyName {
    /// `default` unless told.
    pub namespace: String,
    /// Unique within the namespace.
    pub name: String,
}

/// The number of a policy in the replicated state. Never used again for another policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PolicyId(pub u32);

/// Who wrote a policy; a writer touches only its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Owner {
    /// The limiter itself, at the founding (`DEFAULT_LIMIT`). Any other writer may take such a policy over.
    Builtin,
    /// Policy files of the nodes.
    Files,
    /// The admin API.
    Api,
    /// The Kubernetes operator.
    Operator,
}

/// How a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Algorithm {
    /// A window that starts with its first hit.
    FixedWindow,
    /// The current window and a weighted share of the one before.
    SlidingWindow,
    /// A bucket that refills steadily, with the semantics of GCRA.
    TokenBucket,
}

/// One named limit of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// Unique within the policy; part of the counter's identity.
    pub name: String,
    /// How it counts; part of the counter's identity.
    pub algorithm: Algorithm,
    /// Hits per window, 0 to [`Limit::LIMIT_MAX`]; 0 denies everything.
    pub limit: u64,
    /// The window's length in nanoseconds, at least 1 ms, at most [`Limit::WINDOW_NS_MAX`].
    pub window_ns: u64,
    /// Capacity of a token bucket in hits; equals `limit` unless told. Ignored by the window algorithms.
    pub burst: u64,
}

impl Limit {
    /// The largest limit or burst: large enough for any quota, small enough for exact arithmetic in 128 bits.
    pub const LIMIT_MAX: u64 = 1_000_000_000_000_000;
    /// The longest window: 366 days.
    pub const WINDOW_NS_MAX: u64 = 366 * 24 * 3600 * 1_000_000_000;
    /// The shortest window: 1 ms.
    pub const WINDOW_NS_MIN: u64 = 1_000_000;
}

impl Policy {
    /// The most policies a cluster holds.
    pub const COUNT_MAX: u32 = 16_384;
    /// The most overrides a policy has; the matcher never sees any behind them.
    pub const OVERRIDES_MAX: usize = 1 << 16;
}

/// What the value of a descriptor's entry must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ValueMatch {
    /// Exactly this.
    Exact(String),
    /// It starts with this.
    Prefix(String),
    /// The key is present.
    Any,
}

/// A condition on one entry of a descriptor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyMatch {
    /// The entry's key.
    pub key: String,
    /// What its value must be.
    pub value: ValueMatch,
}

/// Other figures for a more specific match. It changes figures of limits that the policy names, never their
/// algorithm, so that a counter keeps its identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Override {
    /// All must hold within the descriptor that matched the policy.
    pub matches: Vec<KeyMatch>,
    /// The complete limits of the policy with this override's figures in place, in the policy's order.
    pub limits: Vec<Limit>,
}

/// What a policy does with a request beyond its limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Enforcement {
    /// Deny it.
    Enforce,
    /// Count and report it, deny nothing. Of the requests that are admitted it charges those that it would admit too, as
    /// though it were enforced.
    Shadow,
    /// The policy takes no part.
    Disabled,
}

/// What to answer when no decision is known in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnUnavailable {
    /// Treat it as denied.
    Deny,
    /// Let it through, and count it apart.
    Allow,
}

/// A quota policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Its name.
    pub name: PolicyName,
    /// The domain it belongs to.
    pub domain: String,
    /// Conditions, all of which must hold within one descriptor. Empty: every descriptor that has the `count_by` keys.
    pub matches: Vec<KeyMatch>,
    /// The keys whose values a counter is kept for. A descriptor that lacks one does not match.
    pub count_by: Vec<String>,
    /// At least one, names unique.
    pub limits: Vec<Limit>,
    /// The most specific that matches wins: exact before longest prefix, and the first of equals.
    pub overrides: Vec<Override>,
    /// What a request beyond the limits meets.
    pub enforcement: Enforcement,
    /// What is answered without a decision.
    pub on_unavailable: OnUnavailable,
    /// Applies only to what no other policy of its domain matches.
    pub fallback: bool,
}
