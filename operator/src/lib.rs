//! The operator: what a `RateLimitCluster` asks for, and how to come there one step at a time.
//!
//! So far its pure stages, which speak to nobody: [`cluster`] says what is wanted, what was seen, what to do next and what
//! the objects look like. Whoever reads and writes an API server stands before and behind them.

pub mod cluster;
