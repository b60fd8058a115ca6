//! The operator that ends at one of its writes; see `quorate_operator::stop_at_write`.

use std::process::ExitCode;

use clap::Parser as _;
use quorate_operator::cli::Cli;

fn main() -> ExitCode {
    quorate_operator::cli::run(Cli::parse())
}
