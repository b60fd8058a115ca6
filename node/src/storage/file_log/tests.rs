use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
use crate::storage::log_tail::chunk_files;

const REMEDY: &str = "this node must not vote with what it has. If the other members hold a quorum, start it with an \
                      empty DATA_DIR: it replaces its former self and copies the state from them";

const VOTE: Vote = Vote { term: 2, node: 7, committed: true };

fn record(index: u64) -> Record {
    Record { id: LogId { term: 2, index }, payload: format!("payload of {index}").into() }
}

fn records(indexes: Range<u64>) -> Vec<Record> {
    indexes.map(record).collect()
}

fn all(log: &FileLog) -> Vec<Record> {
    log.read(0..u64::MAX, usize::MAX).unwrap()
}

fn flush(log: &FileLog) {
    let (sender, receiver) = sync_channel(1);
    log.flush(Box::new(move |result| sender.send(result).unwrap()));
    receiver.recv().unwrap().unwrap();
}

/// A folder with a log of ten records, and the one file that holds it.
fn written() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let log = FileLog::open(folder.path()).unwrap();
    log.save_vote(VOTE).unwrap();
    log.append(records(0..10)).unwrap();
    drop(log);
    let [chunk] = <[_; 1]>::try_from(chunk_files(folder.path()).unwrap()).unwrap();
    (folder, chunk.path)
}

/// Bytes of the last record in a file, as `raft-log` writes it: type, position, length, payload, checksum.
fn record_bytes(record: &Record) -> usize {
    4 + 16 + 4 + record.payload.len() + 8
}

fn refusal(folder: &TempDir) -> String {
    match FileLog::open(folder.path()) {
        Ok(log) => panic!("opened with {:?}", log.state()),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_log_reopened_holds_all_it_held() {
    let folder = tempfile::tempdir().unwrap();
    let log = FileLog::open(folder.path()).unwrap();
    log.append(records(0..8)).unwrap();
    log.truncate_after(Some(LogId { term: 2, index: 5 })).unwrap();
    log.purge(LogId { term: 2, index: 1 }).unwrap();
    log.save_committed(LogId { term: 2, index: 4 }).unwrap();
    log.save_vote(VOTE).unwrap();
    let state = log.state();
    drop(log);
    let log = FileLog::open(folder.path()).unwrap();
    assert_eq!(log.state(), state);
    assert_eq!(all(&log), records(2..6));
    log.append(records(6..9)).unwrap();
    flush(&log);
    drop(log);
    assert_eq!(all(&FileLog::open(folder.path()).unwrap()), records(2..9));
}

#[test]
fn a_log_purged_behind_its_end_goes_on_there_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let log = FileLog::open(folder.path()).unwrap();
    log.append(records(0..3)).unwrap();
    log.purge(LogId { term: 2, index: 9 }).unwrap();
    drop(log);
    let log = FileLog::open(folder.path()).unwrap();
    assert_eq!(log.state().last, Some(LogId { term: 2, index: 9 }));
    log.append(records(10..12)).unwrap();
    drop(log);
    assert_eq!(all(&FileLog::open(folder.path()).unwrap()), records(10..12));
}

#[test]
fn a_log_of_many_files_is_read_back_and_purged_file_by_file() {
    let folder = tempfile::tempdir().unwrap();
    let log = FileLog::open_with(folder.path(), 1024).unwrap();
    log.append(records(0..200)).unwrap();
    flush(&log);
    assert!(chunk_files(folder.path()).unwrap().len() > 5);
    assert_eq!(all(&log), records(0..200));
    drop(log);
    let log = FileLog::open_with(folder.path(), 1024).unwrap();
    assert_eq!(all(&log), records(0..200));
    log.purge(LogId { term: 2, index: 198 }).unwrap();
    flush(&log);
    drop(log);
    assert!(chunk_files(folder.path()).unwrap().len() <= 2, "files of purged records are still there");
    assert_eq!(all(&FileLog::open_with(folder.path(), 1024).unwrap()), records(199..200));
}

#[test]
fn files_of_purged_records_are_held_open_until_they_are_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let log = FileLog::open_with(folder.path(), 1024).unwrap();
    log.append(records(0..200)).unwrap();
    flush(&log);
    let held = || log.shared.inner.read().unwrap().leaving.count();
    assert_eq!(held(), 0);
    log.purge(LogId { term: 2, index: 198 }).unwrap();
    assert!(held() > 5, "{}", held());
    // They are deleted behind a first flush, and so before a second.
    flush(&log);
    flush(&log);
    assert_eq!(held(), 0, "they take room until they are closed");
    assert!(chunk_files(folder.path()).unwrap().len() <= 2);
}

/// As it stands while what is behind is being written.
fn mark(folder: &TempDir, flushed: usize) {
    FlushedMark::open(folder.path()).unwrap().write(flushed as u64).unwrap();
}

#[test]
fn a_torn_last_record_is_cut_off() {
    let (folder, file) = written();
    let whole = fs::read(&file).unwrap();
    let flushed = whole.len() - record_bytes(&record(9));
    for missing in 1..=record_bytes(&record(9)) {
        for filling in [0, 3, 5000] {
            let mut torn = whole[..whole.len() - missing].to_vec();
            torn.resize(torn.len() + filling, 0);
            fs::write(&file, &torn).unwrap();
            mark(&folder, flushed);
            let log = FileLog::open(folder.path()).unwrap();
            assert_eq!(all(&log), records(0..9), "{missing} bytes missing, {filling} zeros behind");
            assert_eq!(log.state().vote, Some(VOTE));
            log.append(vec![record(9)]).unwrap();
            drop(log);
            assert_eq!(fs::read(&file).unwrap(), whole);
        }
    }
}

#[test]
fn a_damaged_last_record_is_cut_off_only_if_it_was_not_flushed() {
    let (folder, file) = written();
    let mut bytes = fs::read(&file).unwrap();
    let last = bytes.len() - record_bytes(&record(9));
    bytes[last + 30] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let refusal = refusal(&folder);
    assert!(
        refusal.starts_with(&format!("{} is damaged at offset {last}: the log was flushed", file.display())),
        "{refusal}"
    );
    assert!(refusal.ends_with(REMEDY), "{refusal}");
    mark(&folder, last);
    assert_eq!(all(&FileLog::open(folder.path()).unwrap()), records(0..9));
}

#[test]
fn a_log_that_lost_its_flushed_end_refuses_to_open() {
    let (folder, file) = written();
    let bytes = fs::read(&file).unwrap();
    // At the end of a record, where nothing looks torn.
    fs::write(&file, &bytes[..bytes.len() - record_bytes(&record(9))]).unwrap();
    assert!(refusal(&folder).contains("the log was flushed up to"));
    fs::remove_file(&file).unwrap();
    assert!(refusal(&folder).contains("and of these only 0 are good"));
}

#[test]
fn a_log_tied_to_another_node_or_another_start_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let log = FileLog::open(folder.path()).unwrap();
    log.bind(7, 1).unwrap();
    // Nothing was written yet: the identity may have been lost before it was on the disk.
    log.bind(8, 1).unwrap();
    log.append(records(0..1)).unwrap();
    let refusal = log.bind(7, 2).unwrap_err().to_string();
    assert!(refusal.contains("is of node 0000000000000008, but node.json is of node 0000000000000007"), "{refusal}");
    log.bind(8, 2).unwrap();
    log.bind(8, 2).unwrap();
    drop(log);
    let log = FileLog::open(folder.path()).unwrap();
    for boot in [1, 4] {
        let refusal = log.bind(8, boot).unwrap_err().to_string();
        assert!(refusal.contains("was used last at start 2, but node.json counts"), "{refusal}");
        assert!(refusal.ends_with(REMEDY), "{refusal}");
    }
    log.bind(8, 3).unwrap();
}

#[test]
fn a_flipped_bit_with_valid_records_behind_refuses_to_open() {
    let (folder, file) = written();
    let whole = fs::read(&file).unwrap();
    let last = whole.len() - record_bytes(&record(9));
    for at in 0..last {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(&file, &bytes).unwrap();
        let refusal = refusal(&folder);
        assert!(refusal.contains("so it is not a torn end"), "bit flipped at {at}: {refusal}");
        assert_eq!(fs::read(&file).unwrap(), bytes, "a refused file is left as it is");
    }
}

#[test]
fn a_refused_log_names_file_offset_and_remedy() {
    let (folder, file) = written();
    let mut bytes = fs::read(&file).unwrap();
    let (eighth, ninth) = (bytes.len() - 2 * record_bytes(&record(8)), bytes.len() - record_bytes(&record(9)));
    bytes[eighth + 25] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let refusal = refusal(&folder);
    assert!(refusal.starts_with(&format!("{} is damaged at offset {eighth}: ", file.display())), "{refusal}");
    let reason = format!("valid records follow at offset {ninth}, so it is not a torn end; {REMEDY}");
    assert!(refusal.ends_with(&reason), "{refusal}");
}

#[test]
fn damage_at_the_end_of_a_file_with_a_next_one_refuses_to_open() {
    let folder = tempfile::tempdir().unwrap();
    drop({
        let log = FileLog::open_with(folder.path(), 300).unwrap();
        log.append(records(0..20)).unwrap();
        log
    });
    let files = chunk_files(folder.path()).unwrap();
    let file = &files[files.len() - 2].path;
    let bytes = fs::read(file).unwrap();
    fs::write(file, &bytes[..bytes.len() - 1]).unwrap();
    let refusal = refusal(&folder);
    assert!(refusal.starts_with(&format!("{} is damaged at offset ", file.display())), "{refusal}");
    assert!(refusal.contains("valid records follow at the next file, so it is not a torn end"), "{refusal}");
}

#[test]
fn an_end_torn_while_a_new_file_was_begun_is_cut_off() {
    let (folder, file) = written();
    let whole = fs::read(&file).unwrap();
    let next = file.with_file_name("r-00_000_000_000_000_009_999.wal");
    for begun in [&b""[..], &[0; 100], &whole[..10]] {
        fs::write(&file, &whole[..whole.len() - 1]).unwrap();
        mark(&folder, whole.len() - record_bytes(&record(9)));
        fs::write(&next, begun).unwrap();
        assert_eq!(all(&FileLog::open(folder.path()).unwrap()), records(0..9));
        assert!(!next.exists());
    }
}

#[test]
fn a_missing_file_refuses_to_open() {
    let folder = tempfile::tempdir().unwrap();
    drop({
        let log = FileLog::open_with(folder.path(), 300).unwrap();
        log.append(records(0..20)).unwrap();
        log
    });
    let files = chunk_files(folder.path()).unwrap();
    let bytes = fs::read(&files[1].path).unwrap();
    fs::remove_file(&files[1].path).unwrap();
    let gap = refusal(&folder);
    assert!(gap.starts_with(&format!("{} is damaged at offset 0: it begins at ", files[2].path.display())), "{gap}");
    assert!(gap.contains("but the files before it end at") && gap.ends_with(REMEDY), "{gap}");
    fs::write(&files[1].path, bytes).unwrap();
    fs::remove_file(&files[0].path).unwrap();
    let start = refusal(&folder);
    assert!(start.contains("nothing was purged, but of the records behind it the first one is "), "{start}");
    assert!(start.ends_with(REMEDY), "{start}");
}

/// A folder with a log of twenty records of this term in several files.
fn in_files(term: u64) -> (TempDir, Vec<PathBuf>) {
    let folder = tempfile::tempdir().unwrap();
    let log = FileLog::open_with(folder.path(), 300).unwrap();
    log.bind(7, 1).unwrap();
    log.append((0..20).map(|index| Record { id: LogId { term, index }, ..record(index) }).collect()).unwrap();
    drop(log);
    let files = chunk_files(folder.path()).unwrap().into_iter().map(|chunk| chunk.path).collect();
    (folder, files)
}

#[test]
fn a_file_of_another_log_refuses_to_open() {
    let (folder, files) = in_files(2);
    let (_other, others) = in_files(3);
    assert!(files.len() > 3);
    // As long, and each by itself whole: only what it says does not follow what is before it, or is not followed.
    for (at, told_at) in [(0, 1), (1, 1), (files.len() - 1, files.len() - 1)] {
        let own = fs::read(&files[at]).unwrap();
        let other = fs::read(&others[at]).unwrap();
        assert_eq!(own.len(), other.len());
        fs::write(&files[at], &other).unwrap();
        let refusal = refusal(&folder);
        assert!(refusal.starts_with(&format!("{} is damaged at offset 0: ", files[told_at].display())), "{refusal}");
        assert!(
            refusal.contains("; is it from another log, or an older copy?") && refusal.ends_with(REMEDY),
            "{refusal}"
        );
        fs::write(&files[at], &own).unwrap();
    }
    assert_eq!(all(&FileLog::open(folder.path()).unwrap()), records(0..20));
}

#[test]
fn a_file_of_another_nodes_log_refuses_to_open() {
    let (folder, files) = in_files(2);
    let other = tempfile::tempdir().unwrap();
    let log = FileLog::open_with(other.path(), 300).unwrap();
    log.bind(8, 1).unwrap();
    log.append(records(0..20)).unwrap();
    drop(log);
    fs::copy(&chunk_files(other.path()).unwrap()[1].path, &files[1]).unwrap();
    let refusal = refusal(&folder);
    assert!(refusal.starts_with(&format!("{} is damaged at offset 0: ", files[1].display())), "{refusal}");
    assert!(refusal.contains("; is it from another log, or an older copy?"), "{refusal}");
}

#[test]
fn a_payload_too_long_to_store_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let log = FileLog::open(folder.path()).unwrap();
    let oversized = Record { payload: vec![0; PAYLOAD_BYTES_MAX + 1].into(), ..record(0) };
    let error = log.append(vec![oversized]).unwrap_err();
    assert_eq!(error.to_string(), "log record 0 of term 2 has 16777217 bytes; at most 16777216 can be stored");
    assert_eq!(log.state(), LogState::default());
}

#[test]
fn a_log_that_cannot_begin_a_new_file_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let log = FileLog::open_with(folder.path(), 300).unwrap();
    fs::remove_dir_all(folder.path()).unwrap();
    let error = log.append(records(0..20)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}

#[test]
fn flushes_queued_during_one_share_the_next() {
    let (flushes, queue) = channel::<FlushDone>();
    let (done, results) = channel();
    for _ in 0..10 {
        let done = done.clone();
        flushes.send(Box::new(move |result| done.send(result).unwrap())).unwrap();
    }
    drop((flushes, done));
    let count = std::cell::Cell::new(0);
    run_flusher(&queue, || {
        count.set(count.get() + 1);
        Ok(())
    });
    assert_eq!(count.get(), 1);
    assert_eq!(results.iter().flatten().count(), 10);
}

#[test]
fn a_failed_flush_fails_its_group_and_all_later_ones_without_another_try() {
    let (flushes, queue) = channel::<FlushDone>();
    let (done, results) = channel();
    let again = flushes.clone();
    let last = done.clone();
    flushes
        .send(Box::new(move |result| {
            done.send(result).unwrap();
            again.send(Box::new(move |result| last.send(result).unwrap())).unwrap();
        }))
        .unwrap();
    drop(flushes);
    let count = std::cell::Cell::new(0);
    run_flusher(&queue, || {
        count.set(count.get() + 1);
        Err(io::Error::new(io::ErrorKind::StorageFull, "no space"))
    });
    assert_eq!(count.get(), 1);
    let errors: Vec<String> = results.iter().map(|result| result.unwrap_err().to_string()).collect();
    assert_eq!(errors, ["no space", "no space"]);
}

#[test]
fn a_log_dropped_with_flushes_queued_answers_them() {
    let folder = tempfile::tempdir().unwrap();
    let log = FileLog::open(folder.path()).unwrap();
    let (done, results) = channel();
    for index in 0..100 {
        log.append(vec![record(index)]).unwrap();
        let done = done.clone();
        log.flush(Box::new(move |result| done.send(result).unwrap()));
    }
    drop((log, done));
    assert_eq!(results.iter().flatten().count(), 100);
    assert_eq!(all(&FileLog::open(folder.path()).unwrap()), records(0..100));
}
