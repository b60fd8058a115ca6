//! Where requests come in. A door reads a wire format into a `Request`, asks the node, and words what comes back; it
//! decides nothing. Only doors know JSON.
//!
//! [`http`] holds the routes, [`connections`] what is below them: accepting, bounds, the drain.

pub mod connections;
pub mod http;
mod request_bounds;

pub use request_bounds::check_bounds;
