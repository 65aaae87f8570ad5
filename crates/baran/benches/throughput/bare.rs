//! The yardstick: `noq` alone on plain sockets, with the settings that the nodes give it.

use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use baran::{NodeId, SecretKey};
use baran_net::quic;
use baran_net::quic::route::Frames;
use baran_net::quic::tls::Tls;
use noq::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use noq::udp::{RecvMeta, Transmit};
use noq::{
    AsyncUdpSocket, Connection, Endpoint, RecvStream, Runtime, SendStream, TokioRuntime, UdpSender,
};

use crate::host::{Host, Outcome};

/// What a node asks the system for, too.
const SOCKET_BUFFER_BYTES: usize = 8 << 20;

/// Longest UDP payload of one send over IPv4.
const SEND_BYTES_MAX: usize = 65_507;

/// The window that a node opens for one stream that is read fast: that of a new connection, the
/// stream's first credit, and its largest.
const WINDOW_BYTES: u32 = (64 << 10) + (16 << 20);

/// What a node raises it to once a path carries as much.
const SEND_WINDOW_BYTES: u64 = 4 << 20;

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
        let addr = socket.local_addr()?;
        let tls = Tls::new(secret, b"bare".to_vec())?;
        let crypto = Arc::new(QuicServerConfig::try_from(tls.server()?)?);
        let mut server = noq::ServerConfig::with_crypto(crypto);
        server.transport_config(quic::transport(Frames::towards(addr)));
        let runtime = Arc::new(TokioRuntime);
        let socket = Box::new(Split(runtime.wrap_udp_socket(socket)?));
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
        config.transport_config(quic::transport(Frames::towards(to)));
        let connection = self.endpoint.connect_with(config, to, "bare.invalid")?.await?;
        raise_windows(&connection);
        Ok(connection)
    }

    pub(crate) async fn accept(&self) -> Outcome<Connection> {
        let incoming = self.endpoint.accept().await.ok_or("the endpoint is closed")?;
        let connection = incoming.await?;
        raise_windows(&connection);
        Ok(connection)
    }
}

/// The plain socket, which sends in two parts what is too long for one.
///
/// `noq` 1.4.0 hands over ten datagrams at a time, whatever their length. Ten of the longest that
/// the nodes' settings allow are more than one send takes, and would all be lost.
#[derive(Debug)]
struct Split(Box<dyn AsyncUdpSocket>);

impl AsyncUdpSocket for Split {
    fn create_sender(&self) -> Pin<Box<dyn UdpSender>> {
        Box::pin(SplitSender(self.0.create_sender()))
    }

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_recv(cx, bufs, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    fn max_receive_segments(&self) -> NonZeroUsize {
        self.0.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.0.may_fragment()
    }
}

#[derive(Debug)]
struct SplitSender(Pin<Box<dyn UdpSender>>);

impl UdpSender for SplitSender {
    fn poll_send(
        mut self: Pin<&mut Self>,
        transmit: &Transmit<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let stride = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        let fits = SEND_BYTES_MAX / stride * stride;
        let Some((first, rest)) = transmit.contents.split_at_checked(fits) else {
            return self.0.as_mut().poll_send(transmit, cx);
        };
        let part = |contents| Transmit { contents, ..transmit.clone() };
        ready!(self.0.as_mut().poll_send(&part(first), cx))?;
        if rest.is_empty() {
            return Poll::Ready(Ok(()));
        }
        // With the socket full just now, the rest is lost like anything on the way.
        let _ = self.0.as_mut().poll_send(&part(rest), cx)?;
        Poll::Ready(Ok(()))
    }

    fn max_transmit_segments(&self) -> NonZeroUsize {
        self.0.max_transmit_segments()
    }
}

fn raise_windows(connection: &Connection) {
    connection.set_receive_window(WINDOW_BYTES.into());
    connection.set_send_window(SEND_WINDOW_BYTES);
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
