//! Where requests come in. A door reads a wire format into a `Request`, asks the node, and words what comes back; it
//! decides nothing. Only doors know JSON.
//!
//! [`http`] holds the routes, [`connections`] what is below them: accepting, bounds, the drain; [`descriptors`] how many
//! connections there can be.

mod body_deadline;
pub mod connections;
pub mod descriptors;
pub mod http;
mod request_bounds;

pub use request_bounds::check_bounds;
