//! One limit behind all doors at once.

use quorate_tests::client::{Client, limit, policy};
use quorate_tests::cluster::{Cluster, Node, Plan, figure};
use quorate_tests::grpc::{Connection, OK, RateLimitRequest};
use quorate_tests::programs::{Backend, Program};
use serde_json::{Value, json};
use tokio::task::JoinSet;

const LIMIT: u64 = 1000;
/// Of each of the doors, on two connections.
const REQUESTS: u64 = 150;

/// Runs: 20, or what `RUNS` says.
fn runs() -> u64 {
    std::env::var("RUNS").map_or(20, |runs| runs.parse().expect("RUNS is a number"))
}

#[tokio::test(flavor = "multi_thread")]
async fn one_limit_hit_at_once_through_every_door_admits_exactly_that() {
    let cluster = Plan::of(3).alone().start().await;
    let quota = policy("all", "run-", &json!([limit("FixedWindow", LIMIT, "24h")]));
    cluster.node(0).admin_client().put_policy(&quota).await.unwrap();
    let backend = Backend::start(&cluster).await;
    let grpc: Vec<_> = cluster.nodes().iter().map(Node::grpc).collect();
    let data = cluster.addresses();
    let service = [("domain: edge", "domain: default")];
    let gateway = [("domain=edge", "domain=default")];
    let programs = [
        Program::envoy(&cluster, 0, "envoy-rate-limit-service.yaml", &backend, &grpc, &service).await,
        Program::envoy(&cluster, 1, "envoy-ext-authz.yaml", &backend, &data, &gateway).await,
        Program::nginx(&cluster, 0, "nginx-403.conf", &backend, &data, &gateway).await,
    ];
    let runs = runs();
    for run in 0..runs {
        let admitted = admitted(&cluster, &programs, &format!("run-{run}")).await;
        assert_eq!(admitted.iter().sum::<u64>(), LIMIT, "run {run}: {admitted:?}");
        assert!(admitted.iter().all(|count| *count > 0), "run {run}: {admitted:?}");
    }
    figure(&format!(
        "/rate, /v1/check single and batch, /v1/authorize, RLS, Envoy's RLS and ext_authz, nginx at once: exactly {LIMIT} of {} \
         admitted in {runs} of {runs} runs",
        REQUESTS * 16
    ));
}

/// How many each door admitted.
async fn admitted(cluster: &Cluster, programs: &[Program; 3], id: &str) -> Vec<u64> {
    let mut asking: JoinSet<(usize, u64)> = JoinSet::new();
    let check = json!({"descriptors": [[{"key": "client_id", "value": id}]]});
    let batch = json!({"checks": vec![check.clone(); 5]});
    let posts = [
        (format!("/rate/increment?client_id={id}&deny_status=429"), Value::Null, 1),
        ("/v1/check".to_owned(), check, 1),
        ("/v1/check".to_owned(), batch, 5),
        ("/v1/authorize?timeout=3s".to_owned(), Value::Null, 1),
    ];
    for turn in 0..2 {
        for (door, (path, body, each)) in posts.iter().cloned().enumerate() {
            let client = cluster.node((door + turn) % 3).client().header("x-client-id", id.as_bytes());
            asking.spawn(async move { (door, ask(client, path, body, REQUESTS / each).await) });
        }
        for (door, program) in programs.iter().enumerate() {
            let client = program.client(id);
            asking.spawn(async move { (4 + door, ask(client, "/".to_owned(), Value::Null, REQUESTS).await) });
        }
        let mut envoy = Connection::open(cluster.node(turn).grpc()).await.unwrap();
        let request = RateLimitRequest::of_client(id);
        asking.spawn(async move {
            let mut admitted = 0;
            for _ in 0..REQUESTS {
                admitted += u64::from(envoy.ask(&request).await.overall_code == OK);
            }
            (7, admitted)
        });
    }
    let mut admitted = vec![0; 8];
    while let Some(result) = asking.join_next().await {
        let (door, count) = result.unwrap();
        admitted[door] += count;
    }
    admitted
}

/// Sends so many requests, one after the other; how many checks were admitted.
async fn ask(mut client: Client, path: String, body: Value, requests: u64) -> u64 {
    let mut admitted = 0;
    for _ in 0..requests {
        let answer = client.post(&path, &body).await.unwrap();
        assert!(matches!(answer.status, 200 | 429), "an undisturbed cluster decides everything: {answer:?}");
        let batch = serde_json::from_slice::<Value>(&answer.body).unwrap_or_default();
        admitted += match batch["results"].as_array() {
            Some(results) => results.iter().filter(|result| result["admitted"] == true).count() as u64,
            None => u64::from(answer.status == 200),
        };
    }
    admitted
}
