//! What goes wrong, and when.

use std::sync::Arc;
use std::time::Duration;

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
}

/// Breaks things for `span`.
pub async fn rage(run: &Arc<Run>, span: Duration) {
    let until = Sim::now() + span;
    while Sim::now() < until && run.goes_on() {
        Sim::sleep(chance::millis(50, 700)).await;
        match chance::below(100) {
            0..20 => crash_one(run),
            20..25 => crash_all(run),
            25..30 => crash_majority(run),
            30..35 => lose_log(run),
            35..52 => isolate(run),
            52..59 => cut_one_link(run),
            59..67 => slow_down(run),
            67..73 => lose_frames(run),
            73..83 => hand_over(run),
            _ => heal(run),
        }
    }
}

/// Any host, the leader's half of the time.
fn victim(run: &Run) -> usize {
    let leader = run.world().leader().filter(|_| chance::happens(500));
    leader.map_or_else(|| chance::index(run.world().shape().hosts()), |leader| leader.incarnation.host)
}

fn crash(run: &Arc<Run>, host: usize, before_restart: impl FnOnce() + Send + 'static) {
    if run.world().crash(host) {
        run.count(|counts| counts.crashes += 1);
        let world = run.world_handle();
        let pause = if chance::happens(300) { chance::millis(1, 30) } else { chance::millis(30, 1500) };
        Sim::spawn(async move {
            Sim::sleep(pause).await;
            before_restart();
            world.start(host).await;
        });
    }
}

fn crash_one(run: &Arc<Run>) {
    crash(run, victim(run), || ());
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
