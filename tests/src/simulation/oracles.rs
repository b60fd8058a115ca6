//! What a run must keep, whatever breaks.
//!
//! The [`ledger`] watches every step of every state machine and holds it against slow and obvious [`mod@reference`]
//! counters, and cluster [`time`] against true time; the [`witness`] holds what clients were told against the ledger, [`names`] those of buckets.

pub mod ledger;
pub mod names;
pub mod reference;
pub mod time;
pub mod witness;
