//! Envoy's rate limit service: what is answered when. `docs/doors/envoy.md` says the same in words.

use std::net::SocketAddr;

use http_body_util::BodyExt as _;
use prost::Message as _;
use quorate_tests::client::{limit, policy};
use quorate_tests::cluster::{Node, PATIENCE, Plan, Signal, eventually};
use quorate_tests::grpc::{
    Connection, Descriptor, OK, OVER_LIMIT, RateLimitOverride, RateLimitRequest, RateLimitResponse, SHOULD_RATE_LIMIT,
    unframed,
};
use serde_json::json;
use tokio::task::JoinSet;

use super::gateways::{hourly, leaderless, put};

const HEALTH: &str = "/grpc.health.v1.Health/Check";
const WATCH: &str = "/grpc.health.v1.Health/Watch";
const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
const SERVING: &[u8] = &[8, 1];
const NOT_SERVING: &[u8] = &[8, 2];
const MINUTE: i32 = 2;

async fn connection(node: &Node) -> Connection {
    Connection::open(node.grpc()).await.unwrap()
}

fn client(id: &str) -> Descriptor {
    Descriptor::of(&[("client_id", id)])
}

fn of(descriptors: &[Descriptor]) -> RateLimitRequest {
    RateLimitRequest::of(descriptors.to_vec())
}

/// What is left of a client's limit, asked at another door.
async fn left(node: &Node, id: &str) -> u64 {
    node.client().check(id).await.unwrap().remaining_quota.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn statuses_are_one_for_each_descriptor_in_their_order() {
    let cluster = Plan::of(3).start().await;
    put(&cluster, &[hourly("few", "few-", 1), hourly("many", "many-", 100)]).await;
    let ask = of(&[client("few-a"), Descriptor::of(&[("other", "x")]), client("many-a"), client("nobody")]);
    for (turn, node) in cluster.nodes().iter().enumerate() {
        let answer = connection(node).await.ask(&ask).await;
        let (overall, first, left) = if turn == 0 { (OK, OK, (0, 99)) } else { (OVER_LIMIT, OVER_LIMIT, (0, 99)) };
        assert_eq!(
            (answer.overall_code, answer.codes()),
            (overall, vec![first, OK, OK, OK]),
            "as {} says",
            node.name()
        );
        assert_eq!(answer.remaining(), [Some(left.0), None, Some(left.1), None]);
        let limit = answer.statuses[2].current_limit.clone().unwrap();
        assert_eq!((limit.requests_per_unit, limit.unit, limit.name.as_str()), (100, 3, "default/many/only"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn denied_request_charges_none_of_its_descriptors() {
    let cluster = Plan::of(3).start().await;
    put(&cluster, &[hourly("p", "", 3)]).await;
    let mut envoy = connection(cluster.node(1)).await;
    for _ in 0..3 {
        assert_eq!(envoy.ask(&of(&[client("full")])).await.overall_code, OK);
    }
    for ask in [of(&[client("free"), client("full")]), of(&[client("full"), client("free")])] {
        let answer = envoy.ask(&ask).await;
        assert_eq!(answer.overall_code, OVER_LIMIT);
        assert_eq!(left(cluster.node(2), "free").await, 3, "envoyproxy/ratelimit charges it (its issue 1060)");
    }
    // What is refunded beside a denied charge stays as it was, too.
    let refund = Descriptor { is_negative_hits: true, ..client("other").hits(1) };
    envoy.ask(&of(&[client("other")])).await;
    assert_eq!(envoy.ask(&of(&[refund, client("full")])).await.codes(), [OK, OVER_LIMIT]);
    assert_eq!(left(cluster.node(2), "other").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn hits_are_those_of_the_descriptor_then_of_the_request_then_one() {
    let cluster = Plan::of(3).start().await;
    put(&cluster, &[hourly("p", "", 100)]).await;
    let mut envoy = connection(cluster.node(0)).await;
    let with = |hits_addend, descriptors: &[Descriptor]| RateLimitRequest { hits_addend, ..of(descriptors) };
    for (ask, remaining) in [
        (with(0, &[client("a")]), [Some(99)].as_slice()),
        (with(4, &[client("a")]), &[Some(95)]),
        (with(4, &[client("a").hits(10), client("b")]), &[Some(85), Some(96)]),
        (with(4, &[client("a").hits(0), client("b").hits(0)]), &[Some(85), Some(96)]),
        (with(4, &[client("a").hits(0), client("b").hits(96)]), &[Some(85), Some(0)]),
    ] {
        let answer = envoy.ask(&ask).await;
        assert_eq!((answer.overall_code, answer.remaining().as_slice()), (OK, remaining), "{ask:?}");
    }
    // Twice the same counter in one request is charged twice.
    assert_eq!(envoy.ask(&with(30, &[client("c"), client("c")])).await.remaining(), [Some(70), Some(40)]);
    assert_eq!(envoy.ask(&with(30, &[client("c"), client("c")])).await.overall_code, OVER_LIMIT);
    assert_eq!(left(cluster.node(1), "c").await, 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn real_zero_looks_and_is_never_over_the_limit() {
    let cluster = Plan::of(3).start().await;
    put(&cluster, &[hourly("p", "", 1)]).await;
    let mut envoy = connection(cluster.node(2)).await;
    let look = of(&[client("a").hits(0)]);
    for _ in 0..3 {
        assert_eq!(envoy.ask(&look).await.remaining(), [Some(1)], "envoyproxy/ratelimit counts it (its issue 730)");
    }
    envoy.ask(&of(&[client("a")])).await;
    let answer = envoy.ask(&look).await;
    assert_eq!((answer.overall_code, answer.remaining()), (OK, vec![Some(0)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn negative_hits_give_back_even_with_nothing_left_and_never_more_than_was_used() {
    let cluster = Plan::of(3).start().await;
    put(&cluster, &[hourly("p", "", 5)]).await;
    let mut envoy = connection(cluster.node(0)).await;
    let refund = |id: &str, hits| of(&[Descriptor { is_negative_hits: true, ..client(id).hits(hits) }]);
    envoy.ask(&of(&[client("a").hits(5)])).await;
    assert_eq!(envoy.ask(&of(&[client("a")])).await.overall_code, OVER_LIMIT);
    let answer = envoy.ask(&refund("a", 2)).await;
    assert_eq!((answer.overall_code, answer.remaining()), (OK, vec![Some(2)]), "Gubernator ignores it (its issue 156)");
    assert_eq!(envoy.ask(&refund("a", 100)).await.remaining(), [Some(5)]);
    assert_eq!(envoy.ask(&refund("never-seen", 1)).await.remaining(), [Some(5)]);
    // Without a number of its own the request's is given back.
    envoy.ask(&of(&[client("a").hits(5)])).await;
    let ask = RateLimitRequest { hits_addend: 3, ..of(&[Descriptor { is_negative_hits: true, ..client("a") }]) };
    assert_eq!(envoy.ask(&ask).await.remaining(), [Some(3)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn limit_that_the_request_brings_holds_for_it_alone_where_the_window_is_the_same() {
    let cluster = Plan::of(3).start().await;
    let limits = json!([limit("FixedWindow", 2, "1m")]);
    put(&cluster, &[policy("p", "", &limits)]).await;
    let mut envoy = connection(cluster.node(1)).await;
    let with = |requests_per_unit, unit| {
        of(&[Descriptor { limit: Some(RateLimitOverride { requests_per_unit, unit }), ..client("a") }])
    };
    let answer = envoy.ask(&with(10, MINUTE)).await;
    assert_eq!(answer.remaining(), [Some(9)]);
    assert_eq!(answer.statuses[0].current_limit.clone().unwrap().requests_per_unit, 10);
    assert!(answer.headers()["ratelimit-policy"].contains("q=10;w=60"), "{answer:?}");
    assert_eq!(envoy.ask(&with(10, 3)).await.remaining(), [Some(0)], "no limit counts by the hour, so none changes");
    assert_eq!(envoy.ask(&of(&[client("a")])).await.overall_code, OVER_LIMIT);
    assert_eq!(envoy.ask(&with(0, MINUTE)).await.overall_code, OVER_LIMIT);
    assert_eq!(envoy.ask(&with(3, MINUTE)).await.remaining(), [Some(0)], "what was used counts");
    assert_eq!(envoy.ask(&with(3, MINUTE)).await.overall_code, OVER_LIMIT);
    assert_eq!(envoy.ask(&with(10, 0)).await.overall_code, OVER_LIMIT, "a limit of no unit is none");
}

#[tokio::test(flavor = "multi_thread")]
async fn shadow_policy_never_denies_and_is_not_told_of() {
    let cluster = Plan::of(3).start().await;
    let mut shadow = hourly("shadow", "", 0);
    shadow["spec"]["enforcement"] = json!("Shadow");
    put(&cluster, &[shadow, hourly("real", "", 7)]).await;
    let node = cluster.node(0);
    let answer = connection(node).await.ask(&of(&[client("a")])).await;
    assert_eq!((answer.overall_code, answer.remaining()), (OK, vec![Some(6)]));
    assert!(!answer.headers()["ratelimit"].contains("shadow"), "{answer:?}");
    let metrics = node.client().get("/metrics").await.unwrap().text();
    for (policy, verdict) in [("default/shadow", "shadow_denied"), ("default/real", "admitted")] {
        let line =
            format!(r#"quorate_decisions_total{{door="rls",limit="only",policy="{policy}",verdict="{verdict}"}} 1"#);
        assert!(metrics.contains(&line), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answer_tells_limit_unit_rest_and_reset_and_the_headers_of_the_other_doors() {
    let cluster = Plan::of(1).start().await;
    let limits = json!([
        {"name": "odd", "algorithm": "FixedWindow", "limit": 2, "window": "90s"},
        {"name": "day", "algorithm": "FixedWindow", "limit": 9, "window": "24h"},
    ]);
    put(&cluster, &[policy("p", "", &limits)]).await;
    let mut envoy = connection(cluster.node(0)).await;
    let answer = envoy.ask(&of(&[client("a")])).await;
    let status = &answer.statuses[0];
    let told = status.current_limit.clone().unwrap();
    assert_eq!((told.requests_per_unit, told.unit, told.name.as_str()), (2, 0, "default/p/odd"), "90 s have no word");
    assert_eq!(status.limit_remaining, 1);
    let reset = status.duration_until_reset.clone().unwrap();
    assert!((80..=90).contains(&reset.seconds) && reset.nanos == 0, "{reset:?}");
    let headers = answer.headers();
    assert_eq!(headers["ratelimit-policy"], r#""default/p/odd";q=2;w=90, "default/p/day";q=9;w=86400"#);
    assert_eq!((headers["x-ratelimit-decision"], headers.get("retry-after")), ("admit", None));
    envoy.ask(&of(&[client("a")])).await;
    let denied = envoy.ask(&of(&[client("a")])).await;
    assert_eq!(denied.headers()["x-ratelimit-decision"], "deny");
    let retry: i64 = denied.headers()["retry-after"].parse().unwrap();
    assert_eq!(denied.statuses[0].duration_until_reset.clone().unwrap().seconds, retry);
    let other = cluster.node(0).client().v1_check(&[("client_id", "a")], 0).await.unwrap();
    assert_eq!(other.limit("default/p", "day").remaining, 7, "one quota behind both doors");
}

#[tokio::test(flavor = "multi_thread")]
async fn domain_or_descriptor_without_a_policy_is_ok_without_a_limit() {
    let cluster = Plan::of(3).start().await;
    let mut envoy = connection(cluster.node(0)).await;
    for ask in
        [RateLimitRequest { domain: "nobodys".to_owned(), ..of(&[client("a")]) }, of(&[client("a"), client("b")])]
    {
        let answer = envoy.ask(&ask).await;
        assert_eq!((answer.overall_code, answer.codes()), (OK, vec![OK; ask.descriptors.len()]));
        assert_eq!(answer.remaining(), vec![None; ask.descriptors.len()]);
        assert_eq!(answer.headers().into_iter().collect::<Vec<_>>(), [("x-ratelimit-decision", "admit")]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn request_that_no_client_can_bring_about_is_an_error_and_one_that_a_client_can_is_over_the_limit() {
    let cluster = Plan::of(1).start().await;
    put(&cluster, &[hourly("p", "", 100)]).await;
    let mut envoy = connection(cluster.node(0)).await;
    let many = |count, descriptor: Descriptor| of(&vec![descriptor; count]);
    let long = "v".repeat(257);
    for (ask, words) in [
        (RateLimitRequest { domain: String::new(), ..of(&[client("a")]) }, "domain: is empty"),
        (of(&[]), "descriptors: has 0 entries"),
        (many(17, client("a")), "descriptors: has 17 entries"),
        (of(&[Descriptor::default()]), "descriptors[0]: has 0 entries"),
        (of(&[Descriptor::of(&[("", "v")])]), "descriptors[0][0].key: is empty"),
        (of(&[Descriptor::of(&[(&long, "v")])]), "descriptors[0][0].key: has 257 bytes"),
    ] {
        // gRPC percent-encodes its messages.
        let error = envoy.try_ask(&ask).await.unwrap_err().replace("%20", " ");
        assert!(error.starts_with(&format!("status 3: {words}")), "{error}");
    }
    let big = "v".repeat(60 << 10);
    for ask in [
        of(&[client("a"), client(&long)]),
        many(16, client(&big)),
        of(&[client("a").hits(u64::MAX)]),
        of(&[client("a").hits(1_000_000_001)]),
        RateLimitRequest { hits_addend: u32::MAX, ..of(&[client("a")]) },
    ] {
        let answer = envoy.ask(&ask).await;
        assert_eq!((answer.overall_code, answer.codes()), (OVER_LIMIT, vec![OVER_LIMIT; ask.descriptors.len()]));
        assert_eq!(answer.headers()["x-ratelimit-decision"], "refused");
    }
    assert_eq!(left(cluster.node(0), "a").await, 100, "a refused request charges nothing");
    // Bytes that are no message, one that is longer than may be, and what is not there.
    let huge = many(16, client(&"v".repeat(100 << 10))).encode_to_vec();
    for (path, message, status) in [
        (SHOULD_RATE_LIMIT, &[0xff; 9][..], 13),
        (SHOULD_RATE_LIMIT, &huge, 11),
        ("/envoy.service.ratelimit.v3.RateLimitService/Other", b"", 12),
        ("/envoy.service.ratelimit.v2.RateLimitService/ShouldRateLimit", b"", 12),
    ] {
        assert_eq!(envoy.call(path, &[], message).await.unwrap().status, status, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_leader_each_policy_says_what_is_answered() {
    let cluster = leaderless().await;
    let node = cluster.node(0);
    let mut envoy = connection(node).await;
    for (ask, code, decision) in [
        (of(&[client("open-a")]), OK, "allow-unavailable"),
        (of(&[client("shut-a")]), OVER_LIMIT, "unavailable"),
        (of(&[client("open-a"), client("shut-a")]), OVER_LIMIT, "unavailable"),
        (of(&[client("nobody")]), OVER_LIMIT, "unavailable"),
    ] {
        let message = ask.encode_to_vec();
        // With a timeout of its own, and without any: 15 ms.
        for headers in [&[("grpc-timeout", "200m")][..], &[]] {
            let answer = envoy.call(SHOULD_RATE_LIMIT, headers, &message).await.unwrap();
            assert_eq!(answer.status, 0, "{answer:?}");
            let answer = RateLimitResponse::decode(answer.body).unwrap();
            assert_eq!((answer.overall_code, answer.codes()), (code, vec![code; ask.descriptors.len()]), "{ask:?}");
            assert_eq!(answer.headers()["x-ratelimit-decision"], decision);
        }
    }
    let metrics = node.client().get("/metrics").await.unwrap().text();
    for line in [
        r#"quorate_unavailable_total{answer="allowed",door="rls"} 2"#,
        r#"quorate_unavailable_total{answer="denied",door="rls"} 6"#,
    ] {
        assert!(metrics.contains(line), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_timeout_says_how_long_a_decision_may_take() {
    let cluster = Plan::of(3).start().await;
    let node = cluster.node(0);
    cluster.node(1).kill();
    cluster.node(2).kill();
    let mut waiting = JoinSet::new();
    for timeout in ["2500m", "1200m", "1m", "600m"] {
        let mut envoy = connection(node).await;
        let message = of(&[client("a")]).encode_to_vec();
        waiting.spawn(async move {
            envoy.call(SHOULD_RATE_LIMIT, &[("grpc-timeout", timeout)], &message).await.unwrap();
            timeout
        });
    }
    let mut answered = vec![];
    while let Some(timeout) = waiting.join_next().await {
        answered.push(timeout.unwrap());
    }
    assert_eq!(answered, ["1m", "600m", "1200m", "2500m"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn node_without_state_is_unavailable_and_not_serving_until_it_has_joined() {
    let cluster = Plan::of(3).set("DEFAULT_LIMIT", "5/24h").build().await;
    let node = cluster.node(0);
    node.start();
    let answer = eventually(PATIENCE, "it answers", async || {
        connection_to(node.grpc()).await?.call(SHOULD_RATE_LIMIT, &[], &of(&[client("a")]).encode_to_vec()).await
    });
    let answer = answer.await;
    assert_eq!((answer.status, answer.message.as_str()), (14, "this%20node%20has%20not%20joined%20a%20cluster%20yet"));
    assert_eq!(connection(node).await.call(HEALTH, &[], b"").await.unwrap().body, NOT_SERVING);
    cluster.node(1).start();
    cluster.node(2).start();
    cluster.ready().await;
    assert_eq!(connection(node).await.call(HEALTH, &[], b"").await.unwrap().body, SERVING);
    assert_eq!(connection(node).await.ask(&of(&[client("a")])).await.remaining(), [Some(4)]);
}

async fn connection_to(target: SocketAddr) -> Result<Connection, String> {
    Connection::open(target).await
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_that_of_the_node_by_either_name_and_a_watch_ends_with_the_drain() {
    let cluster = Plan::of(1).start().await;
    let node = cluster.node(0);
    let mut envoy = connection(node).await;
    let named = |name: &str| [&[10, u8::try_from(name.len()).unwrap()], name.as_bytes()].concat();
    for name in ["", "envoy.service.ratelimit.v3.RateLimitService"] {
        let answer = envoy.call(HEALTH, &[], &named(name)).await.unwrap();
        assert_eq!((answer.status, &*answer.body), (0, SERVING), "{name}");
    }
    assert_eq!(envoy.call(HEALTH, &[], &named("other")).await.unwrap().status, 5);

    let (_, mut watched) = envoy.begin(WATCH, &[], b"").await.unwrap();
    let first = watched.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(unframed(&first), SERVING);
    node.signal(Signal::TERM);
    let second = watched.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(unframed(&second), NOT_SERVING);
    let end = watched.frame().await.unwrap().unwrap().into_trailers().unwrap();
    assert_eq!(end["grpc-status"], "0");
    assert!(node.ended(PATIENCE).await.success());
    assert!(!node.log().contains("requests were still running"), "an open watch must not hold the drain up");
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_lists_the_services_and_describes_their_messages() {
    let cluster = Plan::of(1).start().await;
    let mut envoy = connection(cluster.node(0)).await;
    let mut ask = async |message: &[u8]| {
        let answer = envoy.call(REFLECTION, &[], message).await.unwrap();
        assert_eq!(answer.status, 0, "{answer:?}");
        String::from_utf8_lossy(&answer.body).into_owned()
    };
    // list_services: ""
    let services = ask(&[58, 0]).await;
    for name in ["envoy.service.ratelimit.v3.RateLimitService", "grpc.health.v1.Health"] {
        assert!(services.contains(name), "{services}");
    }
    // file_containing_symbol
    let symbol = b"envoy.service.ratelimit.v3.RateLimitService";
    let described = ask(&[&[34, u8::try_from(symbol.len()).unwrap()], &symbol[..]].concat()).await;
    for name in ["ShouldRateLimit", "duration_until_reset"] {
        assert!(described.contains(name), "{described}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_asked_at_once_admit_exactly_the_limit() {
    const LIMIT: usize = 1000;
    let cluster = Plan::of(3).alone().start().await;
    put(&cluster, &[hourly("p", "", LIMIT as u64)]).await;
    let mut asking = JoinSet::new();
    for number in 0..48 {
        let mut envoy = connection(cluster.node(number % 3)).await;
        asking.spawn(async move {
            let mut admitted = 0;
            for _ in 0..50 {
                let answer = envoy.ask(&of(&[client("one")])).await;
                let decision = answer.headers()["x-ratelimit-decision"];
                assert_eq!(decision == "admit", answer.overall_code == OK);
                assert!(["admit", "deny"].contains(&decision), "an undisturbed cluster decides everything: {answer:?}");
                admitted += usize::from(answer.overall_code == OK);
            }
            admitted
        });
    }
    let admitted: Vec<usize> = asking.join_all().await;
    assert_eq!(admitted.iter().sum::<usize>(), LIMIT);
}
