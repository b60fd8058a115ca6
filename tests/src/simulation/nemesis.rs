//! What goes wrong, and when.

use std::sync::Arc;
use std::time::Duration;

use quorate_limits::Leaving;
use quorate_node::bugs::{self, Bug};
use quorate_node::platform::Platform as _;

use super::run::Run;
use super::{Sim, chance};

/// How often things were broken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Crashes of one host, those of all hosts at once included.
    pub crashes: u64,
    /// Links cut, in one direction or both.
    pub partitions: u64,
    /// Leaders asked to hand over.
    pub handovers: u64,
    /// Disks that were full for a while.
    pub full_disks: u64,
    /// Flushes that failed.
    pub failed_flushes: u64,
    /// Nodes that came back on older copies of their disks.
    pub older_disks: u64,
    /// And those of them that were refused.
    pub older_refused: u64,
    /// Disks emptied.
    pub lost_disks: u64,
    /// Members told to leave.
    pub decommissions: u64,
    /// Hosts whose processes were stopped and later went on.
    pub stops: u64,
    /// Hosts that came back under another address.
    pub moves: u64,
}

/// Breaks things for `span`.
pub async fn rage(run: &Arc<Run>, span: Duration) {
    let until = Sim::now() + span;
    while Sim::now() < until && run.goes_on() {
        Sim::sleep(chance::millis(50, 700)).await;
        match chance::below(100) {
            0..13 => crash_one(run),
            13..19 => move_one(run),
            19..23 => crash_all(run),
            23..28 => crash_majority(run),
            28..32 => lose_log(run),
            32..45 => isolate(run),
            45..50 => cut_one_link(run),
            50..56 => slow_down(run),
            56..60 => lose_frames(run),
            60..68 => stop(run),
            68..74 => hand_over(run),
            74..78 => fill_disks(run),
            78..81 => fail_flush(run),
            81..84 => run.world().copy_disk(victim(run)),
            84..87 => lose_disk(run),
            87..90 => decommission(run),
            _ => heal(run),
        }
    }
}

/// Any host, the leader's half of the time.
fn victim(run: &Run) -> usize {
    let leader = run.world().leader().filter(|_| chance::happens(500));
    leader.map_or_else(|| chance::index(run.world().shape().hosts()), |leader| leader.incarnation.host)
}

fn crash(run: &Arc<Run>, host: usize, before_restart: impl FnOnce() + Send + 'static) -> bool {
    let crashed = run.world().crash(host);
    if crashed {
        run.count(|counts| counts.crashes += 1);
        let world = run.world_handle();
        let pause = if chance::happens(300) { chance::millis(1, 30) } else { chance::millis(30, 1500) };
        Sim::spawn(async move {
            Sim::sleep(pause).await;
            before_restart();
            world.start(host).await;
        });
    }
    crashed
}

fn crash_one(run: &Arc<Run>) {
    crash(run, victim(run), || ());
}

/// A crash, from which the host comes back under another address.
fn move_one(run: &Arc<Run>) {
    let host = victim(run);
    if crash(run, host, || ()) {
        run.world().network().relocate(host);
        run.count(|counts| counts.moves += 1);
    }
}

/// Stops a host's processes, for moments or for longer than anybody waits.
fn stop(run: &Run) {
    let host = victim(run);
    let span = if chance::happens(500) { chance::millis(20, 1000) } else { chance::millis(1000, 10_000) };
    if run.world_handle().stop(host, span) {
        run.count(|counts| counts.stops += 1);
    }
}

fn crash_all(run: &Arc<Run>) {
    for host in 0..run.world().shape().hosts() {
        crash(run, host, || ());
    }
}

/// The leader and as many others as make a majority, at one moment.
fn crash_majority(run: &Arc<Run>) {
    let hosts = run.world().shape().hosts();
    let first = run.world().leader().map_or(0, |leader| leader.incarnation.host);
    let step = 1 + chance::index(hosts - 1);
    crash(run, first, || ());
    for other in 1..=hosts / 2 {
        crash(run, (first + other * step) % hosts, || ());
    }
}

/// A crash; with the deliberate bug, one that takes log and snapshot with it and leaves the identity.
fn lose_log(run: &Arc<Run>) {
    let host = victim(run);
    let disk = run.world().disk(host);
    crash(run, host, move || {
        if bugs::active(Bug::EmptyDiskOldId) {
            let identity = disk.open().identity.load().unwrap();
            disk.wipe();
            if let Some(identity) = identity {
                disk.open().identity.save(&identity).unwrap();
            }
        }
    });
}

/// A crash that takes the whole disk with it, if no other is missing: the host comes back as a new node.
fn lose_disk(run: &Arc<Run>) {
    let host = victim(run);
    let disk = run.world().disk(host);
    let Some(change) = run.world().running(host).and_then(|_| run.begin_change()) else { return };
    run.world().history().note(format_args!("lose the disk of {host}"));
    run.count(|counts| counts.lost_disks += 1);
    crash(run, host, || ());
    disk.wipe();
    let run = Arc::clone(run);
    Sim::spawn(async move {
        // The new node writes its identity when it starts.
        Sim::sleep(Duration::from_secs(2)).await;
        run.whole_again(change).await;
    });
}

/// A member is told to leave. Once it has, its host is started again and comes back as a new node.
fn decommission(run: &Arc<Run>) {
    let host = victim(run);
    let Some(member) = run.world().running(host).map(|running| running.node.identity().node) else { return };
    let Some(change) = run.begin_change() else { return };
    run.world().history().note(format_args!("decommission {host}"));
    run.count(|counts| counts.decommissions += 1);
    let run = Arc::clone(run);
    Sim::spawn(async move {
        while run.goes_on() && !told_to_leave(&run, member).await {
            Sim::sleep(chance::millis(10, 100)).await;
        }
        while run.goes_on() && run.has_member(member) {
            Sim::sleep(chance::millis(10, 100)).await;
        }
        run.world().history().note(format_args!("{host} has left"));
        Sim::sleep(chance::millis(0, 2000)).await;
        // One that was told begins anew with its next start; one that was not finds out then.
        crash(&run, host, || ());
        run.whole_again(change).await;
    });
}

async fn told_to_leave(run: &Run, member: u64) -> bool {
    let all = run.world().all_running();
    let Some(asked) = all.get(chance::index(all.len().max(1))) else { return false };
    let answer = asked.alive(asked.node.decommission(member, Duration::from_secs(1))).await;
    matches!(answer, Some(Ok(Leaving::Intended | Leaving::Left)))
}

/// Cuts a host off, or all that comes from it, or all that goes to it.
fn isolate(run: &Run) {
    let (host, way) = (victim(run), chance::below(3));
    let network = run.world().network();
    for other in (0..run.world().shape().hosts()).filter(|other| *other != host) {
        if way != 1 {
            network.cut(host, other);
        }
        if way != 2 {
            network.cut(other, host);
        }
    }
    run.count(|counts| counts.partitions += 1);
    run.world().history().note(format_args!("isolate {host}, way {way}"));
}

fn cut_one_link(run: &Run) {
    let hosts = run.world().shape().hosts();
    let (from, to) = (chance::index(hosts), chance::index(hosts));
    run.world().network().cut(from, to);
    run.count(|counts| counts.partitions += u64::from(from != to));
    run.world().history().note(format_args!("cut {from} to {to}"));
}

fn slow_down(run: &Run) {
    let (host, extra) = (victim(run), chance::millis(20, 400));
    for other in 0..run.world().shape().hosts() {
        run.world().network().slow_down(host, other, extra);
    }
    run.world().history().note(format_args!("slow down {host} by up to {extra:?}"));
}

fn lose_frames(run: &Run) {
    let permille = chance::below(200);
    run.world().network().lose(permille);
    run.world().history().note(format_args!("lose {permille} of 1000 frames"));
}

/// One disk, or all of them, full for a while.
fn fill_disks(run: &Arc<Run>) {
    let hosts = run.world().shape().hosts();
    let one = victim(run);
    let filled = if chance::happens(300) { 0..hosts } else { one..one + 1 };
    let span = chance::millis(50, 3000);
    run.count(|counts| counts.full_disks += filled.len() as u64);
    run.world().history().note(format_args!("disks of {filled:?} are full for {span:?}"));
    for host in filled {
        let disk = run.world().disk(host);
        disk.fill(true);
        Sim::spawn(async move {
            Sim::sleep(span).await;
            disk.fill(false);
        });
    }
}

fn fail_flush(run: &Run) {
    let host = victim(run);
    if run.world().fail_flush(host) {
        run.count(|counts| counts.failed_flushes += 1);
        run.world().history().note(format_args!("the next flush of {host} fails"));
    }
}

/// How long a node on an older disk may go unnoticed while all is well.
const NOTICED: Duration = Duration::from_secs(8);
/// How long a change of the members that was begun may take then.
const WHOLE_AGAIN: Duration = Duration::from_secs(30);

/// Once all is mended: a host comes back on a copy of its disk, from an earlier start or from under the running node. The
/// others have all that it acknowledged since, or no protocol could tell. The former must be refused; the latter is, or it
/// catches up. Whoever was refused gets its disk back.
pub async fn age_a_disk(run: &Arc<Run>) {
    // A disk that is refused is one that is missing: no other may be.
    let Ok(change) = run.world().eventually(WHOLE_AGAIN, |_| run.begin_change()).await else { return };
    put_an_older_copy_back(run).await;
    run.whole_again(change).await;
}

async fn put_an_older_copy_back(run: &Arc<Run>) {
    let world = run.world_handle();
    let leader = world.leader().map(|leader| leader.incarnation.host);
    let hosts: Vec<usize> = (0..world.shape().hosts()).filter(|host| Some(*host) != leader).collect();
    let host = hosts[chance::index(hosts.len())];
    let Some(copy) = world.kept_copy(host) else { return };
    let Some(running) = world.running(host) else { return };
    let present = running.node.identity();
    if present.node != copy.identity().node {
        return;
    }
    let last = |world: &super::world::World, host: usize| world.running(host)?.status().last_log;
    let mine = last(&world, host);
    let all_have = world
        .eventually(NOTICED, |world| (0..world.shape().hosts()).all(|other| last(world, other) >= mine).then_some(()));
    if all_have.await.is_err() || !world.crash(host) {
        return;
    }
    let disk = world.disk(host);
    let Some(right) = disk.copy() else { return };
    let starts_ago = present.boot - copy.identity().boot;
    world.history().note(format_args!("{host} comes back on a copy from {starts_ago} starts ago"));
    run.count(|counts| counts.older_disks += 1);
    disk.put_back(copy);
    world.let_stop(host, "older copy");
    world.start(host).await;
    let refused = world.eventually(NOTICED, |world| world.running(host).is_none().then_some(())).await.is_ok();
    if !refused && starts_ago > 0 {
        world.history().violated(format_args!("node {host} runs on a disk from {starts_ago} starts ago, unnoticed"));
    }
    if refused {
        run.count(|counts| counts.older_refused += 1);
        // Started again, the refused disk must stay refused.
        world.start(host).await;
        if world.running(host).is_some() {
            world.history().violated(format_args!("node {host} was refused its disk and started on it again"));
        }
        disk.put_back(right.count_starts(2));
        world.start(host).await;
    }
}

fn heal(run: &Run) {
    run.world().network().heal();
    run.world().history().note(format_args!("heal"));
}

fn hand_over(run: &Arc<Run>) {
    let Some(leader) = run.world().leader() else { return };
    run.count(|counts| counts.handovers += 1);
    let run = Arc::clone(run);
    Sim::spawn(async move {
        let host = leader.incarnation.host;
        run.world().history().note(format_args!("hand over from {host}"));
        let handed = leader.alive(leader.node.transfer_leader(None)).await;
        run.world().history().note(format_args!("hand over from {host}: {handed:?}"));
    });
}
