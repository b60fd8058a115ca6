//! A state machine that only remembers where it is: what openraft's storage suite needs beside a log.

use std::io;
use std::sync::{Arc, Mutex};

use futures::{Stream, StreamExt as _};
use openraft::alias::{LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use quorate_node::consensus::{Applied, Types};
use quorate_node::platform::Platform;

/// Clones share the state.
pub struct SuiteMachine<P: Platform>(Arc<Mutex<State<P>>>);

struct State<P: Platform> {
    applied: Option<LogIdOf<Types<P>>>,
    membership: StoredMembershipOf<Types<P>>,
    snapshot: Option<SnapshotMetaOf<Types<P>>>,
}

impl<P: Platform> Default for SuiteMachine<P> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(State {
            applied: None,
            membership: StoredMembershipOf::<Types<P>>::default(),
            snapshot: None,
        })))
    }
}

impl<P: Platform> Clone for SuiteMachine<P> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<P: Platform> RaftSnapshotBuilder<Types<P>> for SuiteMachine<P> {
    type SnapshotData = ();

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<Types<P>, ()>, io::Error> {
        let mut state = self.0.lock().unwrap();
        let meta = SnapshotMetaOf::<Types<P>> { last_log_id: state.applied, last_membership: state.membership.clone() };
        state.snapshot = Some(meta.clone());
        Ok(SnapshotOf::<Types<P>, ()> { meta, snapshot: () })
    }
}

impl<P: Platform> RaftStateMachine<Types<P>> for SuiteMachine<P> {
    type SnapshotData = ();
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogIdOf<Types<P>>>, StoredMembershipOf<Types<P>>), io::Error> {
        let state = self.0.lock().unwrap();
        Ok((state.applied, state.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types<P>>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(entry) = entries.next().await {
            let (entry, responder) = entry?;
            let mut state = self.0.lock().unwrap();
            state.applied = Some(entry.log_id);
            if let EntryPayload::Membership(membership) = entry.payload {
                state.membership = StoredMembershipOf::<Types<P>>::new(Some(entry.log_id), membership);
            }
            drop(state);
            if let Some(responder) = responder {
                responder.send(Applied::default());
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMetaOf<Types<P>>, _snapshot: ()) -> Result<(), io::Error> {
        let mut state = self.0.lock().unwrap();
        state.applied = meta.last_log_id;
        state.membership = meta.last_membership.clone();
        state.snapshot = Some(meta.clone());
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<SnapshotOf<Types<P>, ()>>, io::Error> {
        let snapshot = self.0.lock().unwrap().snapshot.clone();
        Ok(snapshot.map(|meta| SnapshotOf::<Types<P>, ()> { meta, snapshot: () }))
    }
}
