//! The way out over TCP: one connection for each address and lane, opened by the first call and again by the first
//! call after it broke.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use futures::future::{BoxFuture, FutureExt as _};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout};

use super::frame::{self, Batch, FRAME_BYTES_MAX, FrameReader, LANES};
use super::{Lane, Transport};
use crate::sync::lock;

/// How long a connection may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// After a failed connection, calls within this time fail at once.
const RECONNECT_PAUSE: Duration = Duration::from_millis(50);
/// No more calls wait on one connection.
const CALLS_MAX: usize = 4096;
/// No more bytes wait to be written to one connection; one frame is always taken.
const QUEUED_BYTES_MAX: usize = 32 << 20;
/// At about this size a batch is written before more is added.
const BATCH_BYTES: usize = 1 << 20;
/// Of one lane, connections to more addresses than this are not kept when they broke.
const CONNECTIONS_MAX: usize = 256;

/// Calls other nodes over TCP.
#[derive(Clone, Default)]
pub struct TcpTransport {
    lanes: Arc<[Mutex<ByAddress>; LANES]>,
}

/// The connections of one lane.
type ByAddress = HashMap<String, Arc<Connection>>;

impl TcpTransport {
    /// A transport without connections.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The connection to use: the one there is, or a new one when it broke a moment ago or earlier.
    fn connection(&self, address: &str, lane: Lane) -> Arc<Connection> {
        let mut connections = lock(&self.lanes[usize::from(lane.number())]);
        if let Some(connection) = connections.get(address)
            && !connection.may_be_replaced()
        {
            return Arc::clone(connection);
        }
        if connections.len() >= CONNECTIONS_MAX {
            // Addresses change; what broke long ago may never be asked for again.
            connections.retain(|_, connection| !connection.may_be_replaced());
        }
        let connection = Arc::new(Connection::new(address.to_owned()));
        connections.insert(address.to_owned(), Arc::clone(&connection));
        tokio::spawn(Arc::clone(&connection).run(lane));
        connection
    }
}

impl fmt::Debug for TcpTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpTransport").finish_non_exhaustive()
    }
}

impl Transport for TcpTransport {
    fn call(&self, address: &str, lane: Lane, frame: Bytes) -> BoxFuture<'static, io::Result<Bytes>> {
        let waiting = self.connection(address, lane).submit(frame);
        async move { waiting?.answer().await }.boxed()
    }
}

impl Drop for TcpTransport {
    fn drop(&mut self) {
        // The last handle closes what is open, so that no task outlives it.
        if Arc::strong_count(&self.lanes) == 1 {
            for lane in self.lanes.iter() {
                for (_, connection) in lock(lane).drain() {
                    connection.close(&io::Error::new(io::ErrorKind::ConnectionAborted, "this node shuts down"));
                }
            }
        }
    }
}

/// A connection from before it is open until it broke. Its task ends when it is closed.
struct Connection {
    address: String,
    state: Mutex<State>,
    /// Wakes the writer: there is something to write, or the connection was closed.
    wake: Notify,
}

#[derive(Default)]
struct State {
    calls: u64,
    waiting: HashMap<u64, oneshot::Sender<io::Result<Bytes>>>,
    queue: VecDeque<(u64, Bytes)>,
    queued_bytes: usize,
    broken: Option<Broken>,
}

/// Why and when a connection ended.
struct Broken {
    at: Instant,
    kind: io::ErrorKind,
    why: String,
}

impl Broken {
    fn error(&self) -> io::Error {
        io::Error::new(self.kind, self.why.clone())
    }
}

/// A call that waits; dropped, its answer is not awaited any more.
struct Waiting {
    connection: Arc<Connection>,
    call: u64,
    answer: oneshot::Receiver<io::Result<Bytes>>,
}

impl Waiting {
    async fn answer(mut self) -> io::Result<Bytes> {
        match (&mut self.answer).await {
            Ok(answer) => answer,
            Err(_) => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.connection.state().waiting.remove(&self.call);
    }
}

impl Connection {
    fn new(address: String) -> Self {
        Self { address, state: Mutex::default(), wake: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn may_be_replaced(&self) -> bool {
        self.state().broken.as_ref().is_some_and(|broken| broken.at.elapsed() >= RECONNECT_PAUSE)
    }

    /// Queues a call.
    fn submit(self: Arc<Self>, frame: Bytes) -> io::Result<Waiting> {
        if frame.len() > FRAME_BYTES_MAX {
            let why = format!("a frame of {} bytes for {} is over the limit of 64 MiB", frame.len(), self.address);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let (sender, answer) = oneshot::channel();
        let mut state = self.state();
        if let Some(broken) = &state.broken {
            return Err(broken.error());
        }
        let is_full = state.waiting.len() >= CALLS_MAX || state.queue.len() >= CALLS_MAX;
        let is_heavy = !state.queue.is_empty() && state.queued_bytes + frame.len() > QUEUED_BYTES_MAX;
        if is_full || is_heavy {
            let why = format!("too many calls to {} wait already; it is too slow or cannot be reached", self.address);
            return Err(io::Error::new(io::ErrorKind::WouldBlock, why));
        }
        let call = state.calls;
        state.calls += 1;
        state.waiting.insert(call, sender);
        state.queued_bytes += frame.len();
        state.queue.push_back((call, frame));
        drop(state);
        self.wake.notify_one();
        Ok(Waiting { connection: self, call, answer })
    }

    /// Fails every call that waits and every later one.
    fn close(&self, error: &io::Error) {
        let mut state = self.state();
        if state.broken.is_some() {
            return;
        }
        let broken =
            Broken { at: Instant::now(), kind: error.kind(), why: format!("connection to {}: {error}", self.address) };
        for (_, waiting) in state.waiting.drain() {
            // Nobody may be listening any more.
            let _ = waiting.send(Err(broken.error()));
        }
        state.queue.clear();
        state.queued_bytes = 0;
        state.broken = Some(broken);
        drop(state);
        self.wake.notify_one();
    }

    async fn run(self: Arc<Self>, lane: Lane) {
        let error = match self.talk(lane).await {
            Err(error) => error,
            Ok(()) => io::Error::new(io::ErrorKind::ConnectionReset, "the other side closed it"),
        };
        tracing::debug!(address = self.address, ?lane, %error, "connection ended");
        self.close(&error);
    }

    async fn talk(&self, lane: Lane) -> io::Result<()> {
        let opened = timeout(CONNECT_TIMEOUT, TcpStream::connect(&self.address)).await;
        let stream = opened.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "not opened within a second"))??;
        frame::tune(&stream)?;
        let (source, sink) = stream.into_split();
        tokio::select! {
            biased;
            read = self.read(source, lane) => read,
            written = self.write(sink, lane) => written,
        }
    }

    /// Hands out answers until the other side closes.
    async fn read(&self, source: OwnedReadHalf, lane: Lane) -> io::Result<()> {
        let mut frames = FrameReader::new(source);
        let echoed = frame::check_preface(frames.preface().await?)?;
        if echoed != lane.number() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the other side answered for another lane"));
        }
        while let Some((call, answer)) = frames.next().await? {
            let waiting = self.state().waiting.remove(&call);
            if let Some(waiting) = waiting {
                // Given up in this very moment, perhaps.
                let _ = waiting.send(Ok(answer));
            }
        }
        Ok(())
    }

    /// Writes what is queued, as much at once as there is, until the connection is closed.
    async fn write(&self, mut sink: OwnedWriteHalf, lane: Lane) -> io::Result<()> {
        sink.write_all(&frame::preface(lane.number())).await?;
        let mut batch = Batch::default();
        loop {
            if !self.fill(&mut batch)? {
                self.wake.notified().await;
                continue;
            }
            sink.write_all_buf(&mut batch).await?;
        }
    }

    /// Moves queued frames into the batch; whether there were any.
    fn fill(&self, batch: &mut Batch) -> io::Result<bool> {
        let mut state = self.state();
        if let Some(broken) = &state.broken {
            return Err(broken.error());
        }
        let mut bytes = 0;
        while bytes < BATCH_BYTES
            && let Some((call, frame)) = state.queue.pop_front()
        {
            bytes += frame.len();
            batch.push(call, frame);
        }
        state.queued_bytes -= bytes;
        batch.seal();
        Ok(batch.has_remaining())
    }
}
