//! One small helper for locks.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Takes a lock whether or not a holder panicked: every critical section here leaves its data whole at each step.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
