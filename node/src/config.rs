//! The node's settings: read from flags and environment variables, checked once, then trusted.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use quorate_limits::autopilot::Replacing;
use quorate_limits::{Algorithm, Enforcement, Limit, OnUnavailable, Policy, PolicyName, Settings as Founding};

mod args;
mod reader;

pub use args::ServeArgs;

use reader::Reader;

use crate::doors::connections::Bounds;
use crate::doors::http::DoorSettings;
use crate::gossip::ContactList;

/// The most nodes in `BOOTSTRAP_EXPECT`.
pub const NODES_MAX: usize = 64;
/// `DISK_RESERVE` unless given.
pub const DISK_RESERVE_DEFAULT: u64 = 64 << 20;
/// The most in `CONNECTIONS_MAX`.
pub const CONNECTIONS_MAX_MAX: usize = 1_000_000;
/// The least in `COUNTERS_MAX`: one for each of four policies.
pub const COUNTERS_MAX_MIN: u64 = 4;
/// The most in `COUNTERS_MAX`: about 80 GB.
pub const COUNTERS_MAX_MAX: u64 = 1_000_000_000;
/// The most bytes in a node's name.
pub const NODE_NAME_BYTES_MAX: usize = 63;

/// All settings of a node, each of them valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The member's name: 1 to 63 of `[A-Za-z0-9._-]`.
    pub node_name: String,
    /// Where each port listens.
    pub listen: Listen,
    /// Host that other nodes reach this one by; `None`: to be found.
    pub advertise_host: Option<String>,
    /// Where to look for the cluster; empty for a cluster of one.
    pub contacts: ContactList,
    /// How many nodes found the cluster; 0 waits for a call.
    pub bootstrap_expect: usize,
    /// The node's own folder.
    pub data_dir: PathBuf,
    /// Room on its disk that is kept in reserve, in bytes; 0 for none.
    pub disk_reserve: u64,
    /// The folder of policies.
    pub policies: Option<PathBuf>,
    /// The policy proposed when the cluster is founded.
    pub default_limit: Option<DefaultLimit>,
    /// What the HTTP doors do.
    pub doors: DoorSettings,
    /// The most connections to the data port.
    pub connections_max: usize,
    /// The most counters of a cluster that this node founds.
    pub counters_max: u64,
    /// What is logged, and how.
    pub log: LogSettings,
    /// Resolves the names in `contacts`; `None`: the system's resolver.
    pub dns_server: Option<SocketAddr>,
    /// How careful a lost disk is replaced.
    pub replacing: Replacing,
    /// How long connections are still accepted after SIGTERM.
    pub drain_delay: Duration,
    /// Whether the end of standard input stops the node.
    pub stop_with_stdin: bool,
}

/// Where a node listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen {
    /// HTTP for data, TCP.
    pub server: SocketAddr,
    /// HTTP for changes, TCP.
    pub admin: SocketAddr,
    /// Other nodes, TCP.
    pub raft: SocketAddr,
    /// Gossip, UDP.
    pub discovery: SocketAddr,
    /// Envoy's rate limit service, TCP.
    pub grpc: SocketAddr,
}

/// The domain of `GET /example`.
pub const BUCKET_DOMAIN: &str = "bucket";
/// The key of its descriptors; the value is the id of a bucket.
pub const BUCKET_KEY: &str = "api_id";

/// `DEFAULT_LIMIT`: what a client meets that no policy matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DefaultLimit {
    /// Hits per window, 0 to [`Limit::LIMIT_MAX`].
    pub limit: u64,
    /// 1 ms to 366 days.
    pub window: Duration,
}

impl DefaultLimit {
    /// The policy `quorate/default` of domain `default`, counted by `client_id`.
    #[must_use]
    pub fn policy(self) -> Policy {
        self.built_in("default", "client_id")
    }

    /// The policy of this name in namespace `quorate`, which meets what no other policy of the domain of that name matches.
    fn built_in(self, name: &str, count_by: &str) -> Policy {
        let limit = Limit {
            name: "default".to_owned(),
            algorithm: Algorithm::FixedWindow,
            limit: self.limit,
            window_ns: u64::try_from(self.window.as_nanos()).unwrap_or(Limit::WINDOW_NS_MAX),
            burst: self.limit,
        };
        Policy {
            name: PolicyName { namespace: "quorate".to_owned(), name: name.to_owned() },
            domain: name.to_owned(),
            matches: Vec::new(),
            count_by: vec![count_by.to_owned()],
            limits: vec![limit],
            overrides: Vec::new(),
            enforcement: Enforcement::Enforce,
            on_unavailable: OnUnavailable::Deny,
            fallback: true,
        }
    }
}

/// The policy `quorate/bucket` of domain [`BUCKET_DOMAIN`], counted by [`BUCKET_KEY`]: 100 requests in 60 s, as the API has
/// it that `/bucket` is made after.
#[must_use]
pub fn bucket_policy() -> Policy {
    DefaultLimit { limit: 100, window: Duration::from_mins(1) }.built_in(BUCKET_DOMAIN, BUCKET_KEY)
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// A filter that `tracing_subscriber`'s `EnvFilter` takes.
    pub filter: String,
    /// The form of a line.
    pub format: LogFormat,
}

/// The form of a line of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// A setting that cannot be used, and how to write it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingError {
    /// The environment variable.
    pub setting: &'static str,
    /// What is wrong, and what to write instead.
    pub message: String,
}

impl fmt::Display for SettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flag = self.setting.to_ascii_lowercase().replace('_', "-");
        write!(f, "{} (--{flag}): {}", self.setting, self.message)
    }
}

impl std::error::Error for SettingError {}

/// What the machine says about itself; settings fall back on it.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// The host name.
    pub host_name: Option<String>,
    /// `RAFT_VOL_DIR`, the other name of `DATA_DIR`.
    pub raft_vol_dir: Option<String>,
}

impl Machine {
    /// Asks this machine.
    #[must_use]
    pub fn find() -> Self {
        let host_name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok().or(std::env::var("HOSTNAME").ok());
        Self {
            host_name: host_name.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()),
            raft_vol_dir: std::env::var("RAFT_VOL_DIR").ok(),
        }
    }
}

impl Settings {
    /// Checks what was given and fills in the rest.
    ///
    /// # Errors
    /// Every setting that cannot be used.
    pub fn read(args: &ServeArgs, machine: &Machine) -> Result<Self, Vec<SettingError>> {
        let mut reader = Reader::default();
        let node_name = reader.node_name(args.node_id.as_deref(), machine.host_name.as_deref());
        let listen = read_listen(args, &mut reader);
        let contacts = reader.contacts(args.clusters.as_deref());
        let settings = Self {
            listen,
            advertise_host: reader.advertise_host(args.advertise_host.as_deref()),
            bootstrap_expect: reader.bootstrap_expect(args.bootstrap_expect.as_deref(), &contacts),
            contacts,
            data_dir: reader.data_dir(args.data_dir.as_deref(), machine.raft_vol_dir.as_deref(), &node_name),
            node_name,
            disk_reserve: reader.size("DISK_RESERVE", args.disk_reserve.as_deref(), DISK_RESERVE_DEFAULT),
            policies: reader::given(args.policies.as_deref()).map(PathBuf::from),
            default_limit: reader.default_limit(args.default_limit.as_deref()),
            doors: DoorSettings {
                rate_reset: reader.switch("RATE_RESET", args.rate_reset.as_deref(), true),
                authorize: reader.authorize(args.authorize_descriptors.as_deref()),
            },
            connections_max: reader.number(
                "CONNECTIONS_MAX",
                args.connections_max.as_deref(),
                1..=CONNECTIONS_MAX_MAX,
                Bounds::CONNECTIONS_MAX_DEFAULT,
            ),
            counters_max: reader.number(
                "COUNTERS_MAX",
                args.counters_max.as_deref(),
                COUNTERS_MAX_MIN..=COUNTERS_MAX_MAX,
                Founding::COUNTERS_MAX_DEFAULT,
            ),
            log: LogSettings {
                filter: reader.log_filter(args.log.as_deref()),
                format: reader.log_format(args.log_format.as_deref()),
            },
            dns_server: reader.dns_server(args.dns_server.as_deref()),
            replacing: read_replacing(args, &mut reader),
            drain_delay: reader.duration("DRAIN_DELAY", args.drain_delay.as_deref(), Duration::from_secs(10)),
            stop_with_stdin: reader.switch("STOP_WITH_STDIN", args.stop_with_stdin.as_deref(), false),
        };
        reader.finish(settings)
    }
}

fn read_replacing(args: &ServeArgs, reader: &mut Reader) -> Replacing {
    let Replacing { lost_after, interval } = Replacing::default();
    Replacing {
        lost_after: reader.duration("REPLACE_LOST_DISK_AFTER", args.replace_lost_disk_after.as_deref(), lost_after),
        interval: reader.duration("REPLACE_LOST_DISK_INTERVAL", args.replace_lost_disk_interval.as_deref(), interval),
    }
}

fn read_listen(args: &ServeArgs, reader: &mut Reader) -> Listen {
    let bind = reader.address("BIND_HOST", args.bind_host.as_deref(), Ipv4Addr::UNSPECIFIED.into());
    let admin_host = reader.address("ADMIN_HOST", args.admin_host.as_deref(), Ipv4Addr::LOCALHOST.into());
    let server = reader.port("SERVER_PORT", args.server_port.as_deref(), 20001);
    let raft = reader.port("RAFT_PORT", args.raft_port.as_deref(), 50001);
    let discovery = reader.port("DISCOVERY_PORT", args.discovery_port.as_deref(), 50011);
    let admin = reader.port_beside("ADMIN_PORT", args.admin_port.as_deref(), server, 100);
    let grpc = reader.port_beside("GRPC_PORT", args.grpc_port.as_deref(), server, 200);
    // Gossip is UDP, which shares no ports with TCP.
    reader.refuse_equal_ports(&[
        ("SERVER_PORT", server),
        ("RAFT_PORT", raft),
        ("ADMIN_PORT", admin),
        ("GRPC_PORT", grpc),
    ]);
    Listen {
        server: (bind, server).into(),
        admin: (admin_host, admin).into(),
        raft: (bind, raft).into(),
        discovery: (bind, discovery).into(),
        grpc: (bind, grpc).into(),
    }
}

#[cfg(test)]
mod tests;
