//! The operator. All of it lies in the library; see `quorate_operator::cli`.

use std::process::ExitCode;

use clap::Parser as _;
use quorate_operator::cli::Cli;

fn main() -> ExitCode {
    quorate_operator::cli::run(Cli::parse(), quorate_operator::run::connect)
}
