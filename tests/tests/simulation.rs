//! The node's own code in a simulated world, on many seeds; and the bugs that it must catch.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test panics to fail")]

use quorate_node::bugs::Bug;
use quorate_tests::cluster::figure;
use quorate_tests::simulation::campaign::{self, Campaign};
use quorate_tests::simulation::run;

/// A number from the environment.
fn setting(name: &str, unless_set: u64) -> u64 {
    std::env::var(name).map_or(unless_set, |value| value.parse().unwrap())
}

#[test]
fn every_seed_keeps_every_promise() {
    let campaign: Campaign = campaign::campaign(setting("FIRST", 0), setting("SEEDS", 500), 2);
    figure(&format!("simulation: {}", campaign.summary()));
    if let Some(failed) = campaign.failed() {
        panic!("{failed}");
    }
}

/// The first seed in which a bug shows; that seed shows nothing without the bug.
#[track_caller]
fn assert_caught(bug: Bug, seeds: u64) {
    let caught = (0..seeds).find_map(|seed| {
        let violation = run::run(seed, Some(bug)).violation?;
        Some((seed, violation))
    });
    let (seed, violation) = caught.unwrap_or_else(|| panic!("{bug:?} was not caught in {seeds} seeds"));
    figure(&format!("{bug:?} was caught by seed {seed}: {violation}"));
    assert_eq!(run::run(seed, None).violation, None, "seed {seed} fails without the bug too");
}

#[test]
fn time_that_steps_back_is_caught() {
    assert_caught(Bug::TimeWithoutMax, 50);
}

#[test]
fn an_append_acknowledged_before_it_is_flushed_is_caught() {
    assert_caught(Bug::AcknowledgeBeforeFlush, 50);
}

#[test]
fn a_voter_on_an_empty_disk_under_its_old_id_is_caught() {
    assert_caught(Bug::EmptyDiskOldId, 50);
}

#[test]
fn a_leader_that_reads_without_showing_that_it_leads_is_caught() {
    assert_caught(Bug::ReadWithoutBarrier, 500);
}

#[test]
fn a_cluster_clock_that_is_too_fast_is_caught() {
    assert_caught(Bug::ClockTooFast, 50);
}
