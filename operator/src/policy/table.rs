//! The policies that a cluster holds, and how they are made what they are to be: look, read what changed, push, and look
//! until every live member judges by it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt as _};
use hyper::StatusCode;
use quorate_crds::api::{ClusterAnswer, Fault, OwnerName, PolicySet, Role};
use quorate_limits::PolicyName;
use tokio::time::{Instant, sleep};

use super::desired::{Content, Desired, Held, Unknown, Unsupported, desired};
use super::metrics::PolicyMetrics;
use super::select::Candidate;
use super::status::Members;
use crate::limiter::{CallError, Failure, Limiters, Target};

/// How often a set is pushed within one pass: what is refused is taken out and the rest pushed again.
const PUSHES_MAX: usize = 4;
/// How long a push may take to reach every live member, before what was reached is told.
const SPREAD_WITHIN: Duration = Duration::from_millis(1500);
/// Between two looks meanwhile.
const SPREAD_PAUSE: Duration = Duration::from_millis(20);
/// The pod that answered last is asked first, and the others only when it has not answered for this long, which is more than
/// a node takes that waits for other nodes.
pub(super) const OTHERS_AFTER: Duration = Duration::from_millis(500);

/// One look at a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its id.
    pub cluster_id: String,
    /// The revision of its policies: the highest that a live member has applied.
    pub revision: u64,
    /// Its live members.
    pub members: Members,
    /// Their versions.
    pub versions: BTreeSet<String>,
    /// A pod that has applied that revision, or else the one that answered.
    pub best: Target,
}

/// What a cluster is asked to hold.
pub struct Order<'a> {
    /// Its id. Whoever answers for another cluster is not believed: addresses of pods go to other pods, and a set pushed to
    /// another cluster would take away all it has. `None` before the founding.
    pub cluster_id: Option<&'a str>,
    /// The policies that name it.
    pub candidates: &'a [Candidate],
    /// Policies of which it is not known what they want.
    pub unknown: &'a Unknown,
    /// Whether nothing may be changed.
    pub is_paused: bool,
    /// Where it is counted.
    pub metrics: &'a PolicyMetrics,
}

/// What came of a pass.
#[derive(Clone, Debug)]
pub struct Brought {
    /// The cluster's members as they were last seen; `None` when nobody could say.
    pub members: Option<Members>,
    /// What the cluster is to hold.
    pub desired: Desired,
    /// Why it does not hold that, when it does not.
    pub problem: Option<String>,
}

/// What is known of the policies a cluster holds.
#[derive(Debug, Default)]
pub struct Table {
    held: Option<Held>,
    unsupported: Unsupported,
    versions: BTreeSet<String>,
    /// The pod that answered last.
    answered: Option<Target>,
}

impl Table {
    /// What the cluster holds, as far as it is known.
    #[must_use]
    pub fn held(&self) -> Option<&Held> {
        self.held.as_ref()
    }

    /// The pod that answered last.
    #[cfg(test)]
    pub(crate) fn answered(&self) -> Option<&Target> {
        self.answered.as_ref()
    }

    /// Makes the cluster hold what it is to hold. It asks for nothing but its members when nothing changed, here or there.
    pub async fn bring(&mut self, limiters: &Limiters, pods: &[Target], order: &Order<'_>) -> Brought {
        let mut members = None;
        let mut problem = None;
        for _ in 0..PUSHES_MAX {
            problem = None;
            let begun = Instant::now();
            let (seen, held) = match self.look_and_read(limiters, pods, order.cluster_id).await {
                Ok(looked) => looked,
                Err(why) => {
                    problem = Some(why);
                    break;
                }
            };
            members = Some(seen.members.clone());
            let set = self.desired(order).set;
            if held.is(&set) {
                break;
            }
            if order.is_paused {
                problem = Some("spec.paused of the cluster is true, so nothing is changed".to_owned());
                break;
            }
            match self.push(limiters, &seen, held, &set).await {
                Pushed::Held => {
                    order.metrics.pushed("taken");
                    if let Some(reached) = self.spread(limiters, pods, order.cluster_id).await {
                        if self.held.as_ref().is_some_and(|held| reached.judging_by(held.revision) == reached.live()) {
                            order.metrics.spread(begun.elapsed());
                        }
                        members = Some(reached);
                    }
                    break;
                }
                // Somebody else changed policies meanwhile, or a part was refused.
                Pushed::Again(why) => {
                    order.metrics.pushed("again");
                    problem = Some(why);
                }
                Pushed::Failed(why) => {
                    order.metrics.pushed("failed");
                    problem = Some(why);
                    break;
                }
            }
        }
        Brought { members, desired: self.desired(order), problem }
    }

    fn desired(&self, order: &Order<'_>) -> Desired {
        let nothing = Held::default();
        desired(order.candidates, order.unknown, self.held.as_ref().unwrap_or(&nothing), &self.unsupported)
    }

    /// Looks at the cluster, and reads its policies if they changed since they were last known.
    async fn look_and_read(
        &mut self,
        limiters: &Limiters,
        pods: &[Target],
        cluster_id: Option<&str>,
    ) -> Result<(Seen, Held), String> {
        let seen = self.look(limiters, pods, cluster_id).await?;
        if self.versions != seen.versions {
            // Another version may know what this one did not.
            self.versions.clone_from(&seen.versions);
            self.unsupported.clear();
        }
        let held = match self.held.take() {
            Some(held) if (&held.cluster_id, held.revision) == (&seen.cluster_id, seen.revision) => held,
            _ => {
                let rows = limiters.policies(&seen.best).await.map_err(|error| error.to_string())?;
                Held::read(&seen.cluster_id, rows)
            }
        };
        self.held = Some(held.clone());
        Ok((seen, held))
    }

    async fn push(
        &mut self,
        limiters: &Limiters,
        seen: &Seen,
        held: Held,
        set: &BTreeMap<PolicyName, Content>,
    ) -> Pushed {
        let names: Vec<_> = set.keys().collect();
        let body = PolicySet {
            owner: Some(OwnerName::Operator),
            cluster_id: Some(seen.cluster_id.clone()),
            policies: set.iter().map(|(name, content)| content.resource(name)).collect(),
        };
        let error = match limiters.apply_policies(&seen.best, &body).await {
            Ok(changed) => {
                tracing::debug!(cluster = %seen.cluster_id, revision = changed.revision, policies = set.len(), "pushed");
                self.held = held.after(set, changed.revision);
                return match self.held {
                    Some(_) => Pushed::Held,
                    None => Pushed::Again("somebody else may have changed policies at the same time".to_owned()),
                };
            }
            Err(error) => error,
        };
        let refused = refused(&error, &names);
        let mut is_less_next = false;
        for (name, words) in &refused {
            // What is only kept cannot be left out without being lost: the set waits for nodes that take it.
            if let Some(Content::Known(policy)) = set.get(name) {
                self.unsupported.insert(name.clone(), (policy.clone(), words.clone()));
                is_less_next = true;
            }
        }
        if is_less_next {
            return Pushed::Again(error.to_string());
        }
        // It is not known what is held now.
        self.held = None;
        match &error.failure {
            Failure::Refused { status: StatusCode::CONFLICT, .. } => Pushed::Again(error.to_string()),
            _ => Pushed::Failed(error.to_string()),
        }
    }

    /// Waits until every live member judges by what is held, and says who does in the end.
    async fn spread(&mut self, limiters: &Limiters, pods: &[Target], cluster_id: Option<&str>) -> Option<Members> {
        let revision = self.held.as_ref()?.revision;
        let end = Instant::now() + SPREAD_WITHIN;
        let mut members = None;
        loop {
            if let Ok(seen) = self.look(limiters, pods, cluster_id).await {
                let all = seen.members.judging_by(revision) == seen.members.live();
                members = Some(seen.members);
                if all {
                    return members;
                }
            }
            if Instant::now() >= end {
                return members;
            }
            sleep(SPREAD_PAUSE).await;
        }
    }

    /// Asks pods; the first that knows this cluster's leader and a majority of its voters is believed.
    async fn look(&mut self, limiters: &Limiters, pods: &[Target], cluster_id: Option<&str>) -> Result<Seen, String> {
        let cluster_id = cluster_id.ok_or("it is not founded yet")?;
        let first = self.answered.take().filter(|first| pods.contains(first));
        let first = first.as_ref();
        let ask = |target| async move {
            if first.is_some_and(|first| first != target) {
                sleep(OTHERS_AFTER).await;
            }
            (target, limiters.cluster(target).await)
        };
        let mut answers: FuturesUnordered<_> = pods.iter().map(ask).collect();
        let mut problem = "no pod has an address yet".to_owned();
        while let Some((target, answer)) = answers.next().await {
            let answer = answer.map_err(|error| error.to_string());
            match answer.and_then(|answer| seen(cluster_id, target, pods, &answer)) {
                Ok(seen) => {
                    self.answered = Some(target.clone());
                    return Ok(seen);
                }
                Err(why) => problem = why,
            }
        }
        Err(problem)
    }
}

enum Pushed {
    Held,
    Again(String),
    Failed(String),
}

/// The policies that a node found fault with, and its words about each.
fn refused(error: &CallError, names: &[&PolicyName]) -> BTreeMap<PolicyName, String> {
    let Failure::Refused { status: StatusCode::BAD_REQUEST, faults, .. } = &error.failure else {
        return BTreeMap::new();
    };
    let mut refused: BTreeMap<PolicyName, String> = BTreeMap::new();
    for fault in faults {
        let Some((index, path)) = in_policy(fault) else { continue };
        let Some(name) = names.get(index) else { continue };
        let words = if path.is_empty() { fault.message.clone() } else { format!("{path}: {}", fault.message) };
        let said = refused.entry((*name).clone()).or_default();
        if !said.is_empty() {
            said.push_str("; ");
        }
        said.push_str(&words);
    }
    refused
}

/// `policies[3].spec.domain` is the field `spec.domain` of the policy 3.
fn in_policy(fault: &Fault) -> Option<(usize, &str)> {
    let (index, path) = fault.path.strip_prefix("policies[")?.split_once(']')?;
    Some((index.parse().ok()?, path.trim_start_matches('.')))
}

fn seen(cluster_id: &str, target: &Target, pods: &[Target], answer: &ClusterAnswer) -> Result<Seen, String> {
    if answer.cluster_id.is_empty() {
        return Err(format!("{} is in no cluster yet", target.pod));
    }
    if answer.cluster_id != cluster_id || !target.gave(answer) {
        return Err(format!("{} answers for another cluster or pod", target.pod));
    }
    if answer.leader.is_none() {
        return Err(format!("{} knows no leader", target.pod));
    }
    let live: Vec<_> = answer.members.iter().filter(|member| member.reachable).collect();
    let count = |voters: &mut dyn Iterator<Item = Role>| voters.filter(|role| *role == Role::Voter).count();
    let voters = count(&mut answer.members.iter().map(|member| member.role));
    if 2 * count(&mut live.iter().map(|member| member.role)) <= voters {
        return Err(format!("{} reaches no majority of the voters", target.pod));
    }
    let revision = live.iter().filter_map(|member| member.applied_revision).max().unwrap_or(answer.revision);
    let furthest = live.iter().filter(|member| member.applied_revision == Some(revision));
    let best = furthest.filter_map(|member| pods.iter().find(|pod| pod.pod == member.name));
    let best = if answer.revision == revision { Some(target) } else { best.into_iter().next() };
    Ok(Seen {
        cluster_id: answer.cluster_id.clone(),
        revision,
        members: Members(live.iter().map(|member| member.applied_revision.unwrap_or(0)).collect()),
        versions: live.iter().filter_map(|member| member.version.clone()).collect(),
        best: best.unwrap_or(target).clone(),
    })
}

#[cfg(test)]
mod tests;
