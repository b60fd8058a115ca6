//! `ratelimiter dev`: a cluster of processes on this machine, to try things out.
//!
//! Each child holds the read end of a pipe as its standard input and drains when that ends. So no child outlives this
//! process, whatever ends it.

#![allow(clippy::doc_markdown, reason = "these docs are the texts of --help")]

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{Method, StatusCode};
use quorate_crds::api::{OwnerName, PolicyList};
use quorate_crds::read_directory;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use super::Failure;
use super::admin_client::call;

mod plan;

use plan::{Member, banner, members};

/// Between two questions whether a node is ready.
const READY_PAUSE: Duration = Duration::from_millis(100);
/// How long to wait for the policies of the files before saying that the cluster is ready without them.
const POLICIES_GRACE: Duration = Duration::from_secs(5);
/// How long a child may take to drain before it is killed.
const DRAIN_GRACE: Duration = Duration::from_secs(10);

/// Arguments of `ratelimiter dev`.
#[derive(clap::Args, Clone, Debug)]
pub struct DevArgs {
    /// How many nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
    pub nodes: u8,
    /// Where the nodes keep their data, a folder each
    #[arg(long, value_name = "DIR", default_value = "./data")]
    pub data: PathBuf,
    /// A folder of QuotaPolicy YAML for the cluster
    #[arg(long, value_name = "DIR")]
    pub policies: Option<PathBuf>,
    /// What the nodes log
    #[arg(long, value_name = "FILTER", default_value = "warn")]
    pub log: String,
}

/// Runs the cluster until it is interrupted or a node ends.
pub(super) async fn run(args: &DevArgs) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::Failed(error.to_string());
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let members = members(args);
    let policies = match &args.policies {
        Some(dir) => {
            read_directory(dir).map_err(|errors| Failure::Wrong(errors.iter().map(ToString::to_string).collect()))?
        }
        None => Vec::new(),
    };
    let program = std::env::current_exe().map_err(failed)?;
    let mut running = Vec::with_capacity(members.len());
    for member in &members {
        match Running::start(&program, member) {
            Ok(child) => running.push(child),
            Err(error) => {
                end(running).await;
                return Err(Failure::Failed(format!("{} cannot be started: {error}", member.name)));
            }
        }
    }
    let mut is_announced = false;
    let result = loop {
        tokio::select! {
            biased;
            _ = interrupt.recv() => break Ok(()),
            _ = terminate.recv() => break Ok(()),
            ended = first_to_end(&mut running) => {
                let (index, how) = ended;
                break Err(Failure::Failed(format!("{} ended ({how}); stopping the others", members[index].name)));
            }
            () = all_ready(&members, policies.len()), if !is_announced => {
                println!("{}", banner(&members, args.policies.as_deref()));
                is_announced = true;
            }
        }
    };
    end(running).await;
    result
}

/// A child process.
struct Running {
    child: Child,
    /// It drains once this is dropped.
    leash: Option<ChildStdin>,
}

impl Running {
    fn start(program: &Path, member: &Member) -> io::Result<Self> {
        let mut command = Command::new(program);
        // What is set around this process is meant for a single node.
        for setting in plan::all_settings() {
            command.env_remove(setting);
        }
        command.envs(member.settings.iter().map(|(setting, value)| (setting, value)));
        // In its own group an interrupt at the terminal reaches this process alone, which passes it on once.
        command.process_group(0).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        if let Some(stream) = child.stdout.take() {
            tokio::spawn(prefixed(member.name.clone(), stream));
        }
        if let Some(stream) = child.stderr.take() {
            tokio::spawn(prefixed(member.name.clone(), stream));
        }
        // Taken out, because waiting for the child would close it.
        let leash = child.stdin.take();
        Ok(Self { child, leash })
    }
}

/// Passes a child's lines on under its name, until it ends.
async fn prefixed(name: String, stream: impl AsyncRead + Unpin) {
    let mut lines = BufReader::new(stream).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        eprintln!("{name} | {line}");
    }
}

/// Waits until all nodes are ready and, for a while, until the policies of the files are in force: they are not when
/// another owner holds one of them, which the nodes' logs tell.
async fn all_ready(members: &[Member], policies: usize) {
    for member in members {
        let is_ready = || async {
            let answer = call(&member.server, Method::GET, "/ready", Bytes::new()).await;
            answer.is_ok_and(|(status, _)| status == StatusCode::OK)
        };
        while !is_ready().await {
            tokio::time::sleep(READY_PAUSE).await;
        }
    }
    let in_force = async {
        for member in members {
            while policies_of_files(member).await.is_none_or(|count| count < policies) {
                tokio::time::sleep(READY_PAUSE).await;
            }
        }
    };
    let _ = tokio::time::timeout(POLICIES_GRACE, in_force).await;
}

/// How many policies of the files a node has applied.
async fn policies_of_files(member: &Member) -> Option<usize> {
    let (_, body) = call(&member.server, Method::GET, "/v1/policies", Bytes::new()).await.ok()?;
    let list: PolicyList = serde_json::from_slice(&body).ok()?;
    Some(list.policies.iter().filter(|view| view.owner == OwnerName::Files).count())
}

/// Waits until one child ends; says which, and how.
async fn first_to_end(running: &mut [Running]) -> (usize, String) {
    let waits = running.iter_mut().enumerate().map(|(index, Running { child, .. })| {
        Box::pin(async move {
            let how = child.wait().await.map_or_else(|error| error.to_string(), |status| status.to_string());
            (index, how)
        })
    });
    futures::future::select_all(waits).await.0
}

/// Lets all children drain, and kills those that take too long.
async fn end(running: Vec<Running>) {
    let mut ends = JoinSet::new();
    for Running { mut child, leash } in running {
        drop(leash);
        ends.spawn(async move {
            if tokio::time::timeout(DRAIN_GRACE, child.wait()).await.is_err() {
                let _ = child.kill().await;
            }
        });
    }
    while ends.join_next().await.is_some() {}
}
