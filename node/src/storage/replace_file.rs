//! Replacing a small file as a whole: after a crash there is the old one or the new one.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Where a file is written before it takes the place of `path`.
fn temporary(path: &Path) -> PathBuf {
    path.with_extension("tmp")
}

/// Puts `bytes` in the place of `path`, durably.
pub(super) fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = temporary(path);
    write_and_sync(&temporary, bytes).inspect_err(|_| {
        // It may hold the room that the next try needs.
        let _ = fs::remove_file(&temporary);
    })?;
    fs::rename(&temporary, path)?;
    sync_folder_of(path)
}

fn write_and_sync(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Removes what a crash may have left of a replacement.
pub(super) fn remove_leftover(path: &Path) -> io::Result<()> {
    match fs::remove_file(temporary(path)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes the names in the folder that holds `path` durable.
pub(super) fn sync_folder_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}
