//! From settings and sockets to a running node.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, lookup_host};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::config::{DefaultLimit, Settings, bucket_policy};
use crate::consensus::Tuning;
use crate::gossip::{Contacts as _, DnsContacts, UdpDatagrams, advertise_host};
use crate::node::{Node, NodeOptions};
use crate::platform::Tokio;
use crate::storage::{DirectoryLock, Disk, OpenError};
use crate::transport::{self, TcpTransport};

/// How long a process that holds the data folder may take to end: the grace period of a pod.
const PREDECESSOR_ENDS_WITHIN: Duration = Duration::from_secs(30);
/// Between two looks whether it has.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// A running node and what it runs on.
pub(super) struct Running {
    pub node: Arc<Node<Tokio>>,
    /// Answers other nodes until [`Running::stop`].
    answering: JoinHandle<()>,
    stop_answering: oneshot::Sender<()>,
    /// Keeps the data folder to this process.
    _lock: DirectoryLock,
}

impl Running {
    /// Opens the disk, takes transport and gossip up, and starts the node.
    ///
    /// # Errors
    /// What stands against it, and what to do.
    pub(super) async fn start(settings: &Settings, raft: TcpListener, discovery: UdpDatagrams) -> Result<Self, String> {
        let contacts = DnsContacts::new(settings.contacts.clone(), settings.dns_server)
            .map_err(|error| format!("CLUSTERS cannot be resolved: {error}"))?;
        let options = options(settings, &contacts).await?;
        let (disk, lock) = open(&settings.data_dir, PREDECESSOR_ENDS_WITHIN).await?;
        let node = Node::start(options, &disk, Arc::new(TcpTransport::new()), Arc::new(discovery), Arc::new(contacts))
            .await
            .map_err(|error| format!("the node cannot start on {}: {error}", settings.data_dir.display()))?;
        let (stop_answering, stopped) = oneshot::channel();
        let answering = tokio::spawn(transport::serve(raft, node.service(), async {
            let _ = stopped.await;
        }));
        Ok(Self { node, answering, stop_answering, _lock: lock })
    }

    /// Stops the node, then lets go of its data folder.
    pub(super) async fn stop(self) {
        self.node.stop().await;
        drop(self.stop_answering);
        let _ = self.answering.await;
    }
}

/// Opens the data folder. One that another process holds is waited for: a pod that was force-deleted drains on beside the
/// one in its place, which would only be started again, later each time.
async fn open(data_dir: &Path, within: Duration) -> Result<(Disk, DirectoryLock), String> {
    let until = Instant::now() + within;
    let mut told = false;
    loop {
        let folder = data_dir.to_owned();
        // Reading the log may take seconds.
        let opened = tokio::task::spawn_blocking(move || Disk::open(&folder)).await;
        match opened.map_err(|error| error.to_string())? {
            Err(error @ OpenError::InUse(_)) if Instant::now() < until => {
                if !told {
                    tracing::warn!("waits up to {} s: {error}", within.as_secs());
                    told = true;
                }
                tokio::time::sleep(LOOK_PAUSE).await;
            }
            opened => return opened.map_err(|error| error.to_string()),
        }
    }
}

async fn options(settings: &Settings, contacts: &DnsContacts) -> Result<NodeOptions, String> {
    let listen = &settings.listen;
    let refusal = |error: io::Error| format!("the address that others reach this node by cannot be found: {error}");
    let (host, ip) = if let Some(host) = &settings.advertise_host {
        (host.clone(), resolve(host, listen.discovery.port()).await?)
    } else {
        let known = contacts.resolve().await;
        let ip = advertise_host(listen.discovery.ip(), &settings.contacts, &known).map_err(refusal)?;
        (ip.to_string(), ip)
    };
    Ok(NodeOptions {
        name: settings.node_name.clone(),
        gossip_address: (ip, listen.discovery.port()).into(),
        raft_address: host_and_port(&host, listen.raft.port()),
        bootstrap_expect: settings.bootstrap_expect,
        first_policies: settings.default_limit.map(DefaultLimit::policy).into_iter().chain([bucket_policy()]).collect(),
        counters_max: settings.counters_max,
        disk_reserve: settings.disk_reserve,
        tuning: Tuning::default(),
        replacing: settings.replacing,
        drain: settings.drain_delay,
    })
}

async fn resolve(host: &str, port: u16) -> Result<IpAddr, String> {
    let mut found = lookup_host((host, port))
        .await
        .map_err(|error| format!("ADVERTISE_HOST {host:?} does not resolve: {error}; set an address"))?;
    found.next().map(|address| address.ip()).ok_or_else(|| format!("ADVERTISE_HOST {host:?} has no address; set one"))
}

fn host_and_port(host: &str, port: u16) -> String {
    match host.parse::<IpAddr>() {
        Ok(ip) => SocketAddr::new(ip, port).to_string(),
        Err(_) => format!("{host}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn data_folder_of_a_process_that_is_about_to_end_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let (disk, lock) = Disk::open(folder.path()).unwrap();
        let refused = open(folder.path(), Duration::ZERO).await.map(drop).unwrap_err();
        assert!(refused.contains("is in use by another process"), "{refused}");
        let path = folder.path().to_owned();
        let mut opening = tokio::spawn(async move { open(&path, PREDECESSOR_ENDS_WITHIN).await });
        assert!(tokio::time::timeout(LOOK_PAUSE, &mut opening).await.is_err(), "it waits");
        drop((disk, lock));
        opening.await.unwrap().unwrap();
    }

    #[test]
    fn address_of_version_6_gets_brackets() {
        assert_eq!(host_and_port("::1", 50001), "[::1]:50001");
        assert_eq!(host_and_port("10.0.0.7", 50001), "10.0.0.7:50001");
        assert_eq!(host_and_port("node-1.local", 50001), "node-1.local:50001");
    }
}
