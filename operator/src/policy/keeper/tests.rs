//! Scenarios named `<state>_<event>_<effect>`: passes over an API server and nodes in memory.

use serde_json::json;

use super::super::table::OTHERS_AFTER;
use super::super::testing::{CLUSTER, ENFORCED, apply, founded, node, path, serving, told};
use super::*;
use crate::in_memory;
use crate::in_memory::{failure, within};
use crate::metrics::Metrics;

/// A keeper of `shop/edge`, and its world.
struct Scene {
    memory: in_memory::World,
    keeper: Keeper,
}

fn edge() -> ClusterKey {
    ClusterKey { namespace: "shop".to_owned(), name: "edge".to_owned() }
}

impl Scene {
    async fn new() -> Self {
        let (memory, context) = serving().await;
        let keeper = Keeper::new(edge(), context, Arc::new(World::still(&memory)));
        Self { memory, keeper }
    }

    /// These policies, of these hits, are in force.
    async fn holding(policies: &[(&str, i64)]) -> Self {
        let mut scene = Self::new().await;
        for (name, limit) in policies {
            apply(&scene.memory, name, "edge", *limit);
        }
        assert!(scene.passes().await);
        scene.memory.writes();
        scene
    }

    /// The operator has ended, and another begins, which knows only what it is told.
    fn anew(self) -> Self {
        let Keeper { key, context, world, .. } = self.keeper;
        Self { keeper: Keeper::new(key, context, world), ..self }
    }

    /// One pass, by what there is now.
    async fn passes(&mut self) -> bool {
        self.keeper.world = Arc::new(World::still(&self.memory));
        self.passes_by_a_late_watch().await
    }

    /// One pass, by what there was before the last.
    async fn passes_by_a_late_watch(&mut self) -> bool {
        let (_waker, woken) = watch::channel(());
        within("a pass", self.keeper.pass(&woken)).await
    }

    /// The operator's policies that the cluster holds.
    fn held(&self) -> Vec<(String, i64)> {
        let mut held = self.memory.held().1;
        held.retain(|(name, _)| name != "quorate/default");
        held
    }

    /// What was written of policies and on nodes.
    fn writes(&self) -> Vec<String> {
        let mut writes = self.memory.writes();
        writes.retain(|write| !write.contains("ratelimitclusters"));
        writes
    }

    fn told(&self, name: &str) -> String {
        told(&self.memory, name)
    }

    fn message(&self, name: &str) -> String {
        let policy = self.memory.get(&path(name)).unwrap();
        policy["status"]["conditions"][0]["message"].as_str().unwrap().to_owned()
    }

    fn pushes(writes: &[String]) -> usize {
        writes.iter().filter(|write| write.ends_with("/v1/policies:apply")).count()
    }
}

fn held(policies: &[(&str, i64)]) -> Vec<(String, i64)> {
    policies.iter().map(|(name, limit)| ((*name).to_owned(), *limit)).collect()
}

#[tokio::test]
async fn cluster_serving_policies_applied_are_pushed_as_one_set_and_each_told_of_once() {
    let mut scene = Scene::new().await;
    apply(&scene.memory, "shop/a", "edge", 1);
    apply(&scene.memory, "shop/b", "edge", 2);
    assert!(scene.passes().await);
    assert_eq!(scene.held(), held(&[("shop/a", 1), ("shop/b", 2)]));
    assert_eq!([scene.told("shop/a"), scene.told("shop/b")], [ENFORCED, ENFORCED]);
    let writes = scene.writes();
    assert_eq!((Scene::pushes(&writes), writes.len()), (1, 3), "{writes:#?}");
    let cluster = scene.memory.get(CLUSTER).unwrap();
    assert_eq!(cluster["status"]["policies"], json!({ "enforced": "2/2", "revision": 2 }));
}

#[tokio::test]
async fn policies_in_force_pass_again_writes_nothing_even_by_a_late_watch() {
    let mut scene = Scene::holding(&[("shop/a", 1)]).await;
    assert!(scene.passes_by_a_late_watch().await);
    assert_eq!(scene.memory.writes(), [""; 0], "the watch has not brought back yet what was written");
    assert!(scene.passes().await);
    assert_eq!(scene.memory.writes(), [""; 0]);
}

#[tokio::test]
async fn policies_in_force_operator_anew_pushes_and_writes_nothing() {
    let mut anew = Scene::holding(&[("shop/a", 1), ("shop/b", 2)]).await.anew();
    assert!(anew.passes().await);
    assert_eq!(anew.memory.writes(), [""; 0]);
}

#[tokio::test]
async fn policies_in_force_operator_anew_counts_them_and_one_that_is_gone_no_more() {
    let mut anew = Scene::holding(&[("shop/a", 1), ("shop/b", 2)]).await.anew();
    anew.keeper.context.metrics = Arc::new(Metrics::new().unwrap());
    for (gone, count) in [(None, 2), (Some("shop/a"), 1)] {
        if let Some(gone) = gone {
            anew.memory.remove(&path(gone));
        }
        assert!(anew.passes().await);
        let text = String::from_utf8(anew.keeper.context.metrics.text().unwrap()).unwrap();
        let line = format!(r#"{{condition="Enforced",kind="QuotaPolicy",status="True"}} {count}"#);
        assert!(text.contains(&line), "{text}");
    }
}

#[tokio::test]
async fn denials_that_nodes_count_are_told_together_and_rounded() {
    let mut scene = Scene::new().await;
    for (ordinal, count) in [(0, 4), (1, 0), (2, 3)] {
        scene.memory.node_denied(ordinal, &[("shop/a", count)]);
    }
    apply(&scene.memory, "shop/a", "edge", 1);
    apply(&scene.memory, "shop/b", "edge", 1);
    assert!(scene.passes().await);
    let denied = |name| scene.memory.get(&path(name)).unwrap()["status"]["denied"].clone();
    assert_eq!((denied("shop/a"), denied("shop/b")), ("5+".into(), "0".into()));
}

#[tokio::test]
async fn policies_in_force_operator_anew_whom_no_pod_answers_writes_only_of_what_changed_since() {
    let mut anew = Scene::holding(&[("shop/a", 1), ("shop/b", 2)]).await.anew();
    apply(&anew.memory, "shop/b", "edge", 3);
    for ordinal in 0..3 {
        anew.memory.node_says(ordinal, None);
    }
    assert!(!anew.passes().await);
    assert_eq!(anew.told("shop/a"), ENFORCED, "nobody has said that it is not any more");
    assert_eq!(anew.told("shop/b"), "Accepted=Unknown NotSent, Enforced=False NotSent");
    assert_eq!(anew.writes(), [format!("PATCH {}/status", path("shop/b"))]);
}

#[tokio::test]
async fn policy_in_force_deleted_goes_by_its_absence() {
    let mut scene = Scene::holding(&[("shop/a", 1), ("shop/b", 2)]).await;
    scene.memory.remove(&path("shop/a"));
    assert!(scene.passes().await);
    assert_eq!(scene.held(), held(&[("shop/b", 2)]));
    assert_eq!(Scene::pushes(&scene.writes()), 1);
    scene.memory.remove(&path("shop/b"));
    assert!(scene.passes().await);
    assert_eq!(scene.held(), []);
}

#[tokio::test]
async fn policy_in_force_changed_is_told_of_with_its_new_generation() {
    let mut scene = Scene::holding(&[("shop/a", 1), ("shop/b", 2)]).await;
    apply(&scene.memory, "shop/a", "edge", 9);
    assert!(scene.passes().await);
    assert_eq!((scene.held(), scene.told("shop/a")), (held(&[("shop/a", 9), ("shop/b", 2)]), ENFORCED.to_owned()));
    assert_eq!(scene.writes().len(), 2, "the other stays as it was");
}

#[tokio::test]
async fn policies_in_force_taken_away_or_changed_by_somebody_else_are_put_back() {
    let mut scene = Scene::holding(&[("shop/a", 1), ("shop/b", 2)]).await;
    scene.memory.hold("operator", &[]);
    assert!(scene.passes().await);
    assert_eq!(scene.held(), held(&[("shop/a", 1), ("shop/b", 2)]));
    let mut other = scene.memory.get(&path("shop/a")).unwrap();
    other["spec"]["limits"][0]["limit"] = 99.into();
    scene.memory.hold("operator", &[other]);
    assert!(scene.passes().await);
    assert_eq!(scene.held(), held(&[("shop/a", 1), ("shop/b", 2)]));
}

#[tokio::test]
async fn policy_of_a_name_that_another_owner_has_waits_alone_until_that_is_gone() {
    let mut scene = Scene::new().await;
    let mut theirs = scene.memory.get(CLUSTER).unwrap();
    theirs["metadata"] = json!({ "name": "a", "namespace": "shop" });
    theirs["spec"] = json!({ "limits": [{ "name": "l", "algorithm": "FixedWindow", "limit": 7, "window": "1s" }] });
    scene.memory.hold("api", &[theirs]);
    apply(&scene.memory, "shop/a", "edge", 1);
    apply(&scene.memory, "shop/b", "edge", 2);
    scene.passes().await;
    assert_eq!(scene.held(), held(&[("shop/a", 7), ("shop/b", 2)]));
    assert_eq!(scene.told("shop/a"), "Accepted=False OwnedElsewhere, Enforced=False OwnedElsewhere");
    assert_eq!(scene.told("shop/b"), ENFORCED);
    scene.memory.hold("api", &[]);
    assert!(scene.passes().await);
    assert_eq!((scene.held()[0].1, scene.told("shop/a")), (1, ENFORCED.to_owned()));
}

#[tokio::test]
async fn cluster_paused_policy_applied_is_not_pushed_and_says_so() {
    let mut scene = Scene::holding(&[("shop/a", 1)]).await;
    scene.memory.change(CLUSTER, &json!({ "spec": { "paused": true } }));
    apply(&scene.memory, "shop/b", "edge", 2);
    assert!(!scene.passes().await);
    assert_eq!((scene.held(), scene.told("shop/a")), (held(&[("shop/a", 1)]), ENFORCED.to_owned()));
    assert_eq!(scene.told("shop/b"), "Accepted=Unknown NotSent, Enforced=False NotSent");
    assert!(scene.message("shop/b").contains("spec.paused"), "{}", scene.message("shop/b"));
}

#[tokio::test]
async fn namespace_no_longer_admitted_takes_its_policies_out_of_force() {
    let mut scene = Scene::new().await;
    scene.memory.change(CLUSTER, &json!({ "spec": { "allowedNamespaces": ["guest"] } }));
    apply(&scene.memory, "guest/a", "shop/edge", 1);
    assert!(scene.passes().await);
    assert_eq!(scene.told("guest/a"), ENFORCED);
    scene.memory.change(CLUSTER, &json!({ "spec": { "allowedNamespaces": [] } }));
    scene.passes().await;
    assert_eq!(scene.held(), []);
    assert_eq!(scene.told("guest/a"), "Accepted=False NamespaceNotAllowed, Enforced=False NamespaceNotAllowed");
}

#[tokio::test]
async fn set_that_nodes_refuse_in_part_leaves_that_part_out_until_their_version_changes() {
    let mut scene = Scene::new().await;
    apply(&scene.memory, "shop/a", "edge", 1);
    apply(&scene.memory, "shop/b", "edge", 2);
    let words = json!({ "error": "no", "faults": [{ "path": "policies[1].spec.limits[0]", "message": "is unknown" }] });
    scene.memory.answer_instead("POST node", 400, words);
    scene.passes().await;
    assert_eq!((scene.held(), scene.told("shop/a")), (held(&[("shop/a", 1)]), ENFORCED.to_owned()));
    assert_eq!(scene.told("shop/b"), "Accepted=False Unsupported, Enforced=False Unsupported");
    assert!(scene.message("shop/b").contains("spec.limits[0]: is unknown"), "{}", scene.message("shop/b"));
    scene.writes();
    scene.passes().await;
    assert_eq!(Scene::pushes(&scene.writes()), 0, "it would be refused again");
    for ordinal in 0..3 {
        let mut newer = node(ordinal);
        for member in newer["members"].as_array_mut().unwrap() {
            member["version"] = "0.2.0".into();
        }
        scene.memory.node_says(ordinal, Some(newer));
    }
    assert!(scene.passes().await);
    assert_eq!(scene.told("shop/b"), ENFORCED);
}

#[tokio::test]
async fn member_that_lags_behind_keeps_a_policy_spreading_until_it_has_applied_it() {
    let mut scene = Scene::new().await;
    let lags = |revision: u64| {
        for ordinal in 0..3 {
            let mut said = node(ordinal);
            said["members"][2]["appliedRevision"] = revision.into();
            scene.memory.node_says(ordinal, Some(said));
        }
    };
    lags(1);
    apply(&scene.memory, "shop/a", "edge", 1);
    lags(1);
    assert!(!scene.passes().await);
    assert_eq!(scene.told("shop/a"), "Accepted=True Valid, Enforced=False Spreading, 2/3");
    for ordinal in 0..3 {
        scene.memory.node_says(ordinal, Some(node(ordinal)));
    }
    assert!(scene.passes().await);
    assert_eq!(scene.told("shop/a"), ENFORCED);
}

#[tokio::test]
async fn policy_in_force_when_no_pod_answers_any_more_is_not_written_again() {
    let mut scene = Scene::holding(&[("shop/a", 1)]).await;
    for ordinal in 0..3 {
        scene.memory.node_says(ordinal, None);
    }
    apply(&scene.memory, "shop/b", "edge", 2);
    assert!(!scene.passes().await);
    assert_eq!(scene.told("shop/a"), ENFORCED);
    assert_eq!(scene.told("shop/b"), "Accepted=Unknown NotSent, Enforced=False NotSent");
}

#[tokio::test]
async fn status_that_cannot_be_written_is_written_with_the_next_pass() {
    let mut scene = Scene::new().await;
    apply(&scene.memory, "shop/a", "edge", 1);
    scene.memory.answer_instead(&format!("PATCH {}/status", path("shop/a")), 500, failure(500, "InternalError"));
    assert!(!scene.passes().await);
    assert_eq!(scene.told("shop/a"), "nothing");
    assert!(scene.passes().await);
    assert_eq!((scene.told("shop/a"), scene.memory.held().0), (ENFORCED.to_owned(), 2));
}

#[tokio::test]
async fn cluster_deleted_and_created_again_policies_say_so_and_are_in_force_again() {
    let mut scene = Scene::holding(&[("shop/a", 1)]).await;
    scene.memory.remove(CLUSTER);
    scene.passes().await;
    assert_eq!(scene.told("shop/a"), "Accepted=False ClusterDeleted, Enforced=False ClusterDeleted");
    assert_eq!(Scene::pushes(&scene.writes()), 0, "what its pods hold until they end is theirs");
    scene.memory.put(CLUSTER, founded("another"));
    assert!(scene.passes().await);
    assert_eq!(scene.told("shop/a"), ENFORCED);
}

#[tokio::test]
async fn cluster_created_again_between_two_passes_is_told_of_its_policies_anew() {
    let mut scene = Scene::holding(&[("shop/a", 1)]).await;
    scene.memory.put(CLUSTER, founded("another"));
    assert!(scene.passes().await);
    assert_eq!(scene.memory.get(CLUSTER).unwrap()["status"]["policies"]["enforced"], "1/1");
}

#[tokio::test]
async fn addresses_that_went_to_another_cluster_have_nothing_pushed_to_them() {
    let mut scene = Scene::holding(&[("shop/a", 1)]).await;
    for ordinal in 0..3 {
        let mut other = node(ordinal);
        other["clusterId"] = "c2".into();
        scene.memory.node_says(ordinal, Some(other));
    }
    apply(&scene.memory, "shop/b", "edge", 2);
    assert!(!scene.passes().await);
    assert_eq!(scene.held(), held(&[("shop/a", 1)]));
    assert!(scene.message("shop/b").contains("answers for another cluster"), "{}", scene.message("shop/b"));
}

#[tokio::test]
async fn cluster_not_founded_yet_policy_applied_waits_and_says_so() {
    let mut scene = Scene::new().await;
    let mut cluster = founded("u");
    cluster["status"] = json!({});
    scene.memory.put(CLUSTER, cluster);
    apply(&scene.memory, "shop/a", "edge", 1);
    assert!(!scene.passes().await);
    assert!(scene.message("shop/a").contains("not founded yet"), "{}", scene.message("shop/a"));
    scene.memory.put(CLUSTER, founded("u"));
    assert!(scene.passes().await);
    assert_eq!(scene.told("shop/a"), ENFORCED);
}

#[tokio::test]
async fn policy_in_force_that_can_no_longer_be_read_stays_in_force() {
    let mut scene = Scene::holding(&[("shop/a", 1), ("shop/b", 2)]).await;
    scene.memory.change(&path("shop/a"), &json!({ "spec": { "onUnavailable": "Perhaps" } }));
    apply(&scene.memory, "shop/b", "edge", 3);
    scene.passes().await;
    assert_eq!(scene.held(), held(&[("shop/a", 1), ("shop/b", 3)]));
}

#[tokio::test]
async fn policy_in_force_that_only_a_newer_operator_can_read_stays_in_force_word_for_word() {
    let scene = Scene::holding(&[("shop/a", 1), ("shop/b", 2)]).await;
    scene.memory.change(&path("shop/a"), &json!({ "spec": { "newer": true } }));
    scene.memory.hold("operator", &["shop/a", "shop/b"].map(|name| scene.memory.get(&path(name)).unwrap()));
    let before = scene.memory.held_spec("shop/a");
    assert_eq!(before["newer"], true);
    let mut older = scene.anew();
    apply(&older.memory, "shop/b", "edge", 3);
    older.passes().await;
    assert_eq!(older.held(), held(&[("shop/a", 1), ("shop/b", 3)]));
    assert_eq!(older.memory.held_spec("shop/a"), before);
    older.memory.remove(&path("shop/a"));
    older.passes().await;
    assert_eq!(older.held(), held(&[("shop/b", 3)]), "deleted, it goes");
}

#[tokio::test]
async fn policies_in_force_limiters_that_list_more_than_this_operator_knows_are_pushed_to_once() {
    let scene = Scene::holding(&[("shop/a", 1), ("shop/b", 2)]).await;
    scene.memory.nodes_list_besides(json!({ "newer": true }));
    let revision = scene.memory.held().0;
    let mut older = scene.anew();
    assert!(older.passes().await);
    assert_eq!(
        (Scene::pushes(&older.memory.writes()), older.memory.held().0),
        (1, revision),
        "which says all are the same"
    );
    assert!(older.passes().await);
    assert_eq!(older.memory.writes(), [""; 0]);
    apply(&older.memory, "shop/b", "edge", 3);
    assert!(older.passes().await);
    assert_eq!((older.told("shop/a"), older.told("shop/b")), (ENFORCED.to_owned(), ENFORCED.to_owned()));
    assert_eq!(older.held(), held(&[("shop/a", 1), ("shop/b", 3)]));
}

#[tokio::test]
async fn kept_policy_that_nodes_refuse_holds_the_set_back_and_is_not_lost() {
    let scene = Scene::holding(&[("shop/a", 1), ("shop/b", 2)]).await;
    scene.memory.change(&path("shop/a"), &json!({ "spec": { "newer": true } }));
    scene.memory.hold("operator", &["shop/a", "shop/b"].map(|name| scene.memory.get(&path(name)).unwrap()));
    let mut older = scene.anew();
    apply(&older.memory, "shop/b", "edge", 3);
    let words = json!({ "error": "no", "faults": [{ "path": "policies[0].spec.newer", "message": "is unknown" }] });
    older.memory.answer_instead("POST node", 400, words);
    assert!(!older.passes().await);
    assert_eq!(older.held(), held(&[("shop/a", 1), ("shop/b", 2)]));
    assert_eq!(Scene::pushes(&older.memory.writes()), 1, "again it would be the same");
    older.passes().await;
    assert_eq!(older.held(), held(&[("shop/a", 1), ("shop/b", 3)]));
}

#[tokio::test]
async fn pod_that_answered_last_is_asked_alone_and_the_others_when_it_is_silent() {
    let mut scene = Scene::holding(&[("shop/a", 1)]).await;
    let answered = scene.keeper.table.answered().unwrap().pod.clone();
    let others = (0..3_u8).filter(|ordinal| format!("edge-{ordinal}") != answered);
    let [first, second] = others.collect::<Vec<_>>()[..] else { panic!("three pods") };
    for ordinal in [first, second] {
        scene.memory.node_says(ordinal, None);
    }
    assert!(scene.passes().await);
    assert_eq!(scene.keeper.table.answered().unwrap().pod, answered);
    scene.memory.node_says(answered.as_bytes()[5] - b'0', None);
    scene.memory.node_says(second, Some(node(second)));
    assert!(scene.passes().await);
    assert_eq!(scene.keeper.table.answered().unwrap().pod, format!("edge-{second}"));
}

#[tokio::test]
async fn pod_that_answered_last_answers_again_and_no_other_is_asked() {
    let mut scene = Scene::holding(&[("shop/a", 1)]).await;
    let mut asked = None;
    for _ in 0..20 {
        scene.memory.reads();
        let begun = Instant::now();
        assert!(scene.passes().await);
        // The others may be asked when it was slow, which is then the machine.
        if begun.elapsed() < OTHERS_AFTER {
            asked = Some(scene.memory.reads());
            break;
        }
    }
    let asked = asked.expect("one of twenty passes is quick");
    let answered = &scene.keeper.table.answered().unwrap().pod;
    assert_eq!(asked, [format!("{} /v1/cluster", answered.replace("edge-", "node "))]);
}

#[tokio::test]
async fn many_statuses_to_write_something_comes_and_is_looked_at_before_the_rest() {
    let mut scene = Scene::new().await;
    for number in 0..(WRITES_IN_A_ROW + 20) {
        apply(&scene.memory, &format!("shop/p{number}"), "edge", 1);
    }
    scene.keeper.world = Arc::new(World::still(&scene.memory));
    let (waker, woken) = watch::channel(());
    waker.send_replace(());
    assert!(!scene.keeper.pass(&woken).await);
    let statuses = scene.writes().iter().filter(|write| write.starts_with("PATCH")).count();
    assert_eq!(statuses, WRITES_IN_A_ROW);
    assert!(scene.passes().await);
    assert_eq!(scene.writes().len(), 20, "nothing is pushed or told twice");
}

#[tokio::test]
async fn policies_still_changing_cluster_is_told_of_now_and_then_and_at_the_end() {
    let mut scene = Scene::new().await;
    let enforced = |text: &str| PoliciesStatus { enforced: Some(text.to_owned()), revision: 1 };
    let shown = |scene: &Scene| scene.memory.get(CLUSTER).unwrap()["status"]["policies"]["enforced"].clone();
    for (text, is_steady, expected) in [("1/9", false, "1/9"), ("2/9", false, "1/9"), ("9/9", true, "9/9")] {
        let cluster = serde_json::from_value(scene.memory.get(CLUSTER).unwrap()).unwrap();
        scene.keeper.write_cluster(&cluster, enforced(text), is_steady).await;
        assert_eq!(shown(&scene), expected);
    }
}
