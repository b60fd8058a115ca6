//! A network in memory, under the simulator: seeded delays and losses, cuts, and a record of all that was sent.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _};
use openraft_rt::{AsyncRuntime as _, Instant as _};
use openraft_rt_sim::SimRuntime;
use tokio::sync::mpsc;

use super::super::*;
use crate::platform::Platform;

/// The simulator as a platform.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sim;

impl Platform for Sim {
    type Rt = SimRuntime;
}

/// When, from, to, what.
pub type Sent = (Duration, SocketAddr, SocketAddr, Bytes);
pub type Packet = (SocketAddr, Bytes);

#[derive(Default)]
pub struct Net {
    inboxes: Mutex<BTreeMap<SocketAddr, mpsc::UnboundedSender<Packet>>>,
    cut_off: Mutex<Vec<SocketAddr>>,
    loss_percent: u64,
    pub sent: Mutex<Vec<Sent>>,
}

impl Net {
    /// A network that loses so many of 100 packets.
    pub fn lossy(loss_percent: u64) -> Self {
        Self { loss_percent, ..Self::default() }
    }

    pub fn open(self: &Arc<Self>, address: SocketAddr) -> Arc<Port> {
        let (inbox, receiver) = mpsc::unbounded_channel();
        self.inboxes.lock().unwrap().insert(address, inbox);
        Arc::new(Port { net: Arc::clone(self), address, receiver: tokio::sync::Mutex::new(receiver) })
    }

    pub fn cut_off(&self, addresses: &[SocketAddr]) {
        *self.cut_off.lock().unwrap() = addresses.to_vec();
    }

    fn is_cut(&self, a: SocketAddr, b: SocketAddr) -> bool {
        let cut_off = self.cut_off.lock().unwrap();
        cut_off.contains(&a) != cut_off.contains(&b)
    }

    pub fn carry(self: &Arc<Self>, from: SocketAddr, to: SocketAddr, packet: Bytes) {
        self.sent.lock().unwrap().push((now(), from, to, packet.clone()));
        let random = Sim::random();
        if random % 100 < self.loss_percent || self.is_cut(from, to) {
            return;
        }
        let net = Arc::clone(self);
        let carried = async move {
            Sim::sleep(Duration::from_micros(100 + (random >> 32) % 2000)).await;
            if let Some(inbox) = net.inboxes.lock().unwrap().get(&to) {
                let _ = inbox.send((from, packet));
            }
        };
        Sim::spawn(carried);
    }
}

/// Virtual time since the start.
pub fn now() -> Duration {
    openraft_rt_sim::SimInstant::now().elapsed_since_start()
}

pub struct Port {
    net: Arc<Net>,
    address: SocketAddr,
    receiver: tokio::sync::Mutex<mpsc::UnboundedReceiver<Packet>>,
}

impl Datagrams for Port {
    fn send(&self, to: SocketAddr, packet: Bytes) {
        self.net.carry(self.address, to, packet);
    }

    fn receive(&self) -> BoxFuture<'_, io::Result<Packet>> {
        async move { self.receiver.lock().await.recv().await.ok_or_else(|| io::ErrorKind::NotConnected.into()) }.boxed()
    }
}

/// Contacts that a test changes.
#[derive(Clone, Default)]
pub struct Fixed(pub Arc<Mutex<Vec<SocketAddr>>>);

impl Contacts for Fixed {
    fn resolve(&self) -> BoxFuture<'static, Vec<SocketAddr>> {
        let addresses = self.0.lock().unwrap().clone();
        async move { addresses }.boxed()
    }
}

/// Runs a test in virtual time.
pub fn simulate<T>(seed: u64, test: impl Future<Output = T>) -> T {
    SimRuntime::with_seed(seed).block_on(test)
}
