//! An index over conditions: which of many sets of [`KeyMatch`]es may hold for a descriptor.
//!
//! Every set is filed under one of its conditions, the one that fewest others share. A look-up names each
//! set whose filed condition holds, once; whoever asks then checks the rest of the set.

use std::collections::BTreeMap;
use std::hash::BuildHasherDefault;

use siphasher::sip128::SipHasher13;

use crate::policy::{KeyMatch, ValueMatch};

/// A hash map that is only ever looked into, so its order never shows. Its keys come from policies, hence no seed.
type Lookup<V> = hashbrown::HashMap<String, V, BuildHasherDefault<SipHasher13>>;

/// The value of the first entry with this key; later entries with the same key are ignored everywhere.
pub(crate) fn value_of<'a>(entries: &'a [(String, String)], key: &str) -> Option<&'a str> {
    entries.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
}

/// Whether all conditions hold for a descriptor's entries.
pub(crate) fn all_hold(conditions: &[KeyMatch], entries: &[(String, String)]) -> bool {
    conditions.iter().all(|condition| {
        value_of(entries, &condition.key).is_some_and(|value| match &condition.value {
            ValueMatch::Exact(text) => value == text,
            ValueMatch::Prefix(text) => value.starts_with(text),
            ValueMatch::Any => true,
        })
    })
}

/// Sets of conditions, each known by a number.
#[derive(Debug, Default)]
pub(crate) struct ConditionIndex {
    /// Sets without a condition.
    always: Vec<u32>,
    keys: Lookup<KeyIndex>,
}

#[derive(Debug, Default)]
struct KeyIndex {
    exact: Lookup<Vec<u32>>,
    /// By length, so that a value is looked up once for each length there is.
    prefixes: BTreeMap<usize, Lookup<Vec<u32>>>,
    any: Vec<u32>,
}

impl ConditionIndex {
    /// Files every set of conditions; `present` are keys that must be there besides.
    pub fn build<'a>(sets: impl Iterator<Item = (u32, &'a [KeyMatch], &'a [String])> + Clone) -> Self {
        let mut shared: BTreeMap<(&str, u8, &str), usize> = BTreeMap::new();
        for (_, conditions, present) in sets.clone() {
            for place in places(conditions, present) {
                *shared.entry(place).or_default() += 1;
            }
        }
        let mut index = Self::default();
        for (number, conditions, present) in sets {
            let rarest = places(conditions, present).min_by_key(|place| (shared.get(place), place.1));
            index.place(rarest).push(number);
        }
        index
    }

    fn place(&mut self, place: Option<(&str, u8, &str)>) -> &mut Vec<u32> {
        let Some((key, kind, text)) = place else { return &mut self.always };
        let key = self.keys.entry_ref(key).or_default();
        match kind {
            EXACT => key.exact.entry_ref(text).or_default(),
            PREFIX => key.prefixes.entry(text.len()).or_default().entry_ref(text).or_default(),
            _ => &mut key.any,
        }
    }

    /// Calls `found` with each set that may hold, in no particular order.
    pub fn candidates(&self, entries: &[(String, String)], mut found: impl FnMut(u32)) {
        self.always.iter().copied().for_each(&mut found);
        for (position, (key, value)) in entries.iter().enumerate() {
            let Some(index) = self.keys.get(key) else { continue };
            if entries[..position].iter().any(|(earlier, _)| earlier == key) {
                continue;
            }
            index.any.iter().copied().for_each(&mut found);
            index.exact.get(value).into_iter().flatten().copied().for_each(&mut found);
            for (length, prefixes) in index.prefixes.range(..=value.len()) {
                let sets = value.get(..*length).and_then(|start| prefixes.get(start));
                sets.into_iter().flatten().copied().for_each(&mut found);
            }
        }
    }
}

const EXACT: u8 = 0;
const PREFIX: u8 = 1;
const ANY: u8 = 2;

/// Where a set could be filed: key, kind and text of each condition.
fn places<'a>(conditions: &'a [KeyMatch], present: &'a [String]) -> impl Iterator<Item = (&'a str, u8, &'a str)> {
    let conditions = conditions.iter().map(|condition| match &condition.value {
        ValueMatch::Exact(text) => (condition.key.as_str(), EXACT, text.as_str()),
        ValueMatch::Prefix(text) => (condition.key.as_str(), PREFIX, text.as_str()),
        ValueMatch::Any => (condition.key.as_str(), ANY, ""),
    });
    conditions.chain(present.iter().map(|key| (key.as_str(), ANY, "")))
}
