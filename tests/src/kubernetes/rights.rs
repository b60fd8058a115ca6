//! What the operator is allowed to do, and what it did: by the API server's own record of its requests.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule, Role};
use kube::{Api, Client};
use serde::Deserialize;
use serde_json::Value;

/// The namespace of the operator.
pub const NAMESPACE: &str = "quorate-system";
/// The name of its `Deployment`, `ServiceAccount` and roles.
pub const OPERATOR: &str = "quorate-operator";

/// Something that one may do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    /// The API group; empty for the first one.
    pub group: String,
    /// The resource, with its subresource: `pods/eviction`.
    pub resource: String,
    /// `get`, `list`, `watch`, `create`, …
    pub verb: String,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { group, resource, verb } = self;
        write!(f, "{verb} {resource}{}{group}", if group.is_empty() { "" } else { "." })
    }
}

/// Reads the record as it grows.
#[derive(Debug)]
pub struct Rights {
    record: PathBuf,
    offset: u64,
    rest: String,
    used: BTreeSet<Right>,
}

/// One request, as the API server records it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    verb: String,
    user: User,
    object_ref: Option<Object>,
    response_status: Option<Response>,
    #[serde(default)]
    annotations: Value,
}

#[derive(Debug, Deserialize)]
struct User {
    username: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Object {
    api_group: String,
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

#[derive(Debug, Deserialize)]
struct Response {
    #[serde(default)]
    code: u16,
    #[serde(default)]
    message: String,
}

impl Rights {
    /// Reads this record from its beginning.
    #[must_use]
    pub fn new(record: PathBuf) -> Self {
        Self { record, offset: 0, rest: String::new(), used: BTreeSet::new() }
    }

    /// Reads on. Returns what the operator asked for and was not allowed to do.
    ///
    /// # Panics
    /// The record cannot be read.
    pub fn read_on(&mut self) -> Vec<String> {
        let mut file = match std::fs::File::open(&self.record) {
            Ok(file) => file,
            // It begins with the first request.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return vec![],
            Err(error) => panic!("{}: {error}", self.record.display()),
        };
        file.seek(SeekFrom::Start(self.offset)).expect("a file");
        self.offset += file.read_to_string(&mut self.rest).expect("text") as u64;
        let end = self.rest.rfind('\n').map_or(0, |newline| newline + 1);
        let lines: String = self.rest.drain(..end).collect();
        lines.lines().filter_map(|line| self.take(&serde_json::from_str(line).expect("a request"))).collect()
    }

    /// Notes a request; says so if it was refused.
    fn take(&mut self, request: &Request) -> Option<String> {
        if request.user.username != format!("system:serviceaccount:{NAMESPACE}:{OPERATOR}") {
            return None;
        }
        let object = request.object_ref.as_ref()?;
        let resource = [object.resource.as_str(), object.subresource.as_str()].join("/");
        let right = Right {
            group: object.api_group.clone(),
            resource: resource.trim_end_matches('/').to_owned(),
            verb: request.verb.clone(),
        };
        // Nothing is made any more in a namespace on its way out, whoever asks; and whether it may own anything the API server
        // only knows some seconds after a definition was made.
        let of_the_moment = ["being terminated", "cannot find RESTMapping"];
        let refused = |response: &Response| {
            response.code == 403 && !of_the_moment.iter().any(|words| response.message.contains(words))
        };
        if request.annotations["authorization.k8s.io/decision"] == "forbid"
            || request.response_status.as_ref().is_some_and(refused)
        {
            return Some(format!("{right}, {} in {:?}", object.name, object.namespace));
        }
        // What is applied and was not there is created, which is a right of its own.
        if right.verb == "patch" && request.response_status.as_ref().is_some_and(|response| response.code == 201) {
            self.used.insert(Right { verb: "create".to_owned(), ..right.clone() });
        }
        self.used.insert(right);
        None
    }

    /// How often the operator wrote the status of one object of this resource in a namespace: of the one it wrote most.
    ///
    /// # Panics
    /// The record cannot be read.
    #[must_use]
    pub fn most_status_writes(&self, resource: &str, namespace: &str) -> usize {
        let record = std::fs::read_to_string(&self.record).unwrap_or_else(|e| panic!("{}: {e}", self.record.display()));
        let mut writes: BTreeMap<String, usize> = BTreeMap::new();
        // The last line may not be written to its end yet.
        for request in record.lines().filter_map(|line| serde_json::from_str::<Request>(line).ok()) {
            let is_written = request.response_status.is_some_and(|response| response.code < 300);
            let object = request.object_ref.filter(|object| {
                (object.resource.as_str(), object.subresource.as_str(), object.namespace.as_str())
                    == (resource, "status", namespace)
            });
            if let Some(object) = object.filter(|_| is_written) {
                *writes.entry(object.name).or_default() += 1;
            }
        }
        writes.values().copied().max().unwrap_or(0)
    }

    /// What the operator is allowed to do and has not done so far.
    ///
    /// # Panics
    /// The operator's roles cannot be read.
    pub async fn unused(&self, client: &Client) -> Vec<String> {
        let role = Api::<ClusterRole>::all(client.clone()).get(OPERATOR).await.expect("the operator's ClusterRole");
        let lease = Api::<Role>::namespaced(client.clone(), NAMESPACE).get(&format!("{OPERATOR}-lease")).await;
        let rules =
            role.rules.unwrap_or_default().into_iter().chain(lease.expect("its Role").rules.unwrap_or_default());
        let mut granted = rules.flat_map(|rule| granted(&rule)).collect::<BTreeSet<_>>();
        // Asked of the API server by itself when an object is created that blocks its owner's deletion, and not recorded.
        granted.retain(|right| right.resource != "ratelimitclusters/finalizers");
        granted.difference(&self.used).map(ToString::to_string).collect()
    }
}

fn granted(rule: &PolicyRule) -> Vec<Right> {
    let mut rights = vec![];
    for group in rule.api_groups.iter().flatten() {
        for resource in rule.resources.iter().flatten() {
            for verb in &rule.verbs {
                rights.push(Right { group: group.clone(), resource: resource.clone(), verb: verb.clone() });
            }
        }
    }
    rights
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use serde_json::json;

    use super::*;

    fn request(verb: &str, resource: &str, code: u16, decision: &str) -> String {
        let request = json!({
            "verb": verb, "user": {"username": "system:serviceaccount:quorate-system:quorate-operator"},
            "objectRef": {"resource": resource, "apiGroup": "apps", "name": "edge", "namespace": "shop"},
            "responseStatus": {"code": code}, "annotations": {"authorization.k8s.io/decision": decision},
        });
        format!("{request}\n")
    }

    #[test]
    fn what_was_refused_is_told_and_what_was_done_is_used() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let mut rights = Rights::new(file.path().to_owned());
        let (whole, part) = (request("patch", "statefulsets", 201, "allow"), request("list", "secrets", 403, "forbid"));
        file.write_all(whole.as_bytes()).unwrap();
        file.write_all(&part.as_bytes()[..20]).unwrap();
        assert!(rights.read_on().is_empty());
        file.write_all(&part.as_bytes()[20..]).unwrap();
        assert_eq!(rights.read_on(), ["list secrets.apps, edge in \"shop\""]);
        let used: Vec<_> = rights.used.iter().map(ToString::to_string).collect();
        assert_eq!(used, ["create statefulsets.apps", "patch statefulsets.apps"]);
    }
}
