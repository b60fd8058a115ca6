//! Objects as anybody writes and reads them: JSON. No type of the product is used, so that a changed word fails a test.

use serde_json::{Value, json};

/// `apiVersion` of the project's resources.
pub const API_VERSION: &str = "quorate.dev/v1alpha1";
/// The version of everything that was built.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The port of a limiter, and of its Service.
pub const HTTP_PORT: u16 = 8080;

/// The tag under which the same limiter is loaded once more, to be upgraded to: the next patch.
///
/// # Panics
/// The version does not end in a number.
#[must_use]
pub fn next_version() -> String {
    let (minor, patch) = VERSION.rsplit_once('.').expect("three numbers");
    format!("{minor}.{}", patch.parse::<u64>().expect("a number") + 1)
}

/// A `RateLimitCluster` of so many limiters, whose claims go with it.
#[must_use]
pub fn cluster(name: &str, replicas: usize) -> Value {
    json!({
        "apiVersion": API_VERSION,
        "kind": "RateLimitCluster",
        "metadata": {"name": name},
        "spec": {
            "version": VERSION,
            "replicas": replicas,
            "storage": {"retention": {"onDelete": "Delete"}},
            // Nine limiters share two cores.
            "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
        },
    })
}

/// A `QuotaPolicy` of one limit, `only`, which counts for each client by itself those whose id starts with `prefix`.
#[must_use]
pub fn policy(name: &str, cluster: &str, prefix: &str, limit: u64, window: &str) -> Value {
    json!({
        "apiVersion": API_VERSION,
        "kind": "QuotaPolicy",
        "metadata": {"name": name},
        "spec": {
            "clusterRef": {"name": cluster},
            "match": [{"key": "client_id", "prefix": prefix}],
            "limits": [{"name": "only", "algorithm": "FixedWindow", "limit": limit, "window": window}],
        },
    })
}

/// A condition of an object: status, reason and message. `None` unless it is about the object's present generation.
#[must_use]
pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let condition = object["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)?;
    let about = condition["observedGeneration"].as_i64().unwrap_or(i64::MAX);
    (about >= object["metadata"]["generation"].as_i64().unwrap_or_default()).then_some(())?;
    Some((
        condition["status"].as_str()?,
        condition["reason"].as_str()?,
        condition["message"].as_str().unwrap_or_default(),
    ))
}

/// `Ok` once a condition has a status, else how it stands.
///
/// # Errors
/// It has another, or is not there.
pub fn has_condition(object: &Value, kind: &str, status: &str) -> Result<(), String> {
    match condition(object, kind) {
        Some((is, ..)) if is == status => Ok(()),
        _ => Err(format!("{kind} is not {status}; status: {}", object["status"])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn condition_of_an_older_generation_does_not_count() {
        let mut object = json!({
            "metadata": {"generation": 2},
            "status": {"conditions": [{"type": "Ready", "status": "True", "reason": "R", "observedGeneration": 2}]},
        });
        assert_eq!(condition(&object, "Ready"), Some(("True", "R", "")));
        assert!(has_condition(&object, "Ready", "False").is_err());
        object["metadata"]["generation"] = 3.into();
        assert_eq!(condition(&object, "Ready"), None);
    }
}
