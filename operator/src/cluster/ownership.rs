//! Whose an object is that has a name of this cluster's. What is another's is never touched.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use quorate_crds::cluster::CLUSTER_KIND;
use quorate_crds::quota_policy::API_VERSION;

use super::validate::Wanted;

/// Whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// This cluster controls it.
    Ours,
    /// Nobody controls it and it has all the labels that the operator gives, as after `kubectl delete --cascade=orphan`.
    /// Not adopted: where owner references are checked, whoever sets one must be allowed to delete the object, and the
    /// operator is not.
    Orphan,
    /// A cluster of this name controlled it that was deleted since, so Kubernetes is about to delete it.
    Predecessor,
    /// Anybody else's.
    Foreign,
}

/// An object that stands where one of this cluster's should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InTheWay {
    /// Its kind, namespace and name: `Service shop/edge`.
    pub what: String,
    /// Anything but [`Whose::Ours`].
    pub whose: Whose,
}

/// Whose the object is.
#[must_use]
pub fn whose(wanted: &Wanted, metadata: &ObjectMeta) -> Whose {
    let mut owners = metadata.owner_references.iter().flatten();
    match owners.find(|owner| owner.controller == Some(true)) {
        Some(owner) if owner.uid == wanted.uid => Whose::Ours,
        Some(owner)
            if (owner.api_version.as_str(), owner.kind.as_str()) == (API_VERSION, CLUSTER_KIND)
                && owner.name == wanted.names.cluster() =>
        {
            Whose::Predecessor
        }
        Some(_) => Whose::Foreign,
        None => {
            let labels = metadata.labels.as_ref();
            let has = |(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value);
            if wanted.names.labels().iter().all(has) { Whose::Orphan } else { Whose::Foreign }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::validate::validate;

    fn is(metadata: &Value) -> Whose {
        let cluster = json!({
            "apiVersion": API_VERSION, "kind": CLUSTER_KIND,
            "metadata": {"name": "edge", "namespace": "shop", "uid": "u"}, "spec": {"version": "0.1.0"},
        });
        let wanted = validate(&serde_json::from_value(cluster).unwrap()).unwrap();
        whose(&wanted, &serde_json::from_value(metadata.clone()).unwrap())
    }

    fn owned(kind: &str, name: &str, uid: &str, controls: bool) -> Value {
        json!([{"apiVersion": API_VERSION, "kind": kind, "name": name, "uid": uid, "controller": controls}])
    }

    #[test]
    fn object_belongs_to_who_controls_it() {
        for (expected, owners) in [
            (Whose::Ours, owned(CLUSTER_KIND, "edge", "u", true)),
            (Whose::Predecessor, owned(CLUSTER_KIND, "edge", "v", true)),
            (Whose::Foreign, owned(CLUSTER_KIND, "other", "v", true)),
            (Whose::Foreign, owned("Application", "edge", "v", true)),
            (Whose::Foreign, owned(CLUSTER_KIND, "edge", "u", false)),
            (Whose::Foreign, json!([])),
        ] {
            assert_eq!(is(&json!({"name": "edge", "ownerReferences": owners})), expected, "{owners}");
        }
    }

    #[test]
    fn object_that_nobody_controls_is_an_orphan_by_all_its_labels() {
        let labels = Value::from_iter(crate::cluster::Names::new("edge").labels());
        assert_eq!(is(&json!({"name": "edge", "labels": labels})), Whose::Orphan);
        let taken = json!({"name": "edge", "labels": labels, "ownerReferences": owned("Application", "a", "v", true)});
        assert_eq!(is(&taken), Whose::Foreign);
        for label in ["app.kubernetes.io/instance", "app.kubernetes.io/managed-by"] {
            let mut other = labels.clone();
            other[label] = "other".into();
            assert_eq!(is(&json!({"name": "edge", "labels": other})), Whose::Foreign, "{label}");
        }
    }
}
