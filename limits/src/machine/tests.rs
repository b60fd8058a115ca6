//! The whole machine: against a model that copies everything, against its own replay, and part by part.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::algorithm::{self, CounterState};
use crate::buckets::{BucketCommand, BucketId};
use crate::command::{Charge, Decision, LimitState, PolicyOutcome, Run, SessionId};
use crate::members::Leaving;
use crate::policy::{Algorithm, Enforcement, KeyMatch, Limit, Owner, Policy, PolicyId, ValueMatch};
use crate::request::Request;
use crate::testing::{
    SECOND, SESSION, World, client, decision, limit, members, policy, policy_name, request, settings,
};

/// One thing that happens to a world. What is to be decided is matched when its turn comes.
#[derive(Clone, Debug)]
enum Step {
    Pass(u64),
    Tick,
    Send(Vec<Request>),
    Reset(Request),
    Change(PolicyChange),
    /// Registers the name of this number, or gives it back.
    Bucket(u8, bool),
    /// Sends the part so many places back again.
    Resend(usize),
    OpenSession,
}

fn requests() -> impl Strategy<Value = Request> {
    let id = prop::sample::select(&["a", "b", "c", "d", "e"]);
    let plan = prop::option::of(prop::sample::select(&["gold", "trial"]));
    let descriptor = (id, plan).prop_map(|(id, plan)| {
        let mut entries = vec![("client_id", id)];
        entries.extend(plan.map(|plan| ("plan", plan)));
        crate::testing::descriptor(&entries)
    });
    let hits = prop_oneof![5 => 1..3i64, 1 => Just(0), 1 => -2..0i64, 1 => 3..9i64];
    (prop::collection::vec(descriptor, 1..4), hits).prop_map(|(descriptors, hits)| Request {
        domain: "default".to_owned(),
        descriptors,
        hits,
    })
}

/// Windows are short, so that counters expire while others live.
fn policies() -> impl Strategy<Value = Vec<Policy>> {
    let algorithm = prop::sample::select(&crate::testing::ALGORITHMS);
    let limits = (algorithm, 1..8u64, 1..4u64);
    let one = (limits, any::<bool>(), prop_oneof![3 => Just(Enforcement::Enforce), 1 => Just(Enforcement::Shadow)]);
    let all = prop::collection::vec(one, 1..4);
    (all, any::<bool>()).prop_map(|(all, fallback)| {
        let mut policies = vec![];
        for (number, ((algorithm, hits, seconds), alone, enforcement)) in all.into_iter().enumerate() {
            let mut policy = Policy { enforcement, ..policy(&format!("p{number}")) };
            policy.limits = vec![limit("l", algorithm, hits, seconds * SECOND)];
            policy.limits.push(limit("wide", Algorithm::FixedWindow, 2 * hits, 5 * SECOND));
            if alone {
                policy.count_by = vec![];
            }
            if number == 1 {
                policy.matches = vec![KeyMatch { key: "plan".to_owned(), value: ValueMatch::Any }];
            }
            policy.fallback = fallback && number == 0;
            policies.push(policy);
        }
        policies
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let pass = prop_oneof![0..10u64, 0..SECOND, 0..10 * SECOND];
    let change = prop_oneof![
        policies().prop_map(|policies| PolicyChange::ReplaceAll(Owner::Api, policies)),
        policies().prop_map(|policies| PolicyChange::Put(Owner::Api, policies)),
        policies().prop_map(|policies| PolicyChange::Put(Owner::Files, policies)),
        Just(PolicyChange::Delete(Owner::Api, vec![policy_name("p0")])),
    ];
    let step = prop_oneof![
        6 => pass.prop_map(Step::Pass),
        2 => Just(Step::Tick),
        12 => prop::collection::vec(requests(), 1..5).prop_map(Step::Send),
        1 => requests().prop_map(Step::Reset),
        1 => (0..4u8, any::<bool>()).prop_map(|(name, creates)| Step::Bucket(name, creates)),
        2 => change.prop_map(Step::Change),
        2 => (0..70usize).prop_map(Step::Resend),
        1 => Just(Step::OpenSession),
    ];
    prop::collection::vec(step, 1..80)
}

/// Turns steps into batches as a node would: matched at the time, against the machine's rules.
struct Script {
    world: World,
    parts: Vec<Part>,
    session: SessionId,
}

impl Script {
    fn new(policies: Vec<Policy>) -> Self {
        // A share of four counters, so that it gets full.
        let settings = Settings { counters_max: 16, ..settings() };
        Self { world: World::with(settings, policies), parts: vec![], session: SESSION }
    }

    fn commands(&mut self, commands: Vec<Command>) -> Batch {
        self.world.sequence += 1;
        let (session, sequence) = (self.session, self.world.sequence);
        let part = Part::Commands { session, sequence, commands: Arc::new(commands) };
        self.parts.push(part.clone());
        self.world.batch(vec![part])
    }

    fn batch(&mut self, step: &Step) -> Batch {
        match step {
            Step::Pass(ns) => {
                self.world.pass(*ns);
                self.world.batch(vec![Part::RaiseFeatureLevel(u32::try_from(ns % 7).unwrap())])
            }
            Step::Tick => self.world.batch(vec![]),
            Step::Send(requests) => {
                let commands = requests.iter().map(|request| self.world.command(request)).collect();
                self.commands(commands)
            }
            Step::Reset(request) => {
                let matched = self.world.machine.rules().match_request(request);
                self.commands(vec![Command::Reset { revision: matched.revision, charges: matched.charges }])
            }
            Step::Change(change) => self.commands(vec![Command::ChangePolicies(change.clone())]),
            Step::Bucket(name, creates) => {
                let (name, id) = (format!("name-{name}"), BucketId(self.world.now.into()));
                let change = if *creates { BucketCommand::Create { name, id } } else { BucketCommand::Delete { name } };
                self.commands(vec![Command::Bucket(change), Command::Bucket(BucketCommand::Find { id })])
            }
            Step::Resend(back) => {
                let part = self.parts.iter().rev().nth(*back).cloned();
                self.world.batch(part.into_iter().collect())
            }
            Step::OpenSession => {
                self.session = SessionId(self.session.0 + 1);
                self.world.sequence = 0;
                self.world.batch(vec![Part::OpenSession {
                    node: 1,
                    run: Run { boot: self.session.0, name: 1 },
                    session: self.session,
                }])
            }
        }
    }
}

/// Counters that are never dropped, and decisions on a copy of all of them.
#[derive(Clone, Default)]
struct Model {
    counters: BTreeMap<crate::CounterId, CounterState>,
}

impl Model {
    fn decide(&mut self, rules: &Rules, now: ClusterTime, charges: &[Charge]) -> Decision {
        let enforced = |charge: &&Charge| rules.policy(charge.policy).unwrap().enforcement == Enforcement::Enforce;
        let fits = self.clone().charge(rules, now, charges.iter().filter(enforced)).1;
        let mut looks = charges.to_vec();
        for charge in &mut looks {
            charge.hits = 0;
        }
        if fits {
            self.charge(rules, now, charges.iter().filter(enforced));
            let shadows: BTreeSet<PolicyId> =
                charges.iter().filter(|charge| !enforced(charge)).map(|charge| charge.policy).collect();
            for shadow in shadows {
                let alone = || charges.iter().filter(|charge| charge.policy == shadow);
                if self.clone().charge(rules, now, alone()).1 {
                    self.charge(rules, now, alone());
                }
            }
        }
        let limits = self.clone().charge(rules, now, looks.iter()).0;
        Decision { admitted: fits, limits: limits.into() }
    }

    /// Charges one by one and says whether all fitted.
    fn charge<'a>(
        &mut self,
        rules: &Rules,
        now: ClusterTime,
        charges: impl Iterator<Item = &'a Charge>,
    ) -> (Vec<LimitState>, bool) {
        let mut standings = vec![];
        for charge in charges {
            for (index, id) in charge.counters.iter().enumerate() {
                let limit = rules.limit(charge, index).unwrap();
                let evaluation = algorithm::evaluate(self.counters.get(id).copied(), now, limit, charge.hits);
                if let Some(state) = evaluation.charged {
                    self.counters.insert(*id, state);
                }
                standings.push(evaluation.standing);
            }
        }
        let fits = standings.iter().all(|standing| !standing.exceeded);
        (standings, fits)
    }
}

proptest! {
    /// All or none; dropped counters never show. Without shares, policy changes and sessions, which have their own tests.
    #[test]
    fn decisions_equal_a_model_that_forgets_nothing(
        policies in policies(),
        steps in prop::collection::vec((0..4 * SECOND, requests()), 1..60),
    ) {
        let mut world = World::new(policies);
        let mut model = Model::default();
        for (pass, request) in steps {
            world.pass(pass);
            let rules = world.machine.rules();
            let charges = rules.match_request(&request).charges;
            if charges.is_empty() {
                continue;
            }
            let command = world.command(&request);
            let expected = model.decide(&rules, ClusterTime(world.now), &charges);
            let foretold = world.machine.evaluate(ClusterTime(world.now), &command);
            let (counters, sum) = (world.machine.state.counters.len(), world.machine.state.counters.sum());
            let outcome = world.decide(&request);
            prop_assert_eq!(&outcome, &foretold);
            let decided = decision(outcome);
            prop_assert_eq!(decided.admitted, expected.admitted);
            if decided.admitted {
                // The model looks after the whole request; the machine reports after each charge.
                let looked = decision(world.machine.evaluate(ClusterTime(world.now), &looking(&command)));
                prop_assert_eq!(looked.limits, expected.limits);
            } else {
                prop_assert_eq!(uncharged(&decided.limits), uncharged(&expected.limits));
                prop_assert!(world.machine.state.counters.len() <= counters);
                if world.machine.state.counters.len() == counters {
                    prop_assert_eq!(world.machine.state.counters.sum(), sum, "a denied request changed a counter");
                }
            }
        }
    }

    #[test]
    fn replay_equals_snapshot(policies in policies(), steps in steps(), cut in 0..80usize) {
        let mut script = Script::new(policies);
        let mut other = None;
        for (place, step) in steps.iter().enumerate() {
            if place == cut {
                let bytes = script.world.bytes();
                let loaded = StateMachine::decode(&bytes).unwrap();
                prop_assert_eq!(loaded.freeze().encode(), bytes);
                prop_assert_eq!(loaded.state_hash(), script.world.machine.state_hash());
                other = Some(loaded);
            }
            let batch = script.batch(step);
            let outcomes = script.world.machine.apply(&batch);
            if let Some(other) = &mut other {
                prop_assert_eq!(other.apply(&Batch::decode(&batch.encode()).unwrap()), outcomes);
                prop_assert_eq!(other.state_hash(), script.world.machine.state_hash());
                let look = Request { hits: 1, ..client("a", 1) };
                prop_assert_eq!(other.rules().match_request(&look), script.world.machine.rules().match_request(&look));
            }
        }
        if let Some(other) = other {
            prop_assert_eq!(other.freeze().encode(), script.world.bytes());
        }
    }

    #[test]
    fn frozen_stays_what_it_was(policies in policies(), steps in steps()) {
        let mut script = Script::new(policies);
        let mut frozen = vec![];
        for step in &steps {
            let copy = script.world.machine.freeze();
            frozen.push((copy.encode(), copy.state_hash(), copy));
            let batch = script.batch(step);
            script.world.machine.apply(&batch);
        }
        for (bytes, hash, copy) in frozen {
            prop_assert_eq!(copy.encode(), bytes);
            prop_assert_eq!(copy.state_hash(), hash);
        }
    }

    /// Parts come in any order within the window, and again and again; each counts once.
    #[test]
    fn resent_parts_count_once(
        hits in prop::collection::vec(1..4i64, 1..40),
        again in prop::collection::vec((0..40usize, 0..40usize), 0..80),
    ) {
        let wide = vec![limit("l", Algorithm::FixedWindow, 1_000_000, 3600 * SECOND)];
        let mut world = World::new(vec![Policy { limits: wide, ..policy("p") }]);
        let part = |(sequence, hits): (u64, &i64)| Part::Commands {
            session: SESSION,
            sequence,
            commands: Arc::new(vec![world.command(&client("a", *hits))]),
        };
        let mut parts: Vec<Part> = (2..).zip(&hits).map(part).collect();
        for (from, to) in &again {
            let resent = parts[from % parts.len()].clone();
            parts.insert(to % parts.len(), resent);
        }
        let mut first: BTreeMap<u64, PartOutcome> = BTreeMap::new();
        for part in parts {
            let Part::Commands { sequence, .. } = part else { unreachable!() };
            let batch = world.batch(vec![part]);
            let outcome = world.machine.apply(&batch).remove(0);
            prop_assert_eq!(first.entry(sequence).or_insert_with(|| outcome.clone()), &outcome);
        }
        let used: i64 = hits.iter().sum();
        prop_assert_eq!(world.remaining("a"), 1_000_000 - used.unsigned_abs());
    }
}

fn looking(command: &Command) -> Command {
    let Command::Decide { revision, mut charges } = command.clone() else { unreachable!() };
    for charge in &mut charges {
        charge.hits = 0;
    }
    Command::Decide { revision, charges }
}

fn uncharged(limits: &[LimitState]) -> Vec<(u64, u64)> {
    limits.iter().map(|limit| (limit.remaining, limit.reset_ns)).collect()
}

#[test]
fn only_the_first_founding_counts() {
    let mut machine = StateMachine::default();
    let found = |secret: u8, name: &str| {
        let settings = Settings { secret: [secret; 16], ..settings() };
        Batch { stamp: ClusterTime(1), parts: vec![Part::Found { settings, policies: vec![policy(name)] }] }
    };
    assert!(!machine.founded() && !machine.rules().founded());
    for batch in [found(1, "first"), found(2, "second")] {
        assert_eq!(machine.apply(&batch), [PartOutcome::Done]);
        assert!(machine.founded() && machine.rules().founded());
    }
    assert_eq!(machine.settings().secret, [1; 16]);
    let owners: Vec<_> = machine.rules().policies().map(|(_, owner, ..)| owner).collect();
    assert_eq!(owners, [Owner::Builtin]);
    let twin = World::with(Settings { secret: [1; 16], ..settings() }, vec![policy("first")]);
    let counters = |rules: &Rules| rules.match_request(&client("a", 1)).charges.remove(0).counters;
    assert_eq!(counters(&machine.rules()), counters(&twin.machine.rules()), "the secret of the founding is in use");
}

#[test]
fn before_the_founding_every_decision_is_a_rematch() {
    let mut world = World::with(Settings::default(), vec![policy("p")]);
    assert_eq!(world.decide(&client("a", 1)), Outcome::Rematch);
    let nothing = Command::Decide { revision: world.machine.revision(), charges: vec![].into() };
    assert_eq!(world.send(vec![nothing]), [Outcome::Rematch]);
}

#[test]
fn stamp_below_the_last_does_not_turn_time_back() {
    let mut world = World::new(vec![policy("p")]);
    world.pass(100 * SECOND).tick();
    let now = world.machine.now();
    world.machine.apply(&Batch { stamp: ClusterTime(5), parts: vec![] });
    assert_eq!(world.machine.now(), now);
}

#[test]
fn evaluate_looks_at_the_later_of_two_times() {
    let mut world = World::new(vec![policy("p")]);
    world.decide(&client("a", 10));
    let look = world.command(&client("a", 1));
    let admitted = |now: u64| decision(world.machine.evaluate(ClusterTime(now), &look)).admitted;
    assert!(!admitted(0) && !admitted(world.now) && admitted(world.now + 60 * SECOND));
}

#[test]
fn evaluate_of_a_change_foretells_it_and_changes_nothing() {
    let mut world = World::new(vec![policy("p")]);
    let change = PolicyChange::Put(Owner::Api, vec![policy("q")]);
    let before = world.bytes();
    let foretold = world.machine.evaluate(ClusterTime(0), &Command::ChangePolicies(change.clone()));
    assert_eq!(world.bytes(), before);
    assert_eq!(foretold, Outcome::Policies(world.change(change)));
}

#[test]
fn commands_of_one_part_see_each_other() {
    let mut world = World::new(vec![policy("p")]);
    let one = world.command(&client("a", 6));
    let change = PolicyChange::Put(Owner::Api, vec![Policy { fallback: true, ..policy("p") }]);
    let outcomes = world.send(vec![one.clone(), one.clone(), Command::ChangePolicies(change), one]);
    assert!(matches!(&outcomes[0], Outcome::Decided(Decision { admitted: true, .. })));
    assert!(matches!(&outcomes[1], Outcome::Decided(Decision { admitted: false, .. })));
    assert_eq!(outcomes[2..], [Outcome::Policies(PolicyOutcome::Applied { revision: 2 }), Outcome::Rematch]);
}

#[test]
fn feature_level_only_rises() {
    let mut world = World::new(vec![]);
    for (level, reached) in [(3, 3), (2, 3), (4, 4)] {
        let raise = world.batch(vec![Part::RaiseFeatureLevel(level)]);
        assert_eq!(world.machine.apply(&raise), [PartOutcome::Done]);
        assert_eq!(world.machine.feature_level(), reached);
    }
}

#[test]
fn part_of_an_unknown_session_charges_nothing() {
    let mut world = World::new(vec![policy("p")]);
    let commands = Arc::new(vec![world.command(&client("a", 1))]);
    let batch = world.batch(vec![Part::Commands { session: SessionId(9), sequence: 1, commands }]);
    assert_eq!(world.machine.apply(&batch), [PartOutcome::UnknownSession]);
    assert_eq!(world.remaining("a"), 10);
}

#[test]
fn member_gone_ends_its_session() {
    let mut world = World::new(vec![policy("p")]);
    world.machine.set_members(members(&[1, 2]));
    assert!(world.admits(&client("a", 1)));
    world.machine.set_members(members(&[2]));
    let batch = world.batch(vec![Part::Commands { session: SESSION, sequence: 99, commands: Arc::default() }]);
    assert_eq!(world.machine.apply(&batch), [PartOutcome::UnknownSession]);
    let again = world.batch(vec![Part::OpenSession { node: 1, run: Run { boot: 2, name: 1 }, session: SessionId(3) }]);
    assert_eq!(world.machine.apply(&again), [PartOutcome::UnknownSession], "an id that was removed never comes back");
}

#[test]
fn member_to_leave_is_kept_in_the_state_until_it_has_left() {
    let mut world = World::new(vec![policy("p")]);
    let decommission = |world: &mut World, node| {
        let batch = world.batch(vec![Part::Decommission { node }]);
        world.machine.apply(&batch)
    };
    assert_eq!(decommission(&mut world, 2), [PartOutcome::Leaving(Leaving::Intended)]);
    assert_eq!(decommission(&mut world, 1), [PartOutcome::Leaving(Leaving::Last)]);
    assert_eq!(decommission(&mut world, 9), [PartOutcome::Leaving(Leaving::Unknown)]);
    let loaded = StateMachine::decode(&world.bytes()).unwrap();
    assert_eq!(loaded.members(), world.machine.members());
    assert_eq!(loaded.members().leaving().keys().collect::<Vec<_>>(), [&2]);
    world.machine.set_members(members(&[1]));
    assert!(world.machine.members().leaving().is_empty());
    assert_eq!(decommission(&mut world, 2), [PartOutcome::Leaving(Leaving::Left)]);
}

#[test]
fn state_hash_changes_with_every_part_of_the_state() {
    let mut hashes = BTreeSet::new();
    let mut world = World::new(vec![policy("p")]);
    let mut note = |world: &World| assert!(hashes.insert(world.machine.state_hash()));
    note(&World::with(Settings { secret: [9; 16], ..settings() }, vec![policy("p")]));
    note(&World::with(Settings { counters_max: 9, ..settings() }, vec![policy("p")]));
    note(&world);
    world.pass(1).tick();
    note(&world);
    world.decide(&client("a", 1));
    note(&world);
    world.decide(&client("a", 1));
    note(&world);
    world.put(policy("q"));
    note(&world);
    let raise = world.batch(vec![Part::RaiseFeatureLevel(1)]);
    world.machine.apply(&raise);
    note(&world);
    let open = world.batch(vec![Part::OpenSession { node: 2, run: Run { boot: 1, name: 1 }, session: SessionId(2) }]);
    world.machine.apply(&open);
    note(&world);
    let leave = world.batch(vec![Part::Decommission { node: 2 }]);
    world.machine.apply(&leave);
    note(&world);
    world.machine.set_members(members(&[1]));
    note(&world);
}

#[test]
fn settings_and_rules_keep_the_secret_out_of_debug_output() {
    let world = World::new(vec![policy("p")]);
    let told = format!("{:?} {:?}", world.machine, world.machine.rules());
    assert!(!told.contains(&format!("{:?}", settings().secret)));
    assert!(!told.contains("116, 101, 115, 116"));
}

#[test]
fn frozen_copies_and_rules_go_to_other_threads() {
    fn goes<T: Send + Sync + 'static>() {}
    goes::<Frozen>();
    goes::<Rules>();
    goes::<StateMachine>();
}

#[test]
fn rules_already_handed_out_do_not_change() {
    let mut world = World::new(vec![policy("p")]);
    let before = world.machine.rules();
    world.put(policy("q"));
    assert_eq!((before.revision(), before.policies().count()), (1, 1));
    assert_eq!((world.machine.revision(), world.machine.rules().policies().count()), (2, 2));
}

#[test]
fn window_of_a_large_limit_is_exact_to_the_last_hit() {
    let day = 24 * 3600 * SECOND;
    for algorithm in crate::testing::ALGORITHMS {
        let limits = vec![Limit { window_ns: day, ..limit("day", algorithm, 1000, day) }];
        let mut world = World::new(vec![Policy { limits, count_by: vec![], ..policy("p") }]);
        let ask = request(1, &[&[("client_id", "any")]]);
        let admitted = (0..20_000).filter(|_| world.pass(1000).admits(&ask)).count();
        assert_eq!(admitted, 1000, "{algorithm:?}");
    }
}
