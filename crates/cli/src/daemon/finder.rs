//! What is published, announced and looked up for clients.
//!
//! A node that has just started has nobody to ask for a moment. Every request therefore waits for
//! the first peer, but no longer than its limit after the *node's* start: a daemon that has been
//! alone for longer says so at once.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use anyhow::{Context, Result};
use baran::{FindError, Lookup, Node, NodeId, PeerAddr, PublishError, Value};
use tokio::io::{AsyncBufRead, AsyncWrite};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::protocol::{Message, write_line};
use super::server::until_stopped;
use crate::view::{Announced, FoundPeer, InviteView, Kept, ValueView};

/// How often it is looked whether somebody is connected.
const POLL: Duration = Duration::from_millis(50);

/// Nobody is connected who could be asked.
#[derive(Debug)]
struct Alone;

impl std::error::Error for Alone {}

impl fmt::Display for Alone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "not connected to anybody yet: be in the same LAN as a peer, or name one by --peer",
        )
    }
}

/// How long a request may take.
#[derive(Debug, Clone)]
pub(super) struct Limit {
    node: Node,
    /// For the answers.
    answers: Duration,
    /// Until when nobody's being connected is no failure.
    alone_until: Instant,
}

impl Limit {
    /// A limit that counts from the node's start as long as it is alone.
    pub(super) async fn new(node: &Node, limit_ms: u64) -> Result<Self> {
        let answers = Duration::from_millis(limit_ms);
        let uptime = node.status().await.context("the node is closed")?.uptime;
        let alone_until = Instant::now() + answers.saturating_sub(uptime);
        Ok(Self { node: node.clone(), answers, alone_until })
    }

    /// Asks again while nobody is connected and the node may still find somebody.
    async fn ask<T, E, F>(&self, mut ask: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T, E>>,
        E: NotJoined,
    {
        loop {
            let answer = timeout(self.answers, ask()).await;
            match answer.ok().with_context(|| self.late())? {
                Ok(found) => return Ok(found),
                Err(error) if error.is_not_joined() => {
                    // A peer may be connected that takes no questions.
                    self.check_alone()?;
                    self.wait_alone().await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits for somebody to be connected.
    async fn wait_alone(&self) -> Result<()> {
        loop {
            sleep(POLL).await;
            let status = self.node.status().await.context("the node is closed")?;
            if !status.peers.is_empty() {
                return Ok(());
            }
            self.check_alone()?;
        }
    }

    fn check_alone(&self) -> Result<(), Alone> {
        if Instant::now() < self.alone_until { Ok(()) } else { Err(Alone) }
    }

    fn late(&self) -> String {
        format!("no answer within {} s: try a longer --timeout", self.answers.as_secs_f64())
    }
}

/// Errors of which one means that there is nobody to ask.
trait NotJoined: Into<anyhow::Error> {
    fn is_not_joined(&self) -> bool;
}

/// What records bear, as every node has it.
const SKEW_MAX_S: u64 = 600;

impl NotJoined for FindError {
    fn is_not_joined(&self) -> bool {
        *self == Self::NotJoined
    }
}

impl NotJoined for PublishError {
    fn is_not_joined(&self) -> bool {
        *self == Self::NotJoined
    }
}

/// Seconds by which the peers' clocks are ahead of this machine's, if that is more than records
/// bear.
async fn wrong_clock(node: &Node) -> Option<i64> {
    let skew = node.status().await?.index.clock_skew_s?;
    (skew.unsigned_abs() > SKEW_MAX_S).then_some(skew)
}

/// Publishes a value.
///
/// # Errors
///
/// If it cannot be published at all, or the client is gone.
pub(super) async fn put(
    node: &Node,
    name: &str,
    value: Vec<u8>,
    limit: &Limit,
    writer: &mut (impl AsyncWrite + Unpin),
) -> Result<()> {
    let published = limit.ask(|| node.publish(name, value.clone())).await;
    let receipt = published.map_err(|error| {
        // The node has it all the same.
        let saved = "the value is on this node's disk, and goes to others when it has peers";
        if error.is::<Alone>() { error.context(saved) } else { error }
    })?;
    write_line(writer, &Message::Kept(Kept::new(node.id(), name, receipt, wrong_clock(node).await)))
        .await
}

/// Reads a value.
///
/// # Errors
///
/// If nobody can be asked, or the client is gone.
pub(super) async fn get(
    node: &Node,
    author: NodeId,
    name: &str,
    limit: &Limit,
    writer: &mut (impl AsyncWrite + Unpin),
) -> Result<()> {
    let value: Option<Value> = limit.ask(|| node.get(author, name)).await?;
    write_line(writer, &Message::Value(value.as_ref().map(ValueView::from))).await
}

/// Finds where a peer is.
///
/// # Errors
///
/// If nobody can be asked, or the client is gone.
pub(super) async fn resolve(
    node: &Node,
    id: NodeId,
    limit: &Limit,
    writer: &mut (impl AsyncWrite + Unpin),
) -> Result<()> {
    let peer: Option<PeerAddr> = limit.ask(|| node.resolve(id)).await?;
    write_line(writer, &Message::Resolved(peer.as_ref().map(InviteView::from))).await
}

/// Announces a topic until the client stops.
///
/// # Errors
///
/// If nobody can be asked, or the client is gone.
pub(super) async fn announce(
    node: &Node,
    topic: &str,
    limit: &Limit,
    reader: &mut (impl AsyncBufRead + Unpin),
    writer: &mut (impl AsyncWrite + Unpin),
) -> Result<()> {
    let stopped = until_stopped(reader);
    tokio::pin!(stopped);
    let mut announcement = tokio::select! {
        announced = limit.ask(|| node.announce(topic)) => announced?,
        () = &mut stopped => return Ok(()),
    };
    let mut receipt = announcement.receipt();
    loop {
        let announced = Announced::new(topic, receipt, wrong_clock(node).await);
        write_line(writer, &Message::Announced(announced)).await?;
        receipt = tokio::select! {
            renewed = announcement.renewed() => renewed.context("the node is closed")?,
            () = &mut stopped => return Ok(()),
        };
    }
}

/// Finds the peers of a topic.
///
/// # Errors
///
/// If nobody can be asked, or the client is gone.
pub(super) async fn lookup(
    node: &Node,
    topic: &str,
    count_max: usize,
    limit: &Limit,
    reader: &mut (impl AsyncBufRead + Unpin),
    writer: &mut (impl AsyncWrite + Unpin),
) -> Result<()> {
    let find = async {
        let (mut lookup, mut found) = first(node, topic, count_max, limit).await?;
        let end = Instant::now() + limit.answers;
        let mut count = 0;
        while let Some(peer) = found {
            let peer = FoundPeer { id: peer?.id.to_string() };
            write_line(writer, &Message::Found(peer)).await?;
            count += 1;
            if count == count_max {
                break;
            }
            // What was found by then is a sample as good as another.
            found = timeout_at(end, lookup.next()).await.unwrap_or_default();
        }
        write_line(writer, &Message::End).await
    };
    tokio::select! {
        result = find => result,
        () = until_stopped(reader) => Ok(()),
    }
}

/// A look-up that somebody was asked for, and what it yields first.
async fn first(
    node: &Node,
    topic: &str,
    count_max: usize,
    limit: &Limit,
) -> Result<(Lookup, Option<Result<PeerAddr, FindError>>)> {
    loop {
        let mut lookup = node.lookup(topic).limit(count_max);
        let found = timeout(limit.answers, lookup.next()).await;
        match found.ok().with_context(|| limit.late())? {
            Some(Err(error)) if error.is_not_joined() => {
                limit.check_alone()?;
                limit.wait_alone().await?;
            }
            found => return Ok((lookup, found)),
        }
    }
}
