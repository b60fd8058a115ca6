//! Looks at a cluster all the time while something is done to it: who votes, who leads, and which pod goes when.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::{StreamExt as _, pin_mut};
use kube::Api;
use kube::api::DynamicObject;
use kube::runtime::watcher::watch_object;
use serde_json::Value;
use tokio::task::JoinSet;

use super::space::Space;
use crate::client::Client;
use crate::cluster::{eventually, pause};
use crate::sync::lock;

/// Between two looks at the members.
const PACE: Duration = Duration::from_millis(200);
/// How long a status may take from the API server to here.
const ARRIVES_WITHIN: Duration = Duration::from_secs(10);

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The fewest committed voters.
    pub voters_min: Option<usize>,
    /// Each operation that the status told of, with the pod that led when it was written down.
    pub operations: Vec<(String, String)>,
    /// Each pod that led, with its term.
    pub leaders: Vec<(String, i64)>,
    /// How often the members were looked at.
    pub looks: usize,
    /// The version of the object that was seen last.
    version: Option<String>,
}

/// Looks on until it is stopped.
#[derive(Debug)]
pub struct Watcher {
    objects: Api<DynamicObject>,
    cluster: String,
    seen: Arc<Mutex<Seen>>,
    /// They end with it.
    _tasks: JoinSet<()>,
}

impl Watcher {
    /// Looks at this cluster: its members by its Service, and every status that is written.
    pub async fn start(space: &Space<'_>, cluster: &str) -> Self {
        let (seen, mut tasks) = (Arc::new(Mutex::new(Seen::default())), JoinSet::new());
        let objects = space.resources("RateLimitCluster");
        tasks.spawn(look(space.service(cluster).await, Arc::clone(&seen)));
        tasks.spawn(read(objects.clone(), cluster.to_owned(), Arc::clone(&seen)));
        Self { objects, cluster: cluster.to_owned(), seen, _tasks: tasks }
    }

    fn seen(&self) -> Seen {
        lock(&self.seen).clone()
    }

    /// Tells, once all that was written so far has been seen.
    ///
    /// # Panics
    /// It never saw the members, or not the last status.
    pub async fn stop(self) -> Seen {
        eventually(ARRIVES_WITHIN, "the last status to be seen", async || {
            let last = self.objects.get(&self.cluster).await.map_err(|error| error.to_string())?;
            let seen = self.seen().version;
            if seen == last.metadata.resource_version { Ok(()) } else { Err(format!("{seen:?}")) }
        })
        .await;
        let seen = self.seen();
        assert!(seen.looks > 0, "the members were never seen");
        seen
    }
}

async fn look(service: SocketAddr, seen: Arc<Mutex<Seen>>) {
    loop {
        if let Some(voters) = voters(service).await {
            let mut seen = lock(&seen);
            seen.looks += 1;
            seen.voters_min = Some(seen.voters_min.map_or(voters, |min| min.min(voters)));
        }
        pause(PACE).await;
    }
}

/// Voters as any node has them in its log; `None` if none answers this time.
async fn voters(service: SocketAddr) -> Option<usize> {
    let answer = Client::new(service).get("/v1/cluster").await.ok()?;
    let members: Value = serde_json::from_slice(&answer.body).ok()?;
    Some(members["members"].as_array()?.iter().filter(|member| member["role"] == "Voter").count())
}

/// A watch, since an operation may be over sooner than somebody asks again.
async fn read(objects: Api<DynamicObject>, cluster: String, seen: Arc<Mutex<Seen>>) {
    let changes = watch_object(objects, &cluster);
    pin_mut!(changes);
    while let Some(change) = changes.next().await {
        // It begins anew by itself.
        let Ok(Some(object)) = change else { continue };
        lock(&seen).note(&object);
    }
}

impl Seen {
    fn note(&mut self, object: &DynamicObject) {
        self.version.clone_from(&object.metadata.resource_version);
        let status = &object.data["status"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let leader = text(&status["leader"]);
        if let Some(term) = status["term"].as_i64().filter(|_| !leader.is_empty()) {
            let leads = (leader.clone(), term);
            if self.leaders.last() != Some(&leads) {
                self.leaders.push(leads);
            }
        }
        let operation = &status["operation"];
        let operation = format!("{} {}", text(&operation["kind"]), text(&operation["pod"])).trim().to_owned();
        if !operation.is_empty() && self.operations.last().is_none_or(|(last, _)| *last != operation) {
            self.operations.push((operation, leader));
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::api::ApiResource;
    use serde_json::json;

    use super::*;

    #[test]
    fn operation_is_noted_with_the_leader_of_its_first_status() {
        let mut seen = Seen::default();
        for (pod, leader, term) in [("edge-2", "edge-0", 1), ("edge-0", "edge-0", 1), ("edge-0", "edge-1", 2)] {
            let resource = ApiResource::erase::<k8s_openapi::api::core::v1::Pod>(&());
            let operation = json!({"kind": "ReplacePod", "pod": pod});
            let status = json!({"status": {"leader": leader, "term": term, "operation": operation}});
            seen.note(&DynamicObject::new("edge", &resource).data(status));
        }
        let text = ToOwned::to_owned;
        let expected = [("ReplacePod edge-2", "edge-0"), ("ReplacePod edge-0", "edge-0")];
        assert_eq!(seen.operations, expected.map(|(what, leader)| (text(what), text(leader))));
        assert_eq!(seen.leaders, [(text("edge-0"), 1), (text("edge-1"), 2)]);
    }
}
