//! The program `quorate-operator`: its settings, each a flag and an environment variable. Exit codes: 0 it was told to
//! stop, 1 it could not go on, 2 a setting is wrong.

#![allow(clippy::doc_markdown, reason = "these docs are the texts of --help")]

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;

use tracing_subscriber::EnvFilter;

use crate::{logging, run};

/// Runs the RateLimitClusters and QuotaPolicies of a Kubernetes cluster.
///
/// It speaks to the API server that KUBECONFIG names, or, in a pod, to its own.
#[derive(clap::Parser, Clone, Debug)]
#[command(name = "quorate-operator", version)]
pub struct Cli {
    /// The namespaces to look after, comma separated; all of them unless told
    #[arg(long, env = "WATCH_NAMESPACES", value_name = "NAMESPACE,...", value_delimiter = ',', value_parser = namespace)]
    pub watch_namespaces: Vec<String>,
    /// What is logged: a level, or target=level, comma separated
    #[arg(long, env = "LOG", value_name = "FILTER", default_value = "info", value_parser = filter)]
    pub log: String,
    /// How it is logged
    #[arg(long, env = "LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// The address of the HTTP port
    #[arg(long, env = "BIND_HOST", value_name = "ADDRESS", default_value = "0.0.0.0")]
    pub bind_host: IpAddr,
    /// The HTTP port of /health, /ready and /metrics; 0 takes a free one and logs it
    #[arg(long, env = "METRICS_PORT", value_name = "PORT", default_value_t = 8080)]
    pub metrics_port: u16,
    /// Whether it waits until it holds the lease, so that of several operators one acts
    #[arg(long, env = "LEADER_ELECTION", value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub leader_election: bool,
    /// The name of the lease
    #[arg(long, env = "LEASE_NAME", value_name = "NAME", default_value = "quorate-operator")]
    pub lease_name: String,
    /// The namespace of the lease; its own, or KUBECONFIG's, unless told
    #[arg(long, env = "LEASE_NAMESPACE", value_name = "NAMESPACE")]
    pub lease_namespace: Option<String>,
}

/// How it is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Cli {
    /// Where /health, /ready and /metrics are served.
    #[must_use]
    pub fn http(&self) -> SocketAddr {
        SocketAddr::new(self.bind_host, self.metrics_port)
    }

    /// The namespaces to look after; none for all. An empty variable is one empty name, and means all too.
    #[must_use]
    pub fn namespaces(&self) -> Vec<String> {
        let mut names: Vec<_> = self.watch_namespaces.iter().filter(|name| !name.is_empty()).cloned().collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

fn namespace(text: &str) -> Result<String, String> {
    let text = text.trim();
    let ok = text.len() <= 63
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if ok { Ok(text.to_owned()) } else { Err("is no name of a namespace".to_owned()) }
}

/// A lone word that is no level would be taken for a target, and silence the log.
fn filter(text: &str) -> Result<String, String> {
    for directive in text.split(',') {
        if !directive.contains(['=', '[']) && directive.parse::<tracing::level_filters::LevelFilter>().is_err() {
            return Err(format!("{directive:?} is no level; levels are off, error, warn, info, debug and trace"));
        }
    }
    EnvFilter::try_new(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

/// Runs the operator to its end.
#[must_use]
pub fn run(cli: Cli, connect: run::Connect) -> ExitCode {
    // First of all: rustls would panic at its first use if it had to choose between two.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        return fail("another provider of cryptography was installed before");
    }
    if let Err(error) = logging::start(&cli) {
        return fail(&error);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start: {error}")),
    };
    let result = runtime.block_on(run::run(cli, connect));
    // A request that hangs would hold the process up.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error.to_string()),
    }
}

fn fail(text: &str) -> ExitCode {
    eprintln!("quorate-operator: {text}");
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::*;

    fn read(arguments: &[&str]) -> Result<Cli, String> {
        Cli::try_parse_from(["quorate-operator"].iter().chain(arguments)).map_err(|error| error.to_string())
    }

    #[test]
    fn namespaces_given_as_a_list_are_taken_once_each_and_none_is_all() {
        let cli = read(&["--watch-namespaces", "shop, edge,shop"]).unwrap();
        assert_eq!(cli.namespaces(), ["edge", "shop"]);
        for empty in [&[][..], &["--watch-namespaces", ""][..]] {
            assert_eq!(read(empty).unwrap().namespaces(), [""; 0]);
        }
        assert!(read(&["--watch-namespaces", "Shop"]).unwrap_err().contains("is no name of a namespace"));
    }

    #[test]
    fn slip_in_a_level_is_refused_not_taken_for_a_target() {
        assert!(read(&["--log", "inof"]).unwrap_err().contains("\"inof\" is no level"));
        assert!(read(&["--log", "info,kube=debug"]).is_ok());
    }

    #[test]
    fn every_flag_is_an_environment_variable_and_the_reverse() {
        for argument in Cli::command().get_arguments() {
            let (Some(flag), Some(variable)) = (argument.get_long(), argument.get_env()) else {
                panic!("{argument:?} has no flag or no variable");
            };
            assert_eq!(flag.replace('-', "_").to_uppercase(), variable.to_str().unwrap());
        }
    }

    #[test]
    fn every_setting_is_documented() {
        let page = include_str!("../../docs/operator.md");
        let row = |line: &'static str| {
            line.strip_prefix("| `")?.split('`').next().filter(|name| name.to_uppercase() == *name)
        };
        let documented: Vec<_> = page.lines().filter_map(row).collect();
        let command = Cli::command();
        let settings: Vec<_> =
            command.get_arguments().map(|argument| argument.get_env().unwrap().to_str().unwrap()).collect();
        assert_eq!(documented, settings, "docs/operator.md");
    }
}
