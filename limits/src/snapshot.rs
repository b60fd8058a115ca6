//! The whole state as bytes, made and read piece by piece: they are as large as the state.
//!
//! ```text
//! version: 1 byte | header length: u64 | header (postcard) | counters: u64 | each counter by id: 45 bytes
//!     | state hash: u128
//! ```
//! Integers are little-endian. The same state always gives the same bytes. The hash is over all that the state holds, so
//! there is no other checksum.

use std::hash::Hasher;
use std::sync::Arc;
use std::vec;

use serde::{Deserialize, Serialize};
use siphasher::sip128::{Hasher128, SipHasher13};

use crate::algorithm::CounterState;
use crate::buckets::{Buckets, StoredBuckets};
use crate::command::CounterId;
use crate::counters::Counters;
use crate::decide::Scene;
use crate::machine::StateMachine;
use crate::members::Members;
use crate::policy::{Algorithm, PolicyId};
use crate::policy_table::{PolicyTable, StoredTable};
use crate::sessions::{Sessions, StoredSessions};
use crate::settings::Settings;
use crate::shard::{Counter, Shard};
use crate::time::ClusterTime;

/// The version this code writes, and the only one it reads.
pub const VERSION: u8 = 1;

/// One counter: id, three words, policy, algorithm.
const COUNTER_BYTES: usize = 16 + 3 * 8 + 4 + 1;
/// Bytes in front of the header.
const START_BYTES: usize = 1 + 8;
/// The state hash behind the counters.
const HASH_BYTES: usize = 16;

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
    pub buckets: Buckets,
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
    buckets: StoredBuckets,
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
        self.buckets.hash(&mut hasher);
        hasher.write_u64(self.counters.len());
        hasher.write(&self.counters.sum().to_le_bytes());
        hasher.write(&self.counters.cursor().0);
        hasher.finish128().as_u128()
    }
}

/// The state at one instant, apart from the machine that goes on. Holds on to the shards of that instant until it is
/// dropped.
#[derive(Clone, Debug)]
pub struct Frozen(pub(crate) State);

impl Frozen {
    /// The state's bytes at once.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.clone().into_pieces(usize::MAX).flatten().collect()
    }

    /// The state's bytes in order, `piece_bytes` in each piece or a few more; policies, buckets and sessions are in the first, whatever
    /// they take. Counters are let go as their bytes are made: no change of theirs needs a copy any more.
    pub fn into_pieces(self, piece_bytes: usize) -> impl Iterator<Item = Vec<u8>> + Send + use<> {
        let Self(state) = self;
        let header = Header {
            settings: state.settings.clone(),
            now: state.now,
            feature_level: state.feature_level,
            sweep_pressed: state.sweep_pressed,
            cursor: state.counters.cursor(),
            table: state.table.to_stored(),
            sessions: state.sessions.to_stored(),
            members: state.members.clone(),
            buckets: state.buckets.to_stored(),
        };
        // Neither memory nor the types' own serialisation can fail.
        let header = postcard::to_stdvec(&header).unwrap_or_default();
        let mut begun = vec![VERSION];
        begun.extend((header.len() as u64).to_le_bytes());
        begun.extend(header);
        begun.extend(state.counters.len().to_le_bytes());
        let hash = Some(state.hash());
        Pieces { piece_bytes, begun, shards: state.counters.into_shards().into_iter(), shard: None, hash }
    }

    /// The hash of this state, as [`StateMachine::state_hash`] gave it then.
    #[must_use]
    pub fn state_hash(&self) -> u128 {
        self.0.hash()
    }
}

/// The bytes of a state that are still to be made.
struct Pieces {
    piece_bytes: usize,
    begun: Vec<u8>,
    shards: vec::IntoIter<Arc<Shard>>,
    /// The shard that is under way, and its next page.
    shard: Option<(Arc<Shard>, usize)>,
    hash: Option<u128>,
}

impl Iterator for Pieces {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        while self.begun.len() < self.piece_bytes {
            if let Some((shard, next)) = &mut self.shard
                && let Some(page) = shard.page(*next)
            {
                for counter in page {
                    encode_counter(counter, &mut self.begun);
                }
                *next += 1;
            } else if let Some(shard) = self.shards.next() {
                self.shard = Some((shard, 0));
            } else {
                self.shard = None;
                self.begun.extend(self.hash.take().into_iter().flat_map(u128::to_le_bytes));
                break;
            }
        }
        let piece = std::mem::take(&mut self.begun);
        if self.hash.is_some() {
            self.begun.reserve_exact(piece.len());
        }
        (!piece.is_empty()).then_some(piece)
    }
}

fn encode_counter(counter: &Counter, out: &mut Vec<u8>) {
    out.extend(counter.id.0);
    out.extend(counter.state.0.into_iter().flat_map(u64::to_le_bytes));
    out.extend(counter.policy.0.to_le_bytes());
    out.push(counter.algorithm as u8);
}

/// Puts a state machine together from the bytes of a [`Frozen`], as they come. Nothing is salvaged from damaged ones.
#[derive(Default)]
pub struct Decoder {
    /// What has come and is not read yet: less than is needed for the next step.
    ahead: Vec<u8>,
    /// All that has come.
    length: usize,
    stage: Stage,
    header: Option<Header>,
    counters: Counters,
    last: Option<CounterId>,
    hash: u128,
}

/// What comes next.
#[derive(Clone, Copy, Default)]
enum Stage {
    #[default]
    Start,
    Header(usize),
    Count,
    Counters(u64),
    Hash,
    End,
}

impl Stage {
    /// Bytes that its next step takes.
    fn bytes(self) -> usize {
        match self {
            Self::Start => START_BYTES,
            Self::Header(length) => length,
            Self::Count => 8,
            Self::Counters(0) | Self::End => 0,
            Self::Counters(_) => COUNTER_BYTES,
            Self::Hash => HASH_BYTES,
        }
    }
}

impl Decoder {
    /// Takes the bytes that follow.
    ///
    /// # Errors
    /// When they are of an unknown version or damaged; the decoder is of no use any more.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        if self.length == 0
            && let Some(version) = bytes.first().filter(|version| **version != VERSION)
        {
            return Err(SnapshotError::Version(*version));
        }
        self.length = self.length.saturating_add(bytes.len());
        self.ahead.extend_from_slice(bytes);
        let ahead = std::mem::take(&mut self.ahead);
        let mut rest = ahead.as_slice();
        while let Some((step, behind)) = rest.split_at_checked(self.stage.bytes()) {
            rest = behind;
            self.stage = match self.stage {
                Stage::Start => Stage::Header(usize::try_from(number(&step[1..])).unwrap_or(usize::MAX)),
                Stage::Header(_) => {
                    self.header = Some(decode_header(step)?);
                    Stage::Count
                }
                Stage::Count => Stage::Counters(number(step)),
                Stage::Counters(0) => Stage::Hash,
                Stage::Counters(left) => {
                    let counter = decode_counter(step)?;
                    if self.last.is_some_and(|last| last >= counter.id) {
                        return Err(SnapshotError::Content("counters out of order"));
                    }
                    self.last = Some(counter.id);
                    self.counters.put(counter);
                    Stage::Counters(left - 1)
                }
                Stage::Hash => {
                    self.hash = u128::from_le_bytes(array(step));
                    Stage::End
                }
                Stage::End if rest.is_empty() => break,
                Stage::End => return Err(SnapshotError::Content("bytes behind its end")),
            };
        }
        self.ahead = rest.to_vec();
        Ok(())
    }

    /// The state machine, after the last bytes.
    ///
    /// # Errors
    /// When bytes are missing or damaged.
    pub fn finish(self) -> Result<StateMachine, SnapshotError> {
        let (Stage::End, Some(header)) = (self.stage, self.header) else {
            return Err(SnapshotError::Truncated(self.length));
        };
        let mut counters = self.counters;
        counters.set_cursor(header.cursor);
        let state = State {
            settings: header.settings,
            now: header.now,
            feature_level: header.feature_level,
            sweep_pressed: header.sweep_pressed,
            table: Arc::new(PolicyTable::from_stored(header.table).map_err(SnapshotError::Content)?),
            sessions: Sessions::from_stored(header.sessions),
            members: header.members,
            buckets: Buckets::from_stored(header.buckets).map_err(SnapshotError::Content)?,
            counters,
        };
        if state.hash() == self.hash {
            Ok(StateMachine::from_state(state))
        } else {
            Err(SnapshotError::Content("the state hash differs"))
        }
    }
}

fn decode_header(bytes: &[u8]) -> Result<Header, SnapshotError> {
    match postcard::take_from_bytes(bytes) {
        Ok((header, [])) => Ok(header),
        Ok(_) => Err(SnapshotError::Content("bytes behind the header")),
        Err(_) => Err(SnapshotError::Content("the header cannot be read")),
    }
}

fn decode_counter(bytes: &[u8]) -> Result<Counter, SnapshotError> {
    let algorithm = match bytes[44] {
        0 => Algorithm::FixedWindow,
        1 => Algorithm::SlidingWindow,
        2 => Algorithm::TokenBucket,
        _ => return Err(SnapshotError::Content("an unknown algorithm")),
    };
    Ok(Counter {
        id: CounterId(array(&bytes[..16])),
        state: CounterState([number(&bytes[16..24]), number(&bytes[24..32]), number(&bytes[32..40])]),
        policy: PolicyId(u32::from_le_bytes(array(&bytes[40..44]))),
        algorithm,
    })
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(array(bytes))
}

/// As many bytes as are there by the stage's length.
fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(bytes);
    array
}

#[cfg(test)]
mod tests;
