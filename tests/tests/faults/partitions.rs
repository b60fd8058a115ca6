//! Partitions, whole, one way and partial, and a link that is slow and loses packets.

use std::time::{Duration, Instant};

use quorate_tests::client::{Outcome, limit, policy};
use quorate_tests::cluster::{Cluster, PATIENCE, Plan, eventually, figure, pause};
use quorate_tests::load::{History, Load};
use quorate_tests::netns::Net;
use serde_json::json;

const LIMIT: u64 = 100_000_000;
/// How long the HTTP door waits for a decision.
const DEADLINE: Duration = Duration::from_secs(3);
/// An answer at the deadline may be this late on a busy machine.
const LATENESS: Duration = Duration::from_secs(1);
/// What is promised once a partition is mended.
const HEALED: Duration = Duration::from_secs(5);

/// Links that are broken, and what it means for the nodes; for those in neither list it may go either way.
struct Fault<'a> {
    what: &'a str,
    /// Each in one direction.
    cuts: Vec<(usize, usize)>,
    /// They go on deciding.
    with: Vec<usize>,
    /// They cannot decide.
    without: Vec<usize>,
}

impl<'a> Fault<'a> {
    /// Nothing goes either way between the two groups; only the first one decides.
    fn between(what: &'a str, with: &[usize], without: &[usize]) -> Self {
        let pairs = without.iter().flat_map(|this| with.iter().map(move |that| (*this, *that)));
        let cuts = pairs.flat_map(|(a, b)| [(a, b), (b, a)]).collect();
        Self { what, cuts, with: with.to_vec(), without: without.to_vec() }
    }
}

/// What the test itself asked, beside the load.
#[derive(Default)]
struct Asked {
    admitted: u64,
    unknown: u64,
}

async fn start(net: &Net, nodes: u8) -> Cluster {
    let cluster = Plan::of(nodes).at(net.places()).alone().start().await;
    let policy = policy("part", "part-", &json!([limit("FixedWindow", LIMIT, "24h")]));
    cluster.node(0).admin_client().put_policy(&policy).await.unwrap();
    cluster
}

fn load(cluster: &Cluster, client_id: &str) -> Load {
    Load { connections: 16, ..Load::increments(cluster.addresses(), client_id) }
}

fn at_least(count: u64, wanted: u64) -> Result<(), String> {
    if count >= wanted { Ok(()) } else { Err(format!("{count} of {wanted}")) }
}

/// How long it takes until each of these nodes admits a request that is sent now.
async fn decide(cluster: &Cluster, nodes: &[usize], client_id: &str, asked: &mut Asked) -> Duration {
    let begun = Instant::now();
    for node in nodes {
        eventually(PATIENCE, &format!("node {node} decides"), async || {
            match cluster.node(*node).client().increment(client_id).await {
                Outcome::Admitted => Ok(()),
                other => {
                    asked.unknown += 1;
                    Err(format!("{other:?}"))
                }
            }
        })
        .await;
        asked.admitted += 1;
    }
    begun.elapsed()
}

/// Asks each of these nodes at once; each must say within the door's deadline that it does not know.
async fn unavailable(cluster: &Cluster, nodes: &[usize], client_id: &str, asked: &mut Asked) -> Duration {
    let answers = nodes.iter().map(|node| async move {
        let begun = Instant::now();
        let outcome = cluster.node(*node).client().increment(client_id).await;
        assert_eq!(outcome, Outcome::Unavailable, "node {node} has no majority");
        begun.elapsed()
    });
    asked.unknown += nodes.len() as u64;
    let longest = futures::future::join_all(answers).await.into_iter().max().unwrap_or_default();
    assert!(longest < DEADLINE + LATENESS, "said after {longest:?}");
    longest
}

/// Every admission that a client knows of is counted, and what is counted was asked for.
async fn assert_accounted(cluster: &Cluster, history: &History, asked: &Asked, client_id: &str) {
    let used = LIMIT - cluster.node(0).client().check(client_id).await.unwrap().remaining_quota.unwrap();
    let (admitted, unknown) = (history.admitted() + asked.admitted, history.unknown() + asked.unknown);
    assert!((admitted..=admitted + unknown).contains(&used), "{used} used, {admitted} admitted, {unknown} unknown");
}

/// Breaks links under load, watches both sides, mends them. A line of figures.
async fn suffer(cluster: &Cluster, net: &Net, fault: &Fault<'_>) -> String {
    let client_id = format!("part-{}", fault.what.replace([' ', ',', ';'], "-"));
    let all: Vec<usize> = (0..cluster.nodes().len()).collect();
    let mut asked = Asked::default();
    let running = load(cluster, &client_id).start();
    eventually(PATIENCE, "requests are admitted", async || at_least(running.admitted(), 200)).await;
    for (from, to) in &fault.cuts {
        net.cut(*from, *to);
    }
    let broken_at = Instant::now();
    let decided = decide(cluster, &fault.with, &client_id, &mut asked).await;
    let told = unavailable(cluster, &fault.without, &client_id, &mut asked).await;
    let admitted = running.admitted();
    eventually(PATIENCE, "the majority goes on", async || at_least(running.admitted(), admitted + 200)).await;
    let healed_at = Instant::now();
    net.heal();
    let healed = decide(cluster, &all, &client_id, &mut asked).await;
    let history = running.stop().await;

    let alone = history.records.iter().filter(|record| fault.without.contains(&record.target));
    let during = alone.filter(|record| record.started >= broken_at && record.ended < healed_at);
    let decided_alone = during.filter(|record| record.is_decided()).count();
    assert_eq!(decided_alone, 0, "{}: decided without a majority", fault.what);
    assert_accounted(cluster, &history, &asked, &client_id).await;
    assert!(healed < HEALED, "{}: all decide {healed:?} after it was mended", fault.what);
    let what = fault.what;
    format!("{what}: the rest decide after {decided:.2?}, unavailable said after {told:.2?}, healed after {healed:.2?}")
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_or_follower_is_cut_off_it_decides_nothing_and_the_rest_go_on() {
    let net = Net::of(3);
    let cluster = start(&net, 3).await;
    for is_leader in [true, false] {
        let leader = cluster.leader().await;
        let alone = if is_leader { leader } else { (leader + 1) % 3 };
        let others = [(alone + 1) % 3, (alone + 2) % 3];
        let what = if is_leader { "leader cut off" } else { "follower cut off" };
        figure(&suffer(&cluster, &net, &Fault::between(what, &others, &[alone])).await);
    }
    drop(cluster);
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_to_or_from_one_node_are_dropped_it_decides_nothing_and_the_rest_go_on() {
    let net = Net::of(3);
    let cluster = start(&net, 3).await;
    for (is_leader, to_others) in [(true, true), (true, false), (false, true), (false, false)] {
        let leader = cluster.leader().await;
        let alone = if is_leader { leader } else { (leader + 1) % 3 };
        let others = [(alone + 1) % 3, (alone + 2) % 3];
        let cuts = others.map(|other| if to_others { (alone, other) } else { (other, alone) }).to_vec();
        let who = if is_leader { "leader" } else { "follower" };
        let what = if to_others { format!("{who} not heard") } else { format!("{who} hears nobody") };
        figure(
            &suffer(&cluster, &net, &Fault { what: &what, cuts, with: others.to_vec(), without: vec![alone] }).await,
        );
    }
    drop(cluster);
}

#[tokio::test(flavor = "multi_thread")]
async fn five_nodes_and_only_one_reaches_all_those_with_a_majority_decide() {
    let net = Net::of(5);
    let cluster = start(&net, 5).await;
    // The leader keeps its majority by way of the bridge. The two others reach the bridge, who hears the leader and so
    // votes for nobody.
    let leader = cluster.leader().await;
    let [near, bridge, far, further] = [1, 2, 3, 4].map(|step| (leader + step) % 5);
    let mut fault = Fault::between("leader with three of five", &[leader, near], &[far, further]);
    fault.with.push(bridge);
    figure(&suffer(&cluster, &net, &fault).await);

    // The leader reaches the bridge alone, and must give up though the bridge hears it (openraft #2080). It decides again
    // only when the bridge leads.
    let leader = cluster.leader().await;
    let [bridge, rest @ ..] = [1, 2, 3, 4].map(|step| (leader + step) % 5);
    let mut fault = Fault::between("leader with two of five", &rest, &[leader]);
    fault.with.push(bridge);
    fault.without.clear();
    figure(&suffer(&cluster, &net, &fault).await);
    drop(cluster);
}

#[tokio::test(flavor = "multi_thread")]
async fn leaders_link_is_slow_and_loses_packets_every_answer_is_right_and_all_is_well_after() {
    let net = Net::of(3);
    let cluster = start(&net, 3).await;
    let leader = cluster.leader().await;
    let client_id = "part-slow";
    let mut asked = Asked::default();
    let running = load(&cluster, client_id).start();
    eventually(PATIENCE, "requests are admitted", async || at_least(running.admitted(), 200)).await;
    net.hinder(leader, 512, 10);
    let before = running.admitted();
    pause(Duration::from_secs(10)).await;
    let during = running.admitted() - before;
    net.heal();
    let healed = decide(&cluster, &[0, 1, 2], client_id, &mut asked).await;
    let history = running.stop().await;
    assert_accounted(&cluster, &history, &asked, client_id).await;
    assert!(healed < HEALED, "all decide {healed:?} after it was mended");
    figure(&format!(
        "leader's link at 512 kbit/s with 10 % of packets lost each way, for 10 s: {during} admitted meanwhile, {} unknown, \
         healed after {healed:.2?}",
        history.unknown()
    ));
    drop(cluster);
}
