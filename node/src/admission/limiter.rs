//! What doors call: matches a request, gets it decided, matches again when the policies changed meanwhile.

use std::sync::Arc;
use std::time::Duration;

use openraft_rt::Instant as _;
use quorate_limits::{
    BucketCommand, BucketId, BucketOutcome, Charge, Command, Decision, Enforcement, Few, Matched, OnUnavailable,
    Outcome, PolicyChange, PolicyOutcome, Request, Rules,
};

use super::{Consistency, Courier, Outbox, Purpose, Unavailable, UnavailableReason, Verdict};
use crate::consensus::Consensus;
use crate::platform::{Instant, Platform};

/// The limiter of one node.
pub struct Limiter<P: Platform> {
    consensus: Consensus<P>,
    commits: Arc<Outbox<P>>,
    looks: Arc<Outbox<P>>,
}

/// What a request is to be turned into.
#[derive(Clone, Copy)]
enum Ask {
    Decide,
    Look,
    LookHere,
    Reset,
}

impl<P: Platform> Limiter<P> {
    /// A limiter that sends through the courier; [`runs`](Self::runs) is its work.
    pub fn new(consensus: Consensus<P>, courier: &Arc<Courier<P>>) -> Self {
        let commits = Arc::new(Outbox::new(Purpose::Commit, Arc::clone(courier)));
        let looks = Arc::new(Outbox::new(Purpose::Look, Arc::clone(courier)));
        Self { consensus, commits, looks }
    }

    /// What must run for as long as the node lives.
    pub fn runs(&self) -> [impl Future<Output = ()> + Send + use<P>; 2] {
        [&self.commits, &self.looks].map(|outbox| Arc::clone(outbox).run())
    }

    /// Why this node cannot ask anybody.
    fn outside(&self, rules: &Rules) -> Option<UnavailableReason> {
        if self.consensus.link().was_removed() {
            Some(UnavailableReason::Removed)
        } else {
            (!rules.founded()).then_some(UnavailableReason::NotJoined)
        }
    }

    /// Commands waiting to be sent.
    pub fn waiting(&self) -> usize {
        self.commits.waiting() + self.looks.waiting()
    }

    /// Decides a request; see [`Node::decide`](crate::node::Node::decide).
    ///
    /// # Errors
    /// When no decision is known within `deadline`.
    pub async fn decide(&self, request: &Request, deadline: Duration) -> Result<Verdict, Unavailable> {
        self.judge_one(request, Ask::Decide, deadline).await
    }

    /// Decides requests in order; see [`Node::decide_all`](crate::node::Node::decide_all).
    pub async fn decide_all(&self, requests: &[Request], deadline: Duration) -> Vec<Result<Verdict, Unavailable>> {
        self.judge(requests, Ask::Decide, deadline).await
    }

    /// Looks where a request stands.
    ///
    /// # Errors
    /// When nothing is known within `deadline`.
    pub async fn check(
        &self,
        request: &Request,
        consistency: Consistency,
        deadline: Duration,
    ) -> Result<Verdict, Unavailable> {
        let ask = if consistency == Consistency::Local { Ask::LookHere } else { Ask::Look };
        self.judge_one(request, ask, deadline).await
    }

    /// Makes the counters that a request meets as if never used.
    ///
    /// # Errors
    /// When it is not known within `deadline` whether it took effect.
    pub async fn reset(&self, request: &Request, deadline: Duration) -> Result<(), Unavailable> {
        self.judge_one(request, Ask::Reset, deadline).await.map(|_| ())
    }

    /// Changes policies, and waits until this node has applied the change.
    ///
    /// # Errors
    /// When it is not known within `deadline` whether it took effect.
    pub async fn change_policies(
        &self,
        change: PolicyChange,
        deadline: Duration,
    ) -> Result<PolicyOutcome, Unavailable> {
        let until = P::now() + deadline;
        if let Some(reason) = self.outside(&self.consensus.state().rules()) {
            return Err(unavailable(reason, OnUnavailable::Deny));
        }
        let outcomes = self.through(&self.commits, vec![Command::ChangePolicies(change)], until).await;
        match outcomes.map_err(|reason| unavailable(reason, OnUnavailable::Deny))?.pop() {
            Some(Outcome::Policies(outcome)) => {
                if let PolicyOutcome::Applied { revision } = outcome {
                    self.follow(revision, until).await;
                }
                Ok(outcome)
            }
            _ => Err(unavailable(UnavailableReason::Deadline, OnUnavailable::Deny)),
        }
    }

    /// Registers a name under a new id, which the outcome tells.
    ///
    /// # Errors
    /// When it is not known within `deadline` whether it took effect.
    pub async fn create_bucket(&self, name: &str, deadline: Duration) -> Result<BucketOutcome, Unavailable> {
        let until = P::now() + deadline;
        loop {
            // Drawn before it is proposed: every node applies the same.
            let id = BucketId::of_random(u128::from(P::random()) << 64 | u128::from(P::random()));
            match self.bucket(&self.commits, BucketCommand::Create { name: name.to_owned(), id }, until).await? {
                BucketOutcome::IdTaken => {}
                outcome => return Ok(outcome),
            }
        }
    }

    /// Gives a name back; one that is not registered is no error.
    ///
    /// # Errors
    /// When it is not known within `deadline` whether it took effect.
    pub async fn delete_bucket(&self, name: String, deadline: Duration) -> Result<(), Unavailable> {
        self.bucket(&self.commits, BucketCommand::Delete { name }, P::now() + deadline).await.map(|_| ())
    }

    /// The name that an id stands for. What this node does not know it asks the leader for, so an id is known everywhere from
    /// the moment on in which it was told to anybody; for a moment after its end it may still be known.
    ///
    /// # Errors
    /// When it is not known here, and the leader did not answer within `deadline`.
    pub async fn find_bucket(&self, id: BucketId, deadline: Duration) -> Result<Option<String>, Unavailable> {
        let until = P::now() + deadline;
        let known = self.consensus.state().read(|state| state.buckets().name(id).map(ToOwned::to_owned));
        if known.is_some() {
            return Ok(known);
        }
        match self.bucket(&self.looks, BucketCommand::Find { id }, until).await? {
            BucketOutcome::Found(name) => Ok(Some(name)),
            _ => Ok(None),
        }
    }

    async fn bucket(
        &self,
        outbox: &Outbox<P>,
        command: BucketCommand,
        until: Instant<P>,
    ) -> Result<BucketOutcome, Unavailable> {
        if let Some(reason) = self.outside(&self.consensus.state().rules()) {
            return Err(unavailable(reason, OnUnavailable::Deny));
        }
        match self.through(outbox, vec![Command::Bucket(command)], until).await.map(|mut outcomes| outcomes.pop()) {
            Ok(Some(Outcome::Bucket(outcome))) => Ok(outcome),
            Ok(_) => Err(unavailable(UnavailableReason::Deadline, OnUnavailable::Deny)),
            Err(reason) => Err(unavailable(reason, OnUnavailable::Deny)),
        }
    }

    /// Waits until this node has applied `revision`: whoever was told of it should find it here.
    async fn follow(&self, revision: u64, until: Instant<P>) {
        let state = self.consensus.state();
        let caught_up = async {
            let mut rules = state.rules();
            while rules.revision() < revision {
                rules = state.rules_other_than(&rules).await;
            }
        };
        P::timeout(until.saturating_duration_since(P::now()), caught_up).await;
    }

    async fn through(
        &self,
        outbox: &Outbox<P>,
        commands: Vec<Command>,
        until: Instant<P>,
    ) -> Result<Vec<Outcome>, UnavailableReason> {
        let count = commands.len();
        let outcomes = outbox.submit(commands, until).map_err(|_| UnavailableReason::Overloaded)?;
        match P::timeout(until.saturating_duration_since(P::now()), outcomes).await {
            Some(Ok(Ok(outcomes))) if outcomes.len() == count => Ok(outcomes),
            Some(Ok(Err(reason))) => Err(reason),
            Some(_) | None => Err(UnavailableReason::Deadline),
        }
    }

    async fn judge_one(&self, request: &Request, ask: Ask, deadline: Duration) -> Result<Verdict, Unavailable> {
        let verdict = self.judge(std::slice::from_ref(request), ask, deadline).await.pop();
        verdict.unwrap_or_else(|| Err(unavailable(UnavailableReason::Deadline, OnUnavailable::Deny)))
    }

    /// One verdict for each request, in their order. Those whose policies changed meanwhile are matched and asked again.
    async fn judge(&self, requests: &[Request], ask: Ask, deadline: Duration) -> Vec<Result<Verdict, Unavailable>> {
        let until = P::now() + deadline;
        let state = self.consensus.state();
        let mut rules = state.rules();
        if let Some(reason) = self.outside(&rules) {
            return requests.iter().map(|_| Err(unavailable(reason, OnUnavailable::Deny))).collect();
        }
        let undecided = || Err(unavailable(UnavailableReason::Deadline, OnUnavailable::Deny));
        let mut verdicts: Vec<_> = requests.iter().map(|_| undecided()).collect();
        let mut open: Vec<usize> = (0..requests.len()).collect();
        while !open.is_empty() {
            let matched: Vec<Matched> = open.iter().map(|at| rules.match_request(&requests[*at])).collect();
            let outcomes = self.ask(ask, &matched, until).await;
            let mut again = Vec::new();
            for ((at, matched), outcome) in open.into_iter().zip(matched).zip(outcomes) {
                match judged(&rules, matched, outcome) {
                    Some(verdict) => verdicts[at] = verdict,
                    None => again.push(at),
                }
            }
            open = again;
            if !open.is_empty() {
                // The log is ahead of this node (or was when it was asked): wait for the newer rules.
                let remaining = until.saturating_duration_since(P::now());
                let Some(newer) = P::timeout(remaining, state.rules_other_than(&rules)).await else {
                    for at in open {
                        let without = on_unavailable(&rules, &rules.match_request(&requests[at]).charges);
                        verdicts[at] = Err(unavailable(UnavailableReason::Deadline, without));
                    }
                    break;
                };
                rules = newer;
            }
        }
        verdicts
    }

    async fn ask(&self, ask: Ask, matched: &[Matched], until: Instant<P>) -> Vec<Result<Outcome, UnavailableReason>> {
        let command = |matched: &Matched| {
            let (revision, charges) = (matched.revision, matched.charges.clone());
            if matches!(ask, Ask::Reset) {
                Command::Reset { revision, charges }
            } else {
                Command::Decide { revision, charges }
            }
        };
        let commands: Vec<Command> = matched.iter().map(command).collect();
        // Nothing would be charged: no need for a log entry.
        let looks = matched.iter().flat_map(|matched| &matched.charges).all(|charge| charge.hits == 0);
        let outcomes = match ask {
            Ask::LookHere => {
                let now = self.consensus.clock().now();
                Ok(self
                    .consensus
                    .state()
                    .read(|state| commands.iter().map(|command| state.evaluate(now, command)).collect()))
            }
            Ask::Look => self.through(&self.looks, commands, until).await,
            Ask::Decide if looks => self.through(&self.looks, commands, until).await,
            Ask::Decide | Ask::Reset => self.through(&self.commits, commands, until).await,
        };
        match outcomes {
            Ok(outcomes) => outcomes.into_iter().map(Ok).collect(),
            Err(reason) => matched.iter().map(|_| Err(reason)).collect(),
        }
    }
}

/// What an outcome means for the door; `None` when the request must be matched again.
fn judged(
    rules: &Arc<Rules>,
    matched: Matched,
    outcome: Result<Outcome, UnavailableReason>,
) -> Option<Result<Verdict, Unavailable>> {
    let fail = |reason| Err(unavailable(reason, on_unavailable(rules, &matched.charges)));
    Some(match outcome {
        Ok(Outcome::Decided(decision)) => Ok(Verdict::new(Arc::clone(rules), matched, decision)),
        Ok(Outcome::Reset) => {
            let decision = Decision { admitted: true, limits: Few::new() };
            Ok(Verdict::new(Arc::clone(rules), Matched::default(), decision))
        }
        Ok(Outcome::CountersFull(_)) => fail(UnavailableReason::CountersFull),
        Ok(Outcome::Rematch | Outcome::Policies(_) | Outcome::Bucket(_)) => return None,
        Err(reason) => fail(reason),
    })
}

/// `Allow` only when there is a policy and every enforced one says so.
fn on_unavailable(rules: &Rules, charges: &[Charge]) -> OnUnavailable {
    let mut policies = charges
        .iter()
        .filter_map(|charge| rules.policy(charge.policy))
        .filter(|policy| policy.enforcement == Enforcement::Enforce)
        .peekable();
    let allow = policies.peek().is_some() && policies.all(|policy| policy.on_unavailable == OnUnavailable::Allow);
    if allow { OnUnavailable::Allow } else { OnUnavailable::Deny }
}

fn unavailable(reason: UnavailableReason, on_unavailable: OnUnavailable) -> Unavailable {
    Unavailable { reason, on_unavailable }
}
