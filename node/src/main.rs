//! The limiter node. All of it lies in the library; see `quorate_node::cli`.

use std::process::ExitCode;

use clap::Parser as _;
use quorate_node::cli::Cli;

fn main() -> ExitCode {
    quorate_node::cli::run(Cli::parse())
}
