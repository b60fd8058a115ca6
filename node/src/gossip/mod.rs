//! Who is there and where: SWIM membership by foca over datagrams.
//!
//! Gossip gives names, addresses and liveness hints. It never decides who votes, and without it consensus goes on.

use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::storage::ClusterId;

mod agent;
mod codec;
mod contacts;
mod handle;
mod schedule;
#[cfg(test)]
mod tests;
mod udp;

pub use codec::parse_packet;
pub use contacts::{ContactError, ContactList, DnsContacts, advertise_host};
pub use handle::{Counts, Gossip};
pub use udp::UdpDatagrams;

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its Raft id: the key. A disk that came back empty is another peer under the same name.
    pub node: u64,
    /// Its boot counter; of two records of one node the one with the higher (boot, version) holds.
    pub boot: u64,
    /// Counts changes of this record within one boot.
    pub version: u32,
    /// Its name.
    pub name: String,
    /// Its cluster, once it has one; a packet of another cluster is dropped.
    pub cluster: Option<ClusterId>,
    /// Where its gossip listens.
    pub gossip_address: SocketAddr,
    /// Where consensus listens, `host:port`.
    pub raft_address: String,
}

/// Sends and receives datagrams.
pub trait Datagrams: Send + Sync + 'static {
    /// Sends one, best effort.
    fn send(&self, to: SocketAddr, packet: Bytes);
    /// Waits for the next one. One caller at a time.
    fn receive(&self) -> BoxFuture<'_, io::Result<(SocketAddr, Bytes)>>;
}

/// Where to look for others; asked again and again, since addresses change.
pub trait Contacts: Send + Sync + 'static {
    /// The gossip addresses known now; a name that does not resolve is left out.
    fn resolve(&self) -> BoxFuture<'static, Vec<SocketAddr>>;
}
