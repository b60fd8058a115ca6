//! What happened in a run, in order: for people, and as a hash to compare two runs by.

use std::fmt;
use std::time::Duration;

use openraft_rt::Instant as _;
use openraft_rt_sim::SimInstant;

/// The events of one run.
#[derive(Debug)]
pub struct History {
    begun: SimInstant,
    events: Vec<String>,
    hash: u64,
    violation: Option<String>,
}

impl History {
    /// Begins now. To be called inside the simulator.
    #[must_use]
    pub fn begin() -> Self {
        Self { begun: SimInstant::now(), events: Vec::new(), hash: 0xcbf2_9ce4_8422_2325, violation: None }
    }

    /// True time since the beginning.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        SimInstant::now().saturating_duration_since(self.begun)
    }

    /// Notes an event.
    pub fn note(&mut self, event: fmt::Arguments<'_>) {
        let line = format!("{:>10.6} {event}", self.elapsed().as_secs_f64());
        self.mix(line.as_bytes());
        self.events.push(line);
    }

    /// Takes something into the hash that is too much for people.
    pub fn mix(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// A promise was broken. The first one is kept; the run ends soon after.
    pub fn violated(&mut self, what: fmt::Arguments<'_>) {
        self.note(format_args!("VIOLATION {what}"));
        self.violation.get_or_insert_with(|| what.to_string());
    }

    /// The first broken promise.
    #[must_use]
    pub fn violation(&self) -> Option<&str> {
        self.violation.as_deref()
    }

    /// All events, taken out.
    #[must_use]
    pub fn take_events(&mut self) -> Vec<String> {
        std::mem::take(&mut self.events)
    }

    /// A hash over all events.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash
    }
}
