//! Keeps one cluster's policies: a pass whenever something changed, and one every few seconds to see whether somebody else
//! did.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use quorate_crds::cluster_status::PoliciesStatus;
use quorate_crds::quota_policy::{Enforcement, KIND};
use quorate_crds::{QuotaPolicyStatus, RateLimitCluster};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::denied::Denied;
use super::desired::{Content, Held, HeldRow, Unknown, Unsupported, desired};
use super::select::{Candidate, ClusterKey, name_of, select};
use super::status::{Members, Standing, due, tell};
use super::table::{Brought, Order, Table};
use super::world::World;
use super::writer::{Write, Writer, version_of, write_cluster};
use crate::context::Context;

/// Between two passes when nothing happens: within it a change by somebody else is put right.
const STEADY: Duration = Duration::from_secs(5);
/// Before the next pass when something is not yet as it should be, growing to [`STEADY`].
const AGAIN: Duration = Duration::from_millis(250);
/// Changes that come together are pushed together: a pass waits until none came for this long,
const QUIET: Duration = Duration::from_millis(30);
/// but no longer than this.
const GATHER_MAX: Duration = Duration::from_millis(200);
/// Members that came or went are told of after this long.
const SETTLED: Duration = Duration::from_secs(30);
/// Between two writes of the cluster's status while policies change.
const TELL_CLUSTER: Duration = Duration::from_secs(2);
/// So many statuses are written before it is looked whether something more urgent came.
const WRITES_IN_A_ROW: usize = 128;

/// Keeps one cluster.
pub struct Keeper {
    key: ClusterKey,
    context: Context,
    world: Arc<World>,
    table: Table,
    denied: Denied,
    writer: Writer,
    /// The live members and how many judge by everything, and since when it is so.
    standing: (Option<(usize, usize)>, Instant),
    /// What was last told in the cluster's status, the version it then had, and when that was.
    told: Option<(PoliciesStatus, u64, Instant)>,
}

impl Keeper {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(key: ClusterKey, context: Context, world: Arc<World>) -> Self {
        let standing = (None, Instant::now());
        let (table, denied, writer) = (Table::default(), Denied::default(), Writer::default());
        Self { key, context, world, table, denied, writer, standing, told: None }
    }

    /// Runs until whoever wakes it lets go of it.
    pub async fn run(mut self, mut woken: watch::Receiver<()>) {
        let mut pause = AGAIN;
        loop {
            woken.mark_unchanged();
            let begun = Instant::now();
            let is_done = self.pass(&woken).await;
            self.context.metrics.reconciled("policy", begun.elapsed());
            pause = if is_done { AGAIN } else { (2 * pause).min(STEADY) };
            match timeout(if is_done { STEADY } else { pause }, woken.changed()).await {
                Ok(Ok(())) => gather(&mut woken).await,
                Ok(Err(_)) => break,
                Err(_) => {}
            }
        }
        self.context.metrics.forget(KIND, self.key.to_string());
    }

    /// Looks at everything once. Whether all is as it should be.
    async fn pass(&mut self, woken: &watch::Receiver<()>) -> bool {
        let cluster = self.world.cluster(&self.key);
        let cluster = match cluster.as_deref().map(|guarded| guarded.0.as_ref()).transpose() {
            Ok(cluster) => cluster,
            Err(error) => {
                tracing::warn!(cluster = %self.key, "its RateLimitCluster cannot be read, so its policies are left alone: {error}");
                self.context.metrics.failed("policy", "Unreadable");
                return false;
            }
        };
        if cluster.is_none() && self.world.may_have_cluster(&self.key) {
            tracing::debug!(cluster = %self.key, "its namespace cannot be listed, so its policies are left alone");
            return false;
        }
        let candidates = select(&self.key, cluster, self.world.policies_of(&self.key));
        self.writer.settle(candidates.iter().map(|candidate| &*candidate.resource));
        let cluster = cluster.filter(|cluster| cluster.metadata.deletion_timestamp.is_none());
        let brought = if let Some(cluster) = cluster {
            self.bring(&candidates, cluster).await
        } else {
            self.table = Table::default();
            let desired = desired(&candidates, &Unknown::default(), &Held::default(), &Unsupported::new());
            Brought { members: None, desired, problem: None }
        };
        self.note_members(brought.members.as_ref());
        let is_told = self.write(&candidates, &brought, woken).await;
        self.show(&candidates);
        if let Some(cluster) = cluster.filter(|_| brought.members.is_some()) {
            self.write_cluster(cluster, self.count(&candidates, &brought), is_told).await;
        }
        is_told && (brought.problem.is_none() || candidates.is_empty())
    }

    async fn bring(&mut self, candidates: &[Candidate], cluster: &RateLimitCluster) -> Brought {
        let pods = self.world.pods(&self.key);
        let unknown = self.world.unknown();
        let order = Order {
            cluster_id: cluster.status.as_ref().and_then(|status| status.cluster_id.as_deref()),
            candidates,
            unknown: &unknown,
            is_paused: cluster.spec.paused,
            metrics: self.context.metrics.policies(),
        };
        let brought = self.table.bring(&self.context.limiters, &pods, &order).await;
        if let Some(problem) = brought.problem.as_ref().filter(|_| !candidates.is_empty()) {
            tracing::info!(cluster = %self.key, "its policies are not as they should be: {problem}");
        }
        if !candidates.is_empty() && brought.members.is_some() {
            self.denied.refresh(&self.context.limiters, &pods).await;
        }
        brought
    }

    fn note_members(&mut self, members: Option<&Members>) {
        let revision = self.table.held().map_or(0, |held| held.revision);
        let now = members.map(|members| (members.live(), members.judging_by(revision)));
        if self.standing.0 != now {
            self.standing = (now, Instant::now());
        }
    }

    /// Writes what is new. Whether everything there is to tell was told, and every policy is in force that is to be.
    async fn write(&mut self, candidates: &[Candidate], brought: &Brought, woken: &watch::Receiver<()>) -> bool {
        let now = Time(Timestamp::now());
        let is_settled = self.standing.1.elapsed() >= SETTLED;
        let mut writes = Vec::new();
        let mut is_done = true;
        for candidate in candidates {
            let name = name_of(&candidate.resource);
            let current = self.writer.current(&candidate.resource);
            let standing = self.stands(candidate, brought);
            match &standing {
                Standing::Refused { .. } => {}
                Standing::NotSent { .. } => {
                    is_done = false;
                    // That nobody answers says nothing about what was in force when somebody did.
                    if is_accepted(current, candidate.resource.metadata.generation) {
                        continue;
                    }
                }
                Standing::Held { revision, members } => {
                    is_done &= members.is_some_and(|members| members.judging_by(*revision) == members.live());
                }
            }
            let mut told = tell(&candidate.resource, current, &self.key, &standing, self.denied.of(&name), &now);
            if let Some(status) = due(current, told.status, is_settled) {
                told.status = status;
                writes.push(Write { policy: Arc::clone(&candidate.resource), told });
            }
        }
        let mut writes = writes.into_iter().peekable();
        while writes.peek().is_some() {
            let some = writes.by_ref().take(WRITES_IN_A_ROW).collect();
            is_done &= self.writer.write(&self.context, some).await == 0;
            if woken.has_changed().unwrap_or(true) {
                return false;
            }
        }
        is_done
    }

    /// Counts what is told of the policies, whoever wrote it.
    fn show(&self, candidates: &[Candidate]) {
        let statuses = candidates.iter().filter_map(|candidate| self.writer.current(&candidate.resource));
        let conditions = statuses.flat_map(|status| &status.conditions);
        self.context.metrics.set_conditions(KIND, self.key.to_string(), conditions);
    }

    /// Tells of all policies in the cluster's status; while they still change, only now and then.
    async fn write_cluster(&mut self, cluster: &RateLimitCluster, now: PoliciesStatus, is_steady: bool) {
        let shown = cluster.status.as_ref().and_then(|status| status.policies.as_ref());
        let (current, is_due) = match &self.told {
            Some((told, version, at)) => {
                let is_back = version_of(&cluster.metadata) >= *version;
                (if is_back { shown } else { Some(told) }, at.elapsed() >= TELL_CLUSTER)
            }
            None => (shown, true),
        };
        if current == Some(&now) || !(is_steady || is_due) {
            return;
        }
        match write_cluster(&self.context, cluster, &now).await {
            Ok(version) => self.told = Some((now, version, Instant::now())),
            Err(error) if matches!(error.label(), "NotFound" | "Conflict") => {}
            Err(error) => {
                self.context.metrics.failed("policy", error.label());
                tracing::warn!("{error}");
            }
        }
    }

    /// Policies that every live member judges by, of those that are to be; those switched off are left out.
    fn count(&self, candidates: &[Candidate], brought: &Brought) -> PoliciesStatus {
        let on = candidates.iter().filter(|candidate| candidate.resource.spec.enforcement != Enforcement::Disabled);
        let (mut enforced, mut all) = (0, 0);
        for candidate in on {
            all += 1;
            if let Standing::Held { revision, members: Some(members) } = self.stands(candidate, brought)
                && members.judging_by(revision) == members.live()
            {
                enforced += 1;
            }
        }
        let revision = self.table.held().map_or(0, |held| held.revision);
        PoliciesStatus {
            enforced: Some(format!("{enforced}/{all}")),
            revision: i64::try_from(revision).unwrap_or(i64::MAX),
        }
    }

    fn stands<'a>(&self, candidate: &Candidate, brought: &'a Brought) -> Standing<'a> {
        let name = name_of(&candidate.resource);
        let row = self.table.held().and_then(|held| held.ours(&name));
        if let Some(refusal) = brought.desired.refused.get(&name) {
            return Standing::Refused { refusal, is_kept: row.is_some() };
        }
        match (row, &candidate.policy) {
            (Some(HeldRow { revision, content: Content::Known(held), .. }), Ok(policy)) if held == policy => {
                Standing::Held { revision: *revision, members: brought.members.as_ref() }
            }
            _ => Standing::NotSent { why: brought.problem.as_deref().unwrap_or("it comes with the next push") },
        }
    }
}

/// Waits until no more changes come at once.
async fn gather(woken: &mut watch::Receiver<()>) {
    let end = sleep(GATHER_MAX);
    tokio::pin!(end);
    loop {
        woken.mark_unchanged();
        tokio::select! {
            () = &mut end => return,
            changed = timeout(QUIET, woken.changed()) => if !matches!(changed, Ok(Ok(()))) { return },
        }
    }
}

fn is_accepted(status: Option<&QuotaPolicyStatus>, generation: Option<i64>) -> bool {
    status.is_some_and(|status| {
        status.observed_generation == generation
            && status.conditions.iter().any(|c| c.type_ == "Accepted" && c.status == "True")
    })
}

#[cfg(test)]
mod tests;
