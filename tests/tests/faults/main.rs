//! Faults of what the built product stands on: clocks, networks, connections, disks. One file for each.
//!
//! They need root, Debian packages and namespaces of their own: `make test-faults` sees to all of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod clocks;
mod counters;
mod doors;
mod partitions;
mod storage;
