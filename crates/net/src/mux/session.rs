//! A session: one conversation of one application protocol with one peer.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::time::Duration;

use baran_proto::id::NodeId;
use baran_proto::path::Selected;
use baran_proto::wire::mux::{HEAD_LEN_MAX, close_code, put_head};
use bytes::{BufMut, Bytes, BytesMut};
use tokio::sync::{Notify, watch};

use super::{Mux, RecvStream, SendStream, SessionError, lock};

/// Streams of the peer that wait to be accepted: as many as it may open.
const STREAMS_WAITING_MAX: usize = 4096;

/// Datagrams that wait to be read; older ones make room for newer ones, as in a network.
const DATAGRAMS_MAX: usize = 256;

/// Finished streams whose acknowledgements are watched before they are looked through.
const UNACKNOWLEDGED_SWEEP: usize = 64;

/// Longest wait for acknowledgements when a session is closed.
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// Bookkeeping that a datagram costs beside its bytes.
const DATAGRAM_OVERHEAD: usize = 128;

/// What a waiting datagram counts as, in bytes.
fn cost(len: usize) -> u64 {
    (len + DATAGRAM_OVERHEAD) as u64
}

/// Datagrams that wait to be read, each with whether its room is of the node's budget.
#[derive(Debug, Default)]
struct Datagrams(VecDeque<(Bytes, bool)>);

impl Datagrams {
    fn pop(&mut self, mux: &Mux) -> Option<Bytes> {
        let (datagram, budgeted) = self.0.pop_front()?;
        mux.release_datagram(cost(datagram.len()), budgeted);
        Some(datagram)
    }
}

/// What a session's handle, its streams and its link share.
#[derive(Debug)]
pub(super) struct SessionShared {
    streams: Mutex<VecDeque<(SendStream, RecvStream)>>,
    streams_notify: Notify,
    datagrams: Mutex<Datagrams>,
    datagrams_notify: Notify,
    end: watch::Sender<Option<SessionError>>,
    unacknowledged: Mutex<Vec<Pin<Box<noq::Stopped>>>>,
}

impl SessionShared {
    fn end(&self, error: SessionError) {
        self.end.send_if_modified(|end| {
            let first = end.is_none();
            if first {
                *end = Some(error);
            }
            first
        });
        self.streams_notify.notify_waiters();
        self.datagrams_notify.notify_waiters();
    }

    pub(super) fn closed(&self, code: u32, reason: String) {
        self.end(SessionError::Closed { code, reason });
    }

    pub(super) fn lost(&self, reason: String) {
        self.end(SessionError::Lost(reason));
    }

    pub(super) fn incoming(&self, send: SendStream, recv: RecvStream) {
        let mut streams = lock(&self.streams);
        if streams.len() < STREAMS_WAITING_MAX && self.end.borrow().is_none() {
            streams.push_back((send, recv));
            drop(streams);
            self.streams_notify.notify_one();
        }
    }

    pub(super) fn datagram(&self, mux: &Mux, payload: &[u8]) {
        let mut datagrams = lock(&self.datagrams);
        // Asked under the lock: whoever ends the session empties the queue after that.
        if self.end.borrow().is_some() {
            return;
        }
        if datagrams.0.len() >= DATAGRAMS_MAX {
            datagrams.pop(mux);
        }
        let cost = cost(payload.len());
        let budgeted = loop {
            match mux.reserve_datagram(cost) {
                Some(budgeted) => break budgeted,
                None if datagrams.pop(mux).is_some() => {}
                None => return,
            }
        };
        // Copied: what QUIC hands out is a slice of all that came in one burst.
        datagrams.0.push_back((Bytes::copy_from_slice(payload), budgeted));
        drop(datagrams);
        self.datagrams_notify.notify_one();
    }

    /// Remembers a finished stream until the peer has acknowledged all of it.
    pub(super) fn await_acknowledgement(&self, stopped: noq::Stopped) {
        let mut unacknowledged = lock(&self.unacknowledged);
        if unacknowledged.len() >= UNACKNOWLEDGED_SWEEP {
            let mut cx = Context::from_waker(Waker::noop());
            unacknowledged.retain_mut(|stopped| stopped.as_mut().poll(&mut cx).is_pending());
        }
        unacknowledged.push(Box::pin(stopped));
    }
}

/// A conversation of one application protocol with one peer: streams and datagrams, whatever path
/// they take. Dropping it closes the session without waiting for anything.
#[derive(Debug)]
pub struct Session {
    mux: Arc<Mux>,
    shared: Arc<SessionShared>,
    id: u32,
    protocol: String,
}

impl Session {
    pub(super) fn new(mux: Arc<Mux>, id: u32, protocol: String) -> (Self, Arc<SessionShared>) {
        let shared = Arc::new(SessionShared {
            streams: Mutex::default(),
            streams_notify: Notify::new(),
            datagrams: Mutex::default(),
            datagrams_notify: Notify::new(),
            end: watch::Sender::new(None),
            unacknowledged: Mutex::default(),
        });
        (Self { mux, shared: Arc::clone(&shared), id, protocol }, shared)
    }

    /// The peer.
    #[must_use]
    pub fn peer(&self) -> NodeId {
        self.mux.peer
    }

    /// The application protocol.
    #[must_use]
    pub fn protocol(&self) -> &str {
        &self.protocol
    }

    /// The path in use.
    #[must_use]
    pub fn selected(&self) -> watch::Receiver<Option<Selected>> {
        self.mux.selected.subscribe()
    }

    /// Round-trip time of the path in use, smoothed.
    #[must_use]
    pub fn rtt(&self) -> Option<Duration> {
        self.mux.rtt()
    }

    fn check_open(&self) -> Result<(), SessionError> {
        self.shared.end.borrow().clone().map_or(Ok(()), Err)
    }

    /// Opens a stream in both directions. The peer hears of it with the first bytes written.
    ///
    /// # Errors
    ///
    /// If the session is over.
    pub async fn open_bi(&self) -> Result<(SendStream, RecvStream), SessionError> {
        self.check_open()?;
        let (send, recv) = self.mux.conn.open_bi().await?;
        // Credit may come as soon as the head is out, so the stream is registered before.
        let (mut send, recv) = self.mux.wrap(&self.shared, send, recv);
        send.write_head(self.id).await?;
        Ok((send, recv))
    }

    /// Waits for a stream that the peer opens. Streams that came before the end of the session are
    /// still returned after it. Cancel-safe.
    ///
    /// # Errors
    ///
    /// If the session is over.
    pub async fn accept_bi(&self) -> Result<(SendStream, RecvStream), SessionError> {
        loop {
            let notified = self.shared.streams_notify.notified();
            if let Some(streams) = lock(&self.shared.streams).pop_front() {
                return Ok(streams);
            }
            self.check_open()?;
            notified.await;
        }
    }

    /// Longest datagram that can be sent at this moment, in bytes.
    #[must_use]
    pub fn datagram_len_max(&self) -> usize {
        self.mux.conn.max_datagram_size().unwrap_or(0).saturating_sub(HEAD_LEN_MAX)
    }

    /// Sends a datagram, which may be lost, doubled or overtaken.
    ///
    /// # Errors
    ///
    /// If it is too long or the session is over.
    pub fn send_datagram(&self, payload: &[u8]) -> Result<(), SessionError> {
        self.check_open()?;
        let mut datagram = BytesMut::with_capacity(payload.len() + HEAD_LEN_MAX);
        put_head(self.id, &mut datagram);
        datagram.put_slice(payload);
        let sent = self.mux.conn.send_datagram(datagram.freeze());
        self.mux.stir.touch();
        match sent {
            Ok(()) => Ok(()),
            Err(noq::SendDatagramError::ConnectionLost(error)) => Err(error.into()),
            Err(_) => Err(SessionError::DatagramTooLong(payload.len())),
        }
    }

    /// Waits for a datagram. Cancel-safe.
    ///
    /// # Errors
    ///
    /// If the session is over.
    pub async fn read_datagram(&self) -> Result<Bytes, SessionError> {
        loop {
            let notified = self.shared.datagrams_notify.notified();
            if let Some(datagram) = lock(&self.shared.datagrams).pop(&self.mux) {
                return Ok(datagram);
            }
            self.check_open()?;
            notified.await;
        }
    }

    /// Waits for the end of the session and says why it came.
    pub async fn closed(&self) -> SessionError {
        let mut end = self.shared.end.subscribe();
        let ended = end.wait_for(Option::is_some).await;
        ended.ok().and_then(|end| end.clone()).unwrap_or(SessionError::StreamClosed)
    }

    /// Closes the session after the peer has acknowledged every stream that was finished, or after
    /// 5 s.
    pub async fn close(self, code: u32, reason: &str) {
        let unacknowledged = std::mem::take(&mut *lock(&self.shared.unacknowledged));
        let all = async {
            for stopped in unacknowledged {
                drop(stopped.await);
            }
        };
        drop(tokio::time::timeout(CLOSE_MAX, all).await);
        self.mux.close(self.id, code, reason);
    }
}

impl Session {
    /// Closes the session at once.
    pub(super) fn abort(&self, code: u32, reason: &str) {
        self.mux.close(self.id, code, reason);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.abort(close_code::DROPPED, "");
        // Streams that nobody accepted refer to the session in turn.
        lock(&self.shared.streams).clear();
        while lock(&self.shared.datagrams).pop(&self.mux).is_some() {}
    }
}
