//! Sessions and the results they keep.

use super::*;
use crate::command::{Decision, LimitState};

const S: SessionId = SessionId(7);

fn run(boot: u64) -> Run {
    Run { boot, name: 100 + boot }
}

fn opened() -> Sessions {
    let mut sessions = Sessions::default();
    assert_eq!(sessions.open(1, run(1), S), PartOutcome::Done);
    sessions
}

/// A result that can be told apart, of so many limit states.
fn result(remaining: u64, limits: usize) -> Arc<Vec<Outcome>> {
    let limit = LimitState { remaining, reset_ns: 0, retry_ns: 0, exceeded: false };
    Arc::new(vec![Outcome::Decided(Decision { admitted: true, limits: vec![limit; limits].into() })])
}

fn keep(sessions: &mut Sessions, sequence: Sequence) {
    assert!(matches!(sessions.admit(S, sequence), Admission::Apply), "{sequence}");
    sessions.keep(S, sequence, result(sequence, 1));
}

fn answer(sessions: &Sessions, session: SessionId, sequence: Sequence) -> Option<PartOutcome> {
    match sessions.admit(session, sequence) {
        Admission::Apply => None,
        Admission::Answer(outcome) => Some(outcome),
    }
}

#[test]
fn session_not_open_is_unknown() {
    assert_eq!(answer(&opened(), SessionId(8), 1), Some(PartOutcome::UnknownSession));
}

#[test]
fn part_resent_answers_the_kept_result() {
    let mut sessions = opened();
    keep(&mut sessions, 1);
    assert_eq!(answer(&sessions, S, 1), Some(PartOutcome::Applied(result(1, 1))));
}

#[test]
fn window_of_64_below_the_highest() {
    let mut sessions = opened();
    assert_eq!(answer(&sessions, S, 0), Some(PartOutcome::SequenceTooOld));
    keep(&mut sessions, 1);
    keep(&mut sessions, 100);
    assert_eq!(answer(&sessions, S, 1), Some(PartOutcome::SequenceTooOld));
    assert_eq!(answer(&sessions, S, 36), Some(PartOutcome::SequenceTooOld));
    assert_eq!(answer(&sessions, S, 37), None, "a gap inside the window applies when it arrives");
    keep(&mut sessions, 37);
    assert_eq!(answer(&sessions, S, 37), Some(PartOutcome::Applied(result(37, 1))));
    for sequence in 101..=300 {
        keep(&mut sessions, sequence);
    }
    assert_eq!(sessions.open[&S].results.len(), 64);
    keep(&mut sessions, u64::MAX);
    assert_eq!(sessions.open[&S].results.len(), 1);
}

#[test]
fn large_results_go_early_and_their_parts_are_refused() {
    let mut sessions = opened();
    let half = usize::try_from(KEPT_STATES_MAX / 2).unwrap() - 1;
    for sequence in [1, 3, 4] {
        sessions.keep(S, sequence, result(sequence, half));
    }
    assert_eq!(answer(&sessions, S, 1), Some(PartOutcome::SequenceTooOld));
    assert_eq!(answer(&sessions, S, 2), None);
    assert!(answer(&sessions, S, 3).is_some_and(|outcome| matches!(outcome, PartOutcome::Applied(_))));
    sessions.keep(S, 5, result(5, 3 * half));
    assert_eq!(answer(&sessions, S, 5), Some(PartOutcome::SequenceTooOld), "too large to keep at all");
    assert_eq!(sessions.open[&S].states, 0);
    keep(&mut sessions, 6);
}

#[test]
fn newer_session_of_a_node_ends_the_earlier_one() {
    let mut sessions = opened();
    keep(&mut sessions, 1);
    assert_eq!(sessions.open(1, run(2), SessionId(8)), PartOutcome::Done);
    assert_eq!(answer(&sessions, S, 1), Some(PartOutcome::UnknownSession));
    assert_eq!(answer(&sessions, SessionId(8), 1), None);
}

#[test]
fn open_session_resent_keeps_its_results() {
    let mut sessions = opened();
    keep(&mut sessions, 1);
    assert_eq!(sessions.open(1, run(1), S), PartOutcome::Done);
    assert_eq!(answer(&sessions, S, 1), Some(PartOutcome::Applied(result(1, 1))));
}

#[test]
fn boot_counter_below_the_latest_or_the_same_start_again_is_an_older_disk() {
    let mut sessions = opened();
    sessions.open(1, run(5), SessionId(8));
    for older in [run(4), Run { boot: 5, name: 1 }] {
        assert_eq!(sessions.open(1, older, SessionId(9)), PartOutcome::OlderDisk { latest: run(5) });
    }
    assert_eq!(answer(&sessions, SessionId(8), 1), None, "the open session goes on");
    assert_eq!(sessions.open(1, run(5), SessionId(9)), PartOutcome::Done, "the same process opens another");
    assert_eq!(sessions.runs().get(&1), Some(&run(5)));
}

#[test]
fn name_of_another_nodes_session_refused() {
    let mut sessions = opened();
    assert_eq!(sessions.open(2, run(1), S), PartOutcome::UnknownSession);
    assert_eq!(sessions.open[&S].node, 1);
}

#[test]
fn member_gone_ends_its_session_and_forgets_its_run() {
    let mut sessions = opened();
    sessions.open(2, run(9), SessionId(8));
    sessions.retain(&BTreeSet::from([1]));
    assert_eq!(answer(&sessions, S, 1), None);
    assert_eq!(answer(&sessions, SessionId(8), 1), Some(PartOutcome::UnknownSession));
    assert_eq!(sessions.open(2, run(1), SessionId(9)), PartOutcome::Done);
}

#[test]
fn more_nodes_than_a_cluster_has_refused() {
    let mut sessions = Sessions::default();
    for node in 0..SESSIONS_MAX as u64 {
        assert_eq!(sessions.open(node, run(1), SessionId(node)), PartOutcome::Done);
    }
    assert_eq!(sessions.open(5000, run(1), SessionId(5000)), PartOutcome::UnknownSession);
    assert_eq!(sessions.open(7, run(2), SessionId(5001)), PartOutcome::Done);
}

#[test]
fn hash_tells_results_apart() {
    let hash = |remaining| {
        let mut sessions = opened();
        sessions.keep(S, 1, result(remaining, 1));
        let mut hasher = SipHasher13::new();
        sessions.hash(&mut hasher);
        hasher.finish128().as_u128()
    };
    assert_eq!(hash(1), hash(1));
    assert_ne!(hash(1), hash(2));
}
