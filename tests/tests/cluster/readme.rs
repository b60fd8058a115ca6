//! The README's snippets of doors, typed word for word.

use std::path::Path;

use bytes::Bytes;
use hyper::Method;
use quorate_tests::client::{Answer, Client};
use quorate_tests::cluster::{Cluster, Plan};
use quorate_tests::grpc::{Connection, Descriptor, Entry, OK, RateLimitRequest};
use quorate_tests::readme::{Typed, typed, words};
use serde_json::Value;

#[tokio::test(flavor = "multi_thread")]
async fn readme_snippets_of_doors_write_what_the_readme_shows() {
    let cluster = Plan::of(3).set("DEFAULT_LIMIT", "10/60s").start().await;
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let mut doors = vec![];
    // The page's id of a client, and the one that was given here.
    let mut ids: Option<(String, String)> = None;
    for Typed { mut command, output } in typed(&readme, "## Doors") {
        if let Some((shown, given)) = &ids {
            command = command.replace(shown, given);
        }
        let words = words(&command);
        let shown = output.join("\n");
        if words[0] == "grpcurl" {
            assert_eq!(overall_code(&cluster, &words).await, OK, "{command}");
            assert!(shown.contains(r#""overallCode": "OK""#), "{shown}");
            doors.push("grpc".to_owned());
            continue;
        }
        let asked = Asked::read(&words);
        let answer = asked.send(&cluster).await;
        let id = |text: &str| serde_json::from_str::<Value>(text).ok()?["id"].as_str().map(str::to_owned);
        if let (Some(shown), Some(given)) = (id(&shown), id(&answer.text())) {
            ids = Some((shown, given));
        }
        let (page, given) = ids.clone().unwrap_or_default();
        let written = asked.written(&answer);
        let written = if given.is_empty() { written } else { written.replace(&given, &page) };
        assert_eq!(steady(&written), steady(&shown), "{command}");
        doors.push(asked.path.split('?').next().unwrap_or_default().to_owned());
    }
    assert_eq!(doors, ["/rate/increment", "/v1/check", "/v1/authorize", "grpc", "/bucket", "/example"]);
}

/// What `curl` is asked to do, as far as the README's lines go.
struct Asked {
    method: Method,
    target: usize,
    path: String,
    header: Option<String>,
    body: String,
    with_head: bool,
}

impl Asked {
    fn read(words: &[String]) -> Self {
        assert_eq!(words[0], "curl", "{words:?}");
        let mut asked = Self {
            method: Method::GET,
            target: 0,
            path: String::new(),
            header: None,
            body: String::new(),
            with_head: false,
        };
        let mut words = words[1..].iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().unwrap_or_else(|| panic!("a value of {word}")).clone();
            match word.as_str() {
                "-i" => asked.with_head = true,
                "-X" => asked.method = value().parse().unwrap(),
                "-H" => asked.header = Some(value()),
                "-d" => asked.body = value(),
                url => {
                    let (target, path) = url.split_at(url.find('/').expect("a path"));
                    let port: usize = target.strip_prefix("localhost:").expect(url).parse().unwrap();
                    (asked.target, asked.path) = (port - 20001, path.to_owned());
                }
            }
        }
        asked
    }

    async fn send(&self, cluster: &Cluster) -> Answer {
        let mut client = Client::new(cluster.node(self.target).data());
        if let Some((name, value)) = self.header.as_ref().and_then(|header| header.split_once(": ")) {
            let name: &'static str = ["X-Client-Id", "X-Api-Id"].into_iter().find(|known| *known == name).expect(name);
            let name = if name == "X-Api-Id" { "x-api-id" } else { "x-client-id" };
            client = client.header(name, value.as_bytes());
        }
        client.send(self.method.clone(), &self.path, Bytes::from(self.body.clone())).await.unwrap()
    }

    /// What `curl` would write; with the head only the limiter's own headers.
    fn written(&self, answer: &Answer) -> String {
        let head = ["x-ratelimit-decision", "ratelimit-policy", "ratelimit"];
        let head = head.map(|name| format!("{name}: {}\n", answer.header(name))).concat();
        if self.with_head { format!("HTTP/1.1 {} OK\n{head}", answer.status) } else { answer.text() }
    }
}

/// The same whatever second it is.
fn steady(text: &str) -> String {
    [";t=60", ";t=59", r#""resetSeconds":60"#, r#""resetSeconds":59"#]
        .iter()
        .fold(text.trim_end().to_owned(), |text, time| {
            text.replace(time, &format!("{}60", time.trim_end_matches(|c: char| c.is_ascii_digit())))
        })
}

async fn overall_code(cluster: &Cluster, words: &[String]) -> i32 {
    let [program, plain, data, json, target, method] = words else { panic!("{words:?}") };
    assert_eq!([program, plain, data].map(String::as_str), ["grpcurl", "-plaintext", "-d"]);
    assert_eq!(method, "envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit");
    let port: usize = target.strip_prefix("localhost:").expect(target).parse().unwrap();
    let json: Value = serde_json::from_str(json).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let entry = |entry: &Value| Entry { key: text(&entry["key"]), value: text(&entry["value"]) };
    let list = |value: &Value| value.as_array().unwrap().clone();
    let descriptor = |descriptor: &Value| Descriptor {
        entries: list(&descriptor["entries"]).iter().map(entry).collect(),
        ..Descriptor::default()
    };
    let request = RateLimitRequest {
        domain: text(&json["domain"]),
        descriptors: list(&json["descriptors"]).iter().map(descriptor).collect(),
        ..RateLimitRequest::default()
    };
    let mut connection = Connection::open(cluster.node(port - 20201).grpc()).await.unwrap();
    connection.ask(&request).await.overall_code
}
