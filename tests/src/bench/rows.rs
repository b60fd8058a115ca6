//! What is measured.

/// What each request asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// `POST /rate/increment`, admitted.
    Increment,
    /// The same, denied.
    Denied,
    /// `GET /rate/check`: a linearizable read.
    Check,
    /// `POST /v1/check` with [`PER_BATCH`] checks, all admitted.
    Batch,
}

/// Checks in one batch; as in `tests/bench/load.lua`.
pub const PER_BATCH: u64 = 100;
/// Clients whose names begin so are over their limit after the first hit.
pub const DENIED_PREFIX: &str = "over-";

impl Ask {
    /// The script's word for it.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self {
            Self::Increment | Self::Denied => "increment",
            Self::Check => "check",
            Self::Batch => "batch",
        }
    }

    /// What the names of its clients begin with.
    #[must_use]
    pub fn prefix(self) -> &'static str {
        if self == Self::Denied { DENIED_PREFIX } else { "client-" }
    }

    /// Decisions that one request asks for.
    #[must_use]
    pub fn decisions(self) -> u64 {
        if self == Self::Batch { PER_BATCH } else { 1 }
    }

    /// Whether each decision is a log entry's, on the disks of a majority before it is answered.
    #[must_use]
    pub fn is_logged(self) -> bool {
        self != Self::Check
    }
}

/// Whom the load goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// The bare server, which stands for what HTTP alone costs; one wrk for each node all the same.
    Bare,
    /// All three nodes, one wrk each.
    All,
    /// Only the leader.
    Leader,
    /// Only one follower.
    Follower,
}

/// One line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its name in the table and the results.
    pub name: &'static str,
    /// What is asked.
    pub ask: Ask,
    /// Of whom.
    pub to: To,
    /// Of how many clients.
    pub keys: u32,
    /// Connections of each of the three wrks, each with one request on its way.
    pub connections: u32,
}

/// Many clients, so that counters are spread over memory.
const MANY: u32 = 100_000;
/// With fewer the processors wait for the disks some of the time: each node has two parts on their way at most.
const FULL: u32 = 192;
/// Of each node, where a request is a hundred decisions; and to tell what it means that fewer ask.
const FEW: u32 = 64;

/// All rows, in the order in which each round measures them. Others are compared with the bare server at as many
/// connections.
pub const ROWS: [Row; 11] = [
    Row { name: "bare axum", ask: Ask::Increment, to: To::Bare, keys: MANY, connections: FULL },
    Row { name: "bare axum, 64 connections a node", ask: Ask::Increment, to: To::Bare, keys: MANY, connections: FEW },
    Row { name: "exact single", ask: Ask::Increment, to: To::All, keys: MANY, connections: FULL },
    Row { name: "exact single, 64 connections a node", ask: Ask::Increment, to: To::All, keys: MANY, connections: FEW },
    Row { name: "exact single, one hot key", ask: Ask::Increment, to: To::All, keys: 1, connections: FULL },
    Row { name: "exact single, denied", ask: Ask::Denied, to: To::All, keys: 1000, connections: FULL },
    Row { name: "exact single, leader only", ask: Ask::Increment, to: To::Leader, keys: MANY, connections: FULL },
    Row {
        name: "exact single, one follower only",
        ask: Ask::Increment,
        to: To::Follower,
        keys: MANY,
        connections: FULL,
    },
    Row { name: "linearizable check", ask: Ask::Check, to: To::All, keys: MANY, connections: FULL },
    Row { name: "exact batch 100", ask: Ask::Batch, to: To::All, keys: MANY, connections: FEW },
    Row { name: "exact batch 100, one hot key", ask: Ask::Batch, to: To::All, keys: 1, connections: FEW },
];

/// The rows whose times are measured too, at half of what they were found to do.
pub const PACED: [&str; 2] = ["exact single", "exact batch 100"];
