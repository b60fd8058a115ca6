//! The `ConfigMap` of the founding. It is created, never applied: whoever creates it first has founded.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use quorate_crds::api::HexId;
use serde_json::Value;

use super::owned;
use crate::cluster::names::{FOUNDING_ADOPTED_KEY, FOUNDING_MEMBERS_KEY};
use crate::cluster::observed::Founding;
use crate::cluster::validate::Wanted;

/// Says how the cluster is founded. One that could not be read back has nothing to say.
#[must_use]
pub fn founding(wanted: &Wanted, how: &Founding) -> ConfigMap {
    let data = match how {
        Founding::With(members) => {
            let members: BTreeMap<&str, Value> =
                members.iter().map(|(id, pod)| (pod.as_str(), HexId(*id).to_string().into())).collect();
            BTreeMap::from([(FOUNDING_MEMBERS_KEY.to_owned(), serde_json::json!(members).to_string())])
        }
        Founding::Adopted(cluster) => BTreeMap::from([(FOUNDING_ADOPTED_KEY.to_owned(), cluster.clone())]),
        Founding::Unreadable => BTreeMap::new(),
    };
    ConfigMap {
        metadata: owned(wanted, wanted.names.founding()),
        data: Some(data),
        immutable: Some(true),
        binary_data: None,
    }
}
