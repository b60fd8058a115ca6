//! The log: tracing to standard error, as text or as JSON.

use std::io::{self, IsTerminal as _};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, LogSettings};

/// Libraries whose warnings say nothing that a condition, a metric or a line of ours does not say better.
const QUIET_LIBRARIES: [&str; 3] = ["openraft", "chunked_wal", "raft_log"];

/// Whether a filter says what its writer means.
///
/// # Errors
/// Why not. A lone word that is no level is refused: the filter's own grammar takes it for a target, so a slip in a
/// level's name would silence the log.
pub fn check_filter(filter: &str) -> Result<(), String> {
    for directive in filter.split(',') {
        let is_lone_word = !directive.contains(['=', '[']);
        if is_lone_word && (directive.is_empty() || directive.parse::<LevelFilter>().is_err()) {
            return Err(format!("{directive:?} is no level; levels are off, error, warn, info, debug and trace"));
        }
    }
    EnvFilter::try_new(filter).map(drop).map_err(|error| format!("{filter:?} is no filter: {error}"))
}

/// The filter, with libraries that report every retry as a warning turned down to errors unless it names them.
fn with_quiet_libraries(filter: &str) -> String {
    QUIET_LIBRARIES
        .iter()
        .filter(|library| !filter.contains(*library))
        .fold(filter.to_owned(), |filter, library| format!("{filter},{library}=error"))
}

/// Sends what this process logs to standard error from now on.
///
/// # Errors
/// When it was called before, or the filter is none.
pub fn start(settings: &LogSettings) -> Result<(), String> {
    let filter = EnvFilter::try_new(with_quiet_libraries(&settings.filter)).map_err(|error| error.to_string())?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match settings.format {
        LogFormat::Text => builder.with_ansi(io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    }
    .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filter_of_levels_and_targets_is_taken() {
        for filter in ["info", "WARN", "off", "info,quorate_node=debug", "quorate_node::doors=trace,error"] {
            assert_eq!(check_filter(filter), Ok(()), "{filter}");
        }
    }

    #[test]
    fn slip_in_a_level_is_refused_not_taken_for_a_target() {
        for (filter, part) in [
            ("inof", "\"inof\" is no level"),
            ("info,quorate_node", "\"quorate_node\" is no level"),
            ("quorate_node=inof", "is no filter"),
            ("info,", "\"\" is no level"),
        ] {
            let error = check_filter(filter).unwrap_err();
            assert!(error.contains(part), "{filter}: {error}");
        }
    }
}
