//! Where requests come in. A door reads a wire format into a `Request`, asks the node, and words what comes back; it
//! decides nothing. Only doors know JSON.
//!
//! [`http`] holds the routes of HTTP, [`rls`] Envoy's rate limit service. [`connections`] is what is below them: accepting,
//! bounds, the drain; [`descriptors`] how many connections there can be.

mod body_deadline;
pub mod connections;
pub mod descriptors;
mod headers;
pub mod http;
mod request_bounds;
pub mod rls;

pub use request_bounds::check_bounds;
