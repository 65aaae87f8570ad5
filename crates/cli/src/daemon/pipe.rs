//! Pipes at the side that has the node: passes frames between a client and a stream to the peer.
//!
//! The two directions go on independently of each other: a client that reads slowly still writes.
//! What the peer sends is checked to be frames, so that a failure can be told between two of them;
//! what the client sends is passed on as it is. The stream is closed only after the peer's system
//! has acknowledged its end.

use std::io::{self, ErrorKind};
use std::time::Duration;

use anyhow::{Context, Result};
use baran::{AcceptError, Acceptor, Connection, Node, NodeId, PeerAddr, RecvStream, SendStream};
use tokio::io::{AsyncBufRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::frame::{Frame, FrameReader, Kind};
use super::pinger::connect_within;
use super::protocol::{Message, PIPE, write_line};
use super::server::until_stopped;
use crate::view::{Path, PipeEvent};

/// Peers that have connected and not yet opened a stream, at a time and each for so long.
const CALLERS_MAX: usize = 16;
const CALLER_MAX: Duration = Duration::from_secs(10);
/// Longest wait for the frames that a peer sent before it closed the connection.
const LAST_FRAMES_MAX: Duration = Duration::from_secs(5);
/// Longest wait to learn why a connection broke.
const REASON_MAX: Duration = Duration::from_millis(500);

/// A connection and its one stream.
type Call = (Connection, SendStream, RecvStream);

/// Waits for a peer, one of `from` unless that is empty, and passes frames.
///
/// # Errors
///
/// If another client listens, or this one is gone.
pub(super) async fn listen(
    node: &Node,
    from: &[NodeId],
    reader: &mut (impl AsyncBufRead + Send + Unpin),
    writer: &mut (impl AsyncWrite + Send + Unpin),
) -> Result<()> {
    let acceptor = match node.accept(PIPE) {
        Err(AcceptError::Taken(_)) => {
            anyhow::bail!("another `baran pipe listen` waits at this node: end it first")
        }
        accepted => accepted?,
    };
    let (id, invite) = (node.id().to_string(), node.invite().to_invite());
    write_line(writer, &Message::Listening(PipeEvent::Listening { id, invite })).await?;
    let call = tokio::select! {
        call = first_call(acceptor, from) => call.context("the node is closed")?,
        // The client writes nothing before the pipe is open.
        () = until_stopped(reader) => return Ok(()),
    };
    join(call, reader, writer).await
}

/// The first peer that opens a stream; the acceptor is gone with it.
async fn first_call(mut acceptor: Acceptor, from: &[NodeId]) -> Option<Call> {
    let mut callers = JoinSet::new();
    loop {
        tokio::select! {
            connection = acceptor.next() => {
                let connection = connection?;
                let is_welcome = from.is_empty() || from.contains(&connection.peer());
                callers.spawn(async move {
                    if !is_welcome {
                        connection.close(1, "this pipe waits for somebody else").await;
                        return None;
                    }
                    let stream = timeout(CALLER_MAX, connection.accept_bi()).await;
                    let (send, recv) = stream.ok()?.ok()?;
                    Some((connection, send, recv))
                });
            }
            Some(call) = callers.join_next() => if let Ok(Some(call)) = call {
                return Some(call);
            },
        }
        while callers.len() >= CALLERS_MAX {
            if let Some(Ok(Some(call))) = callers.join_next().await {
                return Some(call);
            }
        }
    }
}

/// Connects to a peer that listens, and passes frames.
///
/// # Errors
///
/// If the peer is not reached within `limit`, or the client is gone.
pub(super) async fn connect(
    node: &Node,
    peer: PeerAddr,
    limit: Duration,
    reader: &mut (impl AsyncBufRead + Send + Unpin),
    writer: &mut (impl AsyncWrite + Send + Unpin),
) -> Result<()> {
    let connection = tokio::select! {
        connection = connect_within(node, peer, PIPE, limit) => connection?,
        () = until_stopped(reader) => return Ok(()),
    };
    let (send, recv) = connection.open_bi().await?;
    join((connection, send, recv), reader, writer).await
}

/// Tells the client that the pipe stands and passes frames until both directions have ended.
async fn join(
    (connection, send, recv): Call,
    reader: &mut (impl AsyncBufRead + Send + Unpin),
    writer: &mut (impl AsyncWrite + Send + Unpin),
) -> Result<()> {
    let path = Path::from(connection.path());
    let peer = connection.peer().to_string();
    write_line(writer, &Message::Open(PipeEvent::Open { peer, path })).await?;
    let (failure, failed) = oneshot::channel();
    let out = async {
        let sent = send_all(reader, send).await;
        sent.map_err(|error| drop(failure.send(error.to_string()))).is_ok()
    };
    let (is_sent, is_received) = tokio::join!(out, pass_frames(&connection, recv, failed, writer));
    let is_whole = is_sent && is_received;
    let (code, reason) = if is_whole { (0, "") } else { (1, "the pipe broke") };
    connection.close(code, reason).await;
    Ok(())
}

/// Passes what the client sends to the peer and waits until the peer's system has all of it.
async fn send_all(
    reader: &mut (impl AsyncBufRead + Unpin),
    mut send: SendStream,
) -> io::Result<()> {
    tokio::io::copy_buf(reader, &mut send).await?;
    send.shutdown().await?;
    send.acknowledged().await.map_err(io::Error::other)
}

/// Passes the peer's frames to the client until their end, or tells it why there is none. Returns
/// whether all went well.
async fn pass_frames(
    connection: &Connection,
    recv: RecvStream,
    mut failed: oneshot::Receiver<String>,
    writer: &mut (impl AsyncWrite + Send + Unpin),
) -> bool {
    let mut frames = FrameReader::new(recv);
    let mut is_complete = (false, false);
    let closed = async {
        let reason = connection.closed().await;
        // What was sent before the connection was closed may be on its way to us.
        let is_regular = matches!(reason, baran::SessionError::Closed { code: 0, .. });
        tokio::time::sleep(if is_regular { LAST_FRAMES_MAX } else { REASON_MAX }).await;
        reason.to_string()
    };
    tokio::pin!(closed);
    let mut is_sending = true;
    // Why the peer takes no more, and until when a frame of it may say more.
    let mut refused: Option<(String, Instant)> = None;
    let failure = loop {
        let until = refused.as_ref().map(|(_, until)| *until);
        let frame = tokio::select! {
            frame = frames.next() => frame,
            sent = &mut failed, if is_sending => {
                is_sending = false;
                refused = sent.ok().map(|error| (error, Instant::now() + LAST_FRAMES_MAX));
                continue;
            }
            reason = &mut closed => break reason,
            () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {
                break refused.map(|(error, _)| error).unwrap_or_default();
            }
        };
        match frame {
            Ok(Some(frame)) if frame.kind != Kind::Lost => {
                is_complete.0 |= frame.kind == Kind::End;
                is_complete.1 |= frame.kind == Kind::Done;
                if writer.write_all(&frame.bytes).await.is_err() {
                    return false;
                }
            }
            Ok(None) if is_complete == (true, true) => return true,
            Ok(_) => break "the peer ended before everything was delivered".to_owned(),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                break "the peer ended in the middle".to_owned();
            }
            Err(error) => break error.to_string(),
        }
    };
    // Why the peer closed the connection says more than what became of the stream.
    let reason = timeout(REASON_MAX, connection.closed()).await;
    let failure = reason.map_or(failure, |reason| reason.to_string());
    drop(writer.write_all(&Frame::new(Kind::Lost, &failure).bytes).await);
    false
}
