//! Scenarios named `<state>_<event>_<effect>` of the whole of it: watches, keepers and who tells of policies that cannot be
//! read, on an API server and nodes in memory.

use serde_json::json;

use super::testing::{CLUSTER, ENFORCED, apply, founded, path, policy, serving, told};
use super::*;
use crate::in_memory::{World as Memory, failure, within};

const POLICIES: &str = "GET /apis/quorate.dev/v1alpha1/quotapolicies?";

/// An operator that runs, until this is dropped.
struct Running {
    memory: Memory,
    _stop: watch::Sender<bool>,
}

impl Running {
    fn start(memory: Memory, context: Context) -> Self {
        let (stop, stopping) = watch::channel(false);
        tokio::spawn(run(context, stopping));
        Self { memory, _stop: stop }
    }

    async fn until_told(&self, name: &str, expected: &str) {
        self.memory
            .until(&format!("{name}: {expected}"), |memory| (told(memory, name) == expected).then_some(()))
            .await;
    }

    /// Until so many policies are counted as enforced.
    async fn until_counted(&self, context: &Context, count: usize) {
        let line =
            format!(r#"quorate_operator_objects{{condition="Enforced",kind="QuotaPolicy",status="True"}} {count}"#);
        let text = || String::from_utf8(context.metrics.text().unwrap()).unwrap();
        self.memory.until(&line, |_| text().lines().any(|said| said == line).then_some(())).await;
    }

    async fn until_held(&self, expected: &[(&str, i64)]) {
        let expected: Vec<_> = expected.iter().map(|(name, limit)| ((*name).to_owned(), *limit)).collect();
        let held = |memory: &Memory| {
            let mut held = memory.held().1;
            held.retain(|(name, _)| name != "quorate/default");
            (held == expected).then_some(())
        };
        self.memory.until(&format!("{expected:?} to be held"), held).await;
    }
}

#[tokio::test]
async fn operator_running_policy_applied_changed_and_deleted_is_followed() {
    let (memory, context) = serving().await;
    let running = Running::start(memory, context);
    apply(&running.memory, "shop/a", "edge", 1);
    running.until_told("shop/a", ENFORCED).await;
    apply(&running.memory, "shop/a", "edge", 2);
    running.until_told("shop/a", ENFORCED).await;
    running.until_held(&[("shop/a", 2)]).await;
    running.memory.remove(&path("shop/a"));
    running.until_held(&[]).await;
}

#[tokio::test]
async fn operator_starting_before_it_can_list_policies_takes_none_away() {
    let (memory, context) = serving().await;
    apply(&memory, "shop/a", "edge", 1);
    memory.hold("operator", &[memory.get(&path("shop/a")).unwrap()]);
    let before = memory.held();
    memory.answer_instead(POLICIES, 500, failure(500, "InternalError"));
    let running = Running::start(memory, context);
    running.until_told("shop/a", ENFORCED).await;
    assert_eq!(running.memory.held(), before, "nothing was pushed meanwhile");
}

#[tokio::test]
async fn operator_running_watch_that_has_expired_lists_anew_and_misses_nothing() {
    let (memory, context) = serving().await;
    apply(&memory, "shop/a", "edge", 1);
    apply(&memory, "shop/b", "edge", 1);
    let running = Running::start(memory, context.clone());
    running.until_told("shop/b", ENFORCED).await;
    running.until_counted(&context, 2).await;
    running.memory.answer_instead(POLICIES, 410, failure(410, "Expired"));
    running.memory.remove(&path("shop/a"));
    running.until_counted(&context, 1).await;
    apply(&running.memory, "shop/c", "edge", 3);
    running.until_told("shop/c", ENFORCED).await;
    running.until_held(&[("shop/b", 1), ("shop/c", 3)]).await;
}

#[tokio::test]
async fn policy_that_names_a_cluster_which_comes_later_is_in_force_then() {
    let (memory, context) = serving().await;
    memory.remove(CLUSTER);
    apply(&memory, "shop/a", "edge", 1);
    let running = Running::start(memory, context);
    running.until_told("shop/a", "Accepted=False ClusterNotFound, Enforced=False ClusterNotFound").await;
    running.memory.put(CLUSTER, founded("u"));
    running.until_told("shop/a", ENFORCED).await;
}

#[tokio::test]
async fn policy_that_cannot_be_read_is_told_what_is_wrong_once_and_mended_is_in_force() {
    let (memory, context) = serving().await;
    apply(&memory, "shop/a", "edge", 1);
    memory.change(&path("shop/a"), &json!({ "spec": { "onUnavailable": "Perhaps" } }));
    let status = format!("PATCH {}/status", path("shop/a"));
    memory.answer_instead(&status, 409, failure(409, "Conflict"));
    let running = Running::start(memory, context);
    // A conflict says that it changed, so it comes again.
    running.memory.until("a first attempt", |memory| memory.writes().contains(&status).then_some(())).await;
    running.memory.change(&path("shop/a"), &json!({ "metadata": { "generation": 2 } }));
    running.until_told("shop/a", "Accepted=False Invalid, Enforced=False Invalid").await;
    let message = running.memory.get(&path("shop/a")).unwrap()["status"]["conditions"][0]["message"].to_string();
    assert!(message.contains("Perhaps") && message.contains("upgrade the operator"), "{message}");
    running.memory.writes();
    apply(&running.memory, "shop/b", "edge", 1);
    running.until_told("shop/b", ENFORCED).await;
    assert!(!running.memory.writes().contains(&status), "told once");
    apply(&running.memory, "shop/a", "edge", 1);
    running.until_told("shop/a", ENFORCED).await;
}

#[tokio::test]
async fn policy_that_cannot_be_read_and_was_told_of_is_left_alone_by_an_operator_anew() {
    let (memory, context) = serving().await;
    apply(&memory, "shop/a", "edge", 1);
    memory.change(&path("shop/a"), &json!({ "spec": { "onUnavailable": "Perhaps" } }));
    let first = Running::start(memory.clone(), context.clone());
    first.until_told("shop/a", "Accepted=False Invalid, Enforced=False Invalid").await;
    drop(first);
    memory.writes();
    apply(&memory, "shop/b", "edge", 1);
    let second = Running::start(memory.clone(), context.clone());
    second.until_told("shop/b", ENFORCED).await;
    let text = || String::from_utf8(context.metrics.text().unwrap()).unwrap();
    let line = r#"quorate_operator_objects{condition="Accepted",kind="QuotaPolicy",status="False"} 1"#;
    memory.until("it to be counted", |_| text().contains(line).then_some(())).await;
    assert!(!memory.writes().contains(&format!("PATCH {}/status", path("shop/a"))));
}

#[tokio::test]
async fn policies_that_cannot_be_read_are_each_told_of_once_until_they_change() {
    let (memory, context) = serving().await;
    let running = Running::start(memory, context);
    let path_of = |name| path(&format!("shop/{name}"));
    for name in ["a", "b", "c"] {
        let mut unreadable = serde_json::to_value(policy(&format!("shop/{name}"), "edge", 1)).unwrap();
        unreadable["spec"]["onUnavailable"] = "Perhaps".into();
        running.memory.put(&path_of(name), unreadable);
        running.until_told(&format!("shop/{name}"), "Accepted=False Invalid, Enforced=False Invalid").await;
    }
    let reads = running.memory.reads();
    let looked_at = |name| reads.iter().filter(|read| **read == path_of(name)).count();
    assert_eq!(["a", "b", "c"].map(looked_at), [1, 1, 1], "those told of are not looked at again");
    let otherwise = json!({ "metadata": { "generation": 2 }, "spec": { "onUnavailable": "Maybe" } });
    running.memory.change(&path_of("a"), &otherwise);
    running.until_told("shop/a", "Accepted=False Invalid, Enforced=False Invalid").await;
    let message = running.memory.get(&path_of("a")).unwrap()["status"]["conditions"][0]["message"].to_string();
    assert!(message.contains("Maybe"), "{message}");
}

#[tokio::test]
async fn operator_running_told_to_stop_ends() {
    let (memory, context) = serving().await;
    apply(&memory, "shop/a", "edge", 1);
    let (stop, stopping) = watch::channel(false);
    let running = tokio::spawn(run(context, stopping));
    memory.until("the policy in force", |memory| (told(memory, "shop/a") == ENFORCED).then_some(())).await;
    stop.send_replace(true);
    within("the operator to end", running).await.unwrap().unwrap();
}

/// One of two namespaces, `gone`, cannot be listed so many times.
async fn one_forbidden(times: usize) -> (Memory, Context) {
    let (memory, context) = serving().await;
    for _ in 0..times {
        for list in [
            "apis/quorate.dev/v1alpha1/namespaces/gone/quotapolicies",
            "apis/quorate.dev/v1alpha1/namespaces/gone/ratelimitclusters",
            "api/v1/namespaces/gone/pods",
        ] {
            memory.answer_instead(&format!("GET /{list}?"), 403, failure(403, "Forbidden"));
        }
    }
    memory.change(CLUSTER, &json!({ "spec": { "allowedNamespaces": ["gone"] } }));
    apply(&memory, "gone/b", "shop/edge", 2);
    memory.hold("operator", &[memory.get(&path("gone/b")).unwrap()]);
    (memory, Context { namespaces: vec!["gone".to_owned(), "shop".to_owned()], ..context })
}

#[tokio::test]
async fn namespace_that_cannot_be_listed_leaves_its_policies_in_force_and_the_others_looked_after() {
    let (memory, context) = one_forbidden(100).await;
    apply(&memory, "shop/c", "gone/other", 1);
    let running = Running::start(memory, context);
    apply(&running.memory, "shop/a", "edge", 1);
    running.until_told("shop/a", ENFORCED).await;
    running.until_held(&[("gone/b", 2), ("shop/a", 1)]).await;
    let other = running.memory.get(&path("shop/c")).unwrap();
    assert!(other["status"].is_null(), "whether that cluster is there, nobody knows: {other}");
}

#[tokio::test]
async fn namespace_that_can_be_listed_again_is_looked_after_again() {
    let (memory, context) = one_forbidden(1).await;
    let running = Running::start(memory, context);
    running.until_told("gone/b", ENFORCED).await;
    running.memory.remove(&path("gone/b"));
    running.until_held(&[]).await;
}

#[tokio::test]
async fn keeper_that_panics_ends_the_operator_with_a_reason() {
    let (_memory, context) = serving().await;
    let (mut keepers, changes) = Keepers::new(context);
    keepers.tasks.spawn(async { panic!("out of bounds") });
    let why = within("the end", keepers.follow(changes)).await.unwrap_err();
    assert!(why.contains("QuotaPolicies") && why.contains("out of bounds"), "{why}");
}
