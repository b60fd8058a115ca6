//! What may be applied: the tables of `crds/tests/admission`, judged by a real API server.

use hyper::{Method, Request};
use kube::api::DeleteParams;
use quorate_tests::client::Client;
use quorate_tests::cluster::{eventually, figure};
use quorate_tests::kubernetes::lab::{Lab, PATIENCE};
use quorate_tests::kubernetes::objects::{API_VERSION, policy};
use quorate_tests::kubernetes::space::Space;
use serde_json::{Value, json};

use case::Case;

#[path = "../../../crds/tests/admission/case.rs"]
mod case;

pub async fn specs_are_admitted_and_refused_in_the_words_of_their_tables(lab: &Lab) {
    lab.install_operator().await;
    let space = lab.space("admission").await;
    let (mut admitted, mut refused, mut wrong) = (0, 0, vec![]);
    for (kind, plural) in [("QuotaPolicy", "quotapolicies"), ("RateLimitCluster", "ratelimitclusters")] {
        let table = std::fs::read_to_string(lab.file(&format!("crds/tests/admission/{plural}.yaml"))).unwrap();
        for case in &Case::all(&table) {
            let said = judged(&space, kind, plural, case).await;
            match (&case.refused, &said) {
                (None, Ok(())) => admitted += 1,
                (Some(words), Err(said)) if said.contains(words.as_str()) => refused += 1,
                (expected, said) => wrong.push(format!("{kind} {}: {said:?}, the table says {expected:?}", case.name)),
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    figure(&format!("specs judged by the API server: {admitted} admitted, {refused} refused in the table's words"));
}

/// What the API server says of a spec, and nothing is changed by it.
async fn judged(space: &Space<'_>, kind: &str, plural: &str, case: &Case) -> Result<(), String> {
    let name = case.object_name();
    let mut object = case.object(kind, space.name(), &case.spec);
    let collection = format!("/apis/{API_VERSION}/namespaces/{}/{plural}", space.name());
    let trial = "dryRun=All&fieldValidation=Strict";
    let Some(old) = &case.old else {
        return asked(space, Method::POST, &format!("{collection}?{trial}"), &object).await.map(drop);
    };
    // One that is paused is brought nowhere by the operator.
    object["spec"]["paused"] = true.into();
    let mut before = case.object(kind, space.name(), old);
    before["spec"]["paused"] = true.into();
    let there = asked(space, Method::POST, &collection, &before).await?;
    object["metadata"]["resourceVersion"] = there["metadata"]["resourceVersion"].clone();
    let mut said = asked(space, Method::PUT, &format!("{collection}/{name}?{trial}"), &object).await;
    // The operator may have told of it meanwhile.
    while said.as_ref().is_err_and(|said| said.contains("the object has been modified")) {
        let there = space.get(kind, name).await.expect("it is there");
        object["metadata"]["resourceVersion"] = there["metadata"]["resourceVersion"].clone();
        said = asked(space, Method::PUT, &format!("{collection}/{name}?{trial}"), &object).await;
    }
    space.resources(kind).delete(name, &DeleteParams::default()).await.map_err(|error| error.to_string())?;
    said.map(drop)
}

async fn asked(space: &Space<'_>, method: Method, path: &str, body: &Value) -> Result<Value, String> {
    let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    let request = request.body(serde_json::to_vec(body).unwrap()).unwrap();
    space.lab.client.request(request).await.map_err(|error| error.to_string())
}

pub async fn wrong_specs_are_refused_as_people_apply_them(lab: &Lab) {
    lab.install_operator().await;
    let space = lab.space("wrong").await;
    let good = policy("wrong", "edge", "w-", 10, "1h");
    let mut unknown_field = good.clone();
    unknown_field["spec"]["limits"][0]["limits"] = 3.into();
    let error = space.try_apply(&unknown_field).await.expect_err("there is no such field");
    assert!(error.contains("limits: field not declared in schema"), "{error}");
    let mut twice = good.clone();
    let first = twice["spec"]["limits"][0].clone();
    twice["spec"]["limits"].as_array_mut().unwrap().push(first);
    for words in ["create", "apply --server-side"] {
        let typed = format!("--namespace {} {words} --filename -", space.name());
        let error = lab.try_kubectl(&typed, &twice.to_string()).expect_err("a name is there twice");
        assert!(error.contains("Duplicate value") || error.contains("duplicate entries for key"), "{error}");
    }
}

pub async fn policy_that_only_a_newer_operator_can_read_says_so_and_loses_nothing(lab: &Lab) {
    let space = lab.three("unreadable", "known", 10, PATIENCE).await;
    // The definition of a version to come.
    let values = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/onUnavailable/enum";
    let patch = |change: Value| {
        lab.kubectl(&format!("patch crd quotapolicies.quorate.dev --type json --patch {}", json!([change])));
    };
    patch(json!({"op": "add", "path": format!("{values}/-"), "value": "Guess"}));
    let mut newer = policy("known", "edge", "known", 10, "24h");
    newer["spec"]["onUnavailable"] = "Guess".into();
    eventually(PATIENCE, "the API server to know the definition", async || space.try_apply(&newer).await).await;
    let known = ("QuotaPolicy", "known");
    let message = space.until_reason(PATIENCE, known, "Accepted", ("False", "Invalid")).await;
    patch(json!({"op": "remove", "path": format!("{values}/2")}));
    println!("{message}");
    assert!(message.contains("Guess") && message.contains("upgrade the operator"), "{message}");
    let mut client = Client::new(space.service("edge").await);
    let left = client.check("known-client").await.unwrap().remaining_quota;
    assert_eq!(left, Some(10), "what the cluster held of it stays in force");
    space.apply(&policy("known", "edge", "known", 12, "24h")).await;
    space.until_condition(PATIENCE, ("QuotaPolicy", "known"), "Enforced", "True").await;
    assert_eq!(client.check("known-client").await.unwrap().remaining_quota, Some(12));
}
