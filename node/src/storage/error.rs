//! Why a data folder could not be opened.

use std::io;
use std::path::{Path, PathBuf};

/// What to do with a node whose data cannot be trusted any more.
const REJOIN: &str = "this node must not vote with what it has. If the other members hold a quorum, start it with an \
                      empty DATA_DIR: it replaces its former self and copies the state from them";

/// Why a data folder, or a file in it, could not be opened. The message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the folder.
    #[error(
        "the data folder {} is in use by another process; stop that process, or set DATA_DIR to another folder",
        .0.display()
    )]
    InUse(PathBuf),
    /// The operating system refused.
    #[error("cannot {action} {}: {source}; check that the data folder exists, is writable and has space", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file holds what was not written there.
    #[error("{} is damaged{}: {reason}; {REJOIN}", .path.display(), at(*.offset))]
    Damaged {
        /// The file, or the folder when no file can be named.
        path: PathBuf,
        /// Where in it, in bytes.
        offset: Option<u64>,
        /// What is wrong.
        reason: String,
    },
    /// A file is of a version that this build does not know.
    #[error("{} has version {found}, this build knows {known}; run the version of the limiter that wrote it, or a later one", .path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: u64,
        /// What this build writes.
        known: u64,
    },
    /// Files of the folder are not of one piece.
    #[error("{} {reason}; put the folder back as it was. Otherwise {REJOIN}", .path.display())]
    Mixed {
        /// The file or folder that does not fit.
        path: PathBuf,
        /// How it does not.
        reason: String,
    },
    /// Part of the data is there and part is gone.
    #[error("the data folder {} holds {present} but no {missing}; {REJOIN}", .folder.display())]
    Incomplete {
        /// The data folder.
        folder: PathBuf,
        /// What is there.
        present: &'static str,
        /// What should be there too.
        missing: &'static str,
    },
}

fn at(offset: Option<u64>) -> String {
    offset.map_or_else(String::new, |offset| format!(" at offset {offset}"))
}

impl OpenError {
    pub(super) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { action, path: path.to_owned(), source }
    }

    pub(super) fn damaged(path: &Path, offset: impl Into<Option<u64>>, reason: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), offset: offset.into(), reason: reason.into() }
    }

    pub(super) fn path_not_text(path: &Path) -> Self {
        let reason = io::Error::new(io::ErrorKind::InvalidFilename, "its name is not valid UTF-8");
        Self::io("open", path, reason)
    }
}

impl From<OpenError> for io::Error {
    fn from(error: OpenError) -> Self {
        let kind = match &error {
            OpenError::Io { source, .. } => source.kind(),
            OpenError::InUse(_) => io::ErrorKind::ResourceBusy,
            OpenError::Damaged { .. }
            | OpenError::Version { .. }
            | OpenError::Mixed { .. }
            | OpenError::Incomplete { .. } => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, error)
    }
}
