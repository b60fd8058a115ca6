use std::collections::BTreeSet;

use clap::{Args as _, CommandFactory as _};

use super::*;

fn machine() -> Machine {
    Machine { host_name: Some("host-1".to_owned()), raft_vol_dir: None }
}

fn with(change: impl FnOnce(&mut ServeArgs)) -> ServeArgs {
    let mut args = ServeArgs::default();
    change(&mut args);
    args
}

fn read(change: impl FnOnce(&mut ServeArgs)) -> Result<Settings, Vec<String>> {
    Settings::read(&with(change), &machine()).map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

fn refusal(change: impl FnOnce(&mut ServeArgs)) -> String {
    let errors = read(change).unwrap_err();
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors[0].clone()
}

#[allow(clippy::unnecessary_wraps, reason = "what the arguments hold")]
fn text(value: &str) -> Option<String> {
    Some(value.to_owned())
}

#[test]
fn nothing_set_gives_the_defaults() {
    let settings = read(|_| {}).unwrap();
    let expected = Settings {
        node_name: "host-1".to_owned(),
        listen: Listen {
            server: "0.0.0.0:20001".parse().unwrap(),
            admin: "127.0.0.1:20101".parse().unwrap(),
            raft: "0.0.0.0:50001".parse().unwrap(),
            discovery: "0.0.0.0:50011".parse().unwrap(),
            grpc: "0.0.0.0:20201".parse().unwrap(),
        },
        advertise_host: None,
        contacts: ContactList::default(),
        bootstrap_expect: 1,
        data_dir: "./data/host-1".into(),
        policies: None,
        default_limit: Some(DefaultLimit { limit: 10, window: Duration::from_mins(1) }),
        doors: DoorSettings::default(),
        connections_max: 20_000,
        counters_max: 4_000_000,
        log: LogSettings { filter: "info".to_owned(), format: LogFormat::Text },
        dns_server: None,
        replacing: Replacing { lost_after: Duration::from_secs(10), interval: Duration::from_hours(1) },
        drain_delay: Duration::from_secs(10),
        disk_reserve: 64 << 20,
        stop_with_stdin: false,
    };
    assert_eq!(settings, expected);
}

#[test]
fn every_flag_is_an_environment_variable_of_the_same_name() {
    let command = ServeArgs::augment_args(clap::Command::new("ratelimiter"));
    let flags: Vec<_> = command.get_arguments().filter(|arg| arg.get_long().is_some()).collect();
    assert_eq!(flags.len(), 26);
    for arg in flags {
        let flag = arg.get_long().unwrap();
        assert_eq!(arg.get_env().unwrap().to_str().unwrap(), flag.to_ascii_uppercase().replace('-', "_"));
    }
    crate::cli::Cli::command().debug_assert();
}

#[test]
fn empty_value_counts_as_unset() {
    let settings = read(|args| {
        args.node_id = text("");
        args.server_port = text(" ");
        args.clusters = text("");
        args.default_limit = text("");
    });
    assert_eq!(settings, read(|_| {}));
}

#[test]
fn ports_follow_the_server_port() {
    let settings = read(|args| args.server_port = text("20003")).unwrap();
    assert_eq!(settings.listen.admin, "127.0.0.1:20103".parse().unwrap());
    assert_eq!(settings.listen.grpc.port(), 20203);
    let errors = read(|args| args.server_port = text("65500")).unwrap_err();
    assert_eq!(
        errors,
        [
            "ADMIN_PORT (--admin-port): SERVER_PORT + 100 is beyond 65535; name a port, as in ADMIN_PORT=20101",
            "GRPC_PORT (--grpc-port): SERVER_PORT + 200 is beyond 65535; name a port, as in GRPC_PORT=20201",
        ]
    );
}

#[test]
fn wrong_port_is_refused_by_name() {
    for wrong in ["0", "-1", "65536", "http", "20001.0"] {
        assert_eq!(
            refusal(|args| args.raft_port = text(wrong)),
            format!(
                "RAFT_PORT (--raft-port): {wrong:?} is no port; write a number from 1 to 65535, as in RAFT_PORT=50001"
            )
        );
    }
}

#[test]
fn equal_tcp_ports_are_refused_and_udp_stands_apart() {
    assert_eq!(
        refusal(|args| args.raft_port = text("20101")),
        "ADMIN_PORT (--admin-port): 20101 is the port of RAFT_PORT too; give each a port of its own"
    );
    assert!(read(|args| args.discovery_port = text("50001")).is_ok());
}

#[test]
fn node_name_is_bounded() {
    for good in ["a", "node-1", "A.b_c-9", &"x".repeat(63)] {
        assert_eq!(read(|args| args.node_id = text(good)).unwrap().node_name, good);
    }
    for bad in ["..", ".", "a/b", "a b", "é", &"x".repeat(64)] {
        let error = refusal(|args| args.node_id = text(bad));
        assert!(error.starts_with(&format!("NODE_ID (--node-id): {bad:?} is no name for a node;")), "{error}");
    }
}

#[test]
fn missing_host_name_asks_for_a_name() {
    let errors = Settings::read(&ServeArgs::default(), &Machine::default()).unwrap_err();
    assert_eq!(
        errors[0].to_string(),
        "NODE_ID (--node-id): this machine tells no host name; name the node, as in NODE_ID=node-1"
    );
}

#[test]
fn contacts_are_addresses_and_names() {
    let settings = read(|args| args.clusters = text("10.0.0.7:50011, [::1]:50012,node-3.local:50013")).unwrap();
    assert_eq!(settings.contacts.to_string(), "10.0.0.7:50011,[::1]:50012,node-3.local:50013");
    assert_eq!(settings.bootstrap_expect, 3);
}

#[test]
fn wrong_contact_is_refused_by_its_place() {
    let error = refusal(|args| args.clusters = text("10.0.0.7:50011,10.0.0.8"));
    assert!(
        error.starts_with("CLUSTERS (--clusters): entry 2, \"10.0.0.8\", has no port; write HOST:DISCOVERY_PORT"),
        "{error}"
    );
}

#[test]
fn one_dns_name_needs_bootstrap_expect() {
    let error = refusal(|args| args.clusters = text("limiter.shop.svc:50011"));
    assert!(error.starts_with("BOOTSTRAP_EXPECT (--bootstrap-expect): CLUSTERS is the one DNS name"), "{error}");
    for (clusters, expect) in [("127.0.0.1:1", 1), ("localhost:1", 1), ("[::1]:1", 1), ("a:1,b:1", 2)] {
        assert_eq!(read(|args| args.clusters = text(clusters)).unwrap().bootstrap_expect, expect, "{clusters}");
    }
    let settings = read(|args| {
        args.clusters = text("limiter.shop.svc:50011");
        args.bootstrap_expect = text("5");
    });
    assert_eq!(settings.unwrap().bootstrap_expect, 5);
}

#[test]
fn bootstrap_expect_is_a_number_of_nodes() {
    assert_eq!(read(|args| args.bootstrap_expect = text("0")).unwrap().bootstrap_expect, 0);
    for wrong in ["-1", "three", "65"] {
        let error = refusal(|args| {
            args.clusters = text("a:1,b:1");
            args.bootstrap_expect = text(wrong);
        });
        assert!(error.contains(&format!("{wrong:?} is no number of nodes")), "{error}");
    }
    let error = refusal(|args| args.bootstrap_expect = text("3"));
    assert!(error.contains("3 nodes cannot find each other without contacts"), "{error}");
}

#[test]
fn data_dir_has_two_names_that_must_agree() {
    let read = |dir: Option<&str>, other: Option<&str>| {
        let machine = Machine { raft_vol_dir: other.map(str::to_owned), ..machine() };
        Settings::read(&with(|args| args.data_dir = dir.map(str::to_owned)), &machine).map(|s| s.data_dir)
    };
    assert_eq!(read(Some("/a"), None).unwrap(), PathBuf::from("/a"));
    assert_eq!(read(None, Some("/b")).unwrap(), PathBuf::from("/b"));
    assert_eq!(read(Some("/a"), Some("/a")).unwrap(), PathBuf::from("/a"));
    assert_eq!(
        read(Some("/a"), Some("/b")).unwrap_err()[0].to_string(),
        "DATA_DIR (--data-dir): is \"/a\", but its other name RAFT_VOL_DIR says \"/b\"; unset one of them"
    );
}

#[test]
fn default_limit_is_hits_per_window_or_none() {
    let limit = |value: &str| read(|args| args.default_limit = text(value)).unwrap().default_limit;
    assert_eq!(limit("none"), None);
    assert_eq!(limit("0/1h30m"), Some(DefaultLimit { limit: 0, window: Duration::from_mins(90) }));
    for wrong in ["10", "10/60", "/60s", "-1/60s", "10/0s", "10/9000h", "1000000000000001/1s", "None", "10/60s/2"] {
        let error = refusal(|args| args.default_limit = text(wrong));
        assert!(
            error.starts_with(&format!("DEFAULT_LIMIT (--default-limit): {wrong:?} is no limit; write")),
            "{error}"
        );
    }
}

#[test]
fn default_limit_becomes_the_fallback_policy() {
    let policy = DefaultLimit { limit: 10, window: Duration::from_mins(1) }.policy();
    assert_eq!((policy.name.namespace.as_str(), policy.name.name.as_str()), ("quorate", "default"));
    assert!(policy.fallback);
    assert_eq!(policy.limits[0].window_ns, 60_000_000_000);
}

#[test]
fn hosts_are_addresses() {
    assert_eq!(
        read(|args| args.bind_host = text("localhost")).unwrap().listen.raft,
        "127.0.0.1:50001".parse().unwrap()
    );
    assert_eq!(read(|args| args.admin_host = text("[::1]")).unwrap().listen.admin, "[::1]:20101".parse().unwrap());
    let error = refusal(|args| args.bind_host = text("node-1"));
    assert!(error.starts_with("BIND_HOST (--bind-host): \"node-1\" is no address of this machine;"), "{error}");
    assert_eq!(read(|args| args.advertise_host = text("node-1.x")).unwrap().advertise_host, text("node-1.x"));
    for wrong in ["0.0.0.0", "::", "a:1", "a/b"] {
        let error = refusal(|args| args.advertise_host = text(wrong));
        assert!(error.contains(&format!("{wrong:?} is no host that others can reach")), "{error}");
    }
}

#[test]
fn remaining_settings_are_read() {
    let settings = read(|args| {
        args.rate_reset = text("false");
        args.authorize_descriptors = text("path=uri");
        args.log = text("warn, quorate_node=debug");
        args.log_format = text("json");
        args.dns_server = text("127.0.0.1:5353");
        args.drain_delay = text("0s");
        args.replace_lost_disk_after = text("5s");
        args.replace_lost_disk_interval = text("10m");
        args.stop_with_stdin = text("true");
        args.policies = text("policies");
    })
    .unwrap();
    assert!(!settings.doors.rate_reset && settings.stop_with_stdin);
    assert_eq!(settings.doors.authorize.to_string(), "path=uri");
    let log = LogSettings { filter: "warn,quorate_node=debug".to_owned(), format: LogFormat::Json };
    assert_eq!(settings.log, log);
    assert_eq!(settings.dns_server, "127.0.0.1:5353".parse().ok());
    assert_eq!(settings.drain_delay, Duration::ZERO);
    let replacing = Replacing { lost_after: Duration::from_secs(5), interval: Duration::from_mins(10) };
    assert_eq!(settings.replacing, replacing);
    assert_eq!(settings.policies, Some("policies".into()));
    assert_eq!(read(|args| args.dns_server = text("10.0.0.10")).unwrap().dns_server, "10.0.0.10:53".parse().ok());
}

#[test]
fn sizes_are_read_with_their_units_and_anything_else_is_refused() {
    for (given, bytes) in [("0", 0), ("0MiB", 0), ("3KiB", 3 << 10), ("64 MiB", 64 << 20), ("2GiB", 2 << 30)] {
        assert_eq!(read(|args| args.disk_reserve = text(given)).unwrap().disk_reserve, bytes, "{given}");
    }
    for given in ["64", "64MB", "-1MiB", "MiB", "1.5GiB", "99999999999999999999GiB", "18446744073709551615KiB"] {
        let errors = read(|args| args.disk_reserve = text(given)).unwrap_err();
        assert!(errors[0].contains("is no size") && errors[0].contains("DISK_RESERVE=64MiB"), "{given}: {errors:?}");
    }
}

#[test]
fn wrong_values_are_told_all_at_once() {
    let errors = read(|args| {
        args.rate_reset = text("yes");
        args.authorize_descriptors = text("client_id=cookie:id");
        args.log = text("inof");
        args.log_format = text("xml");
        args.dns_server = text("dns.local");
        args.drain_delay = text("10");
    })
    .unwrap_err();
    let settings: Vec<_> = errors.iter().map(|error| error.split(' ').next().unwrap()).collect();
    assert_eq!(
        settings,
        ["RATE_RESET", "AUTHORIZE_DESCRIPTORS", "LOG", "LOG_FORMAT", "DNS_SERVER", "DRAIN_DELAY"],
        "{errors:#?}"
    );
}

#[test]
fn number_out_of_bounds_is_refused_with_what_is_allowed() {
    assert_eq!(read(|args| args.connections_max = text("1000000")).unwrap().connections_max, 1_000_000);
    for wrong in ["0", "1000001", "-1", "many", "1e3"] {
        assert_eq!(
            refusal(|args| args.connections_max = text(wrong)),
            format!(
                "CONNECTIONS_MAX (--connections-max): {wrong:?} is no number from 1 to 1000000; write one, as in \
                 CONNECTIONS_MAX=20000"
            )
        );
    }
    assert_eq!(read(|args| args.counters_max = text("4")).unwrap().counters_max, 4);
    assert_eq!(
        refusal(|args| args.counters_max = text("3")),
        "COUNTERS_MAX (--counters-max): \"3\" is no number from 4 to 1000000000; write one, as in COUNTERS_MAX=4000000"
    );
}

#[test]
fn every_setting_is_documented() {
    let command = ServeArgs::augment_args(clap::Command::new("ratelimiter"));
    let settings: BTreeSet<_> = command.get_arguments().map(|arg| arg.get_env().unwrap().to_str().unwrap()).collect();
    let heading = |line: &'static str| line.strip_prefix("#### `")?.strip_suffix('`');
    let page = include_str!("../../../docs/configuration.md");
    assert_eq!(page.lines().filter_map(heading).collect::<BTreeSet<_>>(), settings, "docs/configuration.md");
}
