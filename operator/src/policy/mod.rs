//! The `QuotaPolicy` controller.

use tokio::sync::watch;

use crate::context::Context;

/// Runs until it is told to stop, which is when `stop` turns true.
pub async fn run(_context: Context, mut stop: watch::Receiver<bool>) {
    // An error says that whoever could tell is gone.
    let _ = stop.wait_for(|stop| *stop).await;
}
