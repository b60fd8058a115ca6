//! A limiter node.
//!
//! Data flows one way: a door ([`doors`]) turns a wire request into a `Request`, the rules of the replicated state
//! say which policies apply, [`admission`] gets a decision through [`consensus`], the door words it. [`gossip`] finds
//! the other nodes; it never decides who votes.
//!
//! Everything below the doors is generic over a [`Platform`](platform::Platform) and reaches network and disk only
//! through the traits of [`transport`], [`gossip`] and [`storage`], so that the simulator runs this very code.

pub mod admission;
#[cfg(feature = "deliberate-bugs")]
pub mod bugs;
pub mod cli;
pub mod config;
pub mod consensus;
pub mod doors;
pub mod gossip;
pub mod metrics;
pub mod node;
pub mod parsers;
pub mod platform;
#[cfg(feature = "deliberate-bugs")]
pub mod probe;
pub mod storage;
mod sync;
pub mod telemetry;
pub mod transport;
