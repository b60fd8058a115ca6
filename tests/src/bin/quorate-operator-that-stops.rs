//! The operator that ends at one of its writes; see [`quorate_tests::kubernetes::stop_at_write`].

use std::process::ExitCode;

use clap::Parser as _;
use quorate_operator::cli::Cli;
use quorate_tests::kubernetes::stop_at_write;

fn main() -> ExitCode {
    quorate_operator::cli::run(Cli::parse(), stop_at_write::connect)
}
