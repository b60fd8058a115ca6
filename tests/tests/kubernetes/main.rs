//! The operator on a real Kubernetes of three nodes, from the README's first command on. One file for each matter.
//!
//! `tests/kubernetes/scenarios` runs them, or those whose names contain its word, on the cluster that
//! `tests/kubernetes/up` has started; `make test-kubernetes` does all of it. They run one after another, in this order. On
//! somebody else's cluster those are left out, by name, that need what only ours has.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::time::Instant;

use libtest_mimic::{Arguments, Failed, Trial};
use quorate_tests::cluster::figure;
use quorate_tests::kubernetes::lab::Lab;
use tokio::runtime::Runtime;

mod admission;
mod delete;
mod install;
mod losses;
mod metrics;
mod others;
mod policies;
mod rights;
mod scale;
mod stops;

struct Scenario {
    name: &'static str,
    /// What only the cluster of machines has.
    needs: &'static [&'static str],
    play: fn(&'static Lab) -> Pin<Box<dyn Future<Output = ()>>>,
}

macro_rules! scenarios {
    ($($module:ident::$scenario:ident $(needs $what:literal)?,)*) => {
        [$(Scenario {
            name: concat!(stringify!($module), "::", stringify!($scenario)),
            needs: &[$($what)?],
            play: |lab| Box::pin($module::$scenario(lab)),
        }),*]
    };
}

const SCENARIOS: &[Scenario] = &scenarios![
    install::readme_typed_word_for_word_serves_from_a_pod_through_the_service,
    install::everything_in_every_form_passes_the_api_servers_own_checks,
    install::operator_of_one_namespace_needs_rights_in_that_one_alone,
    install::operator_upgraded_uninstalled_and_applied_as_plain_yaml_restarts_no_limiter,
    scale::three_to_five_to_three_under_load_disturbs_nobody,
    scale::three_to_one_to_three_under_load_disturbs_nobody,
    scale::version_without_an_image_stops_at_one_pod_and_is_taken_back,
    scale::new_version_under_load_disturbs_nobody_and_takes_the_leader_last,
    scale::statefulset_scaled_by_hand_is_put_right,
    losses::pods_processes_and_nodes_lost_leave_quorum_and_counters needs "to kill processes on nodes, and to drain nodes",
    losses::claim_and_pod_of_each_ordinal_deleted_are_replaced_in_place_under_a_new_id,
    losses::operator_away_leaves_decisions_alone_and_goes_on_when_it_is_back,
    losses::of_two_operators_the_other_acts_once_the_first_is_deleted_or_killed needs "to kill processes on nodes",
    losses::cluster_created_again_over_its_claims_has_its_counters,
    stops::operator_that_ends_at_its_writes_brings_about_the_same,
    policies::policy_created_changed_and_deleted_is_in_force_within_a_second,
    policies::policies_of_other_namespaces_are_admitted_or_refused_as_the_cluster_says,
    policies::policy_changed_behind_the_operators_back_is_put_right,
    policies::operator_started_anew_pushes_and_writes_nothing_when_nothing_changed,
    policies::two_thousand_policies_on_one_cluster_are_all_in_force needs "the API server's audit log",
    admission::specs_are_admitted_and_refused_in_the_words_of_their_tables,
    admission::wrong_specs_are_refused_as_people_apply_them,
    admission::policy_that_only_a_newer_operator_can_read_says_so_and_loses_nothing,
    others::service_of_somebody_else_is_left_alone_and_the_cluster_waits_until_it_goes,
    others::orphaned_cluster_serves_on_and_is_handed_over_as_the_docs_say,
    metrics::servicemonitor_selects_the_service_that_has_the_operators_metrics,
    delete::cluster_deleted_takes_all_along_but_claims_that_are_to_stay,
    delete::namespace_with_cluster_and_policies_is_gone_within_a_minute,
    delete::namespace_is_gone_within_a_minute_without_an_operator_too,
    // Last: what all others have not made use of is too much.
    rights::operator_is_allowed_nothing_that_it_does_not_do needs "the API server's audit log",
];

fn main() {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    if arguments.list {
        libtest_mimic::run(&arguments, SCENARIOS.iter().map(|it| Trial::test(it.name, || Ok(()))).collect()).exit();
    }
    // They live as long as the program.
    let runtime: &Runtime = Box::leak(Box::new(Runtime::new().expect("threads")));
    let lab: &Lab = Box::leak(Box::new(runtime.block_on(Lab::connect())));
    let trials = SCENARIOS.iter().map(|scenario| {
        let left_out = !lab.is_own && !scenario.needs.is_empty();
        if left_out {
            println!("left out: {}: it needs {}", scenario.name, scenario.needs.join(", "));
        }
        Trial::test(scenario.name, || run(runtime, lab, scenario)).with_ignored_flag(left_out)
    });
    libtest_mimic::run(&arguments, trials.collect()).exit();
}

fn run(runtime: &Runtime, lab: &'static Lab, scenario: &Scenario) -> Result<(), Failed> {
    let started = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(async {
            lab.offer_volumes().await;
            (scenario.play)(lab).await;
            lab.assert_allowed();
        });
    }));
    if outcome.is_err() {
        lab.describe();
        lab.forgive();
    }
    lab.clear_away();
    figure(&format!("{}: {:.0} s in all", scenario.name, started.elapsed().as_secs_f64()));
    // The panic has been printed where it was.
    outcome.map_err(|_| Failed::without_message())
}
