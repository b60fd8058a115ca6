//! What is sent to nodes.

use serde_json::{Value, json};

/// The body of a `/v1/check` with one descriptor.
#[must_use]
pub fn check_body(entries: &[(&str, &str)], hits: i64) -> Value {
    let entries: Vec<_> = entries.iter().map(|(key, value)| json!({"key": key, "value": value})).collect();
    json!({"descriptors": [entries], "hits": hits})
}

/// A policy in the namespace `default` that counts each client by itself, for clients whose id starts with `prefix`; an empty
/// one is all of them.
#[must_use]
pub fn policy(name: &str, prefix: &str, limits: &Value) -> Value {
    let client = match prefix {
        "" => json!({"key": "client_id", "any": true}),
        prefix => json!({"key": "client_id", "prefix": prefix}),
    };
    json!({
        "apiVersion": "quorate.dev/v1alpha1",
        "kind": "QuotaPolicy",
        "metadata": {"name": name},
        "spec": {"match": [client], "countBy": ["client_id"], "limits": limits},
    })
}

/// One limit of a policy, named `only`.
#[must_use]
pub fn limit(algorithm: &str, limit: u64, window: &str) -> Value {
    json!({"name": "only", "algorithm": algorithm, "limit": limit, "window": window})
}
