use std::net::SocketAddr;

use foca::Identity as _;
use proptest::prelude::*;

use super::*;

fn peer(node: u64, cluster: Option<u64>) -> Peer {
    Peer {
        node,
        boot: 1,
        version: 0,
        name: format!("node-{node}"),
        cluster: cluster.map(ClusterId),
        gossip_address: SocketAddr::from(([10, 0, 0, 1], 50011)),
        raft_address: "10.0.0.1:50001".into(),
    }
}

fn id(peer: Peer) -> Id {
    Id(Arc::new(peer))
}

fn codec(me: Peer, known: BTreeSet<u64>) -> PacketCodec {
    PacketCodec(Arc::new(Mutex::new(Rules { me: id(me), known, renewed_lately: false })))
}

fn header(src: Peer, dst: Peer, message: Message<Id>) -> Header<Id> {
    Header { src: id(src), src_incarnation: 3, dst: id(dst), message }
}

#[test]
fn headers_of_every_kind_come_back_as_they_were() {
    let third = || id(peer(3, Some(9)));
    for message in [
        Message::Ping(1),
        Message::Ack(2),
        Message::PingReq { target: third(), probe_number: 3 },
        Message::IndirectPing { origin: third(), probe_number: 4 },
        Message::IndirectAck { target: third(), probe_number: 5 },
        Message::ForwardedAck { origin: third(), probe_number: 6 },
        Message::Announce,
        Message::Feed,
        Message::Gossip,
        Message::Broadcast,
        Message::TurnUndead,
    ] {
        let sent = header(peer(2, Some(9)), peer(1, Some(9)), message);
        let mut packet = Vec::new();
        let mut codec = codec(peer(1, Some(9)), BTreeSet::new());
        codec.encode_header(&sent, &mut packet).unwrap();
        let mut rest = packet.as_slice();
        let read = codec.decode_header(&mut rest).unwrap();
        assert_eq!(read, sent);
        assert_eq!(*read.src.0, *sent.src.0, "the whole record, not only its key");
        assert!(rest.is_empty());
    }
}

#[test]
fn announcement_to_anyone_is_taken_as_ours_and_nothing_else_is() {
    let mut codec = codec(peer(1, None), BTreeSet::new());
    for (message, ours) in [(Message::Announce, true), (Message::Ping(1), false)] {
        let mut packet = Vec::new();
        let anyone = Peer { node: ANYONE, ..peer(1, None) };
        codec.encode_header(&header(peer(2, None), anyone, message), &mut packet).unwrap();
        let read = codec.decode_header(packet.as_slice()).unwrap();
        assert_eq!(read.dst.addr() == 1, ours);
    }
}

#[test]
fn envelope_of_another_cluster_is_refused_and_that_of_a_node_without_one_is_not() {
    for (theirs, ours, taken) in [
        (None, None, true),
        (None, Some(1), true),
        (Some(1), None, true),
        (Some(1), Some(1), true),
        (Some(2), Some(1), false),
    ] {
        let mut packet = Vec::new();
        put_envelope(theirs.map(ClusterId), &mut packet);
        packet.push(7);
        let opened = open_envelope(ours.map(ClusterId), &packet);
        assert_eq!(opened == Ok(&[7][..]), taken, "{theirs:?} {ours:?}");
    }
    assert_eq!(open_envelope(None, b"Qg"), Err(Refused::Malformed));
    assert_eq!(open_envelope(None, &[b'Q', b'g', 9, 0, 0, 0, 0, 0, 0, 0, 0]), Err(Refused::Version(9)));
    assert_eq!(open_envelope(None, &[0; PACKET_BYTES_MAX + 1]), Err(Refused::Malformed));
}

#[test]
fn member_of_another_cluster_becomes_news_without_effect() {
    let mut codec = codec(peer(1, Some(9)), BTreeSet::new());
    let mut packet = Vec::new();
    for cluster in [8, 9] {
        codec.encode_member(&Member::alive(id(peer(cluster, Some(cluster)))), &mut packet).unwrap();
    }
    let mut rest = packet.as_slice();
    assert_eq!(*codec.decode_member(&mut rest).unwrap().id().0, peer(1, Some(9)));
    assert_eq!(*codec.decode_member(&mut rest).unwrap().id().0, peer(9, Some(9)));
    assert!(rest.is_empty());

    packet.clear();
    codec.encode_header(&header(peer(8, Some(8)), peer(1, None), Message::Gossip), &mut packet).unwrap();
    assert!(codec.decode_header(packet.as_slice()).is_err());
}

#[test]
fn full_table_takes_known_nodes_only() {
    let mut codec = codec(peer(1, None), (1000..1000 + PEERS_MAX as u64).collect());
    for (node, taken) in [(1000, true), (5, false)] {
        let mut packet = Vec::new();
        codec.encode_member(&Member::alive(id(peer(node, None))), &mut packet).unwrap();
        assert_eq!(codec.decode_member(packet.as_slice()).unwrap().id().addr() == node, taken);
        packet.clear();
        codec.encode_header(&header(peer(node, None), peer(1, None), Message::Gossip), &mut packet).unwrap();
        assert_eq!(codec.decode_header(packet.as_slice()).is_ok(), taken);
    }
}

#[test]
fn unusable_records_are_refused() {
    type Spoil = fn(&mut Peer);
    let spoils: [Spoil; 7] = [
        |peer| peer.node = 0,
        |peer| peer.cluster = Some(ClusterId(0)),
        |peer| peer.name = String::new(),
        |peer| peer.name = "n".repeat(64),
        |peer| peer.raft_address = "a".repeat(260),
        |peer| peer.gossip_address.set_port(0),
        |peer| peer.gossip_address = "224.0.0.1:1".parse().unwrap(),
    ];
    for (i, spoil) in spoils.into_iter().enumerate() {
        let mut spoiled = peer(2, None);
        spoil(&mut spoiled);
        assert!(check(&spoiled).is_err(), "{i}");
        let mut packet = Vec::new();
        let mut codec = codec(peer(1, None), BTreeSet::new());
        codec.encode_member(&Member::alive(id(spoiled)), &mut packet).unwrap();
        assert!(codec.decode_member(packet.as_slice()).is_err(), "{i}");
    }
}

#[test]
fn largest_records_fit_into_a_packet_twice() {
    let mut large = peer(u64::MAX, Some(u64::MAX));
    large.boot = u64::MAX;
    large.version = u32::MAX;
    large.name = "n".repeat(NAME_BYTES_MAX);
    large.raft_address = "a".repeat(ADDRESS_BYTES_MAX);
    large.gossip_address = "[fd00::1]:65535".parse().unwrap();
    check(&large).unwrap();
    let message = Message::PingReq { target: id(large.clone()), probe_number: 255 };
    let mut packet = Vec::new();
    codec(peer(1, None), BTreeSet::new()).encode_header(&header(large.clone(), large, message), &mut packet).unwrap();
    assert!(packet.len() + ENVELOPE_BYTES <= PACKET_BYTES_MAX, "{}", packet.len());
}

#[test]
fn renewed_record_wins_and_higher_boot_wins_over_it() {
    let old = id(peer(1, None));
    let renewed = old.renew().unwrap();
    let rebooted = id(Peer { boot: 2, ..peer(1, None) });
    assert!(renewed.win_addr_conflict(&old) && !old.win_addr_conflict(&renewed));
    assert!(rebooted.win_addr_conflict(&renewed) && !renewed.win_addr_conflict(&rebooted));
    assert_eq!(id(Peer { version: u32::MAX, ..peer(1, None) }).renew(), None);
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..1500)) {
        let mut codec = codec(peer(1, None), BTreeSet::new());
        let _ = open_envelope(None, &bytes);
        let _ = codec.decode_header(bytes.as_slice());
        let _ = codec.decode_member(bytes.as_slice());
    }
}
