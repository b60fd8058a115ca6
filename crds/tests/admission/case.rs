//! A row of the tables of specs, which this crate's tests and those on a real API server read: a field that they do not know
//! is a mistake in a table.

use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Case {
    pub name: String,
    pub metadata_name: Option<String>,
    pub spec: Value,
    /// The spec there was before.
    pub old: Option<Value>,
    /// Words of the API server's refusal; `None` for a spec that it admits.
    pub refused: Option<String>,
    /// Words of a limiter's refusal.
    #[allow(dead_code, reason = "an API server has no limiter")]
    pub refused_by_node: Option<String>,
    /// Why the two differ.
    #[allow(dead_code, reason = "an API server has no limiter")]
    pub because: Option<String>,
}

impl Case {
    /// The rows of a table.
    pub fn all(table: &str) -> Vec<Self> {
        serde_yaml::from_str(table).unwrap()
    }

    /// The name that the object is to have.
    pub fn object_name(&self) -> &str {
        self.metadata_name.as_deref().unwrap_or("edge")
    }

    /// The object with this spec, or the spec there was before.
    pub fn object(&self, kind: &str, namespace: &str, spec: &Value) -> Value {
        json!({
            "apiVersion": "quorate.dev/v1alpha1", "kind": kind, "spec": spec,
            "metadata": {"name": self.object_name(), "namespace": namespace},
        })
    }
}
