//! One seed: a world from its founding through trouble to rest.

use std::collections::BTreeSet;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use openraft_rt::AsyncRuntime as _;
use openraft_rt_sim::SimRuntime;
use quorate_limits::autopilot::Replacing;
use quorate_node::bugs::{self, Bug};
use quorate_node::consensus::Tuning;
use quorate_node::platform::Platform as _;
use quorate_node::probe;

use super::history::History;
use super::host::{HostInstant, TRUE_RATE};
use super::oracles::ledger::Ledger;
use super::oracles::witness::Witness;
use super::totals::Totals;
use super::workload::{self, Key, Kind};
use super::world::{Shape, World};
use super::{Sim, chance, clients, nemesis, network, panics};

/// How long things are broken.
const TROUBLE: Duration = Duration::from_secs(8);
/// After all is mended, and no member is being replaced any more, decisions must succeed on every node within this,
const PROGRESS: Duration = Duration::from_secs(8);
/// and within this if one was: gossip takes seconds to be sure that the former one is gone.
const REPLACED: Duration = Duration::from_secs(30);
/// Events that a failure shows.
const TAIL_LEN: usize = 120;
/// Clients at a time.
const CLIENTS: u64 = 5;

/// What a seed came to.
#[derive(Clone, Debug)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// A hash over everything that happened.
    pub hash: u64,
    /// The broken promise, if one was.
    pub violation: Option<String>,
    /// All events.
    pub events: Vec<String>,
    /// How often things happened.
    pub totals: Totals,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for event in &self.events[self.events.len().saturating_sub(TAIL_LEN)..] {
            writeln!(f, "{event}")?;
        }
        let violation = self.violation.as_deref().unwrap_or("kept every promise");
        writeln!(f, "seed {}: {violation}", self.seed)?;
        write!(f, "replay: make simulate SEEDS=1 FIRST={}", self.seed)
    }
}

/// Runs a seed on this thread, with a deliberate bug or without.
#[must_use]
pub fn run(seed: u64, bug: Option<Bug>) -> Report {
    bugs::set(bug);
    let mut runtime = SimRuntime::with_seed(seed);
    let history = Arc::new(Mutex::new(runtime.block_on(async { History::begin() })));
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let counts = Arc::new(Mutex::new(nemesis::Counts::default()));
    let network = Mutex::new(network::Counts::default());
    let ran = panics::caught(|| {
        std::panic::catch_unwind(AssertUnwindSafe(|| {
            runtime.block_on(async {
                watch(&history, &ledger);
                let run = Run::new(Arc::clone(&history), Arc::clone(&ledger), Arc::clone(&counts));
                run.live().await;
                *network.lock().unwrap() = run.world.network().counts();
                run.world.end();
            });
        }))
    });
    probe::watch(None);
    drop(runtime);
    bugs::set(None);
    let mut history = history.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let ledger = ledger.lock().map(|ledger| ledger.counts()).unwrap_or_default();
    let (nemesis, network) = (*counts.lock().unwrap(), *network.lock().unwrap());
    Report {
        seed,
        hash: history.hash(),
        violation: violation(history.violation(), ran),
        events: history.take_events(),
        totals: Totals::of(nemesis, network, ledger),
    }
}

/// A panic is a broken promise, and explains others.
fn violation(broken: Option<&str>, panicked: Option<String>) -> Option<String> {
    match (broken, panicked) {
        (Some(broken), Some(panicked)) => Some(format!("{broken}; {panicked}")),
        (broken, panicked) => broken.map(ToOwned::to_owned).or(panicked),
    }
}

/// Shows every state machine's steps to the ledger.
fn watch(history: &Arc<Mutex<History>>, ledger: &Arc<Mutex<Ledger>>) {
    let (history, ledger) = (Arc::clone(history), Arc::clone(ledger));
    probe::watch(Some(Box::new(move |step, state| {
        let mut history = history.lock().unwrap();
        let elapsed_ns = u64::try_from(history.elapsed().as_nanos()).unwrap();
        match ledger.lock().unwrap().observe(step, state, elapsed_ns) {
            Ok(Some(hash)) => history.mix(&hash.to_le_bytes()),
            Ok(None) => {}
            Err(what) => history.violated(format_args!("{what}")),
        }
    })));
}

/// What the parts of one run share.
pub struct Run {
    world: Arc<World>,
    ledger: Arc<Mutex<Ledger>>,
    witness: Mutex<Witness>,
    counts: Arc<Mutex<nemesis::Counts>>,
    clients: Mutex<bool>,
    /// Whether no change of the members is under way that the nemesis began.
    unchanging: Mutex<bool>,
}

/// The right to lose a disk or to send a member away; one at a time.
pub struct MemberChange(());

impl Run {
    fn new(history: Arc<Mutex<History>>, ledger: Arc<Mutex<Ledger>>, counts: Arc<Mutex<nemesis::Counts>>) -> Arc<Self> {
        let world = World::new(shape(), history);
        ledger.lock().unwrap().clocks_run(&world.shape().rates);
        Arc::new(Self {
            world,
            ledger,
            witness: Mutex::default(),
            counts,
            clients: Mutex::new(true),
            unchanging: Mutex::new(true),
        })
    }

    /// The world.
    #[must_use]
    pub fn world(&self) -> &World {
        &self.world
    }

    /// The world, to keep.
    #[must_use]
    pub fn world_handle(&self) -> Arc<World> {
        Arc::clone(&self.world)
    }

    /// What clients know.
    pub fn witness(&self) -> MutexGuard<'_, Witness> {
        self.witness.lock().unwrap()
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap()
    }

    /// Holds what a client was told against the ledger.
    pub fn hold(&self, look: impl FnOnce(&mut Witness, &Ledger) -> Result<(), String>) {
        let held = look(&mut self.witness(), &self.ledger());
        if let Err(what) = held {
            self.world.history().violated(format_args!("{what}"));
        }
    }

    /// Counts what was broken.
    pub fn count(&self, count: impl FnOnce(&mut nemesis::Counts)) {
        count(&mut self.counts.lock().unwrap());
    }

    /// Begins to change the members, unless another change is under way or not every host is a member yet: a majority must
    /// never lose its disks, nor be told to go.
    pub fn begin_change(&self) -> Option<MemberChange> {
        let mut unchanging = self.unchanging.lock().unwrap();
        let may = *unchanging && self.is_whole() && self.all_vote();
        *unchanging &= !may;
        may.then_some(MemberChange(()))
    }

    /// Waits until every host is a member again; the next change may begin then.
    pub async fn whole_again(&self, _: MemberChange) {
        while self.goes_on() && !self.is_whole() {
            Sim::sleep(Duration::from_millis(20)).await;
        }
        *self.unchanging.lock().unwrap() = true;
    }

    /// Whether the members are exactly the nodes on the hosts' disks.
    fn is_whole(&self) -> bool {
        let node = |host| self.world.disk(host).identity().filter(|identity| !identity.removed).map(|it| it.node);
        let hosts = 0..self.world.shape().hosts();
        let ids: Option<BTreeSet<u64>> = hosts.map(node).collect();
        ids.is_some_and(|ids| self.ledger().has_exactly(&ids))
    }

    /// Whether as many members vote as ever will: while a successor only learns, the voters are two, and the loss of one of
    /// them would be that of their majority.
    fn all_vote(&self) -> bool {
        let most = self.world.shape().hosts().min(5);
        let voters = self.world.leader().map(|leader| leader.status().members.iter().filter(|it| it.voter).count());
        voters == Some(most - usize::from(most.is_multiple_of(2)))
    }

    /// Whether the committed membership holds this id.
    pub fn has_member(&self, id: u64) -> bool {
        self.ledger().has_member(id)
    }

    /// Whether no promise was broken yet.
    #[must_use]
    pub fn goes_on(&self) -> bool {
        self.world.history().violation().is_none()
    }

    /// Whether clients should go on.
    #[must_use]
    pub fn clients_go_on(&self) -> bool {
        *self.clients.lock().unwrap() && self.goes_on()
    }

    async fn live(self: &Arc<Self>) {
        self.found();
        let clients: Vec<_> = (0..CLIENTS).map(|_| SimRuntime::spawn(clients::client(Arc::clone(self)))).collect();
        Sim::sleep(chance::millis(0, 3000)).await;
        nemesis::rage(self, TROUBLE).await;
        self.mend().await;
        if chance::happens(400) && self.goes_on() {
            nemesis::age_a_disk(self).await;
            self.mend().await;
        }
        *self.clients.lock().unwrap() = false;
        for client in clients {
            client.await.ok();
        }
        self.settle().await;
    }

    /// Starts the founders in any order, at any time; latecomers once there is a cluster.
    fn found(&self) {
        let shape = self.world.shape();
        for host in 0..shape.hosts() {
            let (world, founds) = (Arc::clone(&self.world), host < shape.founders);
            Sim::spawn(async move {
                if founds {
                    Sim::sleep(chance::millis(0, 1500)).await;
                } else {
                    world.founded().await;
                    Sim::sleep(chance::millis(0, 3000)).await;
                }
                world.start(host).await;
            });
        }
    }

    /// Mends everything; then every node must decide again, founders first.
    async fn mend(&self) {
        self.world.network().heal();
        self.world.go_on();
        self.world.history().note(format_args!("all is mended"));
        let shape = self.world.shape();
        for host in 0..shape.hosts() {
            self.world.disk(host).fill(false);
        }
        for hosts in [0..shape.founders, shape.founders..shape.hosts()] {
            for host in hosts.clone() {
                self.world.start(host).await;
            }
            let begun = Sim::now();
            for host in hosts {
                self.decides_in_time(host, begun).await;
            }
        }
    }

    async fn decides_in_time(&self, host: usize, begun: HostInstant) {
        // A successor that has just become a member begins from a snapshot, and the log goes on meanwhile.
        let mut whole_since = begun;
        while self.goes_on() && !self.decides(host).await {
            let waited = Sim::now() - begun;
            if !self.is_whole() {
                whole_since = Sim::now();
            }
            if waited > REPLACED || Sim::now() - whole_since > PROGRESS {
                let status = self.world.running(host).map(|running| running.status());
                let what = format_args!("node {host} decides nothing {waited:?} after all was mended: {status:?}");
                self.world.history().violated(what);
            }
        }
    }

    async fn decides(&self, host: usize) -> bool {
        let Some(running) = self.world.running(host) else {
            Sim::sleep(Duration::from_millis(10)).await;
            return false;
        };
        // Loose counters are no client's alone, but a look is nobody's.
        let request = workload::request(&[Key::any(Kind::Long)], 0);
        let looked = running.alive(running.node.decide(&request, Duration::from_secs(1))).await;
        Sim::sleep(Duration::from_millis(10)).await;
        matches!(looked, Some(Ok(_)))
    }

    /// Once nobody asks any more, all nodes come to the same end, and it is the one that clients were told of.
    async fn settle(&self) {
        let whole = self.world.eventually(REPLACED, |_| self.is_whole().then_some(())).await;
        if whole.is_err() && self.goes_on() {
            let leader = self.world.leader().map(|leader| leader.status());
            let what = format_args!("not every host became a member {REPLACED:?} after all was mended: {leader:?}");
            self.world.history().violated(what);
        }
        let target = self.ledger().len().saturating_sub(1);
        let behind = |world: &World| {
            let behind = |host: &usize| {
                let running = world.running(*host);
                running.is_none_or(|running| running.status().applied.is_none_or(|applied| applied < target))
            };
            (0..world.shape().hosts()).find(behind)
        };
        let equal = self.world.eventually(PROGRESS, |world| behind(world).is_none().then_some(())).await;
        if equal.is_err() && self.goes_on() {
            let host = behind(&self.world);
            let status = host.and_then(|host| self.world.running(host)).map(|running| running.status());
            let what = format_args!("{host:?} never applied entry {target}: {status:?}");
            self.world.history().violated(what);
        }
        if self.goes_on() {
            self.hold(|witness, ledger| witness.settle(ledger));
        }
        let clusters: BTreeSet<_> =
            self.world.all_running().iter().map(|running| running.node.identity().cluster).collect();
        if clusters.len() != 1 || clusters.contains(&None) {
            self.world.history().violated(format_args!("the nodes are in clusters {clusters:?}"));
        }
    }
}

/// Mostly three nodes; sometimes five, sometimes one or two that come later.
fn shape() -> Shape {
    let (founders, latecomers) = match chance::below(20) {
        0..2 => (5, 0),
        2 => (3, 1),
        3 => (3, 2),
        _ => (3, 0),
    };
    let tuning = Tuning {
        snapshot_every: 30 + chance::below(200),
        keep_behind_snapshot: 5 + chance::below(40),
        // A few kilobytes in all: mostly many pieces, sometimes one.
        snapshot_piece_bytes: 1 << (6 + chance::below(9)),
        ..Tuning::default()
    };
    let slow_disks_permille = if chance::happens(500) { 0 } else { 500 };
    let is_true = chance::happens(500);
    // A clock of a machine is off by a ten-thousandth at most; what holds at a tenth holds there.
    let rate = |_| if is_true { TRUE_RATE } else { 900 + chance::below(201) };
    let rates = (0..founders + latecomers).map(rate).collect();
    let replacing = Replacing { lost_after: Duration::from_secs(1), interval: Duration::from_millis(500) };
    Shape { founders, latecomers, rates, policies: workload::first_policies(), tuning, replacing, slow_disks_permille }
}
