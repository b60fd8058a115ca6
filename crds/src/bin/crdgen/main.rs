//! Prints what is generated from the definitions of the resources: the definitions themselves as YAML, ready for
//! `kubectl apply -f -`, and two pages of the documentation.

mod pages;

use std::env::args;
use std::io::{self, Write};
use std::process::ExitCode;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use quorate_crds::{QuotaPolicy, RateLimitCluster};

const USAGE: &str = "usage: crdgen [WHAT]

WHAT is one of
  ratelimitclusters   the definition of RateLimitCluster, as YAML
  quotapolicies       the definition of QuotaPolicy, as YAML
  resources           docs/resources.md
  operations          docs/operations.md
Without a word it prints both definitions.";

fn main() -> ExitCode {
    let words: Vec<String> = args().skip(1).collect();
    let (clusters, policies) = (RateLimitCluster::crd(), QuotaPolicy::crd());
    let printed = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => yaml(&[clusters, policies]),
        ["ratelimitclusters"] => yaml(&[clusters]),
        ["quotapolicies"] => yaml(&[policies]),
        ["resources"] => pages::resources(&[clusters, policies]),
        ["operations"] => pages::operations(),
        ["--help" | "-h"] => Ok(format!("{USAGE}\n")),
        _ => Err(USAGE.into()),
    };
    match printed.and_then(|text| Ok(io::stdout().write_all(text.as_bytes())?)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

fn yaml(definitions: &[CustomResourceDefinition]) -> Result<String, Box<dyn std::error::Error>> {
    let documents: Result<Vec<_>, _> = definitions.iter().map(serde_yaml::to_string).collect();
    Ok(documents?.join("---\n"))
}
