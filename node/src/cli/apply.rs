//! `ratelimiter apply -f DIR`: makes the policies of owner `api` exactly those of a folder.

#![allow(clippy::doc_markdown, reason = "these docs are the texts of --help")]

use std::path::PathBuf;

use axum::http::Method;
use quorate_crds::api::{PolicyChanged, PolicySet};
use quorate_crds::{QuotaPolicy, read_directory};

use super::admin_client::{call, error_text};
use super::{Failure, count};

/// Arguments of `ratelimiter apply`.
#[derive(clap::Args, Clone, Debug)]
pub struct ApplyArgs {
    /// The folder of QuotaPolicy YAML
    #[arg(short = 'f', long = "folder", value_name = "DIR")]
    pub dir: PathBuf,
    /// The admin port of a node
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:20101")]
    pub server: String,
}

pub(super) async fn run(args: &ApplyArgs) -> Result<(), Failure> {
    let policies = read_directory(&args.dir).map_err(|errors| {
        let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
        Failure::Failed(format!("nothing was applied\n{}", lines.join("\n")))
    })?;
    let set = PolicySet { owner: None, cluster_id: None, policies: policies.iter().map(QuotaPolicy::from).collect() };
    let body = serde_json::to_vec(&set).map_err(|error| Failure::Failed(error.to_string()))?;
    let answer = call(&args.server, Method::POST, "/v1/policies:apply", body.into()).await;
    let (status, body) = answer.map_err(Failure::Failed)?;
    if !status.is_success() {
        return Err(Failure::Failed(error_text(status, &body)));
    }
    let changed: PolicyChanged = serde_json::from_slice(&body)
        .map_err(|error| Failure::Failed(format!("{} is no limiter: {error}", args.server)))?;
    println!("{} in force, revision {}", count(policies.len(), "policy", "policies"), changed.revision);
    Ok(())
}
