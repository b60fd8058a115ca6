//! Every parser of bytes that come from elsewhere, by name: what a fuzzer calls. Each must come back from any bytes, without
//! a panic and without more memory than a small multiple of their length, and what it reads must mean what it meant.

use bytes::Bytes;
use quorate_crds::api::{BootstrapBody, CheckRequest, HexId, TransferBody};
use quorate_crds::{files, parse_policy, parse_policy_set};
use quorate_limits::{
    BUCKET_NAME_BYTES_MAX, Batch, BucketId, Decoder, Part, Request, StateMachine, decode_outcomes, encode_outcomes,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::consensus::older_disk::OlderDisk;
use crate::consensus::wire::{
    Append, AppendAnswer, Envelope, ForwardAnswer, Kind, PromiseAnswer, PromiseAsk, Read, ReadAnswer, SnapshotAnswer,
    SnapshotPiece, StatusAnswer, Transfer, VoteAnswer, VoteAsk, decode, decode_answer, encode, encode_answer,
};
use crate::doors::{check_bounds, http, rls};
use crate::gossip::parse_packet;
use crate::transport::parse_stream;

/// Reads bytes, and panics when it finds what must not be.
pub type Parser = fn(&[u8]);

/// All of them.
pub const ALL: [(&str, Parser); 14] = [
    ("check", check),
    ("bucket", bucket),
    ("query", query),
    ("authorize", authorize),
    ("rls", rls::parse_message),
    ("headers", headers),
    ("policy", policy),
    ("policies", policies),
    ("members", members),
    ("gossip", parse_packet),
    ("stream", parse_stream),
    ("frame", frame),
    ("batch", batch),
    ("snapshot", snapshot),
];

/// The body of a check.
fn check(bytes: &[u8]) {
    let checks = match CheckRequest::parse(bytes) {
        Ok(CheckRequest::One(check)) => vec![check],
        Ok(CheckRequest::Batch { checks }) => checks,
        Err(error) => return drop(error.to_string()),
    };
    let rules = StateMachine::default().rules();
    for request in checks.into_iter().map(Request::from) {
        if check_bounds(&request).is_ok() {
            let _ = rules.match_request(&request);
        }
    }
}

/// The body that registers a bucket.
fn bucket(bytes: &[u8]) {
    if let Ok(name) = http::parse_bucket(bytes) {
        assert!((1..=BUCKET_NAME_BYTES_MAX).contains(&name.len()), "a name is within its bounds");
    }
}

/// What a gateway asks `/v1/authorize`, and the setting that says what it is counted by: three lines, the setting, the path
/// and query, and the header that is counted by.
fn authorize(bytes: &[u8]) {
    let mut lines = bytes.splitn(3, |byte| *byte == b'\n');
    let mut next = || lines.next().unwrap_or_default();
    let (setting, path, header) = (next(), next(), next());
    if let (Ok(setting), Ok(path)) = (std::str::from_utf8(setting), std::str::from_utf8(path)) {
        http::parse_authorize(setting, path, header);
    }
}

/// The query of the simple API.
fn query(bytes: &[u8]) {
    if let Ok(query) = std::str::from_utf8(bytes) {
        http::parse_query(query);
    }
}

/// What stands in a header by itself: the id of a bucket, and how long a decision may take.
fn headers(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(id) = text.parse::<BucketId>()
    {
        assert!(id.to_string() == text, "an id has one spelling");
    }
    rls::parse_timeout(bytes);
}

/// A policy, as YAML and as JSON, and a file of them.
fn policy(bytes: &[u8]) {
    for is_yaml in [false, true] {
        if let Err(errors) = parse_policy(bytes, is_yaml) {
            assert!(!errors.is_empty(), "it is refused for a reason");
        }
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        drop(files::parse_files([("policies.yaml", text)]));
    }
}

/// The body that replaces a set of policies.
fn policies(bytes: &[u8]) {
    if let Err(errors) = parse_policy_set(bytes) {
        assert!(!errors.is_empty(), "it is refused for a reason");
    }
}

/// What the admin port is told of members: whom to found a cluster with, who is to lead, and an id in a path.
fn members(bytes: &[u8]) {
    as_json::<BootstrapBody>(bytes);
    as_json::<TransferBody>(bytes);
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(id) = text.parse::<HexId>()
    {
        assert!(id.to_string().parse::<HexId>().is_ok_and(|again| again == id), "it is read as it is shown");
    }
}

fn as_json<T: Serialize + DeserializeOwned + PartialEq>(bytes: &[u8]) {
    if let Ok(body) = serde_json::from_slice::<T>(bytes) {
        let again = serde_json::to_vec(&body).ok().and_then(|text| serde_json::from_slice::<T>(&text).ok());
        assert!(again.is_some_and(|again| again == body), "it is read as it was written");
    }
}

/// A frame of another node, and the answer to one.
fn frame(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    if let Some((envelope, body)) = Envelope::open(bytes.clone()) {
        assert!(envelope.seal(&body) == bytes, "the envelope is read as it was written");
        match envelope.kind {
            Kind::Append => append(body),
            Kind::Vote | Kind::PreVote => both::<VoteAsk, VoteAnswer>(&body),
            Kind::Snapshot => both::<SnapshotPiece, SnapshotAnswer>(&body),
            Kind::TransferLeader => both::<Transfer, bool>(&body),
            Kind::Forward => both::<Part, ForwardAnswer>(&body),
            Kind::Read => both::<Read, ReadAnswer>(&body),
            Kind::Promise | Kind::Welcome => both::<PromiseAsk, PromiseAnswer>(&body),
            Kind::Status => both::<StatusAnswer, AppendAnswer>(&body),
            Kind::OlderDisk => both::<OlderDisk, ()>(&body),
        }
    }
    if let Ok((run, answer)) = decode_answer(bytes) {
        let again = encode_answer(run, &answer);
        assert!(decode_answer(again).is_ok_and(|read| read == (run, answer)), "an answer is read as it was written");
    }
}

fn append(body: Bytes) {
    if let Ok(append) = Append::decode(body) {
        assert!(Append::decode(append.encode()).is_ok_and(|again| again == append), "as it was written");
    }
}

/// What a frame of a kind holds, and what its answer does.
fn both<Ask, Answer>(body: &[u8])
where
    Ask: Serialize + DeserializeOwned + PartialEq,
    Answer: Serialize + DeserializeOwned + PartialEq,
{
    round::<Ask>(body);
    round::<Answer>(body);
}

fn round<T: Serialize + DeserializeOwned + PartialEq>(body: &[u8]) {
    if let Ok(value) = decode::<T>(body) {
        assert!(decode::<T>(&encode(&value)).is_ok_and(|again| again == value), "it is read as it was written");
    }
}

/// An entry of the log, which every node then applies: to a state that is founded, twice over, and to the same outcome.
fn batch(bytes: &[u8]) {
    if let Ok(outcomes) = decode_outcomes(bytes) {
        assert!(decode_outcomes(&encode_outcomes(&outcomes)).is_ok_and(|again| again == outcomes), "as it was written");
    }
    let Ok(batch) = Batch::decode(bytes) else { return };
    assert!(Batch::decode(&batch.encode()).is_ok_and(|again| again == batch), "it is read as it was written");
    assert!(Batch::peek_stamp(bytes) == Some(batch.stamp), "its stamp is the one in front");
    let (mut one, mut other) = (StateMachine::default(), StateMachine::default());
    for _ in 0..2 {
        assert!(one.apply(&batch) == other.apply(&batch), "two nodes come to the same");
    }
    assert!(one.state_hash() == other.state_hash(), "two nodes are in the same state");
}

/// A state, in one piece and in many.
fn snapshot(bytes: &[u8]) {
    let mut decoder = Decoder::default();
    let pushed = bytes.chunks(7).try_for_each(|piece| decoder.push(piece));
    let pieced = pushed.and_then(|()| decoder.finish());
    let whole = StateMachine::decode(bytes);
    assert!(pieced.is_ok() == whole.is_ok(), "it does not matter how it comes");
    if let (Ok(pieced), Ok(whole)) = (pieced, whole) {
        assert!(pieced.state_hash() == whole.state_hash(), "nor to what it is read");
        let again = whole.freeze().encode();
        assert!(StateMachine::decode(&again).is_ok_and(|read| read.state_hash() == whole.state_hash()), "as written");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The fuzzer goes by the folders.
    #[test]
    fn every_parser_has_a_corpus() {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fuzz/corpus");
        let folders = std::fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let parsers: BTreeSet<_> = ALL.into_iter().map(|(name, _)| name.to_owned()).collect();
        assert_eq!(folders.collect::<BTreeSet<_>>(), parsers);
    }

    #[test]
    fn no_parser_minds_what_it_is_given() {
        for (name, parser) in ALL {
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase()), "{name} names a folder");
            for bytes in [&b""[..], b"\0", b"{}", b"checks: [", &[0xff; 300], &[1; 300]] {
                parser(bytes);
            }
        }
    }
}
