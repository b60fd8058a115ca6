//! What a door asks: a domain, descriptors and hits (the model of Envoy's rate limit service).

/// An ordered list of key-value entries that describes one aspect of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// The entries, in the order in which they came.
    pub entries: Vec<(String, String)>,
    /// Hits of this descriptor alone; `None` takes those of the request.
    pub hits: Option<i64>,
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
        Self {
            domain: "default".to_owned(),
            descriptors: vec![Descriptor { entries: vec![("client_id".to_owned(), client_id.to_owned())], hits: None }],
            hits: 1,
        }
    }
}
