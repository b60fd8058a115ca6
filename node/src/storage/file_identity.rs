//! A node's identity in `node.json`.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::OpenError;
use super::replace_file::{remove_leftover, replace_file};
use super::{Identity, IdentityStore};

pub(super) const FILE: &str = "node.json";

/// The version of the whole data folder's layout.
const VERSION: u64 = 1;

/// No identity is longer; a damaged file may be.
const BYTES_MAX: u64 = 1 << 20;

/// An [`IdentityStore`] in a folder.
pub struct FileIdentityStore {
    path: PathBuf,
}

/// What the file holds.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u64,
    /// CRC-32 of the identity as compact JSON, in hex.
    checksum: String,
    identity: Identity,
}

/// The part that every version has.
#[derive(Deserialize)]
struct Versioned {
    version: u64,
}

impl FileIdentityStore {
    /// The identity in `folder`; removes what a crash left of a half written one.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn open(folder: &Path) -> Result<Self, OpenError> {
        let path = folder.join(FILE);
        remove_leftover(&path).map_err(|error| OpenError::io("clean up behind", &path, error))?;
        Ok(Self { path })
    }

    pub(super) fn read(&self) -> Result<Option<Identity>, OpenError> {
        let read = || -> io::Result<Vec<u8>> {
            let mut bytes = Vec::new();
            File::open(&self.path)?.take(BYTES_MAX).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = match read() {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(OpenError::io("read", &self.path, error)),
        };
        let damaged = |reason: String| OpenError::damaged(&self.path, None, reason);
        let Versioned { version } = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        if version != VERSION {
            return Err(OpenError::Version { path: self.path.clone(), found: version, known: VERSION });
        }
        let stored: Stored = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        if stored.checksum != checksum(&stored.identity).map_err(|error| damaged(error.to_string()))? {
            return Err(damaged("its checksum does not match; it must not be edited".to_owned()));
        }
        Ok(Some(stored.identity))
    }
}

impl IdentityStore for FileIdentityStore {
    fn load(&self) -> io::Result<Option<Identity>> {
        Ok(self.read()?)
    }

    fn save(&self, identity: &Identity) -> io::Result<()> {
        let stored = Stored { version: VERSION, checksum: checksum(identity)?, identity: identity.clone() };
        let mut text = serde_json::to_vec_pretty(&stored)?;
        text.push(b'\n');
        replace_file(&self.path, &text)
    }
}

fn checksum(identity: &Identity) -> io::Result<String> {
    Ok(format!("{:08x}", crc32fast::hash(&serde_json::to_vec(identity)?)))
}

#[cfg(test)]
mod tests;
