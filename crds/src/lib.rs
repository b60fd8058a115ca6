//! What people and programs write to Quorate: the resources [`QuotaPolicy`] and [`RateLimitCluster`], a policy's reading
//! from files and bodies, the words for their conditions ([`Reason`]), and the shapes of the node's HTTP API ([`api`]).
//!
//! Everything read here is parsed, never merely validated: what comes out is a [`quorate_limits::Policy`] that holds its
//! own rules. Errors name the field and say what to do. The crate speaks to no network; only
//! [`files::read_directory`] touches a disk.

pub mod api;
pub mod cluster;
pub mod cluster_status;
pub mod conditions;
mod convert;
pub mod document;
pub mod duration;
pub mod error;
pub mod files;
pub mod policy_status;
pub mod quota_policy;
pub mod reason;
mod tree;

pub use cluster::{RateLimitCluster, RateLimitClusterSpec};
pub use cluster_status::RateLimitClusterStatus;
pub use document::{ParsedSet, parse_policy, parse_policy_set};
pub use duration::Duration;
pub use error::{FieldError, InvalidPolicy};
pub use files::{FileError, read_directory};
pub use policy_status::QuotaPolicyStatus;
pub use quota_policy::{QuotaPolicy, QuotaPolicySpec};
pub use reason::{ConditionStatus, ConditionType, Reason};
pub use tree::{DOCUMENTS_MAX, SET_BYTES_MAX, TEXT_BYTES_MAX};
