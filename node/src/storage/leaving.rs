//! Files that are deleted while they are open.
//!
//! A file system frees the blocks of a large file where its last name is taken away: ext4 takes 50 ms for 64 MiB on a busy
//! machine, and `raft-log` deletes several chunks in a row on the thread that writes and flushes. The blocks of a file
//! that is open are freed where it is closed instead, and that is a thread which nobody waits for.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::log_tail::chunk_files;

/// Chunks that may be about to be deleted.
#[derive(Debug, Default)]
pub(super) struct Leaving(Vec<File>);

impl Leaving {
    /// Opens all chunks but the last. One that cannot be opened only takes longer to be deleted.
    pub(super) fn hold(&mut self, folder: &Path) {
        let mut chunks = chunk_files(folder).unwrap_or_default();
        chunks.pop();
        self.0 = chunks.iter().filter_map(|chunk| File::open(&chunk.path).ok()).collect();
    }

    /// Closes what has no name any more. The rest stays: it may be about to be deleted, behind what was a moment ago.
    pub(super) fn let_go(&mut self) {
        let is_deleted = |file: &mut File| file.metadata().is_ok_and(|metadata| metadata.nlink() == 0);
        let deleted: Vec<File> = self.0.extract_if(.., is_deleted).collect();
        if !deleted.is_empty() {
            // Without a thread they are closed here.
            let _ = std::thread::Builder::new().name("log-deleter".to_owned()).spawn(move || drop(deleted));
        }
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// Closes all, so that what is deleted leaves room.
    pub(super) fn close(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use raft_log::chunked_wal::{ChunkId, Config};

    #[test]
    fn only_closed_chunks_are_held_and_until_they_are_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let paths = [0, 100, 200].map(|start| folder.path().join(Config::chunk_file_name(ChunkId(start))));
        for path in &paths {
            std::fs::write(path, "records").unwrap();
        }
        let mut leaving = Leaving::default();
        leaving.hold(folder.path());
        assert_eq!(leaving.0.len(), 2, "the last one is being written");
        leaving.let_go();
        assert_eq!(leaving.0.len(), 2, "they are still there");
        std::fs::remove_file(&paths[0]).unwrap();
        leaving.let_go();
        assert_eq!(leaving.0.len(), 1, "the next one is deleted in a moment");
        std::fs::remove_file(&paths[1]).unwrap();
        leaving.let_go();
        assert!(leaving.0.is_empty());
    }
}
