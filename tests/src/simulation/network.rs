//! A network that delays, loses, repeats and cuts, and knows which incarnation of a host it talks to.
//!
//! Hosts are numbered from 0. Host `i` has the address `10.0.0.(i+1)`, whichever incarnation of it runs.

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

use super::{Sim, chance};

/// Of a thousand frames so many are delivered twice.
const REPEATED_PERMILLE: u64 = 20;

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
    incarnations: u64,
    cut: BTreeSet<(usize, usize)>,
    /// The longest additional delay of a link.
    slow: BTreeMap<(usize, usize), Duration>,
    loss_permille: u64,
    counts: Counts,
}

struct Host {
    incarnation: Incarnation,
    service: Option<Arc<dyn Service>>,
    inbox: Arc<Inbox>,
}

#[derive(Default)]
struct Inbox {
    packets: Mutex<VecDeque<(SocketAddr, Bytes)>>,
    filled: Notify,
}

/// Where a host's gossip listens.
#[must_use]
pub fn gossip_address(host: usize) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(10, 0, 0, u8::try_from(host + 1).unwrap()), 50011))
}

/// Where a host's consensus listens.
#[must_use]
pub fn raft_address(host: usize) -> String {
    format!("10.0.0.{}:50001", host + 1)
}

/// The host at an address of this network.
fn host_at(address: SocketAddr) -> Option<usize> {
    match address.ip() {
        IpAddr::V4(ip) => usize::from(ip.octets()[3]).checked_sub(1),
        IpAddr::V6(_) => None,
    }
}

impl Network {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// A host starts; it cannot be called before it [listens](Self::listen).
    pub fn start(&self, host: usize) -> Incarnation {
        let mut state = self.state();
        state.incarnations += 1;
        let incarnation = Incarnation { host, number: state.incarnations };
        state.hosts.insert(host, Host { incarnation, service: None, inbox: Arc::default() });
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

    fn service(&self, host: usize) -> Option<(Incarnation, Arc<dyn Service>)> {
        let state = self.state();
        let host = state.hosts.get(&host)?;
        Some((host.incarnation, Arc::clone(host.service.as_ref()?)))
    }

    fn note_frame(&self, frame: &Bytes) {
        let mut state = self.state();
        state.counts.frames += 1;
        if Envelope::open(frame.clone()).is_some_and(|(envelope, _)| envelope.kind == Kind::Forward) {
            state.counts.forwarded += 1;
        }
    }

    /// Takes a request to `to` and its answer back; `None` when one of them is lost.
    async fn carry(&self, from: Incarnation, to: usize, frame: Bytes) -> Option<io::Result<Bytes>> {
        Sim::sleep(self.delay(from.host, to)?).await;
        let Some((receiver, service)) = self.service(to) else {
            self.state().counts.lost += 1;
            Sim::sleep(self.delay(to, from.host)?).await;
            return Some(Err(io::Error::from(io::ErrorKind::ConnectionRefused)));
        };
        let answer = service.handle(frame).await;
        if !self.is_alive(receiver) {
            return None;
        }
        Sim::sleep(self.delay(to, from.host)?).await;
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
        let (network, from, to) = (Arc::clone(&self.network), self.from, address.parse().ok().and_then(host_at));
        async move {
            let to = to.ok_or(io::ErrorKind::AddrNotAvailable)?;
            if !network.is_alive(from) {
                return std::future::pending().await;
            }
            network.note_frame(&frame);
            if chance::happens(REPEATED_PERMILLE) {
                network.state().counts.repeated += 1;
                let (network, frame) = (Arc::clone(&network), frame.clone());
                Sim::spawn(async move {
                    Sim::sleep(chance::millis(0, 20)).await;
                    // Its answer belongs to no call.
                    drop(network.carry(from, to, frame).await);
                });
            }
            // Giving up the answer does not take back the request, so a task of its own carries it.
            let (answer, answered) = oneshot::channel();
            Sim::spawn(async move {
                match network.carry(from, to, frame).await {
                    Some(result) => drop(answer.send(result)),
                    // Often a lost frame is only noticed by its silence.
                    None if chance::happens(700) => drop(answer),
                    None => drop(answer.send(Err(io::Error::from(io::ErrorKind::ConnectionReset)))),
                }
            });
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
        let Some(to) = host_at(to) else { return };
        let Some(delay) = self.network.delay(self.from.host, to).filter(|_| self.network.is_alive(self.from)) else {
            return;
        };
        let (network, from) = (Arc::clone(&self.network), gossip_address(self.from.host));
        Sim::spawn(async move {
            Sim::sleep(delay).await;
            if let Some(host) = network.state().hosts.get(&to) {
                host.inbox.packets.lock().unwrap().push_back((from, packet));
                host.inbox.filled.notify_one();
            }
        });
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

/// The gossip addresses of the founding hosts.
pub struct SimContacts(pub usize);

impl Contacts for SimContacts {
    fn resolve(&self) -> BoxFuture<'static, Vec<SocketAddr>> {
        let addresses = (0..self.0).map(gossip_address).collect();
        async move {
            Sim::sleep(chance::micros(100, 5000)).await;
            addresses
        }
        .boxed()
    }
}
