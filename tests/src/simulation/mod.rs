//! The simulator: the node's own code on a seeded runtime; network, disk, clock and randomness are replaced.
//!
//! [`seed::run`] runs one seed: a [`world`] of nodes on a [`network`] and [`disk`]s that fail, [`clients`] that use it, a
//! [`nemesis`] that breaks it, and [`oracles`] that say whether it kept its promises. [`campaign`] runs many.

pub mod chance;
pub mod disk;
pub mod history;
pub mod network;
mod platform;
pub mod world;

pub use platform::Sim;
