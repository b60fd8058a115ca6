use serde_json::json;

use super::*;

fn target(pod: &str) -> Target {
    Target { pod: pod.to_owned(), ip: [127, 0, 0, 1].into() }
}

/// A cluster as `edge-0` tells it, which has applied revision 7: each member with what it has applied, `None` when it is
/// not reached.
fn answer(leader: bool, members: &[(&str, Option<u64>)]) -> ClusterAnswer {
    let members: Vec<_> = members
        .iter()
        .map(|(role, applied)| {
            json!({ "role": role, "lag": 0, "appliedRevision": applied, "version": "0.1.0",
                    "reachable": applied.is_some() })
        })
        .enumerate()
        .map(|(i, mut member)| {
            member["name"] = format!("edge-{i}").into();
            member["id"] = format!("{}", i + 1).into();
            member
        })
        .collect();
    serde_json::from_value(json!({
        "clusterId": "c", "node": "1", "leader": leader.then_some("1"), "term": 1, "revision": 7, "members": members,
        "intents": [], "autopilot": null
    }))
    .unwrap()
}

#[test]
fn live_members_are_those_that_are_reached_learners_too() {
    let pods = ["edge-0", "edge-1", "edge-2", "edge-3"].map(target);
    let told = answer(true, &[("Voter", Some(7)), ("Voter", Some(6)), ("Voter", None), ("Learner", Some(7))]);
    let seen = seen("c", &pods[0], &pods, &told).unwrap();
    assert_eq!((seen.members, seen.revision, &seen.best), (Members(vec![7, 6, 7]), 7, &pods[0]));
    assert_eq!(seen.versions, ["0.1.0".to_owned()].into());
}

#[test]
fn policies_are_read_where_they_are_newest() {
    let pods = ["edge-0", "edge-1", "edge-2"].map(target);
    let told = answer(true, &[("Voter", Some(7)), ("Voter", Some(9)), ("Voter", Some(8))]);
    let seen = seen("c", &pods[0], &pods, &told).unwrap();
    assert_eq!((seen.revision, seen.best), (9, pods[1].clone()));
}

#[test]
fn node_that_cannot_speak_for_its_cluster_is_not_believed() {
    let pods = ["edge-0", "edge-1", "edge-2"].map(target);
    let mut unfounded = answer(true, &[]);
    unfounded.cluster_id = String::new();
    let all = [("Voter", Some(7)), ("Voter", Some(7)), ("Voter", Some(7))];
    let mut elsewhere = answer(true, &all);
    elsewhere.cluster_id = "d".to_owned();
    // The address of a pod that is gone has become that of another pod of its cluster.
    let mut another = answer(true, &all);
    another.node = another.members[1].id;
    for (told, why) in [
        (unfounded, "in no cluster yet"),
        (elsewhere, "for another cluster or pod"),
        (another, "for another cluster or pod"),
        (answer(false, &all), "knows no leader"),
        (answer(true, &[("Voter", Some(7)), ("Voter", None), ("Voter", None)]), "no majority"),
        (answer(true, &[("Voter", Some(7)), ("Voter", None), ("Learner", Some(7))]), "no majority"),
    ] {
        let error = seen("c", &pods[0], &pods, &told).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn refusal_of_a_set_is_about_the_policies_it_names() {
    let name = |name: &str| PolicyName { namespace: "shop".to_owned(), name: name.to_owned() };
    let (a, b) = (name("a"), name("b"));
    let fault = |path: &str, message: &str| Fault { path: path.to_owned(), message: message.to_owned() };
    let error = |status, faults| CallError {
        pod: "edge-0".to_owned(),
        address: ([127, 0, 0, 1], 1).into(),
        route: "POST /v1/policies:apply".to_owned(),
        failure: Failure::Refused { status, words: "no".to_owned(), faults },
    };
    let faults = vec![
        fault("policies[1].spec.limits[0].algorithm", "is unknown"),
        fault("policies[1]", "is no policy"),
        fault("policies[9].spec", "is nobody's"),
        fault("owner", "is unknown"),
    ];
    let found = refused(&error(StatusCode::BAD_REQUEST, faults.clone()), &[&a, &b]);
    let words = "spec.limits[0].algorithm: is unknown; is no policy".to_owned();
    assert_eq!(found, BTreeMap::from([(b.clone(), words)]));
    assert!(refused(&error(StatusCode::CONFLICT, faults), &[&a, &b]).is_empty());
}
