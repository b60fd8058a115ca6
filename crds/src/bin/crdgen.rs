//! Prints the definitions of Quorate's custom resources as YAML, ready for `kubectl apply -f -`.

use std::io::{self, Write};

use kube::CustomResourceExt;
use quorate_crds::QuotaPolicy;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let yaml = serde_yaml::to_string(&QuotaPolicy::crd())?;
    io::stdout().write_all(yaml.as_bytes())?;
    Ok(())
}
