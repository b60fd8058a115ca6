//! What the API server refuses, and when it is told.

use super::*;

#[tokio::test]
async fn cluster_asked_for_whose_spec_the_api_server_refuses_says_so_in_its_words_and_once() {
    let scene = Scene::asked_for().await;
    let refused = || failure(422, "spec.template.spec.containers[0].resources.requests: must be less than 1Gi");
    let apply = format!("PATCH {SET}");
    scene.world.answer_instead(&apply, 422, refused());
    assert_eq!(scene.looks().await.unwrap_err().label(), "Invalid");
    assert_eq!(scene.condition("Degraded"), "Degraded=True Refused");
    assert_eq!(scene.condition("Progressing"), "Progressing=True Refused");
    let message = scene.message("Degraded");
    assert!(message.contains("applying StatefulSet shop/edge: spec.template.spec.containers[0]"), "{message}");
    assert_eq!(scene.warnings("Refused"), 1);
    scene.world.writes();
    for _ in 0..3 {
        scene.world.answer_instead(&apply, 422, refused());
        scene.looks().await.unwrap_err();
    }
    assert!(!scene.world.writes().contains(&STATUS.to_owned()), "a status written is a reason to look");
    assert_eq!(scene.looks().await.unwrap(), Action::requeue(AFTER_STEP), "taken at last");
    scene.looks().await.unwrap();
    assert_eq!(scene.condition("Degraded"), "Degraded=False AsWanted");
    assert_eq!(scene.condition("Progressing"), "Progressing=True WaitingForPods");
}

#[tokio::test]
async fn cluster_asked_for_whose_refused_spec_was_mended_has_that_tried_before_anything_is_told() {
    let scene = Scene::asked_for().await;
    scene.world.answer_instead(&format!("PATCH {SET}"), 403, failure(403, "exceeded quota"));
    scene.looks().await.unwrap_err();
    assert_eq!(scene.condition("Degraded"), "Degraded=True Refused");
    scene.world.change(CLUSTER, &json!({"metadata": {"generation": 2}}));
    scene.looks().await.unwrap();
    assert_eq!(scene.condition("Degraded"), "Degraded=False AsWanted");
}

#[tokio::test]
async fn cluster_asked_for_whose_api_server_hesitates_has_nothing_told_of_it() {
    for (code, reason) in [(409, "Conflict"), (500, "InternalError"), (503, "ServiceUnavailable"), (504, "Timeout")] {
        let scene = Scene::asked_for().await;
        scene.world.answer_instead(&format!("PATCH {SET}"), code, failure(code, reason));
        scene.looks().await.unwrap_err();
        assert_eq!(scene.condition("Degraded"), "Degraded=False AsWanted", "{code}");
        scene.looks().await.unwrap();
        assert!(scene.world.get(SET).is_some());
    }
}

#[tokio::test]
async fn old_pods_whose_eviction_fails_for_long_say_so() {
    let scene = Scene::running_on("old").await;
    scene.comes_back(2, &template_name(&wanted()));
    let failed = failure(500, "This pod has more than one PodDisruptionBudget");
    let path = "POST /api/v1/namespaces/shop/pods/edge-1/eviction";
    scene.world.answer_instead(path, 500, failed.clone());
    scene.looks().await.unwrap_err();
    assert_eq!(scene.condition("Degraded"), "Degraded=False AsWanted");
    let error =
        Error::api("evicting pod shop/edge-1")(kube::Error::Api(Box::new(serde_json::from_value(failed).unwrap())));
    let later = Instant::now() + Duration::from_secs(31);
    let key = ObjectRef::from_obj(&*scene.has());
    assert!(scene.shared.refusals.failed(key, &error, Some(1), later).is_some());
    scene.looks().await.unwrap();
    assert_eq!(scene.condition("Degraded"), "Degraded=True Refused");
    assert!(scene.message("Degraded").contains("evicting pod shop/edge-1: This pod has more"));
}

#[tokio::test]
async fn running_cluster_that_must_not_be_looked_at_says_so() {
    let scene = Scene::running().await;
    scene.world.answer_instead("GET /api/v1/namespaces/shop/pods?", 403, failure(403, "pods is forbidden"));
    scene.looks().await.unwrap_err();
    assert_eq!(scene.condition("Degraded"), "Degraded=True Refused");
    assert!(scene.message("Degraded").contains("listing pods in shop: pods is forbidden"));
    assert_eq!(scene.condition("Ready"), "Ready=True Serving", "what was known stays");
}
