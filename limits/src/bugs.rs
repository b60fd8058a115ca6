//! A deliberate bug that the simulator must catch. Built only with the feature `deliberate-bugs`, never into a product.

use std::cell::Cell;

thread_local! {
    static TIME_WITHOUT_MAX: Cell<bool> = const { Cell::new(false) };
}

/// Switches, on this thread, whether apply takes a stamp as it is, so that cluster time may step back.
pub fn set_time_without_max(active: bool) {
    TIME_WITHOUT_MAX.set(active);
}

pub(crate) fn time_without_max() -> bool {
    TIME_WITHOUT_MAX.get()
}
