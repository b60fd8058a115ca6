//! How nodes talk: one request frame, one answer frame, over one of a few lanes.
//!
//! Frames are opaque here; `consensus::wire` says what is in them, and every one names its cluster and target node.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;

mod frame;
mod server;
mod tcp;
#[cfg(test)]
mod tests;

pub use frame::{FRAME_BYTES_MAX, parse_stream};
pub use server::serve;
pub use tcp::TcpTransport;

/// Lanes have connections of their own, so that a big frame on one never delays another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Log replication.
    Log,
    /// Heartbeats, votes, and other small urgent frames.
    Control,
    /// Snapshots.
    Snapshot,
    /// Parts and reads on their way to the leader.
    Forward,
}

/// The way out. Dropping the future gives up the answer, not the request.
pub trait Transport: Send + Sync + 'static {
    /// Sends `frame` to `address` (`host:port`) and waits for its answer. It has no timeout; the caller sets one.
    fn call(&self, address: &str, lane: Lane, frame: Bytes) -> BoxFuture<'static, io::Result<Bytes>>;
}

/// The way in: answers every frame; `None` closes the connection it came by (it was no frame of ours).
pub trait Service: Send + Sync + 'static {
    /// Handles one frame. Called concurrently.
    fn handle(self: Arc<Self>, frame: Bytes) -> BoxFuture<'static, Option<Bytes>>;
}
