//! Windows last as long as they say, by a clock that is not the product's.

use std::time::{Duration, Instant};

use quorate_tests::client::{Outcome, limit, policy};
use quorate_tests::cluster::{PATIENCE, Plan, eventually, figure};
use quorate_tests::load::Load;
use serde_json::json;

const WINDOW: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn leader_under_load_a_window_is_not_shorter_and_hardly_longer_than_it_says() {
    let cluster = Plan::of(3).alone().start().await;
    let mut admin = cluster.node(0).admin_client();
    admin.put_policy(&policy("load", "load-", &json!([limit("FixedWindow", 1_000_000_000, "24h")]))).await.unwrap();
    admin.put_policy(&policy("window", "window-", &json!([limit("FixedWindow", 1, "5s")]))).await.unwrap();
    let running = Load { connections: 32, ..Load::increments(cluster.addresses(), "load-all") }.start();
    eventually(PATIENCE, "requests are admitted", async || {
        if running.admitted() > 200 { Ok(()) } else { Err("too few".to_owned()) }
    })
    .await;
    let mut client = cluster.node(1).client();
    let begun = Instant::now();
    assert_eq!(client.increment("window-1").await, Outcome::Admitted);
    let ended = Instant::now();
    let asked = eventually(2 * WINDOW + PATIENCE, "the window ends", async || {
        let asked = Instant::now();
        match client.increment("window-1").await {
            Outcome::Admitted => Ok(asked),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let span = begun.elapsed();
    let late = asked.saturating_duration_since(ended + WINDOW);
    let history = running.stop().await;
    let rate = history.admitted() / span.as_secs().max(1);
    figure(&format!("a window of {WINDOW:?} at {rate} admissions/s lasted {span:.2?}"));
    assert!(span >= WINDOW, "the window ended after {span:?}");
    // An answer may be slow on a busy machine; a clock that stands still under load is far beyond.
    assert!(late < WINDOW / 5, "the window of {WINDOW:?} was longer by {late:?}");
}
