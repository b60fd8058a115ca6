//! What a cluster is founded with.

use serde::{Deserialize, Serialize};

/// What a cluster is founded with. Fixed from then on, and part of the state.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Keys the hash that names counters, so that nobody can search for two clients that share one.
    pub secret: [u8; 16],
    /// The most counters there may be, at about 80 bytes each. One policy may hold a quarter of them.
    pub counters_max: u64,
}

impl Default for Settings {
    /// Those of a cluster not founded yet.
    fn default() -> Self {
        Self { secret: [0; 16], counters_max: 0 }
    }
}

impl Settings {
    /// Whether these are the settings of a founded cluster.
    #[must_use]
    pub fn founded(&self) -> bool {
        self.counters_max > 0
    }

    /// Counters there may be unless told otherwise: about 320 MB.
    pub const COUNTERS_MAX_DEFAULT: u64 = 4_000_000;
}

impl std::fmt::Debug for Settings {
    /// Leaves out the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").field("counters_max", &self.counters_max).finish_non_exhaustive()
    }
}
