//! Where the node runs: tokio in the product, a seeded simulator in tests.

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use openraft_rt::{AsyncRuntime, Instant as _};

/// The runtime that tasks, timers, the monotonic clock and randomness come from.
///
/// Rules that keep the code below the doors deterministic: no other source of time or randomness, no
/// `tokio::select!` without `biased`, no `tokio::sync::watch` (it wakes in random order), no map with a random hasher
/// whose order shows, no blocking call outside the storage traits.
pub trait Platform: Copy + Debug + Default + Eq + Ord + Send + Sync + 'static {
    /// The runtime behind it.
    type Rt: AsyncRuntime;

    /// Starts a task that nobody waits for.
    fn spawn<T>(future: T)
    where
        T: Future<Output = ()> + Send + 'static,
    {
        // Dropping the handle leaves the task running.
        drop(Self::Rt::spawn(future));
    }

    /// Waits.
    #[must_use]
    fn sleep(span: Duration) -> <Self::Rt as AsyncRuntime>::Sleep {
        Self::Rt::sleep(span)
    }

    /// The monotonic clock.
    #[must_use]
    fn now() -> Instant<Self> {
        Instant::<Self>::now()
    }

    /// Waits for `future`, at most `span`; `None` when the time ran out.
    fn timeout<F: Future + Send>(span: Duration, future: F) -> impl Future<Output = Option<F::Output>> + Send
    where
        F::Output: Send,
    {
        async move { Self::Rt::timeout(span, future).await.ok() }
    }

    /// A random number.
    #[must_use]
    fn random() -> u64 {
        use rand::Rng as _;
        Self::Rt::thread_rng().next_u64()
    }
}

/// A point of the platform's monotonic clock.
pub type Instant<P> = <<P as Platform>::Rt as AsyncRuntime>::Instant;

/// The product's platform.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tokio;

impl Platform for Tokio {
    type Rt = openraft::impls::TokioRuntime;
}
