//! A DNS server for tests: it answers what the test told it last, so that addresses can change under a running node.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA};
use hickory_proto::rr::{Name, RData, Record, RecordType};

/// Long, so that a client that keeps answers is found out.
const TTL_SECONDS: u32 = 3600;

type Names = HashMap<Name, Vec<IpAddr>>;

/// A DNS server over UDP. It stops when it is dropped.
#[derive(Debug)]
pub struct DnsServer {
    address: SocketAddr,
    names: Arc<Mutex<Names>>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl DnsServer {
    /// Starts a server that knows no name yet. `bind` may have port 0.
    #[must_use]
    pub fn start(bind: SocketAddr) -> Self {
        let socket = UdpSocket::bind(bind).unwrap();
        let address = socket.local_addr().unwrap();
        let names: Arc<Mutex<Names>> = Arc::default();
        let stopping: Arc<AtomicBool> = Arc::default();
        let thread = std::thread::spawn({
            let (names, stopping) = (Arc::clone(&names), Arc::clone(&stopping));
            move || serve(&socket, &names, &stopping)
        });
        Self { address, names, stopping, thread: Some(thread) }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on `name` has these addresses; without any it exists and has none.
    pub fn set(&self, name: &str, addresses: Vec<IpAddr>) {
        self.names.lock().unwrap().insert(parse(name), addresses);
    }

    /// From now on `name` does not exist.
    pub fn remove(&self, name: &str) {
        self.names.lock().unwrap().remove(&parse(name));
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        // Any datagram wakes it.
        let waker = UdpSocket::bind((self.address.ip(), 0)).unwrap();
        waker.send_to(&[], self.address).unwrap();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn parse(name: &str) -> Name {
    let mut name = Name::from_ascii(name).unwrap().to_lowercase();
    name.set_fqdn(true);
    name
}

fn serve(socket: &UdpSocket, names: &Mutex<Names>, stopping: &AtomicBool) {
    let mut buffer = [0; 4096];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).unwrap();
        if stopping.load(Ordering::SeqCst) {
            return;
        }
        if let Ok(question) = Message::from_vec(&buffer[..length]) {
            let answer = answer(question, &names.lock().unwrap());
            // The client may have gone.
            let _ = socket.send_to(&answer.to_vec().unwrap(), from);
        }
    }
}

fn answer(question: Message, names: &Names) -> Message {
    let mut answer = question.into_response();
    answer.metadata.authoritative = true;
    answer.metadata.recursion_available = true;
    let Some(query) = answer.queries.first().cloned() else { return answer };
    let Some(addresses) = names.get(&query.name().to_lowercase()) else {
        answer.metadata.response_code = ResponseCode::NXDomain;
        return answer;
    };
    let records = addresses.iter().filter_map(|address| match (address, query.query_type()) {
        (IpAddr::V4(ip), RecordType::A) => Some(RData::A(A(*ip))),
        (IpAddr::V6(ip), RecordType::AAAA) => Some(RData::AAAA(AAAA(*ip))),
        _ => None,
    });
    let records: Vec<_> = records.map(|data| Record::from_rdata(query.name().clone(), TTL_SECONDS, data)).collect();
    answer.add_answers(records);
    answer
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use quorate_node::gossip::{Contacts as _, DnsContacts, Gossip, Peer, UdpDatagrams};
    use quorate_node::platform::Tokio;

    use super::*;

    fn start() -> DnsServer {
        DnsServer::start(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    fn addresses(list: &[&str]) -> Vec<SocketAddr> {
        list.iter().map(|address| address.parse().unwrap()).collect()
    }

    #[tokio::test]
    async fn changed_names_are_resolved_anew_and_unknown_ones_left_out() {
        let dns = start();
        let list = "Nodes.test:5,10.0.0.9:6,gone.test:7".parse().unwrap();
        let contacts = DnsContacts::new(list, Some(dns.address())).unwrap();
        assert_eq!(contacts.resolve().await, addresses(&["10.0.0.9:6"]));
        dns.set("nodes.test", vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()]);
        assert_eq!(contacts.resolve().await, addresses(&["10.0.0.1:5", "10.0.0.9:6", "[fd00::1]:5"]));
        dns.set("nodes.test", vec!["10.0.0.3".parse().unwrap(), "10.0.0.2".parse().unwrap()]);
        assert_eq!(contacts.resolve().await, addresses(&["10.0.0.2:5", "10.0.0.3:5", "10.0.0.9:6"]));
        dns.set("nodes.test", Vec::new());
        assert_eq!(contacts.resolve().await, addresses(&["10.0.0.9:6"]));
        dns.remove("nodes.test");
        assert_eq!(contacts.resolve().await, addresses(&["10.0.0.9:6"]));
        let many: Vec<IpAddr> = (1..=40).map(|n| Ipv4Addr::new(10, 0, 1, n).into()).collect();
        dns.set("nodes.test", many);
        assert_eq!(contacts.resolve().await.len(), 41);
    }

    /// A node on 127.0.0.`host`, whose only contact is the name `nodes.test`.
    async fn node(dns: &DnsServer, node: u64, boot: u64, host: u8, port: u16) -> Arc<Gossip<Tokio>> {
        let datagrams = UdpDatagrams::bind(SocketAddr::from(([127, 0, 0, host], port))).await.unwrap();
        let me = Peer {
            node,
            boot,
            version: 0,
            name: format!("node-{node}"),
            cluster: None,
            gossip_address: datagrams.local_addr().unwrap(),
            raft_address: format!("127.0.0.{host}:1"),
        };
        let port = me.gossip_address.port();
        let contacts = DnsContacts::new(format!("nodes.test:{port}").parse().unwrap(), Some(dns.address())).unwrap();
        Gossip::start(me, Arc::new(datagrams), Arc::new(contacts)).unwrap()
    }

    async fn until(gossip: &Gossip<Tokio>, found: impl Fn(&Gossip<Tokio>) -> bool) {
        let mut seen = gossip.generation();
        while !found(gossip) {
            seen = gossip.changed(seen).await;
        }
    }

    #[tokio::test]
    async fn nodes_that_come_and_move_are_found_by_a_name_whose_addresses_change() {
        let dns = start();
        let first = node(&dns, 1, 1, 1, 0).await;
        let port = first.peers()[0].gossip_address.port();
        let second = node(&dns, 2, 1, 2, port).await;
        let host = |n| IpAddr::from([127, 0, 0, n]);
        dns.set("nodes.test", vec![host(1), host(2)]);
        until(&first, |gossip| gossip.is_alive(2)).await;
        until(&second, |gossip| gossip.is_alive(1)).await;

        // The second moves, and only its new address is known to DNS.
        second.stop();
        let moved = node(&dns, 2, 2, 3, port).await;
        dns.set("nodes.test", vec![host(1), host(3)]);
        until(&first, |gossip| gossip.address_of(2).as_deref() == Some("127.0.0.3:1")).await;
        until(&moved, |gossip| gossip.is_alive(1)).await;
    }
}
