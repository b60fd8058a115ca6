//! One of the node's parsers, the one that `PARSER` names, under libFuzzer. `tests/fuzz.sh` builds and runs it.
#![no_main]
#![allow(clippy::expect_used, clippy::panic, reason = "a panic is how a finding is told")]

use std::env;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use peak_alloc::PeakAlloc;
use quorate_node::parsers::{ALL, Parser};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// What a parser may take however little it is given.
const MEMORY_BYTES: usize = 1 << 20;
/// What it may take for each byte that it is given: a tree of YAML has a node for every two.
const MEMORY_BYTES_PER_BYTE: usize = 256;

static PARSER: OnceLock<Parser> = OnceLock::new();

fn chosen() -> Parser {
    let names = || ALL.map(|(name, _)| name).join(", ");
    let wanted = env::var("PARSER").unwrap_or_default();
    let found = ALL.into_iter().find(|(name, _)| *name == wanted);
    found.unwrap_or_else(|| panic!("PARSER is {wanted:?}; set it to one of {}", names())).1
}

fuzz_target!(init: PARSER.set(chosen()).unwrap_or_default(), |bytes: &[u8]| {
    let parser = PARSER.get().expect("chosen at the start");
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    parser(bytes);
    let taken = MEMORY.peak_usage().saturating_sub(before);
    let allowed = MEMORY_BYTES + MEMORY_BYTES_PER_BYTE * bytes.len();
    assert!(taken <= allowed, "{} bytes made it take {taken} bytes of memory; {allowed} are allowed", bytes.len());
});
