//! The names of the `/bucket` API, as this node's doors ask for them.

use std::time::Duration;

use quorate_limits::{BucketId, BucketOutcome};

use super::Node;
use crate::admission::Unavailable;
use crate::platform::Platform;

impl<P: Platform> Node<P> {
    /// Registers a name under a new id, which the outcome tells.
    ///
    /// # Errors
    /// When it is not known within `deadline` whether it took effect.
    pub async fn create_bucket(&self, name: &str, deadline: Duration) -> Result<BucketOutcome, Unavailable> {
        self.limiter.create_bucket(name, deadline).await
    }

    /// Gives a name back; one that is not registered is no error.
    ///
    /// # Errors
    /// When it is not known within `deadline` whether it took effect.
    pub async fn delete_bucket(&self, name: String, deadline: Duration) -> Result<(), Unavailable> {
        self.limiter.delete_bucket(name, deadline).await
    }

    /// The name that an id stands for; an id that any node told of is found by every node.
    ///
    /// # Errors
    /// When it is not known here, and the leader did not answer within `deadline`.
    pub async fn find_bucket(&self, id: BucketId, deadline: Duration) -> Result<Option<String>, Unavailable> {
        self.limiter.find_bucket(id, deadline).await
    }

    /// All names that this node has applied, each with its id.
    #[must_use]
    pub fn buckets(&self) -> Vec<(String, BucketId)> {
        let buckets = self.consensus.state().read(|state| state.buckets().clone());
        buckets.iter().map(|(name, id)| (name.to_owned(), id)).collect()
    }
}
