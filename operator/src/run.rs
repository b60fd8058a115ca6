//! Puts the operator together and runs it to its end.
//!
//! Its port is served from the start. It waits for the definitions of its resources, then for its lease; then the
//! controllers run until SIGTERM or SIGINT. They end what they are at, and the lease is let go. An operator whose lease
//! is lost ends at once, in the middle of whatever it does: each step can be done again by whoever holds it now.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
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
    let mut work: Work = Box::pin(async move {
        let clusters = cluster::run(context.clone(), stopping.clone()).map(Ok);
        tokio::try_join!(clusters, policy::run(context.clone(), stopping.clone())).map(|_| ())
    });
    let lost = async {
        match &mut election {
            Some(election) => election.keep().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        why = lost => return Err(Ended(format!("{why}; stopping at once"))),
        ended = &mut work => {
            let why = ended.err().unwrap_or_else(|| "the controllers ended by themselves".to_owned());
            return Err(Ended(why));
        }
        () = &mut signal => {}
    }
    tracing::info!("stopping");
    stop.send_replace(true);
    end(work, election.as_mut()).await;
    tracing::info!("stopped");
    Ok(())
}

/// All that the holder of the lease does, and why it ended.
type Work = Pin<Box<dyn Future<Output = Result<(), String>>>>;

/// Lets the work end what it is at, and the lease go once nothing is done any more: another acts from that moment on.
async fn end(mut work: Work, election: Option<&mut Election>) {
    match timeout(STOP_WITHIN, &mut work).await {
        Ok(Ok(())) => {}
        Ok(Err(why)) => tracing::error!("{why}"),
        Err(_) => tracing::warn!("stopped in the middle of something; whoever comes next goes on with it"),
    }
    drop(work);
    if let Some(election) = election {
        election.release().await;
    }
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

/// Whether the resources can be listed, in one of the namespaces at least: with the namespace its rights may be gone, and
/// the others are looked after all the same.
async fn definitions(context: &Context) -> Result<(), String> {
    listed("RateLimitClusters", context.apis::<RateLimitCluster>()).await?;
    listed("QuotaPolicies", context.apis::<QuotaPolicy>()).await
}

async fn listed<K>(name: &str, apis: Vec<Api<K>>) -> Result<(), String>
where
    K: Clone + fmt::Debug + serde::de::DeserializeOwned,
{
    let mut refused = None;
    let mut is_listed = false;
    for api in apis {
        match api.list(&ListParams::default().limit(1)).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {
                return Err(format!(
                    "{name} are not defined here; apply manifests/crds, or set crds.install in the chart"
                ));
            }
            // An object that cannot be read is a definition all the same.
            Ok(_) | Err(kube::Error::SerdeError(_)) => is_listed = true,
            Err(kube::Error::Api(status)) if status.is_forbidden() => refused = Some(status),
            Err(error) => return Err(format!("{name} cannot be listed: {error}")),
        }
    }
    match refused.filter(|_| !is_listed) {
        Some(status) => Err(format!("{name} cannot be listed: {status}")),
        None => Ok(()),
    }
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use serde_json::Value;

    use super::*;
    use crate::in_memory::{World, failure, within};
    use crate::sync::lock;

    const RESOURCES: [&str; 2] = ["ratelimitclusters", "quotapolicies"];

    fn refuse(world: &World, namespace: &str) {
        for resource in RESOURCES {
            let list = format!("GET /apis/quorate.dev/v1alpha1/namespaces/{namespace}/{resource}?");
            world.answer_instead(&list, 403, failure(403, "Forbidden"));
        }
    }

    #[tokio::test]
    async fn namespace_that_may_not_be_listed_does_not_keep_the_others_waiting() {
        let world = World::default();
        let context = Context { namespaces: vec!["gone".to_owned(), "shop".to_owned()], ..world.context().await };
        refuse(&world, "gone");
        assert_eq!(definitions(&context).await, Ok(()));
        refuse(&world, "shop");
        refuse(&world, "gone");
        let why = definitions(&context).await.unwrap_err();
        assert!(why.contains("RateLimitClusters cannot be listed: Forbidden"), "{why}");
    }

    #[tokio::test(start_paused = true)]
    async fn lease_is_let_go_only_once_work_that_does_not_end_is_dropped() {
        struct AtWork(World, Arc<Mutex<Value>>);
        impl Drop for AtWork {
            fn drop(&mut self) {
                *lock(&self.1) = holder(&self.0);
            }
        }
        fn holder(world: &World) -> Value {
            let lease = world.get("/apis/coordination.k8s.io/v1/namespaces/shop/leases/operator").unwrap();
            lease["spec"]["holderIdentity"].clone()
        }
        let world = World::default();
        let mut election = Election::new(world.client(), "shop", "operator", "me".to_owned());
        within("the lease", election.acquire()).await;
        let held_by = Arc::new(Mutex::new(Value::Null));
        let at_work = AtWork(world.clone(), Arc::clone(&held_by));
        let work: Work = Box::pin(async move {
            let _at_work = at_work;
            std::future::pending().await
        });
        within("the end", end(work, Some(&mut election))).await;
        assert_eq!((lock(&held_by).as_str(), holder(&world)), (Some("me"), "".into()));
    }
}
