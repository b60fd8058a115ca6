//! What doors call: matches a request, gets it decided, matches again when the policies changed meanwhile.

use std::sync::Arc;
use std::time::Duration;

use openraft_rt::Instant as _;
use quorate_limits::{
    Charge, Command, Decision, Enforcement, OnUnavailable, Outcome, PolicyChange, PolicyOutcome, Request, Rules,
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
    /// A limiter that sends through the courier. Its tasks run until the node ends.
    pub fn start(consensus: Consensus<P>, courier: &Arc<Courier<P>>) -> Self {
        let commits = Arc::new(Outbox::new(Purpose::Commit, Arc::clone(courier)));
        let looks = Arc::new(Outbox::new(Purpose::Look, Arc::clone(courier)));
        P::spawn(Arc::clone(&commits).run());
        P::spawn(Arc::clone(&looks).run());
        Self { consensus, commits, looks }
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
        self.judge(request, Ask::Decide, deadline).await
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
        self.judge(request, ask, deadline).await
    }

    /// Makes the counters that a request meets as if never used.
    ///
    /// # Errors
    /// When it is not known within `deadline` whether it took effect.
    pub async fn reset(&self, request: &Request, deadline: Duration) -> Result<(), Unavailable> {
        self.judge(request, Ask::Reset, deadline).await.map(|_| ())
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
        if !self.consensus.state().rules().founded() {
            return Err(unavailable(UnavailableReason::NotJoined, OnUnavailable::Deny));
        }
        let outcome = self.commit(Command::ChangePolicies(change), until).await;
        match outcome.map_err(|reason| unavailable(reason, OnUnavailable::Deny))? {
            Outcome::Policies(outcome) => {
                if let PolicyOutcome::Applied { revision } = outcome {
                    self.follow(revision, until).await;
                }
                Ok(outcome)
            }
            _ => Err(unavailable(UnavailableReason::Deadline, OnUnavailable::Deny)),
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

    async fn commit(&self, command: Command, until: Instant<P>) -> Result<Outcome, UnavailableReason> {
        self.through(&self.commits, command, until).await
    }

    async fn through(
        &self,
        outbox: &Outbox<P>,
        command: Command,
        until: Instant<P>,
    ) -> Result<Outcome, UnavailableReason> {
        let outcome = outbox.submit(command, until).map_err(|_| UnavailableReason::Overloaded)?;
        match P::timeout(until.saturating_duration_since(P::now()), outcome).await {
            Some(Ok(outcome)) => Ok(outcome),
            // The channel closes when the part got no answer in time.
            Some(Err(_)) | None => Err(UnavailableReason::Deadline),
        }
    }

    async fn judge(&self, request: &Request, ask: Ask, deadline: Duration) -> Result<Verdict, Unavailable> {
        let until = P::now() + deadline;
        let state = self.consensus.state();
        let mut rules = state.rules();
        loop {
            if !rules.founded() {
                return Err(unavailable(UnavailableReason::NotJoined, OnUnavailable::Deny));
            }
            let matched = rules.match_request(request);
            let without = on_unavailable(&rules, &matched.charges);
            let fail = |reason| unavailable(reason, without);
            match self.ask(ask, matched.revision, &matched.charges, until).await.map_err(fail)? {
                Outcome::Decided(decision) => return Ok(Verdict::new(rules, matched.charges, decision)),
                Outcome::Reset => {
                    let decision = Decision { admitted: true, limits: Vec::new() };
                    return Ok(Verdict::new(rules, Vec::new(), decision));
                }
                Outcome::CountersFull(_) => return Err(fail(UnavailableReason::CountersFull)),
                Outcome::Rematch | Outcome::Policies(_) => {
                    // The log is ahead of this node (or was when it was asked): wait for the newer rules.
                    let remaining = until.saturating_duration_since(P::now());
                    let newer = P::timeout(remaining, state.rules_other_than(&rules)).await;
                    rules = newer.ok_or(fail(UnavailableReason::Deadline))?;
                }
            }
        }
    }

    async fn ask(
        &self,
        ask: Ask,
        revision: u64,
        charges: &[Charge],
        until: Instant<P>,
    ) -> Result<Outcome, UnavailableReason> {
        let looks = charges.iter().all(|charge| charge.hits == 0);
        match ask {
            Ask::Reset => self.commit(Command::Reset { revision, charges: charges.to_vec() }, until).await,
            Ask::Decide if !looks => self.commit(Command::Decide { revision, charges: charges.to_vec() }, until).await,
            // Nothing would be charged: no need for a log entry.
            Ask::Decide | Ask::Look => {
                let command = Command::Decide { revision, charges: charges.to_vec() };
                self.through(&self.looks, command, until).await
            }
            Ask::LookHere => {
                let command = Command::Decide { revision, charges: charges.to_vec() };
                let now = self.consensus.clock().now();
                Ok(self.consensus.state().read(|state| state.evaluate(now, &command)))
            }
        }
    }
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
