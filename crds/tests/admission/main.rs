//! What an API server admits, a limiter admits, and the other way round. One table for each resource says what becomes of
//! a spec; the schema with its CEL rules and the limiter's own reading are both held to it.
//!
//! The schema is judged here by `schema.rs` and by kube-cel, which is an interpreter of its own; an API server has the
//! last word, and may be asked with the same tables.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

mod case;
mod schema;

use kube::CustomResourceExt;
use quorate_crds::{QuotaPolicy, RateLimitCluster, parse_policy};
use serde_json::{Value, json};

use case::Case;

const NAMESPACE: &str = "shop";

fn policies() -> Vec<Case> {
    Case::all(include_str!("quotapolicies.yaml"))
}

fn clusters() -> Vec<Case> {
    Case::all(include_str!("ratelimitclusters.yaml"))
}

/// The schema of the first version, as an API server is given it.
fn schema_of<K: CustomResourceExt>() -> Value {
    serde_json::to_value(K::crd()).unwrap()["spec"]["versions"][0]["schema"]["openAPIV3Schema"].take()
}

fn check(case: &Case, found: &[String], expected: Option<&String>, whose: &str) {
    let said = found.join(" | ");
    match expected {
        None => assert!(found.is_empty(), "{}: {whose} should admit it: {said}", case.name),
        Some(words) => assert!(said.contains(words), "{}: {whose} should say {words:?}: {said:?}", case.name),
    }
}

#[test]
fn api_server_admits_what_the_table_says() {
    for (kind, schema, cases) in [
        ("QuotaPolicy", schema_of::<QuotaPolicy>(), policies()),
        ("RateLimitCluster", schema_of::<RateLimitCluster>(), clusters()),
    ] {
        assert!(cases.iter().any(|case| case.refused.is_none()) && cases.len() > 40, "the table is all there");
        for case in cases {
            let old = case.old.as_ref().map(|spec| case.object(kind, NAMESPACE, spec));
            let found = schema::refusals(&schema, &case.object(kind, NAMESPACE, &case.spec), old.as_ref());
            check(&case, &found, case.refused.as_ref(), "an API server");
        }
    }
}

#[test]
fn limiter_admits_what_the_table_says() {
    for case in policies() {
        let text = case.object("QuotaPolicy", NAMESPACE, &case.spec).to_string();
        let found: Vec<String> = match parse_policy(text.as_bytes(), false) {
            Ok(_) => Vec::new(),
            Err(errors) => errors.iter().map(ToString::to_string).collect(),
        };
        check(&case, &found, case.refused_by_node.as_ref(), "a limiter");
        assert_eq!(
            case.refused.is_some() == case.refused_by_node.is_some(),
            case.because.is_none(),
            "{}: where the two differ the table says why, and only there",
            case.name
        );
    }
}

#[test]
fn cluster_admitted_reads_as_its_type() {
    for case in clusters().iter().filter(|case| case.refused.is_none()) {
        // An API server drops a null that has a default before anybody reads the object.
        let mut object = case.object("RateLimitCluster", NAMESPACE, &case.spec);
        object["spec"].as_object_mut().unwrap().retain(|_, value| !value.is_null());
        let read: Result<RateLimitCluster, _> = serde_json::from_value(object);
        assert!(read.is_ok(), "{}: {}", case.name, read.unwrap_err());
    }
}

#[test]
fn defaults_of_the_schema_are_those_of_the_types() {
    let spec = json!({"version": "0.1.0"});
    let object =
        json!({"apiVersion": "quorate.dev/v1alpha1", "kind": "RateLimitCluster", "metadata": {}, "spec": spec});
    let filled = kube_cel::apply_defaults(&schema_of::<RateLimitCluster>(), &object);
    let read: RateLimitCluster = serde_json::from_value(object).unwrap();
    assert_eq!(filled["spec"], serde_json::to_value(read.spec).unwrap());
    let policy = json!({"spec": {"limits": []}});
    let filled = kube_cel::apply_defaults(&schema_of::<QuotaPolicy>(), &policy);
    assert_eq!(
        filled["spec"],
        json!({"domain": "default", "countBy": ["client_id"], "limits": [], "enforcement": "Enforce", "onUnavailable": "Deny"})
    );
}

#[test]
fn every_list_map_and_text_is_bounded() {
    for schema in [schema_of::<QuotaPolicy>(), schema_of::<RateLimitCluster>()] {
        let unbounded = schema::unbounded("", &schema);
        assert_eq!(unbounded, Vec::<String>::new(), "the cost of a rule cannot be known");
    }
}

#[test]
fn samples_are_admitted() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/samples/kubernetes");
    let mut kinds = Vec::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let object: Value = serde_yaml::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let schema = match object["kind"].as_str().unwrap() {
            "QuotaPolicy" => schema_of::<QuotaPolicy>(),
            "RateLimitCluster" => schema_of::<RateLimitCluster>(),
            other => panic!("{}: this test knows no {other}", path.display()),
        };
        assert_eq!(schema::refusals(&schema, &object, None), Vec::<String>::new(), "{}", path.display());
        kinds.push(object["kind"].to_string());
    }
    assert!(kinds.len() >= 2, "{kinds:?}");
}

#[test]
fn policy_with_too_many_overrides_is_refused_by_both() {
    let overrides = |count: usize| -> Vec<Value> {
        (0..count)
            .map(|i| json!({"match": [{"key": "k", "exact": format!("v{i}")}], "limits": [{"name": "a", "limit": 1}]}))
            .collect()
    };
    let limit = json!({"name": "a", "algorithm": "FixedWindow", "limit": 1, "window": "1s"});
    for (count, admitted) in [(256, true), (257, false)] {
        let case = Case {
            name: format!("{count} overrides"),
            metadata_name: None,
            spec: json!({"clusterRef": {"name": "edge"}, "limits": [limit], "overrides": overrides(count)}),
            old: None,
            refused: None,
            refused_by_node: None,
            because: None,
        };
        let object = case.object("QuotaPolicy", NAMESPACE, &case.spec);
        assert_eq!(schema::refusals(&schema_of::<QuotaPolicy>(), &object, None).is_empty(), admitted, "{count}");
        assert_eq!(parse_policy(object.to_string().as_bytes(), false).is_ok(), admitted, "{count}");
    }
}
