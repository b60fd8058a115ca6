//! `ratelimiter`: a node from its settings to its end.
//!
//! Settings are read, policies are read, ports are bound, the node starts, its doors open; then it runs until a signal,
//! or until it can no longer go on. What can go wrong by a wrong setting goes wrong before the disk is touched.

use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;

use super::Failure;
use crate::config::{Machine, ServeArgs, Settings};
use crate::doors::connections::{Bounds, Server};
use crate::doors::descriptors::connections_to_spare;
use crate::doors::http::{BODY_BYTES_MAX, Doors};
use crate::doors::rls;
use crate::metrics::Metrics;
use crate::node::Node;
use crate::platform::Tokio;
use crate::telemetry;

mod policy_files;
mod ports;
mod signals;
mod start;

use policy_files::PolicyFiles;
use ports::Ports;
use signals::{Ask, Signals};
use start::Running;

/// How long running requests may take to finish once no more are accepted: a request's own deadline, and a little.
const REQUESTS_GRACE: Duration = Duration::from_secs(4);

/// Serves a node until it is told to stop.
pub(super) async fn run(args: &ServeArgs) -> Result<(), Failure> {
    let wrong = |errors: Vec<String>| Failure::Wrong(errors);
    let settings = Settings::read(args, &Machine::find()).map_err(|errors| wrong(texts(&errors)))?;
    telemetry::start(&settings.log).map_err(Failure::Failed)?;
    let files = settings.policies.clone().map(PolicyFiles::new);
    // Whoever starts it should hear at once what is wrong with them.
    files.as_ref().map(PolicyFiles::read).transpose().map_err(|errors| wrong(texts(&errors)))?;
    let signals = Signals::listen(settings.stop_with_stdin)
        .map_err(|error| Failure::Failed(format!("cannot listen for signals: {error}")))?;
    let ports = Ports::bind(&settings.listen).await.map_err(Failure::Failed)?;
    tracing::info!(
        node = settings.node_name,
        version = env!("CARGO_PKG_VERSION"),
        server = %settings.listen.server,
        admin = %settings.listen.admin,
        raft = %settings.listen.raft,
        discovery = %settings.listen.discovery,
        grpc = %settings.listen.grpc,
        data_dir = %settings.data_dir.display(),
        "starting"
    );
    let Ports { server, admin, raft, grpc, discovery } = ports;
    let running = Running::start(&settings, raft, discovery).await.map_err(Failure::Failed)?;
    let node = &running.node;
    let metrics = Arc::new(Metrics::new().map_err(|error| Failure::Failed(error.to_string()))?);
    let rls = rls::routes(node, &metrics).map_err(|error| Failure::Failed(error.to_string()))?;
    let doors = Doors::new(Arc::clone(node), metrics, settings.doors.clone());
    let servers = [
        Server::start(
            server,
            doors.data_routes(),
            Bounds::of(connections_to_spare(settings.connections_max), BODY_BYTES_MAX),
        ),
        Server::start(
            admin,
            doors.admin_routes(),
            Bounds::of(Bounds::ADMIN_CONNECTIONS_MAX, quorate_crds::SET_BYTES_MAX),
        ),
        // How long a message may be is for gRPC to say, in its own words.
        Server::start(grpc, rls, Bounds::of(Bounds::GRPC_CONNECTIONS_MAX, usize::MAX)),
    ];
    let ended = serve_until_asked(node, &servers, files, signals).await;
    end(&settings, running, servers, ended).await
}

fn texts(errors: &[impl ToString]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

/// The ports that clients come by.
type Servers = [Server; 3];

/// Why a node no longer serves.
enum Ended {
    /// It was asked to, and may be asked to hurry.
    Asked(Ask, Signals),
    /// It cannot go on.
    Failed(String),
    /// Its cluster removed it while it was away; it goes on as a new node.
    Removed,
}

async fn serve_until_asked(
    node: &Arc<Node<Tokio>>,
    servers: &Servers,
    files: Option<PolicyFiles>,
    mut signals: Signals,
) -> Ended {
    let propose = |files: &PolicyFiles| policy_files::propose(Arc::clone(node), files.clone());
    let mut proposing = files.as_ref().map(propose);
    let mut stays = true;
    loop {
        let ask = tokio::select! {
            biased;
            reason = node.failed() => return Ended::Failed(reason),
            () = node.starts_anew() => return Ended::Removed,
            ask = signals.next() => ask,
            () = node.leaves(), if stays => {
                tracing::info!("this node is to leave its cluster: its clients are told to ask others");
                leave(servers);
                stays = false;
                continue;
            }
        };
        let (Ask::Reload, Some(files)) = (ask, &files) else {
            if ask == Ask::Reload {
                tracing::info!("nothing to reload: POLICIES is not set");
                continue;
            }
            return Ended::Asked(ask, signals);
        };
        match files.read() {
            // The old proposal, if it still waits for a leader, ends with its replacement.
            Ok(_) => proposing = Some(propose(files)),
            Err(errors) => policy_files::refuse(errors),
        }
        tracing::debug!(proposing = proposing.is_some(), "policies were read again");
    }
}

async fn end(settings: &Settings, running: Running, servers: Servers, ended: Ended) -> Result<(), Failure> {
    let (ask, mut signals) = match ended {
        Ended::Asked(ask, signals) => (ask, signals),
        Ended::Failed(reason) => {
            tracing::error!("the node stops: {reason}");
            close(servers, Duration::ZERO).await;
            running.stop().await;
            return Err(Failure::Failed(reason));
        }
        Ended::Removed => {
            tracing::warn!("this node was removed from its cluster while it was away; it starts again as a new node");
            close(servers, Duration::ZERO).await;
            running.stop().await;
            return Err(restart());
        }
    };
    let delay = if ask == Ask::Drain { settings.drain_delay } else { Duration::ZERO };
    tracing::info!(?delay, "draining");
    leave(&servers);
    let endpoints_catch_up = async {
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = signals.hurry() => tracing::info!("told again; not waiting any longer"),
        }
    };
    tokio::join!(running.node.drain(), endpoints_catch_up);
    close(servers, REQUESTS_GRACE).await;
    running.stop().await;
    tracing::info!("stopped");
    Ok(())
}

/// Begins this program anew in the same process: sockets, locks and threads of the old run are gone, as after a restart
/// from outside. Returns only when that fails.
fn restart() -> Failure {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    // Not by its path, where another version may lie by now.
    let error = Command::new("/proc/self/exe").arg0(name).args(arguments).exec();
    Failure::Failed(format!("it could not start itself again: {error}; start it again"))
}

/// Tells every client to come by another connection.
fn leave(servers: &Servers) {
    servers.iter().for_each(Server::leave);
}

async fn close(servers: Servers, grace: Duration) {
    join_all(servers.map(|server| server.close(grace))).await;
}
