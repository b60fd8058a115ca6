//! The simulator's platform.

use openraft_rt_sim::SimRuntime;
use quorate_node::platform::Platform;

/// Tasks in a fixed order, virtual time, seeded randomness.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sim;

impl Platform for Sim {
    type Rt = SimRuntime;
}
