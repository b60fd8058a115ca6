//! Every door at once, each asked as its users ask it, all for one quota.

use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use quorate_tests::client::{Client, limit};
use quorate_tests::cluster::{Cluster, Node, Plan};
use quorate_tests::grpc::{Connection, Descriptor, OK, RateLimitRequest};
use quorate_tests::programs::{Backend, Program};
use serde_json::{Value, json};

/// What clients are told apart by. No domain has both `/rate` and `/example`, which are each of one; all the other doors
/// are of any.
#[derive(Clone, Copy)]
pub(super) enum Quota {
    Clients,
    Buckets,
}

impl Quota {
    fn domain(self) -> &'static str {
        match self {
            Self::Clients => "default",
            Self::Buckets => "bucket",
        }
    }

    fn key(self) -> &'static str {
        match self {
            Self::Clients => "client_id",
            Self::Buckets => "api_id",
        }
    }

    /// Three nodes, whose doors for gateways count by its key.
    pub(super) async fn cluster(self) -> Cluster {
        Plan::of(3).alone().set("AUTHORIZE_DESCRIPTORS", format!("{}=header:X-Client-Id", self.key())).start().await
    }

    /// A policy `namespace/name` of so many hits a day for each client.
    pub(super) async fn put_policy(self, cluster: &Cluster, name: [&str; 2], hits: u64) {
        let policy = json!({
            "apiVersion": "quorate.dev/v1alpha1",
            "kind": "QuotaPolicy",
            "metadata": { "namespace": name[0], "name": name[1] },
            "spec": {
                "domain": self.domain(),
                "countBy": [self.key()],
                "limits": [limit("FixedWindow", hits, "24h")],
            },
        });
        cluster.node(0).admin_client().put_policy(&policy).await.unwrap();
    }

    /// The id of a new client.
    pub(super) async fn client(self, cluster: &Cluster, name: &str) -> String {
        match self {
            Self::Clients => name.to_owned(),
            Self::Buckets => {
                let created = cluster.node(0).client().post("/bucket", &json!({ "name": name })).await.unwrap();
                created.expect_status(201).json::<Value>()["id"].as_str().unwrap().to_owned()
            }
        }
    }

    fn descriptor(self, id: &str) -> Value {
        json!([{ "key": self.key(), "value": id }])
    }

    /// What is left to a client of the limit of a policy.
    pub(super) async fn left(self, cluster: &Cluster, id: &str, policy: &str) -> u64 {
        let body = json!({ "domain": self.domain(), "descriptors": [self.descriptor(id)], "hits": 0 });
        let answer = cluster.node(0).client().post("/v1/check", &body).await.unwrap().json::<Value>();
        let limits = answer["limits"].as_array().unwrap();
        let limit = limits.iter().find(|limit| limit["policy"] == policy).unwrap_or_else(|| panic!("{answer}"));
        limit["remaining"].as_u64().unwrap()
    }
}

/// What a door says of one hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    Admitted,
    Denied,
    /// There is no decision, in the words of the door.
    Unavailable,
    /// A gateway has had no answer, in its own words.
    Unanswered,
}

/// The gateways before the nodes of a cluster, by the recipes.
pub(super) struct Doors {
    quota: Quota,
    wait: Duration,
    nginx: Program,
    envoy: Program,
    ext_authz: Program,
    _backend: Backend,
}

/// One connection to a door.
pub(super) struct Door {
    /// What the figures call it.
    pub name: &'static str,
    /// The label of the metrics of the node asked, for doors that are asked directly.
    pub label: Option<&'static str>,
    /// With which status it says that there is no decision.
    undecided: u16,
    /// With which status a gateway says that it has had no answer.
    unanswered: Option<u16>,
    asked: Asked,
}

enum Asked {
    Http { client: Client, method: Method, path: String, body: Value },
    Grpc { connection: Connection, request: RateLimitRequest },
}

impl Doors {
    /// Gateways, and what is asked by their door, wait so long for a decision. At other doors it is always 3 s.
    pub(super) async fn open(cluster: &Cluster, quota: Quota, wait: Duration) -> Self {
        let backend = Backend::start(cluster).await;
        let grpc: Vec<_> = cluster.nodes().iter().map(Node::grpc).collect();
        let data = cluster.addresses();
        let (domain, timeout) = (format!("domain={}", quota.domain()), format!("timeout={}ms", wait.as_millis()));
        let gateway = [("domain=edge", domain.as_str()), ("timeout=2s", &timeout)];
        let (domain, timeout) = (format!("domain: {}", quota.domain()), format!("timeout: {}s", wait.as_secs_f64()));
        let key = format!("descriptor_key: {}", quota.key());
        let service =
            [("domain: edge", domain.as_str()), ("timeout: 2s", &timeout), ("descriptor_key: client_id", &key)];
        Self {
            quota,
            wait,
            nginx: Program::nginx(cluster, 0, "nginx-403.conf", &backend, &data, &gateway).await,
            envoy: Program::envoy(cluster, 0, "envoy-rate-limit-service.yaml", &backend, &grpc, &service).await,
            ext_authz: Program::envoy(cluster, 1, "envoy-ext-authz.yaml", &backend, &data, &gateway).await,
            _backend: backend,
        }
    }

    /// A new connection to each door for a client, those that are asked directly at these nodes, the first one first.
    pub(super) async fn connect(&self, nodes: &[&Node], id: &str) -> Vec<Door> {
        let check = json!({ "domain": self.quota.domain(), "descriptors": [self.quota.descriptor(id)] });
        let batch = json!({ "checks": vec![check.clone(); 5] });
        let authorize = format!("/v1/authorize?domain={}&timeout={}ms", self.quota.domain(), self.wait.as_millis());
        let (get, post) = (Method::GET, Method::POST);
        let own = match self.quota {
            Quota::Clients => {
                ("/rate/increment", "http", 503, &post, format!("/rate/increment?client_id={id}"), &Value::Null)
            }
            Quota::Buckets => ("/example", "bucket", 503, &get, "/example".to_owned(), &Value::Null),
        };
        let direct = [
            own,
            ("/v1/check", "http", 503, &post, "/v1/check".to_owned(), &check),
            // Each result says for itself.
            ("/v1/check in batches", "http", 200, &post, "/v1/check".to_owned(), &batch),
            ("/v1/authorize", "authorize", 429, &get, authorize, &Value::Null),
        ];
        let http = |client: Client, method: &Method, path: String, body: &Value| Asked::Http {
            client: client.header("x-client-id", id.as_bytes()),
            method: method.clone(),
            path,
            body: body.clone(),
        };
        let direct =
            direct.into_iter().zip(nodes.iter().cycle()).map(|((name, label, undecided, method, path, body), node)| {
                let client = node.client().header("x-api-id", id.as_bytes());
                Door { name, label: Some(label), undecided, unanswered: None, asked: http(client, method, path, body) }
            });
        let gateways = [
            ("nginx", 503, 500, &self.nginx),
            ("Envoy", 429, 500, &self.envoy),
            ("Envoy's ext_authz", 429, 503, &self.ext_authz),
        ];
        let gateways = gateways.map(|(name, undecided, unanswered, program)| {
            let asked = http(Client::new(program.address), &get, "/".to_owned(), &Value::Null);
            Door { name, label: None, undecided, unanswered: Some(unanswered), asked }
        });
        let request = RateLimitRequest {
            domain: self.quota.domain().to_owned(),
            ..RateLimitRequest::of(vec![Descriptor::of(&[(self.quota.key(), id)])])
        };
        let connection = Connection::open(nodes[0].grpc()).await.unwrap().within(self.wait);
        let asked = Asked::Grpc { connection, request };
        let service =
            Door { name: "the rate limit service", label: Some("rls"), undecided: 429, unanswered: None, asked };
        direct.chain(gateways).chain([service]).collect()
    }
}

impl Door {
    /// Asks once. All but batches say one thing.
    ///
    /// # Panics
    /// It says something that no such door is to say.
    pub(super) async fn ask(&mut self) -> Vec<Said> {
        let (status, decision, body) = match &mut self.asked {
            Asked::Http { client, method, path, body } => {
                let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
                let answer = client.send(method.clone(), path, body).await.unwrap();
                (answer.status, answer.header("x-ratelimit-decision").to_owned(), answer.body)
            }
            Asked::Grpc { connection, request } => {
                let answer = connection.ask(request).await;
                let status = if answer.overall_code == OK { 200 } else { 429 };
                (status, answer.headers()["x-ratelimit-decision"].to_owned(), Bytes::new())
            }
        };
        let batch = serde_json::from_slice::<Value>(&body).unwrap_or_default();
        if let Some(results) = batch["results"].as_array() {
            assert_eq!(status, self.undecided, "{batch}");
            return results.iter().map(of_result).collect();
        }
        vec![match (status, decision.as_str()) {
            // nginx tells nobody that it asked.
            (200, said) if said == "admit" || (said.is_empty() && self.name == "nginx") => Said::Admitted,
            // A denial at `/rate/increment` is 200, too.
            (200 | 429, "deny") => Said::Denied,
            (status, "unavailable") if status == self.undecided => Said::Unavailable,
            (status, "") if Some(status) == self.unanswered => Said::Unanswered,
            other => panic!("{}: {other:?}: {}", self.name, String::from_utf8_lossy(&body)),
        }]
    }
}

fn of_result(result: &Value) -> Said {
    match (result["admitted"].as_bool(), result["error"].as_str()) {
        (Some(true), None) => Said::Admitted,
        (Some(false), None) => Said::Denied,
        (None, Some(_)) => Said::Unavailable,
        other => panic!("{other:?}"),
    }
}
