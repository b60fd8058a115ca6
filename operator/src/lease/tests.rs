//! Scenarios named `<state>_<event>_<effect>`, on an API server in memory whose time passes as it is needed.

use serde_json::{Value, json};
use tokio::spawn;

use super::*;
use crate::in_memory::{World, failure, within};

const PATH: &str = "/apis/coordination.k8s.io/v1/namespaces/shop/leases/operator";

fn elect(world: &World, me: &str) -> Election {
    Election::new(world.client(), "shop", "operator", me.to_owned())
}

fn holder(world: &World) -> Value {
    world.get(PATH).unwrap()["spec"]["holderIdentity"].clone()
}

async fn holding(world: &World, me: &str) -> Election {
    let mut election = elect(world, me);
    within("the lease", election.acquire()).await;
    election
}

fn spec(holder: &str, renewed: i64) -> LeaseSpec {
    LeaseSpec {
        holder_identity: Some(holder.to_owned()),
        lease_duration_seconds: Some(15),
        renew_time: Some(MicroTime(Timestamp::from_second(renewed).unwrap())),
        ..LeaseSpec::default()
    }
}

#[test]
fn lease_of_another_is_free_only_after_it_was_not_renewed_for_its_whole_duration() {
    let start = Instant::now();
    let after = |seconds| start + Duration::from_secs(seconds);
    // Its own times are far in the past: they do not count.
    let first = Seen::new(Some(&spec("other", 0)), None, start);
    assert_eq!(first.verdict("me", start), Verdict::Others);
    let same = Seen::new(Some(&spec("other", 0)), Some(&first), after(14));
    assert_eq!(same.verdict("me", after(14)), Verdict::Others);
    assert_eq!(same.verdict("me", after(16)), Verdict::Free);
    let renewed = Seen::new(Some(&spec("other", 1)), Some(&same), after(14));
    assert_eq!(renewed.verdict("me", after(16)), Verdict::Others);
}

#[test]
fn lease_that_nobody_holds_is_free_and_an_own_one_is_mine() {
    let now = Instant::now();
    assert_eq!(Seen::new(None, None, now).verdict("me", now), Verdict::Free);
    assert_eq!(Seen::new(Some(&spec("", 0)), None, now).verdict("me", now), Verdict::Free);
    assert_eq!(Seen::new(Some(&spec("me", 0)), None, now).verdict("me", now), Verdict::Mine);
}

#[tokio::test(start_paused = true)]
async fn lease_that_is_not_there_acquired_is_kept_as_long_as_it_is_renewed() {
    let world = World::default();
    let mut first = holding(&world, "first").await;
    assert_eq!(holder(&world), "first");
    let keeping = spawn(async move { first.keep().await });
    let mut second = elect(&world, "second");
    timeout(Duration::from_mins(5), second.acquire()).await.expect_err("the first renews it");
    assert!(!keeping.is_finished());
}

#[tokio::test(start_paused = true)]
async fn lease_held_its_holder_vanishes_and_another_takes_it_once_it_has_run_out() {
    let world = World::default();
    drop(holding(&world, "first").await);
    let started = Instant::now();
    let mut second = elect(&world, "second");
    within("the lease", second.acquire()).await;
    let waited = started.elapsed();
    assert!(waited > DURATION && waited <= DURATION + 2 * PAUSE, "{waited:?}");
    assert_eq!((holder(&world), &world.get(PATH).unwrap()["spec"]["leaseTransitions"]), ("second".into(), &2.into()));
}

#[tokio::test(start_paused = true)]
async fn lease_held_released_is_taken_at_once() {
    let world = World::default();
    let mut first = holding(&world, "first").await;
    let mut second = elect(&world, "second");
    timeout(PAUSE, second.acquire()).await.expect_err("it is held");
    let started = Instant::now();
    first.release().await;
    within("the lease", second.acquire()).await;
    assert!(started.elapsed() <= PAUSE, "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn lease_of_another_released_by_who_had_it_before_stays_with_its_holder() {
    let world = World::default();
    let mut first = holding(&world, "first").await;
    world.change(PATH, &json!({ "spec": { "holderIdentity": "second" } }));
    first.release().await;
    assert_eq!(holder(&world), "second");
}

#[tokio::test(start_paused = true)]
async fn lease_that_is_free_taken_by_two_at_once_goes_to_one() {
    let world = World::default();
    drop(holding(&world, "first").await);
    let mut second = elect(&world, "second");
    // What it read is from before the first wrote: that there was none, and then that it was free.
    world.answer_instead(&format!("GET {PATH}"), 404, failure(404, "NotFound"));
    assert_eq!(second.take_or_renew().await, Ok(Verdict::Others));
    world.change(PATH, &json!({ "spec": { "holderIdentity": "" } }));
    world.answer_instead(&format!("PUT {PATH}"), 409, failure(409, "Conflict"));
    assert_eq!(second.take_or_renew().await, Ok(Verdict::Others));
    assert_eq!(holder(&world), "");
    assert_eq!(second.take_or_renew().await, Ok(Verdict::Mine));
}

#[tokio::test(start_paused = true)]
async fn lease_held_taken_by_another_says_so_to_its_holder() {
    let world = World::default();
    let mut first = holding(&world, "first").await;
    world.change(PATH, &json!({ "spec": { "holderIdentity": "second" } }));
    let why = within("the lease to be lost", first.keep()).await;
    assert!(why.contains("second"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn lease_held_that_cannot_be_renewed_is_given_up_before_another_may_take_it() {
    // 500: each renewal is refused; 0: the API server does not answer at all.
    for status in [500, 0] {
        let world = World::default();
        let mut first = holding(&world, "first").await;
        for _ in 0..20 {
            world.answer_instead(&format!("PUT {PATH}"), status, failure(status, "InternalError"));
        }
        let started = Instant::now();
        let why = within("the lease to be lost", first.keep()).await;
        let lasted = started.elapsed();
        assert!(why.contains("was not renewed"), "{why}");
        assert!(lasted >= RENEW_WITHIN && lasted + PAUSE < DURATION, "{status}: {lasted:?}");
    }
}
