//! One small helper for locks.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Takes a lock whether or not a holder panicked: a test that failed is told of already, and what it held is shown.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
