//! What a limit is: policies, the algorithms that count, and the replicated state machine that decides.
//!
//! This crate is pure. It does no I/O, spawns nothing, reads no clock and draws no random number: time comes in with
//! every batch ([`ClusterTime`]), and whoever applies the same batches in the same order gets the same bytes
//! ([`StateMachine::freeze`]). It knows nothing of networks, consensus or Kubernetes.
//!
//! A request goes through it in three steps: [`Rules::match_request`] finds the policies that apply and names the
//! counters, a [`Command`] carries those names through the log, [`StateMachine::apply`] decides.

#![deny(clippy::float_arithmetic)]

pub mod algorithm;
pub mod autopilot;
pub mod buckets;
#[cfg(feature = "deliberate-bugs")]
pub mod bugs;
pub mod codec;
pub mod command;
mod conditions;
mod counters;
mod decide;
mod few;
#[cfg(test)]
mod forerunner_a;
pub mod machine;
pub mod matcher;
pub mod members;
pub mod policy;
mod policy_table;
pub mod request;
pub mod sessions;
mod settings;
mod shard;
pub mod snapshot;
#[cfg(test)]
mod testing;
pub mod time;

pub use buckets::{BUCKET_NAME_BYTES_MAX, BUCKETS_MAX, BucketCommand, BucketId, BucketOutcome, Buckets};
pub use codec::{CodecError, decode_outcomes, encode_outcomes};
pub use command::{
    Batch, Charge, Command, CounterId, Decision, LimitState, Outcome, Part, PartOutcome, PolicyChange, PolicyConflict,
    PolicyOutcome, Run, Sequence, SessionId,
};
pub use few::Few;
pub use machine::StateMachine;
pub use matcher::{Matched, Rules};
pub use members::{Leaving, Members};
pub use policy::{
    Algorithm, Enforcement, KeyMatch, Limit, OnUnavailable, Override, Owner, Policy, PolicyId, PolicyName, ValueMatch,
};
pub use request::{Descriptor, GivenLimit, Request};
pub use settings::Settings;
pub use snapshot::{Decoder, Frozen, SnapshotError};
pub use time::ClusterTime;
