//! Every path through a small world: a Kubernetes with one cluster, whose nodes crash, lose disks and are scaled by hand,
//! whose spec changes, and whose operator stops after each of its writes. The planner is the product's own; the rest
//! (`world.rs`) is a model as harsh as the real thing, or harsher.
//!
//! On each path: no healthy majority is ever lost by a pod that the operator took away, a claim is deleted only when
//! nobody needs its data, and a cluster is founded once. From each state: without further faults everything comes to be
//! as it is wanted. The number of states is printed.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

mod world;

use std::collections::{HashMap, HashSet, VecDeque};

use world::{Change, World};

/// More rounds than any way home takes.
const ROUNDS_MAX: usize = 200;

#[test]
fn from_nothing_through_faults_there_is_a_way_to_what_is_wanted() {
    walk("from nothing", World::nothing(3), &[], 2);
}

#[test]
fn rollout_through_a_template_that_does_not_run_keeps_the_majority_and_can_be_mended() {
    walk("rollout", World::founded(3), &[Change::BadTemplate, Change::GoodTemplate], 2);
}

#[test]
fn pod_of_its_own_is_rolled_and_grows() {
    walk("one pod", World::founded(1), &[Change::GoodTemplate, Change::Replicas(3)], 1);
}

#[test]
fn three_to_one_and_back_keeps_the_majority() {
    walk("3 to 1 to 3", World::founded(3), &[Change::Replicas(1), Change::Replicas(3)], 1);
}

#[test]
fn three_to_five_and_back_keeps_the_majority() {
    walk("3 to 5 to 3", World::founded(3), &[Change::Replicas(5), Change::Replicas(3)], 1);
}

#[test]
fn five_are_rolled_while_they_shrink() {
    walk("5 to 3 with a rollout", World::founded(5), &[Change::GoodTemplate, Change::Replicas(3)], 1);
}

/// Walks all states that can be reached; `changes` come in their order, at any time.
fn walk(name: &str, mut start: World, changes: &[Change], faults: u8) {
    start.faults_left = faults;
    let mut came_from: HashMap<World, Option<(World, String)>> = HashMap::from([(start.clone(), None)]);
    let mut todo = VecDeque::from([start]);
    let mut comes_home: HashSet<World> = HashSet::new();
    let (mut transitions, mut rounds_most) = (0_usize, 0);
    while let Some(state) = todo.pop_front() {
        let next = state
            .told()
            .and_then(|()| state.next(changes))
            .unwrap_or_else(|broken| panic!("{}{broken}", path_to(&came_from, &state)));
        transitions += next.len();
        for (what, next) in next {
            if !came_from.contains_key(&next) {
                came_from.insert(next.clone(), Some((state.clone(), what)));
                todo.push_back(next);
            }
        }
        match way_home(&state, &mut comes_home) {
            Ok(rounds) => rounds_most = rounds_most.max(rounds),
            Err(broken) => panic!("{}{broken}", path_to(&came_from, &state)),
        }
    }
    println!(
        "figure: the operator's planner, {name}: {} states, {transitions} transitions, home in at most {rounds_most} rounds",
        came_from.len()
    );
    assert!(came_from.len() > 100, "the world moves");
}

/// Everybody does their part in turn and nothing breaks any more. Returns how many rounds it took, as far as it was not
/// known already.
fn way_home(start: &World, comes_home: &mut HashSet<World>) -> Result<usize, String> {
    if !start.is_recoverable() {
        return Ok(0);
    }
    let mut state = start.without_bad_template();
    let mut path = vec![start.clone()];
    for round in 0..ROUNDS_MAX {
        if comes_home.contains(&state) || state.is_as_wanted() {
            comes_home.extend(path);
            return Ok(round);
        }
        path.push(state.clone());
        state = state.round()?;
        if path.last() == Some(&state) {
            return Err(format!("nothing moves, and it is not as wanted:\n{state:#?}\n{:#?}", state.plan()));
        }
    }
    Err(format!("not as wanted after {ROUNDS_MAX} rounds:\n{state:#?}\n{:#?}", state.plan()))
}

/// How the world came to this state, for whoever has to mend it.
fn path_to(came_from: &HashMap<World, Option<(World, String)>>, state: &World) -> String {
    let mut steps = Vec::new();
    let mut at = state;
    while let Some(Some((before, what))) = came_from.get(at) {
        steps.push(what.clone());
        at = before;
    }
    steps.reverse();
    format!("after {steps:#?}\n")
}
