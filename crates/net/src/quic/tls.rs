//! TLS 1.3 with raw public keys (RFC 7250): a peer proves that it holds the key that is its id.
//!
//! There are no certificates, names or authorities. The client knows whom it wants and refuses
//! anybody else; the server takes anybody who proves a key. Peers of different networks have no
//! application protocol in common (ALPN, RFC 7301), so their handshake fails.

use std::sync::Arc;

use baran_proto::id::{NodeId, SecretKey};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{
    CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, SignatureScheme};

/// Everything of an Ed25519 `SubjectPublicKeyInfo` but the key (RFC 8410 §4).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0];

/// Everything of an Ed25519 PKCS #8 private key but the seed (RFC 8410 §7).
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

fn spki(id: NodeId) -> Vec<u8> {
    [&SPKI_PREFIX[..], id.as_bytes()].concat()
}

/// Reads the id out of the raw public key that a peer presented.
pub(crate) fn id_of(spki: &[u8]) -> Option<NodeId> {
    let key = spki.strip_prefix(&SPKI_PREFIX)?;
    key.try_into().ok().map(NodeId::from_bytes)
}

/// The TLS side of our identity.
#[derive(Debug, Clone)]
pub struct Tls {
    provider: Arc<CryptoProvider>,
    key: Arc<CertifiedKey>,
    alpn: Vec<u8>,
}

impl Tls {
    /// Sets up TLS for `secret` in the network with the protocol identifier `alpn`.
    ///
    /// # Errors
    ///
    /// If the key is none that the provider of cryptography takes.
    pub fn new(secret: &SecretKey, alpn: Vec<u8>) -> Result<Self, rustls::Error> {
        let mut provider = rustls::crypto::ring::default_provider();
        // AES-128 first: the fastest on every machine with AES instructions.
        provider
            .cipher_suites
            .sort_by_key(|suite| suite.suite() != rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
        let pkcs8 = [&PKCS8_PREFIX[..], &secret.to_bytes()].concat();
        let signing = rustls::crypto::ring::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(pkcs8))?;
        let certificate = CertificateDer::from(spki(secret.id()));
        let key = Arc::new(CertifiedKey::new(vec![certificate], signing));
        Ok(Self { provider: Arc::new(provider), key, alpn })
    }

    fn verifier(&self, expected: Option<NodeId>) -> Arc<RawKeyVerifier> {
        let algorithms = self.provider.signature_verification_algorithms;
        Arc::new(RawKeyVerifier { expected, algorithms })
    }

    /// Settings for reaching `peer` and nobody else.
    ///
    /// # Errors
    ///
    /// If the provider of cryptography lacks what TLS 1.3 needs.
    pub fn client(&self, peer: NodeId) -> Result<rustls::ClientConfig, rustls::Error> {
        let mut config = rustls::ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(self.verifier(Some(peer)))
            .with_client_cert_resolver(Arc::new(
                rustls::client::AlwaysResolvesClientRawPublicKeys::new(Arc::clone(&self.key)),
            ));
        config.alpn_protocols = vec![self.alpn.clone()];
        config.enable_sni = false;
        config.resumption = rustls::client::Resumption::disabled();
        Ok(config)
    }

    /// Settings for being reached by anybody.
    ///
    /// # Errors
    ///
    /// As [`Tls::client`].
    pub fn server(&self) -> Result<rustls::ServerConfig, rustls::Error> {
        let mut config = rustls::ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(self.verifier(None))
            .with_cert_resolver(Arc::new(rustls::server::AlwaysResolvesServerRawPublicKeys::new(
                Arc::clone(&self.key),
            )));
        config.alpn_protocols = vec![self.alpn.clone()];
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        Ok(config)
    }
}

/// Takes an Ed25519 key that proves itself: the expected one, or any if none is.
#[derive(Debug)]
struct RawKeyVerifier {
    expected: Option<NodeId>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl RawKeyVerifier {
    fn check(&self, key: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        let id = id_of(key).ok_or(rustls::CertificateError::BadEncoding)?;
        if self.expected.is_some_and(|expected| expected != id) {
            return Err(rustls::CertificateError::NotValidForName.into());
        }
        Ok(())
    }
}

/// What client and server verify in the same way.
macro_rules! verify_signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            _message: &[u8],
            _key: &CertificateDer<'_>,
            _signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Err(rustls::PeerIncompatible::Tls13RequiredForQuic.into())
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            key: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            let key = SubjectPublicKeyInfoDer::from(key.as_ref());
            verify_tls13_signature_with_raw_key(message, &key, signature, &self.algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            vec![SignatureScheme::ED25519]
        }

        fn requires_raw_public_keys(&self) -> bool {
            true
        }
    };
}

impl ServerCertVerifier for RawKeyVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check(end_entity).map(|()| ServerCertVerified::assertion())
    }

    verify_signatures!();
}

impl ClientCertVerifier for RawKeyVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.check(end_entity).map(|()| ClientCertVerified::assertion())
    }

    verify_signatures!();
}
