//! Batches and outcomes as bytes: a version byte, then postcard.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::command::{Batch, PartOutcome};
use crate::time::ClusterTime;

/// The version this code writes, and the only one it reads, of batches and of outcomes.
pub const VERSION: u8 = 1;

/// Why bytes were refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// There was nothing.
    #[error("no bytes where a {0} was expected")]
    Empty(&'static str),
    /// Written by another release.
    #[error("a {what} of version {found}, this release reads version {VERSION}; run the release that wrote it")]
    Version {
        /// What was to be read.
        what: &'static str,
        /// The version found.
        found: u8,
    },
    /// Not the bytes of a batch or of outcomes.
    #[error("the bytes of a {what} cannot be read: {why}")]
    Malformed {
        /// What was to be read.
        what: &'static str,
        /// The decoder's reason.
        why: String,
    },
    /// More bytes than the value has.
    #[error("{extra} bytes behind the end of a {what}")]
    Trailing {
        /// What was read.
        what: &'static str,
        /// How many.
        extra: usize,
    },
}

const BATCH: &str = "batch";
const OUTCOMES: &str = "list of outcomes";

impl Batch {
    /// The batch's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let commands = self.parts.iter().map(|part| match part {
            crate::command::Part::Commands { commands, .. } => commands.len(),
            _ => 0,
        });
        encode(self, 64 + commands.sum::<usize>() * 32)
    }

    /// The batch from its bytes. Allocates at most a small multiple of their length.
    ///
    /// # Errors
    /// When the bytes are of an unknown version, are no batch, or more than one.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        decode(bytes, BATCH)
    }

    /// The stamp of an encoded batch, without a look at the rest; `None` when even that cannot be read.
    #[must_use]
    pub fn peek_stamp(bytes: &[u8]) -> Option<ClusterTime> {
        let (version, rest) = bytes.split_first()?;
        let stamp = postcard::take_from_bytes::<ClusterTime>(rest).ok()?.0;
        (*version == VERSION).then_some(stamp)
    }
}

/// The bytes of what a batch came to.
#[must_use]
pub fn encode_outcomes(outcomes: &[PartOutcome]) -> Vec<u8> {
    let commands = outcomes.iter().map(|outcome| match outcome {
        PartOutcome::Applied(outcomes) => outcomes.len(),
        _ => 0,
    });
    encode(outcomes, 16 + commands.sum::<usize>() * 24)
}

/// What a batch came to, from its bytes. Allocates at most a small multiple of their length.
///
/// # Errors
/// When the bytes are of an unknown version, are no list of outcomes, or more than one.
pub fn decode_outcomes(bytes: &[u8]) -> Result<Vec<PartOutcome>, CodecError> {
    decode(bytes, OUTCOMES)
}

fn encode<T: Serialize + ?Sized>(value: &T, capacity: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(capacity);
    bytes.push(VERSION);
    // Neither memory nor the types' own serialisation can fail.
    postcard::to_extend(value, bytes).unwrap_or_default()
}

fn decode<T: DeserializeOwned>(bytes: &[u8], what: &'static str) -> Result<T, CodecError> {
    let (version, rest) = bytes.split_first().ok_or(CodecError::Empty(what))?;
    if *version != VERSION {
        return Err(CodecError::Version { what, found: *version });
    }
    let (value, rest) =
        postcard::take_from_bytes(rest).map_err(|error| CodecError::Malformed { what, why: error.to_string() })?;
    if rest.is_empty() { Ok(value) } else { Err(CodecError::Trailing { what, extra: rest.len() }) }
}

#[cfg(test)]
mod tests;
