//! Doors under abuse: connections that idle, dawdle and never read, more of them than there may be, and requests beyond
//! every bound. Everybody else is served.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use quorate_tests::client::{Outcome, limit, policy};
use quorate_tests::cluster::{Cluster, PATIENCE, Plan, eventually, figure, pause};
use quorate_tests::load::Load;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const IDLE: usize = 10_000;
const SLOW: usize = 1_000;
/// What is slow about a third of these each.
const HEAD: usize = 0;
const BODY: usize = 1;
const READER: usize = 2;
/// How long the others are watched while these connections are open.
const WATCHED: Duration = Duration::from_secs(20);
/// What a connection may cost: a head being read and an answer being written, 16 KiB each at the most, and its task.
const CONNECTION_BYTES_MAX: u64 = 40 << 10;

/// This process opens as many sockets as its nodes.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    assert!(files > (IDLE + SLOW + 1000) as u64, "this test needs more than {files} open files: raise `ulimit -Hn`");
}

async fn start(plan: Plan) -> Cluster {
    let cluster = plan.alone().start().await;
    let policy = policy("door", "door-", &json!([limit("FixedWindow", 100_000_000, "24h")]));
    cluster.node(0).admin_client().put_policy(&policy).await.unwrap();
    cluster
}

/// A connection over which one request was answered.
async fn used(target: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(target).await.unwrap();
    stream.write_all(b"GET /health HTTP/1.1\r\nhost: n\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    stream
}

async fn idle(target: SocketAddr, count: usize) -> Vec<TcpStream> {
    let mut opening = JoinSet::new();
    for _ in 0..100 {
        opening.spawn(async move {
            let mut streams = vec![];
            for _ in 0..count / 100 {
                streams.push(used(target).await);
            }
            streams
        });
    }
    opening.join_all().await.into_iter().flatten().collect()
}

/// Sends a byte a second, for as long as the node lets it; what it was told in the end.
async fn dawdle(target: SocketAddr, head: &'static str, byte: u8) -> String {
    let mut stream = TcpStream::connect(target).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![];
    loop {
        let mut piece = [0; 512];
        match tokio::time::timeout(Duration::from_secs(1), stream.read(&mut piece)).await {
            Ok(Ok(0) | Err(_)) => return String::from_utf8_lossy(&answer).into_owned(),
            Ok(Ok(read)) => answer.extend_from_slice(&piece[..read]),
            // A broken connection shows in the next read.
            Err(_) => drop(stream.write_all(&[byte]).await),
        }
    }
}

/// Asks for something long many times at once, and reads a byte a second of it; when and why it ended.
async fn read_slowly(target: SocketAddr) -> String {
    let begun = Instant::now();
    let mut stream = TcpStream::connect(target).await.unwrap();
    for _ in 0..20 {
        stream.write_all(b"GET /openapi.json HTTP/1.1\r\nhost: n\r\n\r\n").await.unwrap();
    }
    for read in 0.. {
        if let Err(error) = stream.read_exact(&mut [0]).await {
            return format!("after {:.1?} and {read} bytes: {error}", begun.elapsed());
        }
        pause(Duration::from_secs(1)).await;
    }
    unreachable!("it reads for ever");
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_idle_and_a_thousand_slow_connections_others_are_served_and_memory_is_bounded() {
    raise_open_files();
    let cluster = start(Plan::of(3)).await;
    let leader = cluster.leader().await;
    let (node, target) = (cluster.node(leader), cluster.node(leader).data());
    let before = node.resident_bytes();
    let idle = idle(target, IDLE).await;
    let mut slow = JoinSet::new();
    for number in 0..SLOW {
        slow.spawn(async move {
            let kind = number % 3;
            let post = "POST /v1/check HTTP/1.1\r\nhost: n\r\ncontent-length: 900\r\n\r\n";
            let told = match kind {
                HEAD => dawdle(target, "POST /v1/check HTTP/1.1\r\nhost: n\r\nx: ", b'a').await,
                BODY => dawdle(target, post, b' ').await,
                _ => read_slowly(target).await,
            };
            (kind, told)
        });
    }
    let running = Load { connections: 32, ..Load::increments(vec![target], "door-others") }.start();
    let watched = Instant::now();
    let mut told = vec![];
    while let Ok(Some(ended)) = tokio::time::timeout(WATCHED.saturating_sub(watched.elapsed()), slow.join_next()).await
    {
        told.push(ended.unwrap());
    }
    let during = node.resident_bytes();
    let history = running.stop().await;
    let failed = history.count(Outcome::Failed) + history.count(Outcome::Unavailable);
    assert_eq!(failed, 0, "{:?}", history.problems());
    let of = |wanted: usize| told.iter().filter(move |(kind, _)| *kind == wanted).map(|(_, told)| told);
    let given_up = of(BODY).filter(|answer| answer.starts_with("HTTP/1.1 408 ")).count();
    assert_eq!(given_up, (SLOW + 1) / 3, "every slow body is told so");
    assert_eq!(of(HEAD).count(), SLOW / 3 + 1, "every slow head is given up");
    let cut = of(READER).collect::<Vec<_>>();
    assert_eq!(cluster.leader().await, leader);

    // The idle ones are still there, and still good.
    let mut kept = idle.into_iter().next().unwrap();
    kept.write_all(b"GET /nothing HTTP/1.1\r\nhost: n\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    kept.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("HTTP/1.1 404 "), "{answer}");

    let grown = during.saturating_sub(before);
    let requests = history.records.len();
    figure(&format!(
        "{IDLE} idle and {SLOW} slow connections to the leader: {requests} other requests in {WATCHED:?}, none failed; {} \
         slow readers cut off (the first {:?}, the last {:?}); its memory went from {} MiB to {} MiB, {} KiB a connection",
        cut.len(),
        cut.first(),
        cut.last(),
        before >> 20,
        during >> 20,
        (grown / (IDLE + SLOW) as u64) >> 10,
    ));
    assert!(grown < (IDLE + SLOW) as u64 * CONNECTION_BYTES_MAX, "{} MiB", grown >> 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_connections_than_descriptors_they_are_refused_and_consensus_and_admin_go_on() {
    // 700 open files leave 350 for the data port.
    let few_files = ["/bin/sh", "-c", "ulimit -Sn 300; ulimit -Hn 700; exec \"$@\"", "sh"];
    let cluster = start(Plan::of(3).launched_by(&few_files)).await;
    let leader = cluster.leader().await;
    let node = cluster.node(leader);
    assert!(node.log().contains("raised the limit of open files"), "{}", node.log());
    assert!(node.log().contains("CONNECTIONS_MAX"), "{}", node.log());
    let term = node.client().cluster_status().await.unwrap().term;
    let held = idle(node.data(), 300).await;
    // What the harness itself has open counts too.
    let mut streams = vec![];
    let refused = eventually(PATIENCE, "a connection is refused", async || {
        let mut stream = TcpStream::connect(node.data()).await.unwrap();
        // It may be refused and closed before this is read.
        let _ = stream.write_all(b"GET /health HTTP/1.1\r\nhost: n\r\n\r\n").await;
        let mut answer = [0; 12];
        match stream.read_exact(&mut answer).await {
            Ok(_) if &answer == b"HTTP/1.1 200" => {
                streams.push(stream);
                Err("served".to_owned())
            }
            other => Ok(other.map(|_| String::from_utf8_lossy(&answer).into_owned())),
        }
    })
    .await;
    assert!(refused.as_ref().map_or(true, |told| told == "HTTP/1.1 503"), "{refused:?}");
    assert!((40..=50).contains(&streams.len()), "{} beside 300", streams.len());
    // Twice as many again are refused one by one.
    for _ in 0..700 {
        drop(TcpStream::connect(node.data()).await);
    }
    let changed = policy("meanwhile", "other-", &json!([limit("FixedWindow", 5, "24h")]));
    node.admin_client().put_policy(&changed).await.unwrap();
    for other in cluster.nodes().iter().filter(|other| other.name() != node.name()) {
        assert_eq!(other.client().increment("door-a").await, Outcome::Admitted);
    }
    let status = cluster.node((leader + 1) % 3).client().cluster_status().await.unwrap();
    assert_eq!(status.term, term, "the leader must not lose its followers to clients");
    drop((held, streams));
    eventually(PATIENCE, "it serves again", async || match node.client().increment("door-a").await {
        Outcome::Admitted => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

/// Sends this and reads until the node closes; the status, if it was told.
async fn told(target: SocketAddr, parts: &[&[u8]]) -> String {
    let mut stream = TcpStream::connect(target).await.unwrap();
    for part in parts {
        // It may be refused before all is sent.
        if stream.write_all(part).await.is_err() {
            break;
        }
    }
    let mut answer = vec![];
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it closes").ok();
    String::from_utf8_lossy(&answer).get(9..12).unwrap_or("closed").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_and_bodies_beyond_bounds_are_refused_with_a_reason_and_the_connection_is_closed() {
    let cluster = start(Plan::of(1)).await;
    let target = cluster.node(0).data();
    let post = |headers: &str| format!("POST /v1/check HTTP/1.1\r\nhost: n\r\n{headers}\r\n").into_bytes();
    let long = "y".repeat(20_000);
    let chunks = format!("10000\r\n{}\r\n", " ".repeat(0x1_0000)).repeat(5).into_bytes();
    let cases = [
        ("a long header", post(&format!("x: {long}\r\n")), vec![], "431"),
        ("many headers", post(&"x: y\r\n".repeat(80)), vec![], "431"),
        ("a long path", format!("GET /{long} HTTP/1.1\r\nhost: n\r\n\r\n").into_bytes(), vec![], "431"),
        ("a long body", post("content-length: 300000\r\n"), vec![b' '; 1000], "413"),
        ("a body said to be huge", post("content-length: 999999999999\r\n"), vec![], "413"),
        ("a body without end", post("transfer-encoding: chunked\r\n"), chunks, "413"),
        ("no length", post("content-length: -1\r\n"), vec![], "400"),
        ("two lengths", post("content-length: 1\r\ncontent-length: 2\r\n"), vec![], "400"),
    ];
    for (what, head, body, status) in cases {
        assert_eq!(told(target, &[&head, &body]).await, status, "{what}");
    }
    assert_eq!(cluster.node(0).client().increment("door-a").await, Outcome::Admitted);
}
