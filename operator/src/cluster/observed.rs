//! What was seen of a cluster: Kubernetes' objects and the nodes' answers, as the planner looks at them. One look is one
//! [`Observed`]; nothing in it is newer than the rest.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod};
use quorate_crds::api::{ClusterAnswer, HexId, MemberAnswer, Role};
use quorate_crds::cluster_status::{Operation, OperationKind};

use super::names::{CLUSTER_ID_ANNOTATION, FOUNDING_ADOPTED_KEY, FOUNDING_MEMBERS_KEY, Names, TEMPLATE_ANNOTATION};
use super::ownership::InTheWay;
use super::plan::InFlight;

/// A member this many log entries behind its leader still counts as caught up.
pub const LAG_MAX: u64 = 1000;

/// Everything that was read of one cluster.
#[derive(Clone, Copy, Debug, Default)]
pub struct Read<'a> {
    /// The uid of its `RateLimitCluster`.
    pub uid: &'a str,
    /// Its `StatefulSet`.
    pub stateful_set: Option<&'a StatefulSet>,
    /// The pods that its labels select.
    pub pods: &'a [Pod],
    /// The claims that its labels select.
    pub claims: &'a [PersistentVolumeClaim],
    /// Its founding.
    pub founding: Option<&'a ConfigMap>,
    /// What the pods answered to `GET /v1/cluster`; who did not answer is not there.
    pub answers: &'a [(&'a str, &'a ClusterAnswer)],
    /// What is not its own and stands where an object of its own should.
    pub in_the_way: Option<&'a InTheWay>,
    /// The status has told the cluster's id before.
    pub was_founded: bool,
    /// The operation in the status.
    pub operation: Option<&'a Operation>,
}

/// A cluster as it was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// The pods that the `StatefulSet` is to have; `None` without a `StatefulSet`.
    pub replicas: Option<usize>,
    /// The pods by their numbers.
    pub pods: BTreeMap<usize, SeenPod>,
    /// The claims by their numbers.
    pub claims: BTreeMap<usize, SeenClaim>,
    /// How the cluster was founded, or is to be.
    pub founding: Option<Founding>,
    /// The committed membership as the leader tells it; `None` when no node says that it leads.
    pub membership: Option<Membership>,
    /// Who votes, id to number of its pod: as the leader tells it, or without one as any node does.
    pub voters: BTreeMap<u64, usize>,
    /// What is not its own and stands where an object of its own should.
    pub in_the_way: Option<InTheWay>,
    /// What the API server has against the changes that the spec asks for, in its words, as long as that lasts.
    pub refused: Option<String>,
    /// Nodes have told the cluster's id before, whether or not any does now.
    pub was_founded: bool,
    /// The operation in flight.
    pub operation: Option<InFlight>,
}

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenPod {
    /// Its uid.
    pub uid: String,
    /// The template it was made from.
    pub template: String,
    /// Kubernetes calls it ready.
    pub ready: bool,
    /// It is on its way out.
    pub terminating: bool,
    /// What its node answered.
    pub node: Option<SeenNode>,
}

/// A node that answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenNode {
    /// Its Raft id.
    pub id: u64,
    /// The cluster it belongs to; `None` on an empty disk.
    pub cluster: Option<String>,
    /// It belonged to the cluster and is no member any more: it was told to leave, and stays out until it is started anew.
    pub retired: bool,
}

/// A claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenClaim {
    /// Its uid.
    pub uid: String,
    /// The cluster whose data is on it, as far as was noted.
    pub cluster: Option<String>,
    /// The `RateLimitCluster` owns it, so it goes when that goes.
    pub goes_along: bool,
    /// It is on its way out.
    pub terminating: bool,
}

/// How a cluster comes, or came, to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Founding {
    /// With exactly these nodes, id to pod.
    With(BTreeMap<u64, String>),
    /// It was there before its `RateLimitCluster`.
    Adopted(String),
    /// The `ConfigMap` is there and cannot be read.
    Unreadable,
}

/// The committed membership.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// Its leader's id.
    pub leader: u64,
    /// The leader's term.
    pub term: u64,
    /// All of them.
    pub members: Vec<SeenMember>,
}

/// A member, as its leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenMember {
    /// Its Raft id.
    pub id: u64,
    /// Its pod.
    pub name: String,
    /// Whether it votes.
    pub voter: bool,
    /// Whether it is heard from.
    pub reachable: bool,
    /// Whether it is at most [`LAG_MAX`] entries behind.
    pub caught_up: bool,
    /// The version of its program, if that is known.
    pub version: Option<String>,
}

impl SeenMember {
    /// It can take part in a decision now.
    #[must_use]
    pub fn healthy(&self) -> bool {
        self.reachable && self.caught_up
    }
}

impl Membership {
    /// Those that vote.
    pub fn voters(&self) -> impl Iterator<Item = &SeenMember> {
        self.members.iter().filter(|member| member.voter)
    }

    /// The member of this id.
    #[must_use]
    pub fn member(&self, id: u64) -> Option<&SeenMember> {
        self.members.iter().find(|member| member.id == id)
    }
}

impl Observed {
    /// The planner's view of what was read.
    #[must_use]
    pub fn new(names: &Names, read: &Read<'_>) -> Self {
        let answers: BTreeMap<&str, &ClusterAnswer> = read.answers.iter().copied().collect();
        let membership = membership(read.answers);
        let seen_pod = |pod: &Pod| {
            let name = pod.metadata.name.as_deref()?;
            Some((names.ordinal_of_pod(name)?, seen_pod(pod, answers.get(name).copied(), membership.as_ref())))
        };
        let pods = read.pods.iter().filter_map(seen_pod).collect();
        let claims = read.claims.iter().filter_map(|claim| {
            Some((names.ordinal_of_claim(claim.metadata.name.as_deref()?)?, seen_claim(claim, read.uid)))
        });
        let told = read.answers.iter().flat_map(|(_, answer)| &answer.members);
        let told = told.filter(|member| member.role == Role::Voter);
        let voter = |id, name: &str| Some((id, names.ordinal_of_pod(name)?));
        let voters = match &membership {
            Some(known) => known.voters().filter_map(|member| voter(member.id, &member.name)).collect(),
            None => told.filter_map(|member| voter(member.id.0, &member.name)).collect(),
        };
        Self {
            replicas: read.stateful_set.map(|set| {
                // Kubernetes' own default.
                set.spec.replicas.map_or(1, |n| usize::try_from(n).unwrap_or(0))
            }),
            pods,
            claims: claims.collect(),
            founding: read.founding.map(founding),
            membership,
            voters,
            in_the_way: read.in_the_way.cloned(),
            refused: None,
            was_founded: read.was_founded,
            operation: read.operation.and_then(|operation| in_flight(names, operation)),
        }
    }

    /// The id of the cluster that the nodes say they belong to; the first, if they differ.
    #[must_use]
    pub fn cluster_id(&self) -> Option<&str> {
        self.pods.values().find_map(|pod| pod.node.as_ref()?.cluster.as_deref())
    }

    /// The numbers of the pods whose voters answer: they themselves, not another disk under their name, which elects
    /// nobody.
    pub fn answering_voters(&self) -> impl Iterator<Item = usize> {
        self.voters.iter().filter_map(|(id, ordinal)| {
            let node = self.pods.get(ordinal)?.node.as_ref()?;
            (node.id == *id).then_some(*ordinal)
        })
    }
}

fn seen_pod(pod: &Pod, answer: Option<&ClusterAnswer>, membership: Option<&Membership>) -> SeenPod {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    SeenPod {
        uid: pod.metadata.uid.clone().unwrap_or_default(),
        template: annotation(pod.metadata.annotations.as_ref(), TEMPLATE_ANNOTATION).unwrap_or_default(),
        ready: conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True"),
        terminating: pod.metadata.deletion_timestamp.is_some(),
        node: answer.map(|answer| SeenNode {
            id: answer.node.0,
            cluster: Some(answer.cluster_id.clone()).filter(|id| !id.is_empty()),
            // One that was invited and has nothing of the log yet knows of no member at all.
            retired: !answer.members.is_empty()
                && !answer.cluster_id.is_empty()
                && membership.is_some_and(|known| known.member(answer.node.0).is_none()),
        }),
    }
}

fn seen_claim(claim: &PersistentVolumeClaim, uid: &str) -> SeenClaim {
    let owners = claim.metadata.owner_references.as_deref().unwrap_or_default();
    SeenClaim {
        goes_along: owners.iter().any(|owner| owner.uid == uid),
        uid: claim.metadata.uid.clone().unwrap_or_default(),
        cluster: annotation(claim.metadata.annotations.as_ref(), CLUSTER_ID_ANNOTATION),
        terminating: claim.metadata.deletion_timestamp.is_some(),
    }
}

fn annotation(annotations: Option<&BTreeMap<String, String>>, key: &str) -> Option<String> {
    annotations?.get(key).filter(|value| !value.is_empty()).cloned()
}

fn founding(map: &ConfigMap) -> Founding {
    let text = |key| map.data.as_ref().and_then(|data| data.get(key));
    if let Some(cluster) = text(FOUNDING_ADOPTED_KEY) {
        return Founding::Adopted(cluster.clone());
    }
    let members: Option<BTreeMap<String, HexId>> =
        text(FOUNDING_MEMBERS_KEY).and_then(|text| serde_json::from_str(text).ok());
    match members {
        Some(members) if !members.is_empty() => {
            Founding::With(members.into_iter().map(|(pod, id)| (id.0, pod)).collect())
        }
        _ => Founding::Unreadable,
    }
}

/// The answer of the leader. Of two that call themselves leader the one of the higher term is.
pub fn leading<'a>(answers: impl IntoIterator<Item = &'a ClusterAnswer>) -> Option<&'a ClusterAnswer> {
    let leads = |answer: &&ClusterAnswer| answer.leader == Some(answer.node);
    answers.into_iter().filter(leads).max_by_key(|answer| answer.term)
}

/// Whether the member is at most [`LAG_MAX`] entries behind, as the leader says.
pub(super) fn is_caught_up(member: &MemberAnswer) -> bool {
    member.lag.is_some_and(|lag| lag <= LAG_MAX)
}

/// Only a leader knows who is reachable and how far they are.
fn membership(answers: &[(&str, &ClusterAnswer)]) -> Option<Membership> {
    let answer = leading(answers.iter().map(|(_, answer)| *answer))?;
    let members = answer.members.iter().map(|member| SeenMember {
        id: member.id.0,
        name: member.name.clone(),
        voter: member.role == Role::Voter,
        reachable: member.reachable,
        caught_up: is_caught_up(member),
        version: member.version.clone(),
    });
    Some(Membership { leader: answer.node.0, term: answer.term, members: members.collect() })
}

/// An operation on a pod whose name cannot be this cluster's is none of ours: it is forgotten, and what it was for shows
/// again.
fn in_flight(names: &Names, operation: &Operation) -> Option<InFlight> {
    let pod = || names.ordinal_of_pod(operation.pod.as_deref()?);
    Some(match operation.kind {
        OperationKind::Found => InFlight::Found,
        OperationKind::ScaleUp => InFlight::ScaleUp,
        OperationKind::ScaleDown => InFlight::ScaleDown(pod()?),
        OperationKind::ReplacePod => InFlight::ReplacePod(pod()?),
        OperationKind::ReclaimClaim => InFlight::ReclaimClaim(pod()?),
    })
}

#[cfg(test)]
mod tests;
