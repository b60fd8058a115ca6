//! File descriptors: a connection takes one, and so does everything else the node opens. So the data port takes only what
//! is to spare: the log, the other nodes and the admin port never go short because of it.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::connections::Bounds;

/// Kept for everything but the data port's connections: the gRPC port's, 1024 of other nodes, the admin port's, and files.
const RESERVED: usize = Bounds::GRPC_CONNECTIONS_MAX + 2048;
/// Of the default's connections these are little.
const FEW: usize = 4096;

/// Raises the limit of open files as far as this process may.
///
/// # Errors
/// The limit, if it cannot be raised that far.
fn raise() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if limit.current != limit.maximum && setrlimit(Resource::Nofile, raised).is_ok() {
        tracing::info!(from = limit.current, to = limit.maximum, "raised the limit of open files");
    }
    getrlimit(Resource::Nofile).current.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX))
}

/// How many of so many connections the data port can take, once the limit of open files is as high as it may be.
#[must_use]
pub fn connections_to_spare(wanted: usize) -> usize {
    let files = raise();
    let spared = to_spare(files, wanted);
    if is_worth_a_word(spared, wanted) {
        tracing::warn!(
            "this process may open {files} files, so the data port takes {spared} connections instead of the {wanted} of \
             CONNECTIONS_MAX; raise the limit (ulimit -n, LimitNOFILE) to {} or lower CONNECTIONS_MAX",
            wanted + RESERVED
        );
    }
    spared
}

/// Whoever asked for a number of their own and gets fewer should know. The default is plenty, so then only when little is
/// left of it; and whoever is refused later is told of.
fn is_worth_a_word(spared: usize, wanted: usize) -> bool {
    spared < wanted && (wanted != Bounds::CONNECTIONS_MAX_DEFAULT || spared < FEW)
}

fn to_spare(files: usize, wanted: usize) -> usize {
    wanted.min(files.saturating_sub(RESERVED.min(files / 2))).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_what_the_rest_needs() {
        let cases = [(1 << 20, 20_000, 20_000), (20_000, 20_000, 15_904), (1024, 20_000, 512), (8, 1, 1), (0, 5, 1)];
        for (files, wanted, spared) in cases {
            assert_eq!(to_spare(files, wanted), spared, "{files} files, {wanted} wanted");
        }
    }

    #[test]
    fn fewer_connections_are_told_of_when_somebody_asked_for_more_or_little_is_left() {
        for (spared, wanted, is_told) in [
            (20_000, 20_000, false),
            (15_904, 20_000, false),
            (350, 20_000, true),
            (15_904, 19_000, true),
            (9, 9, false),
        ] {
            assert_eq!(is_worth_a_word(spared, wanted), is_told, "{spared} of {wanted}");
        }
    }
}
