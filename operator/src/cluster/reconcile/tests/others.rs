//! Objects that are somebody else's, or were.

use super::*;

/// Every object that the operator applies: its path, and its kind.
const APPLIED: [(&str, &str); 5] = [
    (SET, "StatefulSet shop/edge"),
    ("/api/v1/namespaces/shop/services/edge", "Service shop/edge"),
    ("/api/v1/namespaces/shop/services/edge-peers", "Service shop/edge-peers"),
    ("/apis/networking.k8s.io/v1/namespaces/shop/networkpolicies/edge", "NetworkPolicy shop/edge"),
    (BUDGET, "PodDisruptionBudget shop/edge"),
];
const BUDGET: &str = "/apis/policy/v1/namespaces/shop/poddisruptionbudgets/edge";

/// What somebody else has made.
fn foreign(path: &str) -> Value {
    json!({
        "metadata": {"name": path.rsplit('/').next(), "namespace": NAMESPACE, "uid": "theirs"},
        "spec": {"selector": {"matchLabels": {"app": "theirs"}}, "serviceName": "theirs", "template": {}},
    })
}

#[tokio::test]
async fn cluster_asked_for_whose_object_is_there_already_of_somebody_else_touches_nothing_and_says_so() {
    for (path, what) in APPLIED {
        let scene = Scene::asked_for().await;
        scene.world.put(path, foreign(path));
        let before = scene.world.get(path);
        scene.looks().await.unwrap();
        assert_eq!(scene.world.writes(), [STATUS], "{what}");
        assert_eq!(scene.world.get(path), before, "{what}");
        assert_eq!(scene.condition("Ready"), "Ready=False NotOurs");
        assert_eq!(scene.condition("Degraded"), "Degraded=True NotOurs");
        assert!(scene.message("Degraded").contains(&format!("{what} to go")), "{}", scene.message("Degraded"));
        scene.looks().await.unwrap();
        assert_eq!(scene.world.writes(), [""; 0], "and says so once");
        scene.world.remove(path);
        scene.looks().await.unwrap();
        assert_eq!(scene.condition("Degraded"), "Degraded=False AsWanted", "{what}");
        assert!(scene.world.get(path).is_some_and(|own| own["metadata"]["uid"] != "theirs"), "{what}");
    }
}

#[tokio::test]
async fn running_cluster_whose_service_was_put_in_anothers_place_goes_on_telling_how_it_is() {
    let scene = Scene::running().await;
    let (path, _) = APPLIED[1];
    scene.world.put(path, foreign(path));
    scene.looks().await.unwrap();
    assert_eq!(scene.condition("Degraded"), "Degraded=True NotOurs");
    assert_eq!(scene.condition("Ready"), "Ready=True Serving");
    for ordinal in 0..3 {
        scene.world.node_says(ordinal, None);
    }
    scene.looks().await.unwrap();
    assert_eq!(scene.condition("Ready"), "Ready=Unknown Unreachable");
    assert_eq!(scene.world.get(path).unwrap()["metadata"]["uid"], "theirs");
}

#[tokio::test]
async fn single_pod_beside_somebody_elses_budget_leaves_it_and_deletes_its_own() {
    for (budget, left) in [(foreign(BUDGET), true), (Value::Null, false)] {
        let scene = Scene::running().await;
        assert!(scene.world.get(BUDGET).is_some());
        if left {
            scene.world.put(BUDGET, budget);
        }
        scene.world.change(CLUSTER, &json!({"spec": {"replicas": 1}}));
        scene.world.change(SET, &json!({"spec": {"replicas": 1}}));
        let mut alone = member(0);
        alone["members"].as_array_mut().unwrap().truncate(1);
        scene.world.node_says(0, Some(alone));
        for ordinal in 1..3 {
            scene.world.remove(&pod(ordinal));
            scene.world.remove(&claim(ordinal));
        }
        scene.looks().await.unwrap();
        assert_eq!(scene.condition("Degraded"), "Degraded=False AsWanted");
        assert_eq!(scene.world.get(BUDGET).is_some(), left);
    }
}

#[tokio::test]
async fn own_object_changed_by_hand_is_put_right_as_that_very_object() {
    let scene = Scene::running().await;
    let (service, _) = APPLIED[1];
    let uid = scene.world.get(service).unwrap()["metadata"]["uid"].clone();
    assert!(uid.is_string());
    scene.world.change(service, &json!({"spec": {"selector": {"app.kubernetes.io/instance": "theirs"}}}));
    scene.looks().await.unwrap();
    let right = scene.world.get(service).unwrap();
    assert_eq!(right["spec"]["selector"]["app.kubernetes.io/instance"], "edge");
    assert_eq!(right["metadata"]["uid"], uid);
}

#[tokio::test]
async fn objects_orphaned_by_a_cluster_that_was_deleted_are_left_alone_until_they_are_given_to_the_next() {
    let scene = Scene::running().await;
    let paths = || APPLIED.iter().map(|(path, _)| *path).chain([FOUNDING]);
    let labels = Value::from_iter(wanted().names.labels());
    for path in paths() {
        // As the garbage collector leaves them.
        scene.world.change(path, &json!({"metadata": {"ownerReferences": [], "labels": labels}}));
    }
    scene.world.change(CLUSTER, &json!({"metadata": {"uid": "another"}, "status": null}));
    scene.looks().await.unwrap();
    assert_eq!(scene.world.writes(), [STATUS]);
    assert_eq!(scene.condition("Degraded"), "Degraded=True NotOurs");
    assert!(scene.message("Degraded").contains("StatefulSet shop/edge to be given to it"));
    let owner = json!([{
        "apiVersion": API_VERSION, "kind": CLUSTER_KIND, "name": "edge", "uid": "another", "controller": true,
    }]);
    for path in paths() {
        scene.world.change(path, &json!({"metadata": {"ownerReferences": owner}}));
    }
    scene.looks().await.unwrap();
    assert_eq!(scene.condition("Degraded"), "Degraded=False AsWanted");
    assert_eq!(scene.condition("Ready"), "Ready=True Serving");
    assert!((0..3).all(|ordinal| scene.world.get(&pod(ordinal)).is_some()), "no pod is restarted");
}
