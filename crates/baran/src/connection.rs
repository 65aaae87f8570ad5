//! Connections: conversations of one application protocol with one peer.

use std::time::Duration;

use baran_net::mux::Session;
use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use crate::{NodeId, PathInfo, RecvStream, SendStream, SessionError};

/// A conversation with a peer: streams and datagrams that go on while the path below changes.
#[derive(Debug)]
pub struct Connection {
    session: Session,
}

impl Connection {
    pub(crate) fn new(session: Session) -> Self {
        Self { session }
    }

    /// The peer, as its key proved.
    #[must_use]
    pub fn peer(&self) -> NodeId {
        self.session.peer()
    }

    /// The application protocol.
    #[must_use]
    pub fn protocol(&self) -> &str {
        self.session.protocol()
    }

    /// Opens a stream in both directions. The peer hears of it with the first bytes written.
    ///
    /// # Errors
    ///
    /// If the connection is over.
    pub async fn open_bi(&self) -> Result<(SendStream, RecvStream), SessionError> {
        self.session.open_bi().await
    }

    /// Waits for a stream that the peer opens. Cancel-safe.
    ///
    /// # Errors
    ///
    /// If the connection is over.
    pub async fn accept_bi(&self) -> Result<(SendStream, RecvStream), SessionError> {
        self.session.accept_bi().await
    }

    /// Longest datagram that can be sent at this moment, in bytes.
    #[must_use]
    pub fn datagram_len_max(&self) -> usize {
        self.session.datagram_len_max()
    }

    /// Sends a datagram, which may be lost, doubled or overtaken.
    ///
    /// # Errors
    ///
    /// If it is longer than [`Connection::datagram_len_max`] or the connection is over.
    pub fn send_datagram(&self, payload: &[u8]) -> Result<(), SessionError> {
        self.session.send_datagram(payload)
    }

    /// Waits for a datagram. Cancel-safe. Of those that nobody reads the latest 256 are kept.
    ///
    /// # Errors
    ///
    /// If the connection is over.
    pub async fn read_datagram(&self) -> Result<Bytes, SessionError> {
        self.session.read_datagram().await
    }

    /// The path in use, with its round-trip time of this moment. `None` once the peer is lost.
    #[must_use]
    pub fn path(&self) -> Option<PathInfo> {
        let mut path = PathInfo::from((*self.session.selected().borrow())?);
        path.rtt = self.session.rtt().or(path.rtt);
        Some(path)
    }

    /// Watches which path is in use.
    #[must_use]
    pub fn path_changes(&self) -> PathWatch {
        PathWatch { selected: self.session.selected() }
    }

    /// Waits for the end of the connection and says why it came.
    pub async fn closed(&self) -> SessionError {
        self.session.closed().await
    }

    /// Closes the connection once the peer has acknowledged every stream that was finished; waits
    /// 5 s for that at most.
    pub async fn close(self, code: u32, reason: &str) {
        self.session.close(code, reason).await;
    }

    /// Round-trip time of the path in use.
    #[must_use]
    pub fn rtt(&self) -> Option<Duration> {
        self.session.rtt()
    }
}

/// Watches which path a connection uses.
#[derive(Debug)]
pub struct PathWatch {
    selected: watch::Receiver<Option<baran_proto::path::Selected>>,
}

impl PathWatch {
    /// Waits until another path is in use; `None` once the peer is lost. Cancel-safe.
    pub async fn changed(&mut self) -> Option<PathInfo> {
        self.selected.changed().await.ok()?;
        let selected = *self.selected.borrow_and_update();
        selected.map(PathInfo::from)
    }
}

/// Takes the connections that peers open for one application protocol. Dropping it ends that.
#[derive(Debug)]
pub struct Acceptor {
    sessions: mpsc::Receiver<Session>,
}

impl Acceptor {
    pub(crate) fn new(sessions: mpsc::Receiver<Session>) -> Self {
        Self { sessions }
    }

    /// Waits for a connection. `None` once the node is closed. Cancel-safe.
    pub async fn next(&mut self) -> Option<Connection> {
        self.sessions.recv().await.map(Connection::new)
    }
}
