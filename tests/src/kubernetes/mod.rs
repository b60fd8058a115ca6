//! The operator on a real Kubernetes: what its scenarios share. The scenarios themselves are in `tests/tests/kubernetes`.
//!
//! Nothing is started here. `tests/kubernetes/scenarios` loads the images and runs the scenarios, one after another on one
//! cluster, each in namespaces of its own. A [`lab::Lab`] is that cluster, a [`space::Space`] one such namespace,
//! [`clients::Clients`] put load on limiters, [`rights::Rights`] watches what the operator may do and does.

pub mod clients;
pub mod lab;
pub mod objects;
pub mod rights;
pub mod space;
pub mod stop_at_write;
pub mod watcher;
