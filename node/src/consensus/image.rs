//! A snapshot's image: the membership and the position it reaches, then the state. It is as large as the state, so it goes
//! piece by piece, from the state to the disk, to another node, and back into a state.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use openraft::alias::{LogIdOf, SnapshotMetaOf, StoredMembershipOf};
use quorate_limits::{Decoder, StateMachine};
use serde::{Deserialize, Serialize};

use super::convert::{WireMembership, log_id_from_raft, log_id_to_raft};
use super::types::Types;
use super::wire;
use crate::platform::Platform;
use crate::storage::{Image, LogId, is_full};

/// The first byte of an image.
const VERSION: u8 = 1;
/// The version, and the length of the head.
const START_BYTES: usize = 1 + 4;
/// Between two tries on a full disk.
const FULL_PAUSE: Duration = Duration::from_secs(1);

/// What stands before the state.
#[derive(Serialize, Deserialize)]
pub struct Head {
    /// Everything up to here is in the state.
    pub last: Option<LogId>,
    membership_at: Option<LogId>,
    membership: WireMembership,
}

impl Head {
    /// The head of a state that reflects everything up to `last`.
    pub fn new<P: Platform>(last: Option<&LogIdOf<Types<P>>>, membership: &StoredMembershipOf<Types<P>>) -> Self {
        Self {
            last: last.map(log_id_from_raft::<P>),
            membership_at: membership.log_id().as_ref().map(log_id_from_raft::<P>),
            membership: WireMembership::from_raft(membership.membership()),
        }
    }

    /// What openraft wants to know of an image.
    ///
    /// # Errors
    /// When the membership contradicts itself.
    pub fn meta<P: Platform>(&self) -> io::Result<SnapshotMetaOf<Types<P>>> {
        Ok(SnapshotMetaOf::<Types<P>> {
            last_log_id: self.last.map(log_id_to_raft::<P>),
            last_membership: StoredMembershipOf::<Types<P>>::new(
                self.membership_at.map(log_id_to_raft::<P>),
                self.membership.clone().into_raft()?,
            ),
        })
    }

    /// The bytes before the state's.
    pub fn encode(&self) -> Vec<u8> {
        let head = wire::encode(self);
        let mut out = vec![VERSION];
        out.extend(u32::try_from(head.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend(head);
        out
    }

    /// The head of an image, and where the state begins.
    ///
    /// # Errors
    /// When it cannot be read or is of another version.
    pub async fn read(image: &Arc<dyn Image>) -> io::Result<(Self, u64)> {
        let start = read(image, 0, START_BYTES).await?;
        if start[0] != VERSION {
            return Err(invalid(format!(
                "snapshot: version {} is unknown to this build; run a newer version",
                start[0]
            )));
        }
        let length = u32::from_le_bytes([start[1], start[2], start[3], start[4]]) as usize;
        let head = wire::decode(&read(image, START_BYTES as u64, length).await?)?;
        Ok((head, (START_BYTES + length) as u64))
    }
}

/// Bytes that must be there; none are taken memory for that are not.
async fn read(image: &Arc<dyn Image>, offset: u64, length: usize) -> io::Result<bytes::Bytes> {
    if image.length() < offset + length as u64 {
        return Err(invalid("snapshot: too short"));
    }
    Arc::clone(image).read(offset, length).await
}

/// The state in an image, which begins at `offset`.
///
/// # Errors
/// When it cannot be read or is damaged.
pub async fn read_state(image: &Arc<dyn Image>, mut offset: u64, piece_bytes: usize) -> io::Result<StateMachine> {
    let damaged = |error| invalid(format!("snapshot: {error}"));
    let mut decoder = Decoder::default();
    while offset < image.length() {
        let piece = read(image, offset, piece_length(image, offset, piece_bytes)).await?;
        decoder.push(&piece).map_err(damaged)?;
        offset += piece.len() as u64;
    }
    decoder.finish().map_err(damaged)
}

/// How long the piece at `offset` is.
pub fn piece_length(image: &Arc<dyn Image>, offset: u64, piece_bytes: usize) -> usize {
    let left = image.length().saturating_sub(offset);
    usize::try_from(left).unwrap_or(usize::MAX).min(piece_bytes)
}

/// Reads an image through, since disks forget.
///
/// # Errors
/// When it is not what was written.
pub async fn verify(image: &Arc<dyn Image>, piece_bytes: usize) -> io::Result<()> {
    let mut crc = crc32fast::Hasher::new();
    let mut offset = 0;
    while offset < image.length() {
        let piece = read(image, offset, piece_length(image, offset, piece_bytes)).await?;
        crc.update(&piece);
        offset += piece.len() as u64;
    }
    if crc.finalize() == image.checksum() {
        Ok(())
    } else {
        Err(invalid("the snapshot on the disk is damaged; it cannot be sent before the next one is made"))
    }
}

/// Does something to an image, again and again while the disk is full.
///
/// # Errors
/// Any other failure of the disk.
pub async fn when_room<P: Platform, T>(
    mut write: impl FnMut() -> BoxFuture<'static, io::Result<T>> + Send,
) -> io::Result<T> {
    let mut waits = false;
    loop {
        match write().await {
            Err(error) if is_full(&error) => {
                if !std::mem::replace(&mut waits, true) {
                    tracing::error!("a snapshot waits for room on the full disk: {error}");
                }
                P::sleep(FULL_PAUSE).await;
            }
            done => return done,
        }
    }
}

/// What cannot be read.
pub fn invalid(reason: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.into())
}
