//! The `/bucket` API as its users have it: nginx before three nodes, as `compose.yaml` has it, and a real k6.

use std::process::Command;

use quorate_tests::cluster::{Plan, figure};
use quorate_tests::load::{count, statuses};
use quorate_tests::programs::{Program, binary};
use serde_json::{Value, json};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/k6/bucket.js");

#[tokio::test(flavor = "multi_thread")]
async fn k6_through_nginx_over_three_nodes_gets_exactly_100_and_its_thresholds_hold() {
    let cluster = Plan::of(3).alone().start().await;
    let nginx = Program::nginx_of_compose(&cluster, &cluster.addresses()).await;
    let summary = cluster.dir().join("k6.json");
    let mut k6 = Command::new(binary("K6_BIN"));
    k6.args(["run", "--quiet", "--no-usage-report", "--address", "", "--env"]);
    k6.arg(format!("BASE_URL=http://{}", nginx.address)).arg("--env").arg(format!("SUMMARY={}", summary.display()));
    let ran = tokio::task::spawn_blocking(move || k6.arg(SCRIPT).output().expect("k6 starts")).await.unwrap();
    let said = [ran.stdout, ran.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(ran.status.success(), "k6 ended with {}:\n{said}", ran.status);
    let counts: Value = serde_json::from_slice(&std::fs::read(summary).unwrap()).unwrap();
    assert_eq!((&counts["success200"], &counts["other"], &counts["checks"]), (&json!(100), &json!(0), &json!(1)));
    let denied = counts["status429"].as_u64().unwrap();
    assert!(denied >= 50, "{counts}");
    figure(&format!("k6 through nginx over three nodes: exactly 100 of {} answered 200, the rest 429", 100 + denied));
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_of_compose_passes_the_bucket_api_on_word_by_word() {
    let cluster = Plan::of(3).start().await;
    let nginx = Program::nginx_of_compose(&cluster, &cluster.addresses()).await;
    let mut client = nginx.client("");
    let created = client.post("/bucket", &json!({ "name": "client123" })).await.unwrap().expect_status(201);
    let id = created.json::<Value>()["id"].as_str().unwrap().to_owned();
    assert_eq!(created.text(), format!(r#"{{"name":"client123","id":"{id}"}}"#));
    let caller = || nginx.client("").header("x-api-id", id.as_bytes());
    let statuses = statuses(vec![caller()], "/example", 110).await;
    assert_eq!((count(&statuses, 200), count(&statuses, 429)), (100, 10), "{statuses:?}");
    assert_eq!(caller().get("/health").await.unwrap().text(), r#"{"status":"ok"}"#);
    // Whichever node is away, nobody goes without an answer.
    cluster.node(1).kill();
    let mut caller = caller();
    for _ in 0..6 {
        assert_eq!(caller.get("/example").await.unwrap().status, 429);
    }
}
