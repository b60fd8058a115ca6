//! The way in over TCP.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::Service;
use super::frame::{self, Batch, FRAME_BYTES_MAX, FrameReader};

/// No more connections are kept; four lanes of many peers fit well.
const CONNECTIONS_MAX: usize = 1024;
/// No more frames of one connection are handled or wait to be answered; the others stay in the kernel's buffer.
const FRAMES_MAX: usize = 256;
/// A connection that did not say what it is by then is closed.
const PREFACE_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause after the system refused another connection, for want of file descriptors, say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Of a refused connection no more is read, and for no longer.
const DRAIN_BYTES_MAX: u64 = 1 << 20;
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
/// At about this size a batch is written before more is added.
const BATCH_BYTES: usize = 1 << 20;

/// Answers what comes in by `listener` until `shutdown` ends; then every connection is closed.
pub async fn serve(listener: TcpListener, service: Arc<dyn Service>, shutdown: impl Future<Output = ()> + Send) {
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            biased;
            () = &mut shutdown => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, from)) if connections.len() < CONNECTIONS_MAX => {
                connections.spawn(answer(stream, from, Arc::clone(&service)));
            }
            Ok((_, from)) => tracing::warn!(%from, "closed a connection: {CONNECTIONS_MAX} are open already"),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn answer(stream: TcpStream, from: SocketAddr, service: Arc<dyn Service>) {
    if let Err(error) = talk(stream, service).await {
        tracing::debug!(%from, %error, "connection ended");
    }
}

/// An answer on its way out. `None` closes the connection. The permit goes when it is written.
type Answer = (u64, Option<Bytes>, OwnedSemaphorePermit);

async fn talk(stream: TcpStream, service: Arc<dyn Service>) -> io::Result<()> {
    frame::tune(&stream)?;
    let (source, mut sink) = stream.into_split();
    let mut frames = FrameReader::new(source);
    let preface = timeout(PREFACE_TIMEOUT, frames.preface()).await.map_err(|_| io::ErrorKind::TimedOut)??;
    let checked = frame::check_preface(preface);
    // Ours goes out in any case: the other side then knows which version it met.
    sink.write_all(&frame::preface(*checked.as_ref().unwrap_or(&u8::MAX))).await?;
    if let Err(error) = checked {
        refuse(frames.into_source(), sink).await;
        return Err(error);
    }
    let (answers, queue) = mpsc::channel(FRAMES_MAX);
    tokio::select! {
        biased;
        written = write(sink, queue) => written,
        read = read(frames, service, answers) => read,
    }
}

/// Closes a connection so that the other side can read our preface: bytes left unread would make the kernel reset it.
async fn refuse(source: OwnedReadHalf, mut sink: OwnedWriteHalf) {
    let drain = async {
        sink.shutdown().await?;
        tokio::io::copy(&mut source.take(DRAIN_BYTES_MAX), &mut tokio::io::sink()).await
    };
    // Whether it worked is nobody's concern any more.
    let _ = timeout(DRAIN_TIMEOUT, drain).await;
}

/// Reads frames and has each handled by a task of its own.
async fn read(
    mut frames: FrameReader<OwnedReadHalf>,
    service: Arc<dyn Service>,
    answers: mpsc::Sender<Answer>,
) -> io::Result<()> {
    let permits = Arc::new(Semaphore::new(FRAMES_MAX));
    while let Some((call, frame)) = frames.next().await? {
        let permit = Arc::clone(&permits).acquire_owned().await.map_err(io::Error::other)?;
        let (service, answers) = (Arc::clone(&service), answers.clone());
        tokio::spawn(async move {
            let answer = service.handle(frame).await;
            // The connection may be gone.
            let _ = answers.send((call, answer, permit)).await;
        });
    }
    Ok(())
}

/// Writes answers, as many at once as there are.
async fn write(mut sink: OwnedWriteHalf, mut queue: mpsc::Receiver<Answer>) -> io::Result<()> {
    let mut batch = Batch::default();
    let mut permits = Vec::new();
    while let Some(first) = queue.recv().await {
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some((call, answer, permit)) = next {
            let answer = answer.ok_or_else(|| io::Error::other("a frame was none of ours"))?;
            if answer.len() > FRAME_BYTES_MAX {
                return Err(io::Error::other(format!("an answer of {} bytes is over the limit", answer.len())));
            }
            bytes += answer.len();
            batch.push(call, answer);
            permits.push(permit);
            next = if bytes < BATCH_BYTES { queue.try_recv().ok() } else { None };
        }
        batch.seal();
        sink.write_all_buf(&mut batch).await?;
        permits.clear();
    }
    Ok(())
}
