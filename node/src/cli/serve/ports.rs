//! The node's sockets, bound before anything else is touched.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};

use crate::config::Listen;
use crate::gossip::UdpDatagrams;

/// Connections that may wait to be accepted; the kernel takes `net.core.somaxconn` of them, 4096 by default. With the usual
/// 1024 clients that connect all at once, after a restart, say, are reset by the kernel a second later.
const BACKLOG: u32 = 65_535;

/// What a node listens on.
pub(super) struct Ports {
    pub server: TcpListener,
    pub admin: TcpListener,
    pub raft: TcpListener,
    pub grpc: TcpListener,
    pub discovery: UdpDatagrams,
}

impl Ports {
    /// Binds all, or says which one cannot be bound, by its setting.
    pub(super) async fn bind(listen: &Listen) -> Result<Self, String> {
        Ok(Self {
            server: tcp(listen.server, "SERVER_PORT")?,
            admin: tcp(listen.admin, "ADMIN_PORT")?,
            raft: tcp(listen.raft, "RAFT_PORT")?,
            grpc: tcp(listen.grpc, "GRPC_PORT")?,
            discovery: UdpDatagrams::bind(listen.discovery)
                .await
                .map_err(|error| refusal(listen.discovery, "UDP", "DISCOVERY_PORT", &error))?,
        })
    }
}

fn tcp(address: SocketAddr, setting: &str) -> Result<TcpListener, String> {
    listen_on(address).map_err(|error| refusal(address, "TCP", setting, &error))
}

fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // As a listener of the standard library does: a restart need not wait for connections of before.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn refusal(address: SocketAddr, protocol: &str, setting: &str, error: &io::Error) -> String {
    let (port, host) = (address.port(), address.ip());
    let host_setting = if setting == "ADMIN_PORT" { "ADMIN_HOST" } else { "BIND_HOST" };
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => format!("another program listens there; stop it, or set {setting} to a free port"),
        io::ErrorKind::PermissionDenied => format!("this user may not; set {setting} to a port from 1024 up"),
        io::ErrorKind::AddrNotAvailable => format!("{host} is no address of this machine; set {host_setting}"),
        _ => format!("{setting} and {host_setting} say where"),
    };
    format!("cannot listen on {protocol} port {port} of {host} ({setting}): {error}; {advice}")
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::UdpSocket;

    use super::*;

    fn listen(port: u16) -> Listen {
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Listen { server: free, admin: free, raft: (Ipv4Addr::LOCALHOST, port).into(), discovery: free, grpc: free }
    }

    #[tokio::test]
    async fn port_in_use_is_named_with_its_setting() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = Ports::bind(&listen(port)).await.err().unwrap();
        assert!(error.starts_with(&format!("cannot listen on TCP port {port} of 127.0.0.1 (RAFT_PORT): ")), "{error}");
        assert!(error.ends_with("another program listens there; stop it, or set RAFT_PORT to a free port"), "{error}");
    }

    #[tokio::test]
    async fn udp_port_in_use_is_named_with_its_setting() {
        let taken = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = taken.local_addr().unwrap().port();
        let listen = Listen { discovery: (Ipv4Addr::LOCALHOST, port).into(), ..listen(0) };
        let error = Ports::bind(&listen).await.err().unwrap();
        assert!(
            error.starts_with(&format!("cannot listen on UDP port {port} of 127.0.0.1 (DISCOVERY_PORT): ")),
            "{error}"
        );
    }

    #[tokio::test]
    async fn foreign_address_is_named_with_its_setting() {
        let listen = Listen { server: "192.0.2.1:20001".parse().unwrap(), ..listen(0) };
        let error = Ports::bind(&listen).await.err().unwrap();
        assert!(error.ends_with("192.0.2.1 is no address of this machine; set BIND_HOST"), "{error}");
    }
}
