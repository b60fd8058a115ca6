//! `ratelimiter status`: the members of a cluster as one node sees them, and what becomes of them.

use std::fmt::Write as _;

use axum::body::Bytes;
use axum::http::Method;
use quorate_crds::api::{ClusterAnswer, IntentAction, IntentAnswer, MemberAnswer, Role};

use super::Failure;
use super::admin_client::{call, error_text};

/// Arguments of `ratelimiter status`.
#[derive(clap::Args, Clone, Debug)]
pub struct StatusArgs {
    /// The data port of a node
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:20001")]
    pub server: String,
    /// Fail, with the reason, unless this node is ready for requests: for health checks
    #[arg(long)]
    pub ready: bool,
}

pub(super) async fn run(args: &StatusArgs) -> Result<(), Failure> {
    if args.ready {
        let (status, body) = call(&args.server, Method::GET, "/ready", Bytes::new()).await.map_err(Failure::Failed)?;
        if !status.is_success() {
            return Err(Failure::Failed(error_text(status, &body)));
        }
    }
    let answer = call(&args.server, Method::GET, "/v1/cluster", Bytes::new()).await;
    let (status, body) = answer.map_err(Failure::Failed)?;
    if !status.is_success() {
        return Err(Failure::Failed(error_text(status, &body)));
    }
    let cluster: ClusterAnswer = serde_json::from_slice(&body)
        .map_err(|error| Failure::Failed(format!("{} is no limiter: {error}", args.server)))?;
    print!("{}", table(&cluster));
    Ok(())
}

fn table(cluster: &ClusterAnswer) -> String {
    if cluster.cluster_id.is_empty() {
        return "this node has not joined a cluster yet\n".to_owned();
    }
    let mut text = format!("cluster {}  term {}  revision {}\n", cluster.cluster_id, cluster.term, cluster.revision);
    let name_width = cluster.members.iter().map(|member| member.name.len()).max().unwrap_or(0).max(4);
    let mut line = |cells: [&str; 7]| {
        let [name, id, role, reachable, lag, revision, version] = cells;
        let row = format!("{name:name_width$}  {id:16}  {role:7}  {reachable:9}  {lag:>6}  {revision:>8}  {version}");
        let _ = writeln!(text, "{}", row.trim_end());
    };
    line(["NAME", "ID", "ROLE", "REACHABLE", "LAG", "REVISION", "VERSION"]);
    for member in &cluster.members {
        line([
            &member.name,
            &member.id.to_string(),
            role(cluster, member),
            if member.reachable { "yes" } else { "no" },
            &known(member.lag),
            &known(member.applied_revision),
            member.version.as_deref().unwrap_or("-"),
        ]);
    }
    text.push_str(&autopilot(cluster));
    text
}

/// What is to become of the members, a line each; nothing when all is as it should be.
fn autopilot(cluster: &ClusterAnswer) -> String {
    let mut text = String::new();
    for IntentAnswer { action: IntentAction::Decommission, member } in &cluster.intents {
        let name = cluster.members.iter().find(|other| other.id == *member).map_or("", |member| &member.name);
        let _ = writeln!(text, "to leave: {name} ({member})");
    }
    match &cluster.autopilot {
        Some(autopilot) => {
            if let Some(operation) = &autopilot.operation {
                let _ = writeln!(text, "autopilot: {operation}");
            }
            for wait in &autopilot.waits {
                let _ = writeln!(text, "autopilot waits: {}", wait.message);
            }
        }
        None if cluster.leader.is_none() => text.push_str("autopilot waits: there is no leader\n"),
        None => {}
    }
    text
}

fn role(cluster: &ClusterAnswer, member: &MemberAnswer) -> &'static str {
    match member.role {
        Role::Voter if cluster.leader == Some(member.id) => "Leader",
        Role::Voter => "Voter",
        Role::Learner => "Learner",
    }
}

fn known(value: Option<u64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use quorate_crds::api::{AutopilotAnswer, HexId, WaitAnswer};

    use super::*;

    #[test]
    fn table_shows_leader_and_what_is_unknown() {
        let member = |id, name: &str, role, lag| MemberAnswer {
            name: name.to_owned(),
            id: HexId(id),
            role,
            lag,
            applied_revision: lag.map(|_| 7),
            version: lag.map(|_| "0.1.0".to_owned()),
            reachable: lag.is_some(),
        };
        let cluster = ClusterAnswer {
            cluster_id: "00000000000000aa".to_owned(),
            node: HexId(2),
            leader: Some(HexId(1)),
            term: 3,
            revision: 7,
            members: vec![
                member(1, "node-1", Role::Voter, Some(0)),
                member(2, "node-2", Role::Voter, None),
                member(3, "node-3", Role::Learner, Some(120)),
            ],
            intents: vec![IntentAnswer { action: IntentAction::Decommission, member: HexId(2) }],
            autopilot: Some(AutopilotAnswer {
                operation: Some("removes node-2".to_owned()),
                waits: vec![WaitAnswer { reason: "CatchingUp".to_owned(), message: "node-3 catches up".to_owned() }],
            }),
        };
        let expected = "\
cluster 00000000000000aa  term 3  revision 7
NAME    ID                ROLE     REACHABLE     LAG  REVISION  VERSION
node-1  0000000000000001  Leader   yes             0         7  0.1.0
node-2  0000000000000002  Voter    no              -         -  -
node-3  0000000000000003  Learner  yes           120         7  0.1.0
to leave: node-2 (0000000000000002)
autopilot: removes node-2
autopilot waits: node-3 catches up
";
        assert_eq!(table(&cluster), expected);
        let alone = ClusterAnswer { cluster_id: String::new(), ..cluster };
        assert_eq!(table(&alone), "this node has not joined a cluster yet\n");
    }
}
