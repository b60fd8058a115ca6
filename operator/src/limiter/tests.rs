//! What no real node does: silence, floods, nonsense. `tests/tests/cluster/operator_client.rs` calls real nodes.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::in_memory::within;

/// A node that answers each connection with these bytes, and a client of it.
async fn node_that_says(answer: &'static [u8]) -> (Limiters, Target) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 4096]).await;
                stream.write_all(answer).await.unwrap();
                if answer.is_empty() {
                    std::future::pending::<()>().await;
                }
            });
        }
    });
    let ports = Ports { http: address.port(), admin: address.port() };
    (Limiters::new(ports), Target { pod: "edge-0".to_owned(), ip: address.ip() })
}

#[tokio::test]
async fn refusal_names_pod_address_route_status_and_the_words_of_the_node() {
    let (limiters, target) =
        node_that_says(b"HTTP/1.1 409 Conflict\r\ncontent-length: 20\r\n\r\n{\"error\":\"it leads\"}").await;
    let error = limiters.transfer_leader(&target, None).await.unwrap_err();
    let address = SocketAddr::new(target.ip, limiters.ports.admin);
    assert_eq!(
        error.to_string(),
        format!("pod edge-0 at {address}, POST /v1/cluster/transfer-leader: answered 409 Conflict: it leads")
    );
}

#[tokio::test]
async fn node_that_is_not_there_is_not_sent_to() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let limiters = Limiters::new(Ports { http: port, admin: port });
    let target = Target { pod: "edge-0".to_owned(), ip: [127, 0, 0, 1].into() };
    let error = limiters.cluster(&target).await.unwrap_err();
    assert!(matches!(&error.failure, Failure::NotSent(text) if text.contains("refused")), "{error}");
}

#[tokio::test(start_paused = true)]
async fn node_that_says_nothing_is_given_up() {
    let (limiters, target) = node_that_says(b"").await;
    let error = within("the look to be given up", limiters.cluster(&target)).await.unwrap_err();
    assert_eq!(error.failure, Failure::Late(LOOK_DEADLINE));
    let error = within("the change to be given up", limiters.decommission(&target, HexId(1))).await.unwrap_err();
    assert_eq!(error.failure, Failure::Late(CHANGE_DEADLINE));
}

#[tokio::test]
async fn connection_that_is_not_used_is_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let node = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        assert!(stream.read(&mut request).await.unwrap() > 0);
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 28\r\n\r\n{\"revision\":1,\"policies\":[]}";
        stream.write_all(answer).await.unwrap();
        stream.read(&mut request).await.unwrap()
    });
    let limiters = Limiters::new(Ports { http: address.port(), admin: address.port() });
    limiters.policies(&Target { pod: "edge-0".to_owned(), ip: address.ip() }).await.unwrap();
    tokio::time::pause();
    assert_eq!(within("the connection to be closed", node).await.unwrap(), 0);
}

#[tokio::test]
async fn answer_beyond_the_bound_is_not_read() {
    let (limiters, target) = node_that_says(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n{").await;
    let error = limiters.policies(&target).await.unwrap_err();
    assert_eq!(error.failure, Failure::TooLong);
}

#[tokio::test]
async fn answer_of_another_shape_is_told_apart() {
    let (limiters, target) = node_that_says(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await;
    let error = limiters.cluster(&target).await.unwrap_err();
    assert!(matches!(&error.failure, Failure::Unreadable(text) if text.contains("clusterId")), "{error}");
}

#[test]
fn long_words_are_cut() {
    let cut = said(&vec![b'x'; 3 * WORDS_BYTES_MAX]).error;
    assert_eq!(cut.chars().count(), WORDS_BYTES_MAX + 1);
    assert_eq!(said(b"plain").error, "plain");
}

#[test]
fn pod_is_asked_from_when_it_has_an_address_until_it_has_ended() {
    let pod = |phase: &str, ip: Option<&str>| -> Pod {
        serde_json::from_value(serde_json::json!({
            "metadata": { "name": "edge-0" }, "status": { "phase": phase, "podIP": ip }
        }))
        .unwrap()
    };
    for phase in ["Pending", "Running"] {
        assert_eq!(Target::of(&pod(phase, None)), None);
        assert_eq!(Target::of(&pod(phase, Some("10.0.0.1"))).unwrap().pod, "edge-0");
    }
    for phase in ["Succeeded", "Failed"] {
        assert_eq!(Target::of(&pod(phase, Some("10.0.0.1"))), None, "{phase}: its address may be another's");
    }
}
