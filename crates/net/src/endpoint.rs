//! The QUIC endpoint on our socket: dials peers, admits those that dial us.
//!
//! Admission: a peer proves its key and has 10 s for it; with many handshakes under way an address
//! must prove itself first (Retry, RFC 9000 §8.1.2); what is not yet admitted holds at most 16 KiB.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use baran_proto::egress::Gate;
use baran_proto::forward::Forwarder;
use baran_proto::id::{NodeId, SecretKey};
use baran_proto::node::{DialId, LinkId, RemoteAddr};
use baran_proto::path::Side;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::debug;

use crate::budget::Budget;
use crate::link::{Happenings, Link, LinkEvents, link_code};
use crate::mux::{Acceptors, Mux};
use crate::quic::route::Frames;
use crate::quic::{self, tls};
use crate::socket::{Socket, SocketConfig, SocketControl};

/// Handshakes of unproved addresses beyond which an address must prove itself first.
const UNVALIDATED_MAX: usize = 64;

/// Handshakes under way that we did not start; more are not answered.
const INCOMING_MAX: usize = 1024;

/// Bytes that one handshake may send before it is looked at.
const INCOMING_BYTES: u64 = 16 * 1024;

/// Longest handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// Longest wait for what links have still to say when the node leaves.
const LEAVE_MAX: Duration = Duration::from_secs(1);

/// The server name of every connection; never sent (SNI is off), since keys are the names.
const SERVER_NAME: &str = "baran.invalid";

/// Settings of an [`Endpoint`].
#[derive(Debug)]
pub struct EndpointConfig {
    /// Our identity.
    pub secret: SecretKey,
    /// The application-layer protocol identifier of our network (RFC 7301).
    pub alpn: Vec<u8>,
    /// Of the socket.
    pub socket: SocketConfig,
    /// Bytes that all connections may buffer beyond what each is admitted with.
    pub budget: u64,
}

/// Why an endpoint could not be made.
#[derive(Debug, Error)]
pub enum EndpointError {
    /// The socket could not be bound.
    #[error(transparent)]
    Bind(#[from] io::Error),
    /// TLS could not be set up.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// A connection that came up.
#[derive(Debug)]
pub struct NewLink {
    /// The link.
    pub link: Link,
    /// Our side of it.
    pub side: Side,
    /// Where its first path leads.
    pub remote: RemoteAddr,
    /// The attempt that it came from, if we dialled.
    pub dial: Option<DialId>,
    /// To be used when the node knows the link: only then does the link report anything. Dropped
    /// unused it closes the link.
    pub taken: oneshot::Sender<()>,
}

/// What comes of dialling and being dialled.
#[derive(Debug)]
pub enum EndpointEvent {
    /// A connection is authenticated.
    Up(NewLink),
    /// An attempt came to nothing.
    DialFailed(DialId, String),
}

/// The QUIC endpoint of a node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Endpoint {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    quic: noq::Endpoint,
    tls: tls::Tls,
    control: SocketControl,
    common: Arc<noq::TransportConfig>,
    /// For peers to whom the first link carries jumbo frames.
    jumbo: Arc<noq::TransportConfig>,
    jumbo_server: Arc<noq::ServerConfig>,
    budget: Budget,
    acceptors: Arc<Acceptors>,
    next_link: AtomicU64,
    events: mpsc::Sender<EndpointEvent>,
    link_events: LinkEvents,
    unvalidated: AtomicUsize,
    /// Whether the node leaves. Each link holds a receiver until its peer has heard all it said.
    leaving: watch::Sender<bool>,
}

impl Endpoint {
    /// Binds the socket and starts to admit peers. Must be called inside a Tokio runtime. Links
    /// that come up go to `events`, what happens on them to `link_events`.
    ///
    /// # Errors
    ///
    /// If an address cannot be bound or TLS cannot be set up.
    pub fn bind(
        config: &EndpointConfig,
        forwarder: Forwarder,
        gate: Gate,
        start: std::time::Instant,
        events: mpsc::Sender<EndpointEvent>,
        link_events: LinkEvents,
    ) -> Result<Self, EndpointError> {
        let tls = tls::Tls::new(&config.secret, config.alpn.clone())?;
        let common = quic::transport(Frames::Common);
        let jumbo = quic::transport(Frames::Jumbo);
        let server = noq::crypto::rustls::QuicServerConfig::try_from(tls.server()?)
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        // Nobody keeps tokens, which pin the datagram that they came in.
        let mut tokens = noq::ValidationTokenConfig::default();
        tokens.sent(0);
        let mut server = noq::ServerConfig::with_crypto(Arc::new(server));
        server
            .transport_config(Arc::clone(&common))
            .validation_token_config(tokens)
            .max_incoming(INCOMING_MAX)
            .incoming_buffer_size(INCOMING_BYTES)
            .incoming_buffer_size_total(INCOMING_BYTES * INCOMING_MAX as u64);
        let mut jumbo_server = server.clone();
        jumbo_server.transport_config(Arc::clone(&jumbo));
        let (socket, control) = Socket::bind(&config.socket, forwarder, gate, start)?;
        let runtime = Arc::new(noq::TokioRuntime);
        let quic = noq::Endpoint::new_with_abstract_socket(
            quic::endpoint(),
            Some(server),
            Box::new(socket),
            runtime,
        )?;
        let endpoint = Self {
            shared: Arc::new(Shared {
                quic,
                tls,
                control,
                common,
                jumbo,
                jumbo_server: Arc::new(jumbo_server),
                budget: Budget::new(config.budget),
                acceptors: Arc::default(),
                next_link: AtomicU64::new(1),
                events,
                link_events,
                unvalidated: AtomicUsize::new(0),
                leaving: watch::Sender::new(false),
            }),
        };
        tokio::spawn(endpoint.clone().run_accept());
        Ok(endpoint)
    }

    /// Steers the socket.
    #[must_use]
    pub fn control(&self) -> &SocketControl {
        &self.shared.control
    }

    /// Where sessions that peers open go.
    #[must_use]
    pub fn acceptors(&self) -> &Arc<Acceptors> {
        &self.shared.acceptors
    }

    /// Memory that connections share.
    #[must_use]
    pub fn budget(&self) -> &Budget {
        &self.shared.budget
    }

    /// Dials `peer` at `to` in a task of its own, whose end is reported as an event unless it is
    /// aborted.
    pub fn dial(&self, id: DialId, peer: NodeId, to: RemoteAddr) -> tokio::task::AbortHandle {
        let endpoint = self.clone();
        let task = tokio::spawn(async move {
            let event = match endpoint.try_dial(id, peer, to).await {
                Ok(new) => EndpointEvent::Up(new),
                Err(reason) => {
                    debug!(peer = %peer.short(), ?to, reason, "dial failed");
                    EndpointEvent::DialFailed(id, reason)
                }
            };
            drop(endpoint.shared.events.send(event).await);
        });
        task.abort_handle()
    }

    async fn try_dial(&self, id: DialId, peer: NodeId, to: RemoteAddr) -> Result<NewLink, String> {
        let shared = &self.shared;
        let (addr, hop) = match to {
            RemoteAddr::Direct(addr) => (crate::socket::to_ipv6(addr), addr),
            RemoteAddr::Relayed { relay, channel } => {
                (shared.control.add_relayed(relay, channel), relay)
            }
        };
        let transport = match Frames::towards(hop) {
            Frames::Common => &shared.common,
            Frames::Jumbo => &shared.jumbo,
        };
        let tls = shared.tls.client(peer).map_err(|error| error.to_string())?;
        let crypto = noq::crypto::rustls::QuicClientConfig::try_from(tls)
            .map_err(|error| error.to_string())?;
        let mut config = noq::ClientConfig::new(Arc::new(crypto));
        config.transport_config(Arc::clone(transport)).token_store(Arc::new(noq::NoneTokenStore));
        let connecting = shared
            .quic
            .connect_with(config, addr, SERVER_NAME)
            .map_err(|error| error.to_string())?;
        let conn = tokio::time::timeout(HANDSHAKE_MAX, connecting)
            .await
            .map_err(|_| "no answer".to_owned())?
            .map_err(|error| error.to_string())?;
        let happenings = Happenings::of(&conn);
        let control = conn.open_bi().await.map_err(|error| error.to_string())?;
        let link = self.admit(conn, Side::Client, control, happenings, Some(id));
        link.ok_or_else(|| "lost at once".to_owned())
    }

    /// Turns an authenticated connection into a link.
    fn admit(
        &self,
        conn: noq::Connection,
        side: Side,
        control: (noq::SendStream, noq::RecvStream),
        happenings: Happenings,
        dial: Option<DialId>,
    ) -> Option<NewLink> {
        let shared = &self.shared;
        let identity = conn.peer_identity()?;
        let keys = identity.downcast::<Vec<rustls::pki_types::CertificateDer<'static>>>().ok()?;
        let peer = tls::id_of(keys.first()?)?;
        let id = LinkId(shared.next_link.fetch_add(1, Ordering::Relaxed));
        let mux = Mux::new(
            conn,
            peer,
            side,
            shared.control.clone(),
            shared.budget.clone(),
            Arc::clone(&shared.acceptors),
        );
        let link = Link::new(id, mux, shared.control.clone());
        let (taken, wait) = oneshot::channel();
        let (events, leaving) = (shared.link_events.clone(), shared.leaving.subscribe());
        let remote = link.start(control, happenings, events, leaving, wait)?;
        Some(NewLink { link, side, remote, dial, taken })
    }

    async fn run_accept(self) {
        while let Some(incoming) = self.shared.quic.accept().await {
            let validated = incoming.remote_address_validated();
            let crowded = self.shared.unvalidated.load(Ordering::Relaxed) >= UNVALIDATED_MAX;
            if crowded && !validated && incoming.may_retry() {
                drop(incoming.retry());
                continue;
            }
            let remote = incoming.remote_address();
            let hop = self.shared.control.lookup_relayed(remote).map_or(remote, |(relay, _)| relay);
            let accepted = match Frames::towards(hop) {
                Frames::Common => incoming.accept(),
                Frames::Jumbo => incoming.accept_with(Arc::clone(&self.shared.jumbo_server)),
            };
            let Ok(connecting) = accepted else { continue };
            // A client may open more paths as soon as the handshake is over, before this task is
            // woken by its end: who is told of paths only from then on never hears of those. What
            // the client is, or has to say, is looked at once it has proved its key.
            let Ok((conn, _)) = connecting.into_0rtt() else { continue };
            let happenings = Happenings::of(&conn);
            if !validated {
                self.shared.unvalidated.fetch_add(1, Ordering::Relaxed);
            }
            let endpoint = self.clone();
            tokio::spawn(async move {
                let proved = conn.handshake_confirmed();
                let result = tokio::time::timeout(HANDSHAKE_MAX, proved).await;
                if !validated {
                    endpoint.shared.unvalidated.fetch_sub(1, Ordering::Relaxed);
                }
                let Ok(Ok(())) = result else { return };
                // A client that gives its dial up when the handshake is just over (another came
                // first) never speaks. What it does not hold is no link.
                let control = tokio::time::timeout(HANDSHAKE_MAX, conn.accept_bi()).await;
                if let Ok(Ok(control)) = control
                    && let Some(new) = endpoint.admit(conn, Side::Server, control, happenings, None)
                {
                    drop(endpoint.shared.events.send(EndpointEvent::Up(new)).await);
                }
            });
        }
    }

    /// Closes every connection, once the peers have acknowledged what the links said: without the
    /// opening of its session a stream would be worth nothing to them. Waits until they were told.
    pub async fn close(&self) {
        self.shared.leaving.send_replace(true);
        drop(tokio::time::timeout(LEAVE_MAX, self.shared.leaving.closed()).await);
        self.shared.quic.close(link_code::SHUTDOWN.into(), b"shutting down");
        self.shared.quic.wait_idle().await;
    }
}
