use serde_json::{Value, from_value, json};

use super::*;

fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
    from_value(value).unwrap()
}

fn answer(node: &str, leader: Option<&str>, term: u64) -> ClusterAnswer {
    let member = |name: &str, id: &str, role: &str, lag: Value, reachable: bool| json!({"name": name, "id": id, "role": role, "lag": lag, "appliedRevision": 1, "version": "0.1.0", "reachable": reachable});
    read(json!({
        "clusterId": "c1", "node": node, "leader": leader, "term": term, "revision": 1, "intents": [], "autopilot": null,
        "members": [
            member("edge-0", "10", "Voter", json!(0), true),
            member("edge-1", "11", "Voter", json!(1001), true),
            member("edge-2", "12", "Learner", json!(null), false),
        ],
    }))
}

#[test]
fn objects_and_answers_make_one_view() {
    let set = read(
        json!({"metadata": {"name": "edge"}, "spec": {"replicas": 3, "selector": {}, "serviceName": "edge-peers", "template": {}}}),
    );
    let pods: Vec<Pod> = vec![
        read(json!({
            "metadata": {"name": "edge-0", "uid": "p0", "annotations": {"quorate.dev/template": "t1"}},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        })),
        read(json!({
            "metadata": {"name": "edge-1", "uid": "p1", "deletionTimestamp": "2026-01-01T00:00:00Z"},
            "status": {"conditions": [{"type": "Ready", "status": "False"}]},
        })),
        read(json!({"metadata": {"name": "edge-canary", "uid": "p2"}})),
    ];
    let claims: Vec<PersistentVolumeClaim> = vec![read(
        json!({"metadata": {"name": "data-edge-0", "uid": "c0", "annotations": {"quorate.dev/cluster-id": "c1"}}}),
    )];
    let founding = read(json!({"data": {"members": r#"{"edge-0":"0000000000000010"}"#}}));
    let first = answer("10", Some("10"), 7);
    let operation = Operation {
        kind: OperationKind::ReplacePod,
        pod: Some("edge-1".to_owned()),
        replicas: None,
        started_at: read(json!("2026-01-01T00:00:00Z")),
        waits_for: None,
    };
    let seen = Observed::new(
        &Names::new("edge"),
        &Read {
            uid: "u",
            stateful_set: Some(&set),
            pods: &pods,
            claims: &claims,
            founding: Some(&founding),
            answers: &[("edge-0", &first)],
            in_the_way: None,
            was_founded: true,
            operation: Some(&operation),
        },
    );
    let node = SeenNode { id: 0x10, cluster: Some("c1".to_owned()), retired: false };
    let text = ToOwned::to_owned;
    assert_eq!(
        seen.pods,
        BTreeMap::from([
            (0, SeenPod { uid: text("p0"), template: text("t1"), ready: true, terminating: false, node: Some(node) }),
            (1, SeenPod { uid: text("p1"), template: text(""), ready: false, terminating: true, node: None }),
        ])
    );
    let claim = SeenClaim { uid: text("c0"), cluster: Some(text("c1")), goes_along: false, terminating: false };
    assert_eq!(seen.claims[&0], claim);
    assert_eq!(seen.founding, Some(Founding::With(BTreeMap::from([(0x10, text("edge-0"))]))));
    assert_eq!((seen.replicas, seen.operation), (Some(3), Some(InFlight::ReplacePod(1))));
    let membership = seen.membership.unwrap();
    assert_eq!((membership.leader, membership.term), (0x10, 7));
    assert_eq!(membership.members.iter().map(SeenMember::healthy).collect::<Vec<_>>(), [true, false, false]);
    assert_eq!(seen.voters, BTreeMap::from([(0x10, 0), (0x11, 1)]));
}

#[test]
fn of_two_leaders_the_later_counts_and_a_follower_never() {
    let (old, new, follower) = (answer("10", Some("10"), 7), answer("11", Some("11"), 8), answer("12", Some("10"), 9));
    let names = Names::new("edge");
    let answers = [("edge-0", &old), ("edge-1", &new), ("edge-2", &follower)];
    let seen = Observed::new(&names, &Read { answers: &answers, ..Read::default() });
    assert_eq!(seen.membership.unwrap().leader, 0x11);
    let seen = Observed::new(&names, &Read { answers: &answers[2..], ..Read::default() });
    let voters = BTreeMap::from([(0x10, 0), (0x11, 1)]);
    assert_eq!((seen.membership, seen.voters), (None, voters), "who votes is known all the same");
}

#[test]
fn founding_that_cannot_be_read_is_not_taken_for_none() {
    for data in
        [json!({}), json!({"members": "{}"}), json!({"members": "edge-0"}), json!({"members": r#"{"edge-0":"x"}"#})]
    {
        let map: ConfigMap = read(json!({"data": data}));
        assert_eq!(founding(&map), Founding::Unreadable);
    }
    let map: ConfigMap = read(json!({"data": {"adopted": "c1"}}));
    assert_eq!(founding(&map), Founding::Adopted("c1".to_owned()));
}

#[test]
fn node_of_the_cluster_that_is_no_member_any_more_is_retired() {
    let (leader, gone) = (answer("10", Some("10"), 7), answer("99", None, 7));
    let pods: Vec<Pod> = vec![read(json!({"metadata": {"name": "edge-2", "uid": "p2"}}))];
    let names = Names::new("edge");
    let retired = |answers: &[(&str, &ClusterAnswer)]| {
        let seen = Observed::new(&names, &Read { pods: &pods, answers, ..Read::default() });
        seen.pods[&2].node.as_ref().unwrap().retired
    };
    assert!(retired(&[("edge-0", &leader), ("edge-2", &gone)]));
    assert!(!retired(&[("edge-2", &gone)]), "without a leader nobody knows");
    let fresh = ClusterAnswer { cluster_id: String::new(), ..gone.clone() };
    assert!(!retired(&[("edge-0", &leader), ("edge-2", &fresh)]), "it is about to join");
    let invited = ClusterAnswer { members: Vec::new(), ..gone.clone() };
    assert!(!retired(&[("edge-0", &leader), ("edge-2", &invited)]), "it is joining");
    let learner = answer("12", None, 7);
    assert!(!retired(&[("edge-0", &leader), ("edge-2", &learner)]));
}
