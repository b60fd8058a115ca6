//! A network that delays, loses, repeats and cuts, and knows which incarnation of a host it talks to.
//!
//! Hosts are numbered from 0. Host `i` has the address `10.0.m.(i+1)`, where `m` is how often it has moved.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use quorate_node::consensus::wire::{Envelope, Kind};
use quorate_node::gossip::{Contacts, Datagrams};
use quorate_node::platform::Platform as _;
use quorate_node::transport::{Lane, Service, Transport};
use tokio::sync::{Notify, oneshot};

use super::host::{Host as Process, outside};
use super::{Sim, chance};

/// Of a thousand frames so many are delivered twice.
const REPEATED_PERMILLE: u64 = 20;
/// Of a thousand frames to a stopped host so many are lost; the others wait for it.
const LOST_TO_STOPPED_PERMILLE: u64 = 200;

/// One run of one host, from its start to its crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incarnation {
    /// The host.
    pub host: usize,
    /// Counts the starts of all hosts.
    pub number: u64,
}

/// What a network did, for a run's totals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Frames sent.
    pub frames: u64,
    /// Frames lost, cut or kept from a host that was down; requests and answers.
    pub lost: u64,
    /// Frames delivered twice.
    pub repeated: u64,
    /// Parts forwarded to a leader.
    pub forwarded: u64,
}

/// The network of one world.
#[derive(Default)]
pub struct Network {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    hosts: BTreeMap<usize, Host>,
    /// How often each host has moved.
    moves: BTreeMap<usize, u8>,
    incarnations: u64,
    cut: BTreeSet<(usize, usize)>,
    /// The longest additional delay of a link.
    slow: BTreeMap<(usize, usize), Duration>,
    loss_permille: u64,
    counts: Counts,
}

impl State {
    /// Whether a host is still where something was sent.
    fn is_at(&self, place: Place) -> bool {
        self.moves.get(&place.host).copied().unwrap_or(0) == place.moves
    }
}

struct Host {
    incarnation: Incarnation,
    process: Arc<Process>,
    service: Option<Arc<dyn Service>>,
    inbox: Arc<Inbox>,
}

#[derive(Default)]
struct Inbox {
    packets: Mutex<VecDeque<(SocketAddr, Bytes)>>,
    filled: Notify,
}

const GOSSIP_PORT: u16 = 50011;

fn ip(host: usize, moves: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, moves, u8::try_from(host + 1).unwrap())
}

/// The host that an address is, or was, of; and how often that had moved then.
fn place_of(address: SocketAddr) -> Option<Place> {
    match address.ip() {
        IpAddr::V4(ip) => Some(Place { host: usize::from(ip.octets()[3]).checked_sub(1)?, moves: ip.octets()[2] }),
        IpAddr::V6(_) => None,
    }
}

/// Where something is sent.
#[derive(Clone, Copy)]
struct Place {
    host: usize,
    moves: u8,
}

impl Network {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn ip(&self, host: usize) -> Ipv4Addr {
        ip(host, self.state().moves.get(&host).copied().unwrap_or(0))
    }

    /// Where a host's gossip listens.
    #[must_use]
    pub fn gossip_address(&self, host: usize) -> SocketAddr {
        (self.ip(host), GOSSIP_PORT).into()
    }

    /// Where a host's consensus listens.
    #[must_use]
    pub fn raft_address(&self, host: usize) -> String {
        format!("{}:50001", self.ip(host))
    }

    /// A host that is down gets another address; nobody is at the old one any more.
    pub fn relocate(&self, host: usize) {
        *self.state().moves.entry(host).or_default() += 1;
    }

    /// A host starts; it cannot be called before it [listens](Self::listen).
    pub fn start(&self, host: usize, process: Arc<Process>) -> Incarnation {
        let mut state = self.state();
        state.incarnations += 1;
        let incarnation = Incarnation { host, number: state.incarnations };
        state.hosts.insert(host, Host { incarnation, process, service: None, inbox: Arc::default() });
        incarnation
    }

    /// The host answers frames from now on.
    pub fn listen(&self, incarnation: Incarnation, service: Arc<dyn Service>) {
        let mut state = self.state();
        let host = state.hosts.get_mut(&incarnation.host).filter(|host| host.incarnation == incarnation);
        if let Some(host) = host {
            host.service = Some(service);
        }
    }

    /// The host is gone: whatever it still tries has no effect.
    pub fn crash(&self, incarnation: Incarnation) {
        let mut state = self.state();
        if state.hosts.get(&incarnation.host).is_some_and(|host| host.incarnation == incarnation) {
            state.hosts.remove(&incarnation.host);
        }
    }

    /// Whether it still runs.
    #[must_use]
    pub fn is_alive(&self, incarnation: Incarnation) -> bool {
        self.state().hosts.get(&incarnation.host).is_some_and(|host| host.incarnation == incarnation)
    }

    /// Cuts a link in one direction.
    pub fn cut(&self, from: usize, to: usize) {
        self.state().cut.insert((from, to));
    }

    /// Delays what goes over a link by up to `extra`.
    pub fn slow_down(&self, from: usize, to: usize, extra: Duration) {
        self.state().slow.insert((from, to), extra);
    }

    /// Loses so many of a thousand frames, everywhere.
    pub fn lose(&self, permille: u64) {
        self.state().loss_permille = permille;
    }

    /// Mends everything.
    pub fn heal(&self) {
        let mut state = self.state();
        state.cut.clear();
        state.slow.clear();
        state.loss_permille = 0;
    }

    /// What it did so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.state().counts
    }

    /// How long something takes over a link; `None` when it gets lost.
    fn delay(&self, from: usize, to: usize) -> Option<Duration> {
        let mut state = self.state();
        if state.cut.contains(&(from, to)) || chance::happens(state.loss_permille) {
            state.counts.lost += 1;
            return None;
        }
        let extra = state.slow.get(&(from, to)).copied().unwrap_or_default();
        let extra = u64::try_from(extra.as_micros()).unwrap();
        Some(chance::micros(100, 3000 + extra))
    }

    /// Who is at a place, when somebody is who answers.
    fn answering(&self, to: Place) -> Option<(Incarnation, Arc<Process>, Arc<dyn Service>)> {
        let state = self.state();
        let host = state.hosts.get(&to.host).filter(|_| state.is_at(to))?;
        Some((host.incarnation, Arc::clone(&host.process), Arc::clone(host.service.as_ref()?)))
    }

    fn note_frame(&self, frame: &Bytes) {
        let mut state = self.state();
        state.counts.frames += 1;
        if Envelope::open(frame.clone()).is_some_and(|(envelope, _)| envelope.kind == Kind::Forward) {
            state.counts.forwarded += 1;
        }
    }

    /// Takes a request to `to` and its answer back; `None` when one of them is lost.
    async fn carry(&self, from: Incarnation, to: Place, frame: Bytes) -> Option<io::Result<Bytes>> {
        Sim::sleep(self.delay(from.host, to.host)?).await;
        let Some((receiver, process, service)) = self.answering(to) else {
            self.state().counts.lost += 1;
            Sim::sleep(self.delay(to.host, from.host)?).await;
            return Some(Err(io::Error::from(io::ErrorKind::ConnectionRefused)));
        };
        if process.is_stopped() && chance::happens(LOST_TO_STOPPED_PERMILLE) {
            self.state().counts.lost += 1;
            return None;
        }
        let answer = process.run(service.handle(frame)).await;
        if !self.is_alive(receiver) {
            return None;
        }
        Sim::sleep(self.delay(to.host, from.host)?).await;
        self.is_alive(from).then(|| answer.ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionReset)))
    }
}

/// One incarnation's way out.
pub struct SimTransport {
    network: Arc<Network>,
    from: Incarnation,
}

impl SimTransport {
    /// A way out for `from`.
    #[must_use]
    pub fn new(network: Arc<Network>, from: Incarnation) -> Self {
        Self { network, from }
    }
}

impl Transport for SimTransport {
    fn call(&self, address: &str, _lane: Lane, frame: Bytes) -> BoxFuture<'static, io::Result<Bytes>> {
        let (network, from, to) = (Arc::clone(&self.network), self.from, address.parse().ok().and_then(place_of));
        async move {
            let to = to.ok_or(io::ErrorKind::AddrNotAvailable)?;
            if !network.is_alive(from) {
                return std::future::pending().await;
            }
            network.note_frame(&frame);
            if chance::happens(REPEATED_PERMILLE) {
                network.state().counts.repeated += 1;
                let (network, frame) = (Arc::clone(&network), frame.clone());
                let repeat = async move {
                    Sim::sleep(chance::millis(0, 20)).await;
                    // Its answer belongs to no call.
                    drop(network.carry(from, to, frame).await);
                };
                outside(|| Sim::spawn(repeat));
            }
            // Giving up the answer does not take back the request, so a task of its own carries it.
            let (answer, answered) = oneshot::channel();
            let carried = async move {
                match network.carry(from, to, frame).await {
                    Some(result) => drop(answer.send(result)),
                    // Often a lost frame is only noticed by its silence.
                    None if chance::happens(700) => drop(answer),
                    None => drop(answer.send(Err(io::Error::from(io::ErrorKind::ConnectionReset)))),
                }
            };
            outside(|| Sim::spawn(carried));
            match answered.await {
                Ok(result) => result,
                Err(_) => std::future::pending().await,
            }
        }
        .boxed()
    }
}

/// One incarnation's datagrams.
pub struct SimDatagrams {
    network: Arc<Network>,
    from: Incarnation,
    inbox: Arc<Inbox>,
}

impl SimDatagrams {
    /// Datagrams of `from`, which has started.
    #[must_use]
    pub fn new(network: Arc<Network>, from: Incarnation) -> Self {
        let inbox = Arc::clone(&network.state().hosts[&from.host].inbox);
        Self { network, from, inbox }
    }
}

impl Datagrams for SimDatagrams {
    fn send(&self, to: SocketAddr, packet: Bytes) {
        let Some(to) = place_of(to) else { return };
        let Some(delay) = self.network.delay(self.from.host, to.host).filter(|_| self.network.is_alive(self.from))
        else {
            return;
        };
        let (network, from) = (Arc::clone(&self.network), self.network.gossip_address(self.from.host));
        let carried = async move {
            Sim::sleep(delay).await;
            let state = network.state();
            if let Some(host) = state.hosts.get(&to.host).filter(|_| state.is_at(to)) {
                host.inbox.packets.lock().unwrap().push_back((from, packet));
                host.inbox.filled.notify_one();
            }
        };
        outside(|| Sim::spawn(carried));
    }

    fn receive(&self) -> BoxFuture<'_, io::Result<(SocketAddr, Bytes)>> {
        async move {
            loop {
                if let Some(packet) = self.inbox.packets.lock().unwrap().pop_front() {
                    return Ok(packet);
                }
                self.inbox.filled.notified().await;
            }
        }
        .boxed()
    }
}

/// The gossip addresses that the founding hosts had first, and where one of them is now: whatever else moved must be
/// learnt by gossip.
pub struct SimContacts {
    network: Arc<Network>,
    founders: usize,
}

impl SimContacts {
    /// The addresses of the first `founders` hosts.
    #[must_use]
    pub fn new(network: Arc<Network>, founders: usize) -> Self {
        Self { network, founders }
    }
}

impl Contacts for SimContacts {
    fn resolve(&self) -> BoxFuture<'static, Vec<SocketAddr>> {
        let mut addresses: Vec<_> = (0..self.founders).map(|host| (ip(host, 0), GOSSIP_PORT).into()).collect();
        let known = chance::index(self.founders);
        addresses[known] = self.network.gossip_address(known);
        async move {
            Sim::sleep(chance::micros(100, 5000)).await;
            addresses
        }
        .boxed()
    }
}
