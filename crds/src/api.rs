//! The shapes of the node's HTTP API, shared by whoever serves it and whoever calls it. JSON, camelCase; unknown fields in
//! what comes in are refused by name.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use quorate_limits::{Descriptor, Owner, PolicyName, Request};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::error::FieldError;
use crate::quota_policy::{DEFAULT_DOMAIN, QuotaPolicy};

/// The most checks in one body.
pub const CHECKS_MAX: usize = 1000;

/// The body of `POST /v1/check`: one check, or `{"checks":[…]}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, try_from = "RawCheckRequest")]
pub enum CheckRequest {
    /// One check; the answer is a [`CheckAnswer`].
    One(CheckBody),
    /// At most [`CHECKS_MAX`] checks, each decided by itself; the answer is a [`BatchAnswer`].
    Batch {
        /// In the order of the answers.
        checks: Vec<CheckBody>,
    },
}

impl CheckRequest {
    /// Reads a body. An error names the field it was found in.
    ///
    /// # Errors
    /// The body is no JSON, lacks a field or holds one that is unknown.
    pub fn parse(body: &[u8]) -> Result<Self, FieldError> {
        // The path costs an allocation for each field, so it is only looked for once something is wrong.
        serde_json::from_slice(body).or_else(|_| {
            let mut reader = serde_json::Deserializer::from_slice(body);
            let request = serde_path_to_error::deserialize(&mut reader).map_err(|e| FieldError::from_serde(&e))?;
            reader.end().map_err(|e| FieldError::new("", e.to_string()))?;
            Ok(request)
        })
    }
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object with `descriptors`")]
pub struct CheckBody {
    /// `default` unless told.
    #[serde(default = "default_domain")]
    pub domain: String,
    /// All are charged, or none.
    pub descriptors: Vec<Vec<Entry>>,
    /// 1 unless told; 0 peeks.
    #[serde(default = "one_hit")]
    pub hits: i64,
}

impl From<CheckBody> for Request {
    fn from(body: CheckBody) -> Self {
        let descriptors = body.descriptors.into_iter().map(|entries| Descriptor {
            entries: entries.into_iter().map(|entry| (entry.key, entry.value)).collect(),
            hits: None,
            limit: None,
        });
        Self { domain: body.domain, descriptors: descriptors.collect(), hits: body.hits }
    }
}

/// One entry of a descriptor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object with `key` and `value`")]
pub struct Entry {
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: String,
}

/// Both forms in one, because an untagged enum could not say which field is wrong.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object with `descriptors`, or with `checks`")]
struct RawCheckRequest {
    checks: Option<Vec<CheckBody>>,
    domain: Option<String>,
    descriptors: Option<Vec<Vec<Entry>>>,
    hits: Option<i64>,
}

impl TryFrom<RawCheckRequest> for CheckRequest {
    type Error = String;

    fn try_from(raw: RawCheckRequest) -> Result<Self, String> {
        match raw {
            RawCheckRequest { checks: Some(checks), domain: None, descriptors: None, hits: None } => {
                if checks.len() > CHECKS_MAX {
                    return Err(format!("{} checks are too many; send at most {CHECKS_MAX} at once", checks.len()));
                }
                Ok(Self::Batch { checks })
            }
            RawCheckRequest { checks: Some(_), .. } => {
                Err("`checks` stands alone; put domain, descriptors and hits into each check".to_owned())
            }
            RawCheckRequest { checks: None, domain, descriptors, hits } => Ok(Self::One(CheckBody {
                domain: domain.unwrap_or_else(default_domain),
                descriptors: descriptors.ok_or("missing field `descriptors`")?,
                hits: hits.unwrap_or_else(one_hit),
            })),
        }
    }
}

/// The answer to one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckAnswer {
    /// Whether the request may go on.
    pub admitted: bool,
    /// Where each limit that applies stands now.
    pub limits: Vec<LimitAnswer>,
    /// The limit that denied; only in a denial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denied_by: Option<LimitRef>,
    /// The revision of the policies it was judged by.
    pub revision: u64,
    /// No decision was known in time, and the policies let it through; only then. It may have been charged.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unavailable: bool,
}

/// Where one limit stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LimitAnswer {
    /// `namespace/name`.
    pub policy: String,
    /// The limit's name within the policy.
    pub name: String,
    /// Hits per window.
    pub limit: u64,
    /// Hits left.
    pub remaining: u64,
    /// Seconds until all of the limit is available again, rounded up.
    pub reset_seconds: u64,
}

/// Names a limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LimitRef {
    /// `namespace/name`.
    pub policy: String,
    /// The limit's name within the policy.
    pub name: String,
}

/// The answer to a batch of checks, in their order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchAnswer {
    /// One for each check.
    pub results: Vec<BatchResult>,
}

/// What came of one check of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum BatchResult {
    /// It was decided.
    Decided(CheckAnswer),
    /// It was not; the others are not touched by that.
    Failed(ErrorBody),
}

/// Why a request was not served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ErrorBody {
    /// What happened, to which object, and what to do.
    pub error: String,
    /// The same for programs, when it is about fields of the body.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Fault>,
}

impl From<String> for ErrorBody {
    fn from(error: String) -> Self {
        Self { error, faults: Vec::new() }
    }
}

/// What is wrong with one field of a body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fault {
    /// Its path from the body's root, as in `policies[3].spec.limits[0].window`; empty for the body as a whole.
    pub path: String,
    /// What is wrong, and what to write instead.
    pub message: String,
}

/// A 64-bit id as 16 hex digits: JSON's numbers hold only 53 bits in many readers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HexId(pub u64);

impl fmt::Display for HexId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Text that is no [`HexId`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an id; an id is 1 to 16 hex digits, as GET /v1/cluster shows it")]
pub struct InvalidHexId(String);

impl FromStr for HexId {
    type Err = InvalidHexId;

    fn from_str(text: &str) -> Result<Self, InvalidHexId> {
        let invalid = || InvalidHexId(text.chars().take(32).collect());
        // `from_str_radix` would also take a sign.
        if text.len() > 16 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(invalid());
        }
        u64::from_str_radix(text, 16).map(Self).map_err(|_| invalid())
    }
}

impl Serialize for HexId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HexId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// The answer of `GET /v1/cluster`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterAnswer {
    /// The cluster's id, hex digits; empty before the node has joined one.
    pub cluster_id: String,
    /// The node that answers; it has an id before it is a member.
    pub node: HexId,
    /// The leader this node knows of.
    pub leader: Option<HexId>,
    /// The leader's term.
    pub term: u64,
    /// The revision of the policies this node has applied.
    pub revision: u64,
    /// The members of the committed configuration.
    pub members: Vec<MemberAnswer>,
    /// What operators want of the members and what has not come about yet.
    pub intents: Vec<IntentAnswer>,
    /// What the leader does with the membership; `null` when this node cannot know.
    pub autopilot: Option<AutopilotAnswer>,
}

/// What an operator wants of a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IntentAnswer {
    /// What is to be done.
    pub action: IntentAction,
    /// The member's id.
    pub member: HexId,
}

/// What can be wanted of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IntentAction {
    /// It is to leave the cluster.
    Decommission,
}

/// What autopilot does and what it waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AutopilotAnswer {
    /// The change of the membership under way, for people; `null` when there is none.
    pub operation: Option<String>,
    /// Why other changes are not made yet.
    pub waits: Vec<WaitAnswer>,
}

/// One thing that autopilot waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WaitAnswer {
    /// One word: `Quorum`, `Silence`, `Interval`, `CatchingUp`, `NameTwice` or `NobodyLeft`.
    pub reason: String,
    /// What it waits for and what can be done, for people.
    pub message: String,
}

/// The answer to a decommission.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DecommissionAnswer {
    /// The member's id.
    pub member: HexId,
    /// How far it is.
    pub state: DecommissionState,
}

/// How far a decommission is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DecommissionState {
    /// The intent is noted; the leader's autopilot sees to it.
    Leaving,
    /// It is no member any more.
    Left,
}

/// The body of `POST /v1/cluster/bootstrap`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object with `members`")]
pub struct BootstrapBody {
    /// All of the cluster's first members; the node that is asked is one of them.
    pub members: Vec<FoundingMember>,
}

/// One of a cluster's first members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object with `id` and `name`")]
pub struct FoundingMember {
    /// Its Raft id.
    pub id: HexId,
    /// Its name, the pod's on Kubernetes.
    pub name: String,
}

/// The answer to a founding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BootstrapAnswer {
    /// The new cluster's id, hex digits.
    pub cluster_id: String,
}

/// The body of `POST /v1/cluster/transfer-leader`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TransferBody {
    /// Who is to lead; without: whichever voter is the furthest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<HexId>,
}

/// The answer to a transfer of leadership.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TransferAnswer {
    /// Who leads now.
    pub leader: HexId,
}

/// One member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberAnswer {
    /// Its name, the pod's on Kubernetes.
    pub name: String,
    /// Its Raft id.
    pub id: HexId,
    /// Whether it votes.
    pub role: Role,
    /// Log entries it is behind the leader; `null` when this node cannot know.
    pub lag: Option<u64>,
    /// The revision of the policies it has applied; `null` when this node cannot know.
    pub applied_revision: Option<u64>,
    /// The version of its program; `null` when this node cannot know.
    pub version: Option<String>,
    /// Whether this node hears of it.
    pub reachable: bool,
}

/// A member's part in Raft.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// It votes.
    Voter,
    /// It only follows.
    Learner,
}

/// Who wrote a policy, as the API words it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the variants are those of quorate_limits::Owner")]
pub enum OwnerName {
    Builtin,
    Files,
    Api,
    Operator,
}

impl From<Owner> for OwnerName {
    fn from(owner: Owner) -> Self {
        match owner {
            Owner::Builtin => Self::Builtin,
            Owner::Files => Self::Files,
            Owner::Api => Self::Api,
            Owner::Operator => Self::Operator,
        }
    }
}

impl From<OwnerName> for Owner {
    fn from(owner: OwnerName) -> Self {
        match owner {
            OwnerName::Builtin => Self::Builtin,
            OwnerName::Files => Self::Files,
            OwnerName::Api => Self::Api,
            OwnerName::Operator => Self::Operator,
        }
    }
}

/// A policy as `GET /v1/policies/{ns}/{name}` answers it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyView {
    /// The policy.
    #[serde(flatten)]
    pub policy: QuotaPolicy,
    /// The revision it came into force with.
    pub revision: u64,
    /// Who wrote it; only they may change it.
    pub owner: OwnerName,
}

/// The answer of `GET /v1/policies`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyList {
    /// The revision of the whole table.
    pub revision: u64,
    /// In the order of their names.
    pub policies: Vec<PolicyView>,
}

/// The body of `POST /v1/policies:apply`, as a caller writes it: from the answer on, the owner's policies are exactly
/// these. A node reads it with [`crate::parse_policy_set`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicySet<P = QuotaPolicy> {
    /// `api` unless told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<OwnerName>,
    /// The cluster it is for; a node of another refuses it. Whoever calls an address that may have become another pod's
    /// gives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
    /// All of the owner's policies.
    pub policies: Vec<P>,
}

/// The answer to a change of policies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyChanged {
    /// The change is in force from this revision of the table.
    pub revision: u64,
}

/// The answer of `GET /v1/denied`: what one node counted since its start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeniedAnswer {
    /// By `namespace/name`: how often a limit of the policy denied, or would have denied were it no shadow. Policies that
    /// never did are left out; so are those beyond the most that a node counts apart.
    pub policies: BTreeMap<String, u64>,
    /// Whether every policy that decided anything here is counted apart.
    pub is_complete: bool,
}

/// `namespace/name`, as the API words a policy's name.
#[must_use]
pub fn policy_ref(name: &PolicyName) -> String {
    format!("{}/{}", name.namespace, name.name)
}

fn default_domain() -> String {
    DEFAULT_DOMAIN.to_owned()
}

fn one_hit() -> i64 {
    1
}

#[cfg(test)]
mod tests;
