//! A snapshot on its way in, piece by piece into a file. One at a time: that of the latest leader.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Mutex;

use super::wire::SnapshotPiece;
use crate::storage::{Image, SnapshotStore, Vote};

/// The largest snapshot a node takes in.
const LENGTH_MAX: u64 = 4 << 30;

/// Takes snapshots in.
pub struct Receiver {
    store: Arc<dyn SnapshotStore>,
    incoming: Mutex<Option<Incoming>>,
}

struct Incoming {
    from: u64,
    vote: Vote,
    total: u64,
    crc: u32,
    image: Arc<dyn Image>,
}

/// What a piece came to.
#[derive(Debug)]
pub enum Received {
    /// The piece at this offset is wanted next; 0 begins anew.
    Wanted(u64),
    /// It was the last one.
    Whole(Arc<dyn Image>),
    /// The sender leads no more: another one sends under this vote.
    Outvoted(Vote),
}

impl Receiver {
    /// A receiver into `store`.
    pub fn new(store: Arc<dyn SnapshotStore>) -> Self {
        Self { store, incoming: Mutex::default() }
    }

    /// Takes a piece; one out of order names the offset wanted instead.
    ///
    /// # Errors
    /// When it is too large or the disk fails; all that came so far is gone then.
    pub async fn take(&self, from: u64, piece: SnapshotPiece) -> io::Result<Received> {
        // Held while it is written: pieces that are sent again wait for their turn.
        let mut incoming = self.incoming.lock().await;
        if let Some(other) = incoming.as_ref().filter(|other| piece.vote.term < other.vote.term) {
            return Ok(Received::Outvoted(other.vote));
        }
        if piece.total > LENGTH_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        if piece.offset == 0 {
            // What came before is let go first, for its room.
            *incoming = None;
            let image = self.store.begin().await?;
            *incoming = Some(Incoming { from, vote: piece.vote, total: piece.total, crc: piece.crc, image });
        }
        let is_same =
            |of: &&Incoming| (of.from, of.vote, of.total, of.crc) == (from, piece.vote, piece.total, piece.crc);
        let Some(Incoming { image, .. }) = incoming.as_ref().filter(is_same) else { return Ok(Received::Wanted(0)) };
        let image = Arc::clone(image);
        if image.length() != piece.offset {
            return Ok(Received::Wanted(image.length()));
        }
        let end = piece.offset + piece.bytes.len() as u64;
        let appended = if end > piece.total {
            Err(io::ErrorKind::InvalidData.into())
        } else {
            Arc::clone(&image).append(Bytes::from(piece.bytes)).await
        };
        if appended.is_err() || end == piece.total {
            *incoming = None;
        }
        appended?;
        Ok(if end < piece.total {
            Received::Wanted(end)
        } else if image.checksum() == piece.crc {
            Received::Whole(image)
        } else {
            Received::Wanted(0)
        })
    }
}

#[cfg(test)]
mod tests;
