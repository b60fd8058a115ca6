//! The simulator: the node's own code on a seeded runtime; network, disk, clock and randomness are replaced.
//!
//! [`run`] runs one seed: a [`world`] of nodes on [`host`]s, a [`network`] and [`disk`]s that fail, [`clients`] that use it, a
//! [`nemesis`] that breaks it, and [`oracles`] that say whether it kept its promises. [`campaign`] runs many.

pub mod campaign;
pub mod chance;
pub mod clients;
pub mod disk;
pub mod history;
pub mod host;
pub mod nemesis;
pub mod network;
pub mod oracles;
mod panics;
mod platform;
pub mod run;
pub mod totals;
pub mod workload;
pub mod world;

pub use platform::Sim;
