//! Installing, as the README and the manifests have it.

use std::time::{Duration, Instant};

use quorate_tests::cluster::figure;
use quorate_tests::kubernetes::lab::{INSTALL, Lab};
use quorate_tests::kubernetes::readme;

pub async fn readme_typed_word_for_word_serves_from_a_pod_through_the_service(lab: &Lab) {
    // On a cluster that somebody works on, it may be there already.
    let _ = lab.type_in("helm uninstall quorate --namespace quorate-system --wait");
    let mut applied = None;
    let mut first_decision = None;
    for command in readme::commands(&lab.file("README.md"), INSTALL) {
        println!("$ {command}");
        if command.contains("cluster.yaml") {
            applied = Some(Instant::now());
        }
        let said = lab.type_in(&command).unwrap_or_else(|error| panic!("{error}"));
        println!("{}", said.trim_end());
        if command.contains("/rate/increment") {
            assert!(said.contains(r#"{"result":true}"#), "{command}: {said}");
            first_decision = Some(applied.expect("a cluster is applied before it is asked").elapsed());
        }
    }
    let took = first_decision.expect("the README asks for a decision");
    figure(&format!("README typed word for word: {:.1} s from apply to the first decision", took.as_secs_f64()));
    assert!(took < Duration::from_secs(60), "{took:?}");
}
