//! What a limit is: policies, the algorithms that count, and the replicated state machine that decides.
//!
//! This crate is pure. It does no I/O, spawns nothing, reads no clock and draws no random number: time comes in with
//! every batch ([`ClusterTime`]), and whoever applies the same batches in the same order gets the same bytes
//! ([`StateMachine::freeze`]). It knows nothing of networks, consensus or Kubernetes.
//!
//! A request goes through it in three steps: [`Rules::match_request`] finds the policies that apply and names the
//! counters, a [`Command`] carries those names through the log, [`StateMachine::apply`] decides.

pub mod command;
pub mod policy;
pub mod request;
pub mod time;

pub use command::{
    Batch, Charge, Command, CounterId, Decision, LimitState, Outcome, Part, PartOutcome, PolicyChange, PolicyConflict,
    PolicyOutcome, Sequence, SessionId,
};
pub use policy::{
    Algorithm, Enforcement, KeyMatch, Limit, OnUnavailable, Override, Owner, Policy, PolicyId, PolicyName, ValueMatch,
};
pub use request::{Descriptor, Request};
pub use time::ClusterTime;
