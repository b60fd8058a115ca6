//! Disks that are full, for a while or in the middle of a write, and disks that fail.
//!
//! Each test mounts small file systems of its own, in memory or on a loop device (e2fsprogs, python3), and takes them away.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use bytes::Bytes;
use quorate_node::storage::{FileLog, LogId, LogStore as _, Record, Vote};
use quorate_tests::client::Outcome;
use quorate_tests::cluster::{Cluster, Node, PATIENCE, Plan, eventually, figure};

/// A file system that is there for one test.
struct Mounted(PathBuf);

impl Mounted {
    /// So many MiB in memory.
    fn in_memory(at: &Path, mebibytes: u32) -> Self {
        fs::create_dir_all(at).unwrap();
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "tmpfs"]).arg(at));
        Self(at.to_owned())
    }

    /// ext4 on a loop device over `image`.
    fn ext4(at: &Path, image: &Path, mebibytes: u64) -> Self {
        fs::create_dir_all(at).unwrap();
        File::create(image).unwrap().set_len(mebibytes << 20).unwrap();
        run(Command::new("mkfs.ext4").arg("-q").arg(image));
        run(Command::new("mount").args(["-o", "loop"]).arg(image).arg(at));
        Self(at.to_owned())
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    /// Takes all the room there is, to the last byte.
    fn fill(&self) {
        let mut file = File::options().create(true).append(true).open(self.filler()).unwrap();
        for size in [1 << 20, 4096, 64, 1] {
            let piece = vec![0x5a; size];
            loop {
                match file.write(&piece) {
                    Ok(written) => assert!(written > 0),
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }

    fn make_room(&self) {
        fs::remove_file(self.filler()).unwrap();
    }

    /// Every access fails from now on, as when the device is gone (`FS_IOC_SHUTDOWN`).
    fn fail(&self) {
        let shut_down = "import fcntl, os, struct, sys; \
                         fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', 2))";
        run(Command::new("python3").args(["-c", shut_down]).arg(&self.0));
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn run(command: &mut Command) {
    let status = command.status().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?} (is this root?): {status}");
}

fn record(index: u64) -> Record {
    Record { id: LogId { term: 1, index }, payload: Bytes::from(vec![b'p'; 1000]) }
}

/// The answer of a flush that begins now.
fn flush(log: &FileLog) -> Receiver<std::io::Result<()>> {
    let (sender, receiver) = channel();
    log.flush(Box::new(move |result| sender.send(result).unwrap()));
    receiver
}

#[test]
fn disk_full_in_the_middle_of_a_write_the_log_waits_and_goes_on_with_all_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Mounted::in_memory(dir.path(), 8);
    let folder = disk.0.join("log");
    fs::create_dir(&folder).unwrap();
    let log = FileLog::open(&folder).unwrap();
    log.append((0..100).map(record).collect()).unwrap();
    flush(&log).recv().unwrap().unwrap();
    let mut next = 100;
    for round in 0..3 {
        disk.fill();
        // More than a chunk, so that one must be closed too.
        let until = next + 1500;
        let mut waiting = Vec::new();
        for index in next..until {
            log.append(vec![record(index)]).unwrap();
            if index % 100 == 0 {
                waiting.push(flush(&log));
            }
        }
        let vote = Vote { term: 2 + round, node: 7, committed: true };
        log.save_vote(vote).unwrap();
        waiting.push(flush(&log));
        assert!(
            waiting.last().unwrap().recv_timeout(Duration::from_secs(1)).is_err(),
            "nothing is told before it is so"
        );
        assert!(log.waits_for_room());
        // It is all there to be read, and what was flushed is on the disk.
        assert_eq!(log.read(0..u64::MAX, usize::MAX).unwrap().len() as u64, until - log_begins(&log));
        assert_eq!((log.state().vote, log.state().last), (Some(vote), Some(record(until - 1).id)));
        let copy = tempfile::tempdir().unwrap();
        copy_files(&folder, copy.path());
        let seen = FileLog::open(copy.path()).unwrap();
        assert!(seen.state().last >= Some(record(next - 1).id), "{:?}", seen.state());
        drop(seen);
        disk.make_room();
        for answer in waiting {
            answer.recv_timeout(PATIENCE).expect("an answer").unwrap();
        }
        assert!(!log.waits_for_room());
        next = until;
        log.purge(record(next - 50).id).unwrap();
        flush(&log).recv().unwrap().unwrap();
    }
    let (state, records) = (log.state(), log.read(0..u64::MAX, usize::MAX).unwrap());
    drop(log);
    let log = FileLog::open(&folder).unwrap();
    assert_eq!((log.state(), log.read(0..u64::MAX, usize::MAX).unwrap()), (state, records));
}

fn log_begins(log: &FileLog) -> u64 {
    log.state().purged.map_or(0, |purged| purged.index + 1)
}

fn copy_files(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// Three nodes, each on a disk of its own of 32 MiB with 4 MiB in reserve.
async fn cluster_on_small_disks() -> (Cluster, Vec<Mounted>) {
    let plan = Plan::of(3).alone().set("DEFAULT_LIMIT", "1000/24h").set("DISK_RESERVE", "4MiB");
    let cluster = plan.build().await;
    let disks = cluster.nodes().iter().map(|node| Mounted::in_memory(node.data_dir(), 32)).collect();
    for node in cluster.nodes() {
        node.start();
    }
    cluster.ready().await;
    (cluster, disks)
}

/// Waits until a node says of itself whether its disk is short of room.
async fn short_of_room(node: &Node, wanted: bool) {
    let name = node.name();
    eventually(PATIENCE, &format!("{name} says {wanted} to being short of room"), async || {
        let health = node.client().get("/health").await.map_err(|error| error.to_string())?.text();
        let metrics = node.client().get("/metrics").await.map_err(|error| error.to_string())?.text();
        let counted = metrics.contains(&format!("quorate_storage_short_of_room {}\n", u8::from(wanted)));
        if counted && health.contains("the disk is short of room") == wanted { Ok(()) } else { Err(health) }
    })
    .await;
}

async fn all_admitted(nodes: &[&Node], times: u64) {
    for turn in 0..times {
        let node = nodes[usize::try_from(turn).unwrap() % nodes.len()];
        assert_eq!(node.client().increment("a").await, Outcome::Admitted, "request {turn}, of {}", node.name());
    }
}

/// All nodes have the same left of the quota, and have never been started again.
async fn assert_left(cluster: &Cluster, left: u64) {
    for node in cluster.nodes() {
        eventually(PATIENCE, "it has applied all", async || {
            let check = node.client().get("/rate/check?client_id=a&consistency=local").await;
            let text = check.map_err(|error| error.to_string())?.text();
            if text.contains(&format!("\"remaining_quota\":{left}")) { Ok(()) } else { Err(text) }
        })
        .await;
        let log = node.log();
        assert_eq!(log.matches(" starting ").count(), 1, "{} was started again: {log}", node.name());
        assert!(!log.contains("panicked"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn disk_of_one_node_full_the_others_go_on_deciding_and_it_comes_back_by_itself() {
    let (cluster, disks) = cluster_on_small_disks().await;
    let mut used = 0;
    for leads in [false, true] {
        let leader = cluster.leader().await;
        let full = if leads { leader } else { (leader + 1) % 3 };
        let node = cluster.node(full);
        let others: Vec<&Node> = cluster.nodes().iter().filter(|other| other.name() != node.name()).collect();
        disks[full].fill();
        short_of_room(node, true).await;
        // As the others see it: a node that waits for room may not have heard yet.
        eventually(PATIENCE, "somebody with room leads", async || {
            let status = others[0].client().cluster_status().await?;
            let leader = status.members.iter().find(|member| Some(&member.id) == status.leader.as_ref());
            let name = leader.map(|leader| leader.name.clone()).ok_or("nobody leads")?;
            if name == node.name() { Err("it still leads".to_owned()) } else { Ok(()) }
        })
        .await;
        all_admitted(&others, 60).await;
        used += 60;
        if !leads {
            // It takes no part, but whoever asks it is answered.
            all_admitted(&[node], 10).await;
            used += 10;
        }
        assert!(node.is_running());
        disks[full].make_room();
        short_of_room(node, false).await;
        assert_left(&cluster, 1000 - used).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn disks_of_all_full_nothing_is_decided_until_there_is_room_and_nothing_is_lost() {
    let (cluster, disks) = cluster_on_small_disks().await;
    let all: Vec<&Node> = cluster.nodes().iter().collect();
    all_admitted(&all, 90).await;
    for disk in &disks {
        disk.fill();
    }
    for node in &all {
        short_of_room(node, true).await;
    }
    // Another client's: of what is unavailable nobody knows whether it counted.
    let mut said = Vec::new();
    for node in &all {
        // The last page of a full disk may still have room for a few small records.
        let text = eventually(PATIENCE, "nothing is decided", async || {
            let answer = node.client().post("/rate/increment?client_id=b", &serde_json::Value::Null).await;
            let answer = answer.map_err(|error| error.to_string())?;
            if answer.status == 503 { Ok(answer.text()) } else { Err(answer.text()) }
        })
        .await;
        assert!(node.is_running());
        said.push(text);
    }
    figure(&format!("all disks full: {said:?}"));
    let begun = std::time::Instant::now();
    for disk in &disks {
        disk.make_room();
    }
    eventually(PATIENCE, "it decides again", async || match all[0].client().increment("b").await {
        Outcome::Admitted => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    figure(&format!("all disks full, then room again: decides after {:.1?}, without a restart", begun.elapsed()));
    for node in &all {
        short_of_room(node, false).await;
    }
    all_admitted(&all, 10).await;
    assert_left(&cluster, 1000 - 100).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fsync_that_fails_stops_the_node_with_a_reason_and_the_others_decide() {
    let plan = Plan::of(3).alone().set("DEFAULT_LIMIT", "1000/24h");
    let cluster = plan.build().await;
    let node = cluster.node(0);
    let disk = Mounted::ext4(node.data_dir(), &cluster.dir().join("image"), 64);
    for node in cluster.nodes() {
        node.start();
    }
    cluster.ready().await;
    all_admitted(&cluster.nodes().iter().collect::<Vec<_>>(), 30).await;
    disk.fail();
    let status = node.ended(PATIENCE).await;
    assert_eq!(status.code(), Some(1), "{status:?}");
    let log = node.log();
    // What the log's own threads say when they end may come after it.
    let said = log.lines().rfind(|line| line.contains("cannot write or sync")).unwrap_or_else(|| panic!("{log}"));
    let file = node.data_dir().join("log").display().to_string();
    assert!(said.contains(&file), "{said}");
    assert!(said.contains("it is not tried again") && said.contains("empty DATA_DIR"), "{said}");
    assert!(!log.contains("panicked"), "{log}");
    let others = [cluster.node(1), cluster.node(2)];
    eventually(PATIENCE, "the others decide", async || match others[0].client().increment("a").await {
        Outcome::Admitted => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    all_admitted(&others, 20).await;
}
