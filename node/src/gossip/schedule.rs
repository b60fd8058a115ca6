//! foca's timers, in the order they are due.
//!
//! foca wants every timer delivered in order, but for each purpose only the newest one can still have an effect: an
//! older one carries an older token or an older record. So there is one slot for each purpose, and whatever a flood
//! of packets makes foca ask for, memory is bounded by the peers known.

use std::collections::BTreeMap;

use foca::Timer;

use super::codec::Id;

/// What a timer is for. The order is the one in which timers due at the same instant fire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Slot {
    IndirectProbe,
    Probe,
    SuspectToDown(u64),
    Announce,
    Gossip,
    AnnounceDown,
    RemoveDown(u64),
}

impl Slot {
    fn of(timer: &Timer<Id>) -> Self {
        match timer {
            Timer::SendIndirectProbe { .. } => Self::IndirectProbe,
            Timer::ProbeRandomMember(_) => Self::Probe,
            Timer::ChangeSuspectToDown { member_id, .. } => Self::SuspectToDown(member_id.0.node),
            Timer::PeriodicAnnounce(_) => Self::Announce,
            Timer::PeriodicGossip(_) => Self::Gossip,
            Timer::PeriodicAnnounceDown(_) => Self::AnnounceDown,
            Timer::RemoveDown(id) => Self::RemoveDown(id.0.node),
        }
    }
}

/// Timers and when they are due; `I` is the platform's instant.
pub(super) struct Schedule<I> {
    slots: BTreeMap<Slot, (I, Timer<Id>)>,
}

impl<I: Copy + Ord> Schedule<I> {
    pub(super) fn new() -> Self {
        Self { slots: BTreeMap::new() }
    }

    /// Adds a timer. A suspicion raised again keeps its first deadline; else it would never run out.
    pub(super) fn add(&mut self, due: I, timer: Timer<Id>) {
        let slot = Slot::of(&timer);
        if self.slots.get(&slot).is_none_or(|(_, old)| *old != timer) {
            self.slots.insert(slot, (due, timer));
        }
    }

    /// When the next timer is due.
    pub(super) fn next_due(&self) -> Option<I> {
        self.slots.values().map(|(due, _)| *due).min()
    }

    /// Takes the earliest timer that is due.
    pub(super) fn pop(&mut self, now: I) -> Option<Timer<Id>> {
        let (due, slot) = self.slots.iter().map(|(slot, (due, _))| (*due, *slot)).min()?;
        if due > now {
            return None;
        }
        self.slots.remove(&slot).map(|(_, timer)| timer)
    }
}
