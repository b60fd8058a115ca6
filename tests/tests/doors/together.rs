//! One quota behind all doors at once: `/v1/check` single and in batches, `/v1/authorize`, the rate limit service, a real
//! nginx, two real Envoys, and `/rate` or `/example`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quorate_tests::cluster::{Cluster, Node, PATIENCE, eventually, figure};
use tokio::task::JoinSet;

use super::every::{Door, Doors, Quota, Said};

/// Longer than an election.
const LONG: Duration = Duration::from_secs(2);
/// Shorter than any.
const SHORT: Duration = Duration::from_millis(100);

/// Runs: 20, or what `RUNS` says.
fn runs() -> u64 {
    std::env::var("RUNS").map_or(20, |runs| runs.parse().expect("RUNS is a number"))
}

fn count(said: &[Said], what: Said) -> u64 {
    said.iter().filter(|other| **other == what).count() as u64
}

/// The nodes, from this one on.
fn nodes_from(cluster: &Cluster, first: usize) -> Vec<&Node> {
    (0..3).map(|behind| cluster.node((first + behind) % 3)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_limit_hit_at_once_through_every_door_admits_exactly_that() {
    exactly(Quota::Clients, ["default", "all"]).await;
}

/// The policy of the founding, replaced.
#[tokio::test(flavor = "multi_thread")]
async fn limit_of_buckets_hit_at_once_through_every_door_admits_exactly_that() {
    exactly(Quota::Buckets, ["quorate", "bucket"]).await;
}

async fn exactly(quota: Quota, policy: [&str; 2]) {
    const LIMIT: u64 = 1000;
    /// Hits that each of two connections to each door asks for.
    const HITS: usize = 150;
    let cluster = quota.cluster().await;
    quota.put_policy(&cluster, policy, LIMIT).await;
    let doors = Doors::open(&cluster, quota, LONG).await;
    let (runs, mut asked) = (runs(), 0);
    for run in 0..runs {
        let id = quota.client(&cluster, &format!("run-{run}")).await;
        let mut asking = JoinSet::new();
        for turn in 0..2 {
            for mut door in doors.connect(&nodes_from(&cluster, turn), &id).await {
                asking.spawn(async move {
                    let mut said = vec![];
                    while said.len() < HITS {
                        said.extend(door.ask().await);
                    }
                    (door.name, said)
                });
            }
        }
        let mut admitted = BTreeMap::new();
        asked = 0;
        for (door, said) in asking.join_all().await {
            let undecided = count(&said, Said::Unavailable) + count(&said, Said::Unanswered);
            assert_eq!(undecided, 0, "an undisturbed cluster decides everything: {door}");
            *admitted.entry(door).or_insert(0) += count(&said, Said::Admitted);
            asked += said.len();
        }
        assert_eq!(admitted.values().sum::<u64>(), LIMIT, "run {run}: {admitted:?}");
        assert!(admitted.len() == 8 && admitted.values().all(|count| *count > 0), "run {run}: {admitted:?}");
        assert_eq!(quota.left(&cluster, &id, &policy.join("/")).await, 0);
    }
    let names: Vec<_> = doors.connect(&nodes_from(&cluster, 0), "names").await.iter().map(|door| door.name).collect();
    figure(&format!("{} at once: exactly {LIMIT} of {asked} admitted in {runs} of {runs} runs", names.join(", ")));
}

#[tokio::test(flavor = "multi_thread")]
async fn denial_at_every_door_charges_nothing_on_any_limit() {
    for quota in [Quota::Clients, Quota::Buckets] {
        let cluster = quota.cluster().await;
        for (name, hits) in [("large", 100), ("small", 1), ("wide", 50)] {
            quota.put_policy(&cluster, ["default", name], hits).await;
        }
        let doors = Doors::open(&cluster, quota, LONG).await;
        let id = quota.client(&cluster, "denied").await;
        for turn in 0..3 {
            for (number, mut door) in doors.connect(&nodes_from(&cluster, turn), &id).await.into_iter().enumerate() {
                let said = door.ask().await;
                let expected = if (turn, number) == (0, 0) { Said::Admitted } else { Said::Denied };
                assert!(said.iter().all(|said| *said == expected), "{}: {said:?}", door.name);
                for (policy, left) in [("default/large", 99), ("default/small", 0), ("default/wide", 49)] {
                    assert_eq!(quota.left(&cluster, &id, policy).await, left, "{policy} after {}", door.name);
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_killed_while_every_door_is_loaded_the_limit_holds_and_each_decides_again() {
    leader_killed(Quota::Clients).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_killed_while_every_door_of_buckets_is_loaded_the_limit_holds_and_each_decides_again() {
    leader_killed(Quota::Buckets).await;
}

/// What one connection was told, and how long after the kill it was told a decision that it asked for after it.
struct Told {
    door: Door,
    said: Vec<Said>,
    again: Duration,
}

async fn leader_killed(quota: Quota) {
    const LIMIT: u64 = 3000;
    let cluster = quota.cluster().await;
    quota.put_policy(&cluster, ["default", "all"], LIMIT).await;
    let doors = Doors::open(&cluster, quota, SHORT).await;
    let id = quota.client(&cluster, "one").await;
    let leader = cluster.leader().await;
    let survivors = [1, 2].map(|behind| cluster.node((leader + behind) % 3));
    let (killed, admitted) = (Arc::new(OnceLock::<Instant>::new()), Arc::new(AtomicU64::new(0)));
    let mut asking = JoinSet::new();
    for turn in 0..2 {
        for mut door in doors.connect(&[survivors[turn], survivors[1 - turn]], &id).await {
            let (killed, admitted) = (Arc::clone(&killed), Arc::clone(&admitted));
            asking.spawn(async move {
                let (mut said, mut again) = (vec![], None);
                loop {
                    let asked = Instant::now();
                    let answer = door.ask().await;
                    admitted.fetch_add(count(&answer, Said::Admitted), Ordering::SeqCst);
                    let denied = count(&answer, Said::Denied);
                    if let Some(killed) = killed.get()
                        && asked > *killed
                        && denied + count(&answer, Said::Admitted) > 0
                    {
                        again.get_or_insert(killed.elapsed());
                    }
                    said.extend(answer);
                    // Until the limit is used up, so that no door rests before.
                    if let (Some(again), 1..) = (again, denied) {
                        return Told { door, said, again };
                    }
                }
            });
        }
    }
    eventually(PATIENCE, "requests are admitted", async || match admitted.load(Ordering::SeqCst) {
        enough if enough > LIMIT / 4 => Ok(()),
        few => Err(few.to_string()),
    })
    .await;
    // Whatever is asked before this is set was asked of a cluster that had its leader.
    cluster.node(leader).kill();
    killed.set(Instant::now()).expect("once");
    let told = asking.join_all().await;

    let sum = |what: Said| told.iter().map(|told| count(&told.said, what)).sum::<u64>();
    let (admitted, uncertain) = (sum(Said::Admitted), sum(Said::Unavailable) + sum(Said::Unanswered));
    assert!(admitted <= LIMIT, "{admitted} admitted");
    // A gateway that asks another node may be charged twice, for each request that was on its way.
    assert!(admitted + uncertain + told.len() as u64 >= LIMIT, "{admitted} admitted, {uncertain} without a decision");
    for label in ["http", "authorize", "rls", "bucket"] {
        let seen = told.iter().filter(|told| told.door.label == Some(label));
        let seen: u64 = seen.map(|told| count(&told.said, Said::Unavailable)).sum();
        let mut counted = 0;
        for node in survivors {
            let name = format!(r#"quorate_unavailable_total{{answer="denied",door="{label}"}} "#);
            let metrics = node.client().get("/metrics").await.unwrap().text();
            counted += metrics.lines().find_map(|line| line.strip_prefix(&name)?.parse::<u64>().ok()).unwrap();
        }
        assert!(counted >= seen, "{label}: {seen} were unavailable, {counted} are counted");
        let is_short = matches!(label, "authorize" | "rls");
        assert!(!is_short || seen > 0, "{label}: an election takes longer than {SHORT:?}");
    }
    for one in doors.connect(&survivors, &id).await {
        let of_door: Vec<_> = told.iter().filter(|told| told.door.name == one.name).collect();
        let again = of_door.iter().map(|told| told.again).max().unwrap();
        let sum = |what: Said| of_door.iter().map(|told| count(&told.said, what)).sum::<u64>();
        figure(&format!(
            "the leader killed while every door is loaded: {}: {} admitted, {} unavailable, {} unanswered, decisions again \
             after {again:.2?}",
            one.name,
            sum(Said::Admitted),
            sum(Said::Unavailable),
            sum(Said::Unanswered)
        ));
        assert!(again < Duration::from_secs(3), "{}: {again:?}", one.name);
    }
}
