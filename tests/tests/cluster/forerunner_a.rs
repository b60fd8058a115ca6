//! One test for each bug of "Distributed Ratelimiter with Raft and Serf", the project whose API this one keeps, that shows
//! from outside; and its words on the wire.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use quorate_tests::client::{Client, Outcome, limit, policy};
use quorate_tests::cluster::{Cluster, Node, PATIENCE, Plan, eventually, pause};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn forerunner_a_wire_words_hold() {
    let cluster = Plan::of(3).set("DEFAULT_LIMIT", "2/24h").start().await;
    let node = cluster.node(0);
    let json_of = async |method: &str, path: &str| {
        let mut client = node.client();
        let answer =
            if method == "GET" { client.get(path).await } else { client.post(path, &Value::Null).await }.unwrap();
        let kind = answer.header("content-type").to_owned();
        (answer.status, kind.starts_with("application/json"), answer.json::<Value>())
    };
    let cases = [
        ("GET", "/rate/check?client_id=a", 200, json!({"remaining_quota": 2, "result": true})),
        ("POST", "/rate/increment?client_id=a", 200, json!({"result": true})),
        ("GET", "/rate/check?client_id=a", 200, json!({"remaining_quota": 1, "result": true})),
        ("POST", "/rate/increment?client_id=a", 200, json!({"result": true})),
        ("POST", "/rate/increment?client_id=a", 200, json!({"result": false})),
        ("GET", "/rate/check?client_id=a", 200, json!({"remaining_quota": 0, "result": false})),
        ("POST", "/rate/increment?client_id=a&deny_status=429", 429, json!({"result": false})),
        ("POST", "/rate/increment?client_id=a&deny_status=403", 403, json!({"result": false})),
        ("POST", "/rate/reset?client_id=a", 200, json!({"result": true})),
        ("POST", "/rate/reset?client_id=never-seen", 200, json!({"result": true})),
        ("GET", "/rate/check?client_id=a", 200, json!({"remaining_quota": 2, "result": true})),
        ("POST", "/rate/increment", 400, json!({"error": "Missing client_id.", "result": false})),
        ("GET", "/rate/check", 400, json!({"error": "Missing client_id.", "result": false})),
        ("POST", "/rate/reset", 400, json!({"error": "Missing client_id.", "result": false})),
    ];
    for (method, path, status, body) in cases {
        assert_eq!(json_of(method, path).await, (status, true, body), "{method} {path}");
    }
    let (code, _, stats) = json_of("GET", "/raft/stats").await;
    assert_eq!((code, &stats["result"]), (200, &json!(true)));
    let names = "state term last_log_index last_log_term commit_index applied_index fsm_pending last_snapshot_index \
                 last_snapshot_term latest_configuration latest_configuration_index last_contact num_peers \
                 protocol_version snapshot_version_min snapshot_version_max";
    for name in names.split_whitespace() {
        assert!(stats["stats"][name].is_string(), "{name} in {stats}");
    }
    for path in ["/", "/rate", "/rate/incremen", "/raft/join", "/v2/check"] {
        assert_eq!(node.client().get(path).await.unwrap().status, 404, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forerunner_a_follower_answers_500() {
    let cluster = Plan::of(3).set("DEFAULT_LIMIT", "100/24h").start().await;
    let leader = cluster.leader().await;
    for (index, node) in cluster.nodes().iter().enumerate().filter(|(index, _)| *index != leader) {
        let mut client = node.client();
        assert_eq!(client.stats().await.unwrap()["state"], "Follower");
        let id = format!("at-{index}");
        assert_eq!(client.increment(&id).await, Outcome::Admitted);
        assert_eq!(client.check(&id).await.unwrap().remaining_quota, Some(99));
        assert_eq!(client.post(&format!("/rate/reset?client_id={id}"), &Value::Null).await.unwrap().status, 200);
        let policy = policy(&id, &id, &json!([limit("FixedWindow", 1, "24h")]));
        node.admin_client().put_policy(&policy).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forerunner_a_three_limiters_instead_of_one() {
    let cluster = Plan::of(3).set("DEFAULT_LIMIT", "10/24h").start().await;
    let mut admitted = 0;
    for turn in 0..30 {
        admitted += u32::from(cluster.node(turn % 3).client().increment("one").await == Outcome::Admitted);
    }
    assert_eq!(admitted, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn forerunner_a_readme_commands_found_three_clusters() {
    // Three nodes on one address with the settings of its README and no others.
    let cluster = Plan::of(3).set("DEFAULT_LIMIT", "10/60s").build().await;
    let host = cluster.node(0).ip();
    let contacts = (50011..=50013).map(|port| SocketAddr::from((host, port)).to_string()).collect::<Vec<_>>().join(",");
    let mut clients = vec![];
    for (node, number) in cluster.nodes().iter().zip(1u16..) {
        for name in ["BIND_HOST", "ADMIN_HOST"] {
            node.set(name, host.to_string());
        }
        node.unset("ADVERTISE_HOST");
        node.unset("DATA_DIR");
        node.set("SERVER_PORT", (20000 + number).to_string());
        node.set("RAFT_PORT", (50000 + number).to_string());
        node.set("DISCOVERY_PORT", (50010 + number).to_string());
        node.set("CLUSTERS", &*contacts);
        node.start();
        clients.push(Client::new((host, 20000 + number).into()));
    }
    let mut admitted = 0;
    for turn in 0..30 {
        let client = &mut clients[turn % 3];
        let outcome = eventually(PATIENCE, "it decides", async || match client.increment("one").await {
            outcome @ (Outcome::Admitted | Outcome::Denied) => Ok(outcome),
            other => Err(format!("{other:?}")),
        });
        admitted += u32::from(outcome.await == Outcome::Admitted);
    }
    assert_eq!(admitted, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn forerunner_a_failed_member_shrinks_the_quorum() {
    let cluster = Plan::of(3).set("DEFAULT_LIMIT", "100/24h").start().await;
    let [first, second, third] = cluster.nodes() else { unreachable!("three were planned") };
    third.kill();
    for node in [first, second] {
        eventually(PATIENCE, &format!("gossip of {} says that node-3 is gone", node.name()), async || {
            let metrics = node.client().get("/metrics").await.map_err(|error| error.to_string())?.text();
            if metrics.contains("\nquorate_gossip_peers 2\n") { Ok(()) } else { Err("it shows all three".to_owned()) }
        })
        .await;
    }
    // Longer than whoever looks after the members takes to act.
    pause(Duration::from_secs(2)).await;
    let status = first.client().cluster_status().await.unwrap();
    assert_eq!((status.members.len(), status.count("Voter")), (3, 3), "{status:?}");
    assert_eq!(first.client().increment("a").await, Outcome::Admitted, "two of three decide");
    second.kill();
    unreachable_seen(&cluster, 0, "node-2").await;
    assert_eq!(first.client().increment("a").await, Outcome::Unavailable, "one of three must not decide");
    let status = first.client().cluster_status().await.unwrap();
    assert_eq!((status.members.len(), status.count("Voter")), (3, 3), "{status:?}");
    second.start();
    second.ready().await;
    let left = second.client().check("a").await.unwrap().remaining_quota.unwrap();
    assert!((98..=99).contains(&left), "one admitted, one unknown, {left} of 100 left");
}

#[tokio::test(flavor = "multi_thread")]
async fn forerunner_a_restart_loses_quota() {
    let cluster = Plan::of(3).set("DEFAULT_LIMIT", "5/24h").start().await;
    for _ in 0..5 {
        assert_eq!(cluster.node(0).client().increment("spent").await, Outcome::Admitted);
    }
    for node in cluster.nodes() {
        node.stop().await;
        node.start();
        node.ready().await;
        assert_eq!(node.client().increment("spent").await, Outcome::Denied);
    }
    for node in cluster.nodes() {
        node.kill();
    }
    for node in cluster.nodes() {
        node.start();
    }
    cluster.ready().await;
    assert_eq!(cluster.node(1).client().increment("spent").await, Outcome::Denied);
}

#[tokio::test(flavor = "multi_thread")]
async fn forerunner_a_missing_data_dir_is_fatal() {
    let cluster = Plan::of(1).build().await;
    let node = cluster.node(0);
    node.unset("DATA_DIR");
    node.start();
    node.ready().await;
    assert!(cluster.dir().join("data").join(node.name()).is_dir(), "the default is ./data/$NODE_ID");
    node.stop().await;
    // Its own name for the setting, and a folder whose parents do not exist.
    let deep = cluster.dir().join("not/yet/there");
    node.set("RAFT_VOL_DIR", deep.display().to_string());
    node.start();
    node.ready().await;
    assert!(deep.is_dir());
}

#[tokio::test(flavor = "multi_thread")]
async fn forerunner_a_check_creates_state() {
    let cluster = Plan::of(3).set("DEFAULT_LIMIT", "5/24h").start().await;
    assert_eq!(cluster.node(0).client().increment("known").await, Outcome::Admitted);
    let before = counters(&cluster).await;
    for turn in 0..60 {
        let mut client = cluster.node(turn % 3).client();
        let check = client.check(&format!("never-seen-{turn}")).await.unwrap();
        assert_eq!((check.remaining_quota, check.result), (Some(5), true));
        assert_eq!(client.check("known").await.unwrap().remaining_quota, Some(4));
        let peek = client.v1_check(&[("client_id", &format!("never-peeked-{turn}"))], 0).await.unwrap();
        assert!(peek.admitted);
    }
    assert_eq!(counters(&cluster).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn forerunner_a_check_is_stale_on_a_follower() {
    let cluster = Plan::of(3).set("DEFAULT_LIMIT", "100/24h").start().await;
    let mut clients: Vec<_> = cluster.nodes().iter().map(Node::client).collect();
    for turn in 0..60 {
        assert_eq!(clients[turn % 3].increment("read").await, Outcome::Admitted);
        let left = clients[(turn + 1) % 3].check("read").await.unwrap().remaining_quota;
        assert_eq!(left, Some(99 - turn as u64), "a check must see what was acknowledged before it");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forerunner_a_first_request_of_a_window_is_judged_by_the_old_one() {
    let cluster = Plan::of(3).start().await;
    for algorithm in ["FixedWindow", "SlidingWindow", "TokenBucket"] {
        let name = algorithm.to_lowercase();
        let policy = policy(&name, &name, &json!([limit(algorithm, 4, "2s")]));
        cluster.node(0).admin_client().put_policy(&policy).await.unwrap();
        let mut client = cluster.node(1).client();
        eventually(PATIENCE, "it is exhausted", async || match client.increment(&name).await {
            Outcome::Denied => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        eventually(PATIENCE, "all is available again", async || match client.check(&name).await {
            Ok(check) if check.remaining_quota == Some(4) => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        let first = client.v1_check(&[("client_id", &name)], 1).await.unwrap();
        assert!(first.admitted, "{algorithm}: {first:?}");
        assert_eq!(first.limits[0].remaining, 3, "{algorithm}: it was not counted");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forerunner_a_refill_of_a_part_of_a_second_is_lost() {
    let cluster = Plan::of(1).start().await;
    let bucket = json!([{"name": "only", "algorithm": "TokenBucket", "limit": 2, "window": "1s", "burst": 1}]);
    cluster.node(0).admin_client().put_policy(&policy("part", "part", &bucket)).await.unwrap();
    let mut client = cluster.node(0).client();
    for turn in 0..5 {
        assert_eq!(client.increment("part").await, Outcome::Admitted, "turn {turn}");
        // More than the half second that one hit takes, less than a second.
        pause(Duration::from_millis(750)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forerunner_a_replica_judges_by_its_own_clock_when_it_replays() {
    let cluster = Plan::of(3).start().await;
    let limits = json!([{"name": "window", "algorithm": "FixedWindow", "limit": 3, "window": "4s"}]);
    cluster.node(0).admin_client().put_policy(&policy("window", "same", &limits)).await.unwrap();
    let local = async |node: &Node| {
        let answer = node.client().get("/rate/check?client_id=same&consistency=local").await;
        Ok::<_, String>(answer.map_err(|error| error.to_string())?.json::<Value>()["remaining_quota"].clone())
    };
    for _ in 0..3 {
        assert_eq!(cluster.node(1).client().increment("same").await, Outcome::Admitted);
    }
    for expected in [0, 3] {
        for node in cluster.nodes() {
            eventually(PATIENCE, &format!("{expected} are left, as {} sees it", node.name()), async || {
                let left = local(node).await?;
                if left == expected { Ok(()) } else { Err(left.to_string()) }
            })
            .await;
        }
    }
    // Replayed by its own clock, the three would fill a window that starts now. From its log alone it would go on from the
    // last stamp there, which may lie before the window's end; once it is ready it knows better.
    let node = cluster.node(2);
    node.kill();
    node.start();
    node.ready().await;
    assert_eq!(local(node).await.unwrap(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn forerunner_a_node_that_left_hears_nothing_when_it_is_back() {
    let cluster = Plan::of(3).set("DEFAULT_LIMIT", "100/24h").start().await;
    let left = cluster.node(2);
    left.stop().await;
    unreachable_seen(&cluster, 0, left.name()).await;
    left.start();
    left.ready().await;
    for node in cluster.nodes() {
        eventually(PATIENCE, &format!("{} hears of all", node.name()), async || {
            let status = node.client().cluster_status().await?;
            if status.members.iter().all(|member| member.reachable) { Ok(()) } else { Err(format!("{status:?}")) }
        })
        .await;
    }
    assert_eq!(left.client().increment("a").await, Outcome::Admitted);
}

#[tokio::test(flavor = "multi_thread")]
async fn forerunner_a_listens_on_the_loopback_address_only() {
    let cluster = Plan::of(1).alone().build().await;
    let node = cluster.node(0);
    let listeners: Vec<_> = (0..5).map(|_| TcpListener::bind("0.0.0.0:0").unwrap()).collect();
    let ports: Vec<_> = listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
    drop(listeners);
    for (name, port) in ["SERVER_PORT", "ADMIN_PORT", "GRPC_PORT", "RAFT_PORT", "DISCOVERY_PORT"].iter().zip(&ports) {
        node.set(name, port.to_string());
    }
    for name in ["BIND_HOST", "ADMIN_HOST", "ADVERTISE_HOST", "CLUSTERS"] {
        node.unset(name);
    }
    node.start();
    let elsewhere = cluster.spare_address(7);
    let mut client = Client::new((elsewhere, ports[0]).into());
    eventually(PATIENCE, "it decides, asked at any address of the machine", async || {
        match client.increment("a").await {
            Outcome::Admitted => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert!(std::net::TcpStream::connect((elsewhere, ports[3])).is_ok(), "other nodes must reach its Raft port");
    // Changes of policies are for the machine itself.
    assert!(std::net::TcpStream::connect((elsewhere, ports[1])).is_err(), "the admin port is for 127.0.0.1 only");
}

/// The counters held, by each node's own metrics, once all have applied the same.
async fn counters(cluster: &Cluster) -> String {
    eventually(PATIENCE, "all nodes hold as many counters", async || {
        let mut seen = vec![];
        for node in cluster.nodes() {
            let metrics = node.client().get("/metrics").await.map_err(|error| error.to_string())?.text();
            let value = metrics.lines().find_map(|line| line.strip_prefix("quorate_counters")).map(str::to_owned);
            seen.push(value.ok_or("no metric quorate_counters")?);
        }
        seen.dedup();
        if seen.len() == 1 { Ok(seen.remove(0)) } else { Err(format!("{seen:?}")) }
    })
    .await
}

async fn unreachable_seen(cluster: &Cluster, by: usize, name: &str) {
    eventually(PATIENCE, &format!("{name} is seen to be gone"), async || {
        let status = cluster.node(by).client().cluster_status().await?;
        let gone = status.members.iter().any(|member| member.name == name && !member.reachable);
        if gone { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
}
