//! Disks that are lost, or come back older than they were.

use std::path::Path;
use std::time::Duration;

use quorate_tests::client::Outcome;
use quorate_tests::cluster::{Cluster, Node, PATIENCE, Plan, eventually, pause};

#[tokio::test(flavor = "multi_thread")]
async fn voter_whose_disk_is_gone_does_not_vote_under_its_old_id_and_the_limit_holds() {
    let cluster = Plan::of(3).set("DEFAULT_LIMIT", "5/24h").start().await;
    let before = cluster.node(0).client().cluster_status().await.unwrap();
    assert_eq!(admitted(&all(&cluster), 3).await, 3);
    let lost = cluster.node(2);
    lost.kill();
    std::fs::remove_dir_all(lost.data_dir()).unwrap();
    lost.start();
    eventually(PATIENCE, "it answers", async || lost.client().get("/health").await.map_err(|error| error.to_string()))
        .await;
    // Long enough to found, join or stand for election.
    pause(Duration::from_secs(2)).await;
    let after = cluster.node(0).client().cluster_status().await.unwrap();
    assert_eq!(after.cluster_id, before.cluster_id);
    let voters = |status: &quorate_tests::client::ClusterStatus| {
        let voters = status.members.iter().filter(|member| member.role == "Voter");
        let mut ids: Vec<_> = voters.map(|member| member.id.clone()).collect();
        ids.sort();
        ids
    };
    assert_eq!(voters(&after), voters(&before), "an empty disk must not take the seat of the old one by itself");
    assert!(admitted(&[cluster.node(0), cluster.node(1), lost], 10).await <= 2, "5 in all, 3 were used");

    // Under another name it is a new member.
    lost.kill();
    let _ = std::fs::remove_dir_all(lost.data_dir());
    lost.set("NODE_ID", "node-9");
    lost.start();
    lost.ready().await;
    assert_eq!(lost.client().increment("a").await, Outcome::Denied);
    let joined = lost.client().cluster_status().await.unwrap();
    assert!(joined.members.iter().any(|member| member.name == "node-9" && member.role == "Learner"), "{joined:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn node_on_an_older_copy_of_its_disk_is_refused_and_told_what_to_do() {
    let cluster = Plan::of(3).set("DEFAULT_LIMIT", "5/24h").start().await;
    let node = cluster.node(1);
    node.stop().await;
    let copy = cluster.dir().join("copy");
    copy_folder(node.data_dir(), &copy);
    for _ in 0..2 {
        node.start();
        node.ready().await;
        assert_eq!(node.client().increment("a").await, Outcome::Admitted);
        node.stop().await;
    }
    std::fs::remove_dir_all(node.data_dir()).unwrap();
    copy_folder(&copy, node.data_dir());
    node.start();
    eventually(PATIENCE, "it says that its disk is an older copy", async || {
        let log = node.log();
        if log.contains("older") && log.contains("NODE_ID") { Ok(()) } else { Err(log) }
    })
    .await;
    assert_eq!(admitted(&[cluster.node(0), cluster.node(2)], 10).await, 3, "5 in all, 2 were used");
    assert!(cluster.node(0).is_running() && cluster.node(2).is_running(), "an old disk must not harm the others");
}

#[tokio::test(flavor = "multi_thread")]
async fn follower_on_a_copy_from_before_what_it_acknowledged_the_leader_leaves_it_out_and_says_so() {
    let cluster = Plan::of(3).set("DEFAULT_LIMIT", "5/24h").start().await;
    let leader = cluster.leader().await;
    let follower = cluster.node((leader + 1) % 3);
    let others = [cluster.node(leader), cluster.node((leader + 2) % 3)];
    // A copy from under a running node, which no boot counter tells from the original.
    let copy = cluster.dir().join("copy");
    copy_folder(follower.data_dir(), &copy);
    assert_eq!(admitted(&others, 2).await, 2);
    follower.kill();
    std::fs::remove_dir_all(follower.data_dir()).unwrap();
    copy_folder(&copy, follower.data_dir());
    follower.start();
    eventually(PATIENCE, "the leader says whose data is an older copy", async || {
        let log = others[0].log();
        if log.contains("older copy") && log.contains("NODE_ID") { Ok(()) } else { Err(log) }
    })
    .await;
    assert_eq!(admitted(&others, 10).await, 3, "5 in all, 2 were used");
    assert!(others.iter().all(|node| node.is_running()), "an old disk must not harm the others");
    assert_eq!(cluster.leader().await, leader);
}

#[tokio::test(flavor = "multi_thread")]
async fn log_damaged_in_its_middle_the_node_does_not_start_and_the_others_decide() {
    let cluster = Plan::of(3).set("DEFAULT_LIMIT", "100/24h").start().await;
    assert_eq!(admitted(&all(&cluster), 30).await, 30);
    let node = cluster.node(0);
    node.kill();
    let log = std::fs::read_dir(node.data_dir().join("log")).unwrap();
    let largest = log.map(|entry| entry.unwrap()).max_by_key(|entry| entry.metadata().unwrap().len()).unwrap().path();
    let mut bytes = std::fs::read(&largest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    std::fs::write(&largest, &bytes).unwrap();
    node.start();
    let status = node.ended(PATIENCE).await;
    assert!(!status.success() && status.code().is_some(), "{status:?}");
    let log = node.log();
    assert!(log.contains(&largest.display().to_string()) && log.contains("damaged"), "{log}");
    assert!(!log.contains("panicked"), "{log}");
    assert_eq!(std::fs::read(&largest).unwrap(), bytes, "what is damaged must stay for who repairs it");
    assert_eq!(cluster.node(1).client().increment("a").await, Outcome::Admitted);
    assert_eq!(cluster.node(2).client().check("a").await.unwrap().remaining_quota, Some(69));
}

#[tokio::test(flavor = "multi_thread")]
async fn log_torn_at_its_end_the_node_starts_and_catches_up() {
    let cluster = Plan::of(3).set("DEFAULT_LIMIT", "100/24h").start().await;
    assert_eq!(admitted(&all(&cluster), 30).await, 30);
    let node = cluster.node(0);
    node.kill();
    let log = std::fs::read_dir(node.data_dir().join("log")).unwrap();
    let last = log.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some()).max().unwrap();
    let bytes = std::fs::read(&last).unwrap();
    // As a crash leaves it: half of a record that was never acknowledged.
    std::fs::write(&last, [&bytes[..], &[0, 0, 0, 7, 1, 2]].concat()).unwrap();
    node.start();
    node.ready().await;
    assert_eq!(node.client().check("a").await.unwrap().remaining_quota, Some(70));
}

/// Asks `times` times, the nodes in turn; how often it was admitted.
async fn admitted(nodes: &[&Node], times: usize) -> u64 {
    let mut admitted = 0;
    for turn in 0..times {
        admitted += u64::from(nodes[turn % nodes.len()].client().increment("a").await == Outcome::Admitted);
    }
    admitted
}

fn all(cluster: &Cluster) -> Vec<&Node> {
    cluster.nodes().iter().collect()
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &to.join(entry.file_name()));
        } else {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}
