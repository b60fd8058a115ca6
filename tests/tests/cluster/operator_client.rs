//! The operator's client against real nodes.

use std::collections::BTreeMap;

use hyper::StatusCode;
use quorate_crds::api::{DecommissionState, OwnerName, PolicySet};
use quorate_crds::{QuotaPolicy, parse_policy};
use quorate_operator::limiter::{Failure, Limiters, Ports, Target};
use quorate_tests::client::{limit, policy};
use quorate_tests::cluster::{ADMIN_PORT, Cluster, DATA_PORT, PATIENCE, Plan, eventually};
use serde_json::{Value, json};

fn limiters() -> Limiters {
    Limiters::new(Ports { http: DATA_PORT, admin: ADMIN_PORT })
}

fn target(cluster: &Cluster, index: usize) -> Target {
    let node = cluster.node(index);
    Target { pod: node.name().to_owned(), ip: node.ip().into() }
}

fn resource(value: &Value) -> QuotaPolicy {
    QuotaPolicy::from(&parse_policy(value.to_string().as_bytes(), false).expect("a valid policy"))
}

#[tokio::test(flavor = "multi_thread")]
async fn operator_founds_a_cluster_moves_its_leader_and_lets_a_member_leave() {
    let cluster = Plan::of(3).set("BOOTSTRAP_EXPECT", "0").build().await;
    for node in cluster.nodes() {
        node.start();
    }
    let limiters = limiters();
    let mut members = BTreeMap::new();
    for (index, node) in cluster.nodes().iter().enumerate() {
        let answer = eventually(PATIENCE, "the node answers", async || {
            limiters.cluster(&target(&cluster, index)).await.map_err(|error| error.to_string())
        });
        let answer = answer.await;
        assert_eq!((answer.cluster_id.as_str(), answer.members.len()), ("", 0));
        members.insert(answer.node.0, node.name().to_owned());
    }
    let founded = limiters.bootstrap(&target(&cluster, 0), &members).await.unwrap();
    assert_eq!(limiters.bootstrap(&target(&cluster, 0), &members).await.unwrap(), founded, "again is no error");
    let without = members.iter().skip(1).map(|(id, name)| (*id, name.clone())).collect();
    let refused = limiters.bootstrap(&target(&cluster, 0), &without).await.unwrap_err();
    assert!(matches!(&refused.failure, Failure::Refused { status, .. } if status.is_client_error()), "{refused}");

    let led = eventually(PATIENCE, "a leader that knows its voters", async || {
        let answer = limiters.cluster(&target(&cluster, 1)).await.map_err(|error| error.to_string())?;
        let all = answer.members.len() == 3 && answer.members.iter().all(|member| member.reachable);
        answer.leader.filter(|_| all).map(|leader| (leader, answer.clone())).ok_or_else(|| format!("{answer:?}"))
    });
    let (leader, seen) = led.await;
    assert_eq!(seen.cluster_id, founded.cluster_id);
    let place = |id: u64| cluster.nodes().iter().position(|node| node.name() == members[&id]).unwrap();
    let next = seen.members.iter().map(|member| member.id).find(|id| *id != leader).unwrap();
    let moved = eventually(PATIENCE, "the leadership is handed over", async || {
        limiters
            .transfer_leader(&target(&cluster, place(leader.0)), Some(next))
            .await
            .map_err(|error| error.to_string())
    });
    assert_eq!(moved.await.leader, next);
    let left = eventually(PATIENCE, "the member leaves", async || {
        let answer = limiters.decommission(&target(&cluster, place(next.0)), leader).await;
        match answer.map_err(|error| error.to_string())?.state {
            DecommissionState::Left => Ok(()),
            DecommissionState::Leaving => Err("leaving".to_owned()),
        }
    });
    left.await;
    let last = limiters.cluster(&target(&cluster, place(next.0))).await.unwrap();
    assert_eq!(last.members.len(), 2, "{last:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn operator_pushes_its_set_and_is_refused_what_belongs_to_others() {
    let cluster = Plan::of(1).start().await;
    let (limiters, target) = (limiters(), target(&cluster, 0));
    let one = policy("one", "a-", &json!([limit("FixedWindow", 5, "1m")]));
    let set = PolicySet { owner: Some(OwnerName::Operator), cluster_id: None, policies: vec![resource(&one)] };
    let changed = limiters.apply_policies(&target, &set).await.unwrap();
    assert_eq!(limiters.apply_policies(&target, &set).await.unwrap(), changed, "the same set changes nothing");
    let list = limiters.policies(&target).await.unwrap();
    // The other is that of the founding.
    assert_eq!((list.revision, list.policies.len()), (changed.revision, 2));
    let spec = serde_json::to_value(&set.policies[0].spec).unwrap();
    assert_eq!((list.policies[0].owner, &list.policies[0].spec), (OwnerName::Operator, &spec));
    assert_eq!(limiters.cluster(&target).await.unwrap().members[0].applied_revision, Some(changed.revision));

    cluster
        .node(0)
        .admin_client()
        .put_policy(&policy("two", "b-", &json!([limit("FixedWindow", 5, "1m")])))
        .await
        .unwrap();
    let two = policy("two", "c-", &json!([limit("FixedWindow", 5, "1m")]));
    let set = PolicySet { owner: Some(OwnerName::Operator), cluster_id: None, policies: vec![resource(&two)] };
    let refused = limiters.apply_policies(&target, &set).await.unwrap_err();
    match &refused.failure {
        Failure::Refused { status: StatusCode::CONFLICT, words, .. } => {
            assert!(words.contains("default/two"), "{words}");
        }
        other => panic!("{other}"),
    }
    let text = refused.to_string();
    assert!(text.starts_with(&format!("pod node-1 at {}:{ADMIN_PORT}, POST /v1/policies:apply:", target.ip)), "{text}");
}
