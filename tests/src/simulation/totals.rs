//! What all seeds of a campaign held together: an oracle that nothing happened to has seen nothing.

use std::fmt;

use super::{nemesis, network, oracles::ledger};

/// Names and figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals([(&'static str, u64); 26]);

impl Totals {
    /// The totals of one run.
    #[must_use]
    pub fn of(nemesis: nemesis::Counts, network: network::Counts, ledger: ledger::Counts) -> Self {
        Self([
            ("crashes", nemesis.crashes),
            ("partitions", nemesis.partitions),
            ("hand-overs", nemesis.handovers),
            ("full disks", nemesis.full_disks),
            ("failed flushes", nemesis.failed_flushes),
            ("older disks", nemesis.older_disks),
            ("refused older disks", nemesis.older_refused),
            ("lost disks", nemesis.lost_disks),
            ("decommissions", nemesis.decommissions),
            ("swaps", ledger.swaps),
            ("departures", ledger.departures),
            ("stopped nodes", nemesis.stops),
            ("moved nodes", nemesis.moves),
            ("elections", ledger.terms),
            ("seeds with drifting clocks", ledger.drifting),
            ("installed snapshots", ledger.installed),
            ("forwarded batches", network.forwarded),
            ("lost frames", network.lost),
            ("repeated frames", network.repeated),
            ("resent batches", ledger.resent),
            ("admissions", ledger.admissions),
            ("denials", ledger.denials),
            ("policy changes", ledger.policy_changes),
            ("names", ledger.names),
            ("rematches", ledger.rematches),
            ("frames", network.frames),
        ])
    }

    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        for ((name, sum), (other_name, value)) in self.0.iter_mut().zip(other.0) {
            *name = other_name;
            *sum += value;
        }
    }

    /// What never happened.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        self.0.iter().filter(|(_, value)| *value == 0).map(|(name, _)| *name).collect()
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, value)) in self.0.iter().enumerate() {
            write!(f, "{}{value} {name}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}
