//! Is the end of the log torn, or is the log damaged? Asked before the log is opened.
//!
//! A crash can leave a record half written: at the very end, and never acknowledged, so it may be cut off. Damage before
//! what was flushed, or with a valid record behind it, is something else: what was acknowledged is gone, and the node must
//! not vote with the rest.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use raft_log::RaftLogRecord;
use raft_log::chunked_wal::Config;
use raft_log::codeq::Decode;

use super::error::OpenError;
use super::flushed_mark::FlushedMark;
use super::log_codec::Kinds;
use super::log_replay::Replay;

/// The types of record that `raft-log` writes are numbered from 0 to this, in four bytes, at a record's start.
const RECORD_TYPE_MAX: u8 = 5;

/// A file of the log.
#[derive(Debug)]
pub(super) struct ChunkFile {
    pub path: PathBuf,
    /// Where in the whole log it begins; its name says so.
    pub start: u64,
}

/// Cuts a torn end off the log in `folder` and makes the rest durable, or says why the log must not be opened. Answers
/// where the log ends; 0 when there is no record.
pub(super) fn check_tail(folder: &Path) -> Result<u64, OpenError> {
    let chunks = chunk_files(folder)?;
    let mut replay = Replay::default();
    let mut end = chunks.first().map_or(0, |first| first.start);
    let mut torn = None;
    for (at, chunk) in chunks.iter().enumerate() {
        let bytes = read(chunk)?;
        let begins_anew = bytes.is_empty() || chunk.start != end;
        if begins_anew && has_no_record(&chunks[at..])? && valid_record_behind(&bytes, 0).is_none() {
            torn = Some((at, 0));
            break;
        }
        if chunk.start != end {
            let reason = format!("it begins at {} of the log, but the files before it end at {end}", chunk.start);
            return Err(OpenError::damaged(&chunk.path, 0, reason));
        }
        let (valid, damage) = scan(&bytes, &mut replay);
        end = chunk.start + valid as u64;
        match damage {
            None => sync(&chunk.path)?,
            Some(Damage::Misplaced(reason)) => {
                let reason = format!("it holds {reason}; is it from another log, or an older copy?");
                return Err(OpenError::damaged(&chunk.path, valid as u64, reason));
            }
            Some(Damage::Unreadable(reason)) => {
                let behind = match valid_record_behind(&bytes, valid) {
                    Some(offset) => Some(format!("offset {offset}")),
                    None => (!has_no_record(&chunks[at + 1..])?).then(|| "the next file".to_owned()),
                };
                if let Some(behind) = behind {
                    let reason = format!("{reason}, and valid records follow at {behind}, so it is not a torn end");
                    return Err(OpenError::damaged(&chunk.path, valid as u64, reason));
                }
                torn = Some((at, valid));
                break;
            }
        }
    }
    // A chunk file is made before its first record is written: without one it is no log yet.
    let end = if chunks.first().is_some_and(|first| first.start == end) { 0 } else { end };
    let flushed = FlushedMark::open(folder)?.read().unwrap_or(0);
    if end < flushed {
        let chunk = torn.map(|(at, _)| &chunks[at]).or(chunks.last());
        let (path, offset) = chunk.map_or((folder, 0), |chunk| (chunk.path.as_path(), end.saturating_sub(chunk.start)));
        let reason = format!("the log was flushed up to {flushed} of its bytes, and of these only {end} are good");
        return Err(OpenError::damaged(path, offset, reason));
    }
    if let Some((at, valid)) = torn {
        cut_off(&chunks[at..], valid)?;
    }
    sync(folder)?;
    Ok(end)
}

/// Cuts everything behind byte `end` of the log off, which was not flushed.
pub(super) fn cut_back(folder: &Path, end: u64) -> Result<(), OpenError> {
    let chunks = chunk_files(folder)?;
    let behind = chunks.partition_point(|chunk| chunk.start < end);
    let Some(last) = behind.checked_sub(1) else { return Ok(()) };
    let keep = usize::try_from(end - chunks[last].start).unwrap_or(usize::MAX);
    cut_off(&chunks[last..], keep)?;
    sync(folder)
}

/// Leaves `keep` bytes of the first of these files and nothing of the others.
fn cut_off(chunks: &[ChunkFile], keep: usize) -> Result<(), OpenError> {
    for (at, ChunkFile { path, .. }) in chunks.iter().enumerate().rev() {
        let keep = if at == 0 { keep } else { 0 };
        let length = fs::metadata(path).map_err(|error| OpenError::io("look at", path, error))?.len();
        if keep as u64 != length {
            let bytes = length - (keep as u64).min(length);
            tracing::warn!(file = %path.display(), offset = keep, bytes, "cutting a torn end off the log");
        }
        cut(path, keep)?;
    }
    Ok(())
}

/// The log's chunk files, in order.
pub(super) fn chunk_files(folder: &Path) -> Result<Vec<ChunkFile>, OpenError> {
    let list = || -> io::Result<Vec<ChunkFile>> {
        let mut chunks = Vec::new();
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if let Ok(start) = Config::parse_chunk_file_name(name) {
                chunks.push(ChunkFile { path, start });
            }
        }
        chunks.sort_by_key(|chunk| chunk.start);
        Ok(chunks)
    };
    list().map_err(|error| OpenError::io("list", folder, error))
}

fn read(chunk: &ChunkFile) -> Result<Vec<u8>, OpenError> {
    fs::read(&chunk.path).map_err(|error| OpenError::io("read", &chunk.path, error))
}

/// Why a chunk's records end before the chunk.
enum Damage {
    /// The next bytes are no record.
    Unreadable(io::Error),
    /// They are one, but it cannot stand there.
    Misplaced(String),
}

/// Bytes of good records from the start, and what is wrong behind them.
fn scan(bytes: &[u8], replay: &mut Replay) -> (usize, Option<Damage>) {
    let mut rest = bytes;
    loop {
        let valid = bytes.len() - rest.len();
        if rest.is_empty() {
            return (valid, None);
        }
        match RaftLogRecord::<Kinds>::decode(&mut rest) {
            Err(error) => return (valid, Some(Damage::Unreadable(error))),
            Ok(record) => {
                if let Err(reason) = replay.step(&record, valid == 0) {
                    return (valid, Some(Damage::Misplaced(reason)));
                }
            }
        }
    }
}

/// Whether no valid record is at the start of any of these files.
fn has_no_record(chunks: &[ChunkFile]) -> Result<bool, OpenError> {
    for chunk in chunks {
        if RaftLogRecord::<Kinds>::decode(&mut &read(chunk)?[..]).is_ok() {
            return Ok(false);
        }
    }
    Ok(true)
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
