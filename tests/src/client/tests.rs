use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

/// Answers each connection once with `answer`, then closes it. Empty: closes it without an answer.
async fn server(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    address
}

const CLOSES: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 15\r\n\r\n{\"result\":true}";

#[tokio::test]
async fn connection_closed_in_an_orderly_way_the_next_request_goes_to_the_next_target() {
    let targets = vec![server(CLOSES).await, server(CLOSES).await];
    let mut client = Client::across(targets, 0);
    for expected in [0, 1, 0] {
        assert_eq!(client.increment("a").await, Outcome::Admitted);
        assert_eq!(client.last_target(), expected);
    }
}

#[tokio::test]
async fn target_that_refuses_connections_the_next_one_is_asked() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = listener.local_addr().unwrap();
    drop(listener);
    let mut client = Client::across(vec![closed, server(CLOSES).await], 0);
    assert_eq!(client.increment("a").await, Outcome::Admitted);
    let refused = Client::new(closed).get("/").await;
    assert!(matches!(refused, Err(Unanswered::NotSent(_))), "{refused:?}");
}

#[tokio::test]
async fn connection_that_breaks_behind_the_request_is_unknown_and_not_sent_again() {
    let mut client = Client::across(vec![server("").await, server(CLOSES).await], 0);
    let broken = client.get("/").await;
    assert!(matches!(broken, Err(Unanswered::Unknown(_))), "{broken:?}");
    assert_eq!(client.increment("a").await, Outcome::Admitted);
}

#[tokio::test]
async fn plain_client_tries_once_and_opens_a_connection_anew_that_was_idle_or_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = listener.local_addr().unwrap();
    drop(listener);
    let idle = Duration::from_secs(5);
    let mut client = Client::across(vec![closed, server(CLOSES).await], 0).plain(idle);
    assert_eq!(client.increment("a").await, Outcome::Failed);
    assert_eq!(client.increment("a").await, Outcome::Admitted);

    // Its answer does not say so, but it closes the connection, as whoever waits too long finds.
    let mut client = Client::new(server("HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n{\"result\":true}").await);
    client = client.plain(Duration::ZERO);
    for _ in 0..2 {
        assert_eq!(client.increment("a").await, Outcome::Admitted);
    }
}

#[test]
fn answers_are_read_as_outcomes() {
    let cases = [
        (200, r#"{"result":true}"#, Outcome::Admitted),
        (200, r#"{"result":false}"#, Outcome::Denied),
        (429, r#"{"admitted":false}"#, Outcome::Denied),
        (503, r#"{"error":"x","result":false}"#, Outcome::Unavailable),
        (500, r#"{"error":"node is not the leader","result":false}"#, Outcome::Failed),
        (200, "", Outcome::Failed),
    ];
    for (status, body, expected) in cases {
        let answer = Answer { status, headers: HeaderMap::new(), body: Bytes::from(body) };
        assert_eq!(Outcome::of(&answer), expected, "{status} {body}");
    }
}
