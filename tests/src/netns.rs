//! A network of the test's own: a network namespace for each node, a bridge between them, and faults on its links.
//!
//! It is made within the namespace that the test runs in, which `make test-faults` has made for it: were the machine's own
//! network changed, a test that fails could leave it so.

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::cluster::Place;

/// The test's own address on every such network; no fault cuts it off, since clients ask from there.
const TEST_HOST: u8 = 254;

/// Namespaces on one bridge. All of it is removed when dropped.
#[derive(Debug)]
pub struct Net {
    number: u32,
    hosts: u8,
}

impl Net {
    /// A network of as many hosts, numbered from 0.
    ///
    /// # Panics
    /// Not in a network namespace of the test's own, or not as root.
    #[must_use]
    pub fn of(hosts: u8) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let routes = std::fs::read_to_string("/proc/self/net/route").expect("a system with a network");
        let is_foreign = routes.lines().skip(1).any(|route| !route.starts_with("qb"));
        assert!(!is_foreign, "this test changes the network it runs in: run it by `make test-faults`");
        let net = Self { number: NEXT.fetch_add(1, Ordering::Relaxed), hosts };
        let bridge = net.bridge();
        ip(&format!("link add {bridge} type bridge"));
        ip(&format!("addr add {}/24 dev {bridge}", net.address(TEST_HOST)));
        ip(&format!("link set {bridge} up"));
        for host in 0..hosts {
            let (namespace, outside) = (net.namespace(host), format!("{bridge}h{host}"));
            ip(&format!("netns add {namespace}"));
            ip(&format!("link add {outside} type veth peer name eth0 netns {namespace}"));
            ip(&format!("link set {outside} master {bridge} up"));
            ip(&format!("-n {namespace} addr add {}/24 dev eth0", net.address(host + 1)));
            ip(&format!("-n {namespace} link set eth0 up"));
            ip(&format!("-n {namespace} link set lo up"));
        }
        net.heal();
        net
    }

    fn bridge(&self) -> String {
        format!("qb{}n{}", std::process::id(), self.number)
    }

    fn namespace(&self, host: u8) -> String {
        format!("{}-{host}", self.bridge())
    }

    fn address(&self, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, self.number.to_le_bytes()[0], last)
    }

    /// Where nodes are to live.
    #[must_use]
    pub fn places(&self) -> Vec<Place> {
        let place = |host: u8| Place {
            address: self.address(host + 1),
            launcher: ["/sbin/ip", "netns", "exec", &self.namespace(host)].map(ToOwned::to_owned).to_vec(),
        };
        (0..self.hosts).map(place).collect()
    }

    /// Drops what goes `from` one host `to` another.
    pub fn cut(&self, from: usize, to: usize) {
        let [from, to] = [from, to].map(|host| u8::try_from(host).expect("a host's number"));
        nft(&self.namespace(to), &format!("add rule inet faults input ip saddr {} drop", self.address(from + 1)));
    }

    /// What a host sends is slow (so many kbit a second, behind a queue of up to half a second), and between it and the
    /// other hosts so many packets of a hundred are lost, each way.
    pub fn hinder(&self, host: usize, kilobits: u32, lost_percent: u32) {
        let namespace = self.namespace(u8::try_from(host).expect("a host's number"));
        let test = self.address(TEST_HOST);
        let lost = format!("numgen random mod 100 < {lost_percent} drop");
        nft(&namespace, &format!("add rule inet faults input ip saddr != {test} {lost}"));
        nft(&namespace, &format!("add rule inet faults output ip daddr != {test} {lost}"));
        let shape = format!("root tbf rate {kilobits}kbit burst 16kb latency 500ms");
        run("tc", &format!("-n {namespace} qdisc replace dev eth0 {shape}"), "");
    }

    /// Mends everything.
    pub fn heal(&self) {
        for host in 0..self.hosts {
            let namespace = self.namespace(host);
            let rules = "table inet faults\ndelete table inet faults\ntable inet faults {\n\
                chain input { type filter hook input priority 0; }\n\
                chain output { type filter hook output priority 0; }\n}\n";
            nft(&namespace, rules);
            run("tc", &format!("-n {namespace} qdisc replace dev eth0 root pfifo"), "");
        }
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        // The ends of the links go with their namespaces, whose processes are gone: the cluster is dropped before.
        for host in 0..self.hosts {
            ip(&format!("netns del {}", self.namespace(host)));
        }
        ip(&format!("link del {}", self.bridge()));
    }
}

fn ip(words: &str) {
    run("ip", words, "");
}

fn nft(namespace: &str, rules: &str) {
    run("ip", &format!("netns exec {namespace} nft -f -"), rules);
}

fn run(program: &str, words: &str, input: &str) {
    let mut command = Command::new(program);
    command.args(words.split_whitespace()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}; run `make test-faults`"));
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("it reads its input");
    let output = child.wait_with_output().expect("it ends");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {words} <<< {input:?}: {errors}");
}
