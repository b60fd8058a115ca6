//! The transport over loopback sockets.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use futures::future::{BoxFuture, FutureExt as _, join_all};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::frame::{Batch, FrameReader, PREFACE_BYTES, VERSION, preface};
use super::*;

/// Echoes; a frame `none` closes the connection, a frame `never` is never answered.
struct Echo;

impl Service for Echo {
    fn handle(self: Arc<Self>, frame: Bytes) -> BoxFuture<'static, Option<Bytes>> {
        async move {
            match &frame[..] {
                b"none" => None,
                b"never" => std::future::pending().await,
                _ => Some(frame),
            }
        }
        .boxed()
    }
}

struct Server {
    address: String,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Server {
    async fn start_at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(serve(listener, Arc::new(Echo), async { drop(stopped.await) }));
        Self { address, stop, task }
    }

    async fn start() -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap();
    }
}

/// A peer that is written out by the test: it accepts one connection.
async fn accept_one() -> (String, impl Future<Output = TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (address, async move { listener.accept().await.unwrap().0 })
}

const LANES: [Lane; 4] = [Lane::Log, Lane::Control, Lane::Snapshot, Lane::Forward];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_calls_each_get_their_own_answer() {
    let server = Server::start().await;
    let transport = TcpTransport::new();
    let calls = (0..2000_u32).map(|n| {
        let lane = LANES[n as usize % LANES.len()];
        let frame = Bytes::from(n.to_be_bytes().repeat(1 + n as usize % 5000));
        let call = transport.call(&server.address, lane, frame.clone());
        async move { assert_eq!(call.await.unwrap(), frame) }
    });
    join_all(calls).await;
}

#[tokio::test]
async fn empty_and_big_frames_pass_and_too_big_ones_are_refused_before_they_are_sent() {
    let server = Server::start().await;
    let transport = TcpTransport::new();
    let big = Bytes::from(vec![7; FRAME_BYTES_MAX]);
    for frame in [Bytes::new(), big, Bytes::from_static(b"small")] {
        assert_eq!(transport.call(&server.address, Lane::Snapshot, frame.clone()).await.unwrap(), frame);
    }
    let error = transport.call(&server.address, Lane::Snapshot, vec![0; FRAME_BYTES_MAX + 1].into()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
}

#[tokio::test]
async fn stopped_server_fails_all_waiting_calls_and_restarted_one_is_reached_again() {
    let server = Server::start().await;
    let transport = TcpTransport::new();
    let echo = || transport.call(&server.address, Lane::Log, Bytes::from_static(b"echo"));
    let waiting: Vec<_> =
        (0..100).map(|_| transport.call(&server.address, Lane::Log, Bytes::from_static(b"never"))).collect();
    echo().await.unwrap();
    let address = server.address.clone();
    server.stop().await;
    for call in waiting {
        let error = call.await.unwrap_err();
        assert!(error.to_string().contains(&address), "{error}");
    }
    transport.call(&address, Lane::Log, Bytes::new()).await.unwrap_err();

    let server = Server::start_at(address.parse().unwrap()).await;
    while transport.call(&server.address, Lane::Log, Bytes::new()).await.is_err() {
        // Calls fail at once until the pause after the failure is over.
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn dead_address_fails_at_once_and_says_which() {
    let (address, listener) = accept_one().await;
    drop(listener);
    let transport = TcpTransport::new();
    for _ in 0..3 {
        let error = transport.call(&address, Lane::Log, Bytes::new()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(error.to_string().contains(&address), "{error}");
    }
}

#[tokio::test]
async fn frame_that_is_none_of_ours_closes_its_connection_only() {
    let server = Server::start().await;
    let transport = TcpTransport::new();
    let other_lane = transport.call(&server.address, Lane::Control, Bytes::from_static(b"never"));
    transport.call(&server.address, Lane::Log, Bytes::from_static(b"none")).await.unwrap_err();
    transport.call(&server.address, Lane::Control, Bytes::from_static(b"echo")).await.unwrap();
    assert!(other_lane.now_or_never().is_none(), "still waiting");
}

#[tokio::test]
async fn garbage_closes_the_connection_and_the_server_goes_on() {
    let server = Server::start().await;
    let hello = preface(0);
    let too_long = [&hello[..], &u32::MAX.to_be_bytes(), &[0; 8]].concat();
    let cut_off = [&hello[..], &100_u32.to_be_bytes(), &[0; 20]].concat();
    for garbage in [b"GET / HTTP/1.1\r\n\r\n".to_vec(), too_long, cut_off, vec![0], vec![0; 100_000]] {
        let mut stream = TcpStream::connect(&server.address).await.unwrap();
        stream.write_all(&garbage).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        // It ends, by whatever means.
        let _ = stream.read_to_end(&mut answer).await;
        assert!(answer.len() <= PREFACE_BYTES, "{answer:?}");
    }
    TcpTransport::new().call(&server.address, Lane::Log, Bytes::new()).await.unwrap();
}

#[tokio::test]
async fn too_long_answer_is_refused() {
    let (address, accepted) = accept_one().await;
    let transport = TcpTransport::new();
    let call = transport.call(&address, Lane::Log, Bytes::new());
    let mut stream = accepted.await;
    stream.write_all(&[&preface(0)[..], &u32::MAX.to_be_bytes(), &[0; 8]].concat()).await.unwrap();
    let error = call.await.unwrap_err();
    assert!(error.to_string().contains("64 MiB is the limit"), "{error}");
}

#[tokio::test]
async fn other_version_is_named_on_both_sides() {
    let (address, accepted) = accept_one().await;
    let transport = TcpTransport::new();
    let call = transport.call(&address, Lane::Log, Bytes::new());
    let mut newer = preface(0);
    newer[4] = VERSION + 1;
    let mut stream = accepted.await;
    stream.write_all(&newer).await.unwrap();
    let error = call.await.unwrap_err();
    assert!(error.to_string().contains("speaks transport version 2, this node 1"), "{error}");

    let server = Server::start().await;
    let mut stream = TcpStream::connect(&server.address).await.unwrap();
    stream.write_all(&[&newer[..], &[0; 1000]].concat()).await.unwrap();
    let mut answer = [0; PREFACE_BYTES];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer[4], VERSION);
    assert_eq!(stream.read(&mut answer).await.unwrap(), 0);
}

#[tokio::test]
async fn silent_peer_makes_calls_fail_when_too_many_wait_and_given_up_ones_do_not_count() {
    let (address, accepted) = accept_one().await;
    let transport = TcpTransport::new();
    let call = |frame: Bytes| transport.call(&address, Lane::Log, frame);
    drop((0..10).map(|_| call(Bytes::new())).collect::<Vec<_>>());
    let _stream = accepted.await;
    let mut waiting = Vec::new();
    let error = loop {
        let mut call = call(Bytes::from_static(b"?"));
        match (&mut call).now_or_never() {
            None => waiting.push(call),
            Some(answer) => break answer.unwrap_err(),
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    assert_eq!(waiting.len(), 4096);
    waiting.pop();
    assert!(call(Bytes::new()).now_or_never().is_none(), "there is room for one again");

    let (heavy_address, _not_accepted) = accept_one().await;
    let heavy = Bytes::from(vec![0; FRAME_BYTES_MAX]);
    let mut calls: Vec<_> = (0..2).map(|_| transport.call(&heavy_address, Lane::Log, heavy.clone())).collect();
    let last = calls.pop().unwrap().now_or_never().unwrap();
    assert_eq!(last.unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

#[tokio::test]
async fn last_handle_dropped_closes_connections() {
    let (address, accepted) = accept_one().await;
    let transport = TcpTransport::new();
    let call = transport.clone().call(&address, Lane::Log, Bytes::new());
    let mut stream = accepted.await;
    drop(transport);
    call.await.unwrap_err();
    let mut sent = Vec::new();
    stream.read_to_end(&mut sent).await.unwrap();
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn connections_notice_silence_and_send_small_frames_at_once() {
    let (address, accepted) = accept_one().await;
    let (stream, _accepted) = tokio::join!(TcpStream::connect(address), accepted);
    let stream = stream.unwrap();
    super::frame::tune(&stream).unwrap();
    let socket = socket2::SockRef::from(&stream);
    assert!(stream.nodelay().unwrap() && socket.keepalive().unwrap());
    assert_eq!(socket.tcp_user_timeout().unwrap(), Some(std::time::Duration::from_secs(2)));
}

#[tokio::test]
async fn frames_in_single_bytes_are_read_and_a_cut_off_one_is_an_error() {
    let mut batch = Batch::default();
    batch.push(1, Bytes::from_static(b"one"));
    batch.push(u64::MAX, Bytes::new());
    batch.push(3, Bytes::from(vec![3; 100_000]));
    batch.seal();
    let bytes = batch.copy_to_bytes(batch.remaining());
    let (mut sink, source) = tokio::io::duplex(1);
    let cut_off = bytes.slice(..bytes.len() - 1);
    tokio::spawn(async move { sink.write_all(&[&bytes[..], &cut_off[..]].concat()).await.unwrap() });
    let mut frames = FrameReader::new(source);
    for is_whole in [true, false] {
        assert_eq!(frames.next().await.unwrap(), Some((1, Bytes::from_static(b"one"))));
        assert_eq!(frames.next().await.unwrap(), Some((u64::MAX, Bytes::new())));
        if is_whole {
            assert_eq!(frames.next().await.unwrap(), Some((3, Bytes::from(vec![3; 100_000]))));
        }
    }
    assert_eq!(frames.next().await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn batch_is_read_in_pieces_of_any_size() {
    let make = || {
        let mut batch = Batch::default();
        for (call, size) in [(1_u8, 10), (2, 0), (3, 20_000), (4, 5), (5, 30_000)] {
            batch.push(call.into(), Bytes::from(vec![call; size]));
        }
        batch.seal();
        batch
    };
    let whole = make().copy_to_bytes(make().remaining());
    assert_eq!(whole.len(), 5 * 12 + 50_015);
    for step in [1, 7, 12_345] {
        let (mut batch, mut seen) = (make(), Vec::new());
        while batch.has_remaining() {
            let mut slices = [io::IoSlice::new(&[]); 2];
            let filled = batch.chunks_vectored(&mut slices);
            assert!(filled > 0);
            let all: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.to_vec()).take(step).collect();
            batch.advance(all.len());
            seen.extend(all);
        }
        assert_eq!(seen, whole);
    }
}
