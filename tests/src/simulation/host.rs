//! A host as its processes feel it: a clock that may be fast or slow, and whether they run at all.
//!
//! [`HostRuntime`] is the simulator's runtime seen from a host. A task belongs to the host that its spawner belonged to;
//! [`Host::run`] is how one gets there. What belongs to no host (network, clients, nemesis, oracles) lives by true time
//! and is never stopped.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::io;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::future::BoxFuture;
use openraft::OptionalSend;
use openraft_rt::{AsyncRuntime, Instant};
use openraft_rt_sim::{Elapsed, SimInstant, SimJoinError, SimJoinHandle, SimRuntime, SimSleep, SimTimeout};

/// A clock that runs true, in thousandths.
pub const TRUE_RATE: u64 = 1000;
/// Clocks begin a day in, so that code may subtract from the first instants.
const BEGINNING: Duration = Duration::from_hours(24);

thread_local! {
    static CURRENT: RefCell<Option<Arc<Host>>> = const { RefCell::new(None) };
}

/// One run of one host. Its tasks run unless it is stopped.
pub struct Host {
    rate: u64,
    stopped: Mutex<Option<Vec<Waker>>>,
}

impl Host {
    /// A host whose clock advances by `rate` while true time advances by 1000.
    #[must_use]
    pub fn new(rate: u64) -> Arc<Self> {
        Arc::new(Self { rate, stopped: Mutex::default() })
    }

    /// Stops its processes, as SIGSTOP does: none of its tasks runs, while time and network go on.
    pub fn stop(&self) {
        self.stopped.lock().unwrap().get_or_insert_default();
    }

    /// Lets them go on, as SIGCONT does.
    pub fn go_on(&self) {
        let waiting = self.stopped.lock().unwrap().take();
        waiting.into_iter().flatten().for_each(Waker::wake);
    }

    /// Whether its processes are stopped.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stopped.lock().unwrap().is_some()
    }

    /// Whether the task must wait for the host to go on; it is woken then.
    fn holds_up(&self, cx: &Context<'_>) -> bool {
        let mut stopped = self.stopped.lock().unwrap();
        let Some(waiting) = stopped.as_mut() else { return false };
        if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
        true
    }

    /// Runs something on this host.
    pub fn run<'a, F: Future + Send + 'a>(self: &Arc<Self>, future: F) -> Hosted<'a, F::Output> {
        Hosted { host: Some(Arc::clone(self)), future: Box::pin(future) }
    }

    /// Does something on this host at once, stopped or not: for a look at a node from outside.
    pub fn here<T>(self: &Arc<Self>, what: impl FnOnce() -> T) -> T {
        on(Some(Arc::clone(self)), what)
    }
}

/// Does something that belongs to no host, tasks that it spawns included.
pub fn outside<T>(what: impl FnOnce() -> T) -> T {
    on(None, what)
}

fn on<T>(host: Option<Arc<Host>>, what: impl FnOnce() -> T) -> T {
    /// Gives the thread back, also when `what` panics.
    struct Back(Option<Arc<Host>>);
    impl Drop for Back {
        fn drop(&mut self) {
            CURRENT.set(self.0.take());
        }
    }
    let _back = Back(CURRENT.replace(host));
    what()
}

fn current() -> Option<Arc<Host>> {
    CURRENT.with_borrow(Clone::clone)
}

fn rate() -> u64 {
    CURRENT.with_borrow(|host| host.as_ref().map_or(TRUE_RATE, |host| host.rate))
}

/// A future that belongs to a host, or to none.
pub struct Hosted<'a, T> {
    host: Option<Arc<Host>>,
    future: BoxFuture<'a, T>,
}

impl<T> Future for Hosted<'_, T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        if self.host.as_ref().is_some_and(|host| host.holds_up(cx)) {
            return Poll::Pending;
        }
        on(self.host.clone(), || self.future.as_mut().poll(cx))
    }
}

/// A point of the current host's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostInstant(Duration);

impl HostInstant {
    /// When the current host's clock will show this, in true time.
    fn in_true_time(self) -> SimInstant {
        let shown = self.0.saturating_sub(BEGINNING).as_nanos();
        let at = u64::try_from((shown * u128::from(TRUE_RATE)).div_ceil(u128::from(rate()))).unwrap_or(u64::MAX);
        let now = SimInstant::now();
        let ahead = Duration::from_nanos(at).saturating_sub(now.elapsed_since_start());
        // Nothing waits for centuries.
        now + ahead.min(Duration::from_hours(24 * 365))
    }
}

impl Instant for HostInstant {
    fn now() -> Self {
        let elapsed = SimInstant::now().elapsed_since_start().as_nanos() * u128::from(rate()) / u128::from(TRUE_RATE);
        Self(BEGINNING + Duration::from_nanos(u64::try_from(elapsed).unwrap()))
    }
}

impl Add<Duration> for HostInstant {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(span))
    }
}

impl AddAssign<Duration> for HostInstant {
    fn add_assign(&mut self, span: Duration) {
        *self = *self + span;
    }
}

impl Sub<Duration> for HostInstant {
    type Output = Self;

    fn sub(self, span: Duration) -> Self {
        Self(self.0.checked_sub(span).unwrap())
    }
}

impl SubAssign<Duration> for HostInstant {
    fn sub_assign(&mut self, span: Duration) {
        *self = *self - span;
    }
}

impl Sub for HostInstant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// The simulator's runtime, with the current host's time.
pub struct HostRuntime(SimRuntime);

impl fmt::Debug for HostRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl AsyncRuntime for HostRuntime {
    type JoinError = SimJoinError;
    type JoinHandle<T: OptionalSend + 'static> = SimJoinHandle<T>;
    type Sleep = SimSleep;
    type Instant = HostInstant;
    type TimeoutError = Elapsed;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = SimTimeout<T>;
    type ThreadLocalRng = <SimRuntime as AsyncRuntime>::ThreadLocalRng;
    type Mpsc = <SimRuntime as AsyncRuntime>::Mpsc;
    type Watch = <SimRuntime as AsyncRuntime>::Watch;
    type Oneshot = <SimRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <SimRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        SimRuntime::spawn(Hosted { host: current(), future: Box::pin(future) })
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        Self::sleep_until(HostInstant::now() + duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        SimRuntime::sleep_until(deadline.in_true_time())
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(duration: Duration, future: F) -> Self::Timeout<R, F> {
        Self::timeout_at(HostInstant::now() + duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(deadline: Self::Instant, future: F) -> Self::Timeout<R, F> {
        SimRuntime::timeout_at(deadline.in_true_time(), future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        SimRuntime::is_panic(join_error)
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        SimRuntime::thread_rng()
    }

    fn new(threads: usize) -> Self {
        Self(SimRuntime::new(threads))
    }

    fn block_on<F: Future<Output = T>, T>(&mut self, future: F) -> T {
        self.0.block_on(future)
    }

    fn spawn_blocking<F, T>(f: F) -> impl Future<Output = Result<T, io::Error>> + Send
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        SimRuntime::spawn_blocking(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_runs_at_the_hosts_rate_and_sleeps_end_by_it() {
        SimRuntime::with_seed(0).block_on(async {
            let host = Host::new(1100);
            let begun = SimInstant::now();
            let shown = host.run(async {
                let before = HostInstant::now();
                HostRuntime::sleep(Duration::from_secs(11)).await;
                HostInstant::now() - before
            });
            assert_eq!(shown.await, Duration::from_secs(11));
            assert_eq!(SimInstant::now() - begun, Duration::from_secs(10));
            let late =
                host.run(async { HostRuntime::timeout(Duration::from_secs(11), std::future::pending::<()>()).await });
            assert!(late.await.is_err());
            assert_eq!(SimInstant::now() - begun, Duration::from_secs(20));
        });
    }

    #[test]
    fn host_stopped_its_tasks_wait_and_then_find_that_time_went_on() {
        SimRuntime::with_seed(0).block_on(async {
            let host = Host::new(TRUE_RATE);
            // A task that the host's own code spawned belongs to it.
            let task = host.here(|| {
                HostRuntime::spawn(async {
                    HostRuntime::sleep(Duration::from_secs(1)).await;
                    SimInstant::now()
                })
            });
            let begun = SimInstant::now();
            // It must have begun to sleep before its host stops.
            HostRuntime::sleep(Duration::from_millis(500)).await;
            host.stop();
            HostRuntime::sleep(Duration::from_secs(10)).await;
            host.go_on();
            assert_eq!(task.await.unwrap() - begun, Duration::from_millis(10_500));
            assert!(!host.is_stopped());
        });
    }
}
