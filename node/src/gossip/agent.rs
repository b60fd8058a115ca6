//! The agent: one task that feeds foca with packets, timers and contacts, and publishes whom it knows.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::num::{NonZeroU8, NonZeroUsize};
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use foca::{AccumulatingRuntime, Config, Foca, NoCustomBroadcast, PeriodicParams, Timer};
use futures::future::{BoxFuture, FutureExt as _};
use openraft_rt::{AsyncRuntime as _, Select4};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::codec::{
    ANYONE, ENVELOPE_BYTES, Id, PACKET_BYTES_MAX, PacketCodec, Refused, Rules, are_foreign, open_envelope, put_envelope,
};
use super::handle::{Known, Phase, Shared};
use super::schedule::Schedule;
use super::{Contacts, Datagrams, Peer};
use crate::platform::{Instant, Platform};
use crate::sync::lock;

/// Contacts are asked this often while fewer peers are known than contacts.
const CONTACTS_PERIOD_ALONE: Duration = Duration::from_secs(1);
/// And this often afterwards: addresses change, pods come and go.
const CONTACTS_PERIOD: Duration = Duration::from_secs(10);
/// This node's record is renewed at most this often because others think it down.
const RENEWAL_GAP_MIN: Duration = Duration::from_secs(1);
/// How long to wait before reading again from datagrams that reported an error.
const RECEIVE_PAUSE: Duration = Duration::from_millis(100);
/// How often one kind of refused packet is logged.
const WARN_PERIOD: Duration = Duration::from_mins(1);
/// A peer that went down is remembered this long, its addresses too.
const REMEMBER_DOWN: Duration = Duration::from_hours(1);

/// For a handful to a few dozen nodes in one place.
fn config() -> Config {
    const fn few(n: usize) -> NonZeroUsize {
        NonZeroUsize::MIN.saturating_add(n - 1)
    }
    let every = |frequency, n| Some(PeriodicParams { frequency, num_members: few(n) });
    Config {
        probe_period: Duration::from_millis(500),
        probe_rtt: Duration::from_millis(200),
        num_indirect_probes: few(3),
        max_transmissions: NonZeroU8::MIN.saturating_add(9),
        suspect_to_down_after: Duration::from_secs(3),
        remove_down_after: Some(REMEMBER_DOWN),
        max_packet_size: few(PACKET_BYTES_MAX - ENVELOPE_BYTES),
        notify_down_members: true,
        periodic_announce: every(Duration::from_secs(30), 1),
        periodic_announce_to_down_members: every(Duration::from_secs(5), 2),
        periodic_gossip: every(Duration::from_millis(200), 3),
    }
}

/// The task.
pub(super) struct Agent<P: Platform> {
    foca: Foca<Id, PacketCodec, StdRng, NoCustomBroadcast>,
    output: AccumulatingRuntime<Id>,
    schedule: Schedule<Instant<P>>,
    rules: Arc<Mutex<Rules>>,
    shared: Arc<Shared>,
    datagrams: Arc<dyn Datagrams>,
    contacts: Arc<dyn Contacts>,
    /// When the contacts are asked next.
    round_due: Instant<P>,
    renewed: Option<Instant<P>>,
    /// How many peers the contacts name, this node taken off.
    expected: usize,
    /// What foca remembers changed, so the view must follow.
    dirty: bool,
    warned_foreign: Option<Instant<P>>,
    warned_version: Option<Instant<P>>,
}

impl<P: Platform> Agent<P> {
    pub(super) fn new(me: Id, shared: Arc<Shared>, datagrams: Arc<dyn Datagrams>, contacts: Arc<dyn Contacts>) -> Self {
        let rules = Arc::new(Mutex::new(Rules { me: me.clone(), known: BTreeSet::new(), renewed_lately: false }));
        let codec = PacketCodec(Arc::clone(&rules));
        Self {
            foca: Foca::new(me, config(), StdRng::seed_from_u64(P::random()), codec),
            output: AccumulatingRuntime::new(),
            schedule: Schedule::new(),
            rules,
            shared,
            datagrams,
            contacts,
            round_due: P::now(),
            renewed: None,
            expected: 0,
            dirty: false,
            warned_foreign: None,
            warned_version: None,
        }
    }

    pub(super) async fn run(mut self) {
        let datagrams = Arc::clone(&self.datagrams);
        let shared = Arc::clone(&self.shared);
        let mut incoming = datagrams.receive();
        let mut resolving: Option<BoxFuture<'static, Vec<SocketAddr>>> = None;
        loop {
            self.fire_due();
            if resolving.is_none() && P::now() >= self.round_due {
                resolving = Some(self.contacts.resolve());
            }
            let due = self.next_due(resolving.is_some());
            let resolved = async {
                match &mut resolving {
                    Some(future) => future.await,
                    None => std::future::pending().await,
                }
            };
            let event = P::Rt::select4(shared.wake.notified(), resolved, &mut incoming, P::Rt::sleep_until(due)).await;
            match event {
                Select4::First(()) => {
                    if self.follow_commands().is_break() {
                        break;
                    }
                }
                Select4::Second(addresses) => {
                    resolving = None;
                    self.announce_round(&addresses);
                }
                Select4::Third(Ok((from, packet))) => {
                    incoming = datagrams.receive();
                    self.take_packet(from, &packet);
                }
                Select4::Third(Err(error)) => {
                    tracing::debug!(%error, "cannot receive gossip");
                    let datagrams = &datagrams;
                    incoming = async move {
                        P::sleep(RECEIVE_PAUSE).await;
                        datagrams.receive().await
                    }
                    .boxed();
                }
                Select4::Fourth(()) => {}
            }
        }
        shared.view().phase = Phase::Ended;
        shared.changes.notify_waiters();
    }

    fn next_due(&self, resolving: bool) -> Instant<P> {
        // While contacts are looked up the round must not wake us; foca may have nothing due either.
        let round = if resolving { P::now() + CONTACTS_PERIOD } else { self.round_due };
        self.schedule.next_due().map_or(round, |due| due.min(round))
    }

    fn fire_due(&mut self) {
        let now = P::now();
        while let Some(timer) = self.schedule.pop(now) {
            if let Timer::ChangeSuspectToDown { member_id, incarnation, .. } = &timer
                && !self.is_suspect(member_id, *incarnation)
            {
                // It refuted the suspicion. foca 2.0.0 would tell it all the same that it is down.
                continue;
            }
            // Forgetting a peer is the one change foca does not tell of.
            self.dirty |= matches!(timer, Timer::RemoveDown(_));
            self.drive("a timer", |foca, output| foca.handle_timer(timer, output));
        }
    }

    fn is_suspect(&self, id: &Id, incarnation: foca::Incarnation) -> bool {
        self.foca.iter_membership_state().any(|member| {
            member.id() == id && member.state() == foca::State::Suspect && member.incarnation() == incarnation
        })
    }

    fn follow_commands(&mut self) -> ControlFlow<()> {
        let (phase, wanted) = {
            let view = self.shared.view();
            (view.phase, view.me.clone())
        };
        match phase {
            Phase::Running => {
                self.take_over(wanted);
                ControlFlow::Continue(())
            }
            Phase::Leaving => {
                self.drive("leaving", |foca, output| foca.leave_cluster(output));
                ControlFlow::Break(())
            }
            Phase::Stopping | Phase::Ended => ControlFlow::Break(()),
        }
    }

    /// Gives foca the changed record of this node, under a new version.
    fn take_over(&mut self, wanted: Peer) {
        let version = self.foca.identity().0.version;
        if (Peer { version, ..wanted.clone() }) == *self.foca.identity().0 {
            return;
        }
        let Some(version) = version.checked_add(1) else {
            tracing::error!("this node's gossip record changed too often; restart it");
            return;
        };
        let id = Id(Arc::new(Peer { version, ..wanted }));
        self.drive("a new record", |foca, output| foca.change_identity(id, output));
    }

    fn take_packet(&mut self, from: SocketAddr, packet: &Bytes) {
        let counters = &self.shared.counters;
        counters.received.fetch_add(1, Ordering::Relaxed);
        let cluster = self.foca.identity().0.cluster;
        match open_envelope(cluster, packet) {
            Ok(message) => {
                let now = P::now();
                let lately = self.renewed.is_some_and(|renewed| now - renewed < RENEWAL_GAP_MIN);
                lock(&self.rules).renewed_lately = lately;
                self.drive("a packet", |foca, output| foca.handle_data(message, output));
            }
            Err(refused) => {
                let (counter, warned) = match refused {
                    Refused::Foreign { .. } => (&counters.foreign, &mut self.warned_foreign),
                    _ => (&counters.malformed, &mut self.warned_version),
                };
                counter.fetch_add(1, Ordering::Relaxed);
                if matches!(refused, Refused::Foreign { .. }) && packet.len() > ENVELOPE_BYTES {
                    // It may know only our addresses, and would never hear whose they are. An envelope alone is not answered.
                    let mut envelope = BytesMut::with_capacity(ENVELOPE_BYTES);
                    put_envelope(cluster, &mut envelope);
                    self.datagrams.send(from, envelope.freeze());
                }
                let now = P::now();
                if refused != Refused::Malformed && warned.is_none_or(|last| now - last >= WARN_PERIOD) {
                    *warned = Some(now);
                    tracing::warn!(%from, "a gossip packet was dropped: {refused}");
                }
            }
        }
    }

    /// Says to every contact that we are here. Who hears it for the first time answers with whom it knows.
    fn announce_round(&mut self, addresses: &[SocketAddr]) {
        let me = Arc::clone(&self.foca.identity().0);
        let mut targets: BTreeSet<SocketAddr> = addresses.iter().copied().collect();
        self.expected = targets.len().saturating_sub(1).max(1);
        if self.foca.num_members() == 0 {
            // Nobody left, and perhaps no DNS either: they may be where they were.
            let others = self.foca.iter_membership_state().map(|member| &member.id().0);
            targets.extend(others.filter(|peer| peer.node != me.node).map(|peer| peer.gossip_address));
        }
        targets.remove(&me.gossip_address);
        for gossip_address in targets {
            let someone = Id(Arc::new(Peer { node: ANYONE, gossip_address, ..Peer::clone(&me) }));
            self.drive("an announcement", |foca, output| foca.announce(someone, output));
        }
        self.round_due = P::now() + if self.is_alone() { CONTACTS_PERIOD_ALONE } else { CONTACTS_PERIOD };
    }

    /// Whether fewer peers are known than the contacts name.
    fn is_alone(&self) -> bool {
        self.foca.num_members() < self.expected
    }

    /// Runs one step of foca and carries out what it asks for.
    fn drive<F>(&mut self, what: &str, step: F)
    where
        F: FnOnce(
            &mut Foca<Id, PacketCodec, StdRng, NoCustomBroadcast>,
            &mut AccumulatingRuntime<Id>,
        ) -> Result<(), foca::Error>,
    {
        let before = self.foca.identity().clone();
        match step(&mut self.foca, &mut self.output) {
            // Our own packets come back when a contact is this node under another address.
            Ok(()) | Err(foca::Error::DataFromOurselves) => {}
            Err(error) => {
                self.shared.counters.malformed.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(%error, "gossip cannot handle {what}");
            }
        }
        if *self.foca.identity() != before {
            self.announce_new_record();
        }
        if self.is_alone() {
            // Whoever restarted meanwhile drops packets for its former record, so only an announcement reaches it.
            self.round_due = self.round_due.min(P::now() + CONTACTS_PERIOD_ALONE);
        }
        self.flush();
        self.publish();
    }

    /// Peers drop packets for an older record of ours, so they must hear of the new one soon, even if packets are lost.
    fn announce_new_record(&mut self) {
        let members: Vec<Id> = self.foca.iter_members().map(|member| member.id().clone()).collect();
        for member in members {
            if let Err(error) = self.foca.announce(member, &mut self.output) {
                tracing::debug!(%error, "gossip cannot announce this node's new record");
            }
        }
        let now = P::now();
        self.renewed = Some(now);
        self.round_due = self.round_due.min(now + CONTACTS_PERIOD_ALONE);
        self.dirty = true;
    }

    /// Sends and schedules what foca asked for.
    fn flush(&mut self) {
        let cluster = self.foca.identity().0.cluster;
        while let Some((to, message)) = self.output.to_send() {
            let mut packet = BytesMut::with_capacity(ENVELOPE_BYTES + message.len());
            put_envelope(cluster, &mut packet);
            packet.extend_from_slice(&message);
            self.shared.counters.sent.fetch_add(1, Ordering::Relaxed);
            self.datagrams.send(to.0.gossip_address, packet.freeze());
        }
        let now = P::now();
        while let Some((after, timer)) = self.output.to_schedule() {
            self.schedule.add(now + after, timer);
        }
        while let Some(notification) = self.output.to_notify() {
            tracing::debug!(?notification, "gossip");
            self.dirty = true;
        }
    }

    /// Brings the view and the codec's rules up to date.
    fn publish(&mut self) {
        let me = self.foca.identity();
        let mut rules = lock(&self.rules);
        if !self.dirty && rules.known.len() == self.foca.iter_membership_state().len() {
            return;
        }
        self.dirty = false;
        rules.me = me.clone();
        rules.known = self.foca.iter_membership_state().map(|member| member.id().0.node).collect();
        drop(rules);

        let others: BTreeMap<u64, Known> = self
            .foca
            .iter_membership_state()
            .filter(|member| member.id().0.node != me.0.node && !are_foreign(me.0.cluster, member.id().0.cluster))
            .map(|member| {
                let alive = member.state() != foca::State::Down;
                (member.id().0.node, Known { peer: Arc::clone(&member.id().0), alive })
            })
            .collect();
        let mut view = self.shared.view();
        if view.me.version != me.0.version || view.others != others {
            view.me.version = me.0.version;
            view.others = others;
            view.generation += 1;
            self.shared.changes.notify_waiters();
        }
    }
}
