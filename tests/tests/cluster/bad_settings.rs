//! Nodes that cannot start: each ends with a message that names the setting or the object and says what to do.

use std::net::{TcpListener, UdpSocket};
use std::time::Duration;

use quorate_tests::client::{Outcome, limit, policy};
use quorate_tests::cluster::{ADMIN_PORT, DATA_PORT, GOSSIP_PORT, Node, PATIENCE, Plan, RAFT_PORT, eventually, pause};
use serde_json::json;

/// How long a node may take to see that it cannot start: it waits 30 s for a data folder that another process holds.
const ENDS_WITHIN: Duration = Duration::from_secs(45);

#[tokio::test(flavor = "multi_thread")]
async fn wrong_settings_each_ends_the_node_with_a_message_that_names_it() {
    let cases: &[(&str, &str, &[&str])] = &[
        ("SERVER_PORT", "http", &["SERVER_PORT", "http"]),
        ("SERVER_PORT", "70000", &["SERVER_PORT", "70000"]),
        ("RAFT_PORT", "-1", &["RAFT_PORT", "-1"]),
        ("DISCOVERY_PORT", "0", &["DISCOVERY_PORT", "65535"]),
        ("ADMIN_PORT", "x", &["ADMIN_PORT"]),
        ("BIND_HOST", "not an address", &["BIND_HOST"]),
        ("CLUSTERS", "127.0.0.1", &["CLUSTERS", "has no port", "10.0.0.1:50011"]),
        ("CLUSTERS", "127.0.0.1:x", &["CLUSTERS", "127.0.0.1:x"]),
        ("BOOTSTRAP_EXPECT", "many", &["BOOTSTRAP_EXPECT", "many"]),
        ("DEFAULT_LIMIT", "ten a minute", &["DEFAULT_LIMIT", "ten a minute"]),
        ("DEFAULT_LIMIT", "10/0s", &["DEFAULT_LIMIT"]),
        ("LOG_FORMAT", "xml", &["LOG_FORMAT", "json"]),
        ("LOG", "loud=very=much", &["LOG"]),
        ("POLICIES", "/no/such/folder", &["/no/such/folder"]),
        ("DATA_DIR", "/proc/nobody/may/write/here", &["/proc/nobody"]),
        ("NODE_ID", "a/b", &["NODE_ID", "a/b"]),
        ("CLUSTERS", "limiter.test:50011", &["BOOTSTRAP_EXPECT=3"]),
        ("DNS_SERVER", "nowhere", &["DNS_SERVER"]),
        ("DRAIN_DELAY", "10", &["DRAIN_DELAY"]),
        ("DISK_RESERVE", "64 megabytes", &["DISK_RESERVE", "64MiB"]),
        ("RAFT_VOL_DIR", "elsewhere", &["RAFT_VOL_DIR", "DATA_DIR"]),
    ];
    let mut wrong = vec![];
    for (name, value, words) in cases {
        let cluster = Plan::of(1).build().await;
        cluster.node(0).set(name, *value);
        if let Err(reason) = fails(cluster.node(0), words).await {
            wrong.push(format!("{name}={value}: {reason}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn several_wrong_settings_are_all_told_at_once() {
    let cluster = Plan::of(1).set("LOG_FORMAT", "xml").set("SERVER_PORT", "x").set("DEFAULT_LIMIT", "y").build().await;
    fails(cluster.node(0), &["LOG_FORMAT", "SERVER_PORT", "DEFAULT_LIMIT"]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_settings_that_name_one_port_end_the_node() {
    let cluster = Plan::of(1).build().await;
    cluster.node(0).set("RAFT_PORT", DATA_PORT.to_string());
    fails(cluster.node(0), &[&DATA_PORT.to_string()]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn policy_files_that_are_wrong_end_the_node_with_file_document_and_field() {
    let good = "apiVersion: quorate.dev/v1alpha1\nkind: QuotaPolicy\nmetadata: {name: good}\nspec:\n  limits: [{name: a, \
                algorithm: FixedWindow, limit: 1, window: 1m}]\n";
    let cases = [
        ("broken.yaml", "kind: [".to_owned(), &["broken.yaml"][..]),
        ("typo.yaml", format!("{good}---\n{}", good.replace("window", "windw")), &["typo.yaml", "2", "windw"]),
        ("twice.yaml", format!("{good}---\n{good}"), &["twice.yaml", "default/good"]),
    ];
    for (file, text, words) in cases {
        let cluster = Plan::of(1).set("POLICIES", "{dir}/policies").build().await;
        let folder = cluster.dir().join("policies");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join(file), text).unwrap();
        fails(cluster.node(0), words).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn port_in_use_the_node_ends_and_names_port_and_setting() {
    for (setting, port) in [("SERVER_PORT", DATA_PORT), ("RAFT_PORT", RAFT_PORT), ("ADMIN_PORT", ADMIN_PORT)] {
        let cluster = Plan::of(1).build().await;
        let _taken = TcpListener::bind((cluster.node(0).ip(), port)).unwrap();
        fails(cluster.node(0), &[&port.to_string(), setting]).await.unwrap();
    }
    let cluster = Plan::of(1).build().await;
    let _taken = UdpSocket::bind((cluster.node(0).ip(), GOSSIP_PORT)).unwrap();
    fails(cluster.node(0), &[&GOSSIP_PORT.to_string(), "DISCOVERY_PORT"]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn data_folder_in_use_the_second_node_ends_and_the_first_goes_on() {
    let cluster = Plan::of(2).contacts(1).set("DEFAULT_LIMIT", "2/24h").build().await;
    let (first, second) = (cluster.node(0), cluster.node(1));
    first.start();
    first.ready().await;
    assert_eq!(first.client().increment("a").await, Outcome::Admitted);
    let folder = cluster.dir().join(first.name());
    second.set("DATA_DIR", folder.display().to_string());
    fails(second, &[&folder.display().to_string(), "DATA_DIR"]).await.unwrap();
    assert_eq!(first.client().check("a").await.unwrap().remaining_quota, Some(1));
    first.stop().await;
    first.start();
    first.ready().await;
    assert_eq!(first.client().check("a").await.unwrap().remaining_quota, Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn data_folder_that_is_a_file_or_damaged_the_node_ends_and_says_what_to_do() {
    let cluster = Plan::of(1).build().await;
    let node = cluster.node(0);
    let file = cluster.dir().join("file");
    std::fs::write(&file, "text").unwrap();
    node.set("DATA_DIR", file.display().to_string());
    fails(node, &[&file.display().to_string()]).await.unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "text");

    let folder = cluster.dir().join("damaged");
    node.set("DATA_DIR", folder.display().to_string());
    node.start();
    node.ready().await;
    node.stop().await;
    let identity = folder.join("node.json");
    std::fs::write(&identity, "{").unwrap();
    fails(node, &["node.json"]).await.unwrap();
    assert_eq!(std::fs::read_to_string(&identity).unwrap(), "{", "what is damaged must stay for who repairs it");
}

#[tokio::test(flavor = "multi_thread")]
async fn data_folder_of_another_cluster_the_node_joins_nothing_and_says_so() {
    let theirs = Plan::of(1).set("NODE_ID", "node-4").set("DEFAULT_LIMIT", "7/24h").start().await;
    theirs.node(0).stop().await;
    // Three of four found: the fourth comes with the other cluster's folder.
    let ours = Plan::of(4).set("BOOTSTRAP_EXPECT", "3").beside(&theirs).build().await;
    for node in &ours.nodes()[..3] {
        node.start();
    }
    ours.ready().await;
    let quota = policy("ours", "a", &json!([limit("FixedWindow", 5, "24h")]));
    ours.node(0).admin_client().put_policy(&quota).await.unwrap();
    assert_eq!(ours.node(0).client().increment("a").await, Outcome::Admitted);
    let before = ours.node(0).client().cluster_status().await.unwrap();

    let stranger = ours.node(3);
    stranger.set("DATA_DIR", theirs.dir().join("node-1").display().to_string());
    stranger.start();
    eventually(PATIENCE, "its log says that it meets another cluster", async || {
        let log = stranger.log();
        if log.contains(&before.cluster_id) && log.contains("DATA_DIR") { Ok(()) } else { Err(log) }
    })
    .await;
    pause(Duration::from_secs(1)).await;
    let after = ours.node(0).client().cluster_status().await.unwrap();
    assert_eq!((after.members.len(), &after.cluster_id), (3, &before.cluster_id));
    assert_eq!(ours.node(1).client().check("a").await.unwrap().remaining_quota, Some(4));
    stranger.kill();
    // Nothing of the other cluster was lost.
    theirs.node(0).start();
    theirs.ready().await;
    let policy = theirs.node(0).client().get("/v1/policies/quorate/default").await.unwrap();
    assert!(policy.expect_status(200).text().contains('7'));
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_flag_or_command_ends_with_usage() {
    for arguments in [&["--no-such-flag"][..], &["no-such-command"]] {
        let output = std::process::Command::new(quorate_tests::cluster::binary()).args(arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success());
        assert!(text.contains(arguments[0]) && text.contains("--help"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_validated_offline_the_wrong_ones_are_named() {
    let cluster = Plan::of(0).build().await;
    let validate = || {
        let command =
            std::process::Command::new(quorate_tests::cluster::binary()).arg("validate").arg(cluster.dir()).output();
        let output = command.unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.success(), text)
    };
    let quota = policy("fine", "a", &json!([limit("FixedWindow", 5, "24h")]));
    std::fs::write(cluster.dir().join("fine.yaml"), quota.to_string()).unwrap();
    let (success, text) = validate();
    assert!(success, "{text}");
    std::fs::write(cluster.dir().join("wrong.yaml"), quota.to_string().replace("24h", "24 hours")).unwrap();
    let (success, text) = validate();
    assert!(!success && text.contains("wrong.yaml") && text.contains("window"), "{text}");
}

/// Starts it; it must end by itself, not with status 0, by no signal, and with these words.
async fn fails(node: &Node, words: &[&str]) -> Result<(), String> {
    let already = node.log().len();
    node.start();
    let Some(status) = node.ends_within(ENDS_WITHIN).await else {
        node.kill();
        return Err(format!("it goes on: {}", &node.log()[already..]));
    };
    let log = node.log()[already..].to_owned();
    if !matches!(status.code(), Some(1..=100)) {
        return Err(format!("status {status:?}: {log}"));
    }
    if log.contains("panicked") || !words.iter().all(|word| log.contains(word)) {
        return Err(format!("{words:?} expected: {log}"));
    }
    Ok(())
}
