//! The limiter node. All of it lies in the library; see `quorate_node::cli`.

use std::process::ExitCode;

use clap::Parser as _;
use mimalloc::MiMalloc;
use quorate_node::cli::Cli;

/// A request makes many short-lived strings and lists, on one thread and dropped on another; see docs/benchmarks.md.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    quorate_node::cli::run(Cli::parse())
}
