//! What the integration tests share: nodes over loopback, and raw peers that speak QUIC with our
//! keys and our ALPN but obey nothing above it.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test program uses its own part, and stops where it cannot go on"
)]

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use baran::{Connection, Node, NodeBuilder, PeerAddr, SecretKey};
use baran_net::quic::tls::Tls;
use baran_proto::wire::mux::{SessionOpen, put_head};
use baran_proto::wire::{self, LENGTH_LEN, Message, MuxMessage};

/// The application protocol of the tests.
pub const PROTOCOL: &str = "test/1";

/// Longer than anything here takes, even on a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// How long to wait for what must not come.
pub const QUIET: Duration = Duration::from_millis(200);

/// A node that cannot probe its peers' addresses: the gate lets nothing out to loopback but what
/// the owner named.
pub fn shy() -> NodeBuilder {
    Node::builder().bind(SocketAddr::from(([127, 0, 0, 1], 0)))
}

/// A node that may reach all of loopback.
pub fn builder() -> NodeBuilder {
    shy().allow_net("127.0.0.0/8".parse().unwrap())
}

/// Waits for what must come.
pub async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(SOON, future).await.expect("in time")
}

/// Waits until `is_so`, which must come true.
pub async fn until(mut is_so: impl AsyncFnMut() -> bool) {
    within(async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// Pseudo-random bytes, the same each time.
pub fn noise(len: usize) -> Vec<u8> {
    let mut state = 1u32;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    })
    .take(len)
    .collect()
}

/// Sends `bytes` to the peer, which echoes them.
pub async fn echo(connection: &Connection, bytes: &[u8]) -> Vec<u8> {
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    let write = async {
        send.write_all(bytes).await.unwrap();
        send.finish().unwrap();
    };
    let (read, ()) = tokio::join!(recv.read_to_end(usize::MAX), write);
    read.unwrap()
}

/// Echoes every stream of every connection.
pub fn serve_echo(node: &Node) {
    let mut acceptor = node.accept(PROTOCOL).unwrap();
    tokio::spawn(async move {
        while let Some(connection) = acceptor.next().await {
            tokio::spawn(async move {
                while let Ok((mut send, mut recv)) = connection.accept_bi().await {
                    tokio::spawn(async move {
                        // A hostile peer may break its stream; the echo ends with it.
                        if tokio::io::copy(&mut recv, &mut send).await.is_ok() {
                            drop(send.finish());
                        }
                    });
                }
            });
        }
    });
}

/// Two nodes and both ends of one connection between them.
pub struct Pair {
    pub a: Node,
    pub b: Node,
    pub at_a: Connection,
    pub at_b: Connection,
}

pub async fn pair() -> Pair {
    pair_of(builder(), builder()).await
}

pub async fn pair_of(a: NodeBuilder, b: NodeBuilder) -> Pair {
    let (a, b) = (a.spawn().await.unwrap(), b.spawn().await.unwrap());
    let mut acceptor = b.accept(PROTOCOL).unwrap();
    let at_a = within(a.connect(b.invite(), PROTOCOL)).await.unwrap();
    let at_b = within(acceptor.next()).await.unwrap();
    Pair { a, b, at_a, at_b }
}

/// Checks that a node serves peers: a fresh one connects and is echoed.
pub async fn assert_serves(node: &Node) {
    let peer = builder().spawn().await.unwrap();
    let connection = within(peer.connect(node.invite(), PROTOCOL)).await.unwrap();
    let bytes = noise(100_000);
    assert!(within(echo(&connection, &bytes)).await == bytes);
    within(peer.close()).await;
}

/// Secret number `n`.
pub fn secret(n: u32) -> SecretKey {
    let mut seed = [0x5a; 32];
    seed[..4].copy_from_slice(&n.to_be_bytes());
    SecretKey::from_bytes(seed)
}

/// A window that never holds the other side back.
pub const WIDE: u32 = 64_000_000;

fn raw_transport(window: u32) -> Arc<noq::TransportConfig> {
    let mut config = noq::TransportConfig::default();
    config
        .stream_receive_window(window.into())
        .receive_window(window.into())
        .max_concurrent_bidi_streams(1024_u32.into())
        .max_concurrent_multipath_paths(8)
        .max_remote_nat_traversal_addresses(8);
    Arc::new(config)
}

/// QUIC on a plain socket at loopback, client and server in the network `main` as `secret`.
pub fn raw_endpoint(secret: &SecretKey) -> noq::Endpoint {
    raw_endpoint_on(secret, UdpSocket::bind("127.0.0.1:0").unwrap())
}

/// The same on a given socket.
pub fn raw_endpoint_on(secret: &SecretKey, socket: UdpSocket) -> noq::Endpoint {
    let tls = Tls::new(secret, wire::alpn("main").unwrap()).unwrap();
    let server = noq::crypto::rustls::QuicServerConfig::try_from(tls.server().unwrap()).unwrap();
    let mut server = noq::ServerConfig::with_crypto(Arc::new(server));
    server.transport_config(raw_transport(WIDE));
    let mut config = noq::EndpointConfig::default();
    config.grease_quic_bit(false);
    noq::Endpoint::new(config, Some(server), socket, Arc::new(noq::TokioRuntime)).unwrap()
}

/// Dials `to` as `secret` in `network`, with a receive window of `window` bytes.
pub async fn raw_dial(
    endpoint: &noq::Endpoint,
    secret: &SecretKey,
    to: &PeerAddr,
    network: &str,
    window: u32,
) -> Result<noq::Connection, noq::ConnectionError> {
    let tls = Tls::new(secret, wire::alpn(network).unwrap()).unwrap();
    let tls = tls.client(to.id).unwrap();
    let crypto = noq::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
    let mut config = noq::ClientConfig::new(Arc::new(crypto));
    config.transport_config(raw_transport(window));
    endpoint.connect_with(config, to.addrs[0], "baran.invalid").unwrap().await
}

/// A raw peer's connection to a node, with the control stream that every link begins with.
pub struct RawLink {
    pub conn: noq::Connection,
    pub say: noq::SendStream,
    pub hear: noq::RecvStream,
    endpoint: noq::Endpoint,
}

impl RawLink {
    /// Connects to `node` from a socket of its own, as the client.
    pub async fn new(node: &Node, secret: &SecretKey) -> Self {
        Self::on(&raw_endpoint(secret), &node.invite(), secret, WIDE).await
    }

    /// The same on an endpoint that several may share, with a receive window of `window` bytes.
    pub async fn on(
        endpoint: &noq::Endpoint,
        to: &PeerAddr,
        secret: &SecretKey,
        window: u32,
    ) -> Self {
        let conn = within(raw_dial(endpoint, secret, to, "main", window)).await.unwrap();
        let (say, hear) = conn.open_bi().await.unwrap();
        Self { conn, say, hear, endpoint: endpoint.clone() }
    }

    /// Where the peer sends from.
    pub fn local_addr(&self) -> SocketAddr {
        self.endpoint.local_addr().unwrap()
    }

    /// Says something on the control stream.
    pub async fn say(&mut self, message: Message) {
        self.say.write_all(&message.encode()).await.unwrap();
    }

    /// Opens a session of the tests' protocol.
    pub async fn open_session(&mut self, session: u32) {
        let open = SessionOpen { session, protocol: PROTOCOL.into() };
        self.say(Message::Mux(MuxMessage::SessionOpen(open))).await;
    }

    /// Opens a stream of a session.
    pub async fn open_stream(&self, session: u32) -> (noq::SendStream, noq::RecvStream) {
        let (mut send, recv) = self.conn.open_bi().await.unwrap();
        let mut head = Vec::new();
        put_head(session, &mut head);
        send.write_all(&head).await.unwrap();
        (send, recv)
    }

    /// The first message on the control stream that `pick` wants; others are skipped.
    pub async fn hear<T>(&mut self, mut pick: impl FnMut(Message) -> Option<T>) -> T {
        let next = async {
            loop {
                if let Some(picked) = pick(hear(&mut self.hear).await.expect("a control stream")) {
                    return picked;
                }
            }
        };
        within(next).await
    }

    /// Checks that the link works: a stream of the open session `session` is echoed.
    pub async fn assert_echo(&self, session: u32) {
        let (mut send, mut recv) = self.open_stream(session).await;
        send.write_all(b"still here").await.unwrap();
        send.finish().unwrap();
        assert_eq!(within(recv.read_to_end(100)).await.unwrap(), b"still here");
    }
}

/// The next message of a control stream.
pub async fn hear(control: &mut noq::RecvStream) -> Option<Message> {
    let mut length = [0; LENGTH_LEN];
    control.read_exact(&mut length).await.ok()?;
    let mut body = vec![0; usize::from(u16::from_be_bytes(length))];
    control.read_exact(&mut body).await.ok()?;
    Some(Message::decode(&body).unwrap())
}
