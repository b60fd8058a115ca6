//! What is wanted: the spec, read so that nothing after it needs to doubt it. The API server has judged it already; what
//! is refused here came past its rules (an older definition, say), and shows as `InvalidSpec`.

use kube::Resource;
use quorate_crds::cluster::{CLUSTER_NAME_BYTES_MAX, PEERS_SUFFIX, REPLICAS_MAX};
use quorate_crds::{FieldError, RateLimitCluster, RateLimitClusterSpec};
use quorate_limits::autopilot::VOTERS_MAX;

use super::names::Names;

/// A cluster as it is wanted.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// The names of its objects.
    pub names: Names,
    /// Its namespace.
    pub namespace: String,
    /// The uid of its `RateLimitCluster`, which owns the objects.
    pub uid: String,
    /// Pods, 1 to 9, odd.
    pub replicas: usize,
    /// Its `RateLimitCluster` is being deleted.
    pub deleting: bool,
    /// The rest, as it was written.
    pub spec: RateLimitClusterSpec,
}

impl Wanted {
    /// Voters there should be with this many pods: the largest odd number of at most five.
    #[must_use]
    pub fn voters(&self) -> usize {
        voters_of(self.replicas)
    }
}

/// Voters there are to be with `pods` members.
#[must_use]
pub fn voters_of(pods: usize) -> usize {
    let most = pods.min(VOTERS_MAX);
    most.saturating_sub(1) / 2 * 2 + usize::from(most > 0)
}

/// Reads a resource.
///
/// # Errors
/// All that is wrong with it, by field.
pub fn validate(cluster: &RateLimitCluster) -> Result<Wanted, Vec<FieldError>> {
    let mut errors = Vec::new();
    let name = cluster.metadata.name.clone().unwrap_or_default();
    if !is_name(&name) {
        errors.push(FieldError::new(
            "metadata.name",
            format!(
                "use at most {CLUSTER_NAME_BYTES_MAX} lower case letters, digits and '-', with a letter in front and no \
                 {PEERS_SUFFIX} at the end: pods and Services are named after it"
            ),
        ));
    }
    let mut there = |path: &str, value: Option<&String>| {
        if value.is_none() {
            errors.push(FieldError::new(path, "is missing; the object was not read from an API server"));
        }
        value.cloned().unwrap_or_default()
    };
    let namespace = there("metadata.namespace", cluster.metadata.namespace.as_ref());
    let uid = there("metadata.uid", cluster.metadata.uid.as_ref());
    let given = cluster.spec.replicas;
    let replicas = usize::try_from(given).ok().filter(|n| given <= REPLICAS_MAX && n % 2 == 1);
    if replicas.is_none() {
        errors.push(FieldError::new("spec.replicas", format!("{given} is not odd, or not within 1 to {REPLICAS_MAX}")));
    }
    if cluster.spec.version.is_empty() || cluster.spec.version.contains(char::is_whitespace) {
        errors.push(FieldError::new("spec.version", "is no version; write it like 0.1.0"));
    }
    match replicas {
        Some(replicas) if errors.is_empty() => Ok(Wanted {
            names: Names::new(name),
            namespace,
            uid,
            replicas,
            deleting: cluster.meta().deletion_timestamp.is_some(),
            spec: cluster.spec.clone(),
        }),
        _ => Err(errors),
    }
}

fn is_name(text: &str) -> bool {
    text.len() <= CLUSTER_NAME_BYTES_MAX
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && !text.ends_with('-')
        && !text.ends_with(PEERS_SUFFIX)
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(metadata: &serde_json::Value, spec: &serde_json::Value) -> Result<Wanted, Vec<String>> {
        let cluster = serde_json::from_value(
            json!({"apiVersion": "quorate.dev/v1alpha1", "kind": "RateLimitCluster", "metadata": metadata, "spec": spec}),
        );
        validate(&cluster.unwrap()).map_err(|errors| errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn admitted_spec_is_wanted() {
        let metadata = json!({"name": "edge", "namespace": "shop", "uid": "u"});
        let wanted = read(&metadata, &json!({"version": "0.1.0"})).unwrap();
        assert_eq!((wanted.replicas, wanted.voters(), wanted.deleting), (3, 3, false));
        let wanted = read(
            &json!({"name": "edge", "namespace": "shop", "uid": "u", "deletionTimestamp": "2026-01-01T00:00:00Z"}),
            &json!({"version": "0.1.0", "replicas": 9}),
        )
        .unwrap();
        assert_eq!((wanted.voters(), wanted.deleting), (5, true));
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        let errors = read(&json!({"name": "0edge"}), &json!({"version": "", "replicas": 4})).unwrap_err();
        assert_eq!(errors.len(), 5, "{errors:?}");
        for (error, path) in
            errors.iter().zip(["metadata.name", "metadata.namespace", "metadata.uid", "spec.replicas", "spec.version"])
        {
            assert!(error.starts_with(path), "{error}");
        }
    }

    #[test]
    fn name_that_would_be_another_clusters_service_is_wrong() {
        let errors = |name| {
            let metadata = json!({"name": name, "namespace": "shop", "uid": "u"});
            read(&metadata, &json!({"version": "0.1.0"})).err().unwrap_or_default()
        };
        assert!(errors("edge-peers")[0].contains("no -peers at the end"));
        assert_eq!(errors("edge-peers-1"), [""; 0]);
    }

    #[test]
    fn voters_are_the_largest_odd_number_of_at_most_five() {
        assert_eq!((0..=9).map(voters_of).collect::<Vec<_>>(), [0, 1, 1, 3, 3, 5, 5, 5, 5, 5]);
    }
}
