//! The Kubernetes that the scenarios run on.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, PersistentVolume, Pod};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::objects::{cluster, policy};
use super::rights::{NAMESPACE, OPERATOR, Rights};
use super::space::Space;
use crate::cluster::eventually;
use crate::readme;
use crate::sync::lock;

/// How long things may take that take seconds on a machine of two cores which does nothing else.
pub const PATIENCE: Duration = Duration::from_mins(2);
/// Volumes that are on offer on each node when a scenario begins.
const VOLUMES: usize = 3;
/// The heading of the README's page below which the operator is installed.
pub const INSTALL: &str = "## Install on Kubernetes";

/// Gives the operator the settings that follow, and none of those it had.
pub const HELM_UPGRADE: &str =
    "helm upgrade quorate helm/quorate --namespace quorate-system --reset-values --wait --timeout 2m";

/// The cluster of machines that `tests/kubernetes/up` has started, or somebody else's.
pub struct Lab {
    /// For objects.
    pub client: Client,
    /// Whether it is the one of machines: its nodes can be broken, its volumes are made here, its audit log is read.
    pub is_own: bool,
    repository: PathBuf,
    /// The namespaces that the scenario under way has made.
    spaces: Mutex<Vec<String>>,
    rights: Mutex<Rights>,
}

impl Lab {
    /// The cluster that `KUBECONFIG` names.
    ///
    /// # Panics
    /// There is none.
    pub async fn connect() -> Self {
        let hint = "run the scenarios by tests/kubernetes/scenarios";
        // Nobody else's record of the operator's requests can be read.
        let run = std::env::var_os("QUORATE_KUBERNETES_RUN").map(PathBuf::from);
        let is_own = run.is_some();
        let audit = run.map_or_else(|| "/dev/null".into(), |run| run.join("control/log/audit.log"));
        let client = Client::try_default().await.unwrap_or_else(|error| panic!("{error}; {hint}"));
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace");
        let lab = Self {
            client,
            is_own,
            repository: repository.to_owned(),
            spaces: Mutex::default(),
            rights: Mutex::new(Rights::new(audit)),
        };
        // Of an earlier run.
        lab.forgive();
        lab
    }

    /// A command as a person types it at the top of the repository: what it printed, and on failure also why.
    ///
    /// # Errors
    /// It failed.
    pub fn type_in(&self, command: &str) -> Result<String, String> {
        self.run(Command::new("bash").args(["-euo", "pipefail", "-c", command]), "")
    }

    /// `kubectl` with these words, which have no spaces in them.
    ///
    /// # Panics
    /// It failed.
    pub fn kubectl(&self, words: &str) -> String {
        self.run(Command::new("kubectl").args(words.split_whitespace()), "").unwrap_or_else(|error| panic!("{error}"))
    }

    /// `kubectl` with these words and this standard input.
    ///
    /// # Errors
    /// It failed.
    pub fn try_kubectl(&self, words: &str, input: &str) -> Result<String, String> {
        self.run(Command::new("kubectl").args(words.split_whitespace()), input)
    }

    /// `kubectl apply --server-side` of this YAML.
    ///
    /// # Panics
    /// It is refused.
    pub fn apply(&self, yaml: &str) {
        self.try_kubectl("apply --server-side --filename -", yaml).unwrap_or_else(|error| panic!("{yaml}: {error}"));
    }

    /// A command of `tests/kubernetes`: `node cut node2`, `kill-pod NAMESPACE POD`.
    ///
    /// # Panics
    /// It failed.
    pub fn machine(&self, words: &str) -> String {
        let mut words = words.split_whitespace();
        let program = self.repository.join("tests/kubernetes").join(words.next().expect("a command"));
        self.run(Command::new(program).args(words), "").unwrap_or_else(|error| panic!("{error}"))
    }

    fn run(&self, command: &mut Command, input: &str) -> Result<String, String> {
        command.current_dir(&self.repository).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("{command:?}: {error}"))?;
        // A command that does not read its input may end before it is written.
        let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
        let output = child.wait_with_output().map_err(|error| format!("{command:?}: {error}"))?;
        let [said, errors] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        if output.status.success() { Ok(said) } else { Err(format!("{command:?} failed: {said}{errors}")) }
    }

    /// The file of the repository at this path.
    #[must_use]
    pub fn file(&self, path: &str) -> PathBuf {
        self.repository.join(path)
    }

    /// A namespace of the scenario's own, where pod security is `restricted`. It goes when the scenario has ended.
    ///
    /// # Panics
    /// It cannot be made.
    pub async fn space(&self, name: &str) -> Space<'_> {
        let namespaces = Api::<Namespace>::all(self.client.clone());
        // One of this name may still be on its way out.
        eventually(PATIENCE, "the namespace of an earlier run to be gone", async || {
            match namespaces.get_opt(name).await {
                Ok(Some(there)) if there.metadata.deletion_timestamp.is_some() => Err(name.to_owned()),
                Ok(_) => Ok(()),
                Err(error) => Err(error.to_string()),
            }
        })
        .await;
        let namespace = json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": name, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
        });
        let made = namespaces.patch(name, &PatchParams::apply("quorate-tests").force(), &Patch::Apply(namespace)).await;
        made.unwrap_or_else(|error| panic!("namespace {name}: {error}"));
        self.adopt(name);
        Space::new(self, name)
    }

    /// Has a namespace deleted, too, when the scenario has ended.
    pub fn adopt(&self, name: &str) {
        lock(&self.spaces).push(name.to_owned());
    }

    /// The operator as the README installs it, unless it is there just so.
    ///
    /// # Panics
    /// It does not become ready.
    pub async fn install_operator(&self) {
        let deployments = Api::<Deployment>::namespaced(self.client.clone(), NAMESPACE);
        let there = deployments.get_opt(OPERATOR).await.expect("an answer");
        if there.as_ref().is_some_and(|deployment| deployment.spec.replicas == Some(0)) {
            // A scenario that failed has left none.
            self.kubectl(&format!("--namespace {NAMESPACE} scale deployment {OPERATOR} --replicas 1"));
        }
        if there.is_none() {
            let page = self.file("README.md");
            for command in readme::commands(&page, INSTALL).iter().filter(|command| command.starts_with("helm ")) {
                self.type_in(command).unwrap_or_else(|error| panic!("{error}"));
            }
        } else if self
            .type_in("helm get values quorate --namespace quorate-system --output json")
            .is_ok_and(|set| set.trim() != "null")
        {
            // A scenario that failed has left its settings.
            self.take_rights_away(HELM_UPGRADE).await;
        }
        self.kubectl(&format!("--namespace {NAMESPACE} rollout status deployment {OPERATOR} --timeout 60s"));
    }

    /// Before each scenario: volumes on offer on each node. Somebody else's cluster provides them by itself.
    ///
    /// # Panics
    /// They cannot be made.
    pub async fn offer_volumes(&self) {
        if !self.is_own {
            return;
        }
        self.machine("volume recycle");
        let volumes =
            Api::<PersistentVolume>::all(self.client.clone()).list(&ListParams::default()).await.expect("volumes");
        let mut free = BTreeMap::from(["node1", "node2", "node3"].map(|node| (node, 0)));
        for volume in volumes {
            if volume
                .status
                .and_then(|status| status.phase)
                .is_none_or(|phase| matches!(phase.as_str(), "Available" | "Pending"))
            {
                let name = volume.metadata.name.unwrap_or_default();
                free.entry(free.keys().find(|node| name.starts_with(**node)).copied().unwrap_or("node1"))
                    .and_modify(|free| *free += 1);
            }
        }
        for (node, free) in free {
            for _ in free..VOLUMES {
                self.machine(&format!("volume add {node}"));
            }
        }
    }

    /// After each scenario: its namespaces go, without being waited for.
    pub fn clear_away(&self) {
        let spaces = std::mem::take(&mut *lock(&self.spaces));
        for space in spaces {
            let gone = self.try_kubectl(&format!("delete namespace {space} --ignore-not-found --wait=false"), "");
            if let Err(error) = gone {
                eprintln!("{error}");
            }
        }
    }

    /// Asserts that the operator did not ask for anything it may not do.
    ///
    /// # Panics
    /// It did.
    pub fn assert_allowed(&self) {
        let refused = lock(&self.rights).read_on();
        assert!(refused.is_empty(), "the operator may not do what it does: {refused:#?}");
    }

    /// A cluster of three named `edge` in a namespace of its own, with a policy of this name that counts the clients whose
    /// names begin so.
    ///
    /// # Panics
    /// It does not come about in `patience`.
    pub async fn three(&self, namespace: &str, counted: &str, quota: u64, patience: Duration) -> Space<'_> {
        self.founded(namespace, &cluster("edge", 3), counted, quota, patience).await
    }

    /// The same with another cluster named `edge`.
    ///
    /// # Panics
    /// It does not come about in `patience`.
    pub async fn founded(
        &self,
        namespace: &str,
        edge: &Value,
        counted: &str,
        quota: u64,
        patience: Duration,
    ) -> Space<'_> {
        self.install_operator().await;
        let space = self.space(namespace).await;
        space.apply(edge).await;
        space.apply(&policy(counted, "edge", counted, quota, "24h")).await;
        space.until_steady(patience, "edge").await;
        space.until_condition(patience, ("QuotaPolicy", counted), "Enforced", "True").await;
        space
    }

    /// How often the operator wrote the status of one object of a namespace, of the one it wrote most.
    ///
    /// # Panics
    /// The record cannot be read.
    #[must_use]
    pub fn most_status_writes(&self, resource: &str, namespace: &str) -> usize {
        lock(&self.rights).most_status_writes(resource, namespace)
    }

    /// A command that takes rights away from the operator that runs, as uninstalling does: what it is refused until it has
    /// ended is nobody's fault.
    ///
    /// # Panics
    /// The command fails, or the operator does not end.
    pub async fn take_rights_away(&self, command: &str) {
        self.assert_allowed();
        self.type_in(command).unwrap_or_else(|error| panic!("{error}"));
        let pods = Api::<Pod>::namespaced(self.client.clone(), NAMESPACE);
        let deployments = Api::<Deployment>::namespaced(self.client.clone(), NAMESPACE);
        eventually(PATIENCE, "the operator to end", async || {
            let wanted = deployments.get_opt(OPERATOR).await.map_err(|error| error.to_string())?;
            let wanted = wanted.map_or(0, |deployment| deployment.spec.replicas.unwrap_or(1));
            let pods = pods.list(&ListParams::default()).await.map_err(|error| error.to_string())?.items.len();
            // The old one may not even have been told to go.
            if i32::try_from(pods) == Ok(wanted) { Ok(()) } else { Err(format!("{pods} pods instead of {wanted}")) }
        })
        .await;
        self.forgive();
    }

    /// What the operator was refused so far counts no longer: a scenario that failed has been told of already.
    pub fn forgive(&self) {
        lock(&self.rights).read_on();
    }

    /// What the operator is allowed to do and has not done since the cluster was started.
    ///
    /// # Panics
    /// Its roles cannot be read.
    #[expect(clippy::await_holding_lock, reason = "scenarios run one after another, and nobody else holds it")]
    pub async fn unused_rights(&self) -> Vec<String> {
        let mut rights = lock(&self.rights);
        rights.read_on();
        rights.unused(&self.client).await
    }

    /// For a scenario that failed: what there is.
    pub fn describe(&self) {
        for words in [
            "get ratelimitclusters,quotapolicies,pods,persistentvolumeclaims --all-namespaces --output wide".to_owned(),
            "get ratelimitclusters --all-namespaces --output yaml".to_owned(),
            "get events --all-namespaces --sort-by=.lastTimestamp".to_owned(),
            "logs --namespace quorate-system --selector app.kubernetes.io/name=quorate-operator --tail 60 --prefix"
                .to_owned(),
        ] {
            let said = self.try_kubectl(&words, "").unwrap_or_else(|error| error);
            let lines: Vec<_> = said.lines().collect();
            eprintln!("== kubectl {words}\n{}", lines[lines.len().saturating_sub(150)..].join("\n"));
        }
        let spaces = lock(&self.spaces).clone();
        for space in spaces {
            let words =
                format!("logs --namespace {space} --selector app.kubernetes.io/component=limiter --tail 25 --prefix");
            eprintln!("== kubectl {words}\n{}", self.try_kubectl(&words, "").unwrap_or_else(|error| error));
        }
    }
}
