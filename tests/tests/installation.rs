//! What is installed agrees with what it was made from. Whether it works, the scenarios on a real Kubernetes show.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::BTreeSet;
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

/// Reads the compose file by the Compose Specification's types, which know no other fields.
#[test]
fn compose_file_is_one_by_its_specification_and_in_step_with_dockerfile_and_forerunners() {
    let compose = compose_spec::Compose::options().apply_merge(true).from_yaml_str(&text("compose.yaml")).unwrap();
    compose.validate_all().unwrap();
    let value = {
        let mut value: Value = serde_yaml::from_str(&text("compose.yaml")).unwrap();
        value.apply_merge().unwrap();
        value
    };
    let published = |service: &str| value["services"][service]["ports"][0].as_str().unwrap().to_owned();
    for (service, port) in [
        ("limiter-1", "20001:20001"),
        ("limiter-2", "20002:20001"),
        ("limiter-3", "20003:20001"),
        ("nginx", "9999:9999"),
        ("prometheus", "9090:9090"),
        ("grafana", "3000:3000"),
    ] {
        assert_eq!(published(service), port, "{service}");
    }
    let (dockerfile, nginx, prometheus) =
        (text("Dockerfile"), text("compose/nginx.conf"), text("compose/prometheus.yml"));
    for name in ["limiter-1", "limiter-2", "limiter-3"] {
        let limiter = &value["services"][name];
        assert_eq!(limiter["image"], Value::from(format!("quorate/ratelimiter:{VERSION}")));
        let stage = limiter["build"]["target"].as_str().unwrap();
        assert!(dockerfile.contains(&format!(" AS {stage}\n")), "the Dockerfile has a stage {stage}");
        let (_, image) = dockerfile.split_once(&format!(" AS {stage}\n")).unwrap();
        let image = image.split("\nFROM ").next().unwrap();
        let program = limiter["healthcheck"]["test"][1].as_str().unwrap();
        assert!(image.contains(&format!("ENTRYPOINT [\"{program}\"]")), "{program} is the image's program");
        let folder = limiter["environment"]["DATA_DIR"].as_str().unwrap();
        assert_eq!(limiter["volumes"][0], Value::from(format!("{name}:{folder}")));
        assert!(
            text("images/collect").contains(&format!("\"$2{folder}\"")),
            "whoever it runs as may write to {folder}"
        );
        assert_eq!(limiter["environment"]["NODE_ID"], Value::from(name));
        let contacts = limiter["environment"]["CLUSTERS"].as_str().unwrap();
        assert!(contacts.contains(&format!("{name}:50011")), "{contacts}");
        assert!(nginx.contains(&format!("server {name}:20001;")), "nginx sends to {name}");
        assert!(prometheus.contains(&format!("\"{name}:20001\"")), "Prometheus asks {name}");
    }
    let services = value["services"].as_mapping().unwrap().values();
    let volumes = services.filter_map(|service| service["volumes"].as_sequence()).flatten();
    for file in volumes.filter_map(|volume| volume.as_str()?.split(':').next()?.strip_prefix("./")) {
        assert!(!text(file).is_empty(), "{file} is there");
    }
}

#[test]
fn dashboard_asks_for_metrics_that_are_there() {
    let documented = text("docs/operation.md");
    let dashboard: serde_json::Value = serde_json::from_str(&text("compose/grafana/quorate.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let asked = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    for expression in asked.map(|target| target["expr"].as_str().unwrap()) {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        for name in expression.split(|c| !is_name(c)).filter(|word| word.starts_with("quorate_")) {
            let name = ["_bucket", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
            assert!(documented.contains(&format!("| `{name}")), "{name}, in {expression}");
        }
    }
}

/// The names of all tests below a folder.
fn tests(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            tests(&entry, found);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            let text = read_to_string(&entry).unwrap();
            let mut is_test = false;
            for line in text.lines().map(str::trim_start) {
                is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
                let name = line.split_once("fn ").and_then(|(_, rest)| rest.split(['(', '<']).next());
                found.extend(name.filter(|_| is_test).map(str::to_owned));
                is_test &= name.is_none();
            }
        }
    }
}

/// What looks like the name of a test in the last cell of a table's row.
fn named(row: &str) -> impl Iterator<Item = &str> {
    let cell = row.rsplit('|').nth(1).unwrap_or_default();
    let is_name = |word: &&str| {
        word.matches('_').count() > 2 && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    cell.split('`').skip(1).step_by(2).filter(is_name)
}

#[test]
fn tests_that_pages_about_doors_name_are_there() {
    let mut there = BTreeSet::new();
    for folder in ["limits/src", "crds/src", "node/src", "tests/src", "tests/tests"] {
        tests(&file(folder), &mut there);
    }
    let mut count = 0;
    for page in ["docs/doors/README.md", "docs/doors/bucket.md"] {
        for row in text(page).lines().filter(|line| line.starts_with('|')) {
            let missing: Vec<_> = named(row).filter(|test| !there.contains(*test)).collect();
            assert!(missing.is_empty(), "{page} names tests that are not there: {missing:?}");
            count += named(row).count();
        }
    }
    assert!(count > 40, "{count} tests are named");
}

/// Each complaint has a test, or says why it has none.
#[test]
fn complaints_about_others_have_a_test_or_a_reason() {
    let page = text("docs/doors/README.md");
    let rows = page.lines().skip_while(|line| !line.starts_with("| where ")).skip(2);
    let rows: Vec<_> = rows.take_while(|line| line.starts_with('|')).collect();
    assert!(rows.len() > 30);
    for row in rows {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [_, _, shown] = cells[..] else { panic!("three cells: {row}") };
        assert!(named(row).next().is_some() || shown.starts_with("none: "), "{row}");
    }
}

#[test]
fn pages_about_doors_show_what_their_recipes_hold() {
    let unindented = |text: &str| text.lines().map(str::trim_start).collect::<Vec<_>>().join("\n");
    let recipes: Vec<_> = std::fs::read_dir(file("docs/doors/recipes"))
        .unwrap()
        .map(|entry| unindented(&read_to_string(entry.unwrap().path()).unwrap()))
        .collect();
    for (page, language, count) in [("envoy", "yaml", 3), ("authorize", "nginx", 1), ("authorize", "yaml", 1)] {
        let text = text(&format!("docs/doors/{page}.md"));
        let fence = format!("```{language}\n");
        let blocks = text.split(&fence).skip(1).filter_map(|rest| rest.split("```").next());
        // A policy, and what is not tested with the real program.
        let shown = blocks.filter(|block| !block.contains("kind: QuotaPolicy") && !block.contains("forwardAuth"));
        let shown: Vec<_> = shown.map(unindented).collect();
        assert_eq!(shown.len(), count, "{page}: blocks of {language}");
        for block in shown {
            assert!(
                recipes.iter().any(|recipe| recipe.contains(&block)),
                "docs/doors/{page}.md: in no recipe:\n{block}"
            );
        }
    }
}
