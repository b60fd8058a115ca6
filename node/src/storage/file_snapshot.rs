//! The last snapshot in a file.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::error::OpenError;
use super::replace_file::{remove_leftover, replace_file};
use super::{ProduceImage, SnapshotStore};
use crate::sync::lock;

const FILE: &str = "snapshot.bin";

/// The first bytes of a snapshot file.
const MAGIC: [u8; 8] = *b"QUORSNAP";

const VERSION: u32 = 1;

/// Magic, version (u32), length of the image (u64), its CRC-32 (u32), all little-endian; the image follows.
const HEADER_BYTES: usize = 24;

/// A [`SnapshotStore`] in a folder. Its work runs on tokio's blocking threads, one piece at a time.
pub struct FileSnapshotStore {
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    writing: Mutex<()>,
}

impl FileSnapshotStore {
    /// The snapshot in `folder`; removes what a crash left of a half written one.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn open(folder: &Path) -> Result<Self, OpenError> {
        let path = folder.join(FILE);
        remove_leftover(&path).map_err(|error| OpenError::io("clean up behind", &path, error))?;
        Ok(Self { shared: Arc::new(Shared { path, writing: Mutex::new(()) }) })
    }

    /// Whether there is a snapshot.
    pub(super) fn is_present(&self) -> bool {
        self.shared.path.exists()
    }
}

impl SnapshotStore for FileSnapshotStore {
    fn save(&self, produce: ProduceImage) -> BoxFuture<'static, io::Result<Bytes>> {
        let shared = self.shared.clone();
        blocking(move || {
            let image = produce();
            shared.save(&image)?;
            Ok(image.into())
        })
    }

    fn load(&self) -> BoxFuture<'static, io::Result<Option<Bytes>>> {
        let shared = self.shared.clone();
        blocking(move || Ok(shared.load()?))
    }
}

impl Shared {
    fn save(&self, image: &[u8]) -> io::Result<()> {
        let _one_at_a_time = lock(&self.writing);
        replace_file(&self.path, &[&header(image), image])
    }

    fn load(&self) -> Result<Option<Bytes>, OpenError> {
        let file = match fs::read(&self.path) {
            Ok(bytes) => Bytes::from(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(OpenError::io("read", &self.path, error)),
        };
        self.verify(&file)?;
        Ok(Some(file.slice(HEADER_BYTES..)))
    }

    fn verify(&self, file: &[u8]) -> Result<(), OpenError> {
        let damaged = |offset: u64, reason: String| Err(OpenError::damaged(&self.path, offset, reason));
        let Some((found, image)) = file.split_at_checked(HEADER_BYTES) else {
            return damaged(0, format!("it has {} bytes, fewer than its header", file.len()));
        };
        if found[..8] != MAGIC {
            return damaged(0, "it does not begin like a snapshot".to_owned());
        }
        let version = u32::from_le_bytes([found[8], found[9], found[10], found[11]]);
        if version != VERSION {
            let (found, known) = (u64::from(version), u64::from(VERSION));
            return Err(OpenError::Version { path: self.path.clone(), found, known });
        }
        let expected = header(image);
        if found[12..20] != expected[12..20] {
            return damaged(12, format!("its header tells of another length than {}, which it has", image.len()));
        }
        if found[20..] != expected[20..] {
            return damaged(HEADER_BYTES as u64, "its checksum does not match".to_owned());
        }
        Ok(())
    }
}

fn header(image: &[u8]) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[12..20].copy_from_slice(&(image.len() as u64).to_le_bytes());
    header[20..].copy_from_slice(&crc32fast::hash(image).to_le_bytes());
    header
}

fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> BoxFuture<'static, io::Result<T>> {
    async { tokio::task::spawn_blocking(work).await.map_err(io::Error::other)? }.boxed()
}

#[cfg(test)]
mod tests;
