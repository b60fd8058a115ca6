//! A `RateLimitCluster`, stage by stage. Each is a file, and each here is pure: no client, no clock, no randomness.
//!
//! 1. `observe` reads everything there is (client; to come) and [`observed`] makes the planner's view of it;
//! 2. [`validate`] makes [`Wanted`] of the spec, or says what is wrong with it;
//! 3. [`mod@plan`] compares the two: one operation at a time, and its next [`Step`];
//! 4. [`build`] makes the objects of the cluster's present size; it cannot fail;
//! 5. `apply` brings objects and step about, and `status` tells of them (client; to come).
//!
//! The membership belongs to the nodes' autopilot. The operator writes intents, and does what only Kubernetes can: pods,
//! claims, rollouts.

pub mod build;
pub mod names;
pub mod observed;
pub mod plan;
pub mod validate;

pub use names::Names;
pub use observed::Observed;
pub use plan::{InFlight, Plan, Step, plan};
pub use validate::Wanted;

use tokio::sync::watch;

use crate::context::Context;

/// Runs until it is told to stop, which is when `stop` turns true.
pub async fn run(_context: Context, mut stop: watch::Receiver<bool>) {
    // An error says that whoever could tell is gone.
    let _ = stop.wait_for(|stop| *stop).await;
}
