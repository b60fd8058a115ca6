//! Puts the operator together and runs it to its end.
//!
//! Its port is served from the start. It waits for the definitions of its resources, then for its lease; then the
//! controllers run until SIGTERM or SIGINT. They end what they are at, and the lease is let go. An operator whose lease
//! is lost ends at once, in the middle of whatever it does: each step can be done again by whoever holds it now.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use kube::api::ListParams;
use kube::{Api, Client, Config};
use quorate_crds::{QuotaPolicy, RateLimitCluster};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::cli::Cli;
use crate::context::Context;
use crate::deadline::within_deadline;
use crate::events::Events;
use crate::lease::Election;
use crate::limiter::{Limiters, Ports};
use crate::metrics::Metrics;
use crate::{cluster, http, policy};

/// How long controllers may take to end what they are at.
const STOP_WITHIN: Duration = Duration::from_secs(10);
/// Between two looks for the definitions.
const LOOK_PAUSE: Duration = Duration::from_secs(2);

/// Makes the client from what was found of the API server.
pub type Connect = fn(Config) -> Result<Client, String>;

/// The [`Connect`] of the operator: kube's own.
///
/// # Errors
/// What is wrong with the certificates or the address.
pub fn connect(config: Config) -> Result<Client, String> {
    Client::try_from(config).map_err(|error| error.to_string())
}

/// Why the operator ended without being told to.
#[derive(Debug)]
pub struct Ended(String);

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Ended {}

/// Runs until a signal.
///
/// # Errors
/// Why it cannot start, or not go on.
pub async fn run(cli: Cli, connect: Connect) -> Result<(), Ended> {
    let signal = told_to_stop().map_err(|error| Ended(format!("cannot listen for signals: {error}")))?;
    let (client, own_namespace) = client(connect).await?;
    let me = identity();
    let metrics = Arc::new(Metrics::new().map_err(|error| Ended(error.to_string()))?);
    let (ready, shown) = watch::channel(Some("starting".to_owned()));
    let http = http::serve(cli.http(), Arc::clone(&metrics), shown).await.map_err(Ended)?;
    let context = Context {
        events: Events::new(client.clone(), me.clone()),
        client: client.clone(),
        limiters: Limiters::new(Ports::default()),
        namespaces: cli.namespaces(),
        metrics: Arc::clone(&metrics),
    };
    let namespaces = if context.namespaces.is_empty() { "all".to_owned() } else { context.namespaces.join(",") };
    tracing::info!(version = env!("CARGO_PKG_VERSION"), %http, namespaces, "starting");
    let namespace = cli.lease_namespace.clone().unwrap_or(own_namespace);
    let mut election = cli.leader_election.then(|| Election::new(client, &namespace, &cli.lease_name, me));
    tokio::pin!(signal);
    tokio::select! {
        () = &mut signal => return Ok(()),
        () = begin(&context, &ready, &mut election) => {}
    }
    metrics.lead(true);
    let (stop, stopping) = watch::channel(false);
    let work = async { tokio::join!(cluster::run(context.clone(), stopping.clone()), policy::run(context, stopping)) };
    tokio::pin!(work);
    let lost = async {
        match &mut election {
            Some(election) => election.keep().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        why = lost => return Err(Ended(format!("{why}; stopping at once"))),
        _ = &mut work => return Err(Ended("the controllers ended by themselves".to_owned())),
        () = &mut signal => {}
    }
    tracing::info!("stopping");
    stop.send_replace(true);
    if timeout(STOP_WITHIN, &mut work).await.is_err() {
        tracing::warn!("stopped in the middle of something; whoever comes next goes on with it");
    }
    if let Some(election) = &mut election {
        election.release().await;
    }
    tracing::info!("stopped");
    Ok(())
}

/// Until this operator may act.
async fn begin(context: &Context, ready: &watch::Sender<Option<String>>, election: &mut Option<Election>) {
    let mut said = String::new();
    while let Err(why) = definitions(context).await {
        if why != said {
            tracing::warn!("not ready: {why}");
            ready.send_replace(Some(why.clone()));
            said = why;
        }
        sleep(LOOK_PAUSE).await;
    }
    // One that waits for its lease is ready to take over.
    ready.send_replace(None);
    if let Some(election) = election {
        election.acquire().await;
        tracing::info!("holds its lease");
    }
}

/// Whether the resources can be listed.
async fn definitions(context: &Context) -> Result<(), String> {
    let one = ListParams::default().limit(1);
    for (name, found) in [
        ("RateLimitClusters", listed(context.apis::<RateLimitCluster>(), &one).await),
        ("QuotaPolicies", listed(context.apis::<QuotaPolicy>(), &one).await),
    ] {
        match found {
            Err(kube::Error::Api(status)) if status.code == 404 => {
                return Err(format!(
                    "{name} are not defined here; apply manifests/crds, or set crds.install in the chart"
                ));
            }
            // An object that cannot be read is a definition all the same.
            Ok(()) | Err(kube::Error::SerdeError(_)) => {}
            Err(error) => return Err(format!("{name} cannot be listed: {error}")),
        }
    }
    Ok(())
}

async fn listed<K>(apis: Vec<Api<K>>, params: &ListParams) -> kube::Result<()>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    for api in apis {
        api.list(params).await?;
    }
    Ok(())
}

/// A client, and the namespace that is its own.
async fn client(connect: Connect) -> Result<(Client, String), Ended> {
    let advice = "; set KUBECONFIG, or run it in a pod with a service account";
    let mut config = Config::infer().await.map_err(|error| Ended(format!("{error}{advice}")))?;
    // See `Context::client`.
    config.default_retry = false;
    let namespace = config.default_namespace.clone();
    let client = connect(config).map_err(|error| Ended(format!("cannot speak to the API server: {error}")))?;
    Ok((within_deadline(client), namespace))
}

/// A name for this process: the pod's, and something that the process before in the same pod did not have.
fn identity() -> String {
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "quorate-operator".to_owned());
    format!("{host}_{:016x}", rand::random::<u64>())
}

/// Resolves with the first SIGTERM or SIGINT.
fn told_to_stop() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
