//! Is the end of the log torn, or is the log damaged? Asked before the log is opened.
//!
//! A crash can leave a record half written: at the very end, and never acknowledged, so it may be cut off. Damage with
//! a valid record behind it is something else: what was acknowledged is gone, and the node must not vote with the rest.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use raft_log::RaftLogRecord;
use raft_log::codeq::Decode;

use super::error::OpenError;
use super::log_codec::Kinds;

/// The types of record that `raft-log` writes are numbered from 0 to this, in four bytes, at a record's start.
const RECORD_TYPE_MAX: u8 = 5;

/// Where reading a chunk's records ended.
struct Scan {
    /// Bytes of valid records from the start.
    valid: usize,
    /// Why the next record is not valid, if there is one.
    damage: Option<io::Error>,
}

/// Cuts a torn end off the log in `folder` and makes the rest durable, or says why the log must not be opened. Answers
/// whether there is any record.
pub(super) fn check_tail(folder: &Path) -> Result<bool, OpenError> {
    let mut chunks = chunk_files(folder)?;
    // A chunk file is made before its first record is written. Without a valid record it is part of the torn end.
    let mut has_records = false;
    while let Some(path) = chunks.pop() {
        let bytes = fs::read(&path).map_err(|error| OpenError::io("read", &path, error))?;
        let Scan { valid, damage } = scan(&bytes);
        if let Some(damage) = damage {
            let behind = valid_record_behind(&bytes, valid);
            if has_records || behind.is_some() {
                let behind = behind.map_or("the next file".to_owned(), |offset| format!("offset {offset}"));
                let reason = format!("{damage}, and valid records follow at {behind}, so it is not a torn end");
                return Err(OpenError::damaged(&path, valid as u64, reason));
            }
            tracing::warn!(file = %path.display(), offset = valid, bytes = bytes.len() - valid, "cutting a torn end off the log");
            cut(&path, valid)?;
        } else {
            sync(&path)?;
        }
        has_records |= valid > 0;
    }
    sync(folder)?;
    Ok(has_records)
}

/// The log's chunk files, in order: their names are numbers of equal length.
pub(super) fn chunk_files(folder: &Path) -> Result<Vec<PathBuf>, OpenError> {
    let read = || -> io::Result<Vec<PathBuf>> {
        let mut chunks = Vec::new();
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "wal") {
                chunks.push(path);
            }
        }
        chunks.sort();
        Ok(chunks)
    };
    read().map_err(|error| OpenError::io("list", folder, error))
}

fn scan(bytes: &[u8]) -> Scan {
    let mut rest = bytes;
    loop {
        let valid = bytes.len() - rest.len();
        if rest.is_empty() {
            return Scan { valid, damage: None };
        }
        if let Err(damage) = RaftLogRecord::<Kinds>::decode(&mut rest) {
            return Scan { valid, damage: Some(damage) };
        }
    }
}

/// The offset of the first valid record behind the damage at `damaged`.
fn valid_record_behind(bytes: &[u8], damaged: usize) -> Option<usize> {
    // Zeros to the end are what an unwritten page looks like, and hold no record.
    let end = bytes.iter().rposition(|byte| *byte != 0)?;
    (damaged + 1..end).find(|offset| {
        let mut rest = &bytes[*offset..];
        matches!(rest, [0, 0, 0, kind, ..] if *kind <= RECORD_TYPE_MAX)
            && RaftLogRecord::<Kinds>::decode(&mut rest).is_ok()
    })
}

fn cut(path: &Path, length: usize) -> Result<(), OpenError> {
    let shorten = || -> io::Result<()> {
        if length == 0 {
            return fs::remove_file(path);
        }
        let file = OpenOptions::new().write(true).open(path)?;
        file.set_len(length as u64)?;
        file.sync_all()
    };
    shorten().map_err(|error| OpenError::io("cut the torn end off", path, error))
}

fn sync(path: &Path) -> Result<(), OpenError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(|error| OpenError::io("sync", path, error))
}
