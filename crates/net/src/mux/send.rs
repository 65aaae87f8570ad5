//! The writing half of a stream.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use baran_proto::credit::SendCredit;
use tokio::io::AsyncWrite;

use super::session::SessionShared;
use super::{Mux, SessionError, lock};

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
        lock(&self.mux.senders).remove(&self.id());
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
