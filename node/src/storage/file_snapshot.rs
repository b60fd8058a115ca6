//! The last snapshot in a file.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::error::OpenError;
use super::full::is_full;
use super::replace_file::{remove_leftover, replace_file};
use super::{ProduceImage, SnapshotStore};
use crate::sync::lock;

const FILE: &str = "snapshot.bin";

/// The first bytes of a snapshot file.
const MAGIC: [u8; 8] = *b"QUORSNAP";

const VERSION: u32 = 1;

/// Magic, version (u32), length of the image (u64), the node it is kept by (u64), CRC-32 of all before it and the image
/// (u32), all little-endian; the image follows.
const HEADER_BYTES: usize = 32;

/// Between two tries to save one on a full disk.
const FULL_PAUSE: Duration = Duration::from_secs(1);

/// A [`SnapshotStore`] in a folder. Its work runs on tokio's blocking threads, one piece at a time.
pub struct FileSnapshotStore {
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    writing: Mutex<()>,
    /// The node it is kept by; 0 while that is not known.
    node: AtomicU64,
}

impl FileSnapshotStore {
    /// The snapshot in `folder`; removes what a crash left of a half written one.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn open(folder: &Path) -> Result<Self, OpenError> {
        let path = folder.join(FILE);
        remove_leftover(&path).map_err(|error| OpenError::io("clean up behind", &path, error))?;
        Ok(Self { shared: Arc::new(Shared { path, writing: Mutex::new(()), node: AtomicU64::new(0) }) })
    }

    /// Whether there is a snapshot.
    pub(super) fn is_present(&self) -> bool {
        self.shared.path.exists()
    }
}

impl SnapshotStore for FileSnapshotStore {
    fn bind(&self, node: u64) {
        self.shared.node.store(node, Ordering::Relaxed);
    }

    fn save(&self, produce: ProduceImage) -> BoxFuture<'static, io::Result<Bytes>> {
        let shared = self.shared.clone();
        async move {
            let image = blocking(move || Ok(Bytes::from(produce()))).await?;
            let mut waits = false;
            loop {
                let (shared, copy) = (shared.clone(), image.clone());
                match blocking(move || shared.save(&copy)).await {
                    Err(error) if is_full(&error) => {
                        if !std::mem::replace(&mut waits, true) {
                            tracing::error!(bytes = image.len(), "a snapshot waits for room on the full disk: {error}");
                        }
                        tokio::time::sleep(FULL_PAUSE).await;
                    }
                    saved => return saved.map(|()| image),
                }
            }
        }
        .boxed()
    }

    fn load(&self) -> BoxFuture<'static, io::Result<Option<Bytes>>> {
        let shared = self.shared.clone();
        blocking(move || Ok(shared.load()?))
    }
}

impl Shared {
    fn save(&self, image: &[u8]) -> io::Result<()> {
        let _one_at_a_time = lock(&self.writing);
        replace_file(&self.path, &[&header(self.node.load(Ordering::Relaxed), image), image])
    }

    fn load(&self) -> Result<Option<Bytes>, OpenError> {
        let failed = |error| OpenError::io("read", &self.path, error);
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let length = file.metadata().map_err(failed)?.len();
        let mut found = Vec::with_capacity(HEADER_BYTES);
        file.by_ref().take(HEADER_BYTES as u64).read_to_end(&mut found).map_err(failed)?;
        // Before any memory is taken for the image: a damaged file may be of any size.
        self.verify_header(&found, length)?;
        let mut image = Vec::new();
        file.read_to_end(&mut image).map_err(failed)?;
        self.verify_image(&found, &image)?;
        Ok(Some(image.into()))
    }

    fn verify_header(&self, found: &[u8], length: u64) -> Result<(), OpenError> {
        let damaged = |offset: u64, reason: String| Err(OpenError::damaged(&self.path, offset, reason));
        let Ok(found) = <[u8; HEADER_BYTES]>::try_from(found) else {
            return damaged(0, format!("it has {length} bytes, fewer than its header"));
        };
        if found[..8] != MAGIC {
            return damaged(0, "it does not begin like a snapshot".to_owned());
        }
        let version = u32::from_le_bytes([found[8], found[9], found[10], found[11]]);
        if version != VERSION {
            let (found, known) = (u64::from(version), u64::from(VERSION));
            return Err(OpenError::Version { path: self.path.clone(), found, known });
        }
        let image = length - HEADER_BYTES as u64;
        if found[12..20] != image.to_le_bytes() {
            return damaged(12, format!("its header tells of another length than {image}, which it has"));
        }
        Ok(())
    }

    fn verify_image(&self, found: &[u8], image: &[u8]) -> Result<(), OpenError> {
        let mut node = [0; 8];
        node.copy_from_slice(&found[20..28]);
        let node = u64::from_le_bytes(node);
        if found != header(node, image) {
            return Err(OpenError::damaged(&self.path, HEADER_BYTES as u64, "its checksum does not match"));
        }
        let mine = self.node.load(Ordering::Relaxed);
        if mine != 0 && node != mine {
            let reason = format!("is of node {node:016x}, but this folder is of node {mine:016x}");
            return Err(OpenError::Mixed { path: self.path.clone(), reason });
        }
        Ok(())
    }
}

fn header(node: u64, image: &[u8]) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[12..20].copy_from_slice(&(image.len() as u64).to_le_bytes());
    header[20..28].copy_from_slice(&node.to_le_bytes());
    let mut crc = crc32fast::Hasher::new();
    crc.update(&header[..28]);
    crc.update(image);
    header[28..].copy_from_slice(&crc.finalize().to_le_bytes());
    header
}

fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> BoxFuture<'static, io::Result<T>> {
    async { tokio::task::spawn_blocking(work).await.map_err(io::Error::other)? }.boxed()
}

#[cfg(test)]
mod tests;
