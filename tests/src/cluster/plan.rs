//! What a cluster is to be like, and the addresses and the turn on the machine that it takes.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::{Cluster, GOSSIP_PORT, Node};

/// Tests under load or with a stopwatch run alone; the others share the machine.
static MACHINE: RwLock<()> = RwLock::const_new(());

/// A /24 of loopback addresses that no other cluster uses: a listener on one of them is the claim to all.
pub(super) struct Subnet {
    octets: [u8; 2],
    _claim: TcpListener,
}

impl Subnet {
    fn claim() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        loop {
            let number = std::process::id().wrapping_mul(101).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
            // 127.0.x.x stays free for whatever else runs on the machine.
            let octets = [u8::try_from(number / 256 % 255).expect("below 255") + 1, number.to_le_bytes()[0]];
            if let Ok(claim) = TcpListener::bind((Ipv4Addr::new(127, octets[0], octets[1], 254), 21999)) {
                return Self { octets, _claim: claim };
            }
        }
    }

    pub(super) fn address(&self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, self.octets[0], self.octets[1], host)
    }
}

/// Holds the machine, alone or together with others.
#[derive(Debug)]
pub(super) enum Turn {
    Shared(#[expect(dead_code, reason = "held until dropped")] RwLockReadGuard<'static, ()>),
    Alone(#[expect(dead_code, reason = "held until dropped")] RwLockWriteGuard<'static, ()>),
    OfAnother,
}

#[derive(Clone, Copy, Debug)]
enum Wanted {
    Shared,
    Alone,
    /// A second turn within one test would wait for ever behind a test that waits to be alone.
    None,
}

/// Where a node lives, when not on an address of the cluster's own.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its address there.
    pub address: Ipv4Addr,
    /// The command that runs another one there, with its arguments so far.
    pub launcher: Vec<String>,
}

/// What a cluster is to be like.
#[derive(Clone, Debug)]
pub struct Plan {
    nodes: u8,
    places: Vec<Place>,
    launcher: Vec<String>,
    contacts: Option<u8>,
    turn: Wanted,
    settings: Vec<(String, String)>,
}

impl Plan {
    /// A cluster of `nodes` with the product's default settings, but no default policy and a short drain.
    #[must_use]
    pub fn of(nodes: u8) -> Self {
        Self { nodes, places: vec![], launcher: vec![], contacts: None, turn: Wanted::Shared, settings: vec![] }
            .set("DEFAULT_LIMIT", "none")
            .set("DRAIN_DELAY", "200ms")
    }

    /// A setting of every node. `{dir}` stands for the cluster's folder.
    #[must_use]
    pub fn set(mut self, name: &str, value: impl Into<String>) -> Self {
        self.settings.retain(|(known, _)| known != name);
        self.settings.push((name.to_owned(), value.into()));
        self
    }

    /// Only the first `contacts` nodes are in `CLUSTERS`, and found the cluster.
    #[must_use]
    pub fn contacts(mut self, contacts: u8) -> Self {
        self.contacts = Some(contacts);
        self
    }

    /// The nodes live there, the first in the first place.
    #[must_use]
    pub fn at(mut self, places: Vec<Place>) -> Self {
        assert_eq!(places.len(), usize::from(self.nodes), "a place for each node");
        self.places = places;
        self
    }

    /// Nodes are started by this command, which runs what is behind it.
    #[must_use]
    pub fn launched_by(mut self, words: &[&str]) -> Self {
        self.launcher = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// The test runs alone on the machine.
    #[must_use]
    pub fn alone(mut self) -> Self {
        self.turn = Wanted::Alone;
        self
    }

    /// The test already has `_other`, and with it its turn on the machine.
    #[must_use]
    pub fn beside(mut self, _other: &Cluster) -> Self {
        self.turn = Wanted::None;
        self
    }

    /// Claims addresses and a folder; starts nothing.
    pub async fn build(self) -> Cluster {
        let turn = match self.turn {
            Wanted::Shared => Turn::Shared(MACHINE.read().await),
            Wanted::Alone => Turn::Alone(MACHINE.write().await),
            Wanted::None => Turn::OfAnother,
        };
        let subnet = Subnet::claim();
        let dir = tempfile::Builder::new().prefix("quorate-").tempdir().expect("a temporary folder");
        let here = |host| Place { address: subnet.address(host), launcher: self.launcher.clone() };
        let place = |host: u8| self.places.get(usize::from(host) - 1).cloned().unwrap_or_else(|| here(host));
        let contacts: Vec<_> = (1..=self.contacts.unwrap_or(self.nodes))
            .map(|host| SocketAddr::from((place(host).address, GOSSIP_PORT)).to_string())
            .collect();
        let nodes = (1..=self.nodes)
            .map(|host| {
                let node = Node::new(format!("node-{host}"), place(host), dir.path());
                node.set("CLUSTERS", contacts.join(","));
                for (name, value) in &self.settings {
                    node.set(name, value.replace("{dir}", &dir.path().display().to_string()));
                }
                node
            })
            .collect();
        Cluster { nodes, dir: Some(dir), subnet, _turn: turn }
    }

    /// Starts all nodes and waits until each says that it is ready.
    pub async fn start(self) -> Cluster {
        let cluster = self.build().await;
        for node in &cluster.nodes {
            node.start();
        }
        cluster.ready().await;
        cluster
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn subnets_claimed_at_once_never_meet() {
        let subnets: Vec<_> = (0..300).map(|_| Subnet::claim()).collect();
        let mut octets: Vec<_> = subnets.iter().map(|subnet| subnet.octets).collect();
        octets.sort_unstable();
        octets.dedup();
        assert_eq!(octets.len(), 300);
    }
}
