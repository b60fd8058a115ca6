//! One shard of the counters: small sorted pages, each copied only when it changes while a frozen copy still uses it.
//!
//! Ids are hashes, hence spread evenly, so the bits behind the shard's byte say which page a counter is on, and pages
//! in order hold the counters in the order of their ids. A page has no slack: it is made anew when it gains or loses a
//! counter, changed in place when a counter changes. How many pages there are depends on how the shard grew and is
//! never visible.

use std::iter::once;
use std::sync::Arc;

use crate::algorithm::CounterState;
use crate::command::CounterId;
use crate::policy::{Algorithm, PolicyId};

/// One counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counter {
    pub id: CounterId,
    pub state: CounterState,
    pub policy: PolicyId,
    pub algorithm: Algorithm,
}

/// Counters a page holds on average at most; then the pages are halved.
const PAGE_MAX: usize = 12;
/// Counters a page holds on average at least; then two are joined into one.
const PAGE_MIN: usize = 2;
/// The page number has at most this many bits.
const BITS_MAX: u32 = 24;

#[derive(Clone, Debug)]
pub(crate) struct Shard {
    /// There are two to the power of this many pages.
    bits: u32,
    len: usize,
    pages: Vec<Arc<[Counter]>>,
}

impl Default for Shard {
    fn default() -> Self {
        Self { bits: 0, len: 0, pages: vec![Arc::default()] }
    }
}

impl Shard {
    pub fn get(&self, id: CounterId) -> Option<&Counter> {
        let page = &self.pages[page_of(id, self.bits)];
        Some(&page[find(page, id).ok()?])
    }

    /// Puts a counter in place of the one with its id, which is handed back.
    pub fn put(&mut self, counter: Counter) -> Option<Counter> {
        let page = &mut self.pages[page_of(counter.id, self.bits)];
        match find(page, counter.id) {
            Ok(place) => Some(std::mem::replace(&mut Arc::make_mut(page)[place], counter)),
            Err(place) => {
                let (before, behind) = page.split_at(place);
                *page = before.iter().chain(once(&counter)).chain(behind).copied().collect();
                self.len += 1;
                if self.len > self.pages.len() * PAGE_MAX && self.bits < BITS_MAX {
                    self.split_pages();
                }
                None
            }
        }
    }

    pub fn remove(&mut self, id: CounterId) -> Option<Counter> {
        let page = &mut self.pages[page_of(id, self.bits)];
        let place = find(page, id).ok()?;
        let removed = page[place];
        *page = page[..place].iter().chain(&page[place + 1..]).copied().collect();
        self.len -= 1;
        if self.len < self.pages.len() * PAGE_MIN && self.bits > 0 {
            self.join_pages();
        }
        Some(removed)
    }

    /// The counters from an id on, in order.
    pub fn from(&self, id: CounterId) -> impl Iterator<Item = &Counter> {
        let pages = &self.pages[page_of(id, self.bits)..];
        pages.iter().flat_map(|page| page.iter()).skip_while(move |counter| counter.id < id)
    }

    /// All counters in order.
    #[cfg(test)]
    pub fn iter(&self) -> impl Iterator<Item = &Counter> {
        self.pages.iter().flat_map(|page| page.iter())
    }

    /// A page; together and in order they are all counters in order.
    pub fn page(&self, number: usize) -> Option<&[Counter]> {
        self.pages.get(number).map(AsRef::as_ref)
    }

    fn split_pages(&mut self) {
        self.bits += 1;
        let bits = self.bits;
        let halves = self.pages.iter().flat_map(|page| {
            let middle = page.partition_point(|counter| page_of(counter.id, bits).is_multiple_of(2));
            [Arc::from(&page[..middle]), Arc::from(&page[middle..])]
        });
        self.pages = halves.collect();
    }

    fn join_pages(&mut self) {
        self.bits -= 1;
        let pairs = self.pages.chunks(2).map(|pair| pair.iter().flat_map(|page| page.iter()).copied().collect());
        self.pages = pairs.collect();
    }
}

/// The page of an id: the first bits behind the shard's byte.
fn page_of(CounterId(id): CounterId, bits: u32) -> usize {
    let behind = u64::from(u32::from_be_bytes([id[1], id[2], id[3], id[4]])) >> (32 - bits);
    usize::try_from(behind).unwrap_or(usize::MAX)
}

fn find(page: &[Counter], id: CounterId) -> Result<usize, usize> {
    page.binary_search_by(|counter| counter.id.cmp(&id))
}
