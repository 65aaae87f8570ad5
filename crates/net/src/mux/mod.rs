//! Many conversations over one link: sessions, their streams and datagrams.
//!
//! A session belongs to one application protocol (see `baran_proto::wire::mux`). Its streams are
//! QUIC streams that begin with its number, its datagrams QUIC datagrams that do. What a stream
//! may send is bounded by credit (`baran_proto::credit`), because everything that arrives is taken
//! out of QUIC at once: by the reader if it waits, else by the link's drain.
//!
//! Memory of a link is bounded by what it may do without asking: each stream may leave little
//! unread, and what QUIC itself holds for want of a gap's filling, or of an acknowledgement, has
//! small windows. All of them grow with use as long as the node's budget lasts. What lies unread
//! in one stream never blocks another, nor the control stream, because QUIC is drained at once.

mod flow;
mod outbox;
mod recv;
mod send;
mod session;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use baran_proto::id::NodeId;
use baran_proto::path::{Selected, Side};
use baran_proto::time::Instant;
use baran_proto::wire::mux::{Credit, REASON_LEN_MAX, SessionClose, SessionOpen, close_code};
use baran_proto::wire::{Message, MuxMessage};
use noq::VarInt;
use thiserror::Error;
use tokio::sync::{Notify, watch};

use self::flow::Flow;
pub(crate) use self::outbox::Outbox;
use self::recv::RecvShared;
pub use self::recv::RecvStream;
pub use self::send::SendStream;
use self::send::Senders;
pub use self::session::Session;
use self::session::SessionShared;
use crate::budget::Budget;
use crate::quic::{SEND_WINDOW, SEND_WINDOW_MAX, WINDOW};
use crate::socket::SocketControl;
use crate::stir::Stir;

/// Sessions of a link at a time, both sides' together.
const SESSIONS_MAX: usize = 1024;

/// Bytes of datagrams that may wait on a link without the node's budget.
const DATAGRAM_BYTES: u64 = 16 * 1024;

/// Streams that wait for their session to be announced.
const ORPHANS_MAX: usize = 32;

/// QUIC error code of a stream whose session is not known.
const UNKNOWN_SESSION: VarInt = VarInt::from_u32(0x01);

/// Why an operation on a session or a stream failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SessionError {
    /// The peer gave the stream up.
    #[error("the peer reset the stream with code {0}")]
    Reset(u64),
    /// The peer does not want to read (more of) the stream.
    #[error("the peer stopped the stream with code {0}")]
    Stopped(u64),
    /// The session was closed, by the peer or by us.
    #[error("the session was closed with code {code}: {reason}")]
    Closed {
        /// The application's code, or one of `wire::mux::close_code`.
        code: u32,
        /// For people.
        reason: String,
    },
    /// The connection is gone.
    #[error("the connection was lost: {0}")]
    Lost(String),
    /// The stream was finished or reset by us.
    #[error("the stream is closed")]
    StreamClosed,
    /// The datagram is longer than [`Session::datagram_len_max`].
    #[error("a datagram of {0} bytes does not fit this connection")]
    DatagramTooLong(usize),
}

impl From<noq::ConnectionError> for SessionError {
    fn from(error: noq::ConnectionError) -> Self {
        Self::Lost(error.to_string())
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere has ended its task; what it held is still sound data.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where sessions that peers open go: one queue for each protocol that is accepted.
#[derive(Debug, Default)]
pub struct Acceptors {
    queues: Mutex<HashMap<String, tokio::sync::mpsc::Sender<Session>>>,
}

impl Acceptors {
    /// Takes sessions of `protocol` from now on, up to `queue` of them waiting. `None` if somebody
    /// does already.
    #[must_use]
    pub fn accept(
        &self,
        protocol: &str,
        queue: usize,
    ) -> Option<tokio::sync::mpsc::Receiver<Session>> {
        let mut queues = lock(&self.queues);
        if queues.get(protocol).is_some_and(|sender| !sender.is_closed()) {
            return None;
        }
        let (sender, receiver) = tokio::sync::mpsc::channel(queue);
        queues.insert(protocol.to_owned(), sender);
        Some(receiver)
    }

    /// Hands a session to whoever accepts its protocol, or refuses it.
    fn offer(&self, session: Session) {
        use tokio::sync::mpsc::error::TrySendError;
        let queue = lock(&self.queues).get(session.protocol()).cloned();
        let Some(queue) = queue else {
            session.abort(close_code::UNKNOWN_PROTOCOL, "nobody accepts this protocol");
            return;
        };
        match queue.try_send(session) {
            Ok(()) => {}
            Err(TrySendError::Full(session)) => {
                session.abort(close_code::BUSY, "too many sessions wait to be accepted");
            }
            Err(TrySendError::Closed(session)) => {
                session.abort(close_code::UNKNOWN_PROTOCOL, "nobody accepts this protocol");
            }
        }
    }
}

#[derive(Debug, Default)]
struct Table {
    sessions: HashMap<u32, Arc<SessionShared>>,
    /// The first number that the peer has not used: it counts up.
    next_of_peer: u32,
    orphans: Vec<(u32, noq::SendStream, noq::RecvStream)>,
    lost: Option<String>,
}

/// The sessions of one link, and what their streams share.
#[derive(Debug)]
pub(crate) struct Mux {
    pub(crate) peer: NodeId,
    pub(crate) conn: noq::Connection,
    pub(crate) outbox: Outbox,
    /// Told of all that is written on the link or taken from it.
    pub(crate) stir: Stir,
    /// The path in use, as the node machine says.
    pub(crate) selected: watch::Sender<Option<Selected>>,
    pub(crate) side: Side,
    clock: SocketControl,
    budget: Budget,
    acceptors: Arc<Acceptors>,
    next_session: AtomicU32,
    table: Mutex<Table>,
    senders: Mutex<Senders>,
    /// Streams on which data may have arrived that nobody has taken out of QUIC.
    ready: Mutex<Vec<Arc<RecvShared>>>,
    drain: Notify,
    /// How much QUIC lets the peer send.
    flow: Mutex<Flow>,
    /// Bytes that our streams may hold until the peer has acknowledged them.
    send_window: Mutex<u64>,
    /// Bytes of datagrams that wait to be read and are not of the budget.
    datagrams: AtomicU64,
}

impl Mux {
    pub(crate) fn new(
        conn: noq::Connection,
        peer: NodeId,
        side: Side,
        clock: SocketControl,
        budget: Budget,
        acceptors: Arc<Acceptors>,
    ) -> Arc<Self> {
        Arc::new(Self {
            peer,
            conn,
            outbox: Outbox::default(),
            stir: Stir::default(),
            selected: watch::Sender::new(None),
            side,
            clock,
            budget,
            acceptors,
            next_session: AtomicU32::new(u32::from(side == Side::Server)),
            table: Mutex::default(),
            senders: Mutex::default(),
            ready: Mutex::default(),
            drain: Notify::new(),
            flow: Mutex::new(Flow::new(WINDOW.into())),
            send_window: Mutex::new(SEND_WINDOW),
            datagrams: AtomicU64::new(0),
        })
    }

    pub(crate) fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Round-trip time of the path in use.
    pub(crate) fn rtt(&self) -> Option<Duration> {
        let path = (*self.selected.borrow())?.path;
        self.conn.rtt(path.0.into())
    }

    /// How many sessions are open.
    pub(crate) fn sessions(&self) -> usize {
        lock(&self.table).sessions.len()
    }

    /// Opens a session. The peer learns of it with the next packet.
    pub(crate) fn open(self: &Arc<Self>, protocol: &str) -> Result<Session, SessionError> {
        let mut table = lock(&self.table);
        if let Some(reason) = &table.lost {
            return Err(SessionError::Lost(reason.clone()));
        }
        if table.sessions.len() >= SESSIONS_MAX {
            let reason = "too many sessions on this link".to_owned();
            return Err(SessionError::Closed { code: close_code::BUSY, reason });
        }
        let id = self.next_session.fetch_add(2, Ordering::Relaxed);
        let (session, shared) = Session::new(Arc::clone(self), id, protocol.to_owned());
        table.sessions.insert(id, shared);
        let open = SessionOpen { session: id, protocol: protocol.to_owned() };
        // Under the lock, because the peer expects the numbers in order.
        self.outbox.push(Message::Mux(MuxMessage::SessionOpen(open)));
        Ok(session)
    }

    /// Takes a message of the peer's multiplexer.
    pub(crate) fn handle_message(self: &Arc<Self>, message: MuxMessage) -> Result<(), String> {
        match message {
            MuxMessage::SessionOpen(open) => self.handle_open(open),
            MuxMessage::SessionClose(close) => {
                self.handle_close(close);
                Ok(())
            }
            MuxMessage::Credit(Credit { stream, limit }) => {
                lock(&self.senders).grant(stream, limit, self.side);
                Ok(())
            }
        }
    }

    fn handle_open(self: &Arc<Self>, open: SessionOpen) -> Result<(), String> {
        let ours = u32::from(self.side == Side::Server);
        if open.session % 2 == ours {
            return Err("a session with a number of ours".into());
        }
        let mut table = lock(&self.table);
        if open.session < table.next_of_peer {
            return Err("a session number used twice or out of order".into());
        }
        table.next_of_peer = open.session.saturating_add(1);
        // Numbers count up, so no lower one can be opened any more.
        let (over, rest): (Vec<_>, _) = std::mem::take(&mut table.orphans)
            .into_iter()
            .partition(|(id, ..)| *id <= open.session);
        table.orphans = rest;
        let is_full = table.sessions.len() >= SESSIONS_MAX;
        let (session, shared) = Session::new(Arc::clone(self), open.session, open.protocol);
        if !is_full {
            table.sessions.insert(open.session, Arc::clone(&shared));
        }
        drop(table);
        if is_full {
            self.send_close(open.session, close_code::BUSY, "too many sessions on this link");
        }
        for (id, send, recv) in over {
            self.incoming(id, send, recv);
        }
        if !is_full {
            self.acceptors.offer(session);
        }
        Ok(())
    }

    fn handle_close(&self, close: SessionClose) {
        let session = lock(&self.table).sessions.remove(&close.session);
        if let Some(session) = session {
            session.closed(close.code, close.reason);
        }
    }

    /// Closes a session of ours or the peer's, once.
    pub(crate) fn close(&self, id: u32, code: u32, reason: &str) {
        let session = lock(&self.table).sessions.remove(&id);
        if let Some(session) = session {
            session.closed(code, reason.to_owned());
            self.send_close(id, code, reason);
        }
    }

    fn send_close(&self, session: u32, code: u32, reason: &str) {
        // Four bytes a character at the most keep within the message's limit.
        let reason = reason.chars().take(REASON_LEN_MAX / 4).collect();
        let close = SessionClose { session, code, reason };
        self.outbox.push(Message::Mux(MuxMessage::SessionClose(close)));
    }

    /// The connection is gone: ends every session.
    pub(crate) fn lost(&self, reason: &str) {
        let mut table = lock(&self.table);
        table.lost = Some(reason.to_owned());
        let sessions = std::mem::take(&mut table.sessions);
        table.orphans.clear();
        drop(table);
        for session in sessions.into_values() {
            session.lost(reason.to_owned());
        }
        *lock(&self.senders) = Senders::default();
        self.drain.notify_one();
    }

    /// Hands a stream that the peer opened to its session.
    pub(crate) fn incoming(
        self: &Arc<Self>,
        id: u32,
        mut send: noq::SendStream,
        mut recv: noq::RecvStream,
    ) {
        let session = lock(&self.table).sessions.get(&id).cloned();
        if let Some(session) = session {
            let (send, recv) = self.wrap(&session, send, recv);
            session.incoming(send, recv);
            return;
        }
        let ours = u32::from(self.side == Side::Server);
        let mut table = lock(&self.table);
        // A stream may overtake the message that opens its session, but not one of ours, and none
        // comes for a session that is over.
        let is_over = id % 2 == ours || id < table.next_of_peer;
        if is_over || table.orphans.len() >= ORPHANS_MAX {
            drop(table);
            drop(recv.stop(UNKNOWN_SESSION));
            drop(send.reset(UNKNOWN_SESSION));
            return;
        }
        table.orphans.push((id, send, recv));
    }

    /// Hands a datagram to its session; nobody's datagram is dropped.
    pub(crate) fn datagram(&self, id: u32, payload: &[u8]) {
        self.stir.touch();
        let session = lock(&self.table).sessions.get(&id).cloned();
        if let Some(session) = session {
            session.datagram(self, payload);
        }
    }

    /// Finds room for a datagram that waits to be read: in what the link has for them, or else in
    /// the node's budget. Says whether in the latter; `None` if there is none.
    fn reserve_datagram(&self, bytes: u64) -> Option<bool> {
        let free = |waiting: u64| Some(waiting + bytes).filter(|sum| *sum <= DATAGRAM_BYTES);
        let relaxed = Ordering::Relaxed;
        if self.datagrams.fetch_update(relaxed, relaxed, free).is_ok() {
            return Some(false);
        }
        self.budget.take(bytes).then_some(true)
    }

    fn release_datagram(&self, bytes: u64, budgeted: bool) {
        if budgeted {
            self.budget.give_back(bytes);
        } else {
            self.datagrams.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// Puts credit around a stream of a session.
    fn wrap(
        self: &Arc<Self>,
        session: &Arc<SessionShared>,
        send: noq::SendStream,
        recv: noq::RecvStream,
    ) -> (SendStream, RecvStream) {
        let sender = lock(&self.senders).wrap(send.id().into());
        let send = SendStream::new(Arc::clone(self), Arc::clone(session), send, sender);
        (send, RecvStream::new(Arc::clone(self), recv))
    }

    /// Asks for `bytes` more window from the node's budget.
    fn reserve(&self, bytes: u64) -> bool {
        let taken = self.budget.take(bytes);
        if taken {
            self.set_window(lock(&self.flow).widen(bytes));
        }
        taken
    }

    fn release(&self, bytes: u64) {
        self.budget.give_back(bytes);
        self.set_window(lock(&self.flow).narrow(bytes));
    }

    /// Takes note of bytes that were taken out of QUIC.
    fn note_taken(&self, bytes: u64) {
        self.stir.touch();
        self.set_window(lock(&self.flow).take(bytes));
    }

    fn set_window(&self, window: Option<u64>) {
        if let Some(window) = window {
            self.conn.set_receive_window(VarInt::from_u64(window).unwrap_or(VarInt::MAX));
        }
    }

    /// Lets our streams hold more until it is acknowledged, if the path carries more and the
    /// budget lasts. Twice the congestion window, so that one is ready when the other is
    /// acknowledged: a peer that acknowledges nothing earns nothing.
    fn widen_send(&self) -> bool {
        let path = self.selected.borrow().map_or(0, |selected| selected.path.0);
        let Some(stats) = self.conn.path_stats(path.into()) else { return false };
        let mut window = lock(&self.send_window);
        let wanted = stats.cwnd.saturating_mul(2).min(SEND_WINDOW_MAX);
        let widens = wanted > *window && self.budget.take(wanted - *window);
        if widens {
            *window = wanted;
            self.conn.set_send_window(wanted);
        }
        widens
    }

    /// Gives back what was widened: nobody writes.
    fn narrow_send(&self) {
        let mut window = lock(&self.send_window);
        if *window > SEND_WINDOW {
            self.budget.give_back(*window - SEND_WINDOW);
            *window = SEND_WINDOW;
            self.conn.set_send_window(SEND_WINDOW);
        }
    }

    fn want_drain(&self, stream: Arc<RecvShared>) {
        lock(&self.ready).push(stream);
        self.drain.notify_one();
    }

    /// Takes out of QUIC what readers leave there, as long as the link stands.
    pub(crate) async fn run_drain(&self) {
        loop {
            self.drain.notified().await;
            // Readers that wait take their data themselves; give them the time to.
            tokio::time::sleep(Duration::from_millis(1)).await;
            let ready = std::mem::take(&mut *lock(&self.ready));
            for stream in ready {
                stream.drain(self);
            }
        }
    }
}

impl Drop for Mux {
    fn drop(&mut self) {
        self.narrow_send();
    }
}
