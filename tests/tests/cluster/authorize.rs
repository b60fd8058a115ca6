//! `/v1/authorize`: what gateways are answered when. `docs/doors/authorize.md` says the same in words.

use bytes::Bytes;
use hyper::Method;
use quorate_tests::client::{Answer, Client, limit, policy};
use quorate_tests::cluster::{Node, PATIENCE, Plan, eventually};
use serde_json::{Value, json};

use super::gateways::{hourly, leaderless, put};

/// Time enough on any machine.
const AT: &str = "/v1/authorize?timeout=3s";

async fn ask(node: &Node, id: &str, path: &str) -> Answer {
    node.client().header("x-client-id", id.as_bytes()).get(path).await.unwrap()
}

fn decision(answer: &Answer) -> (u16, &str) {
    (answer.status, answer.header("x-ratelimit-decision"))
}

#[tokio::test(flavor = "multi_thread")]
async fn one_quota_whichever_node_method_or_suffix() {
    let cluster = Plan::of(3).start().await;
    put(&cluster, &[hourly("p", "", 9)]).await;
    let methods = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "PROPFIND", "TRACE"];
    for (turn, method) in methods.into_iter().enumerate() {
        let path =
            if turn % 2 == 0 { AT } else { "/v1/authorize?timeout=3s&uri=/some/path?client_id=other&deny_status=403" };
        let mut client = cluster.node(turn % 3).client().header("x-client-id", b"a");
        let answer = client.send(method.parse::<Method>().unwrap(), path, Bytes::new()).await.unwrap();
        assert_eq!(decision(&answer), (200, "admit"), "{method} {path}");
        assert_eq!(answer.header("ratelimit").split(';').nth(1), Some(&*format!("r={}", 8 - turn)));
        assert_eq!((answer.header("ratelimit-policy"), answer.body.len()), (r#""default/p/only";q=9;w=3600"#, 0));
    }
    let denied = ask(cluster.node(1), "a", AT).await;
    assert_eq!(decision(&denied), (429, "deny"));
    assert_eq!(denied.header("content-type"), "application/problem+json");
    let body: Value = denied.json();
    assert_eq!(body["type"], "https://iana.org/assignments/http-problem-types#quota-exceeded");
    assert_eq!(body["violated-policies"], json!(["default/p/only"]));
    let retry: u64 = denied.header("retry-after").parse().unwrap();
    assert!((3500..=3600).contains(&retry), "{retry}");
    assert_eq!(
        cluster.node(2).client().check("a").await.unwrap().remaining_quota,
        Some(0),
        "one quota behind all doors"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn denied_request_charges_nothing_on_any_limit() {
    let cluster = Plan::of(3).start().await;
    put(&cluster, &[hourly("small", "", 1), hourly("large", "", 9)]).await;
    for turn in 0..4 {
        ask(cluster.node(turn % 3), "a", AT).await;
    }
    let after = cluster.node(0).client().v1_check(&[("client_id", "a")], 0).await.unwrap();
    assert_eq!(after.limit("default/large", "only").remaining, 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn gateways_owner_says_domain_and_status_and_a_client_has_no_say() {
    let cluster = Plan::of(1).start().await;
    let mut edge = hourly("edge", "", 0);
    edge["spec"]["domain"] = json!("edge");
    put(&cluster, &[edge, hourly("rest", "", 0)]).await;
    let node = cluster.node(0);
    for (path, denied) in [
        ("/v1/authorize?timeout=3s&domain=edge", (429, "default/edge/only")),
        ("/v1/authorize?timeout=3s&domain=edge&deny_status=403", (403, "default/edge/only")),
        ("/v1/authorize?timeout=3s&deny_status=429", (429, "default/rest/only")),
        // As Envoy asks: what the client sent is behind `uri=`.
        ("/v1/authorize?domain=edge&timeout=3s&uri=/a?domain=nobodys&deny_status=403", (429, "default/edge/only")),
        ("/v1/authorize?uri=/a&domain=nobodys&timeout=3s", (429, "")),
        // What the client sent is the suffix and the query.
        ("/v1/authorize/a/b?domain=nobodys&deny_status=403", (429, "")),
        ("/v1/authorize/?domain=nobodys", (429, "")),
    ] {
        let answer = ask(node, "a", path).await;
        assert_eq!(answer.status, denied.0, "{path}");
        // Those without a timeout may come too late on a busy machine, and are not let through then.
        if !denied.1.is_empty() {
            assert_eq!(answer.json::<Value>()["violated-policies"][0], denied.1, "{path}");
        }
    }
    assert_eq!(decision(&ask(node, "a", "/v1/authorize?timeout=3s&domain=nobodys").await), (200, "admit"));
    for query in ["deny_status=200", "deny_status=503", "timeout=10s", "timeout=soon", "domain=%ff"] {
        let answer = ask(node, "a", &format!("/v1/authorize?{query}")).await;
        let error = answer.json::<Value>()["error"].as_str().unwrap().to_owned();
        assert!(answer.status == 400 && error.starts_with(query.split('=').next().unwrap()), "{query}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn client_that_cannot_be_counted_is_denied_and_one_without_a_name_shares_a_counter() {
    let cluster = Plan::of(1).start().await;
    put(&cluster, &[hourly("p", "", 2)]).await;
    let client = || cluster.node(0).client();
    let long = "x".repeat(257);
    for mut client in [
        client().header("x-client-id", long.as_bytes()),
        client().header("x-client-id", b"\xff"),
        client().header("x-client-id", b"a").header("x-client-id", b"b"),
    ] {
        for (path, status) in [(AT, 429), ("/v1/authorize?timeout=3s&deny_status=403", 403)] {
            let answer = client.get(path).await.unwrap();
            assert_eq!(decision(&answer), (status, "refused"), "{}", answer.text());
        }
    }
    let nameless: Vec<Client> = vec![client(), client().header("x-client-id", b""), client().header("x-other", b"a")];
    let mut statuses = vec![];
    for mut client in nameless {
        statuses.push(client.get(AT).await.unwrap().status);
    }
    assert_eq!(statuses, [200, 200, 429], "nobody escapes by leaving the header out");
}

#[tokio::test(flavor = "multi_thread")]
async fn descriptor_is_made_of_what_the_setting_names() {
    let setting = "tenant=header:X-Tenant,path=uri";
    let cluster = Plan::of(1).set("AUTHORIZE_DESCRIPTORS", setting).start().await;
    let mut admin = policy("admin", "", &json!([limit("FixedWindow", 1, "1h")]));
    admin["spec"]["match"] = json!([{"key": "path", "prefix": "/admin"}]);
    admin["spec"]["countBy"] = json!(["tenant"]);
    put(&cluster, &[admin]).await;
    let asked = async |tenant: &str, forwarded: &str, path: &str| {
        let client = cluster.node(0).client().header("x-tenant", tenant.as_bytes());
        client.header("x-forwarded-uri", forwarded.as_bytes()).get(path).await.unwrap().status
    };
    for (tenant, forwarded, path, status) in [
        ("t", "/admin/users?page=2", AT, 200),
        ("t", "/admin", AT, 429),
        ("u", "/admin", AT, 200),
        ("t", "/shop", AT, 200),
        ("t", "/shop", "/v1/authorize?timeout=3s&uri=/admin/x?y=1", 429),
        ("t", "/admin", "/v1/authorize?timeout=3s&uri=/shop", 200),
    ] {
        assert_eq!(asked(tenant, forwarded, path).await, status, "{tenant} {forwarded} {path}");
    }
}

/// As its documentation has them: GET of the address as it is configured, whatever the client sent; of the client's headers
/// those that are named; and what the client sent in X-Forwarded-*.
#[tokio::test(flavor = "multi_thread")]
async fn traefiks_requests_as_documented_are_decided_and_its_clients_can_be_told_the_answer() {
    let page = include_str!("../../../docs/doors/authorize.md");
    let path = page.split_once("address: http://quorate:20001").unwrap().1.lines().next().unwrap();
    assert!(page.contains("authRequestHeaders: [X-Client-Id]"));
    let setting = "client_id=header:X-Client-Id,method=header:X-Forwarded-Method,path=uri";
    let cluster = Plan::of(3).set("AUTHORIZE_DESCRIPTORS", setting).start().await;
    let mut all = hourly("all", "", 3);
    all["spec"]["domain"] = json!("edge");
    let mut writes = hourly("writes", "", 1);
    writes["spec"]["domain"] = json!("edge");
    writes["spec"]["match"] = json!([{"key": "method", "exact": "POST"}, {"key": "path", "prefix": "/admin"}]);
    put(&cluster, &[all, writes]).await;
    let asked = |node: usize, method: &str, uri: &str| {
        [
            ("x-client-id", "a"),
            ("x-forwarded-for", "203.0.113.7"),
            ("x-forwarded-host", "shop.example"),
            ("x-forwarded-method", method),
            ("x-forwarded-port", "443"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-uri", uri),
        ]
        .into_iter()
        .fold(cluster.node(node).client(), |client, (name, value)| client.header(name, value.as_bytes()))
    };
    for (turn, (method, uri, denied)) in [
        ("POST", "/admin/users?page=1", None),
        ("POST", "/admin", Some("default/writes/only")),
        ("GET", "/admin", None),
        ("POST", "/shop?domain=nobodys", None),
        ("GET", "/", Some("default/all/only")),
    ]
    .into_iter()
    .enumerate()
    {
        let answer = asked(turn % 3, method, uri).get(path).await.unwrap();
        let Some(policy) = denied else {
            assert_eq!((decision(&answer), answer.body.len()), ((200, "admit"), 0), "{method} {uri}");
            continue;
        };
        // Traefik hands this to the client as it is.
        assert_eq!(decision(&answer), (429, "deny"), "{method} {uri}");
        assert_eq!(answer.header("content-type"), "application/problem+json");
        assert_eq!(answer.json::<Value>()["violated-policies"], json!([policy]));
        let told = ["ratelimit-policy", "ratelimit", "retry-after"].map(|name| answer.header(name));
        assert!(told.iter().all(|value| !value.is_empty()), "{told:?}");
    }
    // With `preserveRequestMethod` and `forwardBody` it sends the client's method and body along.
    let answer = asked(0, "PUT", "/").send(Method::PUT, path, Bytes::from_static(b"\0not JSON")).await.unwrap();
    assert_eq!(decision(&answer), (429, "deny"));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_leader_each_policy_says_what_is_answered() {
    let cluster = leaderless().await;
    let node = cluster.node(0);
    for (id, query, answered) in [
        ("open-a", "timeout=200ms", (200, "allow-unavailable")),
        ("open-a", "", (200, "allow-unavailable")),
        ("shut-a", "timeout=200ms", (429, "unavailable")),
        ("shut-a", "timeout=1ms&deny_status=403", (403, "unavailable")),
        ("nobody", "", (429, "unavailable")),
    ] {
        let answer = ask(node, id, &format!("/v1/authorize?{query}")).await;
        assert_eq!(decision(&answer), answered, "{id} {query}");
        if answer.status != 200 {
            let body: Value = answer.json();
            assert_eq!(body["type"], "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity");
            assert_eq!(answer.header("retry-after"), "1");
        }
    }
    let metrics = node.client().get("/metrics").await.unwrap().text();
    for (answer, count) in [("allowed", 2), ("denied", 3)] {
        let line = format!(r#"quorate_unavailable_total{{answer="{answer}",door="authorize"}} {count}"#);
        assert!(metrics.contains(&line), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn node_without_state_is_503_so_that_the_gateways_own_rule_holds() {
    let cluster = Plan::of(3).build().await;
    let node = cluster.node(0);
    node.start();
    let answer = eventually(PATIENCE, "it answers", async || {
        node.client().header("x-client-id", b"a").get(AT).await.map_err(|error| error.to_string())
    });
    assert_eq!(decision(&answer.await), (503, "unavailable"));
}
