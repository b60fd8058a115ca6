//! A real nginx, by each recipe.

use quorate_tests::cluster::{Plan, figure};
use quorate_tests::load::{count, statuses};
use quorate_tests::programs::{Backend, Program};
use serde_json::json;

use super::{PATH, leaderless, left, put_edge_policy};

const LIMIT: u64 = 300;

#[tokio::test(flavor = "multi_thread")]
async fn each_recipe_admits_exactly_the_limit_over_three_nodes() {
    let cluster = Plan::of(3).alone().start().await;
    put_edge_policy(&cluster, LIMIT).await;
    let backend = Backend::start(&cluster).await;
    for (number, recipe) in [(0, "nginx-403.conf"), (1, "nginx-429.conf"), (2, "nginx-open.conf")] {
        let nginx = Program::nginx(&cluster, number, recipe, &backend, &cluster.addresses(), &[]).await;
        let statuses = statuses((0..16).map(|_| nginx.client(recipe)).collect(), PATH, 50).await;
        assert_eq!(count(&statuses, 200) as u64, LIMIT, "{recipe}: {statuses:?}");
        assert_eq!(count(&statuses, 429), statuses.len() - count(&statuses, 200), "{recipe}");
        assert_eq!(left(&cluster, 1, recipe).await, 0);
        figure(&format!("{recipe}: exactly {LIMIT} of {} admitted", statuses.len()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn recipe_with_403_tells_limits_and_denials_apart_and_logs_no_error() {
    let cluster = Plan::of(3).start().await;
    put_edge_policy(&cluster, 2).await;
    let backend = Backend::start(&cluster).await;
    let nginx = Program::nginx(&cluster, 0, "nginx-403.conf", &backend, &cluster.addresses(), &[]).await;
    let mut client = nginx.client("a");
    // The body is for the backend alone.
    let first = client.post("/hello", &json!({"x": "y"})).await.unwrap();
    assert_eq!((first.status, first.text().as_str()), (200, "hello /hello"));
    assert_eq!(first.header("ratelimit-policy"), r#""default/edge/only";q=2;w=3600"#);
    assert_eq!(first.header("ratelimit").split(';').nth(1), Some("r=1"));
    client.get("/").await.unwrap();
    let denied = client.get("/").await.unwrap();
    assert_eq!((denied.status, denied.header("x-ratelimit-decision")), (429, "deny"));
    assert_eq!(denied.header("ratelimit").split(';').nth(1), Some("r=0"));
    assert!(denied.header("retry-after").parse::<u64>().unwrap() > 3500);
    assert_eq!(denied.header("content-type"), "application/problem+json");
    let long = "x".repeat(300);
    assert_eq!(nginx.client(&long).get("/").await.unwrap().status, 403);
    assert!(!nginx.log().contains("[error]"), "{}", nginx.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn recipe_with_429_turns_nginxs_error_back_into_the_denial() {
    let cluster = Plan::of(1).start().await;
    put_edge_policy(&cluster, 1).await;
    let backend = Backend::start(&cluster).await;
    let nginx = Program::nginx(&cluster, 0, "nginx-429.conf", &backend, &cluster.addresses(), &[]).await;
    let mut client = nginx.client("a");
    assert_eq!(client.get("/").await.unwrap().status, 200);
    let denied = client.get("/").await.unwrap();
    assert_eq!((denied.status, denied.header("x-ratelimit-decision")), (429, "deny"));
    assert!(denied.header("retry-after").parse::<u64>().unwrap() > 3500);
    assert!(nginx.log().contains("auth request unexpected status: 429"), "which is why the other is to be preferred");
}

#[tokio::test(flavor = "multi_thread")]
async fn limiter_without_a_decision_or_gone_each_recipe_does_as_it_says() {
    let cluster = leaderless().await;
    let backend = Backend::start(&cluster).await;
    let nodes = &cluster.addresses()[..1];
    let quick = [("timeout=2s", "timeout=200ms")];
    let with_403 = Program::nginx(&cluster, 0, "nginx-403.conf", &backend, nodes, &quick).await;
    let with_429 = Program::nginx(&cluster, 1, "nginx-429.conf", &backend, nodes, &quick).await;
    let open = Program::nginx(&cluster, 2, "nginx-open.conf", &backend, nodes, &quick).await;
    // The policies say who may pass, and say so at the limiter, not at nginx.
    for (nginx, status) in [(&with_403, 503), (&with_429, 503), (&open, 429)] {
        assert_eq!(nginx.client("shut-a").get("/").await.unwrap().status, status);
        assert_eq!(nginx.client("open-a").get("/").await.unwrap().status, 200);
    }
    cluster.node(0).kill();
    for (nginx, status) in [(&with_403, 500), (&with_429, 503), (&open, 200)] {
        assert_eq!(nginx.client("shut-a").get("/").await.unwrap().status, status);
    }
}
