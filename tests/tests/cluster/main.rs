//! Tests of the built product: local clusters of real processes, spoken to over the network.
//!
//! One program for all of them, so that it is linked once and its tests agree on who has the machine to itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod authorize;
mod bad_input;
mod bad_settings;
mod disks;
mod drain;
mod envoy_rls;
mod exactness;
mod failover;
mod forerunner_a;
mod forerunner_b;
mod founding;
mod gateways;
mod members;
mod operator_client;
mod policies;
mod readme;
mod stopped;
mod windows;
