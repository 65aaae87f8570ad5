//! What the tests and the speed example of the socket share: endpoints that authenticate with raw
//! public keys (RFC 7250), trust any server, and run in one process over loopback.

#![allow(dead_code, unreachable_pub, reason = "each program uses its own part of this file")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use baran_net::socket::{Socket, SocketConfig, SocketControl};
use baran_proto::egress::{Gate, GateConfig};
use baran_proto::forward::{Endpoint as Side, ForwardConfig, Forwarder};
use baran_proto::frame::Channel;
use baran_proto::id::NodeId;
use noq::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use noq::{AsyncUdpSocket, ClientConfig, Endpoint, EndpointConfig, ServerConfig, TransportConfig};
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer,
    UnixTime,
};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, SignatureScheme};

/// An Ed25519 key in PKCS#8 (RFC 8410 §7) before its 32 bytes of seed.
const PKCS8_HEAD: [u8; 16] =
    [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

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
    let mut config = EndpointConfig::default();
    config.grease_quic_bit(false);
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

fn server_config() -> ServerConfig {
    let provider = Arc::new(ring::default_provider());
    let pkcs8 = [&PKCS8_HEAD[..], &[9; 32]].concat();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8));
    let key = provider.key_provider.load_private_key(key).expect("a valid Ed25519 key");
    let public = key.public_key().expect("Ed25519 keys know their public part").to_vec();
    let certified = CertifiedKey::new(vec![CertificateDer::from(public)], key);
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider speaks TLS 1.3")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(Arc::new(certified))));
    let crypto = QuicServerConfig::try_from(tls).expect("the provider has AES-128-GCM");
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(transport());
    config
}

fn client_config() -> ClientConfig {
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(AnyKey(Arc::clone(&provider)));
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider speaks TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    let crypto = QuicClientConfig::try_from(tls).expect("the provider has AES-128-GCM");
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(transport());
    config
}

/// Accepts any raw public key that signs the handshake.
#[derive(Debug)]
struct AnyKey(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyKey {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("QUIC has no TLS 1.2".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let key = SubjectPublicKeyInfoDer::from(key.as_ref());
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature_with_raw_key(message, &key, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
