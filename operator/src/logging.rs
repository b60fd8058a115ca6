//! The log: tracing to standard error, as text or as JSON.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;

use crate::cli::{Cli, LogFormat};

/// Each line of ours would begin with kube's own words about the object, which it names itself.
const QUIET_LIBRARY: &str = "kube_runtime";

/// Sends what this process logs to standard error from now on.
///
/// # Errors
/// When it was called before, or the filter is none.
pub fn start(cli: &Cli) -> Result<(), String> {
    let quiet = if cli.log.contains(QUIET_LIBRARY) { String::new() } else { format!(",{QUIET_LIBRARY}=warn") };
    let filter = EnvFilter::try_new(format!("{}{quiet}", cli.log)).map_err(|error| error.to_string())?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match cli.log_format {
        LogFormat::Text => builder.with_ansi(io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    }
    .map_err(|error| error.to_string())
}
