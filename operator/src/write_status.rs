//! Reads and writes the status of an object, whichever controller it is told by.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::error::Error;

/// The status of an object whose spec cannot be read; empty if that cannot be read either.
///
/// # Errors
/// The API server refused, or could not be asked.
pub async fn status_alone<K, S>(client: &Client, namespace: &str, name: &str) -> Result<S, Error>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    S: DeserializeOwned + Default,
{
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &ApiResource::erase::<K>(&()));
    let found = api.get(name).await;
    let found = found.map_err(Error::api(format!("reading {} {namespace}/{name}", K::kind(&()))))?;
    Ok(serde_json::from_value(found.data["status"].clone()).unwrap_or_default())
}

/// Makes the fields of the object's status that `manager` owns what `status` says, and returns the object as it is then.
/// The object is the one with the uid of `metadata`: one that was created under its name meanwhile is not meant.
///
/// # Errors
/// The API server refused, or could not be asked.
pub async fn write_status<K>(
    client: &Client,
    manager: &str,
    metadata: &ObjectMeta,
    status: &impl Serialize,
) -> Result<K, Error>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    let name = metadata.name.as_deref().unwrap_or_default();
    let kind = K::kind(&());
    let object = json!({
        "apiVersion": K::api_version(&()),
        "kind": kind,
        "metadata": { "name": name, "namespace": namespace, "uid": metadata.uid },
        "status": status,
    });
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let params = PatchParams::apply(manager).force();
    let written = api.patch_status(name, &params, &Patch::Apply(&object)).await;
    written.map_err(Error::api(format!("writing the status of {kind} {namespace}/{name}")))
}
