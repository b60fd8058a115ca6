//! The simulator's platform.

use quorate_node::platform::Platform;

use super::host::HostRuntime;

/// Tasks in a fixed order, virtual time as their host's clock shows it, seeded randomness.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sim;

impl Platform for Sim {
    type Rt = HostRuntime;
}
