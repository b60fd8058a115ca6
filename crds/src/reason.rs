//! The one vocabulary of conditions, Events and metrics: why something is as it is, and what to do about it.
//! `docs/operations.md` is printed from here.

use std::fmt;

/// The types of the conditions of both resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionType {
    /// `RateLimitCluster`: it decides.
    Ready,
    /// `RateLimitCluster`: an operation is in flight.
    Progressing,
    /// `RateLimitCluster`: something is wrong that may need a person.
    Degraded,
    /// `RateLimitCluster`: a majority of the voters is there.
    QuorumHealthy,
    /// `RateLimitCluster`: a change of version would be begun.
    Upgradeable,
    /// `QuotaPolicy`: the cluster takes it.
    Accepted,
    /// `QuotaPolicy`: every node judges by it.
    Enforced,
}

impl ConditionType {
    /// All of them, those of `RateLimitCluster` first.
    pub const ALL: [Self; 7] = [
        Self::Ready,
        Self::Progressing,
        Self::Degraded,
        Self::QuorumHealthy,
        Self::Upgradeable,
        Self::Accepted,
        Self::Enforced,
    ];

    /// As it is written in `status.conditions[].type`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Progressing => "Progressing",
            Self::Degraded => "Degraded",
            Self::QuorumHealthy => "QuorumHealthy",
            Self::Upgradeable => "Upgradeable",
            Self::Accepted => "Accepted",
            Self::Enforced => "Enforced",
        }
    }

    /// What it tells while it is `True`.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Ready => "The cluster has a leader, the leader has its quorum, and pods serve.",
            Self::Progressing => "The operator is in the middle of an operation, or waits to go on with one.",
            Self::Degraded => {
                "Something is not as it should be; the reason says what. The cluster may serve all the same."
            }
            Self::QuorumHealthy => "A majority of the voters is reachable and caught up, as the leader sees it.",
            Self::Upgradeable => "A new `spec.version` would be rolled out at once.",
            Self::Accepted => "The cluster exists, admits the policy's namespace, and understands the policy.",
            Self::Enforced => "Every live member judges by this generation of the policy.",
        }
    }
}

impl fmt::Display for ConditionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a condition says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the three statuses of a metav1.Condition")]
pub enum ConditionStatus {
    True,
    False,
    Unknown,
}

impl ConditionStatus {
    /// As it is written in `status.conditions[].status`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

macro_rules! reasons {
    ($($name:ident [$($condition:ident = $status:ident),+]: $meaning:literal, $remedy:literal;)+) => {
        /// Why something is as it is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $(#[doc = $meaning] $name,)+
        }

        impl Reason {
            /// All of them, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// As it is written in conditions, Events and labels.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)+ }
            }

            /// What is so, in one line.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning,)+ }
            }

            /// What to do, in one line.
            #[must_use]
            pub fn remedy(self) -> &'static str {
                match self { $(Self::$name => $remedy,)+ }
            }

            /// The conditions that may bear it, each with the status it then has.
            #[must_use]
            pub fn conditions(self) -> &'static [(ConditionType, ConditionStatus)] {
                match self {
                    $(Self::$name => &[$((ConditionType::$condition, ConditionStatus::$status),)+],)+
                }
            }
        }
    };
}

reasons! {
    // RateLimitCluster: as it should be
    Serving [Ready = True]:
        "The cluster decides.",
        "Nothing.";
    QuorumMet [QuorumHealthy = True]:
        "A majority of the voters is reachable and caught up.",
        "Nothing.";
    Steady [Progressing = False]:
        "The cluster is as its spec says; nothing is in flight.",
        "Nothing.";
    AsWanted [Degraded = False]:
        "Every voter is healthy.",
        "Nothing.";
    SameVersion [Upgradeable = True]:
        "Every member runs the same version and is healthy.",
        "Nothing.";

    // RateLimitCluster: on its way
    Founding [Ready = False, Progressing = True, QuorumHealthy = False, Upgradeable = False]:
        "The pods start, and the cluster is founded once all of them are up and empty.",
        "Wait. If it lasts, look at the pod that `status.operation.waitsFor` names: `kubectl describe pod`.";
    ScalingUp [Progressing = True, Upgradeable = False]:
        "New pods start; each joins as a learner and votes once it has caught up.",
        "Wait.";
    ScalingDown [Progressing = True, Upgradeable = False]:
        "The pod with the highest number drains and ends, then its member leaves, then its claim goes.",
        "Wait.";
    RollingOut [Progressing = True, Upgradeable = False]:
        "Pods are replaced one at a time, the sick first, the leader last.",
        "Wait.";
    ReclaimingStorage [Progressing = True]:
        "Claims of members that left are deleted, as `storage.retention` says.",
        "Wait.";
    Tidying [Progressing = True]:
        "Notes are made on claims, or a member that will not come back is taken out; it takes seconds.",
        "Wait.";
    WaitingForPods [Ready = False, Progressing = True]:
        "Pods are not up yet.",
        "`kubectl describe pod` says why: often the image cannot be pulled, no node has room, or a volume is not bound.";
    WaitingForMembers [Progressing = True]:
        "A pod is up, but its node has not joined or not caught up yet.",
        "Wait. If it lasts, read the pod's log; `not in a cluster yet: …` gives its reason.";
    WaitingForQuorum [Progressing = True]:
        "The next step would leave fewer healthy voters than a majority, so it waits.",
        "Bring the members back that `status.members` shows as unreachable or lagging.";
    Paused [Progressing = False, Upgradeable = False]:
        "`spec.paused` is true: the operator watches and changes nothing.",
        "Set `spec.paused` to false.";
    Deleting [Ready = False, Progressing = True, Upgradeable = False]:
        "The cluster is being deleted.",
        "Wait.";
    WaitingForPerson [Progressing = True, Upgradeable = False]:
        "`spec.rollout.strategy` is `Manual` and pods still run what they were made with.",
        "Delete the pods that `status.nextSteps` names, one at a time, in that order.";

    // RateLimitCluster: not as it should be
    NoLeader [Ready = False, QuorumHealthy = False, Progressing = True, Degraded = True, Upgradeable = False]:
        "No node knows a leader; requests are answered as unavailable until there is one.",
        "An election takes about a second. If it lasts: see QuorumLost.";
    QuorumLost [Ready = False, QuorumHealthy = False, Degraded = True, Upgradeable = False]:
        "Fewer voters than a majority are reachable; nothing can be decided, and nothing is lost.",
        "Bring the voters' pods and nodes back with their volumes. The operator makes no change that could harm them.";
    Unreachable [Ready = Unknown, QuorumHealthy = Unknown, Degraded = Unknown, Upgradeable = Unknown]:
        "No pod answers the operator, which says nothing about whether they serve.",
        "Check the network between the operator and the pods, and NetworkPolicies.";
    MemberUnhealthy [Degraded = True, Upgradeable = False]:
        "A member is unreachable or lags behind; the cluster stands fewer further losses than it should.",
        "`status.members` names it; look at its pod and its node.";
    DiskLost [Degraded = True, Upgradeable = False]:
        "A pod came back with an empty disk; the leader swaps the old member for the new one.",
        "Wait. A disk is swapped after `recovery.replaceLostDiskAfter`; one an hour, unless its claim was deleted.";
    RolloutStalled [Degraded = True]:
        "An operation took longer than `rollout.progressDeadline`.",
        "See `status.operation` and `status.nextSteps`. Putting the old spec back is safe: pods that never got ready are replaced first.";
    ForeignClaims [Ready = False, Progressing = False, Degraded = True, Upgradeable = False]:
        "The claims hold the data of more than one cluster; nothing is touched.",
        "Delete the claims whose data is not needed (annotation quorate.dev/cluster-id), or use another name.";
    FounderLost [Ready = False, QuorumHealthy = False, Progressing = True, Degraded = True, Upgradeable = False]:
        "The disks that the cluster was on are not there any more, and no node has its data.",
        "There is nothing left to save: delete the cluster with its claims, and its ConfigMap `NAME-founding` if that stays; create it again.";
    NotOurs [Ready = False, Progressing = False, Degraded = True, Upgradeable = False]:
        "An object that is not this cluster's has a name that the cluster needs; the operator leaves it, and all else, as it is.",
        "Delete the object that the message names, or use another name for the cluster; docs/operator.md says how to keep what an orphaned cluster left.";
    Refused [Progressing = True, Degraded = True, Upgradeable = False]:
        "The API server refuses what the operator asks of it, or has not managed it for half a minute; it is tried again and again.",
        "The message has the API server's words: mend the spec, a quota, a webhook or the operator's rights.";
    InvalidSpec [Progressing = False, Degraded = True, Upgradeable = False]:
        "The spec breaks a rule that the API server did not check.",
        "The message names the field and what to write.";

    // QuotaPolicy
    Valid [Accepted = True]:
        "The cluster takes the policy.",
        "Nothing.";
    Invalid [Accepted = False, Enforced = False]:
        "The policy breaks a rule that the API server did not check, or says something that this operator does not know.",
        "The message says what and where. If it is right for a newer version, upgrade the operator.";
    ClusterNotFound [Accepted = False, Enforced = False]:
        "There is no `RateLimitCluster` of that name there.",
        "Mend `spec.clusterRef`, or create the cluster.";
    ClusterDeleted [Accepted = False, Enforced = False]:
        "The `RateLimitCluster` that judged by it was deleted.",
        "Mend `spec.clusterRef`, create the cluster again, or delete the policy.";
    NamespaceNotAllowed [Accepted = False, Enforced = False]:
        "The cluster does not admit policies of this namespace.",
        "Add the namespace to the cluster's `spec.allowedNamespaces`, or use a cluster of the own namespace.";
    Unsupported [Accepted = False, Enforced = False]:
        "The cluster's version does not know something that the policy uses.",
        "Raise the cluster's `spec.version`, or leave that out.";
    OwnedElsewhere [Accepted = False, Enforced = False]:
        "The cluster has a policy of this name from files or from the API, and each policy has one owner.",
        "Delete it there, or name this one differently.";
    TooMany [Accepted = False, Enforced = False]:
        "The cluster holds as many policies as it can; those that came first are in force.",
        "Delete policies that are not needed, make one policy with overrides of several, or use another cluster.";
    OnEveryMember [Enforced = True]:
        "Every live member has applied this generation of the policy.",
        "Nothing.";
    Spreading [Enforced = False]:
        "The policy is committed, and not every live member has applied it yet.",
        "Wait. `ENFORCED` counts the members that have.";
    NotSent [Accepted = Unknown, Enforced = False]:
        "The cluster has not taken this generation of the policy yet; the one before it, if any, is in force.",
        "Wait. If it lasts, see the cluster's conditions.";
    Disabled [Enforced = False]:
        "`spec.enforcement` is `Disabled`, so the policy takes no part.",
        "Set `spec.enforcement` to `Enforce` or `Shadow`.";
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_reads_as_one_line_and_fits_a_condition() {
        for reason in Reason::ALL {
            let name = reason.as_str();
            assert!(name.len() <= 64 && name.chars().all(|c| c.is_ascii_alphabetic()), "{name}");
            for line in [reason.meaning(), reason.remedy()] {
                assert!(line.ends_with('.') && !line.contains(['\n', '|']), "{name}: {line}");
            }
            assert!(!reason.conditions().is_empty(), "{name}");
        }
    }

    #[test]
    fn every_condition_has_a_reason_to_be_true_and_one_not_to_be() {
        for condition in ConditionType::ALL {
            for status in [ConditionStatus::True, ConditionStatus::False] {
                assert!(
                    Reason::ALL.iter().any(|reason| reason.conditions().contains(&(condition, status))),
                    "{condition}={status:?}"
                );
            }
        }
    }
}
