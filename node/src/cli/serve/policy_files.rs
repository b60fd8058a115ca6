//! Policies from a folder: checked at the start and on SIGHUP, read again when they are proposed, which is when they differ
//! from what is in force.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use quorate_crds::{FileError, read_directory};
use quorate_limits::{Owner, Policy, PolicyChange, PolicyOutcome, Rules};
use tokio::task::JoinHandle;

use crate::doors::http::CHANGE_DEADLINE;
use crate::doors::http::conflict_text;
use crate::node::Node;
use crate::platform::Tokio;

/// Between two proposals of the same policies.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Between two looks whether the node is ready. Short, since until the proposal the files' limits do not hold.
const READY_PAUSE: Duration = Duration::from_millis(20);

/// The folder named by `POLICIES`.
#[derive(Clone)]
pub(super) struct PolicyFiles {
    dir: PathBuf,
}

impl PolicyFiles {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// All policies of the folder, or everything that is wrong with them.
    pub(super) fn read(&self) -> Result<Vec<Policy>, Vec<FileError>> {
        read_directory(&self.dir)
    }
}

/// A proposal under way; dropped, it is given up.
pub(super) struct Proposal(JoinHandle<()>);

impl Drop for Proposal {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Proposes the folder's policies until the cluster has taken or refused them.
pub(super) fn propose(node: Arc<Node<Tokio>>, files: PolicyFiles) -> Proposal {
    Proposal(tokio::spawn(async move {
        // Before that its own rules may be older than those in force.
        while node.ready().is_err() {
            tokio::time::sleep(READY_PAUSE).await;
        }
        loop {
            // As they are by now: other nodes may have proposed what changed since, and must not lose it again.
            match files.read() {
                Ok(policies) if try_propose(&node, &policies).await => return,
                Ok(_) => tokio::time::sleep(RETRY_PAUSE).await,
                Err(errors) => return refuse(errors),
            }
        }
    }))
}

/// Says what is wrong with the files.
pub(super) fn refuse(errors: Vec<FileError>) {
    for error in errors {
        tracing::error!("policies are left as they were: {error}");
    }
}

/// Whether the matter is settled.
async fn try_propose(node: &Node<Tokio>, policies: &[Policy]) -> bool {
    if !differ(&node.rules(), policies) {
        tracing::info!(policies = policies.len(), "the policies in force are those of the files");
        return true;
    }
    let change = PolicyChange::ReplaceAll(Owner::Files, policies.to_vec());
    match node.change_policies(change, CHANGE_DEADLINE).await {
        Ok(PolicyOutcome::Applied { revision }) => {
            tracing::info!(policies = policies.len(), revision, "the policies of the files are in force");
            true
        }
        Ok(PolicyOutcome::Conflict(conflict)) => {
            tracing::error!("the policies of the files were refused: {}", conflict_text(&conflict));
            true
        }
        Err(unavailable) => {
            tracing::warn!("the policies of the files are not in force yet: {}", unavailable.reason);
            false
        }
    }
}

/// Whether the files' policies in force are others than these.
fn differ(rules: &Rules, policies: &[Policy]) -> bool {
    let wanted: BTreeMap<_, _> = policies.iter().map(|policy| (&policy.name, policy)).collect();
    let in_force = rules.policies().filter(|(_, owner, ..)| *owner == Owner::Files);
    let in_force: BTreeMap<_, _> = in_force.map(|(_, _, _, policy)| (&policy.name, policy)).collect();
    wanted != in_force
}

#[cfg(test)]
mod tests {
    use quorate_limits::{Batch, Command, Part, Run, SessionId, Settings, StateMachine};

    use super::*;
    use crate::config::DefaultLimit;

    fn policy(name: &str, limit: u64) -> Policy {
        let mut policy = DefaultLimit { limit, window: Duration::from_mins(1) }.policy();
        name.clone_into(&mut policy.name.name);
        policy
    }

    fn rules(changes: Vec<PolicyChange>) -> Arc<Rules> {
        let mut machine = StateMachine::new(Settings { secret: [0; 16], counters_max: 1000 });
        let session = SessionId(1);
        let commands = Arc::new(changes.into_iter().map(Command::ChangePolicies).collect());
        let parts = vec![
            Part::OpenSession { node: 1, run: Run { boot: 1, name: 1 }, session },
            Part::Commands { session, sequence: 1, commands },
        ];
        machine.apply(&Batch { parts, ..Batch::default() });
        machine.rules()
    }

    #[test]
    fn only_a_difference_in_the_files_own_policies_is_proposed() {
        let in_force = rules(vec![
            PolicyChange::Put(Owner::Files, vec![policy("a", 1), policy("b", 2)]),
            PolicyChange::Put(Owner::Api, vec![policy("c", 3)]),
        ]);
        assert!(!differ(&in_force, &[policy("b", 2), policy("a", 1)]));
        assert!(differ(&in_force, &[policy("a", 1)]));
        assert!(differ(&in_force, &[policy("a", 1), policy("b", 3)]));
        assert!(differ(&in_force, &[policy("a", 1), policy("b", 2), policy("c", 3)]));
        assert!(differ(&in_force, &[]));
    }
}
