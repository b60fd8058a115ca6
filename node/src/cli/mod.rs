//! The program `ratelimiter`: its commands, each in a file. Exit codes: 0 all went well, 1 it did not, 2 the command or a
//! setting is wrong.

#![allow(clippy::doc_markdown, reason = "these docs are the texts of --help")]

use std::path::PathBuf;
use std::process::ExitCode;

use crate::config::ServeArgs;

mod admin_client;
mod apply;
mod dev;
mod serve;
mod status;
mod validate;

/// A distributed rate limiter: a node, and the tools around it.
#[derive(clap::Parser, Clone, Debug)]
#[command(name = "ratelimiter", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// Without a command, a node is served.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The node's settings.
    #[command(flatten)]
    pub serve: ServeArgs,
}

/// What to do instead of serving a node.
#[derive(clap::Subcommand, Clone, Debug)]
pub enum Command {
    /// Run a cluster of processes on this machine, on ports 20001…, with data under ./data
    Dev(dev::DevArgs),
    /// Check a folder of QuotaPolicy YAML
    Validate {
        /// The folder
        dir: PathBuf,
    },
    /// Make the policies of the admin API exactly those of a folder
    Apply(apply::ApplyArgs),
    /// Show the members of the cluster
    Status(status::StatusArgs),
}

/// Runs the command to its end.
#[must_use]
pub fn run(cli: Cli) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(Failure::Failed(format!("cannot start: {error}"))),
    };
    let result = match cli.command {
        None => runtime.block_on(serve::run(&cli.serve)),
        Some(Command::Dev(args)) => runtime.block_on(dev::run(&args)),
        Some(Command::Validate { dir }) => validate::run(&dir),
        Some(Command::Apply(args)) => runtime.block_on(apply::run(&args)),
        Some(Command::Status(args)) => runtime.block_on(status::run(&args)),
    };
    // A name that is being resolved, or a read of standard input, would hold the process up.
    runtime.shutdown_background();
    result.map_or_else(fail, |()| ExitCode::SUCCESS)
}

/// Why a command ended without success.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Failure {
    /// What was asked for is wrong; one line each.
    Wrong(Vec<String>),
    /// It could not be done.
    Failed(String),
}

/// So many of something, in words: `1 policy`, `2 policies`.
fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

fn fail(failure: Failure) -> ExitCode {
    match failure {
        Failure::Wrong(lines) => {
            for line in lines {
                eprintln!("ratelimiter: {line}");
            }
            ExitCode::from(2)
        }
        Failure::Failed(text) => {
            eprintln!("ratelimiter: {text}");
            ExitCode::FAILURE
        }
    }
}
