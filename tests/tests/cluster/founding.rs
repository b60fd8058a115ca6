//! First starts: in any order and with delays, there is one cluster; and members that come later.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use quorate_tests::client::{Client, ClusterStatus, Outcome};
use quorate_tests::cluster::{
    Cluster, DATA_PORT, GOSSIP_PORT, Node, PATIENCE, Plan, binary, eventually, figure, pause,
};
use quorate_tests::dns::DnsServer;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};

/// Seeds of the orders and delays; a failing one is named in the message.
const SEEDS: std::ops::Range<u64> = 0..6;

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_first_start_in_any_order_found_one_cluster() {
    for seed in SEEDS {
        found(Plan::of(3), seed).await;
    }
    figure(&format!("first start of 3 in {} orders: one cluster id each time", SEEDS.count()));
}

#[tokio::test(flavor = "multi_thread")]
async fn five_nodes_first_start_in_any_order_found_one_cluster() {
    for seed in SEEDS {
        found(Plan::of(5), seed).await;
    }
    figure(&format!("first start of 5 in {} orders: one cluster id each time", SEEDS.count()));
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_know_one_dns_name_whose_addresses_change_found_one_cluster() {
    for seed in SEEDS {
        let mut random = StdRng::seed_from_u64(seed);
        let cluster = Plan::of(3).build().await;
        let addresses: Vec<IpAddr> = cluster.nodes().iter().map(|node| node.ip().into()).collect();
        let nobody = IpAddr::from(cluster.spare_address(200));
        let dns = DnsServer::start((cluster.spare_address(250), 21053).into());
        let mut order: Vec<_> = cluster.nodes().iter().collect();
        order.shuffle(&mut random);
        for node in order {
            node.set("CLUSTERS", format!("limiter.test:{GOSSIP_PORT}"));
            node.set("BOOTSTRAP_EXPECT", "3");
            node.set("DNS_SERVER", dns.address().to_string());
            node.start();
            // While they start: no such name, no address, some of them and one where nobody is, in any order.
            for _ in 0..3 {
                let mut known: Vec<_> = addresses.iter().copied().filter(|_| random.random_bool(0.4)).collect();
                known.push(nobody);
                known.shuffle(&mut random);
                match random.random_range(0..4) {
                    0 => dns.remove("limiter.test"),
                    1 => dns.set("limiter.test", vec![]),
                    _ => dns.set("limiter.test", known),
                }
                pause(Duration::from_millis(random.random_range(0..400))).await;
            }
        }
        dns.set("limiter.test", addresses);
        assert_one_cluster(&cluster, seed).await;
    }
    figure(&format!("first start of 3 by one DNS name in {} orders: one cluster id each time", SEEDS.count()));
}

#[tokio::test(flavor = "multi_thread")]
async fn founders_killed_while_founding_found_one_cluster_after_their_restart() {
    for seed in SEEDS {
        let mut random = StdRng::seed_from_u64(seed);
        let cluster = Plan::of(3).build().await;
        for node in cluster.nodes() {
            node.start();
        }
        for _ in 0..4 {
            pause(Duration::from_millis(random.random_range(0..300))).await;
            let node = cluster.node(random.random_range(0..3));
            node.kill();
            node.start();
        }
        assert_one_cluster(&cluster, seed).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_of_three_founders_started_nothing_is_founded_until_the_third_comes() {
    let cluster = Plan::of(3).build().await;
    cluster.node(0).start();
    cluster.node(2).start();
    eventually(PATIENCE, "both answer, and say that they are not ready", async || {
        for index in [0, 2] {
            let answer = cluster.node(index).client().get("/ready").await.map_err(|error| error.to_string())?;
            assert_eq!(answer.status, 503, "a node of no cluster cannot be ready: {}", answer.text());
        }
        Ok(())
    })
    .await;
    // Far longer than three nodes take to found a cluster.
    pause(Duration::from_secs(3)).await;
    assert_eq!(cluster.node(0).client().increment("a").await, Outcome::Unavailable);
    assert_eq!(cluster.node(2).client().get("/ready").await.unwrap().status, 503);
    cluster.node(1).start();
    assert_one_cluster(&cluster, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn running_cluster_fourth_and_fifth_node_come_they_learn_and_voters_stay_odd() {
    let cluster = Plan::of(5).contacts(3).build().await;
    for node in &cluster.nodes()[..3] {
        node.start();
    }
    cluster.ready().await;
    let before = cluster.node(0).client().cluster_status().await.unwrap();
    cluster.node(3).start();
    let with_four = members(&cluster, 4).await;
    assert_eq!(with_four.cluster_id, before.cluster_id);
    assert_eq!((with_four.count("Voter"), with_four.count("Learner")), (3, 1), "{with_four:?}");
    let fourth = with_four.members.iter().find(|member| member.name == "node-4").unwrap();
    assert_eq!(fourth.role, "Learner");
    cluster.node(3).ready().await;
    assert_eq!(cluster.node(3).client().increment("a").await, Outcome::Admitted, "a learner answers too");

    cluster.node(4).start();
    eventually(PATIENCE, "all five vote", async || {
        let status = cluster.node(0).client().cluster_status().await?;
        if status.count("Voter") == 5 { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
    assert_one_cluster(&cluster, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn member_restarted_under_another_address_is_the_same_member() {
    let cluster = Plan::of(3).start().await;
    let before = cluster.node(0).client().cluster_status().await.unwrap();
    let moved = cluster.node(2);
    moved.stop().await;
    let address = cluster.spare_address(99).to_string();
    for name in ["BIND_HOST", "ADMIN_HOST", "ADVERTISE_HOST"] {
        moved.set(name, &*address);
    }
    moved.start();
    let there = SocketAddr::from((cluster.spare_address(99), DATA_PORT));
    let mut client = Client::new(there);
    eventually(PATIENCE, "it is ready at its new address", async || match client.get("/ready").await {
        Ok(answer) if answer.status == 200 => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    assert_eq!(client.increment("a").await, Outcome::Admitted);
    let after = client.cluster_status().await.unwrap();
    let names = |status: &ClusterStatus| {
        let mut names: Vec<_> = status.members.iter().map(|m| (m.name.clone(), m.id.clone(), m.role.clone())).collect();
        names.sort();
        names
    };
    assert_eq!((names(&after), after.cluster_id), (names(&before), before.cluster_id));
}

/// Starts the nodes of `plan` in an order and with delays drawn from `seed`.
async fn found(plan: Plan, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let cluster = plan.build().await;
    let mut order: Vec<_> = cluster.nodes().iter().collect();
    order.shuffle(&mut random);
    for node in order {
        node.start();
        pause(Duration::from_millis(random.random_range(0..700))).await;
    }
    assert_one_cluster(&cluster, seed).await;
}

/// Waits until all nodes are ready; then they name one cluster, and each other as voters.
async fn assert_one_cluster(cluster: &Cluster, seed: u64) {
    cluster.ready().await;
    let mut ids = vec![];
    for node in cluster.nodes() {
        let status = node.client().cluster_status().await.unwrap();
        let mut names: Vec<_> = status.members.iter().map(|member| member.name.clone()).collect();
        names.sort();
        let expected: Vec<_> = cluster.nodes().iter().map(|node| node.name().to_owned()).collect();
        assert_eq!(names, expected, "seed {seed}, as {} sees it", node.name());
        assert_eq!(status.count("Voter"), cluster.nodes().len(), "seed {seed}: {status:?}");
        ids.push(status.cluster_id);
    }
    ids.dedup();
    assert_eq!(ids.len(), 1, "seed {seed}: more than one cluster: {ids:?}");
    assert!(!ids[0].is_empty());
}

async fn members(cluster: &Cluster, count: usize) -> ClusterStatus {
    eventually(PATIENCE, &format!("there are {count} members"), async || {
        let status = cluster.node(0).client().cluster_status().await?;
        if status.members.len() == count { Ok(status) } else { Err(format!("{status:?}")) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn status_asked_whether_a_node_is_ready_fails_with_the_reason_until_it_is() {
    let cluster = Plan::of(3).build().await;
    let node = cluster.node(0);
    let status = || {
        let server = node.data().to_string();
        let output = std::process::Command::new(binary()).args(["status", "--ready", "--server", &server]).output();
        let output = output.unwrap();
        let said = String::from_utf8_lossy(if output.status.success() { &output.stdout } else { &output.stderr });
        (output.status.code(), said.into_owned())
    };
    node.start();
    eventually(PATIENCE, "it answers that it is not ready", async || match status() {
        (Some(1), said) if said.contains("has not joined a cluster") => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    cluster.nodes()[1..].iter().for_each(Node::start);
    eventually(PATIENCE, "it is ready", async || match status() {
        (Some(0), said) if said.contains("Leader") => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}
