use raft_log::RaftLogAction::{Append, Commit, PurgeUpto, SaveVote, TruncateAfter};

use super::super::Vote;
use super::super::log_codec::Payload;
use super::*;

type Action = RaftLogAction<Kinds>;

fn id(term: u64, index: u64) -> LogId {
    LogId { term, index }
}

fn append(term: u64, index: u64) -> Action {
    Append(id(term, index), Payload("payload".into()))
}

fn vote(term: u64, committed: bool) -> Action {
    SaveVote(StoredVote(Vote { term, node: 7, committed }))
}

/// What is said of these records: of the last one, since those before it are good.
fn replayed(actions: Vec<Action>) -> Result<(), String> {
    let mut replay = Replay::default();
    let mut actions: Vec<_> = actions.into_iter().map(RaftLogRecord::Action).collect();
    let last = actions.pop().unwrap();
    for action in &actions {
        replay.step(action, false).unwrap();
    }
    replay.step(&last, false)
}

#[test]
fn records_in_their_order_are_good() {
    let after_a_purge = vec![append(1, 0), PurgeUpto(id(2, 8)), append(2, 9)];
    let written_over = vec![append(1, 0), append(1, 1), TruncateAfter(Some(id(1, 0))), append(2, 1)];
    let votes = vec![vote(2, false), vote(2, true), vote(2, true), vote(3, false)];
    let committed = vec![append(1, 0), append(1, 1), Commit(id(1, 0)), Commit(id(1, 0)), Commit(id(1, 1))];
    for actions in [after_a_purge, written_over, votes, committed] {
        assert_eq!(replayed(actions.clone()), Ok(()), "{actions:?}");
    }
}

#[test]
fn record_that_cannot_follow_those_before_it_says_why() {
    for (actions, why) in [
        (vec![vote(3, false), vote(2, true)], "a vote of term 2 behind one of term 3"),
        (vec![vote(3, true), vote(3, false)], "a vote of term 3 behind one of term 3"),
        (vec![append(2, 0), append(2, 2)], "record 2 of term 2 behind 0 of term 2"),
        (vec![append(2, 0), append(2, 0)], "record 0 of term 2 behind 0 of term 2"),
        (vec![append(2, 0), append(1, 1)], "record 1 of term 1 behind 0 of term 2"),
        (vec![append(2, 0), TruncateAfter(None), append(2, 0), append(2, 3)], "record 3 of term 2 behind 0 of term 2"),
        (vec![append(2, 0), Commit(id(2, 1))], "a commit of 1 of term 2 between nothing and 0 of term 2"),
        (
            vec![append(2, 0), append(2, 1), Commit(id(2, 1)), Commit(id(2, 0))],
            "a commit of 0 of term 2 between 1 of term 2 and 1 of term 2",
        ),
        (
            vec![append(2, 0), append(2, 1), Commit(id(2, 1)), TruncateAfter(Some(id(2, 0)))],
            "a truncation to 0 of term 2 below the committed 1 of term 2",
        ),
        (vec![append(2, 0), PurgeUpto(id(2, 8)), append(2, 1)], "record 1 of term 2 behind 8 of term 2"),
    ] {
        assert_eq!(replayed(actions.clone()), Err(why.to_owned()), "{actions:?}");
    }
}
