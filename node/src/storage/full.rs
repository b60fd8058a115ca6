//! Full disks, and those that are about to be.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

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

/// The room that a node keeps in reserve, and whether it has begun to use it.
#[derive(Debug)]
pub struct Room {
    reserve: u64,
    free: AtomicU64,
    short: AtomicBool,
}

impl Room {
    /// A reserve of so many bytes; without one (0) only a disk that is full is short of room.
    #[must_use]
    pub fn new(reserve: u64) -> Self {
        Self { reserve, free: AtomicU64::new(u64::MAX), short: AtomicBool::new(false) }
    }

    /// Takes note of how much is free, if that is known, and whether writes wait already. The reserve counts as whole again
    /// only with a quarter of it to spare, so that a node does not waver.
    pub fn note(&self, free: Option<u64>, writes_wait: bool) {
        self.free.store(free.unwrap_or(u64::MAX), Ordering::Relaxed);
        let wanted = if self.is_short() { self.reserve.saturating_add(self.reserve / 4) } else { self.reserve };
        self.short.store(writes_wait || free.is_some_and(|free| free < wanted), Ordering::Relaxed);
    }

    /// Whether less is free than the reserve.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.short.load(Ordering::Relaxed)
    }

    /// Bytes that are free, when that is known.
    #[must_use]
    pub fn free(&self) -> Option<u64> {
        Some(self.free.load(Ordering::Relaxed)).filter(|free| *free != u64::MAX)
    }

    /// Bytes in reserve.
    #[must_use]
    pub fn reserve(&self) -> u64 {
        self.reserve
    }
}

/// Bytes that the file system of `folder` can hold in all.
pub(super) fn size(folder: &Path) -> Option<u64> {
    let told = rustix::fs::statvfs(folder).ok()?;
    Some(told.f_blocks.saturating_mul(told.f_frsize))
}

/// Bytes that this process may still write below `folder`.
pub(super) fn free(folder: &Path) -> Option<u64> {
    let told = rustix::fs::statvfs(folder).ok()?;
    Some(told.f_bavail.saturating_mul(told.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_below_the_reserve_is_short_until_a_quarter_more_is_free() {
        let room = Room::new(1000);
        for (free, short) in [(1000, false), (999, true), (1100, true), (1249, true), (1250, false), (1000, false)] {
            room.note(Some(free), false);
            assert_eq!(room.is_short(), short, "{free} free");
        }
        room.note(None, false);
        assert_eq!((room.is_short(), room.free()), (false, None));
        room.note(Some(u64::MAX - 1), true);
        assert!(room.is_short(), "writes wait");
    }

    #[test]
    fn without_a_reserve_only_a_full_disk_is_short() {
        let room = Room::new(0);
        room.note(Some(0), false);
        assert!(!room.is_short());
        room.note(Some(0), true);
        assert!(room.is_short());
        room.note(Some(0), false);
        assert!(!room.is_short());
    }

    #[test]
    fn room_of_a_folder_is_told() {
        let folder = std::env::temp_dir();
        assert!(free(&folder).is_some_and(|free| free <= size(&folder).unwrap()));
        assert_eq!(free(&folder.join("not there")), None);
    }
}
