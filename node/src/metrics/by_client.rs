//! The requests of the `/bucket` API by the names of their clients.

use std::collections::HashMap;
use std::sync::Mutex;

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

use crate::sync::lock;

/// The most clients that are named in a label.
pub const LABELLED_CLIENTS_MAX: usize = 1000;
/// What all others are counted under. No client has this name.
const OTHERS: &str = "";

/// `requests_by_client{client=}`: a name that others' dashboards ask for, so it has neither our prefix nor a suffix.
pub struct RequestsByClient {
    counters: IntCounterVec,
    /// Handles of the labels in use, which also bound them.
    named: Mutex<HashMap<String, IntCounter>>,
}

impl RequestsByClient {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let help =
            "Requests to GET /example by the client's name; an empty name stands for all beyond the first thousand.";
        let counters = IntCounterVec::new(Opts::new("requests_by_client", help), &["client"])?;
        registry.register(Box::new(counters.clone()))?;
        Ok(Self { counters, named: Mutex::default() })
    }

    /// Counts a request of the client of this name.
    pub fn count(&self, name: &str) {
        let mut named = lock(&self.named);
        if let Some(counter) = named.get(name) {
            counter.inc();
        } else if named.len() < LABELLED_CLIENTS_MAX {
            let counter = self.counters.with_label_values(&[name]);
            counter.inc();
            named.insert(name.to_owned(), counter);
        } else {
            self.counters.with_label_values(&[OTHERS]).inc();
        }
    }
}
