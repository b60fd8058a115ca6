//! The whole state as bytes.
//!
//! ```text
//! version: 1 byte | header length: u64 | header (postcard) | counters: u64 | each counter by id: 45 bytes
//!     | state hash: u128 | CRC-32 of everything before
//! ```
//! Integers are little-endian. The same state always gives the same bytes.

use std::hash::Hasher;
use std::io::{self, Write};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use siphasher::sip128::{Hasher128, SipHasher13};

use crate::algorithm::CounterState;
use crate::command::CounterId;
use crate::counters::Counters;
use crate::decide::Scene;
use crate::members::Members;
use crate::policy::{Algorithm, PolicyId};
use crate::policy_table::{PolicyTable, StoredTable};
use crate::sessions::{Sessions, StoredSessions};
use crate::settings::Settings;
use crate::shard::Counter;
use crate::time::ClusterTime;

/// The version this code writes, and the only one it reads.
pub const VERSION: u8 = 1;

/// One counter: id, three words, policy, algorithm.
const COUNTER_BYTES: usize = 16 + 3 * 8 + 4 + 1;
/// Bytes gathered before they are written.
const CHUNK_BYTES: usize = 64 * 1024;

/// Why a snapshot was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Written by another release.
    #[error("the snapshot has version {0}, this release reads version {VERSION}; run the release that wrote it")]
    Version(u8),
    /// Cut off, or not a snapshot at all.
    #[error("the snapshot ends after {0} bytes, in the middle of its content; fetch it from another member")]
    Truncated(usize),
    /// The bytes are not those that were written.
    #[error("the snapshot's checksum does not match its bytes; fetch it from another member")]
    Checksum,
    /// The checksum holds, yet the content contradicts itself: a fault of the program that wrote it.
    #[error("the snapshot contradicts itself ({0}); fetch it from another member")]
    Content(&'static str),
}

/// All of the replicated state. A clone shares everything large.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub settings: Settings,
    pub now: ClusterTime,
    pub feature_level: u32,
    /// Steps that a faster sweep has still to go because a new counter found no room.
    pub sweep_pressed: u64,
    pub table: Arc<PolicyTable>,
    pub sessions: Sessions,
    pub members: Members,
    pub counters: Counters,
}

#[derive(Serialize, Deserialize)]
struct Header {
    settings: Settings,
    now: ClusterTime,
    feature_level: u32,
    sweep_pressed: u64,
    cursor: CounterId,
    table: StoredTable,
    sessions: StoredSessions,
    members: Members,
}

impl State {
    pub fn scene(&self, now: ClusterTime) -> Scene<'_> {
        Scene { now, table: &self.table, counters: &self.counters, counters_max: self.settings.counters_max }
    }

    pub fn hash(&self) -> u128 {
        let mut hasher = SipHasher13::new();
        hasher.write(&self.settings.secret);
        hasher.write_u64(self.settings.counters_max);
        hasher.write_u64(self.now.0);
        hasher.write_u32(self.feature_level);
        hasher.write_u64(self.sweep_pressed);
        self.table.hash(&mut hasher);
        self.sessions.hash(&mut hasher);
        self.members.hash(&mut hasher);
        hasher.write_u64(self.counters.len());
        hasher.write(&self.counters.sum().to_le_bytes());
        hasher.write(&self.counters.cursor().0);
        hasher.finish128().as_u128()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let body_end = bytes.len().checked_sub(4);
        match (bytes.first(), body_end) {
            (Some(version), _) if *version != VERSION => return Err(SnapshotError::Version(*version)),
            (Some(_), Some(_)) => {}
            _ => return Err(SnapshotError::Truncated(bytes.len())),
        }
        let (body, crc) = bytes.split_at(body_end.unwrap_or(0));
        if crc32fast::hash(body).to_le_bytes() != crc {
            return Err(SnapshotError::Checksum);
        }
        let mut reader = Reader { rest: &body[1..], length: bytes.len() };
        let header_length = reader.u64()?;
        let header = reader.take(usize::try_from(header_length).unwrap_or(usize::MAX))?;
        let (header, rest) = postcard::take_from_bytes::<Header>(header)
            .map_err(|_| SnapshotError::Content("the header cannot be read"))?;
        if !rest.is_empty() {
            return Err(SnapshotError::Content("bytes behind the header"));
        }
        let counters = reader.counters(header.cursor)?;
        let hash = u128::from_le_bytes(reader.array()?);
        if !reader.rest.is_empty() {
            return Err(SnapshotError::Content("bytes behind the counters"));
        }
        let state = Self {
            settings: header.settings,
            now: header.now,
            feature_level: header.feature_level,
            sweep_pressed: header.sweep_pressed,
            table: Arc::new(PolicyTable::from_stored(header.table).map_err(SnapshotError::Content)?),
            sessions: Sessions::from_stored(header.sessions),
            members: header.members,
            counters,
        };
        if state.hash() == hash { Ok(state) } else { Err(SnapshotError::Content("the state hash differs")) }
    }
}

/// The state at one instant, apart from the machine that goes on. Holds on to the shards of that instant until it is
/// dropped.
#[derive(Clone, Debug)]
pub struct Frozen(pub(crate) State);

impl Frozen {
    /// The state's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes =
            Vec::with_capacity(usize::try_from(self.0.counters.len()).unwrap_or(0) * COUNTER_BYTES + CHUNK_BYTES);
        // Writing to memory cannot fail.
        let _ = self.write_to(&mut bytes);
        bytes
    }

    /// Writes the state's bytes as they are made, in chunks of some 64 KiB; only the policies and sessions are held in memory.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write_to(&self, writer: &mut impl Write) -> io::Result<()> {
        let state = &self.0;
        let header = Header {
            settings: state.settings.clone(),
            now: state.now,
            feature_level: state.feature_level,
            sweep_pressed: state.sweep_pressed,
            cursor: state.counters.cursor(),
            table: state.table.to_stored(),
            sessions: state.sessions.to_stored(),
            members: state.members.clone(),
        };
        let header = postcard::to_stdvec(&header).map_err(io::Error::other)?;
        let mut out = Checksummed { writer, crc: crc32fast::Hasher::new(), chunk: Vec::with_capacity(CHUNK_BYTES) };
        out.push(&[VERSION])?;
        out.push(&(header.len() as u64).to_le_bytes())?;
        out.push(&header)?;
        out.push(&state.counters.len().to_le_bytes())?;
        for counter in state.counters.iter() {
            out.push(&counter.id.0)?;
            for word in counter.state.0 {
                out.push(&word.to_le_bytes())?;
            }
            out.push(&counter.policy.0.to_le_bytes())?;
            out.push(&[counter.algorithm as u8])?;
        }
        out.push(&state.hash().to_le_bytes())?;
        out.finish()
    }

    /// The hash of this state, as [`crate::StateMachine::state_hash`] gave it then.
    #[must_use]
    pub fn state_hash(&self) -> u128 {
        self.0.hash()
    }
}

/// Gathers bytes into chunks and their checksum.
struct Checksummed<'a, W> {
    writer: &'a mut W,
    crc: crc32fast::Hasher,
    chunk: Vec<u8>,
}

impl<W: Write> Checksummed<'_, W> {
    fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.chunk.extend_from_slice(bytes);
        if self.chunk.len() >= CHUNK_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.crc.update(&self.chunk);
        self.writer.write_all(&self.chunk)?;
        self.chunk.clear();
        Ok(())
    }

    fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        self.writer.write_all(&self.crc.finalize().to_le_bytes())
    }
}

struct Reader<'a> {
    rest: &'a [u8],
    /// Of the whole snapshot, for the error.
    length: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], SnapshotError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(SnapshotError::Truncated(self.length))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], SnapshotError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u64(&mut self) -> Result<u64, SnapshotError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn counters(&mut self, cursor: CounterId) -> Result<Counters, SnapshotError> {
        let mut counters = Counters::default();
        let mut last = None;
        for _ in 0..self.u64()? {
            let id = CounterId(self.array()?);
            if last.is_some_and(|last| last >= id) {
                return Err(SnapshotError::Content("counters out of order"));
            }
            last = Some(id);
            let state = CounterState([self.u64()?, self.u64()?, self.u64()?]);
            let policy = PolicyId(u32::from_le_bytes(self.array()?));
            let algorithm = match self.array::<1>()? {
                [0] => Algorithm::FixedWindow,
                [1] => Algorithm::SlidingWindow,
                [2] => Algorithm::TokenBucket,
                _ => return Err(SnapshotError::Content("an unknown algorithm")),
            };
            counters.put(Counter { id, state, policy, algorithm });
        }
        counters.set_cursor(cursor);
        Ok(counters)
    }
}

#[cfg(test)]
mod tests;
