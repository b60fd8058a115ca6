//! Policies: created, changed and deleted on any node, from files, under load, by several owners.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use hyper::Method;
use quorate_tests::client::{Outcome, check_body, limit, policy};
use quorate_tests::cluster::{Cluster, PATIENCE, Plan, Signal, eventually, figure};
use quorate_tests::load::Load;
use serde_json::{Value, json};

const CHANGES: u64 = 20;

#[tokio::test(flavor = "multi_thread")]
async fn policy_created_changed_and_deleted_on_any_node_holds_on_every_node() {
    let cluster = Plan::of(3).start().await;
    let mut revision = 0;
    for (index, node) in cluster.nodes().iter().enumerate() {
        let name = format!("by-{index}");
        let prefix = format!("p{index}-");
        for quota in [2, 3] {
            let policy = policy(&name, &prefix, &json!([limit("FixedWindow", quota, "24h")]));
            let changed = node.admin_client().put_policy(&policy).await.unwrap();
            assert!(changed > revision, "each change has a revision of its own");
            revision = changed;
            for other in cluster.nodes() {
                let check = other.client().v1_check(&[("client_id", &format!("{prefix}1"))], 0).await.unwrap();
                assert_eq!((check.revision, check.limits[0].limit), (revision, quota), "on {}", other.name());
            }
        }
        // Raised from 2 to 3 with 2 used: one is left.
        let mut client = cluster.node((index + 1) % 3).client();
        let id = format!("{prefix}2");
        for expected in [Outcome::Admitted, Outcome::Admitted, Outcome::Admitted, Outcome::Denied] {
            assert_eq!(client.increment(&id).await, expected);
        }
        let view: Value = client.get(&format!("/v1/policies/default/{name}")).await.unwrap().expect_status(200).json();
        assert_eq!((&view["owner"], &view["revision"]), (&json!("api"), &json!(revision)), "{view}");
        assert_eq!(view["spec"]["limits"][0]["limit"], 3);
        revision = cluster.node((index + 2) % 3).admin_client().delete_policy("default", &name).await.unwrap();
        for other in cluster.nodes() {
            let check = other.client().v1_check(&[("client_id", &id)], 1).await.unwrap();
            assert!(check.admitted && check.limits.is_empty(), "{check:?} on {}", other.name());
            let gone = other.client().get(&format!("/v1/policies/default/{name}")).await.unwrap();
            assert_eq!(gone.status, 404);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn policy_put_again_unchanged_keeps_its_revision() {
    let cluster = Plan::of(1).start().await;
    let policy = policy("same", "s", &json!([limit("FixedWindow", 5, "1m")]));
    let mut admin = cluster.node(0).admin_client();
    let first = admin.put_policy(&policy).await.unwrap();
    assert_eq!(admin.put_policy(&policy).await.unwrap(), first);
}

#[tokio::test(flavor = "multi_thread")]
async fn limit_raised_and_lowered_what_was_used_stays_used() {
    let cluster = Plan::of(3).start().await;
    let mut admin = cluster.node(0).admin_client();
    let mut client = cluster.node(1).client();
    for algorithm in ["FixedWindow", "SlidingWindow", "TokenBucket"] {
        let name = algorithm.to_lowercase();
        for (quota, remaining) in [(10, 10 - 4), (20, 20 - 4 - 4), (9, 0)] {
            let policy = policy(&name, &name, &json!([limit(algorithm, quota, "240h")]));
            admin.put_policy(&policy).await.unwrap();
            for _ in 0..4 {
                client.increment(&name).await;
            }
            let left = client.check(&name).await.unwrap().remaining_quota.unwrap();
            assert_eq!(left, remaining, "{algorithm} of {quota}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn policy_deleted_and_made_again_counts_anew() {
    let cluster = Plan::of(1).start().await;
    let policy = policy("again", "a", &json!([limit("FixedWindow", 1, "24h")]));
    let (mut admin, mut client) = (cluster.node(0).admin_client(), cluster.node(0).client());
    for _ in 0..3 {
        admin.put_policy(&policy).await.unwrap();
        assert_eq!(client.increment("a").await, Outcome::Admitted);
        assert_eq!(client.increment("a").await, Outcome::Denied);
        admin.delete_policy("default", "again").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn policy_changed_under_load_is_in_force_everywhere_once_acknowledged() {
    let cluster = Plan::of(3).alone().start().await;
    let quota = |change: u64| policy("moving", "load", &json!([limit("FixedWindow", 1_000_000 + change, "24h")]));
    cluster.node(0).admin_client().put_policy(&quota(0)).await.unwrap();
    let load = Load {
        path: "/v1/check".to_owned(),
        body: check_body(&[("client_id", "load")], 1),
        connections: 24,
        ..Load::increments(cluster.addresses(), "")
    };
    let running = load.start();
    let mut acknowledged = vec![];
    for change in 1..=CHANGES {
        let node = cluster.node(usize::try_from(change).unwrap() % 3);
        let revision = node.admin_client().put_policy(&quota(change)).await.unwrap();
        acknowledged.push((Instant::now(), revision, 1_000_000 + change));
        let enough = running.admitted() + 300;
        eventually(PATIENCE, "the load goes on", async || {
            if running.admitted() >= enough { Ok(()) } else { Err(running.admitted().to_string()) }
        })
        .await;
    }
    let history = running.stop().await;
    assert_eq!(history.unknown(), 0, "{:?}", history.problems());
    let mut judged = 0;
    for record in &history.records {
        let in_force = acknowledged.iter().rev().find(|(at, ..)| *at <= record.started);
        let Some((_, revision, limit)) = in_force else { continue };
        assert!(record.revision >= Some(*revision), "judged by an older revision: {record:?}, {revision} was in force");
        assert!(record.limit >= Some(*limit), "judged by an older limit: {record:?}, {limit} was in force");
        judged += 1;
    }
    figure(&format!("{CHANGES} changes under load: {judged} requests sent after one, none judged by an older policy"));
    assert!(judged > 1000, "the load was too small to show anything");
}

#[tokio::test(flavor = "multi_thread")]
async fn limit_lowered_to_zero_under_load_nothing_sent_later_is_admitted() {
    let cluster = Plan::of(3).alone().start().await;
    let quota = |limit_now| policy("gate", "load", &json!([limit("TokenBucket", limit_now, "24h")]));
    let mut admin = cluster.node(1).admin_client();
    for round in 0..3 {
        admin.put_policy(&quota(1_000_000)).await.unwrap();
        let running =
            Load { connections: 24, ..Load::increments(cluster.addresses(), &format!("load-{round}")) }.start();
        eventually(PATIENCE, "requests are admitted", async || {
            if running.admitted() > 300 { Ok(()) } else { Err(String::new()) }
        })
        .await;
        admin.put_policy(&quota(0)).await.unwrap();
        let closed = Instant::now();
        eventually(
            PATIENCE,
            "requests are denied",
            async || {
                if running.denied() > 300 { Ok(()) } else { Err(String::new()) }
            },
        )
        .await;
        let history = running.stop().await;
        let late = history.records.iter().filter(|r| r.started >= closed && r.outcome == Outcome::Admitted).count();
        assert_eq!(late, 0, "requests sent after the acknowledgement were admitted");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn policy_files_at_start_and_on_sighup_are_the_policies_of_the_files() {
    let plan = Plan::of(3).set("POLICIES", "{dir}/policies");
    let cluster = plan.build().await;
    let folder = cluster.dir().join("policies");
    std::fs::create_dir(&folder).unwrap();
    write_policies(&folder, "a.yaml", &[("one", "one", 1), ("two", "two", 2)]);
    write_policies(&folder, "b.yml", &[("three", "three", 3)]);
    for node in cluster.nodes() {
        node.start();
    }
    cluster.ready().await;
    files_are(&cluster, &[("one", Some(1)), ("two", Some(2)), ("three", Some(3))]).await;
    // Each node proposes what it read at its start: none may still be about to.
    for node in cluster.nodes() {
        eventually(PATIENCE, &format!("{} has seen to its files", node.name()), async || {
            let log = node.log();
            if log.contains("the files are in force") || log.contains("those of the files") { Ok(()) } else { Err(log) }
        })
        .await;
    }
    let mut client = cluster.node(0).client();
    assert_eq!(client.increment("two").await, Outcome::Admitted);

    // One changed, one gone, one new.
    write_policies(&folder, "a.yaml", &[("one", "one", 11), ("four", "four", 4)]);
    cluster.node(2).signal(Signal::HUP);
    files_are(&cluster, &[("one", Some(11)), ("two", None), ("three", Some(3)), ("four", Some(4))]).await;

    // A file that cannot be read changes nothing, and the node says which and where.
    std::fs::write(
        folder.join("b.yml"),
        "apiVersion: quorate.dev/v1alpha1\nkind: QuotaPolicy\nmetadata: {name: x}\nspec: {lmits: []}\n",
    )
    .unwrap();
    cluster.node(2).signal(Signal::HUP);
    eventually(PATIENCE, "the log names the file and the field", async || {
        let log = cluster.node(2).log();
        if log.contains("b.yml") && log.contains("lmits") { Ok(()) } else { Err(log) }
    })
    .await;
    files_are(&cluster, &[("one", Some(11)), ("three", Some(3)), ("four", Some(4))]).await;
    assert_eq!(client.increment("one").await, Outcome::Admitted);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_changed_before_a_node_that_has_read_them_could_propose_them_the_newer_ones_are_in_force() {
    let plan = Plan::of(3).set("POLICIES", "{dir}/policies");
    let cluster = plan.build().await;
    let folder = cluster.dir().join("policies");
    std::fs::create_dir(&folder).unwrap();
    write_policies(&folder, "a.yaml", &[("one", "one", 1)]);
    // Alone it is not ready, but it has started, so it has read its files.
    let first = cluster.node(0);
    first.start();
    eventually(PATIENCE, "it answers", async || {
        first.client().get("/health").await.map(|_| ()).map_err(|error| error.to_string())
    })
    .await;
    write_policies(&folder, "a.yaml", &[("one", "one", 2)]);
    for node in &cluster.nodes()[1..] {
        node.unset("POLICIES");
        node.start();
    }
    cluster.ready().await;
    eventually(PATIENCE, "it has seen to its files", async || {
        let log = first.log();
        if log.contains("the policies of the files are in force") { Ok(()) } else { Err(log) }
    })
    .await;
    files_are(&cluster, &[("one", Some(2))]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn policy_of_the_files_changed_through_the_api_is_refused() {
    let plan = Plan::of(1).set("POLICIES", "{dir}/policies");
    let cluster = plan.build().await;
    let folder = cluster.dir().join("policies");
    std::fs::create_dir(&folder).unwrap();
    write_policies(&folder, "a.yaml", &[("mine", "mine", 1)]);
    cluster.node(0).start();
    cluster.ready().await;
    files_are(&cluster, &[("mine", Some(1))]).await;
    let before = cluster.node(0).client().get("/v1/policies").await.unwrap().text();
    let mut admin = cluster.node(0).admin_client();
    let theirs = policy("mine", "mine", &json!([limit("FixedWindow", 9, "24h")]));
    let put = admin.send(Method::PUT, "/v1/policies/default/mine", theirs.to_string().into()).await.unwrap();
    let delete = admin.send(Method::DELETE, "/v1/policies/default/mine", Bytes::new()).await.unwrap();
    for refused in [put, delete] {
        let text = refused.expect_status(409).text();
        assert!(text.contains("policy files") && text.contains("default/mine"), "who holds what? {text}");
    }
    assert_eq!(cluster.node(0).client().get("/v1/policies").await.unwrap().text(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn set_of_policies_applied_is_all_of_its_owner_at_one_revision() {
    let cluster = Plan::of(3).start().await;
    let mut admin = cluster.node(0).admin_client();
    admin.put_policy(&policy("old", "old", &json!([limit("FixedWindow", 1, "24h")]))).await.unwrap();
    let set = json!({"policies": [
        policy("new-a", "a", &json!([limit("FixedWindow", 1, "24h")])),
        policy("new-b", "b", &json!([limit("FixedWindow", 2, "24h")])),
    ]});
    let answer: Value = admin.post("/v1/policies:apply", &set).await.unwrap().expect_status(200).json();
    // A node lists what it has applied, which may be a moment behind the node that was told.
    let list = eventually(PATIENCE, "another node has applied the set", async || {
        let list: Value = cluster.node(1).client().get("/v1/policies").await.unwrap().expect_status(200).json();
        if list["revision"] == answer["revision"] { Ok(list) } else { Err(format!("revision {}", list["revision"])) }
    })
    .await;
    let names: Vec<_> = list["policies"].as_array().unwrap().iter().map(|p| p["metadata"]["name"].clone()).collect();
    assert_eq!(names, ["new-a", "new-b", "bucket"], "and the one of the founding");
}

#[tokio::test(flavor = "multi_thread")]
async fn shadow_override_prefix_and_disabled_policies_decide_as_written() {
    let cluster = Plan::of(1).start().await;
    let (mut admin, mut client) = (cluster.node(0).admin_client(), cluster.node(0).client());
    let mut shadow = policy("shadow", "shadow-", &json!([limit("FixedWindow", 1, "24h")]));
    shadow["spec"]["enforcement"] = json!("Shadow");
    let mut disabled = policy("disabled", "disabled-", &json!([limit("FixedWindow", 0, "24h")]));
    disabled["spec"]["enforcement"] = json!("Disabled");
    let mut overridden = policy("tiers", "tier-", &json!([limit("FixedWindow", 3, "24h")]));
    overridden["spec"]["overrides"] = json!([
        {"match": [{"key": "client_id", "prefix": "tier-trial-"}], "limits": [{"name": "only", "limit": 1}]},
        {"match": [{"key": "client_id", "prefix": "tier-trial-long-"}], "limits": [{"name": "only", "limit": 2}]},
        {"match": [{"key": "client_id", "exact": "tier-trial-acme"}], "limits": [{"name": "only", "limit": 5}]},
    ]);
    for policy in [shadow, disabled, overridden] {
        admin.put_policy(&policy).await.unwrap();
    }
    let cases = [
        ("shadow-a", 10),
        ("disabled-a", 10),
        ("tier-a", 3),
        ("tier-trial-a", 1),
        ("tier-trial-long-a", 2),
        ("tier-trial-acme", 5),
        // Matched by none.
        ("other", 10),
    ];
    for (client_id, expected) in cases {
        let mut admitted = 0;
        for _ in 0..10 {
            admitted += u32::from(client.increment(client_id).await == Outcome::Admitted);
        }
        assert_eq!(admitted, expected, "{client_id}");
    }
    let metrics = client.get("/metrics").await.unwrap().expect_status(200).text();
    let shadow_denied = metrics.lines().find(|line| line.contains("default/shadow") && line.contains("shadow_denied"));
    assert!(shadow_denied.is_some_and(|line| line.ends_with(" 9")), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn default_limit_meets_only_what_no_other_policy_matches() {
    let cluster = Plan::of(3).set("DEFAULT_LIMIT", "2/24h").start().await;
    let special = policy("special", "special", &json!([limit("FixedWindow", 4, "24h")]));
    cluster.node(0).admin_client().put_policy(&special).await.unwrap();
    for (client_id, expected) in [("anyone", 2), ("special", 4), ("someone", 2)] {
        let mut admitted = 0;
        for turn in 0..6 {
            admitted += u32::from(cluster.node(turn % 3).client().increment(client_id).await == Outcome::Admitted);
        }
        assert_eq!(admitted, expected, "{client_id}");
    }
    // Proposed once at the founding: a restart with another value changes nothing.
    let node = cluster.node(0);
    node.stop().await;
    node.set("DEFAULT_LIMIT", "50/24h");
    node.start();
    node.ready().await;
    assert_eq!(node.client().increment("anyone").await, Outcome::Denied);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_writers_race_for_one_policy_every_node_ends_with_the_last_revision() {
    let cluster = Plan::of(3).start().await;
    let last = AtomicU64::new(0);
    let failed = AtomicBool::new(false);
    let write = async |index: usize| {
        let mut admin = cluster.node(index).admin_client();
        for turn in 0..20u64 {
            let quota = turn * 2 + index as u64 + 1;
            let policy = policy("raced", "r", &json!([limit("FixedWindow", quota, "24h")]));
            match admin.put_policy(&policy).await {
                Ok(revision) => last.fetch_max(revision << 16 | quota, Ordering::Relaxed),
                Err(_) => u64::from(failed.swap(true, Ordering::Relaxed)),
            };
        }
    };
    tokio::join!(write(0), write(1));
    assert!(!failed.load(Ordering::Relaxed));
    let (revision, quota) = (last.load(Ordering::Relaxed) >> 16, last.load(Ordering::Relaxed) & 0xffff);
    for node in cluster.nodes() {
        let check = node.client().v1_check(&[("client_id", "r")], 0).await.unwrap();
        assert_eq!((check.revision, check.limits[0].limit), (revision, quota), "on {}", node.name());
    }
}

/// A file of several documents, each a policy (name, prefix, limit).
fn write_policies(folder: &std::path::Path, file: &str, policies: &[(&str, &str, u64)]) {
    let mut text = String::new();
    for (name, prefix, limit) in policies {
        write!(
            text,
            "---\napiVersion: quorate.dev/v1alpha1\nkind: QuotaPolicy\nmetadata: {{name: {name}}}\nspec:\n  match: \
             [{{key: client_id, prefix: {prefix}}}]\n  limits: [{{name: only, algorithm: FixedWindow, limit: {limit}, \
             window: 24h}}]\n"
        )
        .unwrap();
    }
    std::fs::write(folder.join(file), text).unwrap();
}

/// Waits until each node has (or has no longer) these policies of the files.
async fn files_are(cluster: &Cluster, expected: &[(&str, Option<u64>)]) {
    for node in cluster.nodes() {
        eventually(PATIENCE, &format!("{} has {expected:?}", node.name()), async || {
            for (name, limit) in expected {
                let path = format!("/v1/policies/default/{name}");
                let answer = node.client().get(&path).await.map_err(|error| error.to_string())?;
                let found = if answer.status == 200 {
                    let view: Value = answer.json();
                    assert_eq!(view["owner"], "files");
                    view["spec"]["limits"][0]["limit"].as_u64()
                } else {
                    None
                };
                if found != *limit {
                    return Err(format!("{name}: {found:?}"));
                }
            }
            Ok(())
        })
        .await;
    }
}
