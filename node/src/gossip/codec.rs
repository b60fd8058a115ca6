//! What a gossip packet looks like, and which are refused.
//!
//! A packet is an envelope (magic, version, the sender's cluster) and foca's message in postcard. Whatever arrives
//! was perhaps written by an enemy: nothing here panics, and no allocation is larger than the packet.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::{Buf, BufMut};
use foca::{Codec, Header, Incarnation, Member, Message, State};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Peer;
use crate::storage::ClusterId;
use crate::sync::lock;

/// No packet is larger: it fits into one frame of any usual network.
pub(super) const PACKET_BYTES_MAX: usize = 1400;
/// The bytes before foca's message: two of magic, one of version, eight of cluster id.
pub(super) const ENVELOPE_BYTES: usize = 11;
/// No name is longer; Kubernetes keeps to the same.
const NAME_BYTES_MAX: usize = 63;
/// A DNS name, a colon and a port.
const ADDRESS_BYTES_MAX: usize = 259;
/// No more peers than this are remembered, dead ones included.
pub(super) const PEERS_MAX: usize = 1024;

const MAGIC: [u8; 2] = *b"Qg";
const VERSION: u8 = 1;

/// A peer as foca knows it: `node` is the address, (boot, version) tells which record of one node is newer.
#[derive(Clone)]
pub(super) struct Id(pub Arc<Peer>);

impl Id {
    fn key(&self) -> Key {
        Key { node: self.0.node, boot: self.0.boot, version: self.0.version }
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:x}/{}.{}", self.0.name, self.0.node, self.0.boot, self.0.version)
    }
}

impl PartialEq for Id {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Id {}

impl foca::Identity for Id {
    type Addr = u64;

    fn renew(&self) -> Option<Self> {
        let version = self.0.version.checked_add(1)?;
        Some(Self(Arc::new(Peer { version, ..Peer::clone(&self.0) })))
    }

    fn addr(&self) -> u64 {
        self.0.node
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        (self.0.boot, self.0.version) > (adversary.0.boot, adversary.0.version)
    }
}

/// Which record of which node.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Key {
    node: u64,
    boot: u64,
    version: u32,
}

/// The node of a receiver whose id is not known yet: it is only known that someone may listen there.
pub(super) const ANYONE: u64 = 0;

/// What the codec must know to judge a packet; the agent keeps it up to date between packets.
pub(super) struct Rules {
    /// This node, as foca knows it.
    pub me: Id,
    /// Every node remembered.
    pub known: BTreeSet<u64>,
    /// This node's record was renewed a moment ago. What says now that this node is down is not heard: a node whose
    /// record never wins, on a disk older than the one the others saw, would renew it as fast as packets travel.
    pub renewed_lately: bool,
}

impl Rules {
    fn is_foreign(&self, peer: &Peer) -> bool {
        are_foreign(self.me.0.cluster, peer.cluster)
    }

    fn has_room_for(&self, node: u64) -> bool {
        self.known.len() < PEERS_MAX || self.known.contains(&node)
    }
}

/// Whether both have a cluster, and not the same one.
pub(super) fn are_foreign(a: Option<ClusterId>, b: Option<ClusterId>) -> bool {
    matches!((a, b), (Some(a), Some(b)) if a != b)
}

/// Why a packet is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("it is no gossip packet")]
    Malformed,
    #[error("it speaks gossip version {0}, this node speaks {VERSION}")]
    Version(u8),
    #[error(
        "it comes from cluster {theirs}, this node's data belongs to cluster {ours}; if both should be one, start the \
         node that is to join with an empty DATA_DIR, if not, correct CLUSTERS"
    )]
    Foreign { ours: ClusterId, theirs: ClusterId },
    #[error("its peer record is unusable: {0}")]
    Record(&'static str),
    #[error("{PEERS_MAX} peers are remembered already")]
    Full,
    #[error("this node's record was renewed a moment ago")]
    RenewedLately,
    #[error("it does not fit into a packet")]
    TooLong,
}

/// Writes the envelope of a packet.
pub(super) fn put_envelope(cluster: Option<ClusterId>, packet: &mut impl BufMut) {
    packet.put_slice(&MAGIC);
    packet.put_u8(VERSION);
    packet.put_u64(cluster.map_or(0, |id| id.0));
}

/// Takes the envelope off; what is left is foca's.
pub(super) fn open_envelope(ours: Option<ClusterId>, mut packet: &[u8]) -> Result<&[u8], Refused> {
    if packet.len() < ENVELOPE_BYTES || packet.len() > PACKET_BYTES_MAX || packet[..2] != MAGIC {
        return Err(Refused::Malformed);
    }
    packet.advance(2);
    let version = packet.get_u8();
    if version != VERSION {
        return Err(Refused::Version(version));
    }
    let theirs = ClusterId(packet.get_u64());
    match ours {
        Some(ours) if theirs.0 != 0 && theirs != ours => Err(Refused::Foreign { ours, theirs }),
        _ => Ok(packet),
    }
}

/// Checks a peer's record: ours before we send it, another's before we believe it.
pub(super) fn check(peer: &Peer) -> Result<(), &'static str> {
    let ip = peer.gossip_address.ip();
    if peer.node == ANYONE {
        Err("its node id is 0")
    } else if peer.cluster == Some(ClusterId(0)) {
        Err("its cluster id is 0")
    } else if peer.name.is_empty() || peer.name.len() > NAME_BYTES_MAX {
        Err("its name has not 1 to 63 bytes")
    } else if peer.raft_address.len() > ADDRESS_BYTES_MAX {
        Err("its address has more than 259 bytes")
    } else if ip.is_unspecified() || ip.is_multicast() || peer.gossip_address.port() == 0 {
        Err("its gossip address cannot be sent to")
    } else {
        Ok(())
    }
}

/// Encodes and judges what foca says.
pub(super) struct PacketCodec(pub Arc<Mutex<Rules>>);

impl PacketCodec {
    fn rules(&self) -> MutexGuard<'_, Rules> {
        lock(&self.0)
    }
}

/// A header as it is sent: the receiver knows itself, so its key is enough.
#[derive(Serialize, Deserialize)]
struct WireHeader<P> {
    source: P,
    incarnation: Incarnation,
    receiver: Key,
    tag: u8,
    probe: u8,
    third: Option<P>,
}

/// A member as it is sent.
#[derive(Serialize, Deserialize)]
struct WireMember<P> {
    peer: P,
    incarnation: Incarnation,
    state: u8,
}

impl Codec<Id> for PacketCodec {
    type Error = Refused;

    fn encode_header(&mut self, header: &Header<Id>, buf: impl BufMut) -> Result<(), Refused> {
        let (tag, probe, third) = match &header.message {
            Message::Ping(probe) => (0, *probe, None),
            Message::Ack(probe) => (1, *probe, None),
            Message::PingReq { target, probe_number } => (2, *probe_number, Some(target)),
            Message::IndirectPing { origin, probe_number } => (3, *probe_number, Some(origin)),
            Message::IndirectAck { target, probe_number } => (4, *probe_number, Some(target)),
            Message::ForwardedAck { origin, probe_number } => (5, *probe_number, Some(origin)),
            Message::Announce => (6, 0, None),
            Message::Feed => (7, 0, None),
            Message::Gossip => (8, 0, None),
            Message::Broadcast => (9, 0, None),
            Message::TurnUndead => (10, 0, None),
        };
        let wire = WireHeader {
            source: &*header.src.0,
            incarnation: header.src_incarnation,
            receiver: header.dst.key(),
            tag,
            probe,
            third: third.map(|id| &*id.0),
        };
        put(&wire, buf)
    }

    fn decode_header(&mut self, buf: impl Buf) -> Result<Header<Id>, Refused> {
        let WireHeader { source, incarnation, receiver, tag, probe, third } = take::<WireHeader<Peer>>(buf)?;
        let rules = self.rules();
        for peer in std::iter::once(&source).chain(&third) {
            check(peer).map_err(Refused::Record)?;
            if rules.is_foreign(peer) || !rules.has_room_for(peer.node) {
                return Err(if rules.is_foreign(peer) {
                    Refused::Record("it belongs to another cluster")
                } else {
                    Refused::Full
                });
            }
        }
        let third = third.map(|peer| Id(Arc::new(peer)));
        let message = match (tag, third) {
            (0, None) => Message::Ping(probe),
            (1, None) => Message::Ack(probe),
            (2, Some(target)) => Message::PingReq { target, probe_number: probe },
            (3, Some(origin)) => Message::IndirectPing { origin, probe_number: probe },
            (4, Some(target)) => Message::IndirectAck { target, probe_number: probe },
            (5, Some(origin)) => Message::ForwardedAck { origin, probe_number: probe },
            (6, None) => Message::Announce,
            (7, None) => Message::Feed,
            (8, None) => Message::Gossip,
            (9, None) => Message::Broadcast,
            (10, None) => Message::TurnUndead,
            _ => return Err(Refused::Malformed),
        };
        if rules.renewed_lately && message == Message::TurnUndead {
            return Err(Refused::RenewedLately);
        }
        let dst = match &message {
            Message::Announce if receiver.node == ANYONE => rules.me.clone(),
            _ if receiver == rules.me.key() => rules.me.clone(),
            // Not for us, or for an older record of us; foca sees by the key that it is not.
            _ => Id(Arc::new(Peer {
                node: receiver.node,
                boot: receiver.boot,
                version: receiver.version,
                ..Peer::clone(&rules.me.0)
            })),
        };
        Ok(Header { src: Id(Arc::new(source)), src_incarnation: incarnation, dst, message })
    }

    fn encode_member(&mut self, member: &Member<Id>, buf: impl BufMut) -> Result<(), Refused> {
        let state = match member.state() {
            State::Alive => 0,
            State::Suspect => 1,
            State::Down => 2,
        };
        put(&WireMember { peer: &*member.id().0, incarnation: member.incarnation(), state }, buf)
    }

    fn decode_member(&mut self, buf: impl Buf) -> Result<Member<Id>, Refused> {
        let WireMember { peer, incarnation, state } = take::<WireMember<Peer>>(buf)?;
        let state = match state {
            0 => State::Alive,
            1 => State::Suspect,
            2 => State::Down,
            _ => return Err(Refused::Malformed),
        };
        check(&peer).map_err(Refused::Record)?;
        let rules = self.rules();
        let id = Id(Arc::new(peer));
        let is_unwanted = rules.is_foreign(&id.0)
            || !rules.has_room_for(id.0.node)
            || rules.renewed_lately && id == rules.me && state == State::Down;
        if is_unwanted {
            // The packet's other records are good. That we live ourselves is news to nobody: foca does nothing on it.
            return Ok(Member::alive(rules.me.clone()));
        }
        Ok(Member::new(id, incarnation, state))
    }
}

/// Reads a packet as an agent that knows nobody does, and forgets it.
pub fn parse_packet(packet: &[u8]) {
    let nobody = Peer {
        node: 1,
        boot: 1,
        version: 0,
        name: "nobody".to_owned(),
        cluster: None,
        gossip_address: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
        raft_address: String::new(),
    };
    let rules = Rules { me: Id(Arc::new(nobody)), known: BTreeSet::new(), renewed_lately: false };
    let mut codec = PacketCodec(Arc::new(Mutex::new(rules)));
    let Ok(mut message) = open_envelope(None, packet) else { return };
    if codec.decode_header(&mut message).is_ok() {
        while !message.is_empty() && codec.decode_member(&mut message).is_ok() {}
    }
}

/// Writes `value` whole, or nothing.
fn put<T: Serialize>(value: &T, mut buf: impl BufMut) -> Result<(), Refused> {
    let mut scratch = [0; PACKET_BYTES_MAX];
    let bytes = postcard::to_slice(value, &mut scratch).map_err(|_| Refused::TooLong)?;
    if bytes.len() > buf.remaining_mut() {
        return Err(Refused::TooLong);
    }
    buf.put_slice(bytes);
    Ok(())
}

/// Reads one value from the front.
fn take<T: DeserializeOwned>(mut buf: impl Buf) -> Result<T, Refused> {
    let (value, rest) = postcard::take_from_bytes::<T>(buf.chunk()).map_err(|_| Refused::Malformed)?;
    let rest = rest.len();
    buf.advance(buf.chunk().len() - rest);
    Ok(value)
}

#[cfg(test)]
mod tests;
