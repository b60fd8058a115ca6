//! Draws from the seed of the simulator that runs on this thread.

use std::time::Duration;

use quorate_node::platform::Platform as _;

use super::Sim;

/// A number below `end`, which is not 0.
#[must_use]
pub fn below(end: u64) -> u64 {
    Sim::random() % end
}

/// An index into something that has `len` elements, at least one.
#[must_use]
pub fn index(len: usize) -> usize {
    usize::try_from(below(len as u64)).unwrap()
}

/// True `permille` times in a thousand.
#[must_use]
pub fn happens(permille: u64) -> bool {
    below(1000) < permille
}

/// A span from `min` to `max`, in microseconds.
#[must_use]
pub fn micros(min: u64, max: u64) -> Duration {
    Duration::from_micros(min + below(max - min + 1))
}

/// A span from `min` to `max`, in milliseconds.
#[must_use]
pub fn millis(min: u64, max: u64) -> Duration {
    micros(min * 1000, max * 1000)
}
