//! The agent under the simulator, and over real sockets.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::codec::{Id, PEERS_MAX, PacketCodec, Rules, put_envelope};
use super::*;
use crate::platform::{Platform, Tokio};

mod net;

use net::{Fixed, Net, Sent, Sim, now, simulate};

const CLUSTER: Option<ClusterId> = Some(ClusterId(7));

fn address(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, n], 50011))
}

fn peer(node: u8, boot: u64, gossip_address: SocketAddr) -> Peer {
    Peer {
        node: node.into(),
        boot,
        version: 0,
        name: format!("node-{node}"),
        cluster: CLUSTER,
        gossip_address,
        raft_address: format!("{}:50001", gossip_address.ip()),
    }
}

/// Three contacts, of which a test starts what it likes.
fn contacts() -> Fixed {
    Fixed(Arc::new(Mutex::new((1..=3).map(address).collect())))
}

fn start(net: &Arc<Net>, me: Peer) -> Arc<Gossip<Sim>> {
    start_with(net, me, &[address(1), address(2), address(3)])
}

fn start_with(net: &Arc<Net>, me: Peer, contacts: &[SocketAddr]) -> Arc<Gossip<Sim>> {
    let port = net.open(me.gossip_address);
    Gossip::start(me, port, Arc::new(Fixed(Arc::new(Mutex::new(contacts.to_vec()))))).unwrap()
}

fn start_three(net: &Arc<Net>) -> Vec<Arc<Gossip<Sim>>> {
    (1..=3).map(|n| start(net, peer(n, 1, address(n)))).collect()
}

fn nodes<P: Platform>(gossip: &Gossip<P>) -> Vec<u64> {
    gossip.peers().iter().map(|peer| peer.node).collect()
}

/// Waits until `found` holds for `gossip`.
async fn until<P: Platform>(gossip: &Gossip<P>, what: &str, found: impl Fn(&Gossip<P>) -> bool + Send + Sync) {
    let wait = async {
        let mut seen = gossip.generation();
        while !found(gossip) {
            seen = gossip.changed(seen).await;
        }
    };
    assert!(P::timeout(Duration::from_mins(1), wait).await.is_some(), "waited in vain until {what}: {gossip:?}");
}

async fn until_all_know_all<P: Platform>(all: &[Arc<Gossip<P>>]) {
    for gossip in all {
        until(gossip, "all are known", |gossip| gossip.peers().len() == all.len()).await;
    }
}

#[test]
fn three_nodes_find_each_other_and_itself_is_first() {
    simulate(1, async {
        let net = Arc::default();
        let all = start_three(&net);
        until_all_know_all(&all).await;
        assert_eq!(nodes(&all[1]), [2, 1, 3]);
        assert_eq!(all[0].peers()[2], peer(3, 1, address(3)));
        assert_eq!(all[0].address_of(3).as_deref(), Some("10.0.0.3:50001"));
        assert_eq!(all[0].address_of(4), None);
        assert!(all[0].is_alive(1) && all[0].is_alive(3) && !all[0].is_alive(4));
    });
}

#[test]
fn stopped_node_goes_down_and_its_address_is_still_known() {
    simulate(2, async {
        let net = Arc::default();
        let all = start_three(&net);
        until_all_know_all(&all).await;
        all[2].stop();
        for gossip in &all[..2] {
            until(gossip, "node 3 is down", |gossip| !gossip.is_alive(3)).await;
            assert_eq!(gossip.address_of(3).as_deref(), Some("10.0.0.3:50001"));
            assert_eq!(gossip.peers().len(), 2);
        }
    });
}

#[test]
fn leaving_node_is_down_before_anyone_could_suspect_it() {
    simulate(3, async {
        let net = Arc::default();
        let all = start_three(&net);
        until_all_know_all(&all).await;
        let latest = now() + Duration::from_millis(100);
        all[2].leave().await;
        for gossip in &all[..2] {
            until(gossip, "node 3 left", |gossip| !gossip.is_alive(3)).await;
        }
        assert!(now() < latest);
    });
}

#[test]
fn node_restarted_at_another_address_is_found_within_two_seconds() {
    for seed in 0..10 {
        simulate(seed, async {
            let net = Arc::default();
            let all = start_three(&net);
            until_all_know_all(&all).await;
            all[2].stop();
            let latest = now() + Duration::from_secs(2);
            let again = start(&net, peer(3, 2, address(13)));
            for gossip in &all[..2] {
                until(gossip, "node 3 is back", |gossip| gossip.address_of(3).as_deref() == Some("10.0.0.13:50001"))
                    .await;
                assert!(gossip.is_alive(3));
            }
            until(&again, "it knows the others", |gossip| nodes(gossip) == [3, 1, 2]).await;
            assert!(now() < latest);
        });
    }
}

#[test]
fn changed_record_reaches_the_others_and_nobody_is_thought_down_meanwhile() {
    simulate(4, async {
        let net = Arc::new(Net::lossy(20));
        let all: Vec<_> = (1..=3).map(|n| start(&net, Peer { cluster: None, ..peer(n, 1, address(n)) })).collect();
        until_all_know_all(&all).await;
        for gossip in &all {
            gossip.update(|me| me.cluster = CLUSTER).unwrap();
            assert_eq!(gossip.peers()[0].cluster, CLUSTER);
        }
        for gossip in &all {
            let all_have_it = |gossip: &Gossip<Sim>| gossip.peers().iter().all(|peer| peer.cluster == CLUSTER);
            until(gossip, "all have a cluster", all_have_it).await;
            assert_eq!(gossip.peers().len(), 3);
        }
    });
}

#[test]
fn unusable_record_is_refused_at_start_and_in_updates() {
    simulate(5, async {
        let net: Arc<Net> = Arc::default();
        let long = Peer { name: "n".repeat(64), ..peer(1, 1, address(1)) };
        let error = Gossip::<Sim>::start(long, net.open(address(1)), Arc::new(contacts())).unwrap_err();
        assert!(error.to_string().contains("its name"), "{error}");
        let gossip = start(&net, peer(1, 1, address(1)));
        assert!(gossip.update(|me| me.raft_address = "a".repeat(300)).is_err());
        gossip.update(|me| me.node = 99).unwrap();
        assert_eq!(gossip.peers(), [peer(1, 1, address(1))]);
    });
}

#[test]
fn nodes_of_two_clusters_ignore_each_other() {
    simulate(6, async {
        let net = Arc::default();
        let ours = [start(&net, peer(1, 1, address(1))), start(&net, peer(2, 1, address(2)))];
        let foreign = start(&net, Peer { cluster: Some(ClusterId(8)), ..peer(3, 1, address(3)) });
        // It belongs to no cluster yet, hears both, and must not introduce them to each other.
        let empty = start(&net, Peer { cluster: None, ..peer(4, 1, address(4)) });
        until(&ours[0], "the empty node is known", |gossip| gossip.is_alive(4)).await;
        until(&empty, "it hears both clusters", |gossip| gossip.peers().len() == 4).await;
        Sim::sleep(Duration::from_mins(1)).await;
        assert_eq!((nodes(&ours[0]), nodes(&ours[1])), (vec![1, 2, 4], vec![2, 1, 4]));
        assert_eq!(nodes(&foreign), [3, 4]);
        assert!(ours[0].counts().foreign > 0 && foreign.counts().foreign > 0);

        empty.update(|me| me.cluster = CLUSTER).unwrap();
        until(&empty, "it is of our cluster", |gossip| gossip.peers().len() == 3).await;
        until(&foreign, "it is gone from the other", |gossip| gossip.peers().len() == 1).await;
    });
}

#[test]
fn node_that_only_sends_to_another_cluster_hears_whose_it_is_and_no_echo_goes_on() {
    simulate(7, async {
        let net: Arc<Net> = Arc::default();
        // None of ours has the foreign node among its contacts.
        let ours = start_with(&net, peer(1, 1, address(1)), &[address(1)]);
        let foreign = start_with(&net, Peer { cluster: Some(ClusterId(8)), ..peer(3, 1, address(3)) }, &[address(1)]);
        Sim::sleep(Duration::from_secs(3)).await;
        assert!(foreign.counts().foreign > 0, "it hears of the other cluster");
        net.sent.lock().unwrap().clear();
        Sim::sleep(Duration::from_secs(10)).await;
        assert!(net.sent.lock().unwrap().len() <= 30, "no more than an announcement and its echo each second");
        assert_eq!((nodes(&ours), nodes(&foreign)), (vec![1], vec![3]));
    });
}

#[test]
fn node_on_an_older_disk_is_not_believed_and_causes_no_storm() {
    simulate(13, async {
        let net: Arc<Net> = Arc::default();
        let all: Vec<_> = (1..=3).map(|n| start(&net, peer(n, 9, address(n)))).collect();
        until_all_know_all(&all).await;
        all[2].stop();
        let older = start(&net, peer(3, 8, address(13)));
        until(&all[0], "node 3 is down", |gossip| !gossip.is_alive(3)).await;
        net.sent.lock().unwrap().clear();
        Sim::sleep(Duration::from_mins(1)).await;
        let sent = net.sent.lock().unwrap().len();
        assert!(sent < 60 * 100, "{sent} packets in a minute");
        assert_eq!(all[0].address_of(3).as_deref(), Some("10.0.0.3:50001"));
        assert!(!all[0].is_alive(3) && !all[1].is_alive(3));
        drop(older);
    });
}

#[test]
fn cut_network_heals_without_contacts() {
    simulate(7, async {
        let net: Arc<Net> = Arc::default();
        let contacts = contacts();
        let start = |n| {
            let me = peer(n, 1, address(n));
            Gossip::<Sim>::start(me, net.open(address(n)), Arc::new(contacts.clone())).unwrap()
        };
        let all: Vec<_> = (1..=3).map(start).collect();
        until_all_know_all(&all).await;
        net.cut_off(&[address(3)]);
        contacts.0.lock().unwrap().clear();
        until(&all[2], "it is alone", |gossip| gossip.peers().len() == 1).await;
        until(&all[0], "node 3 is down", |gossip| !gossip.is_alive(3)).await;
        Sim::sleep(Duration::from_secs(30)).await;
        net.cut_off(&[]);
        until_all_know_all(&all).await;
    });
}

#[test]
fn lossy_network_keeps_everyone_alive() {
    simulate(8, async {
        let net = Arc::new(Net::lossy(10));
        let all = start_three(&net);
        until_all_know_all(&all).await;
        let before: Vec<_> = all.iter().map(|gossip| gossip.generation()).collect();
        Sim::sleep(Duration::from_mins(10)).await;
        let after: Vec<_> = all.iter().map(|gossip| gossip.generation()).collect();
        assert_eq!(before, after, "nothing changed");
    });
}

/// All packets and all views of a cluster whose third node restarts, on a bad network.
fn story(seed: u64) -> (Vec<Sent>, Vec<Vec<Peer>>) {
    simulate(seed, async {
        let net = Arc::new(Net::lossy(10));
        let mut all = start_three(&net);
        Sim::sleep(Duration::from_secs(5)).await;
        all.remove(2).stop();
        Sim::sleep(Duration::from_secs(5)).await;
        all.push(start(&net, peer(3, 2, address(13))));
        Sim::sleep(Duration::from_secs(5)).await;
        let sent = std::mem::take(&mut *net.sent.lock().unwrap());
        (sent, all.iter().map(|gossip| gossip.peers()).collect())
    })
}

#[test]
fn two_runs_of_one_seed_are_the_same_to_the_byte() {
    let (first, second) = (story(11), story(11));
    assert!(first.0.len() > 100);
    let difference = first.0.iter().zip(&second.0).position(|(a, b)| a != b);
    assert_eq!(difference, None, "first packet that differs");
    assert_eq!(first, second);
    assert_ne!(first.0, story(12).0);
}

/// A packet of node `source` to node 1 that tells of `members`.
fn forged(source: &Peer, members: impl Iterator<Item = Peer>) -> Bytes {
    use foca::Codec as _;
    let me = Id(Arc::new(peer(1, 1, address(1))));
    let mut codec =
        PacketCodec(Arc::new(Mutex::new(Rules { me: me.clone(), known: BTreeSet::new(), renewed_lately: false })));
    let mut packet = bytes::BytesMut::new();
    put_envelope(CLUSTER, &mut packet);
    let message = foca::Message::Gossip;
    let header = foca::Header { src: Id(Arc::new(source.clone())), src_incarnation: 0, dst: me, message };
    codec.encode_header(&header, &mut packet).unwrap();
    let members: Vec<_> = members.collect();
    packet.extend_from_slice(&u16::try_from(members.len()).unwrap().to_be_bytes());
    for member in members {
        codec.encode_member(&foca::Member::alive(Id(Arc::new(member))), &mut packet).unwrap();
    }
    packet.freeze()
}

#[test]
fn flood_of_invented_peers_is_bounded_and_harms_no_known_one() {
    simulate(9, async {
        let net: Arc<Net> = Arc::default();
        let all = start_three(&net);
        until_all_know_all(&all).await;
        let enemy = peer(66, 1, address(66));
        for n in 0..500 {
            let invented = (0..10).map(|i| Peer { node: 1000 + n * 10 + i, ..peer(99, 1, address(99)) });
            net.carry(enemy.gossip_address, address(1), forged(&enemy, invented));
        }
        until(&all[0], "it is full", |gossip| gossip.peers().len() >= PEERS_MAX).await;
        assert!(all[0].peers().len() <= PEERS_MAX + 20, "{}", all[0].peers().len());
        Sim::sleep(Duration::from_mins(1)).await;
        assert!(all.iter().all(|gossip| (1..=3).all(|n| gossip.is_alive(n))));
        let again = start(&net, peer(3, 2, address(13)));
        until(&again, "a known node may come back", |gossip| gossip.is_alive(1)).await;
    });
}

#[test]
fn damaged_packets_do_no_harm() {
    simulate(10, async {
        let net: Arc<Net> = Arc::default();
        let all = start_three(&net);
        until_all_know_all(&all).await;
        let sent: Vec<_> = net.sent.lock().unwrap().clone();
        for (_, from, to, packet) in sent.iter().cycle().take(2000) {
            let random = Sim::random();
            let mut damaged = packet.to_vec();
            let at = usize::try_from(random % packet.len() as u64).unwrap();
            if random & 1 << 40 == 0 {
                damaged.truncate(at);
            } else {
                damaged[at] ^= random.to_be_bytes()[0];
            }
            net.carry(*from, *to, damaged.into());
        }
        Sim::sleep(Duration::from_mins(1)).await;
        assert!(all[0].counts().malformed > 0);
        // Damage may have renamed a node or moved its address; all that is asked is that the agents still work.
        let all: Vec<_> = (1..=3).map(|n| start(&net, peer(n, 1 << 60, address(n)))).collect();
        for gossip in &all {
            until(gossip, "all are known", |gossip| (1..=3).all(|n| gossip.is_alive(n))).await;
        }
    });
}

async fn start_udp(node: u8, boot: u64, contacts: &Fixed) -> Arc<Gossip<Tokio>> {
    let datagrams = UdpDatagrams::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = datagrams.local_addr().unwrap();
    contacts.0.lock().unwrap().push(address);
    Gossip::start(peer(node, boot, address), Arc::new(datagrams), Arc::new(contacts.clone())).unwrap()
}

#[tokio::test]
async fn nodes_on_udp_find_each_other_lose_one_and_find_it_again_at_another_port() {
    let contacts = Fixed::default();
    let all = [start_udp(1, 1, &contacts).await, start_udp(2, 1, &contacts).await, start_udp(3, 1, &contacts).await];
    until_all_know_all(&all).await;
    all[0].update(|me| me.raft_address = "elsewhere:1".into()).unwrap();
    let knows_it = |gossip: &Gossip<Tokio>| gossip.peers().iter().any(|peer| peer.raft_address == "elsewhere:1");
    until(&all[1], "the new record is known", knows_it).await;
    all[2].stop();
    until(&all[0], "node 3 is down", |gossip| !gossip.is_alive(3)).await;
    let again = start_udp(3, 2, &contacts).await;
    until(&all[0], "node 3 is back", |gossip| gossip.peers().iter().any(|peer| peer.boot == 2)).await;
    until(&again, "it knows all", |gossip| nodes(gossip) == [3, 1, 2]).await;
}

#[tokio::test]
async fn oversized_datagram_is_refused_and_the_agent_goes_on() {
    let contacts = Fixed::default();
    let gossip = start_udp(1, 1, &contacts).await;
    let target = gossip.peers()[0].gossip_address;
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(&[0; 9000], target).await.unwrap();
    socket.send_to(&[], target).await.unwrap();
    let other = start_udp(2, 1, &contacts).await;
    until(&other, "the first is known", |gossip| gossip.is_alive(1)).await;
    assert_eq!(gossip.counts().malformed, 2);
}
