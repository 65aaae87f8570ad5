//! A link: one authenticated QUIC connection, its control stream, sessions and paths.
//!
//! Its tasks end with the connection: one reads the control stream, one writes it, one watches
//! paths and [keeps them alive](baran_proto::path::keepalive), one takes streams and datagrams, one
//! drains streams. What the node must know goes to one bounded channel; the link waits when that is
//! full, and so, in turn, does the peer.

mod paths;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use baran_proto::frame::Channel;
use baran_proto::id::NodeId;
use baran_proto::node::{LinkId, RemoteAddr};
use baran_proto::path::{PathId, Sample, Selected};
use baran_proto::wire::mux::{HEAD_LEN_MAX, head_len, parse_head};
use baran_proto::wire::{DecodeError, LENGTH_LEN, MESSAGE_LEN_MAX, Message, NodeMessage};
use noq::PathStatus;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::debug;

use crate::mux::{Mux, Session, SessionError, lock};
use crate::socket::SocketControl;

/// Longest wait for the session's number at the head of a stream.
const HEADER_MAX: Duration = Duration::from_secs(10);

/// Messages read from a control stream before others get their turn.
const MESSAGES_PER_TURN: u64 = 32;

/// How long a lost connection may still have something to send (RFC 9000 §10.2: three PTO).
const GOODBYE: Duration = Duration::from_secs(3);

/// Codes with which a connection is closed.
pub mod link_code {
    /// The node shuts down.
    pub const SHUTDOWN: u32 = 0;
    /// Another connection between the two nodes is preferred.
    pub const DUPLICATE: u32 = 1;
    /// The peer broke the protocol.
    pub const VIOLATION: u32 = 2;
    /// Nobody wants the connection (any more).
    pub const UNWANTED: u32 = 3;
    /// Nothing was heard of the peer.
    pub const SILENT: u32 = 4;
}

/// What a link tells the node.
#[derive(Debug)]
pub enum LinkEvent {
    /// The peer said something.
    Message(NodeMessage),
    /// A further path is validated.
    PathOpened(PathId, RemoteAddr),
    /// A path is gone.
    PathClosed(PathId),
    /// The peer sees us at this address, on a direct path.
    Observed(SocketAddr),
    /// The peer named more of its addresses.
    PeerCandidates,
    /// Something was written or arrived after [`Link::be_quiet`], or a keep-alive was not answered.
    /// Once for each quiet time.
    Active,
    /// The connection is gone.
    Down(String),
}

/// Where links report to.
pub type LinkEvents = mpsc::Sender<(LinkId, LinkEvent)>;

/// What happens to the paths of a connection, from when this is made.
#[derive(Debug)]
pub(crate) struct Happenings {
    paths: noq::PathEvents,
    updates: noq::NatTraversalUpdates,
}

impl Happenings {
    pub(crate) fn of(conn: &noq::Connection) -> Self {
        Self { paths: conn.path_events(), updates: conn.nat_traversal_updates() }
    }
}

/// A link. Cheap to clone; the connection lives until it is closed or lost.
#[derive(Debug, Clone)]
pub struct Link {
    id: LinkId,
    mux: Arc<Mux>,
    control: SocketControl,
    /// Mapped addresses of relayed paths, to be forgotten with them.
    mapped: Arc<Mutex<BTreeMap<PathId, SocketAddr>>>,
}

impl Link {
    pub(crate) fn new(id: LinkId, mux: Arc<Mux>, control: SocketControl) -> Self {
        Self { id, mux, control, mapped: Arc::default() }
    }

    /// Prepares the tasks of a connection that just came up; they run once `taken` says that the
    /// node knows the link, so that nothing of it is reported before. Returns where its first path
    /// leads, or `None` if that path is gone already.
    ///
    /// The control stream is the first that the client opens, so it is handed over here.
    pub(crate) fn start(
        &self,
        control: (noq::SendStream, noq::RecvStream),
        Happenings { paths, updates }: Happenings,
        events: LinkEvents,
        leaving: watch::Receiver<bool>,
        taken: oneshot::Receiver<()>,
    ) -> Option<RemoteAddr> {
        let first = self.remote_of(noq::PathId::ZERO)?;
        let link = self.clone();
        tokio::spawn(async move {
            if taken.await.is_err() {
                link.close(link_code::UNWANTED, "nobody takes this connection");
                return;
            }
            let reason = tokio::select! {
                reason = link.run_messages(control, &events, leaving) => reason,
                reason = link.run_watch(paths, updates, &events) => reason,
                () = link.mux.run_drain() => String::new(),
            };
            link.give_up(&reason);
            link.mux.lost(&reason);
            drop(events.send((link.id, LinkEvent::Down(reason))).await);
            // QUIC still says goodbye over them for a while.
            tokio::time::sleep(GOODBYE).await;
            for mapped in std::mem::take(&mut *lock(&link.mapped)).into_values() {
                link.control.remove_relayed(mapped);
            }
        });
        Some(first)
    }

    /// The link's number.
    #[must_use]
    pub fn id(&self) -> LinkId {
        self.id
    }

    /// Who it leads to.
    #[must_use]
    pub fn peer(&self) -> NodeId {
        self.mux.peer
    }

    /// How many sessions are open on it.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.mux.sessions()
    }

    /// Round-trip time of the path in use, smoothed.
    #[must_use]
    pub fn rtt(&self) -> Option<Duration> {
        self.mux.rtt()
    }

    /// Tells those who watch which path is in use.
    pub fn set_selected(&self, selected: Selected) {
        self.mux.selected.send_replace(Some(selected));
    }

    /// The local address of a path, if the system tells it.
    #[must_use]
    pub fn local_ip(&self, path: PathId) -> Option<IpAddr> {
        self.path(path)?.local_ip().ok()?
    }

    /// Sends a message to the peer's node.
    pub fn send(&self, message: NodeMessage) {
        self.mux.outbox.push(Message::Node(message));
    }

    /// Opens a session of an application protocol.
    ///
    /// # Errors
    ///
    /// If the link is lost or has too many sessions.
    pub fn open(&self, protocol: &str) -> Result<Session, SessionError> {
        self.mux.open(protocol)
    }

    /// Closes the connection at once. What streams have not delivered may be lost: sessions are
    /// closed first by whoever cares.
    pub fn close(&self, code: u32, reason: &str) {
        self.mux.conn.close(code.into(), reason.as_bytes());
    }

    fn path(&self, path: PathId) -> Option<noq::Path> {
        self.mux.conn.path(path.0.into())
    }

    /// Lets data flow on a path, or only when no such path is left.
    pub fn set_available(&self, path: PathId, available: bool) {
        let status = if available { PathStatus::Available } else { PathStatus::Backup };
        if let Some(path) = self.path(path) {
            drop(path.set_status(status));
        }
    }

    /// Closes a path.
    pub fn close_path(&self, path: PathId) {
        if let Some(path) = self.path(path)
            && let Err(error) = path.close()
        {
            debug!(peer = %self.peer().short(), %error, "path not closed");
        }
    }

    /// Makes a path transmit something that must be answered.
    pub fn ping(&self, path: PathId) {
        if let Some(path) = self.path(path) {
            drop(path.ping());
        }
    }

    /// The counters of the given paths, for the path manager.
    #[must_use]
    pub fn sample(&self, paths: &[PathId]) -> Vec<Sample> {
        self.mux.stir.sampled();
        self.counters(paths)
    }

    /// Nobody asks for samples until [`LinkEvent::Active`] is reported.
    pub fn be_quiet(&self) {
        self.mux.stir.be_quiet();
    }

    fn counters(&self, paths: &[PathId]) -> Vec<Sample> {
        paths
            .iter()
            .filter_map(|path| {
                let stats = self.mux.conn.path_stats(path.0.into())?;
                Some(Sample {
                    path: *path,
                    tx: stats.udp_tx.datagrams,
                    rx: stats.udp_rx.datagrams,
                    rtt: stats.rtt,
                })
            })
            .collect()
    }

    /// Tells the peer, now or with the next round of punching, that we may be reached here.
    pub fn add_candidate(&self, addr: SocketAddr) {
        if let Err(error) = self.mux.conn.add_nat_traversal_address(addr) {
            debug!(peer = %self.peer().short(), %error, "candidate not added");
        }
    }

    /// Takes that back.
    pub fn remove_candidate(&self, addr: SocketAddr) {
        drop(self.mux.conn.remove_nat_traversal_address(addr));
    }

    /// Probes all pairs of candidates.
    pub fn start_round(&self) {
        match self.mux.conn.initiate_nat_traversal_round() {
            Ok(addrs) => debug!(peer = %self.peer().short(), ?addrs, "punching"),
            Err(error) => debug!(peer = %self.peer().short(), %error, "no round of punching"),
        }
    }

    /// Opens a path over a channel of a relay. Its coming up is reported as an event.
    ///
    /// # Errors
    ///
    /// If the path could not be opened.
    pub async fn open_relayed(&self, relay: SocketAddr, channel: Channel) -> Result<(), String> {
        let mapped = self.control.add_relayed(relay, channel);
        let opening = self.mux.conn.open_path(mapped, PathStatus::Backup);
        match opening.await {
            Ok(_) => Ok(()),
            Err(error) => {
                self.control.remove_relayed(mapped);
                Err(error.to_string())
            }
        }
    }

    fn remote_of(&self, path: noq::PathId) -> Option<RemoteAddr> {
        let addr = self.mux.conn.path(path)?.remote_address().ok()?;
        if !self.control.is_mapped(addr) {
            return Some(RemoteAddr::Direct(addr));
        }
        lock(&self.mapped).insert(number(path), addr);
        let (relay, channel) = self.control.lookup_relayed(addr)?;
        Some(RemoteAddr::Relayed { relay, channel })
    }

    /// Serves the control stream and all others.
    async fn run_messages(
        &self,
        control: (noq::SendStream, noq::RecvStream),
        events: &LinkEvents,
        leaving: watch::Receiver<bool>,
    ) -> String {
        let (send, recv) = control;
        drop(send.set_priority(1));
        // When the connection ends, these two read what had arrived before they end as well:
        // what was acknowledged to the peer is not lost.
        let read = async {
            let control = async {
                let reason = self.read_control(recv, events).await;
                self.give_up(&reason);
                reason
            };
            tokio::join!(control, self.run_streams()).0
        };
        tokio::select! {
            reason = self.write_control(send, leaving) => reason,
            reason = read => reason,
        }
    }

    /// Closes a connection that still stands, for a fault of the peer's.
    fn give_up(&self, reason: &str) {
        if self.mux.conn.close_reason().is_none() {
            debug!(peer = %self.peer().short(), reason, "closing a link");
            self.close(link_code::VIOLATION, reason);
        }
    }

    /// Says what is to be said. When the node leaves, ends the stream after that and lets go of
    /// `leaving` once the peer has acknowledged all of it. Returns only for a fault of the peer's.
    async fn write_control(
        &self,
        mut send: noq::SendStream,
        mut leaving: watch::Receiver<bool>,
    ) -> String {
        loop {
            let bytes = tokio::select! {
                biased;
                bytes = self.mux.outbox.take() => bytes,
                _ = leaving.wait_for(|leaving| *leaving) => break,
            };
            self.mux.stir.touch();
            let written = tokio::select! {
                written = send.write_all(&bytes) => written,
                () = self.mux.outbox.overrun() => {
                    return "the peer does not read its control stream".into();
                }
            };
            match written {
                Ok(()) => {}
                // The readers find out too, once they are through.
                Err(noq::WriteError::ConnectionLost(_)) => break,
                Err(error) => return error.to_string(),
            }
        }
        drop(send.finish());
        drop(send.stopped().await);
        drop(leaving);
        std::future::pending().await
    }

    async fn read_control(&self, mut recv: noq::RecvStream, events: &LinkEvents) -> String {
        let mut body = Vec::new();
        for count in 1_u64.. {
            // What is said is answered: the writer, of the same task, gets its turn.
            if count.is_multiple_of(MESSAGES_PER_TURN) {
                tokio::task::yield_now().await;
            }
            let mut length = [0; LENGTH_LEN];
            match recv.read_exact(&mut length).await {
                Ok(()) => {}
                Err(noq::ReadExactError::FinishedEarly(0)) => {
                    self.close(link_code::SHUTDOWN, "as you wish");
                    return "the peer leaves".into();
                }
                Err(error) => return error.to_string(),
            }
            let length = usize::from(u16::from_be_bytes(length));
            if length > MESSAGE_LEN_MAX {
                return "a control message is too long".into();
            }
            self.mux.stir.touch();
            body.resize(length, 0);
            if let Err(error) = recv.read_exact(&mut body).await {
                return error.to_string();
            }
            let handled = match Message::decode(&body) {
                Ok(Message::Mux(message)) => self.mux.handle_message(message),
                Ok(Message::Node(message)) => {
                    let event = (self.id, LinkEvent::Message(message));
                    events.send(event).await.map_err(|_| "the node is gone".into())
                }
                Err(DecodeError::UnknownType(_)) => Ok(()),
                Err(error) => Err(error.to_string()),
            };
            if let Err(reason) = handled {
                return reason;
            }
        }
        "more messages than can be counted".into()
    }

    /// Hands streams and datagrams of the peer to their sessions, until the connection is gone and
    /// nothing is left of it.
    async fn run_streams(&self) {
        let conn = &self.mux.conn;
        let mut heads = Heads::new();
        loop {
            tokio::select! {
                streams = conn.accept_bi() => match streams {
                    Ok(streams) => {
                        self.mux.stir.touch();
                        read_head(&mut heads, streams);
                    }
                    Err(_) => break,
                },
                Some(head) = heads.join_next() => self.handle_head(head),
                datagram = conn.read_datagram() => match datagram {
                    Ok(datagram) => {
                        if let Some((id, header)) = parse_head(&datagram) {
                            self.mux.datagram(id, &datagram[header..]);
                        }
                    }
                    Err(_) => break,
                },
            }
        }
        while let Ok(streams) = conn.accept_bi().await {
            read_head(&mut heads, streams);
        }
        while let Some(head) = heads.join_next().await {
            self.handle_head(head);
        }
    }

    fn handle_head(&self, head: Result<Option<Head>, tokio::task::JoinError>) {
        if let Ok(Some((id, send, recv))) = head {
            self.mux.incoming(id, send, recv);
        }
    }
}

/// The session of a stream that the peer opened, and the stream.
type Head = (u32, noq::SendStream, noq::RecvStream);

type Heads = tokio::task::JoinSet<Option<Head>>;

/// Reads the session's number at the head of a stream.
fn read_head(heads: &mut Heads, (send, mut recv): (noq::SendStream, noq::RecvStream)) {
    heads.spawn(async move {
        let number = async {
            let mut bytes = [0; HEAD_LEN_MAX];
            recv.read_exact(&mut bytes[..1]).await.ok()?;
            let len = head_len(bytes[0]);
            recv.read_exact(&mut bytes[1..len]).await.ok()?;
            parse_head(&bytes[..len]).map(|(session, _)| session)
        };
        let session = tokio::time::timeout(HEADER_MAX, number).await.ok().flatten()?;
        Some((session, send, recv))
    });
}

/// The number of a QUIC path. `noq` 1.4.0 shows it only as text.
fn number(path: noq::PathId) -> PathId {
    PathId(path.to_string().parse().unwrap_or(u32::MAX))
}
