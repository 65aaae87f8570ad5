//! What the tests and the speed example of the socket share: endpoints that authenticate with raw
//! public keys (RFC 7250), all with the same key, and run in one process over loopback.

#![allow(dead_code, unreachable_pub, reason = "each program uses its own part of this file")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use baran_net::quic::tls::Tls;
use baran_net::socket::{Socket, SocketConfig, SocketControl};
use baran_proto::egress::{Gate, GateConfig};
use baran_proto::forward::{Endpoint as Side, ForwardConfig, Forwarder};
use baran_proto::frame::Channel;
use baran_proto::id::{NodeId, SecretKey};
use noq::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use noq::{AsyncUdpSocket, ClientConfig, Endpoint, ServerConfig, TransportConfig};
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

/// A QUIC endpoint on a socket of ours.
pub struct Peer {
    pub endpoint: Endpoint,
    pub control: SocketControl,
}

impl Peer {
    /// An endpoint on `127.0.0.1`, with the relay role on and nobody trusted.
    pub fn new() -> Self {
        let binds = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
        Self::with_config(&SocketConfig { binds, ..SocketConfig::default() })
    }

    pub fn with_config(config: &SocketConfig) -> Self {
        let (socket, control) = bind(config);
        Self { endpoint: endpoint(Box::new(socket)), control }
    }

    pub fn addr(&self) -> SocketAddr {
        self.control.local_addrs()[0]
    }

    pub fn trusts(&self, other: &Self) {
        assert!(self.control.trust(other.addr()));
    }

    /// Opens a channel between `a` and `b` here, for `millis`, and returns their numbers.
    pub fn open(&self, a: SocketAddr, b: SocketAddr, millis: u64) -> (Channel, Channel) {
        let now = self.control.now();
        let side = |n, addr| Side { peer: NodeId::from_bytes([n; 32]), addr };
        let expires = now + std::time::Duration::from_millis(millis);
        let pair = self
            .control
            .with_forwarder(|f| f.open(side(1, a), side(2, b), expires))
            .expect("the role is on and the table empty");
        (pair.a, pair.b)
    }
}

pub fn bind(config: &SocketConfig) -> (Socket, SocketControl) {
    let lent = ForwardConfig {
        rate_bytes_per_s: 10_000_000_000,
        burst_bytes: 1_000_000_000,
        ..ForwardConfig::default()
    };
    let forwarder = Forwarder::new(&lent, ChaCha8Rng::seed_from_u64(7));
    let gate = Gate::new(GateConfig::default());
    Socket::bind(config, forwarder, gate, Instant::now()).expect("loopback can be bound")
}

/// A QUIC endpoint, client and server, on any socket.
pub fn endpoint(socket: Box<dyn AsyncUdpSocket>) -> Endpoint {
    let config = baran_net::quic::endpoint();
    let runtime = Arc::new(noq::TokioRuntime);
    let endpoint =
        Endpoint::new_with_abstract_socket(config, Some(server_config()), socket, runtime)
            .expect("a bound socket has an address");
    endpoint.set_default_client_config(client_config());
    endpoint
}

/// Windows large enough for loopback, the same at both ends.
fn transport() -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_multipath_paths(4)
        .stream_receive_window(8_000_000_u32.into())
        .receive_window(16_000_000_u32.into())
        .send_window(16_000_000);
    Arc::new(transport)
}

/// The one key that all endpoints have.
fn secret() -> SecretKey {
    SecretKey::from_bytes([9; 32])
}

fn tls() -> Tls {
    Tls::new(&secret(), b"test".to_vec()).expect("a valid Ed25519 key")
}

fn server_config() -> ServerConfig {
    let tls = tls().server().expect("the provider speaks TLS 1.3");
    let crypto = QuicServerConfig::try_from(tls).expect("the provider has AES-128-GCM");
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(transport());
    config
}

fn client_config() -> ClientConfig {
    let tls = tls().client(secret().id()).expect("the provider speaks TLS 1.3");
    let crypto = QuicClientConfig::try_from(tls).expect("the provider has AES-128-GCM");
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(transport());
    config
}
