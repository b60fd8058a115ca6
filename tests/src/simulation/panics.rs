//! Panics in simulated tasks: the simulator's runtime swallows them, but none may happen.

use std::cell::RefCell;
use std::sync::Once;

/// What this thread keeps of panics.
enum Keep {
    /// They are none of ours.
    Nothing,
    /// Something is simulated; nothing has panicked yet.
    First,
    /// The first one.
    Kept(String),
}

thread_local! {
    static KEEP: RefCell<Keep> = const { RefCell::new(Keep::Nothing) };
}

/// Runs `what` and gives the first panic on this thread meanwhile, caught or not.
pub fn caught<T>(what: impl FnOnce() -> T) -> Option<String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let ours = KEEP.with_borrow_mut(|keep| {
                if matches!(keep, Keep::First) {
                    *keep = Keep::Kept(format!("a task panicked: {info}"));
                }
                !matches!(keep, Keep::Nothing)
            });
            if !ours {
                before(info);
            }
        }));
    });
    KEEP.set(Keep::First);
    what();
    match KEEP.replace(Keep::Nothing) {
        Keep::Kept(panic) => Some(panic),
        Keep::Nothing | Keep::First => None,
    }
}
