//! Measures how fast the built program is; see `make bench`.

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use quorate_tests::bench::{Options, memory_alone, run, times_alone};

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
    /// Measures only this, prints it, and writes nothing.
    #[arg(long)]
    only: Option<Part>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Part {
    /// What counters cost in memory; half a minute.
    Memory,
    /// How long answers take at half load.
    Times,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let Arguments { runs, seconds, only } = Arguments::parse();
    let measured = match only {
        Some(Part::Memory) => memory_alone().await,
        Some(Part::Times) => times_alone(Options { runs, seconds }).await,
        None => run(Options { runs, seconds }).await,
    };
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("bench: {reason}");
            ExitCode::FAILURE
        }
    }
}
