//! A node that is stopped for longer than anybody waits, as by SIGSTOP, a stalled disk or a paused virtual machine: the rest
//! decide, and what it says when it goes on is not from when it stopped.

use std::time::{Duration, Instant};

use quorate_tests::client::{Answer, Check, Client, Outcome, check_body, limit, policy};
use quorate_tests::cluster::{Cluster, PATIENCE, Plan, Signal, eventually, figure, pause};
use quorate_tests::load::Load;
use serde_json::{Value, json};

const STOPPED_FOR: Duration = Duration::from_secs(10);
/// What the rest may take until they decide again.
const DECIDED: Duration = Duration::from_secs(3);
/// Longer than a node is stopped.
const WAIT: Duration = Duration::from_secs(30);

const LEDGER: u64 = 1000;
const CHARGED_MEANWHILE: u64 = 50;
const EDGE: u64 = 10;

/// Requests that are sent to a stopped node, and wait in its sockets until it goes on.
struct Waiting {
    answers: Vec<tokio::task::JoinHandle<Answer>>,
}

impl Waiting {
    /// Connections that the node knows; what is sent over them later is in its socket at once.
    async fn connections(cluster: &Cluster, node: usize, count: usize) -> Vec<Client> {
        let mut clients = vec![];
        for _ in 0..count {
            let mut client = cluster.node(node).client().patient(WAIT);
            assert_eq!(client.get("/health").await.unwrap().status, 200);
            clients.push(client);
        }
        clients
    }

    fn post(clients: impl Iterator<Item = Client>, path: &str, body: &Value) -> Self {
        let send = |mut client: Client| {
            let (path, body) = (path.to_owned(), body.clone());
            tokio::spawn(async move { client.post(&path, &body).await.unwrap() })
        };
        Self { answers: clients.map(send).collect() }
    }

    fn get(clients: impl Iterator<Item = Client>, path: &str) -> Self {
        let send = |mut client: Client| {
            let path = path.to_owned();
            tokio::spawn(async move { client.get(&path).await.unwrap() })
        };
        Self { answers: clients.map(send).collect() }
    }

    fn assert_unanswered(&self) {
        assert!(self.answers.iter().all(|answer| !answer.is_finished()), "a stopped node has answered");
    }

    async fn all(self) -> Vec<Answer> {
        futures::future::join_all(self.answers).await.into_iter().map(Result::unwrap).collect()
    }
}

async fn at_least(what: &str, count: impl Fn() -> u64, wanted: u64) {
    eventually(PATIENCE, what, async || {
        let count = count();
        if count >= wanted { Ok(()) } else { Err(format!("{count} of {wanted}")) }
    })
    .await;
}

/// Stops a node under load for ten seconds and lets it go on. How long the rest took to decide.
async fn stopped_and_continued(cluster: &Cluster, node: usize, who: &str) -> Duration {
    let others: Vec<usize> = (0..3).filter(|other| *other != node).collect();
    let (edge, ledger) = (format!("edge-{who}"), format!("ledger-{who}"));
    let mut connections = Waiting::connections(cluster, node, 12).await.into_iter();
    let running = Load { connections: 16, ..Load::increments(cluster.addresses(), &format!("load-{who}")) }.start();
    at_least("requests are admitted", || running.admitted(), 200).await;

    let stopped_at = Instant::now();
    cluster.node(node).signal(Signal::STOP);
    let mut client = cluster.node(others[0]).client();
    let outage = eventually(PATIENCE, "the rest decide", async || match client.increment(&ledger).await {
        Outcome::Admitted => Ok(stopped_at.elapsed()),
        other => Err(format!("{other:?}")),
    })
    .await;
    // Everything that is sent to the stopped node below is sent after these were acknowledged.
    for turn in 1..CHARGED_MEANWHILE {
        let mut client = cluster.node(others[usize::try_from(turn).unwrap() % 2]).client();
        assert_eq!(client.increment(&ledger).await, Outcome::Admitted);
    }
    for _ in 0..EDGE {
        assert_eq!(client.increment(&edge).await, Outcome::Admitted);
    }
    let changed = policy("changed", "changed-", &json!([limit("FixedWindow", 1, "24h")]));
    let revision = cluster.node(others[1]).admin_client().put_policy(&changed).await.unwrap();

    let increments =
        Waiting::post(connections.by_ref().take(4), &format!("/rate/increment?client_id={edge}"), &Value::Null);
    let checks = Waiting::get(connections.by_ref().take(4), &format!("/rate/check?client_id={ledger}"));
    let local =
        Waiting::get(connections.by_ref().take(1), &format!("/rate/check?client_id={ledger}&consistency=local"));
    let judged = Waiting::post(connections, "/v1/check", &check_body(&[("client_id", &format!("changed-{who}"))], 2));
    pause(STOPPED_FOR.saturating_sub(stopped_at.elapsed())).await;
    [&increments, &checks, &local, &judged].into_iter().for_each(Waiting::assert_unanswered);
    cluster.node(node).signal(Signal::CONT);

    for answer in increments.all().await {
        assert_eq!(Outcome::of(&answer), Outcome::Denied, "the limit was used up: {}", answer.text());
    }
    for answer in checks.all().await {
        let left = answer.expect_status(200).json::<Value>()["remaining_quota"].as_u64().unwrap();
        assert!(left <= LEDGER - CHARGED_MEANWHILE, "{left} left of {LEDGER}, although {CHARGED_MEANWHILE} are gone");
    }
    for answer in local.all().await {
        // What this node has applied may be old, but was true once.
        let left = answer.expect_status(200).json::<Value>()["remaining_quota"].as_u64().unwrap();
        assert!((LEDGER - CHARGED_MEANWHILE..=LEDGER).contains(&left), "{left} left of {LEDGER}");
    }
    for answer in judged.all().await {
        let check: Check = answer.expect_status(429).json();
        assert!(check.revision >= revision, "judged by revision {} after {revision}", check.revision);
    }
    let mut woken = cluster.node(node).client();
    assert_eq!(woken.check(&ledger).await.unwrap().remaining_quota, Some(LEDGER - CHARGED_MEANWHILE));
    let history = running.stop().await;
    let used = 1_000_000 - woken.check(&format!("load-{who}")).await.unwrap().remaining_quota.unwrap();
    let (admitted, unknown) = (history.admitted(), history.unknown());
    assert!((admitted..=admitted + unknown).contains(&used), "{used} used, {admitted} admitted, {unknown} unknown");
    outage
}

#[tokio::test(flavor = "multi_thread")]
async fn follower_and_leader_stopped_for_ten_seconds_the_rest_decide_and_nothing_stale_is_answered() {
    let cluster = Plan::of(3).alone().start().await;
    let mut admin = cluster.node(0).admin_client();
    for (name, hits) in [("load", 1_000_000), ("ledger", LEDGER), ("edge", EDGE), ("changed", 100)] {
        let limits = json!([limit("FixedWindow", hits, "24h")]);
        admin.put_policy(&policy(name, &format!("{name}-"), &limits)).await.unwrap();
    }
    for who in ["follower", "leader"] {
        let changed = policy("changed", "changed-", &json!([limit("FixedWindow", 100, "24h")]));
        admin.put_policy(&changed).await.unwrap();
        let leader = cluster.leader().await;
        let node = if who == "leader" { leader } else { (leader + 1) % 3 };
        let outage = stopped_and_continued(&cluster, node, who).await;
        figure(&format!("{who} stopped for {STOPPED_FOR:?} under load: the rest decide after {outage:.2?}"));
        assert!(outage < DECIDED, "{who}: {outage:?}");
        cluster.ready().await;
    }
}
