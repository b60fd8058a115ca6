//! The data folder as a whole: its lock, and whether its parts belong together.

use std::fs::{self, File, TryLockError};
use std::path::Path;
use std::sync::Arc;

use super::archive::archive;
use super::error::OpenError;
use super::file_identity::{self, FileIdentityStore};
use super::file_log::FileLog;
use super::file_snapshot::FileSnapshotStore;
use super::full::FolderSpace;
use super::log_tail::check_tail;
use super::replace_file::sync_folder_of;
use super::{Disk, LogState, LogStore};

const LOCK_FILE: &str = "LOCK";
const LOG_FOLDER: &str = "log";

/// Keeps a data folder to this process, until it is dropped.
#[derive(Debug)]
pub struct DirectoryLock {
    _file: File,
}

/// Locks the data folder `folder`, which exists.
///
/// # Errors
/// When another process holds it, or it cannot be written.
pub fn lock_directory(folder: &Path) -> Result<DirectoryLock, OpenError> {
    let path = folder.join(LOCK_FILE);
    let file = File::options().write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(|error| OpenError::io("open", &path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(DirectoryLock { _file: file }),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(folder.to_owned())),
        Err(TryLockError::Error(error)) => Err(OpenError::io("lock", &path, error)),
    }
}

impl Disk {
    /// Opens the data folder `folder` and makes it if it is not there. An empty one has no identity yet.
    ///
    /// # Errors
    /// When it is in use, cannot be written, is damaged, or when part of its files is gone. The message says which file
    /// and what to do.
    pub fn open(folder: &Path) -> Result<(Self, DirectoryLock), OpenError> {
        fs::create_dir_all(folder).map_err(|error| OpenError::io("make", folder, error))?;
        let lock = lock_directory(folder)?;
        let identity = FileIdentityStore::open(folder)?;
        if let Some(former) = identity.read()?.filter(|identity| identity.removed) {
            let archive = archive(folder, former.node, LOCK_FILE, file_identity::FILE)?;
            tracing::warn!(
                "this node was removed from its cluster as {:016x}; what it kept is put aside in {}, and it goes on as a \
                 new node",
                former.node,
                archive.display()
            );
        }
        let log_folder = folder.join(LOG_FOLDER);
        fs::create_dir_all(&log_folder).map_err(|error| OpenError::io("make", &log_folder, error))?;
        let snapshots = FileSnapshotStore::open(folder)?;
        let has_identity = identity.read()?.is_some();
        let has_records = check_tail(&log_folder)? > 0;
        let incomplete = |present, missing| {
            let folder = folder.to_owned();
            Err(OpenError::Incomplete { folder, present, missing })
        };
        if has_identity && !has_records {
            // The log is made, durably, before the identity: so it was there.
            return incomplete("node.json", "log");
        }
        let log = FileLog::open(&log_folder)?;
        let state = log.state();
        if !has_identity && (state != LogState::default() || snapshots.is_present()) {
            return incomplete("a log or a snapshot", "node.json");
        }
        if state.purged.is_some() && !snapshots.is_present() {
            return incomplete("a log that goes on behind a snapshot", "snapshot.bin");
        }
        for path in [&log_folder, folder] {
            sync_folder_of(path).map_err(|error| OpenError::io("sync the folder of", path, error))?;
        }
        let space = Arc::new(FolderSpace(folder.to_owned()));
        let disk = Self { space, log: Arc::new(log), snapshots: Arc::new(snapshots), identity: Arc::new(identity) };
        Ok((disk, lock))
    }
}

#[cfg(test)]
mod tests;
