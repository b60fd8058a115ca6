//! The operator: what a `RateLimitCluster` asks for, and how to come there one step at a time.
//!
//! [`run`](mod@run) puts the program together: settings, the lease of which one operator at a time is the holder, the
//! operator's own port, and one controller for each resource: [`cluster`] and [`policy`]. Both speak to nodes
//! through [`limiter`].

pub mod backoff;
pub mod cli;
pub mod cluster;
pub mod context;
pub mod deadline;
pub mod error;
pub mod events;
pub mod http;
#[cfg(test)]
mod in_memory;
pub mod lease;
pub mod limiter;
mod logging;
pub mod metrics;
pub mod policy;
pub mod run;
mod sync;
mod write_status;
