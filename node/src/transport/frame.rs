//! The bytes between two nodes: a preface when a connection opens, then frames, each way.
//!
//! A frame is its payload's length (u32) and the number of its call (u64), both big-endian, and the payload. An answer
//! carries the number of the call it answers.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::net::TcpStream;

use super::Lane;

/// No payload is larger.
pub const FRAME_BYTES_MAX: usize = 64 << 20;

/// How many lanes there are.
pub(super) const LANES: usize = 4;
/// A frame's length and call number.
const HEADER_BYTES: usize = 12;
/// Magic, version, lane.
pub(super) const PREFACE_BYTES: usize = 6;
const MAGIC: [u8; 4] = *b"QrTp";
pub(super) const VERSION: u8 = 1;
/// A payload up to this size is copied next to its header; a larger one is handed to the kernel where it lies.
const COPY_BYTES_MAX: usize = 16 << 10;
/// The buffer grows by this much, at least.
const READ_BYTES: usize = 64 << 10;
/// It grows when less than this is free. What was read may live on in frames, so the rest of a buffer is used up first.
const FREE_BYTES_MIN: usize = 8 << 10;
/// Data that nobody acknowledged for this long breaks the connection.
const SILENCE_MAX: Duration = Duration::from_secs(2);
/// An idle connection is probed this often.
const KEEPALIVE_PERIOD: Duration = Duration::from_secs(5);

/// What both sides send first. The server echoes the lane.
pub(super) fn preface(lane: u8) -> [u8; PREFACE_BYTES] {
    let [a, b, c, d] = MAGIC;
    [a, b, c, d, VERSION, lane]
}

/// Checks the other side's preface and gives its lane.
pub(super) fn check_preface(preface: [u8; PREFACE_BYTES]) -> io::Result<u8> {
    let [a, b, c, d, version, lane] = preface;
    if [a, b, c, d] != MAGIC {
        return Err(invalid("the other side is no node: it does not speak the nodes' protocol".into()));
    }
    if version != VERSION {
        return Err(invalid(format!(
            "the other side speaks transport version {version}, this node {VERSION}; run releases that go together"
        )));
    }
    Ok(lane)
}

impl Lane {
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Log => 0,
            Self::Control => 1,
            Self::Snapshot => 2,
            Self::Forward => 3,
        }
    }
}

fn invalid(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Sets what every connection needs. Small frames leave at once. A peer that is gone without a word is detected by the
/// kernel, which knows whether data arrives; so there are no pings of our own.
pub(super) fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE_PERIOD).with_interval(Duration::from_secs(1)))?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(SILENCE_MAX))?;
    Ok(())
}

/// Frames on their way out, as one buffer that the kernel takes in as few calls as possible.
#[derive(Default)]
pub(super) struct Batch {
    ready: VecDeque<Bytes>,
    /// Headers and small payloads, side by side.
    tail: BytesMut,
}

impl Batch {
    /// Adds a frame. The payload must not be larger than [`FRAME_BYTES_MAX`].
    pub(super) fn push(&mut self, call: u64, payload: Bytes) {
        debug_assert!(payload.len() <= FRAME_BYTES_MAX, "whoever made the frame checked its size");
        self.tail.put_u32(u32::try_from(payload.len()).unwrap_or(u32::MAX));
        self.tail.put_u64(call);
        if payload.len() <= COPY_BYTES_MAX {
            self.tail.extend_from_slice(&payload);
        } else {
            self.seal();
            self.ready.push_back(payload);
        }
    }

    /// Makes what was pushed readable.
    pub(super) fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.ready.push_back(self.tail.split().freeze());
        }
    }
}

impl Buf for Batch {
    fn remaining(&self) -> usize {
        self.ready.iter().map(Bytes::len).sum()
    }

    fn chunk(&self) -> &[u8] {
        self.ready.front().map_or(&[], |bytes| bytes)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        for (slice, bytes) in slices.iter_mut().zip(&self.ready) {
            *slice = IoSlice::new(bytes);
        }
        slices.len().min(self.ready.len())
    }

    fn advance(&mut self, mut count: usize) {
        while let Some(front) = self.ready.front_mut() {
            if count < front.len() {
                front.advance(count);
                return;
            }
            count -= front.len();
            self.ready.pop_front();
        }
    }
}

/// Reads frames.
pub(super) struct FrameReader<R> {
    source: R,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(super) fn new(source: R) -> Self {
        Self { source, buffer: BytesMut::new() }
    }

    /// Gives the source back; what was buffered is lost.
    pub(super) fn into_source(self) -> R {
        self.source
    }

    /// Reads the other side's preface.
    pub(super) async fn preface(&mut self) -> io::Result<[u8; PREFACE_BYTES]> {
        let mut preface = [0; PREFACE_BYTES];
        self.source.read_exact(&mut preface).await?;
        Ok(preface)
    }

    /// The next frame; `None` when the other side closed between two frames. Safe to cancel.
    pub(super) async fn next(&mut self) -> io::Result<Option<(u64, Bytes)>> {
        loop {
            let mut wanted = HEADER_BYTES;
            if let Some(mut header) = self.buffer.get(..HEADER_BYTES) {
                let length = header.get_u32() as usize;
                if length > FRAME_BYTES_MAX {
                    return Err(invalid(format!("the other side sent a frame of {length} bytes; 64 MiB is the limit")));
                }
                wanted += length;
                if self.buffer.len() >= wanted {
                    self.buffer.advance(4);
                    let call = self.buffer.get_u64();
                    return Ok(Some((call, self.buffer.split_to(length).freeze())));
                }
            }
            // The buffer only doubles, so that a length alone makes nobody allocate.
            let missing = wanted - self.buffer.len();
            if self.buffer.capacity() - self.buffer.len() < FREE_BYTES_MIN {
                self.buffer.reserve(missing.min(self.buffer.len()).max(READ_BYTES));
            }
            if self.source.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        }
    }
}

/// Reads a connection's bytes as its server does, to their end or to what is no frame.
pub fn parse_stream(bytes: &[u8]) {
    let mut reader = FrameReader::new(bytes);
    futures::executor::block_on(async {
        let Ok(preface) = reader.preface().await else { return };
        if check_preface(preface).is_ok() {
            while let Ok(Some(_)) = reader.next().await {}
        }
    });
}
