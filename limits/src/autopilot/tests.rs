//! Single plans. [`super::walk`] walks whole worlds.

use super::*;

const HOUR: Duration = Duration::from_hours(1);

/// `V` a voter, `L` a learner that caught up, `l` one that has not, `u` one that caught up and is unreachable, `X` a voter
/// that has been silent for an hour. The first one leads.
fn members(shape: &str) -> Vec<Member> {
    let member = |(id, kind): (u64, char)| Member {
        id,
        name: format!("node-{id}"),
        voter: matches!(kind, 'V' | 'X'),
        leaving: None,
        caught_up: kind != 'l',
        silent: match kind {
            'u' => Some(Duration::ZERO),
            'X' => Some(HOUR),
            _ => None,
        },
    };
    (1..).zip(shape.chars()).map(member).collect()
}

fn candidate(name: &str, id: u64) -> Candidate {
    Candidate { name: name.to_owned(), id }
}

fn seen(shape: &str, candidates: &[Candidate]) -> Observation {
    Observation { leader: 1, members: members(shape), candidates: candidates.to_vec(), ..Observation::default() }
}

/// Changes the member with this id.
fn with(mut seen: Observation, id: u64, change: impl FnOnce(&mut Member)) -> Observation {
    change(seen.members.iter_mut().find(|member| member.id == id).unwrap());
    seen
}

fn leaving(seen: Observation, id: u64) -> Observation {
    with(seen, id, |member| member.leaving = Some(Duration::ZERO))
}

/// Three voters, the third lost, and a learner under its name.
fn replaced() -> Observation {
    with(seen("VVXL", &[]), 4, |member| member.name = "node-3".to_owned())
}

#[allow(clippy::unnecessary_wraps, reason = "as plans have it")]
fn voters(voters: &[u64], drop: &[u64]) -> Option<Change> {
    Some(Change::SetVoters { voters: voters.iter().copied().collect(), drop: drop.iter().copied().collect() })
}

fn change(seen: &Observation) -> Option<Change> {
    plan(seen).change
}

fn reasons(seen: &Observation) -> Vec<&'static str> {
    let plan = plan(seen);
    assert_eq!(plan.change, None, "{:?}", plan.waits);
    plan.waits.iter().map(Waits::reason).collect()
}

#[test]
fn joint_configuration_finished_first() {
    let joint = Observation { joint: true, ..seen("VLL", &[candidate("new", 9)]) };
    assert_eq!(change(&joint), Some(Change::FinishJoint));
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
        assert_eq!(change(&seen(shape, &[])), ids.and_then(|ids| voters(&ids, &[])), "{shape}");
    }
}

#[test]
fn learner_behind_that_would_vote_is_waited_for() {
    assert_eq!(reasons(&seen("VVl", &[])), ["CatchingUp"]);
    assert_eq!(reasons(&seen("VVVl", &[])), Vec::<&str>::new());
}

#[test]
fn new_node_joins_as_a_learner() {
    let new = [candidate("node-9", 9), candidate("node-8", 8)];
    let add = Change::AddLearner { id: 8, name: "node-8".to_owned() };
    assert_eq!(change(&seen("VVV", &new)), Some(add));
}

#[test]
fn former_member_never_comes_back_under_its_id() {
    let removed = Observation { removed: BTreeSet::from([8]), ..seen("VVV", &[candidate("node-8", 8)]) };
    assert_eq!(plan(&removed), Plan::default());
}

#[test]
fn candidate_that_is_a_member_already_ignored() {
    assert_eq!(plan(&seen("VVV", &[candidate("renamed", 2)])), Plan::default());
}

#[test]
fn name_alive_twice_nothing_happens_and_it_is_told() {
    assert_eq!(reasons(&seen("VVV", &[candidate("node-2", 77)])), ["NameTwice"]);
    let twice = [candidate("node-8", 8), candidate("node-8", 88)];
    assert_eq!(reasons(&seen("VVV", &twice)), ["NameTwice"]);
    let same = [candidate("node-8", 8), candidate("node-8", 8)];
    assert!(change(&seen("VVV", &same)).is_some());
    let came_back = with(replaced(), 3, |old| old.silent = None);
    assert_eq!(reasons(&came_back), ["NameTwice"]);
}

#[test]
fn empty_disk_under_a_members_name_joins_once_the_member_was_silent_for_long_enough() {
    let back = seen("VVX", &[candidate("node-3", 77)]);
    let add = Some(Change::AddLearner { id: 77, name: "node-3".to_owned() });
    assert_eq!(change(&back), add);
    let soon = with(back.clone(), 3, |old| old.silent = Some(Duration::from_secs(9)));
    assert_eq!(reasons(&soon), ["Silence"]);
    assert_eq!(change(&leaving(soon, 3)), add, "the operator says so");
    let without_quorum = with(back, 2, |other| other.caught_up = false);
    assert_eq!(reasons(&without_quorum), ["Quorum"]);
}

#[test]
fn lost_disk_replaced_by_one_change_once_its_successor_has_caught_up() {
    assert_eq!(change(&replaced()), voters(&[1, 2, 4], &[3]));
    assert_eq!(reasons(&with(replaced(), 4, |new| new.caught_up = false)), ["CatchingUp"]);
    assert_eq!(reasons(&with(replaced(), 3, |old| old.silent = Some(Duration::from_secs(9)))), ["Silence"]);
    assert_eq!(reasons(&with(replaced(), 2, |other| other.silent = Some(Duration::ZERO))), ["Quorum"]);
    let even = with(seen("VVVXL", &[]), 5, |new| new.name = "node-4".to_owned());
    assert_eq!(change(&even), voters(&[1, 2, 3, 5], &[4]), "it takes the seat, whatever their number");
}

#[test]
fn second_lost_disk_within_the_interval_waits_unless_the_operator_says_so() {
    let early = Observation { since_swap: Some(HOUR / 2), ..replaced() };
    assert_eq!(reasons(&early), ["Interval"]);
    assert_eq!(change(&leaving(early.clone(), 3)), voters(&[1, 2, 4], &[3]));
    assert_eq!(change(&Observation { since_swap: Some(HOUR), ..early }), voters(&[1, 2, 4], &[3]));
}

#[test]
fn learners_disk_lost_replaced_without_interval() {
    let mut lost = with(seen("VVVuL", &[]), 5, |new| new.name = "node-4".to_owned());
    lost.since_swap = Some(Duration::ZERO);
    let lost = with(lost, 4, |old| old.silent = Some(HOUR));
    assert_eq!(change(&lost), voters(&[1, 2, 3], &[4]));
}

#[test]
fn disk_lost_again_before_it_was_replaced_both_former_selves_go_at_once() {
    let mut again = replaced();
    again.members.push(Member { id: 5, ..again.members[3].clone() });
    let again = with(again, 4, |first| first.silent = Some(HOUR));
    assert_eq!(change(&again), voters(&[1, 2, 5], &[3, 4]));
}

#[test]
fn successor_is_not_promoted_beside_its_former_self() {
    let early = Observation { since_swap: Some(Duration::ZERO), ..replaced() };
    let mut early = early;
    early.members.push(Member { id: 5, name: "node-5".to_owned(), ..early.members[3].clone() });
    assert_eq!(reasons(&early), ["Interval"], "four names: three voters");
}

#[test]
fn member_to_leave_is_dropped_in_one_change_and_a_learner_takes_its_seat() {
    assert_eq!(change(&leaving(seen("VVV", &[]), 2)), voters(&[1, 3], &[2]));
    assert_eq!(change(&leaving(seen("VVX", &[]), 3)), voters(&[1, 2], &[3]));
    assert_eq!(change(&leaving(seen("VVVL", &[]), 2)), voters(&[1, 3, 4], &[2]));
    assert_eq!(change(&leaving(seen("VVVVVL", &[]), 2)), voters(&[1, 3, 4, 5, 6], &[2]));
    assert_eq!(change(&leaving(seen("VVVL", &[]), 4)), voters(&[1, 2, 3], &[4]));
}

#[test]
fn several_to_leave_go_one_by_one_those_that_are_gone_first() {
    assert_eq!(change(&leaving(leaving(seen("VVVVX", &[]), 2), 5)), voters(&[1, 2, 3, 4], &[5]));
}

#[test]
fn member_to_leave_that_is_still_there_drains_first() {
    let draining = |shape, id| Observation { drain: Duration::from_secs(10), ..leaving(seen(shape, &[]), id) };
    let since = |seen, id, seconds| with(seen, id, |member| member.leaving = Some(Duration::from_secs(seconds)));
    for shape in ["VV", "VVV", "VL"] {
        assert_eq!(reasons(&since(draining(shape, 2), 2, 9)), ["Draining"], "{shape}");
    }
    assert_eq!(reasons(&since(draining("VV", 1), 1, 9)), ["Draining"], "the leader too");
    assert_eq!(change(&since(draining("VV", 2), 2, 10)), voters(&[1], &[2]));
    assert_eq!(change(&draining("VVX", 3)), voters(&[1, 2], &[3]), "one that is gone has no clients");
    let both = leaving(draining("VVVVX", 2), 5);
    assert_eq!(change(&both), voters(&[1, 2, 3, 4], &[5]), "nobody waits for another to drain");
}

#[test]
fn departure_that_would_cost_the_quorum_waits() {
    assert_eq!(reasons(&leaving(seen("VVX", &[]), 2)), ["Quorum"]);
    assert_eq!(reasons(&leaving(seen("V", &[]), 1)), ["NobodyLeft"]);
    assert_eq!(reasons(&leaving(seen("Vl", &[]), 1)), ["NobodyLeft"]);
}

#[test]
fn leader_to_leave_hands_over_first() {
    assert_eq!(change(&leaving(seen("VVV", &[]), 1)), Some(Change::HandOver { to: 2 }));
    assert_eq!(change(&leaving(seen("VXV", &[]), 1)), None, "two of three could not replace it");
    assert_eq!(change(&leaving(seen("VXVV", &[]), 1)), Some(Change::HandOver { to: 3 }));
    assert_eq!(change(&leaving(seen("VL", &[]), 1)), voters(&[1, 2], &[]), "only a voter can take over");
}

#[test]
fn waits_say_what_to_do() {
    let told = |seen: &Observation| plan(seen).waits[0].to_string();
    assert_eq!(
        told(&with(seen("VVX", &[candidate("node-3", 77)]), 3, |old| old.silent = Some(Duration::from_millis(6500)))),
        "node-3 is back on an empty disk; its former self 0000000000000003 must be silent for 4s more before it is taken \
         for lost (or decommission 0000000000000003)"
    );
    assert_eq!(
        told(&Observation { drain: Duration::from_millis(6500), ..leaving(seen("VVV", &[]), 2) }),
        "node-2 is to leave, and goes on answering for 7s while its clients find others"
    );
    assert_eq!(
        told(&leaving(seen("VVX", &[]), 2)),
        "1 of 2 voters can be reached and have caught up, 2 are needed; bring the others back"
    );
    assert_eq!(
        told(&seen("VVV", &[candidate("node-2", 0x77)])),
        "several nodes named node-2 are alive: 0000000000000002 0000000000000077; give each its own NODE_ID"
    );
}
