//! What goes through the log, and what comes out of applying it.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::buckets::{BucketCommand, BucketOutcome};
use crate::few::{self, Few};
use crate::members::Leaving;
use crate::policy::{Limit, Owner, Policy, PolicyId, PolicyName};
use crate::request::GivenLimit;
use crate::settings::Settings;
use crate::time::ClusterTime;

/// The 128-bit identity of a counter: a keyed hash of policy, limit name, algorithm, `countBy` keys and their values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CounterId(pub [u8; 16]);

/// In one piece: byte by byte, as serde takes an array, it would be the slowest part of a batch.
impl Serialize for CounterId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for CounterId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = <&[u8]>::deserialize(deserializer)?;
        bytes.try_into().map(Self).map_err(|_| serde::de::Error::invalid_length(bytes.len(), &"16 bytes"))
    }
}

/// One run of a node's process. A disk counts its starts, and each start draws a name, so a disk that was put back to an
/// earlier state, or copied, shows: it starts under a number that was used already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Which start of its disk it is, from 1; on the disk before anything is sent.
    pub boot: u64,
    /// Random, drawn at the start.
    pub name: u64,
}

impl Run {
    /// Whether this run began from an older state of the disk than `latest`, a run of the same node that is known: it is an
    /// earlier start, or the same start over again.
    #[must_use]
    pub fn is_older_than(self, latest: Self) -> bool {
        self.boot < latest.boot || (self.boot == latest.boot && self.name != latest.name)
    }
}

/// A session: a node's parts are numbered within it. Named by a random number drawn when it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId(pub u64);

/// The number of a part within its session, counted up from 1 by the node that sends it.
pub type Sequence = u64;

/// One log entry: parts from one or more nodes under one stamp.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// The leader's cluster time when it closed the batch.
    pub stamp: ClusterTime,
    /// Applied in order. Empty in a tick.
    pub parts: Vec<Part>,
}

/// What one node put into a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Part {
    /// Opens a session; any earlier session of the node ends. Refused when `run` is [older](Run::is_older_than) than the
    /// latest seen.
    OpenSession {
        /// The node's Raft id.
        node: u64,
        /// The node's process.
        run: Run,
        /// The session's name.
        session: SessionId,
    },
    /// Commands that count once, however often the part is sent.
    Commands {
        /// The session it belongs to.
        session: SessionId,
        /// Its number within the session.
        sequence: Sequence,
        /// Applied in order. Shared, because a part is kept for a resend while it is on its way.
        commands: Arc<Vec<Command>>,
    },
    /// Founds the cluster: its settings and first policies, owned by [`Owner::Builtin`]. Only the first one counts;
    /// until then every decision is a rematch.
    Found {
        /// The settings.
        settings: Settings,
        /// The first policies.
        policies: Vec<Policy>,
    },
    /// Raises the feature level of the whole cluster; a lower or equal one changes nothing.
    RaiseFeatureLevel(u32),
    /// A member is to leave; the leader's autopilot sees to it. Again changes nothing.
    Decommission {
        /// The member's Raft id.
        node: u64,
    },
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Evaluate all charges; charge all, or none.
    Decide {
        /// The domain's policy revision at which the charges were matched; the whole table's when there are none.
        revision: u64,
        /// What to charge; empty when no policy applies.
        #[serde(with = "few")]
        charges: Few<Charge, 1>,
    },
    /// Forget what the named counters hold.
    Reset {
        /// As in `Decide`.
        revision: u64,
        /// As in `Decide`; hits are ignored.
        #[serde(with = "few")]
        charges: Few<Charge, 1>,
    },
    /// Change policies.
    ChangePolicies(PolicyChange),
    /// Register a name of the `/bucket` API, give one back, or ask for one.
    Bucket(BucketCommand),
}

/// What one matched policy is to be charged for one descriptor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charge {
    /// The policy.
    pub policy: PolicyId,
    /// Which of its overrides holds.
    pub overridden: Option<u16>,
    /// 0 looks, below zero gives back.
    pub hits: i64,
    /// One for each limit of the policy, in its order.
    #[serde(with = "few")]
    pub counters: Few<CounterId, 2>,
    /// A limit that the request brought along.
    pub given: Option<GivenLimit>,
}

impl Charge {
    /// A limit of the charge's policy as it holds for this charge.
    #[must_use]
    pub fn in_force<'a>(&self, limit: &'a Limit) -> Cow<'a, Limit> {
        match self.given {
            Some(given) if given.stands_for(limit) => Cow::Owned(Limit { limit: given.hits, ..limit.clone() }),
            _ => Cow::Borrowed(limit),
        }
    }
}

/// A change of policies by one owner, effective at one revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PolicyChange {
    /// Create or replace these.
    Put(Owner, Vec<Policy>),
    /// Remove these; one that does not exist is no error.
    Delete(Owner, Vec<PolicyName>),
    /// The owner's policies are exactly these from now on.
    ReplaceAll(Owner, Vec<Policy>),
}

/// What a part came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PartOutcome {
    /// Applied, now or when it first came: one outcome for each command.
    Applied(Arc<Vec<Outcome>>),
    /// The cluster is founded, a session was opened or a feature level is reached.
    Done,
    /// The session is not (or no longer) open; nothing was charged. To `OpenSession`: there are already
    /// [`crate::sessions::SESSIONS_MAX`] nodes, or another node has drawn this name; it was not opened.
    UnknownSession,
    /// The sequence number lies below the window of results kept; nothing was charged by this copy of the part.
    SequenceTooOld,
    /// The node runs on an older copy of its disk.
    OlderDisk {
        /// The latest run of the node that is known.
        latest: Run,
    },
    /// What came of [`Part::Decommission`].
    Leaving(Leaving),
}

/// What a command came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// A decision.
    Decided(Decision),
    /// The policies changed since the request was matched; match again. Nothing was charged.
    Rematch,
    /// A new counter is needed and the policy has used up its share; nothing was charged.
    CountersFull(PolicyId),
    /// The counters named are as if never used.
    Reset,
    /// What a change of policies came to.
    Policies(PolicyOutcome),
    /// What came of a command about buckets.
    Bucket(BucketOutcome),
}

/// Admitted or denied, and where each limit stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Whether every enforced limit admits.
    pub admitted: bool,
    /// Charge by charge, each limit in its policy's order.
    #[serde(with = "few")]
    pub limits: Few<LimitState, 2>,
}

/// Where a limit stands after a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitState {
    /// Hits left now.
    pub remaining: u64,
    /// Nanoseconds until all of the limit is available again if nothing more is charged.
    pub reset_ns: u64,
    /// Nanoseconds until the same request would be admitted by this limit; 0 when it admits now, `u64::MAX` when it
    /// never can (more hits than the limit holds).
    pub retry_ns: u64,
    /// Whether this limit stands against the request (a shadow policy's too).
    pub exceeded: bool,
}

/// What a change of policies came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PolicyOutcome {
    /// In force from the revision named. The same policies again change nothing and keep the revision.
    Applied {
        /// The revision of the whole policy table.
        revision: u64,
    },
    /// Nothing was changed.
    Conflict(PolicyConflict),
}

/// Why a change of policies was refused as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PolicyConflict {
    /// Another owner holds it.
    OwnedBy(PolicyName, Owner),
    /// More policies than [`Policy::COUNT_MAX`].
    TooMany {
        /// The most there may be.
        max: u32,
    },
}
