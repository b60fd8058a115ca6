//! Connections: accepted, bounded, and let go of in order when the node drains.
//!
//! A drain has two steps. While [`leaving`](Server::leave) the port still accepts, because whoever sends requests here may
//! not know yet that it should not; each answer tells it (`Connection: close`, GOAWAY). [`close`](Server::close) then
//! accepts no more, lets requests finish, and closes idle connections last: closed earlier, they could meet a request
//! that is on its way.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, Response, Version};
use hyper::body::{Body as _, Incoming};
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
#[cfg(target_os = "linux")]
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use super::body_deadline::BodyDeadline;
use super::http::{BODY_BYTES_MAX, too_long};

/// The bounds of one port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The most connections at once; further ones are told so and closed.
    pub connections_max: usize,
    /// How long a connection may take for the head of its first request.
    pub first_head: Duration,
    /// How long a connection may be idle, or dawdle over a later head: longer than clients keep connections in reserve,
    /// so that it is they who close.
    pub idle: Duration,
    /// How long a request's body may take.
    pub body: Duration,
    /// A body that says it is longer is refused unread.
    pub body_bytes_max: usize,
}

impl Bounds {
    /// Connections that the data port takes unless told otherwise.
    pub const CONNECTIONS_MAX_DEFAULT: usize = 20_000;
    /// Connections that the gRPC port takes: each carries many requests, and a gateway opens one for each of its threads.
    pub const GRPC_CONNECTIONS_MAX: usize = 2048;
    /// Connections that the admin port takes.
    pub const ADMIN_CONNECTIONS_MAX: usize = 256;

    /// The default bounds for so many connections and bodies of this length.
    #[must_use]
    pub fn of(connections_max: usize, body_bytes_max: usize) -> Self {
        Self { connections_max, body_bytes_max, ..Self::default() }
    }
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections_max: Self::CONNECTIONS_MAX_DEFAULT,
            first_head: Duration::from_secs(10),
            idle: Duration::from_mins(10),
            body: Duration::from_secs(10),
            body_bytes_max: BODY_BYTES_MAX,
        }
    }
}

const HEADERS_MAX: usize = 64;
const HEAD_BYTES_MAX: u32 = 16 * 1024;
const STREAMS_MAX: u32 = 200;
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// A client that reads none of what it is sent for so long is cut off; the kernel sees to it.
#[cfg(target_os = "linux")]
const UNREAD_MAX: Duration = Duration::from_secs(30);
/// Between two complaints about too many connections.
const REFUSAL_PERIOD: Duration = Duration::from_secs(10);
/// What a client is told that is one too many.
const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: 60\r\n\
    connection: close\r\nretry-after: 1\r\n\r\n{\"error\":\"this node has as many connections as it may have\"}";
/// Before the next try to accept, when the system has no more sockets to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Steps of the drain, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Serving,
    Leaving,
    Closing,
}

/// Serves routes on one port. Ends with [`Server::close`]; dropped, it cuts all connections.
pub struct Server {
    phase: watch::Sender<Phase>,
    accepting: JoinHandle<()>,
}

impl Server {
    /// Serves `routes` to whoever connects to `listener`.
    #[must_use]
    pub fn start(listener: TcpListener, routes: Router, bounds: Bounds) -> Self {
        let (phase, phases) = watch::channel(Phase::Serving);
        let accepting = tokio::spawn(accept(listener, routes, bounds, phases));
        Self { phase, accepting }
    }

    /// Goes on accepting, and tells every client to come by another connection from now on.
    pub fn leave(&self) {
        self.phase.send_replace(Phase::Leaving);
    }

    /// Accepts no more, waits until running requests are answered, at most `grace`, and closes all connections.
    pub async fn close(mut self, grace: Duration) {
        self.phase.send_replace(Phase::Closing);
        if tokio::time::timeout(grace, &mut self.accepting).await.is_err() {
            tracing::warn!("requests were still running after {grace:?}; their connections are cut");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Takes the connections' tasks with it.
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, routes: Router, bounds: Bounds, phases: watch::Receiver<Phase>) {
    let mut closing = phases.clone();
    let permits = Arc::new(Semaphore::new(bounds.connections_max));
    let builder = Arc::new(builder(bounds));
    let mut connections = JoinSet::new();
    let mut refusals = Refusals::default();
    loop {
        tokio::select! {
            biased;
            () = until_closing(&mut closing) => break,
            Some(_) = connections.join_next() => {}
            accepted = accept_one(&listener, &permits) => match accepted {
                Ok((stream, None)) => {
                    refusals.count(bounds.connections_max);
                    // Its few bytes fit into an empty buffer; if not, it is closed without a word.
                    let _ = stream.try_write(REFUSAL);
                }
                Ok((stream, Some(permit))) => {
                    let (routes, builder, phases) = (routes.clone(), Arc::clone(&builder), phases.clone());
                    connections.spawn(async move {
                        serve(stream, routes, &builder, phases, bounds).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!("cannot accept a connection: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn until_closing(phases: &mut watch::Receiver<Phase>) {
    // An error says that the server is gone, which comes to the same.
    let _ = phases.wait_for(|phase| *phase == Phase::Closing).await;
}

/// A connection, and the right to keep it unless there are too many.
async fn accept_one(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> io::Result<(TcpStream, Option<OwnedSemaphorePermit>)> {
    let (stream, _): (TcpStream, SocketAddr) = listener.accept().await?;
    stream.set_nodelay(true)?;
    #[cfg(target_os = "linux")]
    SockRef::from(&stream).set_tcp_user_timeout(Some(UNREAD_MAX))?;
    Ok((stream, Arc::clone(permits).try_acquire_owned().ok()))
}

/// Connections that were one too many, told now and then and not one by one.
#[derive(Default)]
struct Refusals {
    count: u64,
    told: Option<Instant>,
}

impl Refusals {
    fn count(&mut self, connections_max: usize) {
        self.count += 1;
        if self.told.is_none_or(|told| told.elapsed() >= REFUSAL_PERIOD) {
            tracing::warn!(
                refused = self.count,
                "all {connections_max} connections are in use, further ones are refused; are clients leaking them? \
                 CONNECTIONS_MAX and the limit of open files (ulimit -n) say how many there may be"
            );
            *self = Self { count: 0, told: Some(Instant::now()) };
        }
    }
}

fn builder(bounds: Bounds) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.idle)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEAD_BYTES_MAX)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

/// What is known of a connection by the requests that came over it.
#[derive(Default)]
struct Seen {
    request: AtomicBool,
    http2: AtomicBool,
    /// A request came over HTTP/2 while the node was leaving.
    goaway: Notify,
}

async fn serve(
    stream: TcpStream,
    routes: Router,
    builder: &Builder<TokioExecutor>,
    mut phases: watch::Receiver<Phase>,
    bounds: Bounds,
) {
    let seen = Arc::new(Seen::default());
    let service =
        Watched { routes: TowerToHyperService::new(routes), seen: Arc::clone(&seen), phases: phases.clone(), bounds };
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut too_slow = pin!(tokio::time::sleep(bounds.first_head));
    let mut is_timed = true;
    let mut phase = Phase::Serving;
    loop {
        tokio::select! {
            biased;
            // An error here is the client's: a broken head, a connection cut. There is nobody left to tell.
            _ = connection.as_mut() => return,
            () = &mut too_slow, if is_timed => {
                is_timed = false;
                if !seen.request.load(Ordering::Relaxed) {
                    return;
                }
            }
            () = seen.goaway.notified() => connection.as_mut().graceful_shutdown(),
            changed = phases.wait_for(|new| *new > phase) => {
                // The server is gone; so is whoever could wait for an answer.
                let Ok(new) = changed.map(|new| *new) else { return };
                phase = new;
                if phase == Phase::Closing || seen.http2.load(Ordering::Relaxed) {
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

/// The routes, and what a connection must know of the requests that pass.
struct Watched {
    routes: TowerToHyperService<Router>,
    seen: Arc<Seen>,
    phases: watch::Receiver<Phase>,
    bounds: Bounds,
}

impl Service<hyper::Request<Incoming>> for Watched {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: hyper::Request<Incoming>) -> Self::Future {
        let is_http2 = request.version() == Version::HTTP_2;
        self.seen.request.store(true, Ordering::Relaxed);
        self.seen.http2.store(is_http2, Ordering::Relaxed);
        let (seen, phases) = (Arc::clone(&self.seen), self.phases.clone());
        if request.body().size_hint().lower() > self.bounds.body_bytes_max as u64 {
            // Unread, the body would be taken for the next request: hyper closes the connection.
            return Box::pin(async { Ok(too_long()) });
        }
        let answer = self.routes.call(request.map(|body| BodyDeadline::new(body, self.bounds.body)));
        Box::pin(async move {
            let mut response = answer.await?;
            if *phases.borrow() >= Phase::Leaving {
                if is_http2 {
                    seen.goaway.notify_one();
                } else {
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
            }
            Ok(response)
        })
    }
}

#[cfg(test)]
mod tests;
