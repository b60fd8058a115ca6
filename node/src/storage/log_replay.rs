//! What the records of a log come to, checked step by step: records that are each whole may still not belong together,
//! as when a file was swapped or put back to an earlier state.

use raft_log::{RaftLogAction, RaftLogRecord};

use super::log_codec::{Kinds, Owner, StoredVote};
use super::{LogId, LogState};

/// The log's state after the records so far.
#[derive(Debug, Default)]
pub(super) struct Replay {
    state: LogState,
    owner: Option<Owner>,
    begun: bool,
}

impl Replay {
    /// Takes the next record; `opens_file` for the first one of a file.
    ///
    /// # Errors
    /// Why it cannot follow those before it.
    pub(super) fn step(&mut self, record: &RaftLogRecord<Kinds>, opens_file: bool) -> Result<(), String> {
        let LogState { vote, committed, last, .. } = self.state;
        match record {
            RaftLogRecord::Action(RaftLogAction::SaveVote(next)) => {
                let before = vote.map(StoredVote);
                if before.is_some_and(|before| before > *next) {
                    return Err(format!("a vote of term {} behind one of term {}", next.0.term, before_term(before)));
                }
                self.state.vote = Some(next.0);
            }
            RaftLogRecord::Action(RaftLogAction::Append(id, _)) => {
                if last.is_some_and(|last| id.index != last.index + 1 || id.term < last.term) {
                    return Err(format!("record {id} behind {}", name(last)));
                }
                self.state.last = Some(*id);
            }
            RaftLogRecord::Action(RaftLogAction::Commit(id)) => {
                if Some(*id) > last || Some(*id) < committed {
                    return Err(format!("a commit of {id} between {} and {}", name(committed), name(last)));
                }
                self.state.committed = Some(*id);
            }
            RaftLogRecord::Action(RaftLogAction::TruncateAfter(id)) => {
                if *id < committed {
                    return Err(format!("a truncation to {} below the committed {}", name(*id), name(committed)));
                }
                self.state.last = last.min(*id);
            }
            RaftLogRecord::Action(RaftLogAction::PurgeUpto(id)) => {
                self.state.purged = self.state.purged.max(Some(*id));
                self.state.last = last.max(Some(*id));
            }
            RaftLogRecord::Checkpoint(told) => {
                let known = LogState {
                    vote: told.vote().map(|vote| vote.0),
                    committed: told.committed().copied(),
                    purged: told.purged().copied(),
                    last: told.last().copied(),
                };
                // The files before the first one that is left were purged: it is believed.
                if self.begun && (known != self.state || (opens_file && told.user_data != self.owner)) {
                    return Err(format!("the state {known:?} behind the state {:?}", self.state));
                }
                self.state = known;
                self.owner = told.user_data;
            }
        }
        self.begun = true;
        Ok(())
    }
}

fn before_term(vote: Option<StoredVote>) -> u64 {
    vote.map_or(0, |vote| vote.0.term)
}

fn name(id: Option<LogId>) -> String {
    id.map_or_else(|| "nothing".to_owned(), |id| id.to_string())
}

#[cfg(test)]
mod tests;
