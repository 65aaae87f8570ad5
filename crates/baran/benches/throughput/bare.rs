//! The yardstick: `noq` alone on plain sockets, with the settings that the nodes give it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use baran::{NodeId, SecretKey};
use baran_net::quic::{self, tls::Tls};
use noq::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use noq::{Connection, Endpoint, RecvStream, Runtime, SendStream, TokioRuntime};

use crate::host::{Host, Outcome};

/// What a node asks the system for, too.
const SOCKET_BUFFER_BYTES: usize = 8 << 20;

/// The window that a node opens for one stream that is read fast: that of a new connection, the
/// stream's first credit, and its largest.
const WINDOW_BYTES: u32 = (128 << 10) + (16 << 20);

/// An endpoint that takes connections and makes them.
#[derive(Clone)]
pub(crate) struct Bare {
    pub(crate) id: NodeId,
    endpoint: Endpoint,
    tls: Tls,
}

impl Bare {
    /// Binds an endpoint on `host`.
    pub(crate) fn start(host: &Host, seed: u8) -> Outcome<Self> {
        host.run(async move { Self::bind(&SecretKey::from_bytes([seed; 32])) })
    }

    pub(crate) fn bind(secret: &SecretKey) -> Outcome<Self> {
        let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        enlarge_buffers(&socket)?;
        let tls = Tls::new(secret, b"bare".to_vec())?;
        let crypto = Arc::new(QuicServerConfig::try_from(tls.server()?)?);
        let mut server = noq::ServerConfig::with_crypto(crypto);
        server.transport_config(quic::transport());
        let runtime = Arc::new(TokioRuntime);
        let socket = runtime.wrap_udp_socket(socket)?;
        let endpoint =
            Endpoint::new_with_abstract_socket(quic::endpoint(), Some(server), socket, runtime)?;
        Ok(Self { id: secret.id(), endpoint, tls })
    }

    pub(crate) fn addr(&self) -> Outcome<SocketAddr> {
        Ok(self.endpoint.local_addr()?)
    }

    pub(crate) async fn connect(&self, peer: NodeId, to: SocketAddr) -> Outcome<Connection> {
        let crypto = QuicClientConfig::try_from(self.tls.client(peer)?)?;
        let mut config = noq::ClientConfig::new(Arc::new(crypto));
        config.transport_config(quic::transport());
        let connection = self.endpoint.connect_with(config, to, "bare.invalid")?.await?;
        connection.set_receive_window(WINDOW_BYTES.into());
        Ok(connection)
    }

    pub(crate) async fn accept(&self) -> Outcome<Connection> {
        let incoming = self.endpoint.accept().await.ok_or("the endpoint is closed")?;
        let connection = incoming.await?;
        connection.set_receive_window(WINDOW_BYTES.into());
        Ok(connection)
    }
}

fn enlarge_buffers(socket: &std::net::UdpSocket) -> Outcome<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::net::sockopt;
        // Only a privileged process may pass the system's limit.
        let _ = sockopt::set_socket_recv_buffer_size_force(socket, SOCKET_BUFFER_BYTES);
        let _ = sockopt::set_socket_send_buffer_size_force(socket, SOCKET_BUFFER_BYTES);
    }
    let socket = socket2::SockRef::from(socket);
    if socket.recv_buffer_size()? < SOCKET_BUFFER_BYTES {
        socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
        socket.set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
    }
    Ok(())
}

pub(crate) async fn send(mut stream: SendStream, chunk: &[u8], bytes: usize) -> Outcome<()> {
    let mut left = bytes;
    while left > 0 {
        let n = left.min(chunk.len());
        stream.write_all(&chunk[..n]).await?;
        left -= n;
    }
    stream.finish()?;
    stream.stopped().await?;
    Ok(())
}

/// Reads to the end and returns the number of bytes.
pub(crate) async fn receive(mut stream: RecvStream) -> Outcome<usize> {
    let mut bytes = 0;
    while let Some(chunk) = stream.read_chunk(usize::MAX).await? {
        bytes += chunk.len();
    }
    Ok(bytes)
}

/// Returns what comes on each stream, until the connection ends.
pub(crate) async fn serve_echo(connection: Connection) -> Outcome<()> {
    while let Ok((mut send, mut recv)) = connection.accept_bi().await {
        tokio::spawn(async move {
            while let Some(chunk) = recv.read_chunk(usize::MAX).await? {
                send.write_all(&chunk).await?;
            }
            send.finish()?;
            Outcome::Ok(())
        });
    }
    Ok(())
}

pub(crate) async fn echo(connection: Connection, ping: &[u8]) -> Outcome<()> {
    let (mut send, mut recv) = connection.open_bi().await?;
    send.write_all(ping).await?;
    send.finish()?;
    if recv.read_to_end(ping.len()).await? == ping { Ok(()) } else { Err("a wrong echo".into()) }
}
