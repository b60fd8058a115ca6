//! What `crdgen` prints is what an API server takes, and what is in the repository.
#![allow(clippy::unwrap_used, reason = "a test may")]

use std::fs::read_to_string;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;
use serde_yaml::Value;

fn printed(words: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_crdgen")).args(words).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn definition(plural: &str) -> Value {
    serde_yaml::from_str(&printed(&[plural])).unwrap()
}

#[test]
fn what_is_generated_is_in_the_repository_as_it_is_printed() {
    for (what, file) in [
        ("ratelimitclusters", "manifests/crds/ratelimitclusters.yaml"),
        ("quotapolicies", "manifests/crds/quotapolicies.yaml"),
        ("resources", "docs/resources.md"),
        ("operations", "docs/operations.md"),
    ] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
        let committed = read_to_string(&path).unwrap_or_default();
        assert!(committed == printed(&[what]), "{file} is not what `crdgen {what}` prints; run `make generate`");
    }
}

#[test]
fn without_a_word_both_definitions_are_printed() {
    let documents: Vec<Value> = serde_yaml::Deserializer::from_str(&printed(&[]))
        .map(|document| Value::deserialize(document).unwrap())
        .collect();
    assert_eq!(documents, [definition("ratelimitclusters"), definition("quotapolicies")]);
}

#[test]
fn word_that_is_not_known_is_refused_with_those_that_are() {
    let output = Command::new(env!("CARGO_BIN_EXE_crdgen")).arg("quota").output().unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
    assert!(String::from_utf8(output.stderr).unwrap().contains("quotapolicies"));
}

#[test]
fn printed_definitions_carry_the_promised_names() {
    for (plural, kind, short, columns) in [
        (
            "ratelimitclusters",
            "RateLimitCluster",
            "rlc",
            vec!["Ready", "Leader", "Version", "Policies", "Operation", "Age", "Term", "Next"],
        ),
        ("quotapolicies", "QuotaPolicy", "qp", vec!["Limits", "Cluster", "Enforced", "Denied", "Age", "Message"]),
    ] {
        let crd = definition(plural);
        assert_eq!(crd["metadata"]["name"], Value::from(format!("{plural}.quorate.dev")));
        let spec = &crd["spec"];
        assert_eq!((&spec["group"], &spec["scope"]), (&"quorate.dev".into(), &"Namespaced".into()));
        let version = &spec["versions"][0];
        assert_eq!(version["name"], "v1alpha1");
        assert!(version["subresources"]["status"].is_mapping());
        assert_eq!(version["subresources"]["scale"].is_mapping(), kind == "RateLimitCluster");
        let names = &spec["names"];
        assert_eq!((&names["kind"], &names["plural"]), (&kind.into(), &plural.into()));
        assert_eq!(names["shortNames"], Value::from(vec![short]));
        assert_eq!(names["categories"], Value::from(vec!["quorate"]));
        let printed = version["additionalPrinterColumns"].as_sequence().unwrap();
        assert_eq!(printed.iter().map(|column| column["name"].as_str().unwrap()).collect::<Vec<_>>(), columns);
    }
}

#[test]
fn printed_schemas_are_structural() {
    for (plural, nodes) in [("ratelimitclusters", 60), ("quotapolicies", 40)] {
        let schema = &definition(plural)["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        assert!(check_structural("", schema) > nodes, "the schema is all there");
    }
}

/// Every node has one type, objects name their fields, and nothing refers elsewhere. Returns how many nodes there are.
fn check_structural(path: &str, node: &Value) -> usize {
    assert!(node["type"].is_string(), "{path} has a type: {node:?}");
    for key in ["$ref", "oneOf", "anyOf", "allOf", "not", "uniqueItems"] {
        assert!(node.get(key).is_none(), "{path} has no {key}");
    }
    let mut nodes = 1;
    if node["type"] == "array" {
        nodes += check_structural(&format!("{path}[]"), &node["items"]);
    }
    // A map has fields of any name, all of one type.
    if let Some(values) = node.get("additionalProperties") {
        assert!(node.get("properties").is_none(), "{path} is a map or an object, not both");
        nodes += check_structural(&format!("{path}{{}}"), values);
    } else if node["type"] == "object" {
        for (name, field) in node["properties"].as_mapping().unwrap() {
            nodes += check_structural(&format!("{path}.{}", name.as_str().unwrap()), field);
        }
    }
    nodes
}
