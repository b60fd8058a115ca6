//! The messages of Envoy's API that are spoken here, made of `proto` by the build script.
#![allow(clippy::all, clippy::pedantic, missing_docs, reason = "generated")]

include!(concat!(env!("OUT_DIR"), "/messages.rs"));

/// What they are, for clients that ask by reflection.
pub(super) const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
