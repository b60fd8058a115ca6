//! Whole-system tests: what they share.
//!
//! [`cluster`] runs local clusters of the product's processes, [`client`] and [`grpc`] talk to them, [`load`] puts load on them.
//! [`programs`] runs what people put before a limiter. [`mod@bench`] measures. [`dns`] is a name server whose answers a test changes, [`netns`] a network whose links it breaks.
//! [`mod@readme`] is what the README tells people to type. [`kubernetes`] is a Kubernetes with the operator on it. The tests themselves are in `tests/`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "all of this crate is test code, which panics to fail a test"
)]

pub mod bench;
pub mod client;
pub mod cluster;
pub mod dns;
pub mod grpc;
pub mod kubernetes;
pub mod load;
pub mod netns;
pub mod programs;
pub mod readme;
pub mod simulation;
pub mod storage_suite;
mod sync;
