//! Contacts: `CLUSTERS` read, and resolved again and again.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _, join_all};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use tokio::time::Instant;

use super::Contacts;
use crate::sync::lock;

/// No list has more entries.
const ENTRIES_MAX: usize = 256;
/// Of one name's addresses no more are used.
const ADDRESSES_MAX: usize = 256;
/// How long one question to a name server may take; it is asked twice.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(1);
/// How often a name that does not resolve is logged.
const WARN_PERIOD: Duration = Duration::from_mins(1);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Host {
    Ip(IpAddr),
    Name(String),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Contact {
    host: Host,
    port: u16,
}

impl fmt::Display for Contact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(ip) => SocketAddr::new(*ip, self.port).fmt(f),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

/// What `CLUSTERS` says: `host:port,…`, where a host is an IPv4 address, an IPv6 address in brackets or a DNS name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContactList {
    entries: Vec<Contact>,
}

impl ContactList {
    /// The number of entries; a name counts once, however many addresses it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none: a cluster of one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether an entry is a DNS name, which may stand for many nodes.
    #[must_use]
    pub fn has_names(&self) -> bool {
        self.entries.iter().any(|contact| matches!(contact.host, Host::Name(_)))
    }
}

impl fmt::Display for ContactList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, contact) in self.entries.iter().enumerate() {
            write!(f, "{}{contact}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// Why a list of contacts cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "entry {position} of CLUSTERS, {entry:?}, {why}; write host:port, such as 10.0.0.1:50011, [fd00::1]:50011 or \
     node-1.example:50011, with commas between entries"
)]
pub struct ContactError {
    /// Which entry, counted from 1.
    pub position: usize,
    /// The entry as it was written.
    pub entry: String,
    /// What is wrong with it.
    pub why: &'static str,
}

impl FromStr for ContactList {
    type Err = ContactError;

    fn from_str(list: &str) -> Result<Self, ContactError> {
        let mut entries = Vec::new();
        if list.trim().is_empty() {
            return Ok(Self { entries });
        }
        for (i, entry) in list.split(',').map(str::trim).enumerate() {
            let error = |why| ContactError { position: i + 1, entry: entry.to_owned(), why };
            let contact = parse_contact(entry).map_err(error)?;
            if entries.contains(&contact) {
                return Err(error("is there twice"));
            }
            if i == ENTRIES_MAX {
                return Err(error("is the 257th, and 256 are enough to find the rest"));
            }
            entries.push(contact);
        }
        Ok(Self { entries })
    }
}

fn parse_contact(entry: &str) -> Result<Contact, &'static str> {
    if entry.is_empty() {
        return Err("is empty");
    }
    if entry.contains("://") {
        return Err("is a URL");
    }
    let (host, port) = match entry.strip_prefix('[') {
        Some(rest) => {
            let (ip, port) = rest.split_once(']').ok_or("has no closing bracket")?;
            let ip = ip.parse::<Ipv6Addr>().map_err(|_| "has no IPv6 address within its brackets")?;
            (Host::Ip(ip.into()), port.strip_prefix(':').ok_or("has no port")?)
        }
        None if entry.parse::<Ipv6Addr>().is_ok() || entry.matches(':').count() > 1 => {
            return Err("has an IPv6 address without brackets");
        }
        None => {
            let (host, port) = entry.split_once(':').ok_or("has no port")?;
            (parse_host(host)?, port)
        }
    };
    if !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("has a port that is no number");
    }
    match port.parse::<u16>() {
        Ok(0) | Err(_) => Err("has a port that is not within 1 to 65535"),
        Ok(port) => Ok(Contact { host, port }),
    }
}

fn parse_host(host: &str) -> Result<Host, &'static str> {
    if let Ok(ip) = host.parse::<Ipv4Addr>() {
        return Ok(Host::Ip(ip.into()));
    }
    if host.is_empty() {
        return Err("has no host");
    }
    if host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return Err("has no valid IPv4 address");
    }
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    if host.len() > 253 || !host.strip_suffix('.').unwrap_or(host).split('.').all(is_label) {
        return Err("has a host that is neither an IP address nor a DNS name");
    }
    Ok(Host::Name(host.to_ascii_lowercase()))
}

/// Contacts whose names are asked of DNS each time; nothing is kept between two questions.
#[derive(Clone)]
pub struct DnsContacts {
    list: ContactList,
    resolver: Option<TokioResolver>,
    warned: Arc<Mutex<BTreeMap<String, Instant>>>,
}

impl DnsContacts {
    /// Contacts of `list`. Names are asked of `server`, or as the system is configured to; `/etc/hosts` comes first.
    ///
    /// # Errors
    /// When there are names, no `server` is given, and the system's configuration cannot be read.
    pub fn new(list: ContactList, server: Option<SocketAddr>) -> io::Result<Self> {
        let resolver = if list.has_names() { Some(resolver(server)?) } else { None };
        Ok(Self { list, resolver, warned: Arc::default() })
    }

    async fn addresses_of(&self, contact: &Contact) -> Vec<SocketAddr> {
        let name = match &contact.host {
            Host::Ip(ip) => return vec![SocketAddr::new(*ip, contact.port)],
            Host::Name(name) => name,
        };
        let Some(resolver) = &self.resolver else { return Vec::new() };
        match resolver.lookup_ip(name.as_str()).await {
            Ok(found) => found.iter().take(ADDRESSES_MAX).map(|ip| SocketAddr::new(ip, contact.port)).collect(),
            Err(error) => {
                self.warn(name, &error);
                Vec::new()
            }
        }
    }

    fn warn(&self, name: &str, error: &dyn fmt::Display) {
        let now = Instant::now();
        let mut warned = lock(&self.warned);
        if warned.get(name).is_none_or(|last| now - *last >= WARN_PERIOD) {
            warned.insert(name.to_owned(), now);
            tracing::warn!(name, %error, "a contact of CLUSTERS does not resolve; it is left out until it does");
        }
    }
}

impl fmt::Debug for DnsContacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DnsContacts").field("list", &self.list).finish_non_exhaustive()
    }
}

impl Contacts for DnsContacts {
    fn resolve(&self) -> BoxFuture<'static, Vec<SocketAddr>> {
        let contacts = self.clone();
        async move {
            let lookups = contacts.list.entries.iter().map(|contact| contacts.addresses_of(contact));
            let mut addresses: Vec<_> = join_all(lookups).await.into_iter().flatten().collect();
            addresses.sort_unstable();
            addresses.dedup();
            addresses
        }
        .boxed()
    }
}

fn resolver(server: Option<SocketAddr>) -> io::Result<TokioResolver> {
    let mut builder = match server {
        None => TokioResolver::builder_tokio().map_err(|error| {
            io::Error::other(format!(
                "cannot read the system's DNS configuration ({error}); name a server in DNS_SERVER"
            ))
        })?,
        Some(server) => {
            let mut name_server = NameServerConfig::udp_and_tcp(server.ip());
            for connection in &mut name_server.connections {
                connection.port = server.port();
            }
            let config = ResolverConfig::from_parts(None, Vec::new(), vec![name_server]);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        }
    };
    let options = builder.options_mut();
    options.cache_size = 0;
    options.timeout = LOOKUP_TIMEOUT;
    options.attempts = 2;
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.use_hosts_file = ResolveHosts::Always;
    builder.build().map_err(|error| io::Error::other(format!("cannot start to resolve names: {error}")))
}

/// Addresses for documentation, which nobody has (RFC 5737, RFC 3849): the way to them is the way to anywhere.
const ANYWHERE: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9),
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), 9),
];

/// The address others reach this node at: `bind` itself if it is one. For 0.0.0.0 or `::` the one this machine would
/// send from to the first of `resolved`, the addresses of its contacts, that it has a route to. While none of them
/// resolves (a headless service has no address before its first pod has one), the one it would send from to anywhere
/// else; never loopback, which others would take for themselves. Without contacts, loopback.
///
/// # Errors
/// When there are contacts but no route, and when no socket can be made.
pub fn advertise_host(bind: IpAddr, contacts: &ContactList, resolved: &[SocketAddr]) -> io::Result<IpAddr> {
    if !bind.is_unspecified() {
        return Ok(bind);
    }
    if contacts.is_empty() {
        return Ok(if bind.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    for contact in resolved.iter().chain(&ANYWHERE).filter(|contact| bind.is_ipv6() || contact.is_ipv4()) {
        // Connecting a UDP socket sends nothing; it only asks the routing table.
        let any: IpAddr = if contact.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0))?;
        if socket.connect(contact).is_ok() {
            return socket.local_addr().map(|address| address.ip());
        }
    }
    Err(io::Error::other("no contact in CLUSTERS resolves and there is no route to elsewhere; set ADVERTISE_HOST"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_printed_alike() {
        for list in
            ["10.0.0.1:50011", "[fd00::1]:50011,node-1:50012", "node-0.nodes.shop.svc.cluster.local.:1", "a_b:65535"]
        {
            let read: ContactList = list.parse().unwrap();
            assert_eq!(read.to_string(), list);
        }
        assert!("  ".parse::<ContactList>().unwrap().is_empty());
        let read: ContactList = " 10.0.0.1:1 , Node-1:2".parse().unwrap();
        assert_eq!((read.to_string().as_str(), read.len(), read.has_names()), ("10.0.0.1:1,node-1:2", 2, true));
        assert!(!"10.0.0.1:1,[::1]:2".parse::<ContactList>().unwrap().has_names());
    }

    #[test]
    fn wrong_entries_are_named_and_explained() {
        for (list, position, why) in [
            ("10.0.0.1", 1, "has no port"),
            ("a:1,b", 2, "has no port"),
            ("a:1,", 2, "is empty"),
            ("a:1,,b:2", 2, "is empty"),
            (":1", 1, "has no host"),
            ("a:", 1, "not within"),
            ("a:x", 1, "no number"),
            ("a:+1", 1, "no number"),
            ("a:0", 1, "not within"),
            ("a:65536", 1, "not within"),
            ("fd00::1", 1, "without brackets"),
            ("fd00::1:50011", 1, "without brackets"),
            ("[fd00::1", 1, "no closing bracket"),
            ("[fd00::1]", 1, "has no port"),
            ("[fd00::x]:1", 1, "no IPv6 address"),
            ("[10.0.0.1]:1", 1, "no IPv6 address"),
            ("10.0.0.256:1", 1, "no valid IPv4"),
            ("10.0.1:1", 1, "no valid IPv4"),
            ("http://a:1", 1, "is a URL"),
            ("a..b:1", 1, "neither an IP address nor a DNS name"),
            ("a b:1", 1, "neither an IP address nor a DNS name"),
            ("a:1,A:1", 2, "is there twice"),
        ] {
            let error = list.parse::<ContactList>().unwrap_err();
            assert_eq!(error.position, position, "{list}: {error}");
            assert!(error.why.contains(why), "{list}: {error}");
            assert!(error.to_string().contains("write host:port"), "{error}");
        }
    }

    #[tokio::test]
    async fn addresses_need_no_name_server() {
        let list: ContactList = "10.0.0.2:2,10.0.0.1:1,[::1]:3".parse().unwrap();
        let found = DnsContacts::new(list, None).unwrap().resolve().await;
        let expected: Vec<SocketAddr> =
            vec!["10.0.0.1:1".parse().unwrap(), "10.0.0.2:2".parse().unwrap(), "[::1]:3".parse().unwrap()];
        assert_eq!(found, expected);
    }

    #[tokio::test]
    async fn localhost_needs_no_answering_name_server() {
        // A name server that never answers.
        let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let contacts = DnsContacts::new("localhost:7".parse().unwrap(), silent.local_addr().ok()).unwrap();
        let found = contacts.resolve().await;
        assert!(found.contains(&"127.0.0.1:7".parse().unwrap()), "{found:?}");
    }

    #[test]
    fn advertised_host_is_the_one_bound_or_the_one_routed_to() {
        let any = Ipv4Addr::UNSPECIFIED.into();
        let loopback: IpAddr = Ipv4Addr::LOCALHOST.into();
        let bound: IpAddr = "10.1.2.3".parse().unwrap();
        let alone = ContactList::default();
        let contacts = "localhost:9".parse().unwrap();
        assert_eq!(advertise_host(bound, &alone, &[]).unwrap(), bound);
        assert_eq!(advertise_host(any, &alone, &[]).unwrap(), loopback);
        assert_eq!(advertise_host(any, &contacts, &["127.0.0.1:9".parse().unwrap()]).unwrap(), loopback);
    }

    #[test]
    fn contacts_do_not_resolve_yet_the_host_advertised_is_never_loopback() {
        let contacts = "limiter-peers.default.svc:50011".parse().unwrap();
        let loopback: IpAddr = Ipv4Addr::LOCALHOST.into();
        // On a machine without any route it is refused instead.
        assert_ne!(advertise_host(Ipv4Addr::UNSPECIFIED.into(), &contacts, &[]).ok(), Some(loopback));
    }
}
