//! Which nodes a local cluster has, and what is said of it once it is ready.

use std::fmt::Write as _;
use std::path::Path;

use clap::Args as _;

use super::DevArgs;
use crate::config::ServeArgs;

/// The ports of the first node; each further node adds one.
const SERVER_PORT: u16 = 20001;
const RAFT_PORT: u16 = 50001;
const DISCOVERY_PORT: u16 = 50011;

/// A node of the local cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub name: String,
    /// Its data port, `host:port`.
    pub server: String,
    /// Its settings, by environment variable.
    pub settings: Vec<(&'static str, String)>,
}

/// The nodes to start.
pub(super) fn members(args: &DevArgs) -> Vec<Member> {
    let nodes = u16::from(args.nodes);
    let contacts: Vec<_> = (0..nodes).map(|i| format!("127.0.0.1:{}", DISCOVERY_PORT + i)).collect();
    let member = |i: u16| {
        let name = format!("node-{}", i + 1);
        let mut settings = vec![
            ("NODE_ID", name.clone()),
            ("DATA_DIR", args.data.join(&name).display().to_string()),
            ("BIND_HOST", "127.0.0.1".to_owned()),
            ("SERVER_PORT", (SERVER_PORT + i).to_string()),
            ("RAFT_PORT", (RAFT_PORT + i).to_string()),
            ("DISCOVERY_PORT", (DISCOVERY_PORT + i).to_string()),
            ("CLUSTERS", contacts.join(",")),
            ("LOG", args.log.clone()),
            ("STOP_WITH_STDIN", "true".to_owned()),
        ];
        settings.extend(args.policies.as_ref().map(|dir| ("POLICIES", dir.display().to_string())));
        Member { name, server: format!("127.0.0.1:{}", SERVER_PORT + i), settings }
    };
    (0..nodes).map(member).collect()
}

/// Every environment variable that a node reads.
pub(super) fn all_settings() -> Vec<String> {
    let command = ServeArgs::augment_args(clap::Command::new("ratelimiter"));
    let named = command.get_arguments().filter_map(|arg| arg.get_env()?.to_str().map(str::to_owned));
    named.chain(["RAFT_VOL_DIR".to_owned()]).collect()
}

/// What to tell once all nodes are ready: where they are, and lines to paste.
pub(super) fn banner(members: &[Member], policies: Option<&Path>) -> String {
    let mut text = String::from("\nThe cluster is ready.\n\n");
    for Member { name, server, .. } in members {
        let _ = writeln!(text, "  {name}  http://{server}");
    }
    let policies = policies.map_or_else(
        || "Every client has 10 requests a minute (DEFAULT_LIMIT).".to_owned(),
        |dir| format!("The policies of {} are in force.", dir.display()),
    );
    let _ = write!(text, "\n{policies} One quota holds across all nodes:\n\n");
    let server = |i: usize| &members[i % members.len()].server;
    let _ = writeln!(text, "  curl -X POST '{}/rate/increment?client_id=alice'", server(0));
    let _ = writeln!(text, "  curl -X POST '{}/rate/increment?client_id=alice'", server(1));
    let _ = writeln!(text, "  curl '{}/rate/check?client_id=alice'", server(2));
    let _ = writeln!(text, "  curl '{}/v1/policies'", server(0));
    let _ = writeln!(text, "  curl '{}/v1/cluster'", server(0));
    text.push_str("\nCtrl-C stops all nodes; their data stays.\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Machine, Settings};

    fn args(nodes: u8) -> DevArgs {
        DevArgs { nodes, data: "./data".into(), policies: None, log: "warn".to_owned() }
    }

    #[test]
    fn members_have_settings_of_their_own_and_share_contacts() {
        let members = members(&args(3));
        let last = &members[2];
        assert_eq!((last.name.as_str(), last.server.as_str()), ("node-3", "127.0.0.1:20003"));
        let setting =
            |name| last.settings.iter().find(|(setting, _)| *setting == name).map(|(_, value)| value.as_str());
        assert_eq!(setting("CLUSTERS"), Some("127.0.0.1:50011,127.0.0.1:50012,127.0.0.1:50013"));
        assert_eq!(setting("RAFT_PORT"), Some("50003"));
        assert_eq!(setting("DATA_DIR"), Some("./data/node-3"));
    }

    #[test]
    fn settings_of_every_member_are_ones_a_node_takes() {
        for member in members(&args(9)) {
            let flags = member.settings.iter().flat_map(|(setting, value)| {
                [format!("--{}", setting.to_ascii_lowercase().replace('_', "-")), value.clone()]
            });
            let command = ServeArgs::augment_args(clap::Command::new("ratelimiter").no_binary_name(true));
            let matches = command.try_get_matches_from(flags).unwrap();
            let args = <ServeArgs as clap::FromArgMatches>::from_arg_matches(&matches).unwrap();
            let settings = Settings::read(&args, &Machine::default()).unwrap();
            assert_eq!((settings.node_name, settings.bootstrap_expect), (member.name, 9));
        }
    }

    #[test]
    fn banner_shows_lines_to_paste_for_any_number_of_nodes() {
        for nodes in [1, 2, 3] {
            let banner = banner(&members(&args(nodes)), None);
            assert!(banner.contains("curl -X POST '127.0.0.1:20001/rate/increment?client_id=alice'"), "{banner}");
            assert_eq!(banner.matches("\n  node-").count(), usize::from(nodes));
        }
    }

    #[test]
    fn settings_around_the_command_are_kept_from_the_nodes() {
        let all = all_settings();
        for setting in ["NODE_ID", "BOOTSTRAP_EXPECT", "RAFT_VOL_DIR", "DEFAULT_LIMIT"] {
            assert!(all.iter().any(|known| known == setting), "{setting}");
        }
    }
}
