//! Disks that are lost, or come back older than they were.

use std::path::Path;
use std::time::Duration;

use quorate_tests::client::Outcome;
use quorate_tests::cluster::{Cluster, Node, PATIENCE, Plan, RAFT_PORT, eventually, pause};

#[tokio::test(flavor = "multi_thread")]
async fn voter_whose_disk_is_gone_does_not_vote_under_its_old_id_and_the_limit_holds() {
    let cluster = Plan::of(3).set("DEFAULT_LIMIT", "5/24h").set("REPLACE_LOST_DISK_AFTER", "1h").start().await;
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

/// Waits until a node has ended, and not well; what it said last.
async fn refusal(node: &Node) -> String {
    let status = node.ended(PATIENCE).await;
    assert!(!status.success() && status.code().is_some(), "{status:?}");
    let log = node.log();
    assert!(!log.contains("panicked"), "{log}");
    log.lines().last().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn node_on_a_copy_from_one_or_two_starts_ago_stops_and_says_why() {
    let cluster = Plan::of(3).set("DEFAULT_LIMIT", "9/24h").start().await;
    let node = cluster.node(1);
    for starts_ago in [1, 2] {
        node.stop().await;
        let copy = cluster.dir().join(format!("copy-{starts_ago}"));
        copy_folder(node.data_dir(), &copy);
        for _ in 0..starts_ago {
            node.start();
            node.ready().await;
            assert_eq!(node.client().increment("a").await, Outcome::Admitted);
            node.stop().await;
        }
        let present = cluster.dir().join(format!("present-{starts_ago}"));
        std::fs::rename(node.data_dir(), &present).unwrap();
        copy_folder(&copy, node.data_dir());
        node.start();
        let said = refusal(node).await;
        let seen = if starts_ago == 1 {
            "another process has started for time 2 from this node's data"
        } else {
            "but the cluster has seen it start"
        };
        assert!(said.contains(seen) && said.contains("start it on an empty DATA_DIR"), "{said}");
        // A supervisor that starts it again and again does not make it newer.
        node.start();
        let again = refusal(node).await;
        assert!(again.contains("cannot start") && again.contains(seen), "{again}");
        // Its own, latest data is still good.
        std::fs::remove_dir_all(node.data_dir()).unwrap();
        std::fs::rename(&present, node.data_dir()).unwrap();
        node.start();
        node.ready().await;
    }
    assert_eq!(admitted(&all(&cluster), 20).await, 6, "9 in all, 3 were used");
    assert!(cluster.nodes().iter().all(Node::is_running), "an old disk must not harm the others");
}

#[tokio::test(flavor = "multi_thread")]
async fn follower_on_a_copy_from_before_what_it_acknowledged_is_told_by_the_leader_and_stops() {
    let cluster = Plan::of(3).set("DEFAULT_LIMIT", "5/24h").start().await;
    let leader = cluster.leader().await;
    let follower = cluster.node((leader + 1) % 3);
    let others = [cluster.node(leader), cluster.node((leader + 2) % 3)];
    // A copy from under a running node, which no count of starts tells from the original.
    let copy = cluster.dir().join("copy");
    copy_folder(follower.data_dir(), &copy);
    assert_eq!(admitted(&others, 2).await, 2);
    follower.kill();
    std::fs::remove_dir_all(follower.data_dir()).unwrap();
    copy_folder(&copy, follower.data_dir());
    follower.start();
    let said = refusal(follower).await;
    assert!(said.contains("this node had acknowledged the log up to entry"), "{said}");
    assert!(said.contains("start it on an empty DATA_DIR"), "{said}");
    assert!(others[0].log().contains("its data is an older copy"), "{}", others[0].log());
    let metrics = others[0].client().get("/metrics").await.unwrap().text();
    let uncounted =
        metrics.lines().find_map(|line| line.strip_prefix("quorate_raft_older_disk_frames_total ")).unwrap();
    assert!(uncounted.parse::<u64>().unwrap() > 0, "{uncounted}");
    assert_eq!(admitted(&others, 10).await, 3, "5 in all, 2 were used");
    assert!(others.iter().all(|node| node.is_running()), "an old disk must not harm the others");
    assert_eq!(cluster.leader().await, leader);
}

/// Three nodes that run, and a fourth that was not started yet.
async fn three_and_a_stranger() -> Cluster {
    let cluster = Plan::of(4).contacts(3).set("DEFAULT_LIMIT", "9/24h").build().await;
    for node in &cluster.nodes()[..3] {
        node.start();
    }
    cluster.ready().await;
    cluster
}

/// The three are as they were: the same members, all of them deciding.
async fn assert_unharmed(cluster: &Cluster, before: &[String]) {
    let three: Vec<&Node> = cluster.nodes()[..3].iter().collect();
    assert!(three.iter().all(|node| node.is_running()), "a stranger must not harm the members");
    assert_eq!(admitted(&three, 12).await, 9);
    for node in three {
        assert!(node.log().lines().all(|line| !line.contains("ERROR")), "{}", node.log());
        assert_eq!(voters(node).await, before);
    }
}

async fn voters(node: &Node) -> Vec<String> {
    let status = node.client().cluster_status().await.unwrap();
    let voters = status.members.iter().filter(|member| member.role != "Learner");
    let mut voters: Vec<_> = voters.map(|member| format!("{} {}", member.name, member.id)).collect();
    voters.sort();
    voters
}

#[tokio::test(flavor = "multi_thread")]
async fn copied_data_folder_started_beside_its_original_is_refused_and_the_original_stays() {
    let cluster = three_and_a_stranger().await;
    let before = voters(cluster.node(0)).await;
    let (original, stranger) = (cluster.node(1), cluster.node(3));
    copy_folder(original.data_dir(), stranger.data_dir());
    for name in [original.name(), stranger.name()] {
        stranger.set("NODE_ID", name);
        stranger.start();
        let said = refusal(stranger).await;
        let at = format!("at {}:{RAFT_PORT}", original.ip());
        assert!(said.contains("another process runs as node") && said.contains(&at), "{said}");
        assert!(said.contains("empty DATA_DIR"), "{said}");
    }
    assert_unharmed(&cluster, &before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn second_node_under_the_name_of_a_member_is_refused_and_the_member_stays() {
    let cluster = three_and_a_stranger().await;
    let before = voters(cluster.node(0)).await;
    let (member, stranger) = (cluster.node(1), cluster.node(3));
    stranger.set("NODE_ID", member.name());
    stranger.start();
    let said = refusal(stranger).await;
    let running = format!("runs under NODE_ID {} at {}:{RAFT_PORT}", member.name(), member.ip());
    assert!(
        said.contains(&running)
            && said.contains("set NODE_ID to a name that no other node has")
            && said.contains("stop that one first"),
        "{said}"
    );
    assert_unharmed(&cluster, &before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_of_another_cluster_pointed_at_this_one_is_refused_and_says_why() {
    let other = Plan::of(2).start().await;
    let cluster = Plan::of(4).contacts(3).set("DEFAULT_LIMIT", "9/24h").beside(&other).build().await;
    for node in &cluster.nodes()[..3] {
        node.start();
    }
    cluster.ready().await;
    let before = voters(cluster.node(0)).await;
    other.node(0).stop().await;
    let foreign = cluster.node(3);
    copy_folder(other.node(0).data_dir(), foreign.data_dir());
    foreign.start();
    eventually(PATIENCE, "it says whose data it has", async || {
        let answer = foreign.client().get("/ready").await.map_err(|error| error.to_string())?.text();
        let says = answer.contains("this node's data belongs to cluster") && answer.contains("CLUSTERS");
        if says { Ok(()) } else { Err(answer) }
    })
    .await;
    assert_unharmed(&cluster, &before).await;
    foreign.kill();
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
