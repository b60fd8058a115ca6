//! The model: pods, disks, members, and everybody who moves them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use quorate_operator::cluster::findings::findings;
use quorate_operator::cluster::observed::{Founding, Membership, SeenClaim, SeenMember, SeenNode, SeenPod};
use quorate_operator::cluster::validate::{validate, voters_of};
use quorate_operator::cluster::{InFlight, Names, Observed, Plan, Step, Wanted, plan};
use serde_json::json;

const PODS_MAX: usize = 5;
const CLUSTER: &str = "c1";
/// The template that never gets ready.
const BAD: u8 = 9;
/// More than any number has disks on one path.
const GENERATIONS_MAX: u64 = 16;

/// What its owner changes.
#[derive(Clone, Copy, Debug)]
pub enum Change {
    /// A template that runs.
    GoodTemplate,
    /// A template that does not.
    BadTemplate,
    /// Another number of pods.
    Replicas(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pod {
    template: u8,
    up: bool,
}

/// A claim with its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Disk {
    generation: u8,
    /// Its node belongs to the cluster.
    joined: bool,
    /// Its node was told to leave, and stays out until it is started anew.
    retired: bool,
    /// The claim says so.
    marked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    ordinal: usize,
    generation: u8,
    voter: bool,
    leaving: bool,
}

impl Member {
    fn id(self) -> u64 {
        id(self.ordinal, self.generation)
    }
}

fn id(ordinal: usize, generation: u8) -> u64 {
    ordinal as u64 * GENERATIONS_MAX + u64::from(generation)
}

/// Wanted with 1, 3 and 5 pods.
static WANTED: LazyLock<[Wanted; 3]> = LazyLock::new(|| {
    [1, 3, 5].map(|replicas| {
        let cluster = json!({
            "apiVersion": "quorate.dev/v1alpha1", "kind": "RateLimitCluster",
            "metadata": {"name": "edge", "namespace": "shop", "uid": "u"},
            "spec": {"version": "0.1.0", "replicas": replicas},
        });
        validate(&serde_json::from_value(cluster).unwrap()).unwrap()
    })
});

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    pub faults_left: u8,
    changes_made: usize,
    replicas: usize,
    template: u8,
    /// The `StatefulSet`: pods and their template.
    set: Option<(usize, u8)>,
    /// Somebody scaled it by hand, and the operator has not yet put it right.
    by_hand: bool,
    pods: [Option<Pod>; PODS_MAX],
    disks: [Option<Disk>; PODS_MAX],
    /// The generation of the last disk of each number.
    generations: [u8; PODS_MAX],
    members: Vec<Member>,
    founding: Option<Vec<u64>>,
    founded: bool,
    /// The status tells the cluster's id.
    told_founded: bool,
    operation: Option<InFlight>,
}

impl World {
    /// A cluster was just asked for.
    pub fn nothing(replicas: usize) -> Self {
        Self {
            faults_left: 0,
            changes_made: 0,
            replicas,
            template: 0,
            set: None,
            by_hand: false,
            pods: [None; PODS_MAX],
            disks: [None; PODS_MAX],
            generations: [0; PODS_MAX],
            members: Vec::new(),
            founding: None,
            founded: false,
            told_founded: false,
            operation: None,
        }
    }

    /// A cluster as it is wanted.
    pub fn founded(replicas: usize) -> Self {
        let mut world = Self::nothing(replicas);
        for _ in 0..100 {
            world = world.round().unwrap();
        }
        assert!(world.is_as_wanted(), "{world:#?}");
        world
    }

    fn healthy(&self, member: &Member) -> bool {
        self.pods[member.ordinal].is_some_and(|pod| pod.up)
            && self.disks[member.ordinal].is_some_and(|disk| disk.joined && disk.generation == member.generation)
    }

    /// Healthy voters and all voters.
    fn votes(&self, members: &[Member]) -> (usize, usize) {
        let voters = members.iter().filter(|member| member.voter);
        (voters.clone().filter(|member| self.healthy(member)).count(), voters.count())
    }

    fn has_majority(&self, members: &[Member]) -> bool {
        let (healthy, voters) = self.votes(members);
        healthy * 2 > voters
    }

    fn leader(&self) -> Option<Member> {
        self.has_majority(&self.members)
            .then(|| self.members.iter().copied().find(|member| member.voter && self.healthy(member)))
            .flatten()
    }

    /// Enough disks are left for a majority; without, nobody could bring the cluster back.
    pub fn is_recoverable(&self) -> bool {
        let voters: Vec<_> = self.members.iter().filter(|member| member.voter).collect();
        let kept = voters.iter().filter(|voter| {
            self.disks[voter.ordinal].is_some_and(|disk| disk.joined && disk.generation == voter.generation)
        });
        let founders_are_there = self.founded
            || self.founding.as_ref().is_none_or(|ids| {
                ids.iter().all(|id| {
                    self.disks.iter().enumerate().any(|(o, d)| d.is_some_and(|d| *id == self::id(o, d.generation)))
                })
            });
        founders_are_there && (voters.is_empty() || kept.count() * 2 > voters.len())
    }

    /// Its owner puts a template that runs in place of one that does not.
    pub fn without_bad_template(&self) -> Self {
        let mut world = self.clone();
        if world.template == BAD {
            world.template = 0;
        }
        world
    }

    pub fn is_as_wanted(&self) -> bool {
        let pods = self.pods.iter().enumerate().all(|(ordinal, pod)| {
            pod.is_some_and(|pod| pod.up && pod.template == self.template) == (ordinal < self.replicas)
                && pod.is_some() == (ordinal < self.replicas)
                // A claim that was never marked may hold anybody's data, so it is kept.
                && self.disks[ordinal].is_none_or(|disk| ordinal < self.replicas || !disk.marked)
        });
        let ordinals: Vec<_> = self.members.iter().map(|member| member.ordinal).collect();
        pods && ordinals == (0..self.replicas).collect::<Vec<_>>()
            && self.votes(&self.members) == (voters_of(self.replicas), voters_of(self.replicas))
            && self.operation.is_none()
            && self.plan().step.is_none()
    }

    fn observed(&self) -> Observed {
        let names = Names::new("edge");
        let node = |ordinal: usize, pod: &Pod| {
            let disk = self.disks[ordinal].filter(|_| pod.up)?;
            Some(SeenNode {
                id: id(ordinal, disk.generation),
                cluster: (disk.joined || disk.retired).then(|| CLUSTER.to_owned()),
                retired: disk.retired,
            })
        };
        let pods = self.pods.iter().enumerate().filter_map(|(ordinal, pod)| {
            let pod = pod.as_ref()?;
            let node = node(ordinal, pod);
            let ready = node.as_ref().is_some_and(|node| node.cluster.is_some() && !node.retired);
            let uid = "u".to_owned();
            Some((ordinal, SeenPod { uid, template: pod.template.to_string(), ready, terminating: false, node }))
        });
        let claims = self.disks.iter().enumerate().filter_map(|(ordinal, disk)| {
            let cluster = disk.as_ref()?.marked.then(|| CLUSTER.to_owned());
            Some((ordinal, SeenClaim { uid: "u".to_owned(), cluster, goes_along: false, terminating: false }))
        });
        let someone_knows = self.members.iter().any(|member| self.healthy(member));
        Observed {
            replicas: self.set.map(|(replicas, _)| replicas),
            pods: pods.collect(),
            claims: claims.collect(),
            founding: self.founding.as_ref().map(|ids| {
                Founding::With(
                    ids.iter().map(|id| (*id, names.pod(usize::try_from(id / GENERATIONS_MAX).unwrap()))).collect(),
                )
            }),
            membership: self.leader().map(|leader| Membership {
                leader: leader.id(),
                term: 1,
                members: self.members.iter().map(|member| self.seen_member(&names, member)).collect(),
            }),
            voters: self.members.iter().filter(|m| m.voter && someone_knows).map(|m| (m.id(), m.ordinal)).collect(),
            in_the_way: None,
            refused: None,
            was_founded: self.told_founded,
            operation: self.operation,
        }
    }

    fn seen_member(&self, names: &Names, member: &Member) -> SeenMember {
        let healthy = self.healthy(member);
        SeenMember {
            id: member.id(),
            name: names.pod(member.ordinal),
            voter: member.voter,
            reachable: healthy,
            caught_up: healthy,
            version: None,
        }
    }

    pub fn plan(&self) -> Plan {
        plan(&WANTED[self.replicas / 2], &self.template.to_string(), &self.observed())
    }

    /// What the conditions say now: each of the five once, with a reason that it can bear.
    pub fn told(&self) -> Result<(), String> {
        let (wanted, mut seen, plan) = (&WANTED[self.replicas / 2], self.observed(), self.plan());
        for (stalled, refused) in [(false, None), (true, None), (false, Some("no".to_owned()))] {
            seen.refused = refused;
            let findings = findings(wanted, &seen, &plan, stalled);
            let mut conditions: Vec<_> = findings.iter().map(|finding| finding.condition).collect();
            conditions.dedup();
            let wrong = findings.iter().find(|f| !f.reason.conditions().contains(&(f.condition, f.status)));
            if conditions.len() != 5 || wrong.is_some() {
                return Err(format!("what is told is no language: {findings:#?}\nof {seen:#?}\n{plan:#?}"));
            }
        }
        Ok(())
    }

    /// Everything that can happen next.
    pub fn next(&self, changes: &[Change]) -> Result<Vec<(String, Self)>, String> {
        if self.generations.iter().any(|generation| u64::from(*generation) >= GENERATIONS_MAX / 2) {
            return Err(format!("disks come and go without end\n{self:#?}"));
        }
        let mut next = vec![
            ("the operator".to_owned(), self.operator()?),
            ("the StatefulSet's controller".to_owned(), self.controller()?),
            ("autopilot".to_owned(), self.autopilot()),
        ];
        for ordinal in 0..PODS_MAX {
            next.push((format!("node {ordinal} starts"), self.starts(ordinal)));
        }
        if let Some(change) = changes.get(self.changes_made) {
            next.push((format!("{change:?}"), self.changed(*change)));
        }
        if self.faults_left > 0 {
            let broken = Self { faults_left: self.faults_left - 1, ..self.clone() };
            next.extend((0..PODS_MAX).map(|ordinal| (format!("node {ordinal} crashes"), broken.crashes(ordinal))));
            next.extend((0..PODS_MAX).map(|ordinal| (format!("disk {ordinal} is lost"), broken.loses_disk(ordinal))));
            if let Some((_, template)) = broken.set {
                let set = Some((1, template));
                next.push(("kubectl scale sts --replicas=1".to_owned(), Self { set, by_hand: true, ..broken }));
            }
        }
        next.retain(|(_, world)| world != self);
        Ok(next)
    }

    /// Everybody does their part once.
    pub fn round(&self) -> Result<Self, String> {
        let mut world = self.clone();
        for ordinal in 0..PODS_MAX {
            world = world.starts(ordinal);
        }
        world.autopilot().operator()?.controller()
    }

    fn changed(&self, change: Change) -> Self {
        let mut world = Self { changes_made: self.changes_made + 1, ..self.clone() };
        match change {
            Change::GoodTemplate => world.template = 1,
            Change::BadTemplate => world.template = BAD,
            Change::Replicas(replicas) => world.replicas = replicas,
        }
        world
    }

    fn starts(&self, ordinal: usize) -> Self {
        let mut world = self.clone();
        if let Some(pod) = world.pods[ordinal].as_mut().filter(|pod| !pod.up && pod.template != BAD) {
            pod.up = true;
            if let Some(disk) = &mut world.disks[ordinal] {
                disk.retired = false;
            }
        }
        world
    }

    fn crashes(&self, ordinal: usize) -> Self {
        let mut world = self.clone();
        if let Some(pod) = &mut world.pods[ordinal] {
            pod.up = false;
        }
        world
    }

    /// The pod starts again on an empty disk.
    fn loses_disk(&self, ordinal: usize) -> Self {
        let mut world = self.crashes(ordinal);
        if world.disks[ordinal].is_some() {
            world.generations[ordinal] += 1;
            world.disks[ordinal] =
                Some(Disk { generation: world.generations[ordinal], joined: false, retired: false, marked: false });
        }
        world
    }

    /// One write of the operator, and then it may stop: the operation first, then the objects, then the step.
    fn operator(&self) -> Result<Self, String> {
        let plan = self.plan();
        let mut world = self.clone();
        let told_founded = self.told_founded || self.observed().cluster_id().is_some();
        if (plan.operation, told_founded) != (self.operation, self.told_founded) {
            (world.operation, world.told_founded) = (plan.operation, told_founded);
            return Ok(world);
        }
        if let Some(pods) = plan.pods
            && self.set != Some((pods, self.template))
        {
            world.set = Some((pods, self.template));
            world.by_hand = false;
            // As an eviction: Kubernetes acts upon it within milliseconds, and what breaks after that has not been foreseen.
            if self.set.is_some_and(|(before, _)| pods < before) {
                world.pods.iter_mut().skip(pods).for_each(|pod| *pod = None);
                self.check_majority(&world, "the operator let the StatefulSet shrink")?;
            }
            return Ok(world);
        }
        match plan.step {
            None => {}
            Some(Step::RecordFounding(Founding::With(members))) => {
                assert!(self.founding.is_none() && !self.founded, "recorded twice");
                world.founding = Some(members.into_keys().collect());
            }
            Some(Step::Bootstrap { members, .. }) => world.found(&members)?,
            Some(Step::MarkClaim { claim, .. }) => {
                if let Some(disk) = &mut world.disks[claim] {
                    disk.marked = true;
                }
            }
            Some(Step::Decommission { id }) => {
                let last = self.members.iter().all(|member| member.id() == id || member.leaving);
                if last {
                    return Err(format!("the last member that stays was to leave\n{self:#?}"));
                }
                for member in world.members.iter_mut().filter(|member| member.id() == id) {
                    member.leaving = true;
                }
            }
            Some(Step::Evict { pod, .. } | Step::DeletePod { pod, .. }) => {
                world.pods[pod] = None;
                self.check_majority(&world, &format!("pod {pod} was taken"))?;
            }
            Some(Step::DeleteClaim { claim, .. }) => {
                let needed = world.members.iter().any(|member| member.ordinal == claim) || world.pods[claim].is_some();
                if needed {
                    return Err(format!("claim {claim} is needed\n{self:#?}"));
                }
                world.disks[claim] = None;
            }
            Some(step) => return Err(format!("{step:?} has no place in this world\n{self:#?}")),
        }
        Ok(world)
    }

    /// Founds the cluster as it was asked for; asked again it does nothing.
    fn found(&mut self, members: &BTreeMap<u64, String>) -> Result<(), String> {
        if self.founded {
            return Ok(());
        }
        if self.founding.as_deref() != Some(&members.keys().copied().collect::<Vec<_>>()[..]) {
            return Err(format!("another founding than the one recorded: {members:?}\n{self:#?}"));
        }
        let voters = voters_of(members.len());
        for (i, id) in members.keys().enumerate() {
            let ordinal = usize::try_from(id / GENERATIONS_MAX).unwrap();
            let there = self.disks[ordinal].filter(|disk| self::id(ordinal, disk.generation) == *id);
            let (Some(mut disk), Some(Pod { up: true, .. })) = (there, self.pods[ordinal]) else { return Ok(()) };
            disk.joined = true;
            self.disks[ordinal] = Some(disk);
            self.members.push(Member { ordinal, generation: disk.generation, voter: i < voters, leaving: false });
        }
        self.founded = true;
        Ok(())
    }

    /// The `StatefulSet`'s controller: pods beyond go, missing ones come, with their claims.
    fn controller(&self) -> Result<Self, String> {
        let Some((replicas, template)) = self.set else { return Ok(self.clone()) };
        let mut world = self.clone();
        for ordinal in 0..PODS_MAX {
            if ordinal >= replicas {
                world.pods[ordinal] = None;
            } else if world.pods[ordinal].is_none() {
                world.pods[ordinal] = Some(Pod { template, up: false });
                if world.disks[ordinal].is_none() {
                    world.generations[ordinal] += 1;
                    world.disks[ordinal] = Some(Disk {
                        generation: world.generations[ordinal],
                        joined: false,
                        retired: false,
                        marked: false,
                    });
                }
            }
        }
        if !self.by_hand {
            self.check_majority(&world, "the StatefulSet shrank")?;
        }
        Ok(world)
    }

    /// A majority that there was is still there. A voter that is alone has none.
    fn check_majority(&self, after: &Self, what: &str) -> Result<(), String> {
        let alone = self.votes(&self.members).1 == 1 && self.replicas == 1;
        if self.has_majority(&self.members) && !after.has_majority(&after.members) && !alone {
            return Err(format!("{what}, and with it the majority\n{self:#?}"));
        }
        Ok(())
    }

    /// The nodes' own autopilot: one change of the membership, if the leader and the members after it have a majority.
    fn autopilot(&self) -> Self {
        if self.leader().is_none() {
            return self.clone();
        }
        for mut next in [self.departs(), self.swaps(), self.joins(), self.promotes()].into_iter().flatten() {
            next.members.sort_unstable();
            if next.has_majority(&next.members) {
                return next;
            }
        }
        self.clone()
    }

    /// A member that is to leave is out. Its node is told, archives its data, and is a stranger once it starts anew.
    fn departs(&self) -> Option<Self> {
        let gone = *self.members.iter().find(|member| member.leaving)?;
        let mut next = self.clone();
        next.members.retain(|member| *member != gone);
        // Who votes goes on voting, so there may be two.
        let voters = next.members.iter().filter(|member| member.voter).count();
        let able = |member: &&mut Member| !member.voter && !member.leaving && self.healthy(member);
        let count = next.members.len();
        let mut able: Vec<&mut Member> = next.members.iter_mut().filter(able).collect();
        let most = voters_of(count).min(voters_of(voters + able.len()));
        able.iter_mut().take(most.saturating_sub(voters)).for_each(|member| member.voter = true);
        if next.members.iter().all(|member| !member.voter) {
            return None;
        }
        let kept = self.disks[gone.ordinal].is_some_and(|disk| disk.generation == gone.generation);
        if kept {
            next.generations[gone.ordinal] += 1;
            let generation = next.generations[gone.ordinal];
            let marked = self.disks[gone.ordinal].is_some_and(|disk| disk.marked);
            next.disks[gone.ordinal] = Some(Disk { generation, joined: false, retired: true, marked });
        }
        Some(next)
    }

    /// A node that runs and is no member, under a name that a member has or that is new.
    fn stranger(&self, known_name: bool) -> Option<(usize, Disk)> {
        self.disks.iter().enumerate().find_map(|(ordinal, disk)| {
            let disk = disk.filter(|disk| !disk.joined && !disk.retired)?;
            let known = self.members.iter().any(|member| member.ordinal == ordinal);
            (known == known_name && self.pods[ordinal].is_some_and(|pod| pod.up)).then_some((ordinal, disk))
        })
    }

    /// A lost disk: the old member out, the new one in its place, at once.
    fn swaps(&self) -> Option<Self> {
        let (ordinal, disk) = self.stranger(true)?;
        let mut next = self.clone();
        for member in next.members.iter_mut().filter(|member| member.ordinal == ordinal) {
            member.generation = disk.generation;
            member.leaving = false;
        }
        next.disks[ordinal] = Some(Disk { joined: true, ..disk });
        Some(next)
    }

    fn joins(&self) -> Option<Self> {
        let (ordinal, disk) = self.stranger(false)?;
        let mut next = self.clone();
        next.members.push(Member { ordinal, generation: disk.generation, voter: false, leaving: false });
        next.disks[ordinal] = Some(Disk { joined: true, ..disk });
        Some(next)
    }

    /// The largest odd number of voters that can be had.
    fn promotes(&self) -> Option<Self> {
        let (_, voters) = self.votes(&self.members);
        let ready: Vec<u64> = self
            .members
            .iter()
            .filter(|member| !member.voter && !member.leaving && self.healthy(member))
            .map(|member| member.id())
            .collect();
        let most = voters_of(self.members.len()).min(voters_of(voters + ready.len()));
        let chosen: BTreeSet<u64> = ready.into_iter().take(most.saturating_sub(voters)).collect();
        let mut next = self.clone();
        for member in &mut next.members {
            member.voter = member.voter || chosen.contains(&member.id());
        }
        (!chosen.is_empty()).then_some(next)
    }
}
