//! The reading half of a stream.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use baran_proto::credit::RecvCredit;
use bytes::{Buf, Bytes, BytesMut};
use noq::VarInt;
use tokio::io::{AsyncRead, ReadBuf};

use super::{Mux, SessionError, lock};

/// Chunks shorter than this are copied together: each would otherwise pin the whole datagram that
/// it came in.
const COPY_BELOW: usize = 512;

/// Chunks taken from QUIC at a time.
const CHUNKS: usize = 32;

/// Smallest and largest block that unread bytes are copied into.
const BLOCK: (usize, usize) = (256, 4 * 1024);

/// Round-trip time assumed where none is known.
const RTT_UNKNOWN: Duration = Duration::from_millis(100);

/// QUIC error code of a stream that its reader dropped.
const DROPPED: VarInt = VarInt::from_u32(0x02);

/// How a stream ended.
#[derive(Debug, Clone)]
enum End {
    Finished,
    Failed(SessionError),
}

#[derive(Debug)]
struct State {
    /// `None` once the reader is gone.
    stream: Option<noq::RecvStream>,
    chunks: VecDeque<Bytes>,
    /// Chunks copied together; they come after `chunks`.
    tail: BytesMut,
    /// Bytes in both.
    unread: usize,
    end: Option<End>,
    credit: RecvCredit,
    reader: Option<Waker>,
}

/// What the reader, the link's drain and QUIC's waker share.
#[derive(Debug)]
pub(super) struct RecvShared {
    id: u64,
    state: Mutex<State>,
    waker: Arc<Arrival>,
}

/// Woken by QUIC when something arrived.
#[derive(Debug)]
struct Arrival {
    mux: Weak<Mux>,
    stream: Mutex<Weak<RecvShared>>,
    queued: AtomicBool,
}

impl Wake for Arrival {
    fn wake(self: Arc<Self>) {
        let Some(stream) = lock(&self.stream).upgrade() else { return };
        // The reader takes the data if it waits; the drain looks after it in any case.
        if let Ok(mut state) = stream.state.try_lock()
            && let Some(reader) = state.reader.take()
        {
            drop(state);
            reader.wake();
        }
        if !self.queued.swap(true, Ordering::AcqRel)
            && let Some(mux) = self.mux.upgrade()
        {
            mux.want_drain(stream);
        }
    }
}

impl RecvShared {
    /// Takes out of QUIC what has arrived, and wakes a reader that waits for it.
    pub(super) fn drain(&self, mux: &Mux) {
        self.waker.queued.store(false, Ordering::Release);
        let mut state = lock(&self.state);
        self.fill(&mut state, mux, false);
        let wake =
            if state.unread == 0 && state.end.is_none() { None } else { state.reader.take() };
        drop(state);
        if let Some(reader) = wake {
            reader.wake();
        }
    }

    /// Takes what has arrived out of QUIC. Without a reader it is copied: a chunk is a slice of
    /// all that came in one burst, up to 64 KiB, and would pin that for as long as it is unread.
    fn fill(&self, state: &mut State, mux: &Mux, is_read: bool) {
        let waker = Waker::from(Arc::clone(&self.waker));
        let mut cx = Context::from_waker(&waker);
        let copy_below = if is_read { COPY_BELOW } else { usize::MAX };
        while state.end.is_none() {
            let Some(stream) = &mut state.stream else { return };
            let mut bufs = [const { Bytes::new() }; CHUNKS];
            let polled = pin!(stream.read_many_chunks(&mut bufs)).poll(&mut cx);
            let count = match polled {
                Poll::Pending => break,
                Poll::Ready(Ok(Some(count))) => count,
                Poll::Ready(Ok(None)) => {
                    state.end = Some(End::Finished);
                    break;
                }
                Poll::Ready(Err(error)) => {
                    state.end = Some(End::Failed(read_error(error)));
                    break;
                }
            };
            let bytes: usize = bufs[..count].iter().map(Bytes::len).sum();
            if state.credit.receive(bytes as u64).is_err() {
                let overrun = SessionError::Lost("the peer ignored the stream's limit".into());
                state.end = Some(End::Failed(overrun));
                drop(stream.stop(DROPPED));
                break;
            }
            bufs.into_iter().take(count).for_each(|chunk| state.push(chunk, copy_below));
            mux.note_taken(bytes as u64);
        }
    }
}

impl State {
    fn stop(&mut self, code: VarInt) {
        if self.end.is_none()
            && let Some(stream) = &mut self.stream
        {
            drop(stream.stop(code));
            self.end = Some(End::Failed(SessionError::StreamClosed));
        }
    }

    fn push(&mut self, chunk: Bytes, copy_below: usize) {
        self.unread += chunk.len();
        if chunk.len() < copy_below {
            self.copy(&chunk);
        } else {
            if !self.tail.is_empty() {
                self.chunks.push_back(self.tail.split().freeze());
            }
            self.chunks.push_back(chunk);
        }
    }

    /// Appends to the tail, in blocks that grow with what is unread.
    fn copy(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let mut room = self.tail.capacity() - self.tail.len();
            if room == 0 {
                room = (self.unread / 8).clamp(BLOCK.0, BLOCK.1);
                let full = std::mem::replace(&mut self.tail, BytesMut::with_capacity(room));
                if !full.is_empty() {
                    self.chunks.push_back(full.freeze());
                }
            }
            let (now, rest) = bytes.split_at(room.min(bytes.len()));
            self.tail.extend_from_slice(now);
            bytes = rest;
        }
    }

    /// Up to `max` bytes that are in order.
    fn pop(&mut self, max: usize) -> Option<Bytes> {
        if self.chunks.is_empty() && !self.tail.is_empty() {
            self.chunks.push_back(self.tail.split().freeze());
        }
        let first = self.chunks.front_mut()?;
        let chunk =
            if first.len() > max { first.split_to(max) } else { self.chunks.pop_front()? };
        self.unread -= chunk.len();
        Some(chunk)
    }
}

fn read_error(error: noq::ReadError) -> SessionError {
    match error {
        noq::ReadError::Reset(code) => SessionError::Reset(code.into_inner()),
        noq::ReadError::ConnectionLost(error) => error.into(),
        noq::ReadError::ClosedStream | noq::ReadError::ZeroRttRejected => {
            SessionError::StreamClosed
        }
    }
}

/// Reads what the peer wrote on a stream, in order and to the end. Dropping it tells the peer that
/// nothing more is wanted.
#[derive(Debug)]
pub struct RecvStream {
    shared: Arc<RecvShared>,
    mux: Arc<Mux>,
}

impl RecvStream {
    pub(super) fn new(mux: Arc<Mux>, stream: noq::RecvStream) -> Self {
        let waker = Arc::new(Arrival {
            mux: Arc::downgrade(&mux),
            stream: Mutex::default(),
            queued: AtomicBool::new(false),
        });
        let shared = Arc::new(RecvShared {
            id: stream.id().into(),
            waker,
            state: Mutex::new(State {
                stream: Some(stream),
                chunks: VecDeque::new(),
                tail: BytesMut::new(),
                unread: 0,
                end: None,
                credit: RecvCredit::new(mux.now()),
                reader: None,
            }),
        });
        *lock(&shared.waker.stream) = Arc::downgrade(&shared);
        let limit = lock(&shared.state).credit.open(|more| mux.reserve(more));
        if let Some(limit) = limit {
            mux.outbox.credit(shared.id, limit);
        }
        // Registers the waker, so that the stream is drained even if nobody ever reads it.
        shared.drain(&mux);
        Self { shared, mux }
    }

    /// The QUIC stream number.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.shared.id
    }

    fn poll_chunk(
        &mut self,
        cx: &mut Context<'_>,
        max: usize,
    ) -> Poll<Result<Option<Bytes>, SessionError>> {
        let mut state = lock(&self.shared.state);
        if state.unread == 0 {
            self.shared.fill(&mut state, &self.mux, true);
        }
        if let Some(chunk) = state.pop(max) {
            let len = chunk.len() as u64;
            let (now, mux) = (self.mux.now(), &self.mux);
            let grant = state.credit.consume(
                now,
                || mux.rtt().unwrap_or(RTT_UNKNOWN),
                len,
                |more| mux.reserve(more),
            );
            let ended = state.end.is_some();
            drop(state);
            if let Some(limit) = grant.filter(|_| !ended) {
                self.mux.outbox.credit(self.shared.id, limit);
            }
            return Poll::Ready(Ok(Some(chunk)));
        }
        match &state.end {
            Some(End::Finished) => Poll::Ready(Ok(None)),
            Some(End::Failed(error)) => Poll::Ready(Err(error.clone())),
            None => {
                state.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// The next bytes, at most `max` of them; `None` at the end of the stream. Cancel-safe.
    ///
    /// # Errors
    ///
    /// If the peer reset the stream or the connection is lost.
    pub async fn read_chunk(&mut self, max: usize) -> Result<Option<Bytes>, SessionError> {
        std::future::poll_fn(|cx| self.poll_chunk(cx, max)).await
    }

    /// Reads to the end of the stream, which must come within `max` bytes.
    ///
    /// # Errors
    ///
    /// As [`RecvStream::read_chunk`]; and [`SessionError::StreamClosed`] if there is more.
    pub async fn read_to_end(&mut self, max: usize) -> Result<Vec<u8>, SessionError> {
        let mut bytes = Vec::new();
        while let Some(chunk) = self.read_chunk(usize::MAX).await? {
            if bytes.len() + chunk.len() > max {
                self.stop(0);
                return Err(SessionError::StreamClosed);
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    /// Tells the peer that nothing more is wanted.
    pub fn stop(&mut self, code: u32) {
        lock(&self.shared.state).stop(code.into());
    }
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        let mut state = lock(&self.shared.state);
        state.stop(DROPPED);
        let reserved = state.credit.reserved();
        state.unread = 0;
        state.chunks.clear();
        state.tail = BytesMut::new();
        // Here and not with the last reference, which QUIC's waker may hold under QUIC's lock.
        let stream = state.stream.take();
        drop(state);
        drop(stream);
        self.mux.outbox.forget(self.shared.id);
        self.mux.release(reserved);
    }
}

impl AsyncRead for RecvStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match std::task::ready!(self.poll_chunk(cx, buf.remaining())) {
            Ok(Some(chunk)) => buf.put_slice(chunk.chunk()),
            Ok(None) => {}
            Err(error) => return Poll::Ready(Err(io::Error::other(error))),
        }
        Poll::Ready(Ok(()))
    }
}
