//! How a node begins: with the identity on its disk, or a new one, and never beside another process of the same.

use std::io;

use super::NodeOptions;
use crate::consensus::answers_as;
use crate::platform::Platform;
use crate::storage::{Disk, Identity};
use crate::transport::Transport;

/// Counts this start, on the disk, before anything is sent in this node's name. On an empty disk a new identity begins.
pub(super) async fn boot<P: Platform>(
    disk: &Disk,
    options: &NodeOptions,
    transport: &dyn Transport,
) -> io::Result<Identity> {
    let (name, address) = (options.name.clone(), Some(options.raft_address.clone()));
    let identity = match disk.identity.load()? {
        Some(Identity { refused: Some(reason), .. }) => return Err(io::Error::other(reason)),
        Some(identity) => {
            refuse_a_second_process::<P>(&identity, options, transport).await?;
            Identity { boot: identity.boot + 1, name, address, ..identity }
        }
        // Zero is kept free: frames use it for nobody.
        None => Identity {
            node: P::random().max(1),
            name,
            boot: 1,
            cluster: None,
            address,
            refused: None,
            promise: None,
            removed: false,
        },
    };
    disk.log.bind(identity.node, identity.boot)?;
    disk.snapshots.bind(identity.node);
    disk.identity.save(&identity)?;
    Ok(identity)
}

/// A copy of a data folder still says where its node ran. If somebody answers there as this node, that one goes on.
async fn refuse_a_second_process<P: Platform>(
    identity: &Identity,
    options: &NodeOptions,
    transport: &dyn Transport,
) -> io::Result<()> {
    let former = identity.address.as_ref().filter(|address| **address != options.raft_address);
    match former {
        Some(former) if answers_as::<P>(transport, former, identity.node).await => Err(io::Error::other(format!(
            "another process runs as node {:016x} at {former}: a data folder must not be used twice, nor a copy of it. \
             Start this node on an empty DATA_DIR and under a NODE_ID of its own, or stop the other process first",
            identity.node
        ))),
        _ => Ok(()),
    }
}
