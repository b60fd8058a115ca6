//! Wall clocks that are wrong, and that jump while a node runs: no window ends early or late by it.
//!
//! libfaketime stands between a node and the C library's clock. It shifts `CLOCK_MONOTONIC` too unless it is told not to,
//! which no machine's wall clock does; one test does it all the same, since nothing but the clock's differences may count.

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use quorate_tests::client::{Outcome, policy};
use quorate_tests::cluster::{Cluster, PATIENCE, Plan, eventually, figure};
use serde_json::{Value, json};

const WINDOW: Duration = Duration::from_secs(5);
/// How far off a wrong clock is, either way.
const OFF_SECONDS: i64 = 600;
/// What an election may take: for as long nobody can be told that a window has ended.
const ELECTION: Duration = Duration::from_secs(3);

const DAY_SECONDS: i64 = 86_400;

/// By name, a counter that is used up by one hit and free again a window later.
fn policies() -> Vec<Value> {
    let limit = |algorithm: &str| json!([{"name": "only", "algorithm": algorithm, "limit": 1, "window": "5s"}]);
    vec![policy("fixed", "fixed-", &limit("FixedWindow")), policy("bucket", "bucket-", &limit("TokenBucket"))]
}

fn libfaketime() -> PathBuf {
    let mut found = std::fs::read_dir("/usr/lib").unwrap().flatten().map(|entry| entry.path());
    let library = found.find_map(|dir| Some(dir.join("faketime/libfaketimeMT.so.1")).filter(|path| path.exists()));
    library.expect("libfaketime is installed; `make test-faults` does it")
}

/// Three nodes whose wall clocks are moved by [`set_clock`].
async fn start(fakes_monotonic: bool) -> Cluster {
    let cluster = Plan::of(3).alone().set("LD_PRELOAD", libfaketime().display().to_string()).build().await;
    for (index, node) in cluster.nodes().iter().enumerate() {
        node.set("FAKETIME_TIMESTAMP_FILE", clock_file(&cluster, index).display().to_string());
        node.set("FAKETIME_NO_CACHE", "1");
        node.set("FAKETIME_DONT_FAKE_MONOTONIC", if fakes_monotonic { "0" } else { "1" });
        set_clock(&cluster, index, if fakes_monotonic && index == 0 { OFF_SECONDS } else { 0 });
        node.start();
    }
    cluster.ready().await;
    for policy in policies() {
        cluster.node(0).admin_client().put_policy(&policy).await.unwrap();
    }
    cluster
}

fn clock_file(cluster: &Cluster, node: usize) -> PathBuf {
    cluster.dir().join(format!("clock-{node}"))
}

/// From now on the node's wall clock is off by so much.
fn set_clock(cluster: &Cluster, node: usize, seconds: i64) {
    let file = clock_file(cluster, node);
    // Replaced as a whole: a node that reads it half written would stop.
    let new = file.with_extension("new");
    std::fs::write(&new, format!("{seconds:+}s")).unwrap();
    std::fs::rename(new, file).unwrap();
}

/// How far off the wall clock was, in seconds, when the node wrote the last line of its log.
fn clock_in_log(cluster: &Cluster, node: usize) -> i64 {
    let log = cluster.node(node).log();
    let time = log.lines().rev().find_map(|line| line.split_once('T')?.1.get(..8)).unwrap();
    let of_day = time.split(':').fold(0, |sum, part| sum * 60 + part.parse::<i64>().unwrap());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().cast_signed() % DAY_SECONDS;
    let off = (of_day - now).rem_euclid(DAY_SECONDS);
    if off > DAY_SECONDS / 2 { off - DAY_SECONDS } else { off }
}

/// Makes `node` lead.
async fn lead(cluster: &Cluster, node: usize) {
    eventually(PATIENCE, "the node leads", async || {
        let leader = cluster.leader().await;
        if leader == node {
            return Ok(());
        }
        let status = cluster.node(leader).client().cluster_status().await?;
        let name = cluster.node(node).name();
        let target = status.members.iter().find(|member| member.name == name).ok_or("it is no member")?.id.clone();
        let mut admin = cluster.node(leader).admin_client();
        let answer = admin.post("/v1/cluster/transfer-leader", &json!({"to": target})).await;
        Err(answer.map_or_else(|error| error.to_string(), |answer| answer.text()))
    })
    .await;
}

/// Both counters of `id` are used up at one moment, or neither.
async fn open(cluster: &Cluster, node: usize, id: &str) -> Opened {
    let mut client = cluster.node(node).client();
    let begun = Instant::now();
    for kind in ["fixed", "bucket"] {
        assert_eq!(client.increment(&format!("{kind}-{id}")).await, Outcome::Admitted);
        assert_eq!(client.increment(&format!("{kind}-{id}")).await, Outcome::Denied);
    }
    Opened { begun, ended: Instant::now() }
}

/// Between these a window was begun.
struct Opened {
    begun: Instant,
    ended: Instant,
}

/// Waits until the counters admit again, at whichever node; how much later than a window's length, at most.
async fn free(cluster: &Cluster, opened: &Opened, id: &str, what: &str) -> Duration {
    let mut latest = Duration::ZERO;
    for kind in ["fixed", "bucket"] {
        let mut turn = 0;
        let asked = eventually(WINDOW + PATIENCE, "the window ends", async || {
            turn += 1;
            let asked = Instant::now();
            let outcome = cluster.node(turn % 3).client().increment(&format!("{kind}-{id}")).await;
            if outcome == Outcome::Admitted { Ok(asked) } else { Err(format!("{outcome:?}")) }
        })
        .await;
        // The fixed window's counter is asked first; the bucket's is free by then, or soon after.
        let span = opened.begun.elapsed();
        assert!(span >= WINDOW, "{kind}: the window of {WINDOW:?} has ended after {span:?}, {what}");
        latest = latest.max(asked.saturating_duration_since(opened.ended + WINDOW));
    }
    assert!(latest < ELECTION, "the window of {WINDOW:?} was longer by {latest:?}, {what}");
    latest
}

#[tokio::test(flavor = "multi_thread")]
async fn wall_clock_of_the_leader_jumps_and_it_is_killed_and_restarted_no_window_ends_early_or_late() {
    let cluster = start(false).await;
    let mut latest = Duration::ZERO;
    for node in 0..3 {
        for off in [OFF_SECONDS, -OFF_SECONDS] {
            let (id, what) = (format!("{node}{off}"), format!("node {node} off by {off} s"));
            lead(&cluster, node).await;
            let opened = open(&cluster, (node + 1) % 3, &id).await;
            set_clock(&cluster, node, off);
            // Decided and stamped by the leader whose clock has just jumped.
            for kind in ["fixed", "bucket"] {
                let outcome = cluster.node(node).client().increment(&format!("{kind}-{id}")).await;
                assert_eq!(outcome, Outcome::Denied, "{what}");
            }
            cluster.node(node).kill();
            cluster.node(node).start();
            cluster.node(node).ready().await;
            let seen = clock_in_log(&cluster, node);
            assert!((seen - off).abs() < 60, "{what}, but its log says {seen}: the clock was not faked");
            latest = latest.max(free(&cluster, &opened, &id, &what).await);
            set_clock(&cluster, node, 0);
        }
    }
    figure(&format!(
        "wall clock of each node {OFF_SECONDS} s ahead and behind, jumping under a leader that is then killed: six windows of \
         {WINDOW:?}, none early, the latest by {latest:.0?}"
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn monotonic_clock_of_one_node_stands_elsewhere_windows_last_as_long_under_every_leader() {
    let cluster = start(true).await;
    let mut latest = Duration::ZERO;
    for (first, second) in [(0, 1), (1, 0)] {
        let (id, what) = (format!("m{first}"), format!("handed over from {first} to {second}"));
        lead(&cluster, first).await;
        let opened = open(&cluster, 2, &id).await;
        lead(&cluster, second).await;
        latest = latest.max(free(&cluster, &opened, &id, &what).await);
    }
    figure(&format!(
        "both clocks of one node {OFF_SECONDS} s ahead, leadership handed to and from it: two windows of {WINDOW:?}, none \
         early, the latest by {latest:.0?}"
    ));
}
