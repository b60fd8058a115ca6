//! One test for each bug of "Distributed Lock and Rate Limiting API", whose `/bucket` API this one keeps, that shows from
//! outside; and that its names hold across nodes and restarts. docs/doors/bucket.md tells of its other bugs.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::Method;
use quorate_tests::client::{Answer, Client};
use quorate_tests::cluster::{Cluster, Node, PATIENCE, Plan, eventually, figure};
use quorate_tests::load::{count, statuses};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::task::JoinSet;

async fn create(client: &mut Client, name: &str) -> Answer {
    client.post("/bucket", &json!({ "name": name })).await.unwrap()
}

async fn id_of(node: &Node, name: &str) -> String {
    create(&mut node.client(), name).await.expect_status(201).json::<Value>()["id"].as_str().unwrap().to_owned()
}

fn caller(node: &Node, id: &str) -> Client {
    node.client().header("x-api-id", id.as_bytes())
}

/// The policy of the built-in's name, with these figures.
async fn put_policy(cluster: &Cluster, hits: u64, window: &str) {
    let policy = json!({
        "apiVersion": "quorate.dev/v1alpha1",
        "kind": "QuotaPolicy",
        "metadata": { "name": "bucket", "namespace": "quorate" },
        "spec": {
            "domain": "bucket",
            "countBy": ["api_id"],
            "limits": [{ "name": "default", "algorithm": "FixedWindow", "limit": hits, "window": window }],
        },
    });
    cluster.node(0).admin_client().put_policy(&policy).await.unwrap();
}

/// It looked whether a name was there, and then wrote it.
#[tokio::test(flavor = "multi_thread")]
async fn forerunner_b_two_clients_get_one_name() {
    const NAMES: usize = 20;
    const CALLERS: usize = 12;
    let cluster = Plan::of(3).alone().start().await;
    let mut asking = JoinSet::new();
    for number in 0..CALLERS {
        let mut client = cluster.node(number % 3).client();
        asking.spawn(async move {
            let mut answers = vec![];
            for name in 0..NAMES {
                let name = format!("name-{name}");
                let answer = create(&mut client, &name).await;
                if answer.status != 201 {
                    let taken = json!({ "error": format!("bucket already exists: {name}") });
                    assert_eq!((answer.status, answer.json::<Value>()), (400, taken));
                }
                answers.push((answer.status == 201).then(|| answer.json::<Value>()["id"].as_str().unwrap().to_owned()));
            }
            answers
        });
    }
    let answers = asking.join_all().await;
    let mut ids = BTreeSet::new();
    for name in 0..NAMES {
        let created: Vec<_> = answers.iter().filter_map(|answers| answers[name].clone()).collect();
        assert_eq!(created.len(), 1, "name-{name} was given to {created:?}");
        ids.extend(created);
    }
    assert_eq!(ids.len(), NAMES, "each name has an id of its own");
    figure(&format!("{NAMES} names, each asked for by {CALLERS} at once over three nodes: each given once"));
}

/// Its lock was the same for all requests of a process, so it kept none of them out.
#[tokio::test(flavor = "multi_thread")]
async fn forerunner_b_lock_excludes_nobody_within_a_process() {
    let cluster = Plan::of(3).alone().start().await;
    let one = id_of(cluster.node(0), "through one").await;
    let seen = statuses((0..8).map(|_| caller(cluster.node(0), &one)).collect(), "/example", 25).await;
    assert_eq!((count(&seen, 200), count(&seen, 429)), (100, 100), "{seen:?}");
    let all = id_of(cluster.node(1), "through all").await;
    let seen = statuses((0..9).map(|number| caller(cluster.node(number % 3), &all)).collect(), "/example", 25).await;
    assert_eq!((count(&seen, 200), count(&seen, 429)), (100, 125), "{seen:?}");
}

/// It went on when it could not lock, and what it then counted was anybody's guess.
#[tokio::test(flavor = "multi_thread")]
async fn forerunner_b_goes_on_without_its_lock() {
    let cluster = Plan::of(3).start().await;
    let id = id_of(cluster.node(0), "x").await;
    cluster.node(1).kill();
    cluster.node(2).kill();
    let answer = caller(cluster.node(0), &id).get("/example").await.unwrap();
    assert_eq!((answer.status, answer.header("x-ratelimit-decision")), (503, "unavailable"), "{answer:?}");
    let answer = create(&mut cluster.node(0).client(), "y").await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.text().contains("may have been created: GET /v1/buckets"), "{answer:?}");
    // Whether an id stands for nobody only a leader knows.
    let nobody = caller(cluster.node(0), "00000000-0000-4000-8000-000000000000").get("/example").await.unwrap();
    assert_eq!(nobody.status, 503, "{nobody:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_leader_example_is_answered_as_its_policies_say() {
    let cluster = Plan::of(3).start().await;
    let node = cluster.node(0);
    let (open, shut) = (id_of(node, "open").await, id_of(node, "shut").await);
    let policy = json!({
        "apiVersion": "quorate.dev/v1alpha1",
        "kind": "QuotaPolicy",
        "metadata": { "name": "open" },
        "spec": {
            "domain": "bucket",
            "match": [{ "key": "api_id", "exact": open }],
            "countBy": ["api_id"],
            "limits": [{ "name": "only", "algorithm": "FixedWindow", "limit": 5, "window": "1h" }],
            "onUnavailable": "Allow",
        },
    });
    node.admin_client().put_policy(&policy).await.unwrap();
    // Then this node has applied all of it.
    assert!(caller(node, &open).get("/example").await.unwrap().header("ratelimit").contains("open/only"));
    cluster.node(1).kill();
    cluster.node(2).kill();
    let (mut allowed, mut denied) = (caller(node, &open), caller(node, &shut));
    let (allowed, denied) = tokio::join!(allowed.get("/example"), denied.get("/example"));
    let (allowed, denied) = (allowed.unwrap(), denied.unwrap());
    assert_eq!((allowed.status, allowed.header("x-ratelimit-decision")), (200, "allow-unavailable"));
    assert_eq!(allowed.text(), r#"{"message":"Hello, World!"}"#);
    assert_eq!((denied.status, denied.header("x-ratelimit-decision")), (503, "unavailable"));
    assert_eq!(denied.text(), r#"{"error":"no decision in time; the cluster may be without a leader"}"#);
    let metrics = node.client().get("/metrics").await.unwrap().text();
    for answer in ["allowed", "denied"] {
        let line = format!(r#"quorate_unavailable_total{{answer="{answer}",door="bucket"}} 1"#);
        assert!(metrics.contains(&line), "{line}");
    }
}

/// What it found when it denied a request it did not write, so a window that had ended went on being the old one. Here a
/// denial charges nothing and moves nothing: the window ends when it would have ended without it.
#[tokio::test(flavor = "multi_thread")]
async fn forerunner_b_denied_request_is_not_written() {
    let cluster = Plan::of(3).start().await;
    put_policy(&cluster, 2, "3s").await;
    let id = id_of(cluster.node(0), "x").await;
    let mut client = caller(cluster.node(1), &id);
    let begun = Instant::now();
    let mut denials = 0;
    for already in [0, 1] {
        for _ in already..2 {
            assert_eq!(client.get("/example").await.unwrap().status, 200);
        }
        let mut wait = u64::MAX;
        eventually(PATIENCE, "the window ends", async || {
            let answer = client.get("/example").await.unwrap();
            if answer.status == 200 {
                return Ok(());
            }
            denials += 1;
            assert_eq!(answer.header("ratelimit").split(';').nth(1), Some("r=0"), "{answer:?}");
            let later = answer.header("retry-after").parse().unwrap();
            assert!(later <= wait, "{later} s after {wait} s: a denial moved the end of the window");
            wait = later;
            Err("denied".to_owned())
        })
        .await;
    }
    assert!(denials > 0);
    assert!(begun.elapsed() >= Duration::from_secs(6), "two windows of 3 s took {:?}", begun.elapsed());
}

/// It kept every client it had ever seen. Here a counter ends soon after its window, and a name can be given back.
#[tokio::test(flavor = "multi_thread")]
async fn forerunner_b_buckets_never_expire() {
    let cluster = Plan::of(3).start().await;
    put_policy(&cluster, 100, "1s").await;
    let node = cluster.node(0);
    let counters = async || {
        let metrics = node.client().get("/metrics").await.unwrap().text();
        metrics.lines().find_map(|line| line.strip_prefix("quorate_counters ")).unwrap().parse::<u64>().unwrap()
    };
    for number in 0..20 {
        let id = id_of(node, &format!("client-{number}")).await;
        assert_eq!(caller(node, &id).get("/example").await.unwrap().status, 200);
    }
    eventually(PATIENCE, "the counters end", async || match counters().await {
        0 => Ok(()),
        left => Err(format!("{left} counters")),
    })
    .await;
    let id = id_of(node, "one more").await;
    let deleted = node.admin_client().send(Method::DELETE, "/v1/buckets/one%20more", Bytes::new()).await.unwrap();
    assert_eq!(deleted.status, 200, "{deleted:?}");
    for node in cluster.nodes() {
        eventually(PATIENCE, "its id stands for nobody", async || {
            let status = caller(node, &id).get("/example").await.unwrap().status;
            if status == 404 { Ok(()) } else { Err(status.to_string()) }
        })
        .await;
    }
    assert_ne!(id_of(cluster.node(2), "one more").await, id);
}

#[tokio::test(flavor = "multi_thread")]
async fn id_told_by_one_node_is_known_to_all_at_once() {
    let cluster = Plan::of(3).alone().start().await;
    for round in 0..60 {
        let id = id_of(cluster.node(round % 3), &format!("client-{round}")).await;
        for other in [1, 2] {
            let answer = caller(cluster.node((round + other) % 3), &id).get("/example").await.unwrap();
            assert_eq!(answer.status, 200, "round {round}: {answer:?}");
        }
    }
    // One that has not applied it yet does not say that there is none: it was stopped while the name was registered.
    let leader = cluster.leader().await;
    let late = cluster.node((leader + 1) % 3);
    late.signal(Signal::STOP);
    let id = id_of(cluster.node(leader), "while it stood still").await;
    late.signal(Signal::CONT);
    let answer = caller(late, &id).get("/example").await.unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_room_for_another_name_is_507_until_one_is_given_back() {
    const NAMES: usize = 10_000;
    let cluster = Plan::of(1).alone().start().await;
    let node = cluster.node(0);
    let next = Arc::new(AtomicUsize::new(0));
    let mut asking = JoinSet::new();
    for _ in 0..64 {
        let (mut client, next) = (node.client(), Arc::clone(&next));
        asking.spawn(async move {
            loop {
                match next.fetch_add(1, Ordering::Relaxed) {
                    number @ ..NAMES => drop(create(&mut client, &format!("client-{number}")).await.expect_status(201)),
                    _ => return,
                }
            }
        });
    }
    asking.join_all().await;
    let mut client = node.client();
    let full = create(&mut client, "late").await;
    let documented = format!("| 507 | `{}` |", full.text());
    let page = include_str!("../../../docs/doors/bucket.md");
    assert!(full.status == 507 && page.contains(&documented), "{} {documented}", full.status);
    assert_eq!(create(&mut client, "client-7").await.status, 400, "that it exists is said first");
    let deleted = node.admin_client().send(Method::DELETE, "/v1/buckets/client-7", Bytes::new()).await.unwrap();
    assert_eq!(deleted.status, 200, "{deleted:?}");
    let id = id_of(node, "late").await;
    assert_eq!(caller(node, &id).get("/example").await.unwrap().status, 200);
    assert_eq!(create(&mut client, "later").await.status, 507);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_what_they_used_outlive_all_nodes() {
    let cluster = Plan::of(3).start().await;
    let (first, second) = (id_of(cluster.node(0), "first").await, id_of(cluster.node(1), "second").await);
    put_policy(&cluster, 5, "1h").await;
    for _ in 0..3 {
        assert_eq!(caller(cluster.node(2), &first).get("/example").await.unwrap().status, 200);
    }
    cluster.nodes().iter().for_each(Node::kill);
    cluster.nodes().iter().for_each(Node::start);
    cluster.ready().await;
    let list = json!({ "buckets": [{ "name": "first", "id": first }, { "name": "second", "id": second }] });
    for node in cluster.nodes() {
        assert_eq!(node.admin_client().get("/v1/buckets").await.unwrap().json::<Value>(), list, "{}", node.name());
        assert_eq!(create(&mut node.client(), "first").await.status, 400);
    }
    let seen = statuses(vec![caller(cluster.node(0), &first)], "/example", 3).await;
    assert_eq!(seen, [200, 200, 429]);
}
