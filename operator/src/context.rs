//! What all controllers share.

use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use kube::{Api, Client, Resource};

use crate::events::Events;
use crate::limiter::Limiters;
use crate::metrics::Metrics;

/// The client and what goes with it. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    /// Speaks to the API server. It does not try again by itself: an eviction that the disruption budget refuses is an
    /// answer, and whatever failed is tried again by the whole look at its object.
    pub client: Client,
    /// The namespaces to look after; none for all.
    pub namespaces: Vec<String>,
    /// Speaks to limiter nodes.
    pub limiters: Limiters,
    /// Publishes Events.
    pub events: Events,
    /// Counts.
    pub metrics: Arc<Metrics>,
}

impl Context {
    /// The API of this kind in everything that is looked after: one for all namespaces, or one for each. A controller
    /// runs for each of them, so that rights in those namespaces are enough.
    #[must_use]
    pub fn apis<K>(&self) -> Vec<Api<K>>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        if self.namespaces.is_empty() {
            return vec![Api::all(self.client.clone())];
        }
        self.namespaces.iter().map(|namespace| Api::namespaced(self.client.clone(), namespace)).collect()
    }
}
