//! The last snapshot in a file, and those that are to replace it beside it.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::error::OpenError;
use super::replace_file::sync_folder_of;
use super::{Image, SnapshotStore};
use crate::sync::lock;

const FILE: &str = "snapshot.bin";

/// Of files that are to replace it, with a number between.
const BESIDE: (&str, &str) = ("snapshot.", ".tmp");

/// The first bytes of a snapshot file.
const MAGIC: [u8; 8] = *b"QUORSNAP";

const VERSION: u32 = 1;

/// Magic, version (u32), length of the image (u64), the node it is kept by (u64), CRC-32 of all before it and the image
/// (u32), all little-endian; the image follows.
const HEADER_BYTES: usize = 32;

/// Read at once while a file is checked.
const CHECKED_BYTES: usize = 1 << 18;

/// A [`SnapshotStore`] in a folder. Its work runs on tokio's blocking threads.
pub struct FileSnapshotStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    /// Counts the files beside it.
    begun: AtomicU64,
    /// The node it is kept by; 0 while that is not known.
    node: AtomicU64,
    last: Mutex<Option<Arc<FileImage>>>,
}

/// An image in a file.
#[derive(Debug)]
struct FileImage {
    store: Arc<Shared>,
    /// Where it lies until it is kept.
    path: PathBuf,
    file: File,
    length: AtomicU64,
    crc: AtomicU32,
    /// The sum so far; held while the file is written.
    writing: Mutex<crc32fast::Hasher>,
    is_kept: AtomicBool,
}

impl FileSnapshotStore {
    /// The snapshot in `folder`; removes what a crash left of those that were to replace it.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn open(folder: &Path) -> Result<Self, OpenError> {
        let path = folder.join(FILE);
        remove_leftovers(folder).map_err(|error| OpenError::io("clean up behind", &path, error))?;
        let (begun, node, last) = (AtomicU64::new(0), AtomicU64::new(0), Mutex::new(None));
        Ok(Self { shared: Arc::new(Shared { path, begun, node, last }) })
    }

    /// Whether there is a snapshot.
    pub(super) fn is_present(&self) -> bool {
        self.shared.path.exists()
    }
}

fn remove_leftovers(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let is_leftover = entry.file_name().to_str().is_some_and(|name| {
            let number = name.strip_prefix(BESIDE.0).and_then(|rest| rest.strip_suffix(BESIDE.1));
            number.is_some_and(|number| number.bytes().all(|digit| digit.is_ascii_digit()))
        });
        if is_leftover {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

impl SnapshotStore for FileSnapshotStore {
    fn bind(&self, node: u64) {
        self.shared.node.store(node, Ordering::Relaxed);
    }

    fn begin(&self) -> BoxFuture<'static, io::Result<Arc<dyn Image>>> {
        let shared = Arc::clone(&self.shared);
        blocking(move || Ok(shared.begin()? as Arc<dyn Image>))
    }

    fn last(&self) -> BoxFuture<'static, io::Result<Option<Arc<dyn Image>>>> {
        let shared = Arc::clone(&self.shared);
        blocking(move || {
            let mut last = lock(&shared.last);
            if last.is_none() {
                *last = shared.load()?.map(Arc::new);
            }
            Ok(last.clone().map(|image| image as Arc<dyn Image>))
        })
    }
}

impl Shared {
    fn begin(self: &Arc<Self>) -> io::Result<Arc<FileImage>> {
        let number = self.begun.fetch_add(1, Ordering::Relaxed);
        let path = self.path.with_file_name(format!("{}{number}{}", BESIDE.0, BESIDE.1));
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        Ok(Arc::new(self.image(path, file, 0, crc32fast::Hasher::new(), false)))
    }

    fn image(
        self: &Arc<Self>,
        path: PathBuf,
        file: File,
        length: u64,
        crc: crc32fast::Hasher,
        kept: bool,
    ) -> FileImage {
        FileImage {
            store: Arc::clone(self),
            path,
            file,
            length: AtomicU64::new(length),
            crc: AtomicU32::new(crc.clone().finalize()),
            writing: Mutex::new(crc),
            is_kept: AtomicBool::new(kept),
        }
    }

    fn load(self: &Arc<Self>) -> Result<Option<FileImage>, OpenError> {
        let failed = |error| OpenError::io("read", &self.path, error);
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let length = file.metadata().map_err(failed)?.len();
        let mut found = Vec::with_capacity(HEADER_BYTES);
        file.by_ref().take(HEADER_BYTES as u64).read_to_end(&mut found).map_err(failed)?;
        let image_length = self.verify_header(&found, length)?;
        let mut crc = crc32fast::Hasher::new();
        let mut piece = vec![0; CHECKED_BYTES];
        loop {
            match file.read(&mut piece).map_err(failed)? {
                0 => break,
                count => crc.update(&piece[..count]),
            }
        }
        self.verify_image(&found, image_length, &crc)?;
        Ok(Some(self.image(self.path.clone(), file, image_length, crc, true)))
    }

    /// The image's length.
    fn verify_header(&self, found: &[u8], length: u64) -> Result<u64, OpenError> {
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
        Ok(image)
    }

    fn verify_image(&self, found: &[u8], length: u64, crc: &crc32fast::Hasher) -> Result<(), OpenError> {
        let mut node = [0; 8];
        node.copy_from_slice(&found[20..28]);
        let node = u64::from_le_bytes(node);
        if found != header(node, length, crc) {
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

impl Image for FileImage {
    fn length(&self) -> u64 {
        self.length.load(Ordering::Acquire)
    }

    fn checksum(&self) -> u32 {
        self.crc.load(Ordering::Acquire)
    }

    fn append(self: Arc<Self>, piece: Bytes) -> BoxFuture<'static, io::Result<()>> {
        blocking(move || self.write_behind(&piece))
    }

    fn read(self: Arc<Self>, offset: u64, length: usize) -> BoxFuture<'static, io::Result<Bytes>> {
        blocking(move || {
            let mut bytes = vec![0; length];
            self.file.read_exact_at(&mut bytes, HEADER_BYTES as u64 + offset)?;
            Ok(bytes.into())
        })
    }

    fn keep(self: Arc<Self>) -> BoxFuture<'static, io::Result<()>> {
        blocking(move || {
            let mut last = lock(&self.store.last);
            self.put_in_place()?;
            *last = Some(Arc::clone(&self));
            Ok(())
        })
    }
}

impl FileImage {
    /// Each piece is flushed by itself: what a disk has no room for shows at once and can be written again, and the log's
    /// flushes never wait for all of a snapshot.
    fn write_behind(&self, piece: &[u8]) -> io::Result<()> {
        let mut crc = lock(&self.writing);
        let length = self.length.load(Ordering::Acquire);
        let end = HEADER_BYTES as u64 + length;
        if let Err(error) = self.file.write_all_at(piece, end).and_then(|()| self.file.sync_data()) {
            // For the room; whatever is left is written over or cut off when it is kept.
            let _ = self.file.set_len(end);
            return Err(error);
        }
        crc.update(piece);
        self.crc.store(crc.clone().finalize(), Ordering::Release);
        self.length.store(length + piece.len() as u64, Ordering::Release);
        Ok(())
    }

    fn put_in_place(&self) -> io::Result<()> {
        let crc = lock(&self.writing);
        if !self.is_kept.load(Ordering::Acquire) {
            let length = self.length.load(Ordering::Acquire);
            self.file.set_len(HEADER_BYTES as u64 + length)?;
            self.file.write_all_at(&header(self.store.node.load(Ordering::Relaxed), length, &crc), 0)?;
            self.file.sync_all()?;
            fs::rename(&self.path, &self.store.path)?;
            self.is_kept.store(true, Ordering::Release);
        }
        sync_folder_of(&self.store.path)
    }
}

impl Drop for FileImage {
    fn drop(&mut self) {
        if !self.is_kept.load(Ordering::Acquire) {
            // What is left here is removed at the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn header(node: u64, length: u64, image: &crc32fast::Hasher) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[12..20].copy_from_slice(&length.to_le_bytes());
    header[20..28].copy_from_slice(&node.to_le_bytes());
    let mut crc = crc32fast::Hasher::new();
    crc.update(&header[..28]);
    crc.combine(image);
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
