//! The writing half of a stream.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use baran_proto::credit::SendCredit;
use baran_proto::path::Side;
use baran_proto::wire::mux::{HEAD_LEN_MAX, put_head};
use bytes::BytesMut;
use tokio::io::AsyncWrite;

use super::session::SessionShared;
use super::{Mux, SessionError, lock};

/// Streams for which credit is kept until we come to them: more than can be open.
const EARLY_MAX: usize = 64;

/// Credit of a stream, and the writer that waits for more.
#[derive(Debug, Default)]
pub(super) struct SendShared {
    credit: Mutex<SendCredit>,
    writer: Mutex<Option<Waker>>,
}

impl SendShared {
    pub(super) fn grant(&self, limit: u64) {
        if lock(&self.credit).grant(limit)
            && let Some(writer) = lock(&self.writer).take()
        {
            writer.wake();
        }
    }
}

/// The sending halves of a link's streams.
#[derive(Debug, Default)]
pub(super) struct Senders {
    open: HashMap<u64, Arc<SendShared>>,
    /// Credit for streams that the peer opened and we have not come to yet.
    early: BTreeMap<u64, u64>,
}

impl Senders {
    /// Makes the credit of a stream.
    pub(super) fn wrap(&mut self, stream: u64) -> Arc<SendShared> {
        let sender = Arc::<SendShared>::default();
        if let Some(limit) = self.early.remove(&stream) {
            sender.grant(limit);
        }
        self.open.insert(stream, Arc::clone(&sender));
        sender
    }

    /// Takes credit from the peer. That for a stream of ours that is over is of no use.
    pub(super) fn grant(&mut self, stream: u64, limit: u64, side: Side) {
        let is_ours = stream % 2 == u64::from(side == Side::Server);
        if let Some(sender) = self.open.get(&stream) {
            sender.grant(limit);
        } else if !is_ours {
            self.early.insert(stream, limit);
            if self.early.len() > EARLY_MAX {
                // Numbers count up: the lowest is that of a stream that is over.
                self.early.pop_first();
            }
        }
    }
}

/// Writes to a stream. Dropping it without [`SendStream::finish`] finishes it too, without waiting.
#[derive(Debug)]
pub struct SendStream {
    mux: Arc<Mux>,
    session: Arc<SessionShared>,
    stream: noq::SendStream,
    shared: Arc<SendShared>,
    /// Watched while the writer waits for credit.
    stopped: Option<Pin<Box<noq::Stopped>>>,
    is_finished: bool,
}

impl SendStream {
    pub(super) fn new(
        mux: Arc<Mux>,
        session: Arc<SessionShared>,
        stream: noq::SendStream,
        shared: Arc<SendShared>,
    ) -> Self {
        Self { mux, session, stream, shared, stopped: None, is_finished: false }
    }

    /// The QUIC stream number.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.stream.id().into()
    }

    /// Writes the number of the session, which needs no credit.
    pub(super) async fn write_head(&mut self, session: u32) -> Result<(), SessionError> {
        let mut head = BytesMut::with_capacity(HEAD_LEN_MAX);
        put_head(session, &mut head);
        self.mux.stir.touch();
        self.stream.write_all(&head).await.map_err(write_error)
    }

    fn poll_write_some(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize, SessionError>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        // The waker goes first: credit that comes between the two is not missed.
        let mut available = lock(&self.shared.credit).available();
        if available == 0 {
            *lock(&self.shared.writer) = Some(cx.waker().clone());
            available = lock(&self.shared.credit).available();
            if available == 0 {
                return self.poll_stopped(cx);
            }
        }
        let len = usize::try_from(available).unwrap_or(usize::MAX).min(bytes.len());
        let bytes = &bytes[..len];
        let mut polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if polled.is_pending() && self.mux.widen_send() {
            polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        }
        let written = std::task::ready!(polled).map_err(write_error)?;
        self.mux.stir.touch();
        lock(&self.shared.credit).send(written as u64);
        Poll::Ready(Ok(written))
    }

    /// While there is no credit: notices that the peer stopped the stream or the link is lost.
    fn poll_stopped(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, SessionError>> {
        let stopped = self.stopped.get_or_insert_with(|| Box::pin(self.stream.stopped()));
        std::task::ready!(stopped.as_mut().poll(cx)).map_or_else(
            |error| Poll::Ready(Err(stopped_error(error))),
            |code| {
                let stopped = |code: noq::VarInt| SessionError::Stopped(code.into_inner());
                Poll::Ready(Err(code.map_or(SessionError::StreamClosed, stopped)))
            },
        )
    }

    /// Writes some of `bytes` and returns how many. Cancel-safe.
    ///
    /// # Errors
    ///
    /// If the peer stopped the stream, the connection is lost or the stream was finished.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<usize, SessionError> {
        std::future::poll_fn(|cx| self.poll_write_some(cx, bytes)).await
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    ///
    /// As [`SendStream::write`]; some of the bytes may have been written then.
    pub async fn write_all(&mut self, mut bytes: &[u8]) -> Result<(), SessionError> {
        while !bytes.is_empty() {
            let written = self.write(bytes).await?;
            bytes = &bytes[written..];
        }
        Ok(())
    }

    /// Says that nothing more comes. Does not wait; [`SendStream::acknowledged`] does, and so does
    /// the session's close.
    ///
    /// # Errors
    ///
    /// If the stream was finished or reset before.
    pub fn finish(&mut self) -> Result<(), SessionError> {
        self.stream.finish().map_err(|_| SessionError::StreamClosed)?;
        self.mux.stir.touch();
        self.is_finished = true;
        self.session.await_acknowledgement(self.stream.stopped());
        Ok(())
    }

    /// Waits until the peer's system has acknowledged everything up to the end of the stream.
    ///
    /// # Errors
    ///
    /// If the peer stopped the stream or the connection is lost before.
    pub async fn acknowledged(&mut self) -> Result<(), SessionError> {
        match self.stream.stopped().await {
            Ok(None) => Ok(()),
            Ok(Some(code)) => Err(SessionError::Stopped(code.into_inner())),
            Err(error) => Err(stopped_error(error)),
        }
    }

    /// Gives the stream up: what was not yet delivered may be lost.
    pub fn reset(&mut self, code: u32) {
        drop(self.stream.reset(code.into()));
        self.mux.stir.touch();
        self.is_finished = true;
    }
}

fn stopped_error(error: noq::StoppedError) -> SessionError {
    match error {
        noq::StoppedError::ConnectionLost(error) => error.into(),
        noq::StoppedError::ZeroRttRejected => SessionError::StreamClosed,
    }
}

fn write_error(error: noq::WriteError) -> SessionError {
    match error {
        noq::WriteError::Stopped(code) => SessionError::Stopped(code.into_inner()),
        noq::WriteError::ConnectionLost(error) => error.into(),
        noq::WriteError::ClosedStream | noq::WriteError::ZeroRttRejected => {
            SessionError::StreamClosed
        }
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        if !self.is_finished {
            drop(self.finish());
        }
        let mut senders = lock(&self.mux.senders);
        senders.open.remove(&self.id());
        let is_last = senders.open.is_empty();
        drop(senders);
        if is_last {
            self.mux.narrow_send();
        }
    }
}

impl AsyncWrite for SendStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_some(cx, buf).map_err(io::Error::other)
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let finished = if self.is_finished { Ok(()) } else { self.finish() };
        Poll::Ready(finished.map_err(io::Error::other))
    }
}
