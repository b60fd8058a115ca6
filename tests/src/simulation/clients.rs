//! Clients: each asks one live node after another, and tells the witness what it was told.

use std::sync::Arc;
use std::time::Duration;

use quorate_limits::{BucketOutcome, CounterId, Owner, PolicyChange, PolicyOutcome, Request};
use quorate_node::admission::{Consistency, Unavailable, Verdict};
use quorate_node::platform::Platform as _;

use super::oracles::names;
use super::oracles::witness::{Standing, Ticket};
use super::run::Run;
use super::workload::{self, Key, Kind};
use super::world::Running;
use super::{Sim, chance};

/// How long clients wait for an answer: gateways hardly at all, others for longer than an election.
const DEADLINES: [Duration; 3] = [Duration::from_millis(15), Duration::from_millis(400), Duration::from_secs(3)];
/// Beyond the deadline some clients wait no longer: a stopped node keeps no deadlines.
const PATIENCE: Duration = Duration::from_millis(500);

/// One thing to ask.
struct Ask {
    keys: Vec<Key>,
    hits: i64,
    request: Request,
    counters: Vec<CounterId>,
    ticket: Ticket,
    deadline: Duration,
}

/// Asks until the run stops its clients.
pub async fn client(run: Arc<Run>) {
    while run.clients_go_on() {
        Sim::sleep(chance::millis(1, 40)).await;
        let running = run.world().all_running();
        if running.is_empty() {
            continue;
        }
        let running = &running[chance::index(running.len())];
        match chance::below(100) {
            0..70 => decide(&run, running).await,
            70..83 => check(&run, running).await,
            83..88 => register(&run, running).await,
            88..90 => find(&run, running).await,
            90..93 => change(&run, running).await,
            93..96 => reset(&run, running).await,
            _ => look_here(&run, running).await,
        }
    }
}

fn ask(run: &Run, running: &Running, keys: Vec<Key>, hits: i64) -> Ask {
    let request = workload::request(&keys, hits);
    let matched = running.node.rules().match_request(&request);
    let counters: Vec<CounterId> = matched.charges.into_iter().flat_map(|charge| charge.counters).collect();
    let ticket = run.witness().begin(&counters);
    Ask { keys, hits, request, counters, ticket, deadline: DEADLINES[chance::index(DEADLINES.len())] }
}

fn keys() -> Vec<Key> {
    let one = Key::any(workload::KINDS[chance::index(workload::KINDS.len())]);
    if one.kind != Kind::Bucket && chance::happens(150) { vec![one, Key::any(Kind::Bucket)] } else { vec![one] }
}

fn name(keys: &[Key]) -> String {
    keys.iter().map(ToString::to_string).collect::<Vec<_>>().join("+")
}

impl Ask {
    fn standings(&self, verdict: &Verdict) -> Vec<Standing> {
        let counters = self.keys.iter().zip(&self.counters);
        let left = verdict.limits().map(|limit| limit.remaining);
        counters.zip(left).map(|((key, id), remaining)| Standing { key: *key, counter: *id, remaining }).collect()
    }
}

/// Waits for an answer, as long as it takes, or gives up soon after the deadline.
async fn patiently<T: Send>(deadline: Duration, answer: impl Future<Output = Option<T>> + Send) -> Option<T> {
    if chance::happens(300) { answer.await } else { Sim::timeout(deadline + PATIENCE, answer).await.flatten() }
}

/// Notes an answer; `None` is no answer at all, as from a node that crashed.
fn note<T>(
    run: &Run,
    running: &Running,
    what: &str,
    answer: Option<&Result<T, Unavailable>>,
    of: impl Fn(&T) -> String,
) {
    let host = running.incarnation.host;
    let answer = match answer {
        Some(Ok(value)) => of(value),
        Some(Err(unavailable)) => format!("unavailable, {:?}", unavailable.reason),
        None => "broken off".to_owned(),
    };
    run.world().history().note(format_args!("{what} on {host}: {answer}"));
}

fn describe(verdict: &Verdict) -> String {
    let left: Vec<u64> = verdict.limits().map(|limit| limit.remaining).collect();
    let word = if verdict.admitted { "admitted" } else { "denied" };
    format!("{word} by revision {}, left {left:?}", verdict.revision)
}

async fn decide(run: &Run, running: &Running) {
    let keys = keys();
    let refund = keys.len() == 1 && keys[0].kind == Kind::Loose && chance::happens(100);
    let hits = if refund { -1 } else { 1 + i64::try_from(chance::below(3)).unwrap() };
    let ask = ask(run, running, keys, hits);
    let answer = patiently(ask.deadline, running.alive(running.node.decide(&ask.request, ask.deadline))).await;
    note(run, running, &format!("decide {} {hits}", name(&ask.keys)), answer.as_ref(), describe);
    match answer {
        Some(Ok(verdict)) => {
            let told = (hits, verdict.admitted, verdict.revision);
            run.hold(|witness, ledger| witness.decided(ledger, &ask.ticket, &ask.standings(&verdict), told));
        }
        _ => run.witness().lost(&ask.counters, ask.hits),
    }
}

async fn check(run: &Run, running: &Running) {
    let ask = ask(run, running, keys(), 0);
    let check = running.node.check(&ask.request, Consistency::Linearizable, ask.deadline);
    let answer = patiently(ask.deadline, running.alive(check)).await;
    note(run, running, &format!("check {}", name(&ask.keys)), answer.as_ref(), describe);
    checked(run, &ask, answer);
}

async fn look_here(run: &Run, running: &Running) {
    let mut ask = ask(run, running, keys(), 0);
    // What one node has applied may be old; only that it is true is promised.
    ask.ticket = Ticket::default();
    let look = running.node.check(&ask.request, Consistency::Local, ask.deadline);
    let answer = patiently(ask.deadline, running.alive(look)).await;
    note(run, running, &format!("look here {}", name(&ask.keys)), answer.as_ref(), describe);
    checked(run, &ask, answer);
}

fn checked(run: &Run, ask: &Ask, answer: Option<Result<Verdict, Unavailable>>) {
    if let Some(Ok(verdict)) = answer {
        let limit = verdict.limits().next().map_or(0, |limit| limit.limit);
        let standings = ask.standings(&verdict);
        run.hold(|witness, ledger| witness.checked(ledger, &ask.ticket, &standings, limit, verdict.revision));
    }
}

async fn reset(run: &Run, running: &Running) {
    let ask = ask(run, running, vec![Key::any(Kind::Loose)], 1);
    let answer = patiently(ask.deadline, running.alive(running.node.reset(&ask.request, ask.deadline))).await;
    note(run, running, &format!("reset {}", name(&ask.keys)), answer.as_ref(), |()| "done".to_owned());
}

/// Registers a name, or gives one back.
async fn register(run: &Run, running: &Running) {
    let deadline = DEADLINES[chance::index(DEADLINES.len())];
    if chance::happens(200) {
        let name = names::any_given_back();
        let delete = running.node.delete_bucket(name.clone(), deadline);
        let answer = patiently(deadline, running.alive(delete)).await;
        note(run, running, &format!("give back {name}"), answer.as_ref(), |()| "done".to_owned());
        return;
    }
    let name = names::any();
    let answer = patiently(deadline, running.alive(running.node.create_bucket(&name, deadline))).await;
    note(run, running, &format!("register {name}"), answer.as_ref(), |outcome| format!("{outcome:?}"));
    if let Some(Ok(BucketOutcome::Created(id))) = answer {
        run.hold(|witness, _| witness.names.created(&name, id));
    }
}

/// Asks any node for an id that somebody was told.
async fn find(run: &Run, running: &Running) {
    let Some(id) = run.witness().names.any_id() else { return };
    let deadline = DEADLINES[chance::index(DEADLINES.len())];
    let answer = patiently(deadline, running.alive(running.node.find_bucket(id, deadline))).await;
    note(run, running, &format!("find {id}"), answer.as_ref(), |found| format!("{found:?}"));
    if let Some(Ok(found)) = answer {
        run.hold(|witness, _| witness.names.found(id, found.as_deref()));
    }
}

async fn change(run: &Run, running: &Running) {
    let limit = 10 + chance::below(80);
    let change = PolicyChange::Put(Owner::Api, vec![Kind::Changing.policy(limit)]);
    let deadline = DEADLINES[chance::index(DEADLINES.len())];
    let answer = patiently(deadline, running.alive(running.node.change_policies(change, deadline))).await;
    note(run, running, &format!("change to {limit}"), answer.as_ref(), |outcome| format!("{outcome:?}"));
    if let Some(Ok(PolicyOutcome::Applied { revision })) = answer {
        run.witness().changed(revision);
    }
}
