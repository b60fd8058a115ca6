//! Scenarios named `<state>_<event>_<effect>`: one look and step against an API server in memory.

use kube::runtime::reflector::Lookup as _;
use serde_json::{Value, json};

use super::*;
use crate::in_memory::{NAMESPACE, World, failure, within};
use crate::limiter::Limiters;

mod others;
mod refusals;

const CLUSTER: &str = "/apis/quorate.dev/v1alpha1/namespaces/shop/ratelimitclusters/edge";
const SET: &str = "/apis/apps/v1/namespaces/shop/statefulsets/edge";
const FOUNDING: &str = "/api/v1/namespaces/shop/configmaps/edge-founding";
const STATUS: &str = "PATCH /apis/quorate.dev/v1alpha1/namespaces/shop/ratelimitclusters/edge/status";

/// One operator and its world.
struct Scene {
    world: World,
    shared: Arc<Shared>,
}

fn spec(more: &Value) -> Value {
    let mut spec = json!({"version": "0.1.0", "replicas": 3});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({
        "apiVersion": "quorate.dev/v1alpha1", "kind": "RateLimitCluster",
        "metadata": {"name": "edge", "namespace": NAMESPACE, "uid": "u", "generation": 1}, "spec": spec,
    })
}

fn wanted() -> Wanted {
    validate(&serde_json::from_value(spec(&json!({}))).unwrap()).unwrap()
}

fn pod(ordinal: u8) -> String {
    format!("/api/v1/namespaces/shop/pods/edge-{ordinal}")
}

fn claim(ordinal: u8) -> String {
    format!("/api/v1/namespaces/shop/persistentvolumeclaims/data-edge-{ordinal}")
}

impl Scene {
    /// Somebody has asked for a cluster.
    async fn asked_for() -> Self {
        let world = World::default();
        world.put(CLUSTER, spec(&json!({})));
        let context = world.context().await;
        Self { world, shared: Arc::new(Shared::new(context)) }
    }

    /// Its pods are up on empty disks.
    async fn started() -> Self {
        let scene = Self::asked_for().await;
        scene.looks().await.unwrap();
        for ordinal in 0..3 {
            scene.starts(ordinal, &template_name(&wanted()));
            scene.world.node_says(ordinal, Some(empty(ordinal)));
        }
        scene
    }

    /// It is as it is wanted; its pods were made from this template.
    async fn running_on(template: &str) -> Self {
        let scene = Self::started().await;
        for ordinal in 0..3 {
            scene.starts(ordinal, template);
            scene.world.node_says(ordinal, Some(member(ordinal)));
            scene
                .world
                .change(&claim(ordinal), &json!({"metadata": {"annotations": {"quorate.dev/cluster-id": "c1"}}}));
        }
        let members = json!({"edge-0": "1", "edge-1": "2", "edge-2": "3"}).to_string();
        let owners = json!([{
            "apiVersion": API_VERSION, "kind": CLUSTER_KIND, "name": "edge", "uid": "u", "controller": true,
        }]);
        scene.world.put(
            FOUNDING,
            json!({"metadata": {"name": "edge-founding", "ownerReferences": owners}, "data": {"members": members}}),
        );
        scene.looks().await.unwrap();
        scene.world.writes();
        scene
    }

    /// A pod of this template is up on the claim that it had.
    fn comes_back(&self, ordinal: u8, template: &str) {
        self.starts(ordinal, template);
        self.world.change(&claim(ordinal), &json!({"metadata": {"annotations": {"quorate.dev/cluster-id": "c1"}}}));
    }

    async fn running() -> Self {
        Self::running_on(&template_name(&wanted())).await
    }

    fn starts(&self, ordinal: u8, template: &str) {
        self.world.put(
            &pod(ordinal),
            json!({
                "metadata": {
                    "name": format!("edge-{ordinal}"), "namespace": NAMESPACE, "uid": format!("p{ordinal}"),
                    "annotations": {"quorate.dev/template": template},
                },
                "status": {
                    "phase": "Running", "podIP": format!("127.0.0.{}", ordinal + 1),
                    "conditions": [{"type": "Ready", "status": "True"}],
                },
            }),
        );
        let name = format!("data-edge-{ordinal}");
        self.world.put(&claim(ordinal), json!({"metadata": {"name": name, "uid": format!("c{ordinal}")}}));
    }

    fn has(&self) -> Arc<Guarded> {
        Arc::new(serde_json::from_value(self.world.get(CLUSTER).unwrap_or_else(|| spec(&json!({})))).unwrap())
    }

    /// The operator looks once.
    async fn looks(&self) -> Result<Action, Error> {
        reconcile(self.has(), Arc::clone(&self.shared)).await
    }

    fn status(&self) -> Value {
        self.world.get(CLUSTER).unwrap()["status"].clone()
    }

    /// Events of this reason that may need a person.
    fn warnings(&self, reason: &str) -> usize {
        let events = self.world.list("/apis/events.k8s.io/v1/namespaces/shop/events");
        events.iter().filter(|event| event["reason"] == reason && event["type"] == "Warning").count()
    }

    fn message(&self, kind: &str) -> String {
        let status = self.status();
        let conditions = status["conditions"].as_array().unwrap();
        let found = conditions.iter().find(|condition| condition["type"] == kind).unwrap();
        found["message"].as_str().unwrap().to_owned()
    }

    fn condition(&self, kind: &str) -> String {
        let status = self.status();
        let conditions = status["conditions"].as_array().unwrap();
        let found = conditions.iter().find(|condition| condition["type"] == kind).unwrap();
        format!("{}={} {}", kind, found["status"].as_str().unwrap(), found["reason"].as_str().unwrap())
    }
}

fn empty(ordinal: u8) -> Value {
    json!({
        "clusterId": "", "node": format!("{}", ordinal + 1), "leader": null, "term": 0, "revision": 0,
        "members": [], "intents": [], "autopilot": null,
    })
}

/// A node of the cluster that the first leads.
fn member(ordinal: u8) -> Value {
    let member = |ordinal: u8| {
        json!({
            "name": format!("edge-{ordinal}"), "id": format!("{}", ordinal + 1), "role": "Voter", "lag": 0,
            "appliedRevision": 1, "version": "0.1.0", "reachable": true,
        })
    };
    json!({
        "clusterId": "c1", "node": format!("{}", ordinal + 1), "leader": "1", "term": 1, "revision": 1,
        "members": [member(0), member(1), member(2)], "intents": [], "autopilot": null,
    })
}

fn namespace_goes() -> Value {
    let mut said = failure(403, "Forbidden");
    said["details"] = json!({"causes": [{"reason": "NamespaceTerminating", "message": "it is being terminated"}]});
    said
}

#[tokio::test]
async fn cluster_asked_for_has_its_operation_written_before_its_objects() {
    let scene = Scene::asked_for().await;
    scene.looks().await.unwrap();
    let writes = scene.world.writes();
    assert_eq!(writes[0], STATUS, "{writes:#?}");
    assert_eq!(scene.status()["operation"]["kind"], "Found");
    assert_eq!(writes.last().unwrap(), &format!("PATCH {SET}"), "the pods come after all that they need: {writes:#?}");
    assert_eq!(scene.world.get(SET).unwrap()["spec"]["replicas"], 3);
}

#[tokio::test]
async fn cluster_asked_for_whose_status_cannot_be_written_has_nothing_done() {
    let scene = Scene::asked_for().await;
    scene.world.answer_instead(STATUS, 500, failure(500, "InternalError"));
    assert_eq!(scene.looks().await.unwrap_err().label(), "ApiServer");
    assert_eq!(scene.world.writes(), [STATUS]);
}

#[tokio::test]
async fn empty_pods_all_up_record_the_founding_once_and_ask_the_first() {
    let scene = Scene::started().await;
    scene.looks().await.unwrap();
    assert!(scene.world.writes().contains(&"POST /api/v1/namespaces/shop/configmaps".to_owned()));
    let recorded = scene.world.get(FOUNDING).unwrap();
    assert!(recorded["data"]["members"].as_str().unwrap().contains("edge-2"), "{recorded}");
    scene.looks().await.unwrap();
    assert!(scene.world.writes().contains(&"POST node 0 /v1/cluster/bootstrap".to_owned()));
    let waits = scene.status()["operation"]["waitsFor"].as_str().unwrap_or_default().to_owned();
    assert!(waits.contains("a scenario says no"), "{waits}");
}

#[tokio::test]
async fn step_that_is_refused_again_for_the_same_leaves_the_status_alone() {
    let scene = Scene::started().await;
    scene.looks().await.unwrap();
    scene.looks().await.unwrap();
    scene.world.writes();
    assert_eq!(scene.looks().await.unwrap(), Action::requeue(IN_FLIGHT));
    let writes = scene.world.writes();
    assert!(writes.contains(&"POST node 0 /v1/cluster/bootstrap".to_owned()), "it is tried again: {writes:#?}");
    assert!(!writes.contains(&STATUS.to_owned()), "a status written is a reason to look: {writes:#?}");
}

#[tokio::test]
async fn empty_pods_whose_founding_somebody_else_has_recorded_follow_that_one() {
    let scene = Scene::started().await;
    scene.world.answer_instead("POST /api/v1/namespaces/shop/configmaps", 409, failure(409, "AlreadyExists"));
    scene.looks().await.unwrap();
    assert!(!scene.world.writes().iter().any(|write| write.contains("bootstrap")), "nothing is founded from memory");
}

#[tokio::test]
async fn running_cluster_looked_at_again_has_its_status_left_alone() {
    let scene = Scene::running().await;
    assert_eq!(scene.condition("Ready"), "Ready=True Serving");
    assert_eq!(scene.looks().await.unwrap(), Action::requeue(STEADY));
    assert!(!scene.world.writes().contains(&STATUS.to_owned()));
}

#[tokio::test]
async fn running_cluster_with_a_claim_to_note_and_a_new_spec_is_not_called_steady() {
    let scene = Scene::running().await;
    let unmarked = json!({"metadata": {"annotations": {"quorate.dev/cluster-id": ""}}});
    scene.world.change(&claim(2), &unmarked);
    scene.world.change(CLUSTER, &json!({"metadata": {"generation": 2}, "spec": {"replicas": 1}}));
    scene.looks().await.unwrap();
    assert_eq!(scene.status()["observedGeneration"], 2);
    assert_eq!(scene.condition("Progressing"), "Progressing=True Tidying");
    scene.looks().await.unwrap();
    assert_eq!(scene.condition("Progressing"), "Progressing=True ScalingDown");
}

#[tokio::test]
async fn running_cluster_that_is_paused_has_nothing_but_its_status_written() {
    let scene = Scene::running_on("old").await;
    scene.world.change(CLUSTER, &json!({"spec": {"paused": true, "replicas": 5}}));
    scene.looks().await.unwrap();
    assert_eq!(scene.world.writes(), [STATUS]);
    assert_eq!(scene.condition("Progressing"), "Progressing=False Paused");
}

#[tokio::test]
async fn paused_cluster_that_lost_its_leader_is_looked_at_until_it_has_one() {
    let scene = Scene::running().await;
    scene.world.change(CLUSTER, &json!({"spec": {"paused": true}}));
    assert_eq!(scene.looks().await.unwrap(), Action::requeue(STEADY));
    for ordinal in 0..3 {
        let mut answer = member(ordinal);
        answer["leader"] = Value::Null;
        scene.world.node_says(ordinal, Some(answer));
    }
    assert_eq!(scene.looks().await.unwrap(), Action::requeue(IN_FLIGHT));
    assert_eq!(scene.condition("Ready"), "Ready=False NoLeader");
}

#[tokio::test]
async fn running_cluster_that_is_being_deleted_has_nothing_but_its_status_written() {
    let scene = Scene::running_on("old").await;
    let going =
        json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["foregroundDeletion"]}});
    scene.world.change(CLUSTER, &going);
    scene.looks().await.unwrap();
    assert_eq!(scene.world.writes(), [STATUS]);
    assert_eq!(scene.condition("Ready"), "Ready=False Deleting");
}

#[tokio::test]
async fn running_cluster_that_is_gone_by_now_is_forgotten() {
    let scene = Scene::running().await;
    let stale = scene.has();
    scene.world.answer_instead(&format!("GET {CLUSTER}"), 404, failure(404, "NotFound"));
    assert_eq!(reconcile(stale, Arc::clone(&scene.shared)).await.unwrap(), Action::await_change());
    assert_eq!(scene.world.writes(), [""; 0]);
}

#[tokio::test]
async fn old_pods_evicts_one_and_only_that_very_pod() {
    let scene = Scene::running_on("old").await;
    // The first look has begun with the last follower, which is gone and comes back under its name.
    assert_eq!(scene.status()["operation"]["pod"], "edge-2");
    assert!(scene.world.get(&pod(2)).is_none());
    scene.comes_back(2, &template_name(&wanted()));
    scene.world.answer_instead("POST /api/v1/namespaces/shop/pods/edge-1/eviction", 409, failure(409, "Conflict"));
    scene.looks().await.unwrap();
    assert_eq!(scene.status()["operation"]["pod"], "edge-1");
    assert!(scene.world.get(&pod(1)).is_some(), "another pod of its name is left alone");
}

#[tokio::test]
async fn objects_of_another_uid_than_those_looked_at_are_left_alone() {
    let scene = Scene::running().await;
    let Context { client, limiters, .. } = &scene.shared.context;
    let look = look(client, limiters, &wanted()).await.unwrap();
    let before = [pod(1), claim(1)].map(|path| scene.world.get(&path));
    let uid = || "of one that is gone".to_owned();
    for step in [
        Step::Evict { pod: 1, uid: uid() },
        Step::DeletePod { pod: 1, uid: uid() },
        Step::DeleteClaim { claim: 1, uid: uid() },
        Step::MarkClaim { claim: 1, uid: uid(), cluster: "c2".to_owned(), goes_along: true },
    ] {
        let done = apply::step(client, limiters, &wanted(), &look, &step).await.unwrap();
        assert_eq!(done, Outcome::Done, "{step}");
        assert_eq!([pod(1), claim(1)].map(|path| scene.world.get(&path)), before, "{step}");
    }
    assert_eq!(scene.world.writes().len(), 4);
}

#[tokio::test]
async fn old_pods_refused_by_the_budget_wait_and_say_so() {
    let scene = Scene::running_on("old").await;
    scene.comes_back(2, &template_name(&wanted()));
    let refused = failure(429, "Cannot evict pod as it would violate the pod's disruption budget.");
    scene.world.answer_instead("POST /api/v1/namespaces/shop/pods/edge-1/eviction", 429, refused);
    assert_eq!(scene.looks().await.unwrap(), Action::requeue(IN_FLIGHT));
    let waits = scene.status()["operation"]["waitsFor"].as_str().unwrap().to_owned();
    assert!(waits.starts_with("the disruption budget to let pod edge-1 go"), "{waits}");
}

#[tokio::test]
async fn old_pods_gone_before_they_are_evicted_are_no_error() {
    let scene = Scene::running_on("old").await;
    scene.comes_back(2, &template_name(&wanted()));
    scene.world.answer_instead("POST /api/v1/namespaces/shop/pods/edge-1/eviction", 404, failure(404, "NotFound"));
    assert_eq!(scene.looks().await.unwrap(), Action::requeue(AFTER_STEP));
}

#[tokio::test]
async fn rollout_seen_by_an_older_watch_goes_on_with_what_is_in_flight() {
    let scene = Scene::running_on("old").await;
    let mut stale = scene.world.get(CLUSTER).unwrap();
    stale["status"] = Value::Null;
    scene.comes_back(2, "old");
    scene.world.writes();
    let stale: Guarded = serde_json::from_value(stale).unwrap();
    assert_eq!(stale.name().unwrap(), "edge");
    let started = scene.status()["operation"]["startedAt"].clone();
    reconcile(Arc::new(stale), Arc::clone(&scene.shared)).await.unwrap();
    assert_eq!(scene.status()["operation"]["startedAt"], started, "the operation is the one that was written down");
}

#[tokio::test]
async fn namespace_that_is_being_deleted_is_no_error_and_other_refusals_are() {
    let scene = Scene::asked_for().await;
    let service = "PATCH /api/v1/namespaces/shop/services/edge?";
    scene.world.answer_instead(service, 403, namespace_goes());
    scene.looks().await.unwrap();
    scene.world.answer_instead(service, 403, failure(403, "Forbidden"));
    assert_eq!(scene.looks().await.unwrap_err().label(), "Forbidden");
}

#[tokio::test]
async fn events_that_are_refused_stop_nothing() {
    let scene = Scene::asked_for().await;
    for _ in 0..9 {
        scene.world.answer_instead("POST /apis/events.k8s.io/", 403, failure(403, "Forbidden"));
    }
    scene.looks().await.unwrap();
    assert!(scene.world.get(SET).is_some());
}

#[tokio::test]
async fn look_that_has_expired_is_an_error_and_writes_nothing() {
    let scene = Scene::running().await;
    scene.world.answer_instead("GET /api/v1/namespaces/shop/pods?", 410, failure(410, "Expired"));
    assert_eq!(scene.looks().await.unwrap_err().label(), "ApiServer");
    assert_eq!(scene.world.writes(), [""; 0]);
}

#[tokio::test]
async fn objects_of_a_cluster_that_was_deleted_and_created_again_are_waited_for() {
    let scene = Scene::running().await;
    scene.world.change(CLUSTER, &json!({"metadata": {"uid": "another"}}));
    scene.looks().await.unwrap();
    assert_eq!(scene.world.writes(), [STATUS], "nothing is touched");
    assert_eq!(scene.condition("Ready"), "Ready=False Founding", "whatever the pods of the one before say");
    assert_eq!(scene.condition("Degraded"), "Degraded=False AsWanted", "it passes by itself");
    let waits = scene.status()["operation"]["waitsFor"].as_str().unwrap().to_owned();
    assert!(waits.starts_with("StatefulSet shop/edge to go"), "{waits}");
}

#[tokio::test]
async fn spec_that_cannot_be_read_says_so_once_and_touches_nothing() {
    let scene = Scene::running().await;
    scene.world.change(CLUSTER, &json!({"spec": {"rollout": {"strategy": "Sometimes"}}}));
    scene.looks().await.unwrap();
    assert_eq!(scene.world.writes(), [STATUS]);
    assert_eq!(scene.condition("Degraded"), "Degraded=True InvalidSpec");
    assert_eq!(scene.status()["leader"], "edge-0", "what was known stays");
    scene.looks().await.unwrap();
    assert_eq!(scene.world.writes(), [""; 0]);
}

#[tokio::test]
async fn address_that_went_to_another_pod_is_not_believed() {
    let scene = Scene::running().await;
    scene.world.node_says(2, Some(member(1)));
    let look = look(&scene.shared.context.client, &scene.shared.context.limiters, &wanted()).await.unwrap();
    assert_eq!(look.answers.iter().map(|(pod, _)| pod.as_str()).collect::<Vec<_>>(), ["edge-0", "edge-1"]);
}

#[tokio::test]
async fn leader_that_is_another_now_is_noticed_by_its_pulse() {
    let scene = Scene::running().await;
    let limiters: &Limiters = &scene.shared.context.limiters;
    let mut answer = member(0);
    (answer["leader"], answer["term"]) = (json!("2"), json!(2));
    scene.world.node_says(0, Some(answer));
    let (tell, told) = futures::channel::oneshot::channel();
    let tell = std::sync::Mutex::new(Some(tell));
    tokio::select! {
        () = scene.shared.pulse.run(limiters, |key| {
            if let Some(tell) = tell.lock().unwrap().take() {
                tell.send(key).unwrap();
            }
        }) => {}
        key = within("the pulse to tell", told) => assert_eq!(key.unwrap().name, "edge"),
    }
}
