//! The definition that `crdgen` prints is one that an API server takes.
#![allow(clippy::unwrap_used, reason = "a test may")]

use std::process::Command;

use serde_yaml::Value;

fn printed() -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_crdgen")).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_yaml::from_slice(&output.stdout).unwrap()
}

#[test]
fn printed_definition_carries_the_promised_names() {
    let crd = printed();
    assert_eq!(crd["metadata"]["name"], "quotapolicies.quorate.dev");
    let spec = &crd["spec"];
    assert_eq!((&spec["group"], &spec["scope"]), (&"quorate.dev".into(), &"Namespaced".into()));
    assert_eq!(spec["versions"][0]["name"], "v1alpha1");
    let names = &spec["names"];
    assert_eq!((&names["kind"], &names["plural"]), (&"QuotaPolicy".into(), &"quotapolicies".into()));
    assert_eq!(names["shortNames"], Value::from(vec!["qp"]));
    assert_eq!(names["categories"], Value::from(vec!["quorate"]));
}

#[test]
fn printed_schema_is_structural() {
    let schema = &printed()["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    assert!(check_structural("", schema) > 30, "the schema is all there");
}

/// Every node has one type, objects name their fields, and nothing refers elsewhere. Returns how many nodes there are.
fn check_structural(path: &str, node: &Value) -> usize {
    assert!(node["type"].is_string(), "{path} has a type: {node:?}");
    for key in ["$ref", "oneOf", "anyOf", "allOf", "not", "additionalProperties", "uniqueItems"] {
        assert!(node.get(key).is_none(), "{path} has no {key}");
    }
    let mut nodes = 1;
    if node["type"] == "array" {
        nodes += check_structural(&format!("{path}[]"), &node["items"]);
    }
    if node["type"] == "object" {
        for (name, field) in node["properties"].as_mapping().unwrap() {
            nodes += check_structural(&format!("{path}.{}", name.as_str().unwrap()), field);
        }
    }
    nodes
}
