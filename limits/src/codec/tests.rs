//! Round trips, versions, and bytes that are neither.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::buckets::{BucketCommand, BucketId, BucketOutcome};
use crate::command::{
    Charge, Command, CounterId, Decision, LimitState, Outcome, Part, PolicyChange, PolicyConflict, PolicyOutcome, Run,
    SessionId,
};
use crate::members::Leaving;
use crate::policy::{Owner, PolicyId};
use crate::request::GivenLimit;
use crate::settings::Settings;
use crate::testing::{policy, policy_name};

fn charges() -> impl Strategy<Value = Vec<Charge>> {
    let counters = prop::collection::vec(any::<[u8; 16]>().prop_map(CounterId), 0..4);
    let charge = (any::<u32>(), any::<Option<u16>>(), any::<i64>(), counters, any::<Option<(u64, u64)>>()).prop_map(
        |(policy, overridden, hits, counters, given)| Charge {
            policy: PolicyId(policy),
            overridden,
            hits,
            counters: counters.into(),
            given: given.map(|(hits, window_ns)| GivenLimit { hits, window_ns }),
        },
    );
    prop::collection::vec(charge, 0..4)
}

fn buckets() -> impl Strategy<Value = BucketCommand> {
    ("[a-z]{0,9}", any::<u128>(), 0..3).prop_map(|(name, id, what)| match what {
        0 => BucketCommand::Create { name, id: BucketId(id) },
        1 => BucketCommand::Delete { name },
        _ => BucketCommand::Find { id: BucketId(id) },
    })
}

fn commands() -> impl Strategy<Value = Command> {
    prop_oneof![
        4 => (any::<u64>(), charges()).prop_map(|(revision, charges)| Command::Decide { revision, charges: charges.into() }),
        1 => (any::<u64>(), charges()).prop_map(|(revision, charges)| Command::Reset { revision, charges: charges.into() }),
        1 => "[a-z]{0,9}".prop_map(|name| PolicyChange::Put(Owner::Files, vec![policy(&name)])).prop_map(Command::ChangePolicies),
        1 => "[a-z]{0,9}".prop_map(|name| Command::ChangePolicies(PolicyChange::Delete(Owner::Api, vec![policy_name(&name)]))),
        1 => buckets().prop_map(Command::Bucket),
    ]
}

fn batches() -> impl Strategy<Value = Batch> {
    let part = prop_oneof![
        1 => any::<[u64; 4]>().prop_map(|[node, boot, name, session]| Part::OpenSession {
            node,
            run: Run { boot, name },
            session: SessionId(session),
        }),
        4 => (any::<u64>(), any::<u64>(), prop::collection::vec(commands(), 0..5)).prop_map(
            |(session, sequence, commands)| Part::Commands {
                session: SessionId(session),
                sequence,
                commands: Arc::new(commands),
            }
        ),
        1 => (any::<[u8; 16]>(), any::<u64>()).prop_map(|(secret, counters_max)| Part::Found {
            settings: Settings { secret, counters_max },
            policies: vec![policy("p")],
        }),
        1 => any::<u32>().prop_map(Part::RaiseFeatureLevel),
        1 => any::<u64>().prop_map(|node| Part::Decommission { node }),
    ];
    (any::<u64>(), prop::collection::vec(part, 0..5))
        .prop_map(|(stamp, parts)| Batch { stamp: ClusterTime(stamp), parts })
}

fn outcomes() -> impl Strategy<Value = Vec<PartOutcome>> {
    let limit = (any::<[u64; 3]>(), any::<bool>()).prop_map(|([remaining, reset_ns, retry_ns], exceeded)| LimitState {
        remaining,
        reset_ns,
        retry_ns,
        exceeded,
    });
    let decision = (any::<bool>(), prop::collection::vec(limit, 0..4))
        .prop_map(|(admitted, limits)| Outcome::Decided(Decision { admitted, limits: limits.into() }));
    let outcome = prop_oneof![
        4 => decision,
        1 => Just(Outcome::Rematch),
        1 => Just(Outcome::Reset),
        1 => any::<u32>().prop_map(|id| Outcome::CountersFull(PolicyId(id))),
        1 => any::<u64>().prop_map(|revision| Outcome::Policies(PolicyOutcome::Applied { revision })),
        1 => any::<u128>().prop_map(|id| Outcome::Bucket(BucketOutcome::Created(BucketId(id)))),
        1 => "[a-z]{0,9}".prop_map(|name| Outcome::Bucket(BucketOutcome::Found(name))),
        1 => Just(Outcome::Policies(PolicyOutcome::Conflict(PolicyConflict::OwnedBy(policy_name("p"), Owner::Api)))),
    ];
    let part = prop_oneof![
        4 => prop::collection::vec(outcome, 0..5).prop_map(|outcomes| PartOutcome::Applied(Arc::new(outcomes))),
        1 => Just(PartOutcome::Done),
        1 => Just(PartOutcome::UnknownSession),
        1 => Just(PartOutcome::SequenceTooOld),
        1 => any::<[u64; 2]>().prop_map(|[boot, name]| PartOutcome::OlderDisk { latest: Run { boot, name } }),
        1 => prop::sample::select(&[Leaving::Intended, Leaving::Left, Leaving::Unknown, Leaving::Last]).prop_map(PartOutcome::Leaving),
    ];
    prop::collection::vec(part, 0..5)
}

proptest! {
    #[test]
    fn batch_decoded_equals_encoded(batch in batches()) {
        let bytes = batch.encode();
        prop_assert_eq!(Batch::peek_stamp(&bytes), Some(batch.stamp));
        prop_assert_eq!(Batch::decode(&bytes), Ok(batch));
    }

    #[test]
    fn outcomes_decoded_equal_encoded(outcomes in outcomes()) {
        prop_assert_eq!(decode_outcomes(&encode_outcomes(&outcomes)), Ok(outcomes));
    }

    #[test]
    fn every_cut_and_every_trailing_byte_is_refused(batch in batches(), outcomes in outcomes()) {
        let (batch, outcomes) = (batch.encode(), encode_outcomes(&outcomes));
        for length in 0..batch.len() {
            prop_assert!(Batch::decode(&batch[..length]).is_err());
        }
        for length in 0..outcomes.len() {
            prop_assert!(decode_outcomes(&outcomes[..length]).is_err());
        }
        let extended = Batch::decode(&[batch, vec![0, 0]].concat());
        prop_assert_eq!(extended, Err(CodecError::Trailing { what: "batch", extra: 2 }));
    }

    #[test]
    fn any_bytes_are_survived(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        bytes.insert(0, VERSION);
        let _ = (Batch::decode(&bytes), decode_outcomes(&bytes), Batch::peek_stamp(&bytes));
    }

    #[test]
    fn damaged_bytes_are_survived(batch in batches(), place in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = batch.encode();
        let place = place.index(bytes.len());
        bytes[place] = byte;
        let _ = (Batch::decode(&bytes), Batch::peek_stamp(&bytes));
    }
}

#[test]
fn unknown_version_refused_by_name() {
    let mut bytes = Batch::default().encode();
    bytes[0] = 7;
    assert_eq!(Batch::peek_stamp(&bytes), None);
    let error = Batch::decode(&bytes).unwrap_err();
    assert_eq!(error, CodecError::Version { what: "batch", found: 7 });
    assert_eq!(error.to_string(), "a batch of version 7, this release reads version 1; run the release that wrote it");
    assert_eq!(decode_outcomes(&[7]), Err(CodecError::Version { what: "list of outcomes", found: 7 }));
}

#[test]
fn nothing_refused() {
    assert_eq!(Batch::decode(&[]), Err(CodecError::Empty("batch")));
    assert_eq!(Batch::peek_stamp(&[]), None);
    assert_eq!(Batch::peek_stamp(&[VERSION]), None);
}

/// Counts that promise far more than the bytes hold. With room made for what they promise, these would not return.
#[test]
fn enormous_counts_allocate_nothing() {
    let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    // Version, stamp 0, then the number of parts; and one part of commands with the number of commands.
    let parts = [&[VERSION, 0][..], &huge].concat();
    let commands = [&[VERSION, 0, 1, 1, 7, 1][..], &huge].concat();
    // One decision of revision 1 with the number of charges; one charge with the number of counters.
    let charges = [&[VERSION, 0, 1, 1, 7, 1, 1, 0, 1][..], &huge].concat();
    let counters = [&[VERSION, 0, 1, 1, 7, 1, 1, 0, 1, 1, 3, 0, 2][..], &huge].concat();
    let outcomes = [&[VERSION][..], &huge].concat();
    for bytes in [parts, commands, charges, counters] {
        assert!(matches!(Batch::decode(&bytes), Err(CodecError::Malformed { .. })), "{bytes:?}");
    }
    assert!(matches!(decode_outcomes(&outcomes), Err(CodecError::Malformed { .. })));
}

/// The layout on disk and on the wire. A change here needs a new version and a feature level.
#[test]
fn layout_of_version_1() {
    let charge = Charge {
        policy: PolicyId(3),
        overridden: Some(2),
        hits: -1,
        counters: [CounterId([0xab; 16])].into_iter().collect(),
        given: Some(GivenLimit { hits: 7, window_ns: 8 }),
    };
    let commands = Arc::new(vec![Command::Decide { revision: 300, charges: vec![charge].into() }]);
    let batch = Batch {
        stamp: ClusterTime(1),
        parts: vec![Part::Commands { session: SessionId(5), sequence: 6, commands }, Part::RaiseFeatureLevel(9)],
    };
    let start = [1, 1, 2, 1, 5, 6, 1, 0, 0xac, 0x02, 1, 3, 1, 2, 1, 1, 16];
    assert_eq!(batch.encode(), [&start[..], &[0xab; 16], &[1, 7, 8, 3, 9]].concat());
}
