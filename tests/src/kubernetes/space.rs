//! A namespace, and what a scenario does in it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Service};
use kube::api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::TcpStream;

use super::lab::Lab;
use super::objects::{HTTP_PORT, condition, has_condition};
use crate::cluster::eventually;

/// How long nodes may take to hear of a Service's pods.
const LEADS_WITHIN: Duration = Duration::from_secs(30);

/// A namespace of a scenario's own.
#[derive(Clone, Copy)]
pub struct Space<'a> {
    /// The cluster that it is in.
    pub lab: &'a Lab,
    name: &'a str,
}

impl<'a> Space<'a> {
    pub(super) fn new(lab: &'a Lab, name: &str) -> Self {
        // A few names, kept for as long as the scenarios run.
        Self { lab, name: Box::leak(name.to_owned().into_boxed_str()) }
    }

    /// A namespace that somebody else has made.
    #[must_use]
    pub fn existing(lab: &'a Lab, name: &str) -> Self {
        Self::new(lab, name)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// Objects of a kind of Kubernetes' own.
    #[must_use]
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.lab.client.clone(), self.name)
    }

    /// Objects of `RateLimitCluster` or `QuotaPolicy`.
    #[must_use]
    pub fn resources(&self, kind: &str) -> Api<DynamicObject> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("quorate.dev", "v1alpha1", kind));
        Api::namespaced_with(self.lab.client.clone(), self.name, &resource)
    }

    /// Applies a `RateLimitCluster` or a `QuotaPolicy`, as `kubectl apply --server-side` does.
    ///
    /// # Errors
    /// What the API server has against it.
    pub async fn try_apply(&self, object: &Value) -> Result<(), String> {
        let [kind, name] = [&object["kind"], &object["metadata"]["name"]].map(|text| text.as_str().expect("a text"));
        let parameters = PatchParams::apply("quorate-tests").force();
        let applied = self.resources(kind).patch(name, &parameters, &Patch::Apply(object)).await;
        applied.map(drop).map_err(|error| error.to_string())
    }

    /// The same for one that must be taken.
    ///
    /// # Panics
    /// It is refused.
    pub async fn apply(&self, object: &Value) {
        self.try_apply(object).await.unwrap_or_else(|error| panic!("{object}: {error}"));
    }

    /// Deletes one; it need not be gone yet.
    ///
    /// # Panics
    /// There is none.
    pub async fn delete(&self, kind: &str, name: &str) {
        let deleted = self.resources(kind).delete(name, &DeleteParams::default()).await;
        deleted.unwrap_or_else(|error| panic!("{kind} {name}: {error}"));
    }

    /// One as JSON; `None` if it is not there.
    ///
    /// # Panics
    /// The API server does not answer.
    pub async fn get(&self, kind: &str, name: &str) -> Option<Value> {
        let object = self.resources(kind).get_opt(name).await.unwrap_or_else(|error| panic!("{kind} {name}: {error}"));
        object.map(|object| serde_json::to_value(object).expect("JSON"))
    }

    /// Awaits what `probe` wants of an object.
    ///
    /// # Panics
    /// Not within the deadline.
    pub async fn until<T>(
        &self,
        deadline: Duration,
        (kind, name): (&str, &str),
        what: &str,
        probe: impl Fn(&Value) -> Result<T, String>,
    ) -> T {
        eventually(deadline, &format!("{kind} {name} of {}: {what}", self.name), async || {
            probe(&self.get(kind, name).await.ok_or("it is not there")?)
        })
        .await
    }

    /// Awaits a condition of an object's present generation: `until_condition(PATIENCE, ("RateLimitCluster", "edge"),
    /// "Ready", "True")`. Returns how long that took.
    ///
    /// # Panics
    /// Not within the deadline.
    pub async fn until_condition(
        &self,
        deadline: Duration,
        object: (&str, &str),
        kind: &str,
        status: &str,
    ) -> Duration {
        let started = Instant::now();
        let what = format!("{kind} to be {status}");
        self.until(deadline, object, &what, |object| has_condition(object, kind, status)).await;
        started.elapsed()
    }

    /// Awaits a condition with this status and reason. Returns its message.
    ///
    /// # Panics
    /// Not within the deadline.
    pub async fn until_reason(
        &self,
        deadline: Duration,
        object: (&str, &str),
        kind: &str,
        (status, reason): (&str, &str),
    ) -> String {
        let what = format!("{kind} to be {status} by {reason}");
        self.until(deadline, object, &what, |object| match condition(object, kind) {
            Some((is, why, message)) if (is, why) == (status, reason) => Ok(message.to_owned()),
            other => Err(format!("{other:?}")),
        })
        .await
    }

    /// Awaits a cluster to be ready and to have nothing left to do.
    ///
    /// # Panics
    /// Not within the deadline.
    pub async fn until_steady(&self, deadline: Duration, cluster: &str) -> Duration {
        let started = Instant::now();
        self.until(deadline, ("RateLimitCluster", cluster), "to be ready, and nothing left to do", |object| {
            has_condition(object, "Ready", "True")?;
            has_condition(object, "Degraded", "False")?;
            has_condition(object, "Progressing", "False")
        })
        .await;
        started.elapsed()
    }

    /// The address of a cluster's Service, which a node of Kubernetes reaches, once it leads to a pod there.
    ///
    /// # Panics
    /// It has none, or leads nowhere.
    pub async fn service(&self, cluster: &str) -> SocketAddr {
        let service = self.api::<Service>().get(cluster).await.unwrap_or_else(|error| panic!("{cluster}: {error}"));
        let address = service.spec.and_then(|spec| spec.cluster_ip).unwrap_or_default();
        let address = SocketAddr::new(address.parse().unwrap_or_else(|error| panic!("{address}: {error}")), HTTP_PORT);
        eventually(LEADS_WITHIN, "the Service to lead to a pod", async || {
            TcpStream::connect(address).await.map(drop).map_err(|error| error.to_string())
        })
        .await;
        address
    }

    /// The pods of a cluster, by name.
    ///
    /// # Panics
    /// The API server does not answer.
    pub async fn pods(&self, cluster: &str) -> Vec<Pod> {
        self.of_cluster(cluster).await
    }

    /// The claims of a cluster, by name.
    ///
    /// # Panics
    /// The API server does not answer.
    pub async fn claims(&self, cluster: &str) -> Vec<PersistentVolumeClaim> {
        self.of_cluster(cluster).await
    }

    async fn of_cluster<K>(&self, cluster: &str) -> Vec<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
    {
        let labels = format!("app.kubernetes.io/name=quorate,app.kubernetes.io/instance={cluster}");
        let listed = self.api::<K>().list(&ListParams::default().labels(&labels)).await;
        let mut items = listed.unwrap_or_else(|error| panic!("{cluster}: {error}")).items;
        items.sort_by(|a, b| a.meta().name.cmp(&b.meta().name));
        items
    }

    /// The uids of a cluster's pods, in the order of their names.
    ///
    /// # Panics
    /// They cannot be listed.
    pub async fn pod_uids(&self, cluster: &str) -> Vec<String> {
        self.pods(cluster).await.into_iter().map(|pod| pod.metadata.uid.expect("every object has one")).collect()
    }

    /// `kubectl` in this namespace, with words that have no spaces in them.
    ///
    /// # Panics
    /// It failed.
    #[allow(clippy::must_use_candidate, reason = "often for what it does")]
    pub fn kubectl(&self, words: &str) -> String {
        self.lab.kubectl(&format!("--namespace {} {words}", self.name))
    }
}
