use quorate_crds::RateLimitCluster;
use serde_json::json;

use super::*;
use crate::cluster::observed::{SeenClaim, SeenNode, SeenPod};
use crate::cluster::validate::validate;

const NEW: &str = "new";
const OLD: &str = "old";

fn wanted(spec: &serde_json::Value) -> Wanted {
    let mut all = json!({"version": "0.2.0"});
    all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let cluster: RateLimitCluster = serde_json::from_value(json!({
        "apiVersion": "quorate.dev/v1alpha1", "kind": "RateLimitCluster",
        "metadata": {"name": "edge", "namespace": "shop", "uid": "u"}, "spec": all,
    }))
    .unwrap();
    validate(&cluster).unwrap()
}

fn three() -> Wanted {
    wanted(&json!({}))
}

/// The first so many pods vote.
fn voters(count: usize) -> BTreeMap<u64, usize> {
    (0..count).map(|ordinal| (16 + ordinal as u64, ordinal)).collect()
}

/// A cluster of `pods` healthy pods of this template, led by the first.
fn running(pods: usize, template: &str) -> Observed {
    let name = |ordinal: usize| format!("edge-{ordinal}");
    let id = |ordinal: usize| 16 + ordinal as u64;
    let member = |ordinal| SeenMember {
        id: id(ordinal),
        name: name(ordinal),
        voter: ordinal < voters_of(pods),
        reachable: true,
        caught_up: true,
        version: None,
    };
    Observed {
        replicas: Some(pods),
        pods: (0..pods)
            .map(|ordinal| {
                let node = SeenNode { id: id(ordinal), cluster: Some("c1".to_owned()), retired: false };
                let uid = format!("uid-{ordinal}");
                let template = template.to_owned();
                (ordinal, SeenPod { uid, template, ready: true, terminating: false, node: Some(node) })
            })
            .collect(),
        claims: (0..pods).map(|ordinal| (ordinal, claim(ordinal, Some("c1")))).collect(),
        founding: Some(Founding::With((0..pods).map(|ordinal| (id(ordinal), name(ordinal))).collect())),
        membership: Some(Membership { leader: id(0), term: 1, members: (0..pods).map(member).collect() }),
        voters: voters(voters_of(pods)),
        in_the_way: None,
        refused: None,
        was_founded: true,
        operation: None,
    }
}

fn claim(ordinal: usize, cluster: Option<&str>) -> SeenClaim {
    let cluster = cluster.map(ToOwned::to_owned);
    SeenClaim { uid: format!("claim-{ordinal}"), cluster, goes_along: false, terminating: false }
}

/// Pods that were just started on empty disks.
fn starting(pods: usize) -> Observed {
    let mut seen = running(pods, NEW);
    for pod in seen.pods.values_mut() {
        pod.ready = false;
        if let Some(node) = &mut pod.node {
            node.cluster = None;
        }
    }
    for claim in seen.claims.values_mut() {
        claim.cluster = None;
    }
    Observed { founding: None, membership: None, voters: BTreeMap::new(), was_founded: false, ..seen }
}

fn pod(seen: &mut Observed, ordinal: usize) -> &mut SeenPod {
    seen.pods.get_mut(&ordinal).unwrap()
}

fn member(seen: &mut Observed, ordinal: usize) -> &mut SeenMember {
    &mut seen.membership.as_mut().unwrap().members[ordinal]
}

fn evict(ordinal: usize) -> Step {
    Step::Evict { pod: ordinal, uid: format!("uid-{ordinal}") }
}

fn delete(ordinal: usize) -> Step {
    Step::DeletePod { pod: ordinal, uid: format!("uid-{ordinal}") }
}

fn mark(claim: usize, goes_along: bool) -> Step {
    Step::MarkClaim { claim, uid: format!("claim-{claim}"), cluster: "c1".to_owned(), goes_along }
}

#[test]
fn nothing_is_there_creates_the_objects_and_founds() {
    let plan = plan(&three(), NEW, &Observed::default());
    assert_eq!((plan.pods, plan.operation, plan.step), (Some(3), Some(InFlight::Found), None));
    assert_eq!(plan.next_steps, ["go to 3 pods"; 0], "without a StatefulSet there is nothing to go from");
}

#[test]
fn empty_pods_all_up_record_the_founding_and_then_found() {
    let mut seen = starting(3);
    let members: BTreeMap<u64, String> = (0..3).map(|i| (16 + i, format!("edge-{i}"))).collect();
    assert_eq!(plan(&three(), NEW, &seen).step, Some(Step::RecordFounding(Founding::With(members.clone()))));
    seen.founding = Some(Founding::With(members.clone()));
    assert_eq!(plan(&three(), NEW, &seen).step, Some(Step::Bootstrap { pod: 0, members }));
}

#[test]
fn empty_pod_not_up_waits_for_it() {
    let mut seen = starting(3);
    pod(&mut seen, 1).node = None;
    let plan = plan(&three(), NEW, &seen);
    assert_eq!((plan.step, plan.reason), (None, Reason::WaitingForPods));
    assert_eq!(plan.waits_for, "pod edge-1 to start");
}

#[test]
fn founding_with_a_disk_that_is_gone_tells_so_and_founds_nothing() {
    let mut seen = starting(3);
    seen.founding = running(3, NEW).founding;
    pod(&mut seen, 2).node.as_mut().unwrap().id = 99;
    let plan = plan(&three(), NEW, &seen);
    assert_eq!((plan.step, plan.reason), (None, Reason::FounderLost));
    assert!(plan.waits_for.contains("edge-2"), "{}", plan.waits_for);
}

#[test]
fn cluster_that_was_there_before_and_whose_disks_are_all_empty_now_says_so() {
    for (founding, was_founded) in [
        (Founding::Adopted("c1".to_owned()), false),
        (Founding::Adopted("c1".to_owned()), true),
        (Founding::With(BTreeMap::from([(99, "edge-0".to_owned())])), true),
    ] {
        let seen = Observed { founding: Some(founding), was_founded, ..starting(3) };
        let planned = plan(&three(), NEW, &seen);
        assert_eq!((planned.step, planned.reason, planned.operation), (None, Reason::FounderLost, None));
        let mut late = seen;
        pod(&mut late, 2).node = None;
        let planned = plan(&three(), NEW, &late);
        assert_eq!((planned.reason, planned.operation), (Reason::WaitingForPods, None), "it may have the data");
    }
}

#[test]
fn founded_cluster_of_which_no_node_answers_goes_on_with_what_is_in_flight() {
    let quiet = |pods, operation| {
        let mut seen = running(pods, OLD);
        (0..pods).for_each(|ordinal| pod(&mut seen, ordinal).node = None);
        Observed { membership: None, voters: BTreeMap::new(), operation, ..seen }
    };
    for operation in [Some(InFlight::ReplacePod(0)), Some(InFlight::ScaleDown(2)), Some(InFlight::ScaleUp), None] {
        let planned = plan(&wanted(&json!({"replicas": 1})), OLD, &quiet(3, operation));
        assert_ne!(planned.operation, Some(InFlight::Found), "{operation:?}");
        assert_eq!(planned.pods, Some(3));
    }
    // Of three founders one is left, which is rolled.
    let mut seen = quiet(1, Some(InFlight::ReplacePod(0)));
    seen.founding = running(3, OLD).founding;
    pod(&mut seen, 0).template = NEW.to_owned();
    let planned = plan(&wanted(&json!({"replicas": 1})), NEW, &seen);
    assert_eq!((planned.operation, planned.pods), (Some(InFlight::ReplacePod(0)), Some(1)), "no others come back");
    assert_eq!(planned.waits_for, "pod edge-0 to start");
}

#[test]
fn founders_that_are_asked_again_are_the_very_same() {
    let mut seen = Observed { founding: running(3, NEW).founding, was_founded: true, ..starting(3) };
    assert!(matches!(plan(&three(), NEW, &seen).step, Some(Step::Bootstrap { .. })));
    pod(&mut seen, 1).node.as_mut().unwrap().id = 99;
    assert_eq!(plan(&three(), NEW, &seen).reason, Reason::FounderLost);
}

#[test]
fn retained_claims_of_one_cluster_are_adopted_whole() {
    let mut seen = Observed { claims: running(5, NEW).claims, ..Observed::default() };
    assert_eq!(plan(&three(), NEW, &seen).pods, Some(5), "as many pods as there is data of");
    seen = Observed { founding: None, ..running(5, NEW) };
    assert_eq!(plan(&three(), NEW, &seen).step, Some(Step::RecordFounding(Founding::Adopted("c1".to_owned()))));
}

#[test]
fn retained_claims_of_two_clusters_are_left_alone() {
    let mut seen = Observed { claims: running(3, NEW).claims, ..Observed::default() };
    seen.claims.insert(2, claim(2, Some("c2")));
    let plan = plan(&three(), NEW, &seen);
    assert_eq!((plan.pods, plan.step, plan.reason), (None, None, Reason::ForeignClaims));
}

#[test]
fn steady_cluster_is_left_alone() {
    let plan = plan(&three(), NEW, &running(3, NEW));
    let steady = Plan {
        pods: Some(3),
        operation: None,
        step: None,
        reason: Reason::Steady,
        waits_for: String::new(),
        next_steps: Vec::new(),
    };
    assert_eq!(plan, steady);
}

#[test]
fn paused_cluster_is_not_touched_whatever_is_wrong() {
    let paused = wanted(&json!({"paused": true, "replicas": 5}));
    let mut seen = running(3, OLD);
    seen.operation = Some(InFlight::ReplacePod(1));
    let plan = plan(&paused, NEW, &seen);
    assert_eq!((plan.pods, plan.step, plan.reason), (None, None, Reason::Paused));
    assert_eq!(plan.operation, Some(InFlight::ReplacePod(1)), "it goes on where it was");
}

#[test]
fn rollout_takes_followers_from_the_last_and_the_leader_at_the_end() {
    let mut seen = running(3, OLD);
    seen.membership.as_mut().unwrap().leader = 18;
    let mut order = Vec::new();
    while let Some(Step::Evict { pod: next, .. }) = plan(&three(), NEW, &seen).step {
        order.push(next);
        pod(&mut seen, next).template = NEW.to_owned();
    }
    assert_eq!(order, [1, 0, 2]);
    let mut seen = running(3, OLD);
    seen.operation = None;
    let plan = plan(&three(), NEW, &seen);
    assert_eq!(plan.next_steps, ["evict pod 2", "replace pod edge-1", "replace pod edge-0"]);
}

#[test]
fn pod_that_came_to_lead_before_it_was_taken_goes_last_all_the_same() {
    let mut seen = running(3, OLD);
    seen.operation = Some(InFlight::ReplacePod(2));
    seen.membership.as_mut().unwrap().leader = 18;
    let next = plan(&three(), NEW, &seen);
    assert_eq!((next.operation, next.step), (Some(InFlight::ReplacePod(1)), Some(evict(1))));
    // One that clients do not reach goes first though it leads.
    pod(&mut seen, 2).ready = false;
    assert_eq!(plan(&three(), NEW, &seen).operation, Some(InFlight::ReplacePod(2)));
}

#[test]
fn rollout_takes_learners_before_voters() {
    let nine = wanted(&json!({"replicas": 9}));
    let mut seen = running(9, OLD);
    // The voters are those with the highest numbers here.
    for ordinal in 0..9 {
        member(&mut seen, ordinal).voter = ordinal >= 4;
    }
    assert_eq!(plan(&nine, NEW, &seen).step, Some(evict(3)));
}

#[test]
fn rollout_takes_a_sick_pod_first_without_asking_the_quorum() {
    let mut seen = running(3, OLD);
    let sick = pod(&mut seen, 0);
    (sick.ready, sick.node) = (false, None);
    let down = member(&mut seen, 0);
    (down.reachable, down.caught_up) = (false, false);
    seen.membership.as_mut().unwrap().leader = 17;
    assert_eq!(plan(&three(), NEW, &seen).step, Some(delete(0)));
}

#[test]
fn rollout_waits_for_the_pod_that_it_replaced() {
    let mut seen = running(3, OLD);
    seen.operation = Some(InFlight::ReplacePod(2));
    let back = pod(&mut seen, 2);
    (back.ready, back.template) = (false, NEW.to_owned());
    let waiting = plan(&three(), NEW, &seen);
    assert_eq!((waiting.step, waiting.operation), (None, Some(InFlight::ReplacePod(2))));
    assert_eq!(waiting.waits_for, "pod edge-2 to be a healthy member");
    pod(&mut seen, 2).ready = true;
    member(&mut seen, 2).caught_up = false;
    assert_eq!(plan(&three(), NEW, &seen).step, None, "a member that lags is not back");
    member(&mut seen, 2).caught_up = true;
    assert_eq!(plan(&three(), NEW, &seen).step, Some(evict(1)));
}

#[test]
fn rollout_that_does_not_run_stops_at_its_first_pod_and_the_spec_put_back_frees_it() {
    let mut seen = running(3, OLD);
    seen.operation = Some(InFlight::ReplacePod(2));
    let broken = pod(&mut seen, 2);
    (broken.ready, broken.node, broken.template) = (false, None, NEW.to_owned());
    let down = member(&mut seen, 2);
    (down.reachable, down.caught_up) = (false, false);
    assert_eq!(plan(&three(), NEW, &seen).step, None);
    assert_eq!(plan(&three(), OLD, &seen).step, Some(delete(2)));
}

#[test]
fn rollout_without_a_leader_takes_nothing_that_answers() {
    let mut seen = running(3, OLD);
    seen.membership = None;
    pod(&mut seen, 1).ready = false;
    assert_eq!(plan(&three(), NEW, &seen).step, None);
    pod(&mut seen, 1).node = None;
    assert_eq!(plan(&three(), NEW, &seen).step, Some(delete(1)));
}

#[test]
fn slow_voter_that_carries_the_quorum_is_not_taken() {
    let mut seen = running(3, OLD);
    pod(&mut seen, 1).ready = false;
    member(&mut seen, 1).caught_up = false;
    let down = member(&mut seen, 2);
    (down.reachable, down.caught_up) = (false, false);
    pod(&mut seen, 2).ready = false;
    pod(&mut seen, 2).template = NEW.to_owned();
    let plan = plan(&three(), NEW, &seen);
    assert_eq!(plan.step, None, "with it the majority would go: {plan:?}");
}

#[test]
fn manual_rollout_names_the_pod_and_touches_none() {
    let manual = wanted(&json!({"rollout": {"strategy": "Manual"}}));
    let plan = plan(&manual, NEW, &running(3, OLD));
    assert_eq!((plan.step, plan.reason), (None, Reason::WaitingForPerson));
    assert_eq!(plan.waits_for, "pod edge-2 to be deleted by hand");
    assert_eq!(plan.next_steps, ["replace pod edge-2", "replace pod edge-1", "replace pod edge-0"]);
}

#[test]
fn single_pod_is_replaced_though_nobody_stands_in() {
    assert_eq!(plan(&wanted(&json!({"replicas": 1})), NEW, &running(1, OLD)).step, Some(evict(0)));
}

#[test]
fn more_wanted_grows_at_once_and_waits_for_members_and_votes() {
    let five = wanted(&json!({"replicas": 5}));
    let mut seen = running(3, NEW);
    let growing = plan(&five, NEW, &seen);
    assert_eq!((growing.pods, growing.operation), (Some(5), Some(InFlight::ScaleUp)));
    assert_eq!(growing.next_steps, ["go to 5 pods"]);
    seen = running(5, NEW);
    seen.operation = Some(InFlight::ScaleUp);
    for ordinal in [3, 4] {
        member(&mut seen, ordinal).voter = false;
    }
    let waiting = plan(&five, NEW, &seen);
    assert_eq!((waiting.operation, waiting.waits_for.as_str()), (Some(InFlight::ScaleUp), "3 of 5 voters"));
    seen.membership = running(5, NEW).membership;
    assert_eq!(plan(&five, NEW, &seen).operation, None);
}

#[test]
fn growth_that_finds_no_room_can_be_taken_back() {
    let mut seen = running(5, NEW);
    seen.operation = Some(InFlight::ScaleUp);
    seen.pods.remove(&4);
    seen.membership.as_mut().unwrap().members.truncate(4);
    seen.voters = voters(3);
    member(&mut seen, 3).voter = false;
    let plan = plan(&three(), NEW, &seen);
    assert_eq!((plan.pods, plan.operation), (Some(4), Some(InFlight::ScaleDown(4))));
}

#[test]
fn fewer_wanted_drains_the_pod_then_takes_its_member_out_and_then_the_next() {
    let mut seen = running(5, NEW);
    let first = plan(&three(), NEW, &seen);
    assert_eq!((first.pods, first.operation, first.step), (Some(4), Some(InFlight::ScaleDown(4)), None));
    seen.operation = first.operation;
    seen.replicas = Some(4);
    let second = plan(&three(), NEW, &seen);
    assert_eq!((second.pods, second.operation), (Some(4), Some(InFlight::ScaleDown(4))));
    assert_eq!((second.step, second.waits_for.as_str()), (None, "pod edge-4 to end"));
    seen.pods.remove(&4);
    assert_eq!(plan(&three(), NEW, &seen).step, Some(Step::Decommission { id: 20 }));
    let led = seen.membership.take();
    let leaderless = plan(&three(), NEW, &seen);
    assert_eq!(
        (leaderless.pods, leaderless.operation, leaderless.reason),
        (Some(4), Some(InFlight::ScaleDown(4)), Reason::NoLeader),
        "the others elect a leader without it"
    );
    seen.membership = led;
    seen.membership.as_mut().unwrap().members.pop();
    member(&mut seen, 3).voter = false;
    seen.voters = voters(3);
    let fourth = plan(&three(), NEW, &seen);
    assert_eq!(fourth.step, Some(Step::DeleteClaim { claim: 4, uid: "claim-4".to_owned() }));
    seen.claims.remove(&4);
    assert_eq!(plan(&three(), NEW, &seen).operation, Some(InFlight::ScaleDown(3)));
}

#[test]
fn fewer_wanted_while_a_claim_is_to_be_noted_is_not_steady() {
    let mut seen = running(5, NEW);
    seen.claims.insert(4, claim(4, None));
    let next = plan(&three(), NEW, &seen);
    assert_eq!((next.operation, next.step, next.reason), (None, Some(mark(4, false)), Reason::Tidying));
}

#[test]
fn voter_that_was_let_go_comes_back_when_the_others_cannot_elect_a_leader() {
    let one = wanted(&json!({"replicas": 1}));
    let mut seen = running(3, NEW);
    seen.operation = Some(InFlight::ScaleDown(2));
    seen.replicas = Some(2);
    seen.pods.remove(&2);
    seen.membership = None;
    assert_eq!(plan(&one, NEW, &seen).pods, Some(2), "two of three elect one");
    // The disk of the second was lost, and what answers under its name is a learner: nobody's vote.
    pod(&mut seen, 1).node.as_mut().unwrap().id = 99;
    assert_eq!(plan(&one, NEW, &seen).pods, Some(3));
}

#[test]
fn pod_without_which_there_would_be_no_majority_stays_though_fewer_are_wanted() {
    let one = wanted(&json!({"replicas": 1}));
    let mut seen = running(3, NEW);
    member(&mut seen, 1).reachable = false;
    let waiting = plan(&one, NEW, &seen);
    assert_eq!((waiting.pods, waiting.reason), (Some(3), Reason::WaitingForQuorum));
    member(&mut seen, 1).reachable = true;
    member(&mut seen, 2).reachable = false;
    assert_eq!(plan(&one, NEW, &seen).pods, Some(2), "the one that is sick itself is not missed");
}

#[test]
fn of_two_voters_one_is_taken_out_before_its_pod() {
    let one = wanted(&json!({"replicas": 1}));
    let mut seen = running(2, NEW);
    seen.operation = Some(InFlight::ScaleDown(1));
    member(&mut seen, 1).voter = true;
    assert_eq!(plan(&one, NEW, &seen).step, Some(Step::Decommission { id: 17 }));
    seen.membership.as_mut().unwrap().members.pop();
    let gone = plan(&one, NEW, &seen);
    assert_eq!((gone.pods, gone.step), (Some(1), None));
}

#[test]
fn claim_that_is_to_stay_or_is_not_known_to_be_its_own_stays() {
    let mut seen = running(3, NEW);
    seen.claims.insert(3, claim(3, Some("c1")));
    let retain = wanted(&json!({"storage": {"retention": {"onScaleDown": "Retain"}}}));
    assert_eq!(plan(&retain, NEW, &seen).step, None);
    assert!(matches!(plan(&three(), NEW, &seen).step, Some(Step::DeleteClaim { claim: 3, .. })));
    seen.claims.insert(3, claim(3, None));
    assert_eq!(plan(&three(), NEW, &seen).step, None);
}

#[test]
fn claim_whose_member_is_not_out_yet_stays_until_it_is() {
    let mut seen = running(4, NEW);
    seen.replicas = Some(3);
    seen.pods.remove(&3);
    seen.operation = Some(InFlight::ReclaimClaim(3));
    assert_eq!(plan(&three(), NEW, &seen).step, Some(Step::Decommission { id: 19 }));
    seen.membership.as_mut().unwrap().members.pop();
    assert_eq!(plan(&three(), NEW, &seen).step, Some(Step::DeleteClaim { claim: 3, uid: "claim-3".to_owned() }));
}

#[test]
fn stateful_set_scaled_by_hand_is_put_right() {
    let mut seen = running(3, NEW);
    seen.replicas = Some(1);
    assert_eq!(plan(&three(), NEW, &seen).pods, Some(3));
    // The same where fewer are wanted: its voters were taken without leave.
    let one = wanted(&json!({"replicas": 1}));
    assert_eq!(plan(&one, NEW, &seen).pods, Some(3));
    seen.pods.retain(|ordinal, _| *ordinal == 0);
    seen.membership = None;
    assert_eq!(plan(&one, NEW, &seen).pods, Some(3), "without them there is no leader");
}

#[test]
fn member_without_a_pod_to_come_is_taken_out() {
    let mut seen = running(5, NEW);
    seen.replicas = Some(3);
    seen.pods.retain(|ordinal, _| *ordinal < 3);
    seen.claims.retain(|ordinal, _| *ordinal < 3);
    assert_eq!(plan(&three(), NEW, &seen).step, Some(Step::Decommission { id: 19 }));
}

#[test]
fn unmarked_claims_are_marked_once_their_nodes_know_the_cluster() {
    let mut seen = running(3, NEW);
    seen.claims.insert(1, claim(1, None));
    assert_eq!(plan(&three(), NEW, &seen).step, Some(mark(1, false)));
    pod(&mut seen, 1).node.as_mut().unwrap().cluster = None;
    assert_eq!(plan(&three(), NEW, &seen).step, None);
}

#[test]
fn disk_whose_claim_was_deleted_is_swapped_once_the_new_one_has_caught_up() {
    let mut seen = running(3, NEW);
    let old = member(&mut seen, 1).clone();
    let heir = SeenMember { id: 99, voter: false, caught_up: false, ..old };
    pod(&mut seen, 1).node.as_mut().unwrap().id = heir.id;
    let down = member(&mut seen, 1);
    (down.reachable, down.caught_up) = (false, false);
    seen.membership.as_mut().unwrap().members.push(heir);
    seen.claims.insert(1, claim(1, None));
    assert_eq!(plan(&three(), NEW, &seen).step, None, "neither told nor marked before it can take its place");
    member(&mut seen, 3).caught_up = true;
    assert_eq!(plan(&three(), NEW, &seen).step, Some(Step::Decommission { id: 17 }));
    seen.claims.insert(1, claim(1, Some("c1")));
    assert_eq!(
        plan(&three(), NEW, &seen).step,
        None,
        "a disk that was emptied under its claim is autopilot's own matter"
    );
    seen.claims.insert(1, claim(1, None));
    seen.membership.as_mut().unwrap().members.remove(1);
    assert_eq!(plan(&three(), NEW, &seen).step, Some(mark(1, false)), "then it is as any other");
}

#[test]
fn deleted_cluster_is_not_touched() {
    let mut doomed = three();
    doomed.deleting = true;
    let plan = plan(&doomed, NEW, &running(5, OLD));
    assert_eq!((plan.pods, plan.step, plan.reason), (None, None, Reason::Deleting));
}

#[test]
fn claims_that_are_to_go_with_their_cluster_are_owned_by_it_and_the_reverse() {
    let mut wanted = three();
    wanted.spec.storage.retention.on_delete = RetentionPolicy::Delete;
    let mut seen = running(3, NEW);
    assert_eq!(plan(&wanted, NEW, &seen).step, Some(mark(0, true)));
    for claim in seen.claims.values_mut() {
        claim.goes_along = true;
    }
    assert_eq!(plan(&wanted, NEW, &seen).step, None);
    assert_eq!(plan(&three(), NEW, &seen).step, Some(mark(0, false)), "they are to stay after all");
    seen.claims.get_mut(&0).unwrap().cluster = Some("c2".to_owned());
    assert_eq!(plan(&three(), NEW, &seen).reason, Reason::ForeignClaims, "others' data is not owned");
}

#[test]
fn retired_pod_that_is_wanted_back_is_started_anew() {
    let mut seen = running(3, NEW);
    let retired = pod(&mut seen, 2);
    retired.ready = false;
    *retired.node.as_mut().unwrap() = SeenNode { id: 99, cluster: None, retired: true };
    seen.membership.as_mut().unwrap().members.truncate(2);
    seen.voters = voters(1);
    assert_eq!(plan(&three(), NEW, &seen).step, Some(delete(2)));
}
