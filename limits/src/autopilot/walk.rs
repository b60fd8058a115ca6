//! Every world of up to five hosts that faults, operators and the planner can lead to, walked breadth-first.
//!
//! Raft itself is taken for granted: an entry is committed when a majority that can be reached has it, and only a node
//! whose log holds what a majority holds is elected. The planner's changes are the only ones. Each state is held against
//! what must always be true, and from each one, once nothing breaks any more, the cluster must come to what was wanted.

use std::collections::VecDeque;
use std::io::Write as _;

use super::*;

/// An id is its host's number and, times this, how many disks the host had before.
const HOSTS_MAX: u32 = 8;
/// A set of ids.
type Ids = u64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Up,
    Down,
    /// Runs, and is cut off from all others.
    Cut,
    /// Its disk is an older copy: the node is refused and does not run.
    Older,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Host {
    id: u32,
    way: Way,
    /// The last configuration in its log; none on an empty disk.
    has: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Config {
    voters: Ids,
    /// The voters to come, in a joint configuration.
    next: Option<Ids>,
    learners: Ids,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct World {
    hosts: Vec<Host>,
    /// Committed configurations; those that every log has left behind are forgotten.
    configs: Vec<Config>,
    leader: Option<usize>,
    silent: Ids,
    leaving: Ids,
    /// Those of them that have been about to leave for long enough.
    drained: Ids,
    removed: Ids,
    interval_over: bool,
    faults_left: u8,
    /// Whether nobody was told to leave yet.
    undisturbed: bool,
}

fn bit(id: u32) -> Ids {
    1 << id
}

fn ids(set: Ids) -> impl Iterator<Item = u32> {
    (0..Ids::BITS).filter(move |id| set & bit(*id) != 0)
}

fn set(ids: &BTreeSet<u64>) -> Ids {
    ids.iter().map(|id| bit(u32::try_from(*id).unwrap())).fold(0, |set, id| set | id)
}

fn name(id: u32) -> String {
    format!("node-{}", id % HOSTS_MAX)
}

impl Config {
    fn all(self) -> Ids {
        self.voters | self.next.unwrap_or(0) | self.learners
    }

    fn halves(self) -> impl Iterator<Item = Ids> {
        [Some(self.voters), self.next].into_iter().flatten()
    }

    /// Whether these voters are enough, in each half.
    fn is_quorum(self, voters: Ids) -> bool {
        self.halves().all(|half| (half & voters).count_ones() > half.count_ones() / 2)
    }
}

impl World {
    fn new(founders: usize, others: usize, faults_left: u8) -> Self {
        let host = |number: usize| Host {
            id: u32::try_from(number).unwrap(),
            way: Way::Up,
            has: (number < founders).then_some(0),
        };
        let voters = (1 << founders) - 1;
        Self {
            hosts: (0..founders + others).map(host).collect(),
            configs: vec![Config { voters, next: None, learners: 0 }],
            leader: Some(0),
            silent: 0,
            leaving: 0,
            drained: 0,
            removed: 0,
            interval_over: true,
            faults_left,
            undisturbed: true,
        }
    }

    fn last(&self) -> usize {
        self.configs.len() - 1
    }

    fn config(&self) -> Config {
        self.configs[self.last()]
    }

    fn host_of(&self, id: u32) -> Option<&Host> {
        self.hosts.iter().find(|host| host.id == id)
    }

    /// The node that came to the host of one whose disk was lost, and stays.
    fn heir(&self, id: u32) -> Option<u32> {
        let host = self.hosts.iter().find(|host| host.id != id && host.id % HOSTS_MAX == id % HOSTS_MAX)?;
        (host.way == Way::Up && (self.leaving | self.removed) & bit(host.id) == 0).then_some(host.id)
    }

    fn those(&self, which: impl Fn(&Host) -> bool) -> Ids {
        self.hosts.iter().filter(|host| which(host)).fold(0, |set, host| set | bit(host.id))
    }

    fn reachable(&self) -> Ids {
        self.those(|host| host.way == Way::Up)
    }

    /// Members that can take part in the next decision.
    fn ready(&self) -> Ids {
        self.those(|host| host.way == Way::Up && host.has == Some(self.last()))
    }

    fn observed(&self, leader: usize) -> Observation {
        let config = self.config();
        let (reachable, ready) = (self.reachable(), self.ready());
        let member = |id: u32| Member {
            id: id.into(),
            name: name(id),
            voter: config.voters & bit(id) != 0,
            leaving: (self.leaving & bit(id) != 0)
                .then(|| Duration::from_hours(u64::from(self.drained & bit(id) != 0))),
            caught_up: self.host_of(id).is_some_and(|host| host.has == Some(self.last())),
            silent: (reachable & bit(id) == 0).then(|| Duration::from_hours(u64::from(self.silent & bit(id) != 0))),
        };
        assert!(ready & bit(self.hosts[leader].id) != 0, "{self:?}");
        Observation {
            leader: self.hosts[leader].id.into(),
            members: ids(config.all()).map(member).collect(),
            joint: config.next.is_some(),
            candidates: ids(reachable & !config.all()).map(|id| Candidate { name: name(id), id: id.into() }).collect(),
            removed: ids(self.removed).map(u64::from).collect(),
            since_swap: (!self.interval_over).then_some(Duration::ZERO),
            replacing: Replacing::default(),
            drain: Duration::from_secs(10),
        }
    }

    /// Sets straight what follows from what just happened.
    fn settled(mut self) -> Self {
        let leads = |host: &Host| host.way == Way::Up && self.config().all() & bit(host.id) != 0;
        self.leader = self.leader.filter(|leader| leads(&self.hosts[*leader]));
        self.silent &= self.config().all() & !self.reachable();
        let oldest = self.hosts.iter().filter_map(|host| host.has).min().unwrap_or(0);
        self.configs.drain(..oldest);
        for has in self.hosts.iter_mut().filter_map(|host| host.has.as_mut()) {
            *has -= oldest;
        }
        self
    }

    fn with(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut next = self.clone();
        change(&mut next);
        next.settled()
    }

    /// What may happen next.
    fn steps(&self) -> Vec<Self> {
        let mut next = Vec::new();
        if self.faults_left > 0 {
            self.faults(&mut next);
        }
        for (number, host) in self.hosts.iter().enumerate() {
            match host.way {
                Way::Down | Way::Cut => next.push(self.with(|world| world.hosts[number].way = Way::Up)),
                Way::Older => next.push(self.with(|world| world.empty(number))),
                Way::Up if self.removed & bit(host.id) != 0 => next.push(self.with(|world| world.empty(number))),
                Way::Up if self.leader.is_none() && self.can_win(number) => {
                    next.push(self.with(|world| world.leader = Some(number)));
                }
                Way::Up if self.is_behind(host) => {
                    next.push(self.with(|world| world.hosts[number].has = Some(world.last())));
                }
                Way::Up => {}
            }
        }
        next.push(self.with(Self::pass_time));
        next.extend(self.carry_out());
        next
    }

    fn faults(&self, next: &mut Vec<Self>) {
        let mut fault = |change: &dyn Fn(&mut Self)| {
            next.push(self.with(|world| {
                world.faults_left -= 1;
                change(world);
            }));
        };
        for (number, host) in self.hosts.iter().enumerate() {
            if host.way == Way::Up {
                fault(&|world| world.hosts[number].way = Way::Down);
                fault(&|world| world.hosts[number].way = Way::Cut);
            }
            if host.has.is_some() && host.way != Way::Older && self.survives_without(host.id) {
                fault(&|world| world.empty(number));
                fault(&|world| world.hosts[number].way = Way::Older);
            }
        }
        let (all, leads) = (self.config().all(), self.leader.is_some() && self.config().is_quorum(self.ready()));
        for id in ids(all & !self.leaving).filter(|id| leads && all & !self.leaving & !bit(*id) != 0) {
            fault(&|world| {
                world.leaving |= bit(id);
                world.undisturbed = false;
            });
        }
    }

    /// The disk is lost or put aside; the host goes on under a new id once it is up.
    fn empty(&mut self, number: usize) {
        let host = &mut self.hosts[number];
        let way = if host.way == Way::Up { Way::Up } else { Way::Down };
        *host = Host { id: host.id + HOSTS_MAX, way, has: None };
    }

    /// Disks that hold what their nodes acknowledged.
    fn intact(&self) -> Ids {
        self.those(|host| host.has.is_some() && host.way != Way::Older)
    }

    /// Whether a majority would keep its disks. What a majority lost no planner can bring back.
    fn survives_without(&self, id: u32) -> bool {
        self.config().is_quorum(self.intact() & !bit(id))
    }

    fn pass_time(&mut self) {
        self.silent = self.config().all() & !self.reachable();
        self.interval_over = true;
        self.drained = self.leaving;
    }

    fn is_behind(&self, host: &Host) -> bool {
        self.leader.is_some() && self.config().all() & bit(host.id) != 0 && host.has != Some(self.last())
    }

    fn can_win(&self, number: usize) -> bool {
        let Some(has) = self.hosts[number].has else { return false };
        let config = self.configs[has];
        let grants = self.those(|host| host.way == Way::Up && host.has.is_some_and(|other| other <= has));
        let stands = (config.voters | config.next.unwrap_or(0)) & bit(self.hosts[number].id) != 0;
        stands && config.is_quorum(grants)
    }

    /// Carries out what the leader plans, one committed entry at a time.
    fn carry_out(&self) -> Option<Self> {
        let leader = self.leader?;
        if !self.config().is_quorum(self.ready()) {
            return None;
        }
        let config = self.config();
        Some(match plan(&self.observed(leader)).change? {
            Change::FinishJoint => {
                let next = config.next.unwrap();
                self.commit(Config { voters: next, next: None, learners: config.learners })
            }
            Change::AddLearner { id, .. } => {
                let id = bit(u32::try_from(id).unwrap());
                assert!(id & (self.removed | config.all()) == 0, "{self:?}");
                self.commit(Config { learners: config.learners | id, ..config })
            }
            Change::SetVoters { voters, drop } => {
                let (voters, drop) = (set(&voters), set(&drop));
                assert!((voters | drop) & !config.all() == 0 && voters & drop == 0, "{self:?}");
                assert!(drop & !(self.leaving | self.silent) == 0, "one that is there is dropped unasked: {self:?}");
                assert!(drop & bit(self.hosts[leader].id) == 0, "a leader drops itself: {self:?}");
                assert!(drop & self.reachable() & !self.drained == 0, "one that still answers is dropped: {self:?}");
                for id in ids(drop & config.voters) {
                    let heir = self.heir(id).filter(|heir| voters & bit(*heir) == 0);
                    assert_eq!(heir, None, "{id} goes before its heir can take its place: {self:?}");
                }
                let next = (voters != config.voters).then_some(voters);
                self.commit(Config { voters: config.voters, next, learners: config.learners & !voters & !drop })
            }
            Change::HandOver { to } => {
                let to = self.hosts.iter().position(|host| u64::from(host.id) == to).unwrap();
                assert!(self.ready() & config.voters & bit(self.hosts[to].id) != 0, "{self:?}");
                self.with(|world| world.leader = Some(to))
            }
        })
    }

    fn commit(&self, config: Config) -> Self {
        assert!(config.is_quorum(self.ready()), "below quorum by our own hand: {config:?} in {self:?}");
        let ready = self.ready();
        self.with(|world| {
            let dropped = world.config().all() & !config.all();
            world.configs.push(config);
            let last = world.last();
            for host in world.hosts.iter_mut().filter(|host| ready & bit(host.id) != 0) {
                host.has = Some(last);
            }
            world.removed |= dropped;
            world.leaving &= config.all();
            world.drained &= world.leaving;
            let stays = |id: u32| ids(config.all()).any(|other| other % HOSTS_MAX == id % HOSTS_MAX);
            if ids(dropped).any(stays) {
                world.interval_over = false;
            }
        })
    }

    /// What must be true in every state.
    fn hold(&self, voters_min: u32) {
        let last = self.config();
        for (version, config) in self.configs.iter().enumerate().take(self.last()) {
            let left_behind = self.those(|host| host.way != Way::Older && host.has.is_some_and(|has| has <= version));
            assert!(!config.is_quorum(left_behind), "two quorums: version {version} of {self:?}");
        }
        for half in last.halves() {
            let names: BTreeSet<u32> = ids(half).map(|id| id % HOSTS_MAX).collect();
            assert_eq!(names.len(), ids(half).count(), "a name votes twice: {self:?}");
            assert!(!self.undisturbed || half.count_ones() >= voters_min, "fewer than {voters_min} voters: {self:?}");
        }
        assert_eq!(last.all() & self.removed, 0, "a removed id is a member: {self:?}");
        assert_eq!(last.voters & last.learners, 0, "{self:?}");
    }

    /// Nothing breaks any more and everything comes back: the cluster must come to what is wanted.
    fn converge(&self) -> u64 {
        let mut world = self.clone();
        for steps in 0..80 {
            let before = world.clone();
            for number in 0..world.hosts.len() {
                world = world.with(|world| match world.hosts[number].way {
                    Way::Older => world.empty(number),
                    Way::Up if world.removed & bit(world.hosts[number].id) != 0 => world.empty(number),
                    _ => {}
                });
                world = world.with(|world| world.hosts[number].way = Way::Up);
            }
            if world.leader.is_none() {
                world.leader = (0..world.hosts.len()).find(|number| world.can_win(*number));
            }
            for number in 0..world.hosts.len() {
                if world.is_behind(&world.hosts[number]) {
                    world = world.with(|world| world.hosts[number].has = Some(world.last()));
                }
            }
            world = world.with(Self::pass_time);
            world = world.carry_out().unwrap_or(world);
            if world == before {
                world.hold_wanted(self);
                return steps;
            }
        }
        panic!("does not come to rest: {self:?}, at last {world:?}");
    }

    fn hold_wanted(&self, from: &Self) {
        let told = || format!("{self:?}, from {from:?}");
        let leader = self.leader.unwrap_or_else(|| panic!("nobody leads: {}", told()));
        assert_eq!(plan(&self.observed(leader)).waits, [], "{}", told());
        assert_eq!(self.config().all(), self.those(|_| true), "not exactly the hosts are members: {}", told());
        assert_eq!((self.config().next, self.leaving), (None, 0), "{}", told());
        let voters = self.config().voters.count_ones() as usize;
        assert!(voters >= largest_odd(self.hosts.len().min(VOTERS_MAX)), "too few voters: {}", told());
    }
}

/// Walks all that can follow; the states seen, and the most steps one took to come to what is wanted.
fn walk(founders: usize, others: usize, faults: u8) -> (usize, u64) {
    let start = World::new(founders, others, faults);
    let voters_min = u32::try_from(founders.min(3)).unwrap();
    let mut seen = BTreeSet::from([start.clone()]);
    let mut open = VecDeque::from([start]);
    let mut longest = 0;
    while let Some(world) = open.pop_front() {
        world.hold(voters_min);
        longest = longest.max(world.converge());
        for next in world.steps() {
            if seen.insert(next.clone()) {
                open.push_back(next);
            }
        }
    }
    (seen.len(), longest)
}

fn walk_all(worlds: &[(usize, usize, u8)]) {
    for (founders, others, faults) in worlds {
        let (states, longest) = walk(*founders, *others, *faults);
        // Past the capture, so that it is seen when the test passes.
        let _ = writeln!(
            std::io::stderr().lock(),
            "figure: autopilot, {founders} founders, {others} that join, {faults} faults: {states} states, each safe, at \
             rest after at most {longest} steps"
        );
    }
}

#[test]
fn every_world_of_three_hosts_stays_safe_and_comes_to_what_is_wanted() {
    walk_all(&[(3, 0, 4), (2, 1, 3), (1, 2, 3), (1, 1, 3)]);
}

#[test]
fn every_world_of_four_hosts_stays_safe_and_comes_to_what_is_wanted() {
    walk_all(&[(3, 1, 2), (4, 0, 2)]);
}

#[test]
fn every_world_of_five_hosts_stays_safe_and_comes_to_what_is_wanted() {
    walk_all(&[(3, 2, 2), (5, 0, 2)]);
}
