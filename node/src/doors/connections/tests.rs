use axum::http::{Request, StatusCode};
use axum::routing::{get, post};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::{http1, http2};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

const GRACE: Duration = Duration::from_secs(30);

/// A server whose `/slow` answers once `release` is notified.
async fn started(bounds: Bounds) -> (Server, SocketAddr, Arc<Notify>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let release = Arc::new(Notify::new());
    let held = Arc::clone(&release);
    let slow = move || async move {
        held.notified().await;
        "slow"
    };
    let routes = Router::new()
        .route("/", get(|| async { "fast" }))
        .route("/slow", get(slow))
        .route("/post", post(|| async {}))
        .route("/echo", post(|body: String| async { body }));
    (Server::start(listener, routes, bounds), address, release)
}

type Sender1 = http1::SendRequest<Empty<bytes::Bytes>>;
type Sender2 = http2::SendRequest<Empty<bytes::Bytes>>;

async fn client1(address: SocketAddr) -> (Sender1, JoinHandle<hyper::Result<()>>) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    (sender, tokio::spawn(connection))
}

async fn client2(address: SocketAddr) -> (Sender2, JoinHandle<hyper::Result<()>>) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    (sender, tokio::spawn(connection))
}

fn request(path: &str) -> Request<Empty<bytes::Bytes>> {
    Request::builder().uri(format!("http://node{path}")).body(Empty::new()).unwrap()
}

#[tokio::test]
async fn serving_answers_and_keeps_connections() {
    let (_server, address, _) = started(Bounds::default()).await;
    let (mut sender, _connection) = client1(address).await;
    for _ in 0..3 {
        sender.ready().await.unwrap();
        let response = sender.send_request(request("/")).await.unwrap();
        assert_eq!((response.status(), response.headers().get(CONNECTION)), (StatusCode::OK, None));
        response.collect().await.unwrap();
    }
    let (mut sender, _connection) = client2(address).await;
    for _ in 0..3 {
        assert_eq!(sender.send_request(request("/")).await.unwrap().status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn leaving_still_accepts_and_asks_each_client_to_close() {
    let (server, address, _) = started(Bounds::default()).await;
    let (mut before, kept) = client1(address).await;
    before.send_request(request("/")).await.unwrap().collect().await.unwrap();
    server.leave();
    let (new, closed) = client1(address).await;
    for (mut sender, connection) in [(before, kept), (new, closed)] {
        sender.ready().await.unwrap();
        let response = sender.send_request(request("/")).await.unwrap();
        assert_eq!(response.headers()[CONNECTION], "close");
        assert_eq!(response.collect().await.unwrap().to_bytes(), "fast");
        connection.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn leaving_says_goaway_and_answers_what_is_under_way() {
    let (server, address, release) = started(Bounds::default()).await;
    let (mut sender, connection) = client2(address).await;
    sender.send_request(request("/")).await.unwrap();
    let under_way = tokio::spawn(sender.send_request(request("/slow")));
    // The second request is there once a third is answered.
    sender.send_request(request("/")).await.unwrap();
    server.leave();
    // Refused by the client itself, once it has been told to go away.
    while sender.send_request(request("/")).await.is_ok() {}
    release.notify_one();
    let response = under_way.await.unwrap().unwrap();
    assert_eq!(response.collect().await.unwrap().to_bytes(), "slow");
    connection.await.unwrap().unwrap();

    // A connection that comes while the node is leaving is served once, then told the same.
    let (mut sender, connection) = client2(address).await;
    assert_eq!(sender.send_request(request("/")).await.unwrap().status(), StatusCode::OK);
    connection.await.unwrap().unwrap();
}

#[tokio::test]
async fn idle_connection_lives_through_leaving_and_ends_with_closing() {
    let (server, address, _) = started(Bounds::default()).await;
    let (mut sender, connection) = client1(address).await;
    sender.send_request(request("/")).await.unwrap().collect().await.unwrap();
    server.leave();
    // Another connection is served meanwhile, so the server has seen the change.
    let (mut other, _other) = client1(address).await;
    other.send_request(request("/")).await.unwrap();
    assert!(!connection.is_finished());
    server.close(GRACE).await;
    connection.await.unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn closing_waits_for_the_request_under_way() {
    let (server, address, release) = started(Bounds::default()).await;
    let (mut sender, connection) = client1(address).await;
    let under_way = tokio::spawn(sender.send_request(request("/slow")));
    // Once the route waits, `notify_one` is what it waits for; before, it is kept for it.
    let closing = tokio::spawn(server.close(GRACE));
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    release.notify_one();
    // Either the request came before the closing and is answered, or the connection was still unused and is closed.
    if let Ok(response) = under_way.await.unwrap() {
        assert_eq!(response.collect().await.unwrap().to_bytes(), "slow");
    }
    closing.await.unwrap();
    let _ = connection.await.unwrap();
}

#[tokio::test]
async fn closing_cuts_what_takes_longer_than_the_grace() {
    let (server, address, _release) = started(Bounds::default()).await;
    let (mut sender, _connection) = client1(address).await;
    let under_way = tokio::spawn(sender.send_request(request("/slow")));
    // A second connection is served meanwhile, so the server has the first.
    let (mut other, _other) = client1(address).await;
    other.send_request(request("/")).await.unwrap();
    server.close(Duration::from_millis(50)).await;
    assert!(under_way.await.unwrap().is_err());
}

#[tokio::test]
async fn connection_that_sends_no_head_is_closed() {
    let bounds = Bounds { first_head: Duration::from_millis(20), ..Bounds::default() };
    let (_server, address, _) = started(bounds).await;
    for sent in [&b""[..], b"GET / HT", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(sent).await.unwrap();
        let mut answer = Vec::new();
        // Closed or reset, but not answered.
        let ended = tokio::time::timeout(GRACE, stream.read_to_end(&mut answer)).await;
        assert!(ended.is_ok(), "after {sent:?} the connection goes on");
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{answer:?}");
    }
}

#[tokio::test]
async fn connection_beyond_the_bound_is_told_so_and_closed_until_another_ends() {
    let (_server, address, _) = started(Bounds { connections_max: 1, ..Bounds::default() }).await;
    let (mut first, first_connection) = client1(address).await;
    first.send_request(request("/")).await.unwrap().collect().await.unwrap();
    let mut answer = String::new();
    TcpStream::connect(address).await.unwrap().read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{head}");
    assert!(serde_json::from_str::<serde_json::Value>(body).unwrap()["error"].is_string());
    first.ready().await.unwrap();
    first.send_request(request("/")).await.unwrap().collect().await.unwrap();
    drop(first);
    first_connection.await.unwrap().unwrap();
    // The server notices the end on its own time.
    while client1(address).await.0.send_request(request("/")).await.is_ok_and(|answer| answer.status() != 200) {}
}

#[tokio::test]
async fn body_that_dawdles_is_given_up_and_the_connection_closed() {
    let bounds = Bounds { body: Duration::from_millis(50), ..Bounds::default() };
    let (_server, address, _) = started(bounds).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"POST /echo HTTP/1.1\r\nhost: n\r\ncontent-length: 9\r\n\r\nhalf").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("not there within 50ms"), "{answer}");
}

#[tokio::test]
async fn body_that_says_it_is_too_long_is_refused_before_it_comes() {
    let (_server, address, _) = started(Bounds { body_bytes_max: 10, ..Bounds::default() }).await;
    for (length, status) in [(10, "HTTP/1.1 200"), (11, "HTTP/1.1 413")] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!("POST /echo HTTP/1.1\r\nhost: n\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        if length == 10 {
            stream.write_all(&[b'x'; 10]).await.unwrap();
        }
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(status), "{answer}");
    }
}

#[tokio::test]
async fn head_that_is_too_big_is_refused() {
    let (_server, address, _) = started(Bounds::default()).await;
    for head in [
        format!("GET / HTTP/1.1\r\nhost: n\r\nx: {}\r\n\r\n", "y".repeat(20_000)),
        format!("GET / HTTP/1.1\r\nhost: n\r\n{}\r\n", "x: y\r\n".repeat(80)),
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // It may be refused before all of it is sent.
        let _ = stream.write_all(head.as_bytes()).await;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 431");
    }
}
