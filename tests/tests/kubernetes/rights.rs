//! What the operator is allowed to do.

use quorate_tests::cluster::figure;
use quorate_tests::kubernetes::lab::Lab;

pub async fn operator_is_allowed_nothing_that_it_does_not_do(lab: &Lab) {
    let unused = lab.unused_rights().await;
    figure(&format!("rights of the operator that no scenario needed: {}", unused.len()));
    assert!(unused.is_empty(), "no scenario needed these: {unused:#?}");
}
