//! How far the log was flushed, noted beside it after each flush.
//!
//! A record that was acknowledged and one that a crash tore look alike once they are damaged at the log's very end. The
//! mark tells them apart: what lies before it was flushed and must be there. It is written without a flush of its own, so
//! after a power failure it may lag; it is never ahead. A killed process leaves it exact. It takes no new space, so a full
//! disk does not hold it up.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::error::OpenError;

const FILE: &str = "flushed";

/// Magic, the offset behind the last flushed byte of the log (u64), CRC-32 of both (u32), all little-endian.
const BYTES: usize = 20;
const MAGIC: [u8; 8] = *b"QUORMARK";

/// The mark of one log.
#[derive(Debug)]
pub(super) struct FlushedMark {
    file: File,
}

impl FlushedMark {
    /// The mark in the log's folder; makes it if it is not there.
    pub(super) fn open(folder: &Path) -> Result<Self, OpenError> {
        let path = folder.join(FILE);
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        Ok(Self { file: file.map_err(|error| OpenError::io("open", &path, error))? })
    }

    /// The offset noted last; `None` when there is none, or it cannot be read: it is only a witness.
    pub(super) fn read(&self) -> Option<u64> {
        let mut bytes = [0; BYTES];
        self.file.read_exact_at(&mut bytes, 0).ok()?;
        let offset = u64::from_le_bytes(bytes[8..16].try_into().ok()?);
        (bytes == encode(offset)).then_some(offset)
    }

    /// Notes that the log is flushed up to `offset`.
    ///
    /// # Errors
    /// When it cannot be written; the mark then lags.
    pub(super) fn write(&self, offset: u64) -> io::Result<()> {
        self.file.write_all_at(&encode(offset), 0)
    }
}

fn encode(offset: u64) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..16].copy_from_slice(&offset.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..16]);
    bytes[16..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mark_written_is_read_again_and_a_damaged_one_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let mark = FlushedMark::open(folder.path()).unwrap();
        assert_eq!(mark.read(), None);
        for offset in [0, 77, u64::MAX] {
            mark.write(offset).unwrap();
            assert_eq!(FlushedMark::open(folder.path()).unwrap().read(), Some(offset));
        }
        let path = folder.path().join(FILE);
        let whole = std::fs::read(&path).unwrap();
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(FlushedMark::open(folder.path()).unwrap().read(), None, "bit {bit}");
        }
    }
}
