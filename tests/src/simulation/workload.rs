//! The policies of a world and the requests made under them.

use std::fmt;

use quorate_limits::{
    Algorithm, Descriptor, Enforcement, KeyMatch, Limit, OnUnavailable, Policy, PolicyName, Request, ValueMatch,
};

use super::chance;

/// Clients that requests are counted for.
const CLIENTS: [&str; 3] = ["a", "b", "c"];
/// A window longer than any run.
const HOUR_NS: u64 = 3600 * 1_000_000_000;
const MILLISECOND_NS: u64 = 1_000_000;

/// What a counter is like: each kind has a policy of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A fixed window longer than the run; only charged and looked at, so what is left never grows.
    Long,
    /// A fixed window longer than the run, with resets and refunds.
    Loose,
    /// A fixed window longer than the run, whose limit changes.
    Changing,
    /// A short fixed window.
    Short,
    /// A short sliding window.
    Sliding,
    /// A token bucket that refills fast.
    Bucket,
}

/// All of them.
pub const KINDS: [Kind; 6] = [Kind::Long, Kind::Loose, Kind::Changing, Kind::Short, Kind::Sliding, Kind::Bucket];

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Long => "long",
            Self::Loose => "loose",
            Self::Changing => "changing",
            Self::Short => "short",
            Self::Sliding => "sliding",
            Self::Bucket => "bucket",
        }
    }

    /// The policy of this kind, with `limit` hits per window.
    #[must_use]
    pub fn policy(self, limit: u64) -> Policy {
        let (algorithm, window_ns) = match self {
            Self::Long | Self::Loose | Self::Changing => (Algorithm::FixedWindow, HOUR_NS),
            Self::Short => (Algorithm::FixedWindow, 400 * MILLISECOND_NS),
            Self::Sliding => (Algorithm::SlidingWindow, 600 * MILLISECOND_NS),
            Self::Bucket => (Algorithm::TokenBucket, 500 * MILLISECOND_NS),
        };
        Policy {
            name: PolicyName { namespace: "default".to_owned(), name: self.name().to_owned() },
            domain: "default".to_owned(),
            matches: vec![KeyMatch { key: "kind".to_owned(), value: ValueMatch::Exact(self.name().to_owned()) }],
            count_by: vec!["client_id".to_owned()],
            limits: vec![Limit { name: "main".to_owned(), algorithm, limit, window_ns, burst: limit + limit / 2 }],
            overrides: Vec::new(),
            enforcement: Enforcement::Enforce,
            on_unavailable: OnUnavailable::Deny,
            fallback: false,
        }
    }
}

/// The policies a world is founded with; the limits are drawn.
#[must_use]
pub fn first_policies() -> Vec<Policy> {
    KINDS
        .into_iter()
        .map(|kind| {
            kind.policy(match kind {
                Kind::Long | Kind::Loose | Kind::Changing => 20 + chance::below(60),
                Kind::Short | Kind::Sliding | Kind::Bucket => 5 + chance::below(10),
            })
        })
        .collect()
}

/// One counter: a kind and a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The kind.
    pub kind: Kind,
    /// The client.
    pub client: &'static str,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.name(), self.client)
    }
}

impl Key {
    /// Any counter of this kind.
    #[must_use]
    pub fn any(kind: Kind) -> Self {
        Self { kind, client: CLIENTS[chance::index(CLIENTS.len())] }
    }

    fn descriptor(self) -> Descriptor {
        Descriptor::of([("kind", self.kind.name()), ("client_id", self.client)])
    }
}

/// A request on these counters: one descriptor each, charged together or not at all.
#[must_use]
pub fn request(keys: &[Key], hits: i64) -> Request {
    let descriptors = keys.iter().map(|key| key.descriptor()).collect();
    Request { domain: "default".to_owned(), descriptors, hits }
}
