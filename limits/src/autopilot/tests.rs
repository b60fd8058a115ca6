//! Single plans, and every small world.

use super::*;

/// `V` a voter, `L` a learner that caught up, `l` one that has not, `u` one that caught up and is unreachable.
fn members(shape: &str) -> Vec<Member> {
    let member = |(id, kind): (u64, char)| Member {
        id,
        name: format!("node-{id}"),
        voter: kind == 'V',
        caught_up: kind != 'l',
        reachable: kind != 'u',
    };
    (1..).zip(shape.chars()).map(member).collect()
}

fn candidate(name: &str, id: u64) -> Candidate {
    Candidate { name: name.to_owned(), id }
}

fn seen(shape: &str, candidates: &[Candidate]) -> Observation {
    Observation { members: members(shape), joint: false, candidates: candidates.to_vec() }
}

fn promoted(shape: &str) -> Option<Vec<u64>> {
    match plan(&seen(shape, &[])) {
        Some(Change::Promote { ids }) => Some(ids.into_iter().collect()),
        None => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn joint_configuration_finished_first() {
    let joint = Observation { joint: true, ..seen("VLL", &[candidate("new", 9)]) };
    assert_eq!(plan(&joint), Some(Change::FinishJoint));
}

#[test]
fn learners_promoted_to_the_largest_odd_number() {
    for (shape, ids) in [
        ("VLL", Some(vec![1, 2, 3])),
        ("VVL", Some(vec![1, 2, 3])),
        ("VVVLL", Some(vec![1, 2, 3, 4, 5])),
        ("VVVVL", Some(vec![1, 2, 3, 4, 5])),
        ("VLLLLLL", Some(vec![1, 2, 3, 4, 5])),
        ("VLLLl", Some(vec![1, 2, 3])),
        ("lLVuL", Some(vec![2, 3, 5])),
        ("VL", None),
        ("VVVL", None),
        ("VVVLl", None),
        ("VVVLu", None),
        ("VVVVVLL", None),
        ("VVVVVVVLL", None),
        ("VVVV", None),
        ("", None),
    ] {
        assert_eq!(promoted(shape), ids, "{shape}");
    }
}

#[test]
fn new_node_joins_as_a_learner() {
    let new = [candidate("node-9", 9), candidate("node-8", 8)];
    let change = Change::AddLearner { id: 8, name: "node-8".to_owned() };
    assert_eq!(plan(&seen("VVV", &new)), Some(change));
}

#[test]
fn candidate_with_a_members_name_waits() {
    assert_eq!(plan(&seen("VVV", &[candidate("node-2", 77)])), None);
}

#[test]
fn candidate_that_is_a_member_already_ignored() {
    assert_eq!(plan(&seen("VVV", &[candidate("renamed", 2)])), None);
}

#[test]
fn two_candidates_of_one_name_wait_for_gossip_to_settle() {
    let twice = [candidate("node-8", 8), candidate("node-8", 88)];
    assert_eq!(plan(&seen("VVV", &twice)), None);
    let same = [candidate("node-8", 8), candidate("node-8", 8)];
    assert!(plan(&seen("VVV", &same)).is_some());
}

/// Every membership of up to six, with and without a candidate: what is planned is safe, and carried out it comes to rest.
#[test]
fn every_small_world_comes_to_rest() {
    let mut worlds = 0;
    for size in 0..=6u32 {
        for number in 0..4usize.pow(size) {
            let shape: String = (0..size).map(|place| ['V', 'L', 'l', 'u'][number / 4usize.pow(place) % 4]).collect();
            for candidates in [vec![], vec![candidate("new", 50), candidate("newer", 51)]] {
                settle(seen(&shape, &candidates));
                worlds += 1;
            }
        }
    }
    assert_eq!(worlds, 2 * (0..=6).map(|size| 4usize.pow(size)).sum::<usize>());
}

fn settle(mut world: Observation) {
    let start = world.clone();
    for _ in 0..8 {
        let Some(change) = plan(&world) else { return rested(&start, &world) };
        let voters: BTreeSet<u64> = voters(&world);
        match change {
            Change::FinishJoint => panic!("nothing is joint in {start:?}"),
            Change::AddLearner { id, name } => {
                assert!(world.members.iter().all(|member| member.id != id && member.name != name));
                world.candidates.retain(|candidate| candidate.id != id);
                world.members.push(Member { id, name, voter: false, caught_up: true, reachable: true });
            }
            Change::Promote { ids } => {
                assert!(ids.is_superset(&voters) && ids.len() > voters.len(), "{start:?}");
                assert!(ids.len() % 2 == 1 && ids.len() <= VOTERS_MAX.min(world.members.len()), "{start:?}");
                for member in &mut world.members {
                    assert!(!ids.contains(&member.id) || member.voter || member.caught_up && member.reachable);
                    member.voter |= ids.contains(&member.id);
                }
            }
        }
    }
    panic!("does not come to rest: {start:?}");
}

fn rested(start: &Observation, world: &Observation) {
    assert!(world.candidates.is_empty(), "{start:?}");
    let able = world.members.iter().filter(|member| member.voter || member.caught_up && member.reachable).count();
    let most = largest_odd(able.min(VOTERS_MAX));
    assert!(voters(world).len() >= most, "{start:?}");
    assert!(voters(start).is_subset(&voters(world)), "{start:?}");
}

fn voters(world: &Observation) -> BTreeSet<u64> {
    world.members.iter().filter(|member| member.voter).map(|member| member.id).collect()
}
