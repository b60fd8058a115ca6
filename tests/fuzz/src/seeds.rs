//! Writes what the fuzzers begin with below the folder that is its argument: one of each thing that is read. Run it again
//! when a format changes.
#![allow(clippy::expect_used, reason = "a tool for whoever works on this project")]

use std::path::Path;
use std::sync::Arc;
use std::{env, fs};

use quorate_limits::{
    Algorithm, Batch, BucketCommand, BucketId, ClusterTime, Command, Enforcement, KeyMatch, Limit, OnUnavailable,
    Owner, Part, Policy, PolicyChange, PolicyName, Request, Run, SessionId, Settings, StateMachine, ValueMatch,
    encode_outcomes,
};
use quorate_node::consensus::wire::{
    Append, AppendAnswer, Envelope, Kind, PromiseAsk, Read, Refusal, SnapshotPiece, Transfer, VoteAsk, encode,
    encode_answer,
};
use quorate_node::gossip::Peer;
use quorate_node::storage::{ClusterId, LogId, Record, Vote};

const SESSION: SessionId = SessionId(7);
const RUN: Run = Run { boot: 2, name: 9 };

fn policy(algorithm: Algorithm) -> Policy {
    let limit =
        |name: &str, limit, window_ns| Limit { name: name.to_owned(), algorithm, limit, window_ns, burst: limit };
    Policy {
        name: PolicyName { namespace: "fuzz".to_owned(), name: format!("{algorithm:?}").to_lowercase() },
        domain: "default".to_owned(),
        matches: vec![KeyMatch { key: "client_id".to_owned(), value: ValueMatch::Any }],
        count_by: vec!["client_id".to_owned()],
        limits: vec![limit("second", 3, 1_000_000_000), limit("hour", 5, 3_600_000_000_000)],
        overrides: vec![],
        enforcement: Enforcement::Enforce,
        on_unavailable: OnUnavailable::Deny,
        fallback: false,
    }
}

/// A founding, policies, charges, a reset, and time: the entries of a log, and the state that they come to.
fn history() -> (Vec<Batch>, StateMachine) {
    let mut state = StateMachine::default();
    let mut log = vec![];
    let mut add = |seconds: u64, parts: Vec<Part>, state: &mut StateMachine| {
        let batch = Batch { stamp: ClusterTime(seconds * 1_000_000_000), parts };
        let outcomes = state.apply(&batch);
        log.push(batch);
        outcomes
    };
    let settings = Settings { secret: [3; 16], counters_max: 1000 };
    let first = vec![policy(Algorithm::FixedWindow)];
    let opened = Part::OpenSession { node: 4, run: RUN, session: SESSION };
    add(1, vec![Part::Found { settings, policies: first }, opened, Part::RaiseFeatureLevel(1)], &mut state);
    let put = PolicyChange::Put(Owner::Api, vec![policy(Algorithm::SlidingWindow), policy(Algorithm::TokenBucket)]);
    let commands = |sequence, commands| Part::Commands { session: SESSION, sequence, commands: Arc::new(commands) };
    add(2, vec![commands(1, vec![Command::ChangePolicies(put)])], &mut state);
    for sequence in 2..6 {
        let request = Request { hits: 2, ..Request::of_client(&format!("client-{}", sequence % 2)) };
        let matched = state.rules().match_request(&request);
        let (revision, charges) = (matched.revision, matched.charges);
        let decide = Command::Decide { revision, charges: charges.clone() };
        let mut several = vec![decide.clone(), decide];
        if sequence == 5 {
            several.push(Command::Reset { revision, charges });
            for (name, id) in [("a", 1), ("b", 2), ("a", 3), ("c", 2)] {
                several.push(Command::Bucket(BucketCommand::Create { name: name.to_owned(), id: BucketId(id) }));
            }
            several.push(Command::Bucket(BucketCommand::Find { id: BucketId(1) }));
            several.push(Command::Bucket(BucketCommand::Delete { name: "a".to_owned() }));
        }
        add(sequence, vec![commands(sequence, several), Part::Decommission { node: 8 }], &mut state);
    }
    (log, state)
}

fn main() {
    let folder = env::args().nth(1).expect("the folder of the corpora, tests/fuzz/corpus, say");
    let write = |parser: &str, name: &str, bytes: &[u8]| {
        let folder = Path::new(&folder).join(parser);
        fs::create_dir_all(&folder).expect("it can be made");
        fs::write(folder.join(name), bytes).expect("it can be written");
    };
    let (log, mut state) = history();
    let snapshot = state.freeze().encode();
    write("snapshot", "state", &snapshot);
    write("snapshot", "empty", &StateMachine::default().freeze().encode());
    // The fuzzed parser begins with a state of nothing, so all of the history in one entry is the most it can come to.
    let whole = Batch { stamp: ClusterTime(9), parts: log.iter().flat_map(|batch| batch.parts.clone()).collect() };
    for (at, batch) in log.iter().chain([&whole]).enumerate() {
        write("batch", &format!("entry-{at}"), &batch.encode());
    }
    write("batch", "outcomes", &encode_outcomes(&state.apply(&whole)));

    let vote = Vote { term: 3, node: 4, committed: true };
    let last = Some(LogId { term: 3, index: 8 });
    let payload = log[1].encode().into();
    let records = vec![Record { id: LogId { term: 3, index: 9 }, payload }];
    let part = log[2].parts[0].clone();
    let read = Read { commands: vec![] };
    let piece = SnapshotPiece { vote, total: snapshot.len() as u64, crc: 1, offset: 0, bytes: snapshot[..64].to_vec() };
    let frames = [
        ("append", Kind::Append, Append { vote, prev: last, commit: last, records }.encode()),
        ("vote", Kind::Vote, encode(&VoteAsk { vote, last, transfer: false })),
        ("snapshot", Kind::Snapshot, encode(&piece)),
        ("transfer", Kind::TransferLeader, encode(&Transfer { from: vote, to: 5, last })),
        ("forward", Kind::Forward, encode(&part)),
        ("read", Kind::Read, encode(&read)),
        ("promise", Kind::Promise, encode(&PromiseAsk { members: [(4, "node-4".to_owned())].into() })),
        ("status", Kind::Status, encode(&())),
    ];
    for (name, kind, body) in frames {
        let envelope = Envelope { kind, cluster: ClusterId(6), from: 4, run: RUN, to: 5 };
        write("frame", name, &envelope.seal(&body));
    }
    write("frame", "answer", &encode_answer(RUN, &Ok(encode(&AppendAnswer::Partial(last)))));
    write("frame", "refusal", &encode_answer(RUN, &Err(Refusal::OtherCluster(Some(ClusterId(6))))));

    // As gossip's codec writes them: the envelope, a header of who says what to whom, and members.
    let peer = |node| Peer {
        node,
        boot: 1,
        version: 2,
        name: format!("node-{node}"),
        cluster: None,
        gossip_address: ([10, 0, 0, 1], 50011).into(),
        raft_address: "10.0.0.1:50001".to_owned(),
    };
    for tag in 0_u8..11 {
        let third = matches!(tag, 2..6).then(|| peer(3));
        let mut packet = b"Qg\x01\0\0\0\0\0\0\0\0".to_vec();
        packet.extend(encode(&(peer(2), 3_u16, (1_u64, 1_u64, 0_u32), tag, 5_u8, third)));
        for state in 0_u8..3 {
            packet.extend(encode(&(peer(4), 6_u16, state)));
        }
        write("gossip", &format!("message-{tag}"), &packet);
    }
    let mut stream = b"QrTp\x01\0".to_vec();
    for call in 0_u64..3 {
        stream.extend(5_u32.to_be_bytes());
        stream.extend(call.to_be_bytes());
        stream.extend(b"bytes");
    }
    write("stream", "frames", &stream);
}
