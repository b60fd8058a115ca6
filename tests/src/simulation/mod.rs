//! The simulator: the node's own code on a seeded runtime; network, disk, clock and randomness are replaced.

pub mod disk;
mod platform;

pub use platform::Sim;
