//! The side of `baran ping` that asks: numbered messages on one stream, and what becomes of them.
//!
//! A ping that is due while the connection is broken waits for a new one, as long as for a reply; a
//! ping that was under way when it broke stays without reply. The moment at which the path becomes
//! direct is taken from the node, so it does not depend on the interval of the pings.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use anyhow::{Context, Result};
use baran::{Connection, Node, PathInfo, PathKind, PathWatch, PeerAddr, RecvStream, SendStream};
use tokio::io::{AsyncBufRead, AsyncWrite};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::protocol::{Message, PING, PingRequest, write_line};
use super::server::until_stopped;
use crate::view::{Path, PingLost, Pong, Summary, ms};

/// Length of a ping: its number (8 bytes, big-endian) and 8 zero bytes.
const PING_LEN: usize = 16;
/// Pause before a connection that broke is made again: a peer that refuses is not pestered.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

/// Pings as `request` says, until the client stops writing.
///
/// # Errors
///
/// If the peer cannot be reached at all, or the client is gone.
pub(super) async fn run(
    node: &Node,
    request: &PingRequest,
    reader: &mut (impl AsyncBufRead + Send + Unpin),
    writer: &mut (impl AsyncWrite + Unpin),
) -> Result<()> {
    let now = Instant::now();
    let mut pinger = Pinger {
        node,
        peer: request.to.parse()?,
        limit: Duration::from_millis(request.timeout_ms),
        interval: Duration::from_millis(request.interval_ms),
        count: if request.count == 0 { u64::MAX } else { request.count },
        start: now.checked_sub(Duration::from_micros(request.elapsed_us)).unwrap_or(now),
        due: now,
        outstanding: BTreeMap::new(),
        first_reply: None,
        summary: Summary { sent: 0, received: 0, first_reply_ms: None, direct_after_ms: None },
        writer,
        stopped: Box::pin(until_stopped(reader)),
        is_stopped: false,
    };
    pinger.run().await?;
    let summary = Message::Summary(pinger.summary);
    write_line(pinger.writer, &summary).await
}

struct Pinger<'a, W> {
    node: &'a Node,
    peer: PeerAddr,
    /// Longest wait for a connection, and for a reply.
    limit: Duration,
    interval: Duration,
    count: u64,
    /// Of the command.
    start: Instant,
    /// Of the next ping.
    due: Instant,
    /// When the pings without reply were sent.
    outstanding: BTreeMap<u64, Instant>,
    first_reply: Option<Instant>,
    summary: Summary,
    writer: &'a mut W,
    stopped: Pin<Box<dyn Future<Output = ()> + Send + 'a>>,
    is_stopped: bool,
}

/// A stream to the peer.
struct Stream {
    connection: Connection,
    send: SendStream,
    recv: RecvStream,
    paths: Option<PathWatch>,
    /// The beginning of a reply.
    partial: Vec<u8>,
}

impl<W: AsyncWrite + Unpin> Pinger<'_, W> {
    async fn run(&mut self) -> Result<()> {
        let mut is_first = true;
        while !self.is_stopped && self.summary.sent < self.count {
            let lost = match self.connect().await {
                Ok(Some(stream)) => match self.exchange(stream).await? {
                    None => return Ok(()),
                    Some(lost) => lost,
                },
                Ok(None) => return Ok(()),
                Err(error) if is_first => return Err(error),
                Err(error) => {
                    // The wait for a connection was this ping's wait for a reply.
                    self.summary.sent += 1;
                    self.due = Instant::now() + self.interval;
                    format!("{error:#}")
                }
            };
            is_first = false;
            self.outstanding.clear();
            tracing::debug!(lost, "no connection for pings");
            let lost = PingLost { event: "lost".to_owned(), reason: lost };
            write_line(self.writer, &Message::PingLost(lost)).await?;
            sleep(RECONNECT_PAUSE).await;
        }
        Ok(())
    }

    /// A new stream; `None` if the client stopped.
    async fn connect(&mut self) -> Result<Option<Stream>> {
        let connecting = connect_within(self.node, self.peer.clone(), PING, self.limit);
        let connection = tokio::select! {
            connected = connecting => connected?,
            () = &mut self.stopped => {
                self.is_stopped = true;
                return Ok(None);
            }
        };
        let (send, recv) = connection.open_bi().await?;
        let paths = Some(connection.path_changes());
        Ok(Some(Stream { connection, send, recv, paths, partial: Vec::new() }))
    }

    /// Pings until all is done, or until the stream breaks: then says why.
    async fn exchange(&mut self, mut stream: Stream) -> Result<Option<String>> {
        let lost = loop {
            let is_all_sent = self.summary.sent == self.count;
            if self.is_stopped || is_all_sent && self.outstanding.is_empty() {
                break None;
            }
            let next = if is_all_sent { self.last_wait() } else { self.due };
            tokio::select! {
                () = &mut self.stopped => self.is_stopped = true,
                () = sleep_until(next) => {
                    if is_all_sent {
                        break None;
                    }
                    if let Err(lost) = self.send(&mut stream.send).await {
                        break Some(lost);
                    }
                }
                changed = path_change(&mut stream.paths) => self.note_path(changed),
                piece = stream.recv.read_chunk(PING_LEN - stream.partial.len()) => match piece {
                    Ok(Some(piece)) => {
                        stream.partial.extend_from_slice(&piece);
                        if let Ok(reply) = <[u8; PING_LEN]>::try_from(&stream.partial[..]) {
                            stream.partial.clear();
                            self.receive(&stream.connection, reply).await?;
                        }
                    }
                    Ok(None) => break Some("the peer answers no more pings".to_owned()),
                    Err(error) => break Some(error.to_string()),
                },
                // A stream of a session that the peer refused may never end by itself.
                reason = stream.connection.closed() => break Some(reason.to_string()),
            }
        };
        if lost.is_none() {
            drop(stream.send.finish());
            drop(timeout(self.limit, stream.connection.close(0, "")).await);
        }
        Ok(lost)
    }

    /// When the last reply is given up.
    fn last_wait(&self) -> Instant {
        let last = self.outstanding.values().max().copied();
        last.unwrap_or_else(Instant::now) + self.limit
    }

    async fn send(&mut self, stream: &mut SendStream) -> Result<(), String> {
        self.summary.sent += 1;
        let seq = self.summary.sent;
        // After a pause, without catching up.
        self.due = (self.due + self.interval).max(Instant::now());
        let mut ping = [0; PING_LEN];
        ping[..8].copy_from_slice(&seq.to_be_bytes());
        self.outstanding.insert(seq, Instant::now());
        match timeout(self.limit, stream.write_all(&ping)).await {
            Ok(written) => written.map_err(|error| error.to_string()),
            Err(_) => Err("the peer takes no more pings".to_owned()),
        }
    }

    async fn receive(&mut self, connection: &Connection, reply: [u8; PING_LEN]) -> Result<()> {
        let now = Instant::now();
        let (seq, _) = reply.split_first_chunk().expect("a ping has 16 bytes");
        let seq = u64::from_be_bytes(*seq);
        // A peer that answers what was not asked is not counted.
        let Some(sent) = self.outstanding.remove(&seq) else { return Ok(()) };
        self.summary.received += 1;
        let path = connection.path();
        if self.first_reply.is_none() {
            self.first_reply = Some(now);
            self.summary.first_reply_ms = Some(ms(now - self.start));
            if is_direct(path) {
                self.summary.direct_after_ms = Some(0.0);
            }
        }
        let pong = Pong { seq, rtt_ms: ms(now - sent), path: Path::from(path) };
        write_line(self.writer, &Message::Pong(pong)).await
    }

    fn note_path(&mut self, path: Option<PathInfo>) {
        if let Some(first) = self.first_reply
            && self.summary.direct_after_ms.is_none()
            && is_direct(path)
        {
            self.summary.direct_after_ms = Some(ms(first.elapsed()));
        }
    }
}

fn is_direct(path: Option<PathInfo>) -> bool {
    path.is_some_and(|path| path.kind == PathKind::Direct)
}

/// The next change; waits for ever once the peer is lost.
async fn path_change(paths: &mut Option<PathWatch>) -> Option<PathInfo> {
    let Some(watch) = paths else { return std::future::pending().await };
    let changed = watch.changed().await;
    if changed.is_none() {
        *paths = None;
    }
    changed
}

/// Says that a peer was not reached in time, and what may help.
fn unreachable(peer: &PeerAddr, limit: Duration) -> String {
    let hint = if peer.addrs.is_empty() && peer.homes.is_empty() {
        "nobody who could be asked knows where it is: is it running, in the same network? Its \
         invite, or a --peer near it, would help"
    } else {
        "is it running, in the same network, and is the invite its latest?"
    };
    format!("{} could not be reached within {} s: {hint}", peer.id.short(), limit.as_secs_f64())
}

/// Connects within `limit`.
pub(super) async fn connect_within(
    node: &Node,
    peer: PeerAddr,
    protocol: &str,
    limit: Duration,
) -> Result<Connection> {
    let late = unreachable(&peer, limit);
    let connected = timeout(limit, node.connect(peer, protocol)).await;
    Ok(connected.ok().context(late)??)
}
