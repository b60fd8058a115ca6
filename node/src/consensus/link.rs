//! Calls to other nodes by their Raft id: finds the address, seals the envelope, checks the answer.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;

use super::types::Member;
use super::wire::{self, Envelope, Kind, Refusal};
use crate::gossip::Gossip;
use crate::platform::Platform;
use crate::storage::ClusterId;
use crate::sync::lock;
use crate::transport::{Lane, Transport};

/// The way to other nodes.
pub struct Link<P: Platform> {
    me: u64,
    cluster: Mutex<Option<ClusterId>>,
    transport: Arc<dyn Transport>,
    gossip: Arc<Gossip<P>>,
    /// Addresses from the membership, for those gossip has not met yet.
    members: Mutex<BTreeMap<u64, String>>,
}

/// Why a call got no answer.
#[derive(Debug)]
pub enum CallError {
    /// This node has no cluster yet.
    NoCluster,
    /// Nobody knows where the node is.
    NoAddress(u64),
    /// No answer in time; it may have been received.
    Timeout,
    /// The connection failed.
    Failed(io::Error),
    /// The other side refused it unread.
    Refused(Refusal),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCluster => write!(f, "this node has no cluster yet"),
            Self::NoAddress(node) => write!(f, "no address is known for node {node:016x}"),
            Self::Timeout => write!(f, "no answer in time"),
            Self::Failed(error) => write!(f, "{error}"),
            Self::Refused(refusal) => write!(f, "refused: {refusal:?}"),
        }
    }
}

impl<P: Platform> Link<P> {
    /// A link for node `me`.
    pub fn new(me: u64, cluster: Option<ClusterId>, transport: Arc<dyn Transport>, gossip: Arc<Gossip<P>>) -> Self {
        Self { me, cluster: Mutex::new(cluster), transport, gossip, members: Mutex::default() }
    }

    /// This node's Raft id.
    pub fn me(&self) -> u64 {
        self.me
    }

    /// The cluster this node belongs to.
    pub fn cluster(&self) -> Option<ClusterId> {
        *lock(&self.cluster)
    }

    /// Takes note of the cluster this node joined.
    pub fn join(&self, cluster: ClusterId) {
        *lock(&self.cluster) = Some(cluster);
    }

    /// Takes note of where the membership says a node is.
    pub fn learn(&self, node: u64, member: &Member) {
        lock(&self.members).insert(node, member.address.clone());
    }

    /// Gossip's address; the membership's for a node that gossip has not met.
    pub fn address(&self, node: u64) -> Option<String> {
        self.gossip.address_of(node).or_else(|| lock(&self.members).get(&node).cloned())
    }

    /// Calls a node of this cluster.
    ///
    /// # Errors
    /// When there is no answer within `limit`, or it is a refusal.
    pub async fn call(
        &self,
        to: u64,
        kind: Kind,
        lane: Lane,
        body: &[u8],
        limit: Duration,
    ) -> Result<Bytes, CallError> {
        let cluster = self.cluster().ok_or(CallError::NoCluster)?;
        self.call_as(cluster, to, kind, lane, body, limit).await
    }

    /// Calls a node in the name of a cluster that is being founded.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn call_as(
        &self,
        cluster: ClusterId,
        to: u64,
        kind: Kind,
        lane: Lane,
        body: &[u8],
        limit: Duration,
    ) -> Result<Bytes, CallError> {
        let address = self.address(to).ok_or(CallError::NoAddress(to))?;
        let frame = Envelope { kind, cluster, from: self.me, to }.seal(body);
        let bytes = P::timeout(limit, self.transport.call(&address, lane, frame))
            .await
            .ok_or(CallError::Timeout)?
            .map_err(CallError::Failed)?;
        wire::decode_answer(bytes).map_err(CallError::Failed)?.map_err(CallError::Refused)
    }
}
