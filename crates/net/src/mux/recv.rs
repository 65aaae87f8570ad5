//! The reading half of a stream.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use baran_proto::credit::{self, RecvCredit};
use bytes::{Buf, Bytes, BytesMut};
use noq::VarInt;
use tokio::io::{AsyncRead, ReadBuf};

use super::{Mux, SessionError, lock};

/// Chunks shorter than this are copied together: each would otherwise pin the whole datagram that
/// it came in.
const COPY_BELOW: usize = 512;

/// Chunks taken from QUIC at a time.
const CHUNKS: usize = 32;

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
    stream: noq::RecvStream,
    chunks: VecDeque<Bytes>,
    /// Small chunks, copied together; they come after `chunks`.
    tail: BytesMut,
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
    /// Whether the stream's first window was taken from the node's budget.
    budgeted: bool,
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
        self.fill(&mut state, mux);
        let wake = if state.chunks.is_empty() && state.tail.is_empty() && state.end.is_none() {
            None
        } else {
            state.reader.take()
        };
        drop(state);
        if let Some(reader) = wake {
            reader.wake();
        }
    }

    fn fill(&self, state: &mut State, mux: &Mux) {
        if state.end.is_some() {
            return;
        }
        let waker = Waker::from(Arc::clone(&self.waker));
        let mut cx = Context::from_waker(&waker);
        let mut arrived = 0;
        loop {
            let mut bufs = [const { Bytes::new() }; CHUNKS];
            let polled = pin!(state.stream.read_many_chunks(&mut bufs)).poll(&mut cx);
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
                drop(state.stream.stop(DROPPED));
                break;
            }
            arrived += bytes;
            bufs.into_iter().take(count).for_each(|chunk| state.push(chunk));
        }
        if arrived > 0 {
            mux.note_unread(arrived as u64);
        }
    }
}

impl State {
    fn push(&mut self, chunk: Bytes) {
        if chunk.len() < COPY_BELOW {
            self.tail.extend_from_slice(&chunk);
        } else {
            if !self.tail.is_empty() {
                self.chunks.push_back(self.tail.split().freeze());
            }
            self.chunks.push_back(chunk);
        }
    }

    /// Up to `max` bytes that are in order.
    fn pop(&mut self, max: usize) -> Option<Bytes> {
        if self.chunks.is_empty() && !self.tail.is_empty() {
            self.chunks.push_back(self.tail.split().freeze());
        }
        let chunk = self.chunks.front_mut()?;
        if chunk.len() > max { Some(chunk.split_to(max)) } else { self.chunks.pop_front() }
    }

    fn unread(&self) -> usize {
        self.chunks.iter().map(Bytes::len).sum::<usize>() + self.tail.len()
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
    pub(super) fn new(mux: Arc<Mux>, stream: noq::RecvStream, budgeted: bool) -> Self {
        let waker = Arc::new(Arrival {
            mux: Arc::downgrade(&mux),
            stream: Mutex::default(),
            queued: AtomicBool::new(false),
        });
        let shared = Arc::new(RecvShared {
            id: stream.id().into(),
            waker,
            budgeted,
            state: Mutex::new(State {
                stream,
                chunks: VecDeque::new(),
                tail: BytesMut::new(),
                end: None,
                credit: RecvCredit::new(mux.now()),
                reader: None,
            }),
        });
        *lock(&shared.waker.stream) = Arc::downgrade(&shared);
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
        if state.chunks.is_empty() && state.tail.is_empty() {
            self.shared.fill(&mut state, &self.mux);
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
            self.mux.note_read(len);
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
        let mut state = lock(&self.shared.state);
        if state.end.is_none() {
            drop(state.stream.stop(code.into()));
            state.end = Some(End::Failed(SessionError::StreamClosed));
        }
    }
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        let mut state = lock(&self.shared.state);
        if state.end.is_none() {
            drop(state.stream.stop(DROPPED));
            state.end = Some(End::Failed(SessionError::StreamClosed));
        }
        let unread = state.unread() as u64;
        let first = if self.shared.budgeted { credit::INITIAL } else { 0 };
        let reserved = state.credit.reserved() + first;
        state.chunks.clear();
        state.tail.clear();
        drop(state);
        self.mux.outbox.forget(self.shared.id);
        self.mux.note_read(unread);
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
