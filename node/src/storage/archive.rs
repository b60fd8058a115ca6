//! Putting aside what a removed node kept, so that the same folder can take a new node.
//!
//! Everything moves into `removed-<id>`, the identity last: as long as it says that the node was removed, a start goes on
//! where a crash came between.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::error::OpenError;
use super::replace_file::sync_folder_of;

/// Moves all of `folder` but `kept` and earlier archives into the archive of node `id`, and `last` after everything else.
pub(super) fn archive(folder: &Path, id: u64, kept: &str, last: &str) -> Result<PathBuf, OpenError> {
    let archive = folder.join(format!("removed-{id:016x}"));
    fs::create_dir_all(&archive).map_err(|error| OpenError::io("make", &archive, error))?;
    sync_folder_of(&archive).map_err(|error| OpenError::io("sync the folder of", &archive, error))?;
    let entries = fs::read_dir(folder).map_err(|error| OpenError::io("list", folder, error))?;
    for entry in entries {
        let name = entry.map_err(|error| OpenError::io("list", folder, error))?.file_name();
        let is_archive = name.as_encoded_bytes().starts_with(b"removed-");
        if name != kept && name != last && !is_archive {
            let path = folder.join(&name);
            fs::rename(&path, archive.join(&name)).map_err(|error| OpenError::io("archive", &path, error))?;
        }
    }
    let sync = |path: PathBuf| sync_folder_of(&path).map_err(|error| OpenError::io("sync the folder of", &path, error));
    sync(archive.join(last))?;
    let path = folder.join(last);
    match fs::rename(&path, archive.join(last)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(OpenError::io("archive", &path, error)),
        _ => {}
    }
    sync(archive.join(last))?;
    sync(path)?;
    Ok(archive)
}
