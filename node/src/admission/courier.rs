//! Brings parts and reads to the leader, wherever it is, and their outcomes back.
//!
//! It keeps this node's session: the name under which its parts count once. A part is sent to the leader again and
//! again, always under its number, until it is answered or nobody waits for it any more.

use std::sync::Arc;
use std::time::Duration;

use openraft_rt::{AsyncRuntime, Instant as _, Select2};
use quorate_limits::{Command, Outcome, Part, PartOutcome, SessionId, decode_outcomes};
use tracing::{debug, info};

use super::session::Session;
use super::{LeaderQueue, TurnedAway, UnavailableReason};
use crate::consensus::older_disk::OlderDisk;
use crate::consensus::wire::{self, ForwardAnswer, Kind, Read, ReadAnswer};
use crate::consensus::{Consensus, NotLeader};
use crate::platform::{Instant, Platform};
use crate::transport::Lane;

/// How long one attempt may take before the part is sent again.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long to wait before asking a leader again that turned a part away.
const TURNED_AWAY_PAUSE: Duration = Duration::from_millis(10);
/// How long to wait before asking a leader for a session again whose disk is full.
const DISK_FULL_PAUSE: Duration = Duration::from_millis(200);
/// How long opening a session may take before it is tried anew.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);

/// The cluster refuses this node a session; the reason is for people, and the node must stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRefused(pub String);

/// The way to the leader.
pub struct Courier<P: Platform> {
    consensus: Consensus<P>,
    queue: Arc<LeaderQueue<P>>,
    session: Session,
}

impl<P: Platform> Courier<P> {
    /// A courier over a node's consensus and its queue.
    pub fn new(consensus: Consensus<P>, queue: Arc<LeaderQueue<P>>) -> Self {
        Self { consensus, queue, session: Session::default() }
    }

    /// Keeps a session open for as long as the node lives.
    ///
    /// # Errors
    /// When the cluster has seen a later run of this node: it runs on an older copy of its disk.
    pub async fn keep_session(&self) -> SessionRefused {
        let link = self.consensus.link();
        loop {
            self.session.ended().await;
            let id = SessionId(P::random());
            let part = Part::OpenSession { node: link.me(), run: link.run(), session: id };
            match self.deliver(&part, P::now() + OPEN_TIMEOUT).await {
                Ok(PartOutcome::Done) => {
                    debug!("session opened");
                    self.session.begin(id);
                }
                Ok(PartOutcome::OlderDisk { latest }) => {
                    return SessionRefused(OlderDisk::Run(latest).reason(link.run()));
                }
                Err(UnavailableReason::DiskFull) => P::sleep(DISK_FULL_PAUSE).await,
                _ => {}
            }
        }
    }

    /// Waits until a session is open: an entry of the log is there that was made since this node started.
    pub async fn session_open(&self) {
        self.session.begun().await;
    }

    /// Commits commands: each counts once.
    ///
    /// # Errors
    /// When nothing is known by `until`; they may have been applied then. When they were refused.
    pub async fn commit(
        &self,
        commands: Vec<Command>,
        until: Instant<P>,
    ) -> Result<Arc<Vec<Outcome>>, UnavailableReason> {
        let remaining = until.saturating_duration_since(P::now());
        let numbered = P::timeout(remaining, self.session.number()).await.ok_or(UnavailableReason::Deadline)?;
        let part = Part::Commands { session: numbered.id, sequence: numbered.sequence, commands: Arc::new(commands) };
        match self.deliver(&part, until).await? {
            PartOutcome::Applied(outcomes) => Ok(outcomes),
            PartOutcome::UnknownSession => {
                if self.session.end(numbered.id) {
                    info!("the session has ended; opening another");
                }
                Err(UnavailableReason::Deadline)
            }
            _ => Err(UnavailableReason::Deadline),
        }
    }

    /// Brings a part to the leader until it is answered.
    ///
    /// # Errors
    /// When there is no answer by `until`, or it was refused and never taken.
    pub async fn deliver(&self, part: &Part, until: Instant<P>) -> Result<PartOutcome, UnavailableReason> {
        let body = wire::encode(part);
        self.until_answered(until, |leader| {
            let body = body.clone();
            async move {
                if leader == self.consensus.link().me() {
                    return Some(self.queue.submit(part.clone()).await);
                }
                let answer = self.call(leader, Kind::Forward, &body).await?;
                match wire::decode(&answer).ok()? {
                    ForwardAnswer::Applied(outcomes) => Some(Ok(decode_outcomes(&outcomes).ok()?.pop()?)),
                    ForwardAnswer::NotLeader(leader) => Some(Err(NotLeader { leader }.into())),
                    ForwardAnswer::DiskFull => Some(Err(TurnedAway::DiskFull)),
                }
            }
        })
        .await
    }

    /// Looks at the leader's state. Also the log index the answers reflect at least.
    ///
    /// # Errors
    /// When nothing is known by `until`.
    pub async fn read(
        &self,
        commands: Vec<Command>,
        until: Instant<P>,
    ) -> Result<(Vec<Outcome>, u64), UnavailableReason> {
        let read = Read { commands };
        let body = wire::encode(&read);
        let commands = &read.commands;
        self.until_answered(until, |leader| {
            let body = body.clone();
            async move {
                if leader == self.consensus.link().me() {
                    return Some(self.consensus.read(commands).await.map_err(TurnedAway::from));
                }
                let answer = self.call(leader, Kind::Read, &body).await?;
                match wire::decode(&answer).ok()? {
                    ReadAnswer::Outcomes(outcomes, index) => Some(Ok((outcomes, index))),
                    ReadAnswer::NotLeader(leader) => Some(Err(NotLeader { leader }.into())),
                }
            }
        })
        .await
    }

    async fn call(&self, leader: u64, kind: Kind, body: &[u8]) -> Option<bytes::Bytes> {
        let link = self.consensus.link();
        link.call(leader, kind, Lane::Forward, body, ATTEMPT_TIMEOUT).await.ok()
    }

    /// Tries one leader after the other until one answers or `until` has passed. An attempt ends early when another
    /// leader is known.
    ///
    /// # Errors
    /// That none did; or that the leader's disk is full, if no attempt before may have come to something.
    async fn until_answered<T, F>(&self, until: Instant<P>, attempt: impl Fn(u64) -> F) -> Result<T, UnavailableReason>
    where
        T: Send,
        F: Future<Output = Option<Result<T, TurnedAway>>> + Send,
    {
        let (mut hint, mut is_unknown) = (None, false);
        loop {
            let remaining = until.saturating_duration_since(P::now());
            if remaining.is_zero() {
                return Err(UnavailableReason::Deadline);
            }
            let (known, hinted) = (self.consensus.leader(), hint.is_some());
            let leader = if let Some(leader) = hint.take().or(known) {
                leader
            } else {
                let found = P::timeout(remaining, self.consensus.leader_other_than(None)).await;
                found.flatten().ok_or(UnavailableReason::Deadline)?
            };
            let try_it = P::timeout(remaining.min(ATTEMPT_TIMEOUT), attempt(leader));
            // A hint may be ahead of what this node knows, so what it knows already is no reason to give up.
            let moved = self.consensus.leader_other_than(known.or(Some(leader)));
            match P::Rt::select2(Box::pin(try_it), Box::pin(moved)).await {
                Select2::First(Some(Some(Ok(value)))) => return Ok(value),
                Select2::First(Some(Some(Err(TurnedAway::DiskFull)))) if !is_unknown => {
                    return Err(UnavailableReason::DiskFull);
                }
                Select2::First(Some(Some(Err(TurnedAway::DiskFull)))) => P::sleep(DISK_FULL_PAUSE).await,
                Select2::First(Some(Some(Err(TurnedAway::NotLeader(not_leader))))) => {
                    is_unknown = true;
                    hint = not_leader.leader.filter(|other| *other != leader);
                    // Two that name each other, as while leadership is handed over, are not asked in a circle.
                    if hinted || hint.is_none() {
                        P::sleep(TURNED_AWAY_PAUSE).await;
                    }
                }
                Select2::First(Some(None)) => {
                    is_unknown = true;
                    P::sleep(TURNED_AWAY_PAUSE).await;
                }
                Select2::First(None) | Select2::Second(_) => is_unknown = true,
            }
        }
    }
}
