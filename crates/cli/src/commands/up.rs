//! `baran up`: a node in the foreground, and a daemon for the other commands.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use anyhow::{Context, Result};
use baran::data::DataDir;
use baran::{Event, JoinedBy, Node, NodeBuilder, ServeLimits};
use serde::Serialize;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::Ending;
use crate::args::{Global, Registry, ServeArgs, UpArgs};
use crate::daemon::chat;
use crate::daemon::client::{builder, data_dir, network};
use crate::daemon::server::{Server, Socket};
use crate::output::Output;
use crate::serve::Responder;
use crate::view::{Path, ms, short};

/// Longest time for closing the node, so that all ends within the 5 s that are promised.
const CLOSE_MAX: Duration = Duration::from_millis(4_500);
/// Events that wait to be written.
const LINES_MAX: usize = 1_024;
/// Longest wait for the last of them at the end.
const WRITE_MAX: Duration = Duration::from_millis(200);

/// Runs a node until a signal ends it.
///
/// # Errors
///
/// If the data directory is in use or unusable, or the node cannot start.
pub(crate) async fn run(global: &Global, args: &UpArgs, output: Output) -> Result<()> {
    let mut ending = Ending::new()?;
    let dir = data_dir(global)?;
    let _lock = dir.lock()?;
    let mut builder = builder(&dir, &args.node)?.serve(serve_limits(&dir, &args.serve)?);
    if let Some(epoch) = args.epoch {
        builder = builder.epoch(Duration::from_secs(epoch));
    }
    let node = registry(builder, args.registry)?.spawn().await?;
    let responder = Responder::new(&node)?;
    let events = node.events();
    let server = Arc::new(Server::new(node.clone(), network(&args.node), true, &dir));
    chat::say_names(&server).await?;
    let socket = Socket::bind(&dir.socket_path())?;
    let printer = Printer::start(output);
    let told = Teller { node: node.clone(), printer: &printer, is_joined: false };
    tokio::select! {
        () = ending.wait() => {}
        () = socket.run(&server) => {}
        () = responder.run() => {}
        result = told.run(events) => result?,
    }
    // A new daemon may take over as soon as the lock is free; until then commands wait for it.
    drop(socket);
    drop(timeout(CLOSE_MAX, node.close()).await);
    printer.finish().await;
    Ok(())
}

/// Lets the node use the registry that the user chose.
///
/// # Errors
///
/// If this program was built without it.
fn registry(builder: NodeBuilder, registry: Option<Registry>) -> Result<NodeBuilder> {
    match registry {
        None => Ok(builder),
        #[cfg(feature = "mainline")]
        Some(Registry::Mainline) => Ok(builder.registry(baran::MainlineConfig::default())),
        #[cfg(not(feature = "mainline"))]
        Some(Registry::Mainline) => anyhow::bail!(
            "this baran was built without the registry: build it with \
             `cargo build --release --package baran-cli --features mainline`"
        ),
    }
}

/// What the owner lends: what is given here and kept, and what was before.
fn serve_limits(dir: &DataDir, args: &ServeArgs) -> Result<ServeLimits> {
    let mut limits = dir.serve_limits()?;
    if args.apply(&mut limits) {
        dir.save_serve_limits(&limits)?;
    }
    Ok(limits)
}

/// Writes what happens to the node.
struct Teller<'a> {
    node: Node,
    printer: &'a Printer,
    is_joined: bool,
}

impl Teller<'_> {
    async fn run(mut self, mut events: tokio::sync::broadcast::Receiver<Event>) -> Result<()> {
        let peer = self.node.invite();
        self.printer.tell(UpEvent::Listening {
            id: peer.id.to_string(),
            invite: peer.to_invite(),
            addresses: self.node.addresses(),
        });
        // A peer may have come before anybody listened for events.
        self.note_peers().await?;
        loop {
            match events.recv().await {
                Ok(Event::Joined { by, peers }) => self.tell_joined(peers, Some(by)),
                Ok(event) => {
                    if matches!(event, Event::PeerUp(_) | Event::PeerDown(_)) {
                        self.note_peers().await?;
                    }
                    if let Some(event) = UpEvent::new(&event, &self.node) {
                        self.printer.tell(event);
                    }
                }
                Err(RecvError::Lagged(missed)) => {
                    tracing::warn!(missed, "events came faster than they were written");
                }
                Err(RecvError::Closed) => return Ok(()),
            }
        }
    }

    /// Says that the node has joined when its first peer comes, and again after it had none.
    async fn note_peers(&mut self) -> Result<()> {
        let status = self.node.status().await.context("the node is closed")?;
        if status.peers.is_empty() {
            self.is_joined = false;
        } else if status.index.joined_by.is_some() {
            self.tell_joined(status.peers.len(), status.index.joined_by);
        }
        Ok(())
    }

    /// Says that the node has joined, once until it has no peers again.
    fn tell_joined(&mut self, peers: usize, by: Option<JoinedBy>) {
        if !self.is_joined {
            let by = by.map(JoinedBy::as_str);
            self.printer.tell(UpEvent::Joined { peers, by });
        }
        self.is_joined = true;
    }
}

/// Writes lines in a thread of its own: a node goes on when nobody reads what it says.
struct Printer {
    lines: SyncSender<UpEvent>,
    written: oneshot::Receiver<()>,
}

impl Printer {
    fn start(output: Output) -> Self {
        let (lines, queue) = sync_channel::<UpEvent>(LINES_MAX);
        let (done, written) = oneshot::channel();
        std::thread::spawn(move || {
            for line in queue {
                drop(output.item(&line));
            }
            // The receiver has its own patience.
            let _ = done.send(());
        });
        Self { lines, written }
    }

    fn tell(&self, event: UpEvent) {
        if self.lines.try_send(event).is_err() {
            tracing::warn!("an event is not written: nobody reads them");
        }
    }

    /// Waits for the last lines, but not for a reader that does not read.
    async fn finish(self) {
        drop(self.lines);
        drop(timeout(WRITE_MAX, self.written).await);
    }
}

/// What `baran up` writes.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
enum UpEvent {
    /// The node runs.
    Listening { id: String, invite: String, addresses: Vec<SocketAddr> },
    /// It is connected to somebody.
    Joined { peers: usize, by: Option<&'static str> },
    /// Nobody that it knows answers; it goes on trying.
    Alone,
    /// A peer is connected.
    PeerUp { peer: String },
    /// A peer is not connected any more.
    PeerDown { peer: String },
    /// Data to a peer takes another path.
    Path {
        peer: String,
        #[serde(flatten)]
        path: Path,
        rtt_ms: Option<f64>,
    },
    /// Others see the node at these addresses.
    Observed { addresses: Vec<SocketAddr>, invite: String },
    /// A peer relays and signals for the node, or stopped to.
    Home { peer: String, held: bool, invite: String },
    /// The node relays and signals for a peer, or stopped to.
    Serving { peer: String, granted: bool },
    /// The network lent the node a seat of a region, or it has none any more: then both are null.
    Seat { region: Option<String>, active: Option<bool> },
    /// Nobody could be asked for a peer that is wanted; it is tried again.
    Unreachable { peer: String },
}

impl UpEvent {
    /// `None` for what is said otherwise.
    fn new(event: &Event, node: &Node) -> Option<Self> {
        let invite = || node.invite().to_invite();
        Some(match event {
            Event::Joined { .. } => return None,
            Event::Alone => Self::Alone,
            Event::PeerUp(peer) => Self::PeerUp { peer: peer.to_string() },
            Event::PeerDown(peer) => Self::PeerDown { peer: peer.to_string() },
            Event::Path { peer, path } => Self::Path {
                peer: peer.to_string(),
                path: Path::from(Some(*path)),
                rtt_ms: path.rtt.map(ms),
            },
            Event::Observed(addresses) => {
                Self::Observed { addresses: addresses.clone(), invite: invite() }
            }
            Event::Home { peer, held } => {
                Self::Home { peer: peer.to_string(), held: *held, invite: invite() }
            }
            Event::Serving { peer, granted } => {
                Self::Serving { peer: peer.to_string(), granted: *granted }
            }
            Event::Seat(seat) => Self::Seat {
                region: seat.map(|seat| seat.region.to_string()),
                active: seat.map(|seat| seat.is_active),
            },
            Event::Unreachable(peer) => Self::Unreachable { peer: peer.to_string() },
        })
    }
}

impl fmt::Display for UpEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses = |addresses: &[SocketAddr]| {
            addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        match self {
            Self::Listening { id, invite, addresses: own } => {
                writeln!(f, "this is {id}")?;
                writeln!(f, "listening on {}", addresses(own))?;
                write!(f, "invite: {invite}")
            }
            Self::Joined { peers, by } => {
                let how = match *by {
                    Some("lan") => ", found on the local network",
                    Some("cache") => ", known from an earlier run",
                    Some("registry") => ", found in the public registry",
                    Some("incoming") => ", which found us",
                    _ => "",
                };
                let s = if *peers == 1 { "" } else { "s" };
                write!(f, "joined, {peers} peer{s}{how}")
            }
            Self::Alone => write!(f, "nobody that we know answers, trying again"),
            Self::PeerUp { peer } => write!(f, "{} is connected", short(peer)),
            Self::PeerDown { peer } => write!(f, "{} is gone", short(peer)),
            Self::Path { peer, path, rtt_ms } => {
                write!(f, "{} is reached {path}", short(peer))?;
                rtt_ms.map_or(Ok(()), |rtt| write!(f, ", {rtt:.3} ms"))
            }
            Self::Observed { addresses: seen, .. } if seen.is_empty() => {
                write!(f, "nobody tells our address")
            }
            Self::Observed { addresses: seen, .. } => {
                write!(f, "others see us at {}", addresses(seen))
            }
            Self::Home { peer, held: true, invite } => {
                write!(f, "{} relays to us; invite: {invite}", short(peer))
            }
            Self::Home { peer, .. } => write!(f, "{} relays to us no more", short(peer)),
            Self::Serving { peer, granted: true } => write!(f, "we relay to {}", short(peer)),
            Self::Serving { peer, .. } => write!(f, "we relay to {} no more", short(peer)),
            Self::Seat { region: Some(region), active: Some(true) } => {
                write!(f, "the network voted us into a seat of region {region}")
            }
            Self::Seat { region: Some(region), .. } => {
                write!(f, "we stand by for a seat of region {region}")
            }
            Self::Seat { .. } => write!(f, "we hold no seat any more"),
            Self::Unreachable { peer } => {
                write!(f, "nobody knows the way to {}, trying again", short(peer))
            }
        }
    }
}
