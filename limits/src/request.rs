//! What a door asks: a domain, descriptors and hits (the model of Envoy's rate limit service).

use serde::{Deserialize, Serialize};

use crate::policy::{Algorithm, Limit};

/// An ordered list of key-value entries that describes one aspect of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// The entries, in the order in which they came.
    pub entries: Vec<(String, String)>,
    /// Hits of this descriptor alone; `None` takes those of the request.
    pub hits: Option<i64>,
    /// A limit that the request brings along.
    pub limit: Option<GivenLimit>,
}

/// A limit that a request brings along. It takes the place of the number of those limits it meets that have the same
/// window; their counters stay the same, as with any other change of a number. It never adds a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenLimit {
    /// Hits per window, at most [`Limit::LIMIT_MAX`].
    pub hits: u64,
    /// The window's length in nanoseconds.
    pub window_ns: u64,
}

impl GivenLimit {
    /// Whether it takes the place of this limit's number. A token bucket has two numbers, of which one says nothing about
    /// the other, so its own stay.
    #[must_use]
    pub fn stands_for(self, limit: &Limit) -> bool {
        self.window_ns == limit.window_ns && limit.algorithm != Algorithm::TokenBucket
    }
}

impl Descriptor {
    /// A descriptor of these entries, without hits or a limit of its own.
    #[must_use]
    pub fn of<'a>(entries: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let entries = entries.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        Self { entries, hits: None, limit: None }
    }
}

/// One question for the limiter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The domain whose policies apply.
    pub domain: String,
    /// All descriptors are charged, or none.
    pub descriptors: Vec<Descriptor>,
    /// How much to charge: 1 unless told, 0 looks without charging, below zero gives back.
    pub hits: i64,
}

impl Request {
    /// The request of the simple API: one hit on the descriptor `[("client_id", id)]` of domain `default`.
    #[must_use]
    pub fn of_client(client_id: &str) -> Self {
        Self { domain: "default".to_owned(), descriptors: vec![Descriptor::of([("client_id", client_id)])], hits: 1 }
    }
}
