//! Measures how fast the built program is; see `make bench`.

use std::process::ExitCode;

use clap::Parser;
use quorate_tests::bench::{Options, run};

/// Measures three nodes of the built program and a bare server, in turns.
///
/// The full benchmark takes about 27 minutes and wants the machine to itself; with --runs 1 --seconds 3 it takes about two
/// and tells little more than that it works. The program is the one that the variable `RATELIMITER_BIN` names:
/// `make bench` builds it and names it. Data lies below `TMPDIR`, which must be on a disk.
#[derive(Parser)]
struct Arguments {
    /// Rounds over all rows.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Seconds of each row in each round.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let Arguments { runs, seconds } = Arguments::parse();
    match run(Options { runs, seconds }).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("bench: {reason}");
            ExitCode::FAILURE
        }
    }
}
