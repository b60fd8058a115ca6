//! Who a node is: a random id, made once for each empty disk, and what it promised.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The random name of a cluster, made at its founding; shown as hex.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ClusterId(pub u64);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A promise to found one cluster with exactly these members, and no other. It is on the disk before it is given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promise {
    /// The cluster.
    pub cluster: ClusterId,
    /// Raft id and name of each founding member.
    pub members: BTreeMap<u64, String>,
}

/// What `node.json` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The Raft id: random, never reused, lost with the disk.
    pub node: u64,
    /// The member's name; an address, not an identity.
    pub name: String,
    /// Counts the starts of this disk from 1; on the disk before anything is sent.
    pub boot: u64,
    /// The cluster this node belongs to, once it does.
    pub cluster: Option<ClusterId>,
    /// Where this disk's node was reached last by others, `host:port`: a copy of the disk finds there who runs as it.
    pub address: Option<String>,
    /// Why this disk must not be used any more: the cluster knows that it is an older copy. Starting it again must not
    /// make it look newer.
    pub refused: Option<String>,
    /// What it promised while its cluster was founded.
    pub promise: Option<Promise>,
    /// Whether its cluster has said that this node was removed. All it keeps is put aside before its next start, which
    /// makes a new identity.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub removed: bool,
}
