//! Every crash point of the last writes, every flipped bit, every file gone or swapped, over the real files: a data folder
//! opens with all that was flushed, or says which file is wrong and what to do.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;

use tempfile::TempDir;

use super::file_identity::FileIdentityStore;
use super::file_log::FileLog;
use super::file_snapshot::FileSnapshotStore;
use super::*;

const NODE: u64 = 7;
/// Small, so that a short history goes over several files.
const CHUNK_BYTES_MAX: usize = 500;

/// All files of a folder, by their path in it.
type Files = BTreeMap<PathBuf, Vec<u8>>;

/// What a node finds when it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    log: LogState,
    records: Vec<Record>,
    image: Option<Bytes>,
    node: Option<u64>,
    boot: Option<u64>,
}

fn scratch() -> TempDir {
    // In memory where there is such a place: thousands of folders are opened.
    let builder = tempfile::Builder::new();
    builder.tempdir_in("/dev/shm").or_else(|_| builder.tempdir()).unwrap()
}

fn read_all(folder: &Path) -> Files {
    fn walk(top: &Path, folder: &Path, files: &mut Files) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(top, &path, files);
            } else if path.file_name().is_some_and(|name| name != "LOCK") {
                files.insert(path.strip_prefix(top).unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    let mut files = Files::new();
    walk(folder, folder, &mut files);
    files
}

fn write_all(folder: &Path, files: &Files) {
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder.join("log")).unwrap();
    for (path, bytes) in files {
        fs::write(folder.join(path), bytes).unwrap();
    }
}

fn block<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// What a start of the node does with the folder, or why it refuses.
fn start(folder: &Path, node: u64) -> Result<Found, String> {
    let text = |error: io::Error| error.to_string();
    let (disk, _lock) = Disk::open(folder).map_err(|error| error.to_string())?;
    let identity = disk.identity.load().map_err(text)?;
    let boot = identity.as_ref().map_or(1, |identity| identity.boot + 1);
    let node = identity.as_ref().map_or(node, |identity| identity.node);
    let (log, records) = (disk.log.state(), disk.log.read(0..u64::MAX, usize::MAX).map_err(text)?);
    disk.log.bind(node, boot).map_err(text)?;
    disk.snapshots.bind(node);
    let image = block(last(&*disk.snapshots)).map_err(text)?;
    let (node, boot) = (identity.as_ref().map(|identity| identity.node), identity.map(|identity| identity.boot));
    Ok(Found { log, records, image, node, boot })
}

async fn last(snapshots: &dyn SnapshotStore) -> io::Result<Option<Bytes>> {
    let Some(image) = snapshots.last().await? else { return Ok(None) };
    let length = usize::try_from(image.length()).unwrap();
    image.read(0, length).await.map(Some)
}

async fn keep(snapshots: &dyn SnapshotStore, bytes: &str) {
    let image = snapshots.begin().await.unwrap();
    image.clone().append(bytes.to_owned().into()).await.unwrap();
    image.keep().await.unwrap();
}

fn flush(log: &FileLog) {
    let (sender, receiver) = sync_channel(1);
    log.flush(Box::new(move |result| sender.send(result).unwrap()));
    receiver.recv().unwrap().unwrap();
}

fn records(term: u64, indexes: Range<u64>) -> Vec<Record> {
    let payload = |index| Bytes::from(format!("payload {index} of term {term}, and some more of it"));
    indexes.map(|index| Record { id: LogId { term, index }, payload: payload(index) }).collect()
}

/// A history: votes, appends over several files, a truncation, a purge, a snapshot replaced, an identity written again.
fn live(folder: &Path, node: u64, starts: u64) {
    fs::create_dir_all(folder.join("log")).unwrap();
    for boot in 1..=starts {
        let log = FileLog::open_with(&folder.join("log"), CHUNK_BYTES_MAX).unwrap();
        let snapshots = FileSnapshotStore::open(folder).unwrap();
        let identities = FileIdentityStore::open(folder).unwrap();
        log.bind(node, boot).unwrap();
        snapshots.bind(node);
        let (cluster, name) = (Some(ClusterId(5)), format!("node-{node}"));
        let address = Some("10.0.0.1:50001".to_owned());
        identities
            .save(&Identity { node, name, boot, cluster, address, refused: None, promise: None, removed: false })
            .unwrap();
        let begin = log.state().last.map_or(0, |last| last.index + 1);
        let id = |term, index| LogId { term, index: begin + index };
        log.save_vote(Vote { term: 2 * boot, node: 9, committed: false }).unwrap();
        log.save_vote(Vote { term: 2 * boot, node: 9, committed: true }).unwrap();
        log.append(records(2 * boot, begin..begin + 9)).unwrap();
        log.save_committed(id(2 * boot, 4)).unwrap();
        flush(&log);
        log.truncate_after(Some(id(2 * boot, 6))).unwrap();
        log.save_vote(Vote { term: 2 * boot + 1, node, committed: true }).unwrap();
        log.append(records(2 * boot + 1, begin + 7..begin + 14)).unwrap();
        flush(&log);
        block(keep(&snapshots, &format!("image of start {boot}")));
        log.purge(id(2 * boot, 3)).unwrap();
        flush(&log);
    }
}

/// A refusal names a file of the folder and tells what to do.
fn assert_helps(refusal: &str, folder: &Path, case: &str) {
    assert!(refusal.contains(&folder.display().to_string()), "{case}: no file: {refusal}");
    let remedies = ["start it with an empty DATA_DIR", "run the version of the limiter that wrote it"];
    assert!(remedies.iter().any(|remedy| refusal.contains(remedy)), "{case}: no remedy: {refusal}");
}

fn figure(line: &str) {
    use std::io::Write as _;
    // Past the test runner's capture: only the print macros are captured.
    let _ = writeln!(io::stderr().lock(), "figure: {line}");
}

#[derive(Default)]
struct Counts {
    started: u32,
    refused: u32,
}

impl Counts {
    /// Takes what a start came to: one of what is `right`, or a refusal that helps.
    fn take(&mut self, outcome: Result<Found, String>, right: &[Found], folder: &Path, case: &str) {
        match outcome {
            Ok(found) => {
                assert!(right.contains(&found), "{case}: started with {found:?}");
                self.started += 1;
            }
            Err(refusal) => {
                assert_helps(&refusal, folder, case);
                self.refused += 1;
            }
        }
    }
}

#[test]
fn every_flipped_bit_starts_with_the_right_state_or_is_refused() {
    let (top, scratch) = (scratch(), scratch());
    live(top.path(), NODE, 2);
    let files = read_all(top.path());
    let folder = scratch.path().join("data");
    write_all(&folder, &files);
    let right = [start(&folder, NODE).unwrap()];
    assert!(files.keys().filter(|path| path.extension().is_some_and(|kind| kind == "wal")).count() > 3);
    let (mut all, mut flips) = (Counts::default(), 0);
    for (path, bytes) in &files {
        let mut of_file = Counts::default();
        write_all(&folder, &files);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(folder.join(path), &flipped).unwrap();
            let started = of_file.started;
            let case = format!("bit {} of byte {} of {}", bit % 8, bit / 8, path.display());
            of_file.take(start(&folder, NODE), &right, &folder, &case);
            if of_file.started > started {
                // It went on from there.
                write_all(&folder, &files);
            } else if bit % 97 == 0 {
                assert!(fs::read(folder.join(path)).unwrap() == flipped, "{case}: a refused file is left as it is");
            }
            flips += 1;
        }
        let is_log = path.extension().is_some_and(|kind| kind == "wal");
        assert!(!is_log || of_file.started == 0, "a flipped bit of flushed records is never overlooked");
        all.started += of_file.started;
        all.refused += of_file.refused;
    }
    let Counts { started, refused } = all;
    figure(&format!("flipped bits: {flips} in {} files, {refused} refused, {started} started right", files.len()));
    assert!(refused > 0 && started > 0);
}

/// What stands on the disk when the writes behind `before` were interrupted.
#[derive(Clone, Copy, Debug)]
enum Tear {
    /// After so many bytes there is nothing.
    Cut,
    /// The length is there, the rest is zeros.
    Zeros,
    /// As `Cut`, and a page of zeros behind.
    Longer,
    /// The length is there, the rest is something else.
    Garbage,
    /// Only this byte is missing.
    Hole,
}

/// `files` with the log's new bytes torn at the `at`th of them.
fn torn(before: &Files, after: &Files, at: usize, tear: Tear) -> Files {
    let mut files = before.clone();
    let mut passed = 0;
    for (path, bytes) in after.iter().filter(|(path, _)| path.extension().is_some_and(|kind| kind == "wal")) {
        let old = before.get(path).map_or(0, Vec::len);
        let new = bytes.len() - old;
        let good = at.saturating_sub(passed).min(new);
        passed += new;
        let mut bytes = bytes.clone();
        match tear {
            Tear::Cut => bytes.truncate(old + good),
            Tear::Zeros => bytes[old + good..].fill(0),
            Tear::Garbage => {
                bytes[old + good..].iter_mut().enumerate().for_each(|(at, byte)| *byte ^= 0x5a ^ at.to_le_bytes()[0]);
            }
            Tear::Longer if good < new || (new > 0 && at == passed) => {
                bytes.truncate(old + good);
                bytes.resize(old + good + 4096, 0);
            }
            Tear::Longer => {}
            Tear::Hole => {
                if let Some(byte) = bytes.get_mut(old + good).filter(|_| good < new) {
                    *byte = 0;
                }
            }
        }
        let begun = before.contains_key(path) || good > 0 || !matches!(tear, Tear::Cut);
        if begun {
            files.insert(path.clone(), bytes);
        }
        if matches!(tear, Tear::Longer) && (good < new || (new > 0 && at == passed)) {
            break;
        }
    }
    files
}

#[test]
fn every_crash_point_of_the_last_writes_starts_with_all_that_was_flushed() {
    let (top, scratch) = (scratch(), scratch());
    live(top.path(), NODE, 2);
    let folder = scratch.path().join("data");
    let before = read_all(top.path());
    write_all(&folder, &before);
    let flushed = start(&folder, NODE).unwrap();
    // Written behind the last flush, one thing after the other; each may be the last that is left.
    let mut right = vec![flushed.clone()];
    {
        let log = FileLog::open_with(&top.path().join("log"), CHUNK_BYTES_MAX).unwrap();
        let mut note = |log: &FileLog| {
            let records = log.read(0..u64::MAX, usize::MAX).unwrap();
            right.push(Found { log: log.state(), records, ..flushed.clone() });
        };
        let last = log.state().last.unwrap();
        for record in records(8, last.index + 1..last.index + 7) {
            log.append(vec![record]).unwrap();
            note(&log);
        }
        log.save_committed(last).unwrap();
        note(&log);
        log.truncate_after(Some(LogId { term: 8, index: last.index + 2 })).unwrap();
        note(&log);
        log.save_vote(Vote { term: 9, node: 3, committed: true }).unwrap();
        note(&log);
        for record in records(9, last.index + 3..last.index + 7) {
            log.append(vec![record]).unwrap();
            note(&log);
        }
        // It is killed before the flush is reported.
    }
    let after = read_all(top.path());
    let new_files = after.keys().filter(|path| !before.contains_key(*path)).count();
    assert!(new_files > 0, "the writes go over the end of a file");
    let total: usize = after.values().map(Vec::len).sum::<usize>() - before.values().map(Vec::len).sum::<usize>();
    let mut points = 0;
    let mut all = Counts::default();
    for tear in [Tear::Cut, Tear::Zeros, Tear::Longer, Tear::Garbage, Tear::Hole] {
        let mut of_tear = Counts::default();
        for at in 0..=total {
            write_all(&folder, &torn(&before, &after, at, tear));
            of_tear.take(start(&folder, NODE), &right, &folder, &format!("{tear:?} at {at} of {total}"));
            points += 1;
        }
        // A crash must not lock a node out. Only bytes that no disk leaves behind may look like damage.
        assert!(matches!(tear, Tear::Garbage | Tear::Hole) || of_tear.refused == 0, "{tear:?}: {}", of_tear.refused);
        all.started += of_tear.started;
        all.refused += of_tear.refused;
    }
    let Counts { started, refused } = all;
    figure(&format!("crash points of the log: {points}, {started} started right, {refused} refused"));
}

#[test]
fn every_crash_point_of_a_replaced_identity_starts_with_the_old_one() {
    let (top, scratch) = (scratch(), scratch());
    live(top.path(), NODE, 1);
    let folder = scratch.path().join("data");
    let before = read_all(top.path());
    write_all(&folder, &before);
    let right = start(&folder, NODE);
    let whole = &before[Path::new("node.json")];
    for length in 0..=whole.len() {
        let mut files = before.clone();
        files.insert("node.tmp".into(), whole[..length].to_vec());
        write_all(&folder, &files);
        assert_eq!(start(&folder, NODE), right, "node.tmp of {length} bytes");
    }
    figure(&format!("crash points of the identity: {}, all started right", whole.len() + 1));
}

/// Two at a time: one that is made here, one that comes from another node.
#[test]
fn every_crash_point_of_snapshots_on_their_way_starts_with_the_old_one_until_a_new_one_is_kept() {
    let (top, scratch) = (scratch(), scratch());
    live(top.path(), NODE, 1);
    let folder = scratch.path().join("data");
    write_all(&folder, &read_all(top.path()));
    let old = start(&folder, NODE).unwrap();
    let snapshots = FileSnapshotStore::open(top.path()).unwrap();
    snapshots.bind(NODE);
    let (mut at, mut seen) = (old.clone(), read_all(top.path()));
    let mut points = 0;
    // The folder goes over from what was seen last to what it is now: each file by every length between, all of it zeros at
    // first, and then whole.
    let mut step = |after: Option<&str>| {
        let now = read_all(top.path());
        for (path, bytes) in now.iter().filter(|(path, bytes)| seen.get(*path) != Some(*bytes) && after.is_none()) {
            let before = seen.get(path).map_or(0, Vec::len);
            for length in before.min(bytes.len())..=bytes.len() {
                for zeros in [false, true] {
                    let mut torn = bytes[..length].to_vec();
                    if zeros {
                        torn[before.min(length)..].fill(0);
                    }
                    let mut files = seen.clone();
                    files.insert(path.clone(), torn);
                    write_all(&folder, &files);
                    assert_eq!(start(&folder, NODE), Ok(at.clone()), "{} of {length} bytes", path.display());
                    points += 1;
                }
            }
        }
        if let Some(image) = after {
            at.image = Some(Bytes::copy_from_slice(image.as_bytes()));
        }
        write_all(&folder, &now);
        assert_eq!(start(&folder, NODE), Ok(at.clone()));
        seen = now;
    };
    let made = block(snapshots.begin()).unwrap();
    step(None);
    let received = block(snapshots.begin()).unwrap();
    step(None);
    for piece in ["a first piece, ", "a second one"] {
        block(made.clone().append(piece.into())).unwrap();
        step(None);
        block(received.clone().append(piece.to_uppercase().into())).unwrap();
        step(None);
    }
    block(received.keep()).unwrap();
    step(Some("A FIRST PIECE, A SECOND ONE"));
    block(made.clone().append(", a third".into())).unwrap();
    step(None);
    block(made.keep()).unwrap();
    step(Some("a first piece, a second one, a third"));
    figure(&format!("crash points of two snapshots on their way: {points}, all started right"));
}

#[test]
fn each_file_gone_or_emptied_starts_with_the_right_state_or_is_refused() {
    let (top, scratch) = (scratch(), scratch());
    live(top.path(), NODE, 2);
    let files = read_all(top.path());
    let folder = scratch.path().join("data");
    write_all(&folder, &files);
    let right = [start(&folder, NODE).unwrap()];
    let mut counts = Counts::default();
    for path in files.keys() {
        for emptied in [false, true] {
            let mut fewer = files.clone();
            fewer.remove(path);
            if emptied {
                fewer.insert(path.clone(), Vec::new());
            }
            write_all(&folder, &fewer);
            let case = format!("{} gone (or emptied: {emptied})", path.display());
            counts.take(start(&folder, NODE), &right, &folder, &case);
        }
    }
    let mut no_log = files.clone();
    no_log.retain(|path, _| !path.starts_with("log"));
    write_all(&folder, &no_log);
    counts.take(start(&folder, NODE), &right, &folder, "the log's folder gone");
    figure(&format!("files gone or emptied: {} refused, {} started right", counts.refused, counts.started));
    assert_eq!(counts.started, 2, "only the mark can be missed");
}

#[test]
fn files_of_other_folders_and_other_times_are_refused() {
    let (top, foreign, earlier, scratch) = (scratch(), scratch(), scratch(), scratch());
    live(top.path(), NODE, 4);
    live(foreign.path(), NODE + 1, 4);
    live(earlier.path(), NODE, 2);
    let (files, foreign, earlier) = (read_all(top.path()), read_all(foreign.path()), read_all(earlier.path()));
    let folder = scratch.path().join("data");
    let mut counts = Counts::default();
    let mut refuse = |files: &Files, case: &str| {
        write_all(&folder, files);
        let outcome = start(&folder, NODE);
        assert!(outcome.is_err(), "{case}: {outcome:?}");
        counts.take(outcome, &[], &folder, case);
    };
    let is_log = |path: &Path| path.starts_with("log");
    for (name, other) in [("another node", &foreign), ("an earlier time", &earlier)] {
        let log: Files = files
            .iter()
            .filter(|(path, _)| !is_log(path))
            .chain(other.iter().filter(|(path, _)| is_log(path)))
            .map(clone)
            .collect();
        refuse(&log, &format!("the log of {name}"));
        let mut identity = files.clone();
        identity.insert("node.json".into(), other[Path::new("node.json")].clone());
        refuse(&identity, &format!("the identity of {name}"));
    }
    let mut snapshot = files.clone();
    snapshot.insert("snapshot.bin".into(), foreign[Path::new("snapshot.bin")].clone());
    refuse(&snapshot, "the snapshot of another node");
    let chunks: Vec<&PathBuf> =
        files.keys().filter(|path| path.extension().is_some_and(|kind| kind == "wal")).collect();
    for (at, one) in chunks.iter().enumerate() {
        for other in &chunks[at + 1..] {
            let mut swapped = files.clone();
            swapped.insert((*one).clone(), files[*other].clone());
            swapped.insert((*other).clone(), files[*one].clone());
            refuse(&swapped, &format!("{} and {} swapped", one.display(), other.display()));
        }
    }
    figure(&format!("files of other folders and times, and swapped: {} refused, none started", counts.refused));
}

fn clone((path, bytes): (&PathBuf, &Vec<u8>)) -> (PathBuf, Vec<u8>) {
    (path.clone(), bytes.clone())
}
