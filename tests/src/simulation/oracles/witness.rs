//! What clients were told, held against the ledger and against what others were told before.

use std::collections::BTreeMap;

use quorate_limits::CounterId;

use super::super::workload::{Key, Kind};
use super::ledger::Ledger;
use super::names::Told as Names;

/// What all clients know together.
#[derive(Default)]
pub struct Witness {
    counters: BTreeMap<CounterId, Told>,
    /// The highest revision whose change was acknowledged.
    revision: u64,
    /// Names of buckets.
    pub names: Names,
}

#[derive(Default)]
struct Told {
    key: Option<Key>,
    /// Hits of requests that were admitted.
    admitted: u64,
    /// Requests that were denied.
    denied: u64,
    /// Hits, and requests, of which nothing is known.
    unknown: (u64, u64),
    /// The lowest standing anybody was told.
    floor: Option<u64>,
}

/// What was known when an operation began.
#[derive(Clone, Debug, Default)]
pub struct Ticket {
    floors: Vec<Option<u64>>,
    revision: u64,
}

/// One counter's part in an answer.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// Which one, for people.
    pub key: Key,
    /// Which one.
    pub counter: CounterId,
    /// Hits that are left, as the answer says.
    pub remaining: u64,
}

impl Witness {
    /// An operation on these counters begins.
    #[must_use]
    pub fn begin(&self, counters: &[CounterId]) -> Ticket {
        let floors = counters.iter().map(|id| self.counters.get(id).and_then(|told| told.floor)).collect();
        Ticket { floors, revision: self.revision }
    }

    /// Nothing is known of a request to charge `hits`.
    pub fn lost(&mut self, counters: &[CounterId], hits: i64) {
        for id in counters {
            let told = self.counters.entry(*id).or_default();
            told.unknown.0 += u64::try_from(hits).unwrap_or(0);
            told.unknown.1 += 1;
        }
    }

    /// A request was decided.
    ///
    /// # Errors
    /// What is wrong with the answer.
    pub fn decided(
        &mut self,
        ledger: &Ledger,
        ticket: &Ticket,
        answer: &[Standing],
        (hits, admitted, revision): (i64, bool, u64),
    ) -> Result<(), String> {
        ticket.is_current(revision)?;
        for (part, floor) in answer.iter().zip(&ticket.floors) {
            let told = self.counters.entry(part.counter).or_default();
            told.key = Some(part.key);
            let charged = if admitted { u64::try_from(hits).unwrap_or(0) } else { 0 };
            told.admitted += charged;
            told.denied += u64::from(!admitted);
            let tally = ledger.tally(part.counter);
            if tally.admitted < told.admitted || tally.denied < told.denied {
                return Err(format!("{} of {} was acknowledged and is not in the log", part.key, part.remaining));
            }
            told.lower(part, *floor, charged)?;
        }
        Ok(())
    }

    /// Counters were looked at.
    ///
    /// # Errors
    /// What is wrong with the answer.
    pub fn checked(
        &mut self,
        ledger: &Ledger,
        ticket: &Ticket,
        answer: &[Standing],
        limit: u64,
        revision: u64,
    ) -> Result<(), String> {
        ticket.is_current(revision)?;
        for (part, floor) in answer.iter().zip(&ticket.floors) {
            self.counters.entry(part.counter).or_default().lower(part, *floor, 0)?;
            let tally = ledger.tally(part.counter);
            if part.key.kind == Kind::Long && part.remaining + tally.admitted < limit {
                let Standing { key, remaining, .. } = part;
                return Err(format!("{key}: {remaining} left of {limit} with {} admitted", tally.admitted));
            }
        }
        Ok(())
    }

    /// A change of policies was acknowledged.
    pub fn changed(&mut self, revision: u64) {
        self.revision = self.revision.max(revision);
    }

    /// After everything has settled: what the log charged is what was acknowledged, and perhaps what nobody knows of.
    ///
    /// # Errors
    /// Which counter was charged otherwise.
    pub fn settle(&self, ledger: &Ledger) -> Result<(), String> {
        for (id, tally) in ledger.tallies() {
            let nothing = Told::default();
            let told = self.counters.get(&id).unwrap_or(&nothing);
            let name = told.key.map_or_else(|| format!("{id:?}"), |key| key.to_string());
            let within = |what: &str, value: u64, known: u64, unknown: u64| {
                if (known..=known + unknown).contains(&value) {
                    return Ok(());
                }
                Err(format!("{name}: {value} {what} in the log, {known} acknowledged, {unknown} unknown"))
            };
            within("hits admitted", tally.admitted, told.admitted, told.unknown.0)?;
            within("requests denied", tally.denied, told.denied, told.unknown.1)?;
        }
        Ok(())
    }
}

impl Ticket {
    fn is_current(&self, revision: u64) -> Result<(), String> {
        let known = self.revision;
        if revision < known {
            return Err(format!("judged by revision {revision} after the change to {known} was acknowledged"));
        }
        Ok(())
    }
}

impl Told {
    /// Of a counter that is only ever charged, what is left never grows from one operation to a later one, and each
    /// admission takes its own hits off.
    fn lower(&mut self, part: &Standing, floor: Option<u64>, charged: u64) -> Result<(), String> {
        if part.key.kind != Kind::Long {
            return Ok(());
        }
        if let Some(floor) = floor
            && part.remaining + charged > floor
        {
            let Standing { key, remaining, .. } = part;
            return Err(format!("{key}: {remaining} left after {charged} more, although {floor} had been told before"));
        }
        self.floor = Some(self.floor.map_or(part.remaining, |known| known.min(part.remaining)));
        Ok(())
    }
}
