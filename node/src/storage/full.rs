//! Full disks.

use std::io;
use std::path::{Path, PathBuf};

use super::Space;

/// Whether an error says that the disk, or what this user may write to it, is full.
#[must_use]
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The room in the file system of a folder.
pub(super) struct FolderSpace(pub PathBuf);

impl Space for FolderSpace {
    fn free(&self) -> Option<u64> {
        free(&self.0)
    }
}

/// Bytes that this process may still write below `folder`.
pub(super) fn free(folder: &Path) -> Option<u64> {
    let told = rustix::fs::statvfs(folder).ok()?;
    Some(told.f_bavail.saturating_mul(told.f_frsize))
}
