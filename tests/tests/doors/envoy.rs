//! Real Envoys, by both recipes.

use quorate_tests::client::Answer;
use quorate_tests::cluster::{Cluster, PATIENCE, Plan, eventually, figure};
use quorate_tests::load::{count, statuses};
use quorate_tests::programs::{Backend, Program};

use super::{PATH, decision, leaderless, left, put_edge_policy};

const LIMIT: u64 = 300;
const RATE_LIMIT_SERVICE: &str = "envoy-rate-limit-service.yaml";
const EXT_AUTHZ: &str = "envoy-ext-authz.yaml";

fn x_ratelimit(answer: &Answer) -> [&str; 3] {
    ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"].map(|name| answer.header(name))
}

/// Two Envoys, each of which asks one node first, but none of them all.
async fn two(cluster: &Cluster, backend: &Backend, recipe: &str) -> [Program; 2] {
    let door = |index: usize| {
        let node = cluster.node(index);
        if recipe == EXT_AUTHZ { node.data() } else { node.grpc() }
    };
    let first = Program::envoy(cluster, 0, recipe, backend, &[door(0)], &[]).await;
    let second = Program::envoy(cluster, 1, recipe, backend, &[door(1), door(2)], &[]).await;
    [first, second]
}

#[tokio::test(flavor = "multi_thread")]
async fn two_envoys_on_different_nodes_admit_exactly_the_limit_through_the_rate_limit_service() {
    exactly(RATE_LIMIT_SERVICE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_envoys_on_different_nodes_admit_exactly_the_limit_through_ext_authz() {
    exactly(EXT_AUTHZ).await;
}

async fn exactly(recipe: &str) {
    let cluster = Plan::of(3).alone().start().await;
    put_edge_policy(&cluster, LIMIT).await;
    let backend = Backend::start(&cluster).await;
    let envoys = two(&cluster, &backend, recipe).await;
    let clients = (0..16).map(|number| envoys[number % 2].client("one")).collect();
    let statuses = statuses(clients, PATH, 50).await;
    assert_eq!(count(&statuses, 200) as u64, LIMIT, "{statuses:?}");
    assert_eq!(count(&statuses, 429), statuses.len() - count(&statuses, 200));
    assert_eq!(left(&cluster, 2, "one").await, 0);
    figure(&format!("{recipe}: exactly {LIMIT} of {} admitted by two Envoys on three nodes", statuses.len()));
}

#[tokio::test(flavor = "multi_thread")]
async fn rate_limit_service_fills_envoys_own_headers_and_adds_ours() {
    let cluster = Plan::of(3).start().await;
    put_edge_policy(&cluster, 2).await;
    let backend = Backend::start(&cluster).await;
    let [envoy, _other] = two(&cluster, &backend, RATE_LIMIT_SERVICE).await;
    let mut client = envoy.client("a");
    let first = client.get("/hello").await.unwrap();
    assert_eq!((decision(&first), first.text().as_str()), ((200, "admit"), "hello /hello"));
    assert_eq!(x_ratelimit(&first)[..2], [r#"2, 2;w=3600;name="default/edge/only""#, "1"]);
    let reset: u64 = x_ratelimit(&first)[2].parse().unwrap();
    assert!((3500..=3600).contains(&reset), "{reset}");
    assert_eq!(first.header("ratelimit-policy"), r#""default/edge/only";q=2;w=3600"#);
    client.get("/hello").await.unwrap();
    let denied = client.get("/hello").await.unwrap();
    assert_eq!((decision(&denied), x_ratelimit(&denied)[1]), ((429, "deny"), "0"));
    assert!(denied.header("retry-after").parse::<u64>().unwrap() > 3500);
    // A header that is too long to be counted does not get past.
    let long = "x".repeat(300);
    assert_eq!(decision(&envoy.client(&long).get("/").await.unwrap()), (429, "refused"));
}

#[tokio::test(flavor = "multi_thread")]
async fn ext_authz_forwards_denials_with_headers_and_body_and_clients_have_no_say() {
    let cluster = Plan::of(3).start().await;
    put_edge_policy(&cluster, 1).await;
    let backend = Backend::start(&cluster).await;
    let [envoy, _other] = two(&cluster, &backend, EXT_AUTHZ).await;
    let mut client = envoy.client("a");
    let first = client.get("/hello?domain=nobodys&uri=/x").await.unwrap();
    assert_eq!((decision(&first), first.text().as_str()), ((200, "admit"), "hello /hello"));
    assert_eq!(first.header("ratelimit").split(';').nth(1), Some("r=0"));
    for path in ["/hello", "/?domain=nobodys", "/?timeout=1ms&deny_status=403", "/%2e%2e?uri=&domain=nobodys"] {
        let denied = client.get(path).await.unwrap();
        assert_eq!(decision(&denied), (429, "deny"), "{path}");
        assert_eq!(denied.header("content-type"), "application/problem+json");
        assert_eq!(denied.json::<serde_json::Value>()["violated-policies"][0], "default/edge/only");
        assert_ne!(denied.header("retry-after"), "");
    }
    assert_eq!(client.post("/x", &serde_json::json!({"a": 1})).await.unwrap().status, 429);
    let long = "x".repeat(300);
    assert_eq!(decision(&envoy.client(&long).get("/").await.unwrap()), (429, "refused"));
}

#[tokio::test(flavor = "multi_thread")]
async fn node_that_envoy_asks_killed_under_load_it_goes_on_and_never_admits_more() {
    for recipe in [RATE_LIMIT_SERVICE, EXT_AUTHZ] {
        let cluster = Plan::of(3).alone().start().await;
        put_edge_policy(&cluster, LIMIT).await;
        let backend = Backend::start(&cluster).await;
        let nodes: Vec<_> =
            cluster.nodes().iter().map(|node| if recipe == EXT_AUTHZ { node.data() } else { node.grpc() }).collect();
        let envoy = Program::envoy(&cluster, 0, recipe, &backend, &nodes, &[]).await;
        let mut client = envoy.client("one");
        let mut seen = vec![];
        for _ in 0..LIMIT / 2 {
            seen.push(client.get("/").await.unwrap().status);
        }
        let leader = cluster.leader().await;
        cluster.node(leader).kill();
        eventually(PATIENCE, "the limit is used up", async || {
            let status = client.get("/").await.unwrap().status;
            seen.push(status);
            if status == 429 && count(&seen[seen.len() - 10..], 429) == 10 { Ok(()) } else { Err(status.to_string()) }
        })
        .await;
        let (admitted, denied) = (count(&seen, 200) as u64, count(&seen, 429) as u64);
        let others = seen.len() as u64 - admitted - denied;
        assert!(admitted <= LIMIT, "{admitted} admitted");
        let used = LIMIT - left(&cluster, (leader + 1) % 3, "one").await;
        assert_eq!(used, LIMIT);
        figure(&format!(
            "{recipe}: the leader killed: {admitted} of {LIMIT} admitted, {others} answered without a decision"
        ));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limiter_without_a_decision_envoy_does_as_the_policies_say() {
    let cluster = leaderless().await;
    let backend = Backend::start(&cluster).await;
    let node = cluster.node(0);
    for (number, recipe, door) in [(0, RATE_LIMIT_SERVICE, node.grpc()), (1, EXT_AUTHZ, node.data())] {
        let envoy = Program::envoy(&cluster, number, recipe, &backend, &[door], &[]).await;
        for (id, answered) in [("shut-a", (429, "unavailable")), ("open-a", (200, "allow-unavailable"))] {
            assert_eq!(decision(&envoy.client(id).get("/").await.unwrap()), answered, "{recipe} {id}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_answers_envoy_lets_nobody_pass() {
    let cluster = Plan::of(1).start().await;
    put_edge_policy(&cluster, 1000).await;
    let backend = Backend::start(&cluster).await;
    for (number, recipe, status) in [(0, RATE_LIMIT_SERVICE, 500), (1, EXT_AUTHZ, 503)] {
        let node = cluster.node(0);
        let door = if recipe == EXT_AUTHZ { node.data() } else { node.grpc() };
        let envoy = Program::envoy(&cluster, number, recipe, &backend, &[door], &[]).await;
        let mut client = envoy.client("a");
        assert_eq!(client.get("/").await.unwrap().status, 200, "{recipe}");
        node.kill();
        assert_eq!(client.get("/").await.unwrap().status, status, "{recipe}");
        node.start();
        node.ready().await;
        eventually(PATIENCE, "it asks again", async || match client.get("/").await.unwrap().status {
            200 => Ok(()),
            other => Err(other.to_string()),
        })
        .await;
    }
}
