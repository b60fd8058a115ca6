//! What people and programs write to Quorate: the [`QuotaPolicy`] resource with its reading from files and bodies, and
//! the shapes of the node's HTTP API ([`api`]).
//!
//! Everything read here is parsed, never merely validated: what comes out is a [`quorate_limits::Policy`] that holds its
//! own rules. Errors name the field and say what to do. The crate speaks to no network; only
//! [`files::read_directory`] touches a disk.

pub mod api;
mod convert;
pub mod document;
pub mod duration;
pub mod error;
pub mod files;
pub mod quota_policy;
mod tree;

pub use document::{parse_policy, parse_policy_set};
pub use duration::Duration;
pub use error::{FieldError, InvalidPolicy};
pub use files::{FileError, read_directory};
pub use quota_policy::{QuotaPolicy, QuotaPolicySpec};
pub use tree::{DOCUMENTS_MAX, SET_BYTES_MAX, TEXT_BYTES_MAX};
