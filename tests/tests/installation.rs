//! What is installed agrees with what it was made from. Whether it works, the scenarios on a real Kubernetes show.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::fs::read_to_string;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_yaml::Value;

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(path)
}

fn text(path: &str) -> String {
    read_to_string(file(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn documents(path: &str) -> Vec<Value> {
    let text = text(path);
    serde_yaml::Deserializer::from_str(&text).map(|document| Value::deserialize(document).unwrap()).collect()
}

fn definitions() -> Vec<String> {
    ["quotapolicies", "ratelimitclusters"].map(|name| format!("{name}.yaml")).into()
}

#[test]
fn chart_carries_the_generated_definitions() {
    let mut carried: Vec<_> = std::fs::read_dir(file("helm/quorate/files/crds"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    carried.sort();
    assert_eq!(carried, definitions());
    for name in definitions() {
        let [generated, carried] =
            ["manifests/crds", "helm/quorate/files/crds"].map(|folder| text(&format!("{folder}/{name}")));
        assert!(
            generated == carried,
            "helm/quorate/files/crds/{name} is not that of manifests/crds; run: make generate"
        );
    }
}

#[test]
fn rendered_manifest_carries_the_generated_definitions_and_says_to_keep_them() {
    let rendered = documents("manifests/install.yaml");
    for name in definitions() {
        let mut expected = documents(&format!("manifests/crds/{name}")).remove(0);
        let keep = serde_yaml::from_str("helm.sh/resource-policy: keep").unwrap();
        expected["metadata"].as_mapping_mut().unwrap().insert("annotations".into(), keep);
        assert!(rendered.contains(&expected), "manifests/install.yaml has another {name}; run: make generate");
    }
}

#[test]
fn everything_installed_is_of_one_version() {
    let chart = &documents("helm/quorate/Chart.yaml")[0];
    assert_eq!((&chart["version"], &chart["appVersion"]), (&VERSION.into(), &VERSION.into()));
    assert_eq!(documents("manifests/samples/kubernetes/cluster.yaml")[0]["spec"]["version"], VERSION);
    let dockerfile = text("Dockerfile");
    assert_eq!(dockerfile.matches(&format!("image.version=\"{VERSION}\"")).count(), 2);
    for image in ["quorate/ratelimiter", "quorate/operator"] {
        assert!(dockerfile.contains(&format!("{image}:{VERSION} ")), "{image}");
    }
    let operator = format!("quorate/operator:{VERSION}");
    let rendered = documents("manifests/install.yaml");
    let deployment = rendered.iter().find(|object| object["kind"] == "Deployment").unwrap();
    assert_eq!(deployment["spec"]["template"]["spec"]["containers"][0]["image"], operator.as_str());
}

#[test]
fn operator_bears_the_label_by_which_limiters_admit_it() {
    // Limiters' NetworkPolicies, which the operator makes, name it: operator/src/cluster/build/network.rs.
    let golden = documents("operator/tests/golden/shortest.yaml");
    let policy = golden.iter().find(|object| object["kind"] == "NetworkPolicy").unwrap();
    let admitted = policy["spec"]["ingress"]
        .as_sequence()
        .unwrap()
        .iter()
        .flat_map(|rule| rule["from"].as_sequence().into_iter().flatten());
    let labels: Vec<_> = admitted
        .filter(|peer| !peer["namespaceSelector"].is_null())
        .map(|peer| &peer["podSelector"]["matchLabels"])
        .collect();
    let rendered = documents("manifests/install.yaml");
    let deployment = rendered.iter().find(|object| object["kind"] == "Deployment").unwrap();
    let operator = &deployment["spec"]["template"]["metadata"]["labels"];
    assert_eq!(labels.len(), 1);
    for (name, value) in labels[0].as_mapping().unwrap() {
        assert_eq!(&operator[name], value);
    }
}
