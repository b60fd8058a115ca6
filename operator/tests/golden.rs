//! What is built, held to the byte. A pod that is rendered another way is a pod that is replaced: whoever changes these
//! files restarts clusters, and has to mean it. `UPDATE_GOLDEN=1 cargo test -p quorate-operator --test golden` writes them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

use std::fs::{read_to_string, write};
use std::path::Path;

use quorate_operator::cluster::build::{Objects, Size, build, founding, template_name};
use quorate_operator::cluster::names::TEMPLATE_ANNOTATION;
use quorate_operator::cluster::observed::{Founding, Observed, Read};
use quorate_operator::cluster::validate::validate;
use quorate_operator::cluster::{Names, Wanted};
use serde::Serialize;
use serde_json::{Value, json};

fn wanted(spec: &Value) -> Wanted {
    let cluster = json!({
        "apiVersion": "quorate.dev/v1alpha1", "kind": "RateLimitCluster",
        "metadata": {"name": "edge", "namespace": "shop", "uid": "2f1d8c0e-0000-4000-8000-000000000001"},
        "spec": spec,
    });
    validate(&serde_json::from_value(cluster).unwrap()).unwrap()
}

fn shortest() -> Wanted {
    wanted(&json!({"version": "0.1.0"}))
}

fn full() -> Wanted {
    wanted(&json!({
        "version": "0.2.0-rc.1", "replicas": 5,
        "image": {"repository": "registry.example:5000/quorate/ratelimiter", "pullPolicy": "Always", "pullSecrets": ["registry"]},
        "storage": {"size": "2Gi", "storageClassName": "fast"},
        "placement": {
            "spread": "Required", "nodeSelector": {"disk": "local"},
            "tolerations": [{"key": "dedicated", "operator": "Equal", "value": "quorate", "effect": "NoSchedule"}],
        },
        "resources": {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "1Gi"}},
        "podTemplate": {"labels": {"team": "edge"}, "annotations": {"example.com/a": "b"}, "priorityClassName": "high"},
        "defaultLimit": "1000/1h",
    }))
}

fn yaml(object: &impl Serialize) -> String {
    serde_yaml::to_string(object).unwrap()
}

fn rendered(objects: &Objects) -> String {
    let mut documents = vec![yaml(&objects.service), yaml(&objects.peers), yaml(&objects.network_policy)];
    documents.extend(objects.disruption_budget.as_ref().map(yaml));
    documents.push(yaml(&objects.stateful_set));
    documents.join("---\n")
}

fn check(file: &str, rendered: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        write(&path, rendered).unwrap();
    }
    let golden = read_to_string(&path).unwrap_or_default();
    if let Some((line, (is, was))) = rendered.lines().zip(golden.lines()).enumerate().find(|(_, (is, was))| is != was) {
        panic!("{file}:{}: is {is:?}, and was {was:?}", line + 1);
    }
    assert!(rendered == golden, "{file} has {} lines, and had {}", rendered.lines().count(), golden.lines().count());
}

#[test]
fn shortest_cluster_is_built_as_ever() {
    check("shortest.yaml", &rendered(&build(&shortest(), Size { pods: 3, voters: 3 })));
}

#[test]
fn full_cluster_is_built_as_ever() {
    check("full.yaml", &rendered(&build(&full(), Size { pods: 5, voters: 5 })));
}

#[test]
fn pod_does_not_depend_on_what_a_running_pod_need_not_know() {
    let pods = |wanted: &Wanted| build(wanted, Size { pods: 3, voters: 3 }).stateful_set.spec.template;
    for spec in [
        json!({"version": "0.1.0", "replicas": 5}),
        json!({"version": "0.1.0", "paused": true, "allowedNamespaces": ["*"]}),
        json!({"version": "0.1.0", "rollout": {"strategy": "Manual", "progressDeadline": "1h"}}),
        json!({"version": "0.1.0", "storage": {"retention": {"onDelete": "Delete"}}}),
    ] {
        assert_eq!(pods(&wanted(&spec)), pods(&shortest()), "{spec}");
    }
    for spec in [
        json!({"version": "0.1.1"}),
        json!({"version": "0.1.0", "resources": {"limits": {"cpu": "1"}}}),
        json!({"version": "0.1.0", "podTemplate": {"labels": {"a": "b"}}}),
    ] {
        assert_ne!(template_name(&wanted(&spec)), template_name(&shortest()), "{spec}");
    }
}

#[test]
fn pod_bears_the_name_of_its_template() {
    let template = build(&full(), Size { pods: 3, voters: 3 }).stateful_set.spec.template;
    let annotations = template.metadata.unwrap().annotations.unwrap();
    assert_eq!(annotations[TEMPLATE_ANNOTATION], template_name(&full()));
}

#[test]
fn budget_leaves_a_majority_of_the_voters_at_each_size() {
    let budget = |wanted: usize, pods: usize, voters: usize| {
        let wanted = crate::wanted(&json!({"version": "0.1.0", "replicas": wanted}));
        let budget = build(&wanted, Size { pods, voters }).disruption_budget;
        budget.map(|budget| serde_json::to_value(budget.spec.unwrap().min_available).unwrap().as_u64().unwrap())
    };
    for (wanted, pods, voters, min_available) in [
        (1, 1, 1, None),
        (3, 3, 0, Some(2)),
        (3, 3, 3, Some(2)),
        (5, 5, 5, Some(3)),
        // More than five pods vote with five.
        (9, 9, 5, Some(7)),
        // On the way up only what votes today counts, on the way down only what will.
        (5, 5, 3, Some(4)),
        (3, 5, 5, Some(4)),
        (1, 3, 3, Some(3)),
        // In between an even number votes: of two nobody can be missed, of four one.
        (3, 3, 2, Some(3)),
        (5, 5, 4, Some(4)),
    ] {
        assert_eq!(budget(wanted, pods, voters), min_available, "{pods} of {wanted} pods, {voters} voters");
    }
}

#[test]
fn founding_reads_back_as_it_was_written() {
    let how = Founding::With([(0x1f, "edge-0".to_owned()), (0xffff_ffff_ffff_ffff, "edge-1".to_owned())].into());
    for how in [how, Founding::Adopted("c1".to_owned())] {
        let map = founding(&shortest(), &how);
        assert_eq!(map.immutable, Some(true));
        let seen = Observed::new(&Names::new("edge"), &Read { founding: Some(&map), ..Read::default() });
        assert_eq!(seen.founding, Some(how));
    }
}
