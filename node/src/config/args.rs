//! The settings as flags and environment variables, still unread.

#![allow(clippy::doc_markdown, reason = "these docs are the texts of --help")]

/// How to run a node. Every flag is an environment variable and the reverse; an empty value counts as unset.
// All are texts here, so that one place words every wrong value, and all wrong values are told at once.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct ServeArgs {
    /// The member's name, on Kubernetes the pod's [default: the host name]
    #[arg(long, env = "NODE_ID", value_name = "NAME", hide_env_values = true)]
    pub node_id: Option<String>,
    /// TCP port of the HTTP API [default: 20001]
    #[arg(long, env = "SERVER_PORT", value_name = "PORT", hide_env_values = true)]
    pub server_port: Option<String>,
    /// TCP port for the other nodes [default: 50001]
    #[arg(long, env = "RAFT_PORT", value_name = "PORT", hide_env_values = true)]
    pub raft_port: Option<String>,
    /// UDP port of the gossip that finds the other nodes [default: 50011]
    #[arg(long, env = "DISCOVERY_PORT", value_name = "PORT", hide_env_values = true)]
    pub discovery_port: Option<String>,
    /// TCP port for changes of policies and members [default: SERVER_PORT + 100]
    #[arg(long, env = "ADMIN_PORT", value_name = "PORT", hide_env_values = true)]
    pub admin_port: Option<String>,
    /// TCP port of Envoy's rate limit service, gRPC [default: SERVER_PORT + 200]
    #[arg(long, env = "GRPC_PORT", value_name = "PORT", hide_env_values = true)]
    pub grpc_port: Option<String>,
    /// The address all ports but the admin port listen on [default: 0.0.0.0]
    #[arg(long, env = "BIND_HOST", value_name = "ADDRESS", hide_env_values = true)]
    pub bind_host: Option<String>,
    /// The address the admin port listens on [default: 127.0.0.1]
    #[arg(long, env = "ADMIN_HOST", value_name = "ADDRESS", hide_env_values = true)]
    pub admin_host: Option<String>,
    /// Where the other nodes reach this one [default: the address it reaches them from]
    #[arg(long, env = "ADVERTISE_HOST", value_name = "HOST", hide_env_values = true)]
    pub advertise_host: Option<String>,
    /// Where to look for the cluster, this node included; a DNS name may stand for many and changing addresses
    /// [default: a cluster of one]
    #[arg(long, env = "CLUSTERS", value_name = "HOST:DISCOVERY_PORT,...", hide_env_values = true)]
    pub clusters: Option<String>,
    /// How many nodes found the cluster; 0 waits for POST /v1/cluster/bootstrap [default: the number of entries in
    /// CLUSTERS; required when CLUSTERS is one DNS name]
    #[arg(long, env = "BOOTSTRAP_EXPECT", value_name = "NODES", hide_env_values = true)]
    pub bootstrap_expect: Option<String>,
    /// The node's own folder; also RAFT_VOL_DIR [default: ./data/NODE_ID]
    #[arg(long, env = "DATA_DIR", value_name = "DIR", alias = "raft-vol-dir", hide_env_values = true)]
    pub data_dir: Option<String>,
    /// Room on the disk of DATA_DIR that is kept in reserve; with less the node does not lead. 0 for none
    /// [default: 64MiB]
    #[arg(long, env = "DISK_RESERVE", value_name = "SIZE", hide_env_values = true)]
    pub disk_reserve: Option<String>,
    /// A folder of QuotaPolicy YAML, read at start and on SIGHUP
    #[arg(long, env = "POLICIES", value_name = "DIR", hide_env_values = true)]
    pub policies: Option<String>,
    /// What a client meets that no policy matches, set when the cluster is founded: hits/window, or none
    /// [default: 10/60s]
    #[arg(long, env = "DEFAULT_LIMIT", value_name = "HITS/WINDOW", hide_env_values = true)]
    pub default_limit: Option<String>,
    /// Whether POST /rate/reset is served [default: true]
    #[arg(long, env = "RATE_RESET", value_name = "BOOL", hide_env_values = true)]
    pub rate_reset: Option<String>,
    /// What of a request's head /v1/authorize counts it by: key=header:NAME or key=uri, comma separated
    /// [default: client_id=header:X-Client-Id]
    #[arg(long, env = "AUTHORIZE_DESCRIPTORS", value_name = "KEY=SOURCE,...", hide_env_values = true)]
    pub authorize_descriptors: Option<String>,
    /// The most connections to the data port at once; further ones are refused [default: 20000]
    #[arg(long, env = "CONNECTIONS_MAX", value_name = "NUMBER", hide_env_values = true)]
    pub connections_max: Option<String>,
    /// The most counters a cluster holds, set when it is founded; one policy may have a quarter of them
    /// [default: 4000000]
    #[arg(long, env = "COUNTERS_MAX", value_name = "NUMBER", hide_env_values = true)]
    pub counters_max: Option<String>,
    /// What is logged: a level, or target=level, comma separated; openraft=info shows each step of consensus
    /// [default: info]
    #[arg(long, env = "LOG", value_name = "FILTER", hide_env_values = true)]
    pub log: Option<String>,
    /// text or json [default: text]
    #[arg(long, env = "LOG_FORMAT", value_name = "FORMAT", hide_env_values = true)]
    pub log_format: Option<String>,
    /// The DNS server that resolves the names in CLUSTERS [default: the system's]
    #[arg(long, env = "DNS_SERVER", value_name = "IP:PORT", hide_env_values = true)]
    pub dns_server: Option<String>,
    /// For how long a member must be silent before a node on an empty disk may take its place under its name
    /// [default: 10s]
    #[arg(long, env = "REPLACE_LOST_DISK_AFTER", value_name = "DURATION", hide_env_values = true)]
    pub replace_lost_disk_after: Option<String>,
    /// Between two replacements of lost disks, unless the lost member is decommissioned [default: 1h]
    #[arg(long, env = "REPLACE_LOST_DISK_INTERVAL", value_name = "DURATION", hide_env_values = true)]
    pub replace_lost_disk_interval: Option<String>,
    /// How long connections are still accepted after SIGTERM, or before a member leaves [default: 10s]
    #[arg(long, env = "DRAIN_DELAY", value_name = "DURATION", hide_env_values = true)]
    pub drain_delay: Option<String>,
    /// Drain as on SIGINT once standard input ends, so that a node never outlives who started it [default: false]
    #[arg(long, env = "STOP_WITH_STDIN", value_name = "BOOL", hide = true, hide_env_values = true)]
    pub stop_with_stdin: Option<String>,
}
