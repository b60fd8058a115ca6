//! What nodes answer, in shapes of their own.

use serde::Deserialize;
use serde_json::Value;

/// The answer of `/rate/check`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateCheck {
    /// The smallest remaining of all limits that apply.
    pub remaining_quota: Option<u64>,
    /// Whether one more would be admitted.
    pub result: bool,
}

/// The answer of `/v1/check`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Check {
    /// Whether the request may go on.
    pub admitted: bool,
    /// Where each limit stands.
    pub limits: Vec<LimitStatus>,
    /// The revision it was judged by.
    pub revision: u64,
}

impl Check {
    /// The status of a limit of a policy.
    ///
    /// # Panics
    /// It did not apply.
    #[must_use]
    pub fn limit(&self, policy: &str, name: &str) -> &LimitStatus {
        let found = self.limits.iter().find(|limit| limit.policy == policy && limit.name == name);
        found.unwrap_or_else(|| panic!("no limit {policy} {name} in {self:?}"))
    }
}

/// Where a limit stands.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LimitStatus {
    /// `namespace/name`.
    pub policy: String,
    /// The limit's name.
    pub name: String,
    /// Hits per window.
    pub limit: u64,
    /// Hits left.
    pub remaining: u64,
    /// Seconds until all is available again.
    pub reset_seconds: u64,
}

/// The answer to a change of policies.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Changed {
    pub(super) revision: u64,
}

/// The answer of `/v1/cluster`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterStatus {
    /// Hex digits.
    pub cluster_id: String,
    /// The leader's id.
    pub leader: Option<String>,
    /// Its term.
    pub term: u64,
    /// The policies' revision.
    pub revision: u64,
    /// The committed members.
    pub members: Vec<Member>,
    /// What is wanted of them and has not come about yet.
    pub intents: Vec<Value>,
    /// What the leader does with them.
    pub autopilot: Option<Autopilot>,
}

/// What autopilot does.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Autopilot {
    /// The change under way.
    pub operation: Option<String>,
    /// Why others are not made yet.
    pub waits: Vec<Wait>,
}

/// One thing that autopilot waits for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Wait {
    /// One word.
    pub reason: String,
    /// For people.
    pub message: String,
}

impl ClusterStatus {
    /// How many members have a role.
    #[must_use]
    pub fn count(&self, role: &str) -> usize {
        self.members.iter().filter(|member| member.role == role).count()
    }
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its Raft id, hex digits.
    pub id: String,
    /// `Voter` or `Learner`.
    pub role: String,
    /// Whether the node asked hears of it.
    pub reachable: bool,
}
