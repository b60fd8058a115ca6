//! What the tests of this crate build worlds from.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::command::{
    Batch, Command, Decision, Outcome, Part, PartOutcome, PolicyChange, PolicyOutcome, Run, Sequence, SessionId,
};
use crate::machine::StateMachine;
use crate::policy::{Algorithm, Enforcement, Limit, OnUnavailable, Owner, Policy, PolicyName};
use crate::request::{Descriptor, Request};
use crate::settings::Settings;
use crate::time::ClusterTime;

pub const SECOND: u64 = 1_000_000_000;
pub const SESSION: SessionId = SessionId(0xfeed);
pub const ALGORITHMS: [Algorithm; 3] = [Algorithm::FixedWindow, Algorithm::SlidingWindow, Algorithm::TokenBucket];

pub fn settings() -> Settings {
    Settings { secret: *b"a test's secret!", counters_max: 4000 }
}

pub fn limit(name: &str, algorithm: Algorithm, limit: u64, window_ns: u64) -> Limit {
    Limit { name: name.to_owned(), algorithm, limit, window_ns, burst: limit }
}

/// Ten hits a minute for each `client_id`.
pub fn policy(name: &str) -> Policy {
    Policy {
        name: policy_name(name),
        domain: "default".to_owned(),
        matches: vec![],
        count_by: vec!["client_id".to_owned()],
        limits: vec![limit("minute", Algorithm::FixedWindow, 10, 60 * SECOND)],
        overrides: vec![],
        enforcement: Enforcement::Enforce,
        on_unavailable: OnUnavailable::Deny,
        fallback: false,
    }
}

pub fn policy_name(name: &str) -> PolicyName {
    PolicyName { namespace: "test".to_owned(), name: name.to_owned() }
}

pub fn descriptor(entries: &[(&str, &str)]) -> Descriptor {
    Descriptor::of(entries.iter().copied())
}

pub fn request(hits: i64, descriptors: &[&[(&str, &str)]]) -> Request {
    Request {
        domain: "default".to_owned(),
        descriptors: descriptors.iter().map(|entries| descriptor(entries)).collect(),
        hits,
    }
}

pub fn client(id: &str, hits: i64) -> Request {
    Request { hits, ..Request::of_client(id) }
}

/// A machine and one node that speaks to it, a part at a time.
pub struct World {
    pub machine: StateMachine,
    pub now: u64,
    pub sequence: Sequence,
}

impl World {
    pub fn new(policies: Vec<Policy>) -> Self {
        Self::with(settings(), policies)
    }

    pub fn with(settings: Settings, policies: Vec<Policy>) -> Self {
        let mut machine = StateMachine::new(settings);
        machine.set_members(members(&[1, 2]));
        let open = Part::OpenSession { node: 1, run: Run { boot: 1, name: 1 }, session: SESSION };
        machine.apply(&Batch { stamp: ClusterTime(SECOND), parts: vec![open] });
        let mut world = Self { machine, now: SECOND, sequence: 0 };
        world.change(PolicyChange::Put(Owner::Api, policies));
        world
    }

    pub fn pass(&mut self, ns: u64) -> &mut Self {
        self.now += ns;
        self
    }

    pub fn send(&mut self, commands: Vec<Command>) -> Vec<Outcome> {
        self.sequence += 1;
        let batch = self.batch(vec![Part::Commands {
            session: SESSION,
            sequence: self.sequence,
            commands: Arc::new(commands),
        }]);
        match self.machine.apply(&batch).as_slice() {
            [PartOutcome::Applied(outcomes)] => outcomes.to_vec(),
            other => panic!("not applied: {other:?}"),
        }
    }

    pub fn batch(&self, parts: Vec<Part>) -> Batch {
        Batch { stamp: ClusterTime(self.now), parts }
    }

    pub fn tick(&mut self) {
        let tick = self.batch(vec![]);
        self.machine.apply(&tick);
    }

    pub fn command(&self, request: &Request) -> Command {
        let matched = self.machine.rules().match_request(request);
        Command::Decide { revision: matched.revision, charges: matched.charges }
    }

    pub fn decide(&mut self, request: &Request) -> Outcome {
        let command = self.command(request);
        self.send(vec![command]).remove(0)
    }

    pub fn decision(&mut self, request: &Request) -> Decision {
        decision(self.decide(request))
    }

    pub fn admits(&mut self, request: &Request) -> bool {
        self.decision(request).admitted
    }

    /// What `evaluate` says about a look at it.
    pub fn remaining(&self, id: &str) -> u64 {
        let look = self.command(&client(id, 0));
        decision(self.machine.evaluate(ClusterTime(self.now), &look)).limits[0].remaining
    }

    pub fn change(&mut self, change: PolicyChange) -> PolicyOutcome {
        match self.send(vec![Command::ChangePolicies(change)]).remove(0) {
            Outcome::Policies(outcome) => outcome,
            other => panic!("not about policies: {other:?}"),
        }
    }

    pub fn put(&mut self, policy: Policy) {
        let outcome = self.change(PolicyChange::Put(Owner::Api, vec![policy]));
        assert!(matches!(outcome, PolicyOutcome::Applied { .. }), "{outcome:?}");
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.machine.freeze().encode()
    }
}

pub fn members(ids: &[u64]) -> BTreeMap<u64, String> {
    ids.iter().map(|id| (*id, format!("node-{id}"))).collect()
}

pub fn decision(outcome: Outcome) -> Decision {
    match outcome {
        Outcome::Decided(decision) => decision,
        other => panic!("not a decision: {other:?}"),
    }
}
