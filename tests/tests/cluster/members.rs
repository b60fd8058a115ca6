//! Members come and go: lost disks are replaced, members leave because they are told to, names are unique.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use quorate_tests::client::{Client, ClusterStatus, Outcome, check_body, limit, policy};
use quorate_tests::cluster::{Cluster, Node, PATIENCE, Plan, binary, eventually, figure, pause};
use quorate_tests::load::{History, Load, Running};
use serde_json::json;

const ENTRIES: [(&str, &str); 2] = [("client_id", "load"), ("tenant", "all")];
const LIMIT: u64 = 1_000_000;

/// Lost disks are replaced at once.
fn hasty(nodes: u8) -> Plan {
    Plan::of(nodes).set("REPLACE_LOST_DISK_AFTER", "1s").set("REPLACE_LOST_DISK_INTERVAL", "1s")
}

async fn with_ledger(cluster: &Cluster) {
    let mut ledger = policy("ledger", "load", &json!([limit("FixedWindow", LIMIT, "24h")]));
    ledger["spec"]["match"] = json!([{"key": "tenant", "exact": "all"}]);
    ledger["spec"]["countBy"] = json!(["tenant"]);
    cluster.node(0).admin_client().put_policy(&ledger).await.unwrap();
}

async fn load(targets: &[&Node]) -> Running {
    let targets = targets.iter().map(|node| node.data()).collect();
    let load = Load {
        path: "/v1/check".to_owned(),
        body: check_body(&ENTRIES, 1),
        connections: 8,
        ..Load::increments(targets, "")
    };
    let running = load.start();
    more_admitted(&running).await;
    running
}

/// Waits until the load has got further.
async fn more_admitted(running: &Running) {
    let admitted = running.admitted();
    eventually(PATIENCE, "requests are admitted", async || {
        if running.admitted() >= admitted + 100 { Ok(()) } else { Err(running.admitted().to_string()) }
    })
    .await;
}

/// Every admission that a client knows of is in the count, and what is in the count was asked for; on every node.
async fn assert_accounted(cluster: &Cluster, history: &History) {
    let (admitted, unknown) = (history.admitted(), history.unknown());
    for node in cluster.nodes().iter().filter(|node| node.is_running()) {
        let after = node.client().v1_check(&ENTRIES, 0).await.unwrap();
        let used = LIMIT - after.limit("default/ledger", "only").remaining;
        assert!((admitted..=admitted + unknown).contains(&used), "{admitted} admitted, {unknown} unknown, {used} used");
    }
}

/// What a node says of its cluster, once it is as wanted.
async fn status_once(node: &Node, what: &str, wanted: impl Fn(&ClusterStatus) -> bool) -> ClusterStatus {
    eventually(PATIENCE, what, async || {
        let status = node.client().cluster_status().await?;
        if wanted(&status) { Ok(status) } else { Err(format!("{status:?}")) }
    })
    .await
}

fn id_of(status: &ClusterStatus, name: &str) -> String {
    let member = status.members.iter().find(|member| member.name == name);
    member.unwrap_or_else(|| panic!("no {name} in {status:?}")).id.clone()
}

fn has_id(status: &ClusterStatus, id: &str) -> bool {
    status.members.iter().any(|member| member.id == id)
}

fn archive(node: &Node, id: &str) -> std::path::PathBuf {
    node.data_dir().join(format!("removed-{id}"))
}

async fn decommission(node: &Node, id: &str) -> u16 {
    eventually(PATIENCE, "the decommission is answered", async || {
        let answer = node.admin_client().decommission(id).await.map_err(|error| error.to_string())?;
        if answer.status == 503 { Err(answer.text()) } else { Ok(answer.status) }
    })
    .await
}

/// Looks at a cluster from a node again and again; keeps the smallest number of voters it was shown.
struct Watch {
    voters_min: Arc<AtomicUsize>,
    looks: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
    watching: tokio::task::JoinHandle<()>,
}

impl Watch {
    fn start(mut client: Client) -> Self {
        let (voters_min, looks, over) =
            (Arc::new(AtomicUsize::new(usize::MAX)), Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let watching = tokio::spawn({
            let (voters_min, looks, over) = (Arc::clone(&voters_min), Arc::clone(&looks), Arc::clone(&over));
            async move {
                while !over.load(Ordering::Relaxed) {
                    if let Ok(status) = client.cluster_status().await {
                        voters_min.fetch_min(status.count("Voter"), Ordering::Relaxed);
                        looks.fetch_add(1, Ordering::Relaxed);
                    }
                    pause(Duration::from_millis(5)).await;
                }
            }
        });
        Self { voters_min, looks, over, watching }
    }

    async fn voters_min(self) -> usize {
        self.over.store(true, Ordering::Relaxed);
        self.watching.await.unwrap();
        assert!(self.looks.load(Ordering::Relaxed) > 10);
        self.voters_min.load(Ordering::Relaxed)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn disk_of_each_node_emptied_in_turn_under_load_it_comes_back_under_a_new_id_and_nothing_is_lost() {
    let cluster = hasty(3).alone().start().await;
    with_ledger(&cluster).await;
    let all: Vec<&Node> = cluster.nodes().iter().collect();
    let running = load(&all).await;
    let mut took = Vec::new();
    for (turn, node) in all.iter().enumerate() {
        let survivor = all[(turn + 1) % 3];
        let before = survivor.client().cluster_status().await.unwrap();
        let old = id_of(&before, node.name());
        let watch = Watch::start(survivor.client());
        let emptied_at = Instant::now();
        node.kill();
        std::fs::remove_dir_all(node.data_dir()).unwrap();
        node.start();
        let after = status_once(survivor, "the old id is swapped out", |status| {
            status.members.len() == 3 && status.count("Voter") == 3 && !has_id(status, &old)
        })
        .await;
        took.push(emptied_at.elapsed());
        assert_ne!(id_of(&after, node.name()), old);
        assert_eq!(after.cluster_id, before.cluster_id);
        node.ready().await;
        assert_eq!(watch.voters_min().await, 3, "never fewer");
        more_admitted(&running).await;
    }
    let history = running.stop().await;
    assert_accounted(&cluster, &history).await;
    took.sort();
    figure(&format!(
        "a node's disk emptied, each of three in turn, under load: replaced after {:.1?} to {:.1?}; {} admitted, {} \
         unknown",
        took[0],
        took[2],
        history.admitted(),
        history.unknown()
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn follower_decommissioned_says_so_and_restarted_it_puts_its_data_aside_and_joins_as_a_new_node() {
    let cluster = Plan::of(3).set("DEFAULT_LIMIT", "5/24h").start().await;
    let leader = cluster.leader().await;
    let (follower, other) = (cluster.node((leader + 1) % 3), cluster.node((leader + 2) % 3));
    assert_eq!(follower.client().increment("a").await, Outcome::Admitted);
    let old = id_of(&other.client().cluster_status().await.unwrap(), follower.name());
    assert_eq!(decommission(other, &old).await, 202);
    status_once(other, "it has left", |status| status.members.len() == 2 && status.intents.is_empty()).await;
    assert_eq!(decommission(other, &old).await, 200, "again is no error");
    eventually(PATIENCE, "it is not ready and says why", async || {
        let ready = follower.client().get("/ready").await.map_err(|error| error.to_string())?;
        let told = ready.text().contains("was removed from its cluster; stop it, or restart it");
        if ready.status == 503 && told { Ok(()) } else { Err(ready.text()) }
    })
    .await;
    assert_eq!(follower.client().increment("a").await, Outcome::Unavailable);
    assert!(follower.is_running() && !archive(follower, &old).exists());

    follower.stop().await;
    follower.start();
    follower.ready().await;
    assert!(archive(follower, &old).join("node.json").is_file() && archive(follower, &old).join("log").is_dir());
    let back = status_once(other, "it votes again", |status| status.count("Voter") == 3).await;
    assert!(id_of(&back, follower.name()) != old && !has_id(&back, &old), "{back:?}");
    assert_eq!(follower.client().check("a").await.unwrap().remaining_quota, Some(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn node_removed_while_it_was_away_begins_anew_by_itself() {
    let cluster = Plan::of(3).set("DEFAULT_LIMIT", "5/24h").start().await;
    let node = cluster.node(2);
    let old = id_of(&cluster.node(0).client().cluster_status().await.unwrap(), node.name());
    node.stop().await;
    assert_eq!(decommission(cluster.node(0), &old).await, 202);
    status_once(cluster.node(0), "it has left", |status| status.members.len() == 2).await;
    assert_eq!(cluster.node(0).client().increment("a").await, Outcome::Admitted);
    node.start();
    node.ready().await;
    assert!(archive(node, &old).join("node.json").is_file());
    let back = status_once(cluster.node(0), "it votes again", |status| status.count("Voter") == 3).await;
    assert_ne!(id_of(&back, node.name()), old);
    assert_eq!(node.client().check("a").await.unwrap().remaining_quota, Some(4));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_decommissioned_under_load_hands_over_and_no_request_fails() {
    let cluster = Plan::of(3).alone().start().await;
    with_ledger(&cluster).await;
    let leader = cluster.leader().await;
    let others = [cluster.node((leader + 1) % 3), cluster.node((leader + 2) % 3)];
    let running = load(&others).await;
    let old = id_of(&others[0].client().cluster_status().await.unwrap(), cluster.node(leader).name());
    let asked = Instant::now();
    assert_eq!(decommission(others[0], &old).await, 202);
    let after = status_once(others[0], "it has left", |status| status.members.len() == 2).await;
    let took = asked.elapsed();
    assert!(after.leader.as_ref().is_some_and(|leader| *leader != old), "{after:?}");
    more_admitted(&running).await;
    let history = running.stop().await;
    assert_eq!(history.unknown(), 0, "{:?}", history.problems());
    cluster.node(leader).kill();
    assert_accounted(&cluster, &history).await;
    let longest = history.records.iter().map(|record| record.ended - record.started).max().unwrap();
    figure(&format!(
        "the leader decommissioned under load: gone after {took:.1?}; {} requests, none failed, the longest took \
         {longest:.1?}",
        history.records.len()
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn cluster_grows_from_three_to_five_voters_and_shrinks_to_three() {
    let cluster = Plan::of(5).contacts(3).set("DEFAULT_LIMIT", "100/24h").build().await;
    for node in &cluster.nodes()[..3] {
        node.start();
    }
    cluster.ready().await;
    assert_eq!(cluster.node(0).client().increment("a").await, Outcome::Admitted);
    for node in &cluster.nodes()[3..] {
        node.start();
    }
    cluster.ready().await;
    let five = status_once(cluster.node(0), "five voters", |status| status.count("Voter") == 5).await;
    for number in [1, 3] {
        let id = id_of(&five, cluster.node(number).name());
        assert_eq!(decommission(cluster.node(0), &id).await, 202);
        status_once(cluster.node(2), "it has left", |status| !has_id(status, &id)).await;
        cluster.node(number).stop().await;
    }
    status_once(cluster.node(4), "three voters", |status| status.members.len() == 3 && status.count("Voter") == 3)
        .await;
    for number in [0, 2, 4] {
        assert_eq!(cluster.node(number).client().increment("a").await, Outcome::Admitted);
    }
    assert_eq!(cluster.node(4).client().check("a").await.unwrap().remaining_quota, Some(96));
}

#[tokio::test(flavor = "multi_thread")]
async fn departure_that_would_cost_the_quorum_waits_and_status_says_so() {
    let cluster = Plan::of(3).start().await;
    let leader = cluster.leader().await;
    let (gone, healthy) = (cluster.node((leader + 1) % 3), cluster.node((leader + 2) % 3));
    let status = healthy.client().cluster_status().await.unwrap();
    gone.kill();
    let id = id_of(&status, healthy.name());
    assert_eq!(decommission(cluster.node(leader), &id).await, 202);
    let table = eventually(PATIENCE, "status says what autopilot waits for", async || {
        let output = std::process::Command::new(binary())
            .args(["status", "--server", &cluster.node(leader).data().to_string()])
            .output()
            .unwrap();
        let table = String::from_utf8(output.stdout).unwrap();
        if table.contains("are needed") { Ok(table) } else { Err(table) }
    })
    .await;
    assert!(table.contains(&format!("to leave: {} ({id})\n", healthy.name())), "{table}");
    assert!(table.contains("1 of 2 voters can be reached and have caught up, 2 are needed"), "{table}");
    assert_eq!(status_once(healthy, "all stay", |_| true).await.members.len(), 3);

    gone.start();
    status_once(cluster.node(leader), "it leaves once the other is back", |status| !has_id(status, &id)).await;
    let unknown = cluster.node(leader).admin_client().decommission("1f").await.unwrap();
    assert_eq!(unknown.status, 404, "{}", unknown.text());
}
