//! The session of this node's process: the name and the numbers under which its parts count once.

use std::collections::BTreeSet;
use std::sync::Mutex;

use quorate_limits::sessions::RESULTS_KEPT;
use quorate_limits::{Sequence, SessionId};
use tokio::sync::Notify;

use crate::sync::lock;

#[derive(Debug)]
struct Open {
    id: SessionId,
    next: Sequence,
    /// Numbers given out whose parts may still be sent again.
    under_way: BTreeSet<Sequence>,
}

impl Open {
    /// Whether another number can be given out: the state keeps [`RESULTS_KEPT`] results, so a number that far above the
    /// oldest part under way would make the state forget what that part came to.
    fn has_room(&self) -> bool {
        self.under_way.first().is_none_or(|oldest| self.next < oldest + RESULTS_KEPT)
    }
}

/// The session, while one is open.
#[derive(Debug, Default)]
pub struct Session {
    open: Mutex<Option<Open>>,
    changed: Notify,
}

impl Session {
    /// Begins a new session under `id`.
    pub fn begin(&self, id: SessionId) {
        *lock(&self.open) = Some(Open { id, next: 1, under_way: BTreeSet::new() });
        self.changed.notify_waiters();
    }

    /// Ends the session `id`, if it is the one that is open. Returns whether it was.
    pub fn end(&self, id: SessionId) -> bool {
        let mut open = lock(&self.open);
        let ends = open.as_ref().is_some_and(|open| open.id == id);
        if ends {
            *open = None;
            self.changed.notify_waiters();
        }
        ends
    }

    /// Waits until a session is open.
    pub async fn begun(&self) {
        self.once(|open| open.is_some().then_some(())).await;
    }

    /// Waits until no session is open.
    pub async fn ended(&self) {
        self.once(|open| open.is_none().then_some(())).await;
    }

    /// Takes the next number; waits for a session, and for room in what the state keeps of it.
    pub async fn number(&self) -> Numbered<'_> {
        self.once(|open| {
            let open = open.as_mut().filter(|open| open.has_room())?;
            let sequence = open.next;
            open.next += 1;
            open.under_way.insert(sequence);
            Some(Numbered { session: self, id: open.id, sequence })
        })
        .await
    }

    async fn once<T>(&self, mut take: impl FnMut(&mut Option<Open>) -> Option<T>) -> T {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // Registered before looking, so that no change between is missed.
            changed.as_mut().enable();
            if let Some(taken) = take(&mut lock(&self.open)) {
                return taken;
            }
            changed.await;
        }
    }
}

/// A number under way; dropped once its part will not be sent again.
#[derive(Debug)]
pub struct Numbered<'a> {
    session: &'a Session,
    /// The session.
    pub id: SessionId,
    /// The number.
    pub sequence: Sequence,
}

impl Drop for Numbered<'_> {
    fn drop(&mut self) {
        let mut open = lock(&self.session.open);
        if let Some(open) = open.as_mut().filter(|open| open.id == self.id) {
            open.under_way.remove(&self.sequence);
            self.session.changed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn oldest_part_under_way_keeps_numbers_within_what_the_state_keeps() {
        let session = Session::default();
        assert!(
            session.begun().now_or_never().is_none() && session.number().now_or_never().is_none(),
            "no session yet"
        );
        session.begin(SessionId(7));
        assert!(session.begun().now_or_never().is_some());
        let mut under_way: Vec<_> = (0..RESULTS_KEPT).map(|_| session.number().now_or_never().expect("room")).collect();
        assert_eq!(under_way.last().map(|numbered| numbered.sequence), Some(RESULTS_KEPT));
        assert!(session.number().now_or_never().is_none(), "the oldest would be forgotten");
        drop(under_way.remove(1));
        assert!(session.number().now_or_never().is_none(), "a younger one makes no room");
        drop(under_way.remove(0));
        let next = session.number().now_or_never().expect("room again");
        assert_eq!((next.id, next.sequence), (SessionId(7), RESULTS_KEPT + 1));
    }

    #[test]
    fn session_ended_by_another_name_stays() {
        let session = Session::default();
        session.begin(SessionId(1));
        assert!(!session.end(SessionId(2)));
        assert!(session.ended().now_or_never().is_none());
        assert!(session.end(SessionId(1)));
        assert!(session.ended().now_or_never().is_some());
    }
}
