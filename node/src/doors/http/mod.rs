//! The HTTP routes of api.md, each concern a file. [`Doors`] is what all of them stand on.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::handler::Handler;
use axum::routing::{MethodFilter, any, on};

use crate::metrics::{DoorMetrics, Metrics};
use crate::node::Node;
use crate::platform::Tokio;

mod admin;
mod answer;
mod authorize;
mod bucket;
mod check;
mod cluster;
mod health;
mod openapi;
mod policies;
mod query;
mod rate;
mod stats;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub(crate) use admin::conflict_text;
pub(crate) use answer::too_long;
pub(crate) use authorize::parse as parse_authorize;
pub use authorize::{DescriptorTemplate, TemplateError};
pub(crate) use bucket::parse_body as parse_bucket;
pub(crate) use rate::parse_query;

/// How long a request waits for its decision.
pub const DECISION_DEADLINE: Duration = Duration::from_secs(3);
/// How long a change of policies or members waits for its effect.
pub const CHANGE_DEADLINE: Duration = Duration::from_secs(10);
/// The most bytes in a body on the data port.
pub const BODY_BYTES_MAX: usize = 256 * 1024;

/// What the routes ask and count.
pub struct Doors {
    node: Arc<Node<Tokio>>,
    metrics: Arc<Metrics>,
    counted: DoorMetrics,
    authorized: DoorMetrics,
    bucketed: DoorMetrics,
    settings: DoorSettings,
}

/// What whoever runs the node says about its HTTP doors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DoorSettings {
    /// Whether `POST /rate/reset` is served.
    pub rate_reset: bool,
    /// What `/v1/authorize` counts by.
    pub authorize: DescriptorTemplate,
}

impl Default for DoorSettings {
    fn default() -> Self {
        Self { rate_reset: true, authorize: DescriptorTemplate::default() }
    }
}

impl Doors {
    /// The HTTP doors of a node.
    #[must_use]
    pub fn new(node: Arc<Node<Tokio>>, metrics: Arc<Metrics>, settings: DoorSettings) -> Arc<Self> {
        let [counted, authorized, bucketed] = ["http", "authorize", "bucket"].map(|door| metrics.door(door));
        Arc::new(Self { node, metrics, counted, authorized, bucketed, settings })
    }

    /// The routes of the data port.
    pub fn data_routes(self: &Arc<Self>) -> Router {
        let mut routes = Routes::default();
        routes.post("/rate/increment", rate::increment);
        routes.get("/rate/check", rate::check);
        if self.settings.rate_reset {
            routes.post("/rate/reset", rate::reset);
        }
        routes.get("/raft/stats", stats::stats);
        routes.post("/v1/check", check::check);
        for path in [authorize::PATH, "/v1/authorize/", "/v1/authorize/{*original}"] {
            routes.any(path, authorize::authorize);
        }
        routes.post("/bucket", bucket::create);
        routes.get("/example", bucket::example);
        routes.get("/v1/policies", policies::list);
        routes.get("/v1/policies/{namespace}/{name}", policies::get);
        routes.get("/v1/denied", policies::denied);
        routes.get("/v1/cluster", cluster::cluster);
        routes.get("/health", health::health);
        routes.get("/ready", health::ready);
        routes.get("/metrics", health::metrics);
        routes.get("/openapi.json", openapi::document);
        routes.finish(self, BODY_BYTES_MAX)
    }

    /// The routes of the admin port.
    pub fn admin_routes(self: &Arc<Self>) -> Router {
        let mut routes = Routes::default();
        routes.add(MethodFilter::PUT, "/v1/policies/{namespace}/{name}", admin::put_policy);
        routes.add(MethodFilter::DELETE, "/v1/policies/{namespace}/{name}", admin::delete_policy);
        routes.post("/v1/policies:apply", admin::apply_policies);
        routes.add(MethodFilter::PUT, "/v1/cluster/members/{id}/decommission", admin::decommission);
        routes.post("/v1/cluster/transfer-leader", admin::transfer_leader);
        routes.post("/v1/cluster/bootstrap", admin::bootstrap);
        routes.get("/v1/buckets", bucket::list);
        routes.add(MethodFilter::DELETE, "/v1/buckets/{name}", bucket::delete);
        routes.finish(self, quorate_crds::SET_BYTES_MAX)
    }
}

/// Routes as they are gathered.
#[derive(Default)]
struct Routes {
    router: Router<Arc<Doors>>,
}

impl Routes {
    fn get<H: Handler<T, Arc<Doors>>, T: 'static>(&mut self, path: &str, handler: H) {
        self.add(MethodFilter::GET, path, handler);
    }

    fn post<H: Handler<T, Arc<Doors>>, T: 'static>(&mut self, path: &str, handler: H) {
        self.add(MethodFilter::POST, path, handler);
    }

    fn any<H: Handler<T, Arc<Doors>>, T: 'static>(&mut self, path: &str, handler: H) {
        self.router = std::mem::take(&mut self.router).route(path, any(handler));
    }

    fn add<H: Handler<T, Arc<Doors>>, T: 'static>(&mut self, method: MethodFilter, path: &str, handler: H) {
        self.router = std::mem::take(&mut self.router).route(path, on(method, handler));
    }

    fn finish(self, doors: &Arc<Doors>, body_bytes_max: usize) -> Router {
        self.router
            .fallback(answer::not_found)
            .method_not_allowed_fallback(answer::not_found)
            .layer(DefaultBodyLimit::max(body_bytes_max))
            .with_state(Arc::clone(doors))
    }
}
