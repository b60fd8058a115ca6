//! Datagrams over a UDP socket.

use std::io;
use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use futures::future::{BoxFuture, FutureExt as _};
use tokio::net::UdpSocket;

use super::Datagrams;

/// Room for the largest packet of ours and one byte, by which a longer one is seen.
const RECEIVE_BYTES: usize = super::codec::PACKET_BYTES_MAX + 1;

/// A bound UDP socket.
#[derive(Debug)]
pub struct UdpDatagrams {
    socket: UdpSocket,
}

impl UdpDatagrams {
    /// Binds `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind(address)
            .await
            .map_err(|error| io::Error::new(error.kind(), format!("cannot bind UDP {address} for gossip: {error}")))?;
        Ok(Self { socket })
    }

    /// The address bound.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

impl Datagrams for UdpDatagrams {
    fn send(&self, to: SocketAddr, packet: Bytes) {
        // Gossip repeats itself, so what does not go out now is not worth keeping.
        if let Err(error) = self.socket.try_send_to(&packet, to) {
            tracing::debug!(%to, %error, "cannot send gossip");
        }
    }

    fn receive(&self) -> BoxFuture<'_, io::Result<(SocketAddr, Bytes)>> {
        async move {
            let mut packet = BytesMut::with_capacity(RECEIVE_BYTES);
            let (_, from) = self.socket.recv_buf_from(&mut packet).await?;
            Ok((from, packet.freeze()))
        }
        .boxed()
    }
}
