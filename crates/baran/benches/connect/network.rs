//! The network: nodes on the wire, every second one behind a NAT, each introduced by one other.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use baran::{Connection, Event, Node, NodeId, PathKind, PeerAddr, Status};
use rand_chacha::ChaCha8Rng;
use rand_core::Rng;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, sleep, timeout};

use crate::Outcome;
use crate::nat::Place;

const PROTOCOL: &str = "bench/1";
const PORT: u16 = 4433;

/// What the gate must be allowed to send to: the wire's public addresses.
const PUBLIC: &str = "198.18.0.0/15";

/// Longest wait for a connection.
const PATIENCE: Duration = Duration::from_secs(20);

/// Longest wait for a direct path, from the first byte on.
const DIRECT_MAX: Duration = Duration::from_secs(3);

/// Between two looks at something that comes by itself.
const PAUSE: Duration = Duration::from_millis(100);

/// A node on the wire.
pub(crate) struct Member {
    pub(crate) node: Node,
    pub(crate) is_natted: bool,
    place: Place,
    /// Everybody that it was ever connected to.
    met: Arc<Mutex<BTreeSet<NodeId>>>,
}

impl Member {
    /// Starts the node of a place; it knows `introducer` and nobody else.
    async fn start(n: u8, is_natted: bool, introducer: Option<&Self>) -> Outcome<Self> {
        let place = Place::new(n, is_natted);
        let mut builder = Node::builder()
            .network("bench")
            .bind(SocketAddr::from((place.inner, PORT)))
            .allow_net(PUBLIC.parse()?)
            .lan(false);
        if let Some(introducer) = introducer {
            builder = builder.peer(introducer.at());
        }
        let node = builder.spawn().await?;
        let met = Arc::default();
        tokio::spawn(note_peers(node.clone(), Arc::clone(&met)));
        tokio::spawn(serve_echo(node.clone()));
        Ok(Self { node, is_natted, place, met })
    }

    /// Its id and public address.
    pub(crate) fn at(&self) -> PeerAddr {
        let addr = SocketAddr::from((self.place.outer, PORT));
        PeerAddr { id: self.node.id(), addrs: vec![addr], homes: Vec::new() }
    }

    fn has_met(&self, other: &Self) -> bool {
        let met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        met.contains(&other.node.id())
    }

    pub(crate) async fn status(&self) -> Outcome<Status> {
        Ok(self.node.status().await.ok_or("a node is closed")?)
    }

    /// Requests of the index that it has made.
    pub(crate) async fn asked(&self) -> Outcome<u64> {
        Ok(self.status().await?.index.requests_sent)
    }

    /// Whether there is a link to `other`.
    async fn is_linked(&self, other: &Self) -> Outcome<bool> {
        let id = other.node.id();
        Ok(self.status().await?.peers.iter().any(|linked| linked.id == id))
    }
}

/// Waits until the links between these pairs are closed, and leaves out those that stay: a link is
/// kept for good if it serves one of the two as one of its warm ones.
pub(crate) async fn parted(
    members: &[Member],
    mut pairs: Vec<(usize, usize)>,
    limit: Duration,
) -> Outcome<Vec<(usize, usize)>> {
    let deadline = Instant::now() + limit;
    let mut parted = Vec::new();
    while !pairs.is_empty() && Instant::now() < deadline {
        let mut linked = Vec::new();
        for (from, to) in pairs {
            let is_linked = members[from].is_linked(&members[to]).await?;
            if is_linked { &mut linked } else { &mut parted }.push((from, to));
        }
        pairs = linked;
        sleep(PAUSE).await;
    }
    Ok(parted)
}

async fn note_peers(node: Node, met: Arc<Mutex<BTreeSet<NodeId>>>) {
    let mut events = node.events();
    loop {
        match events.recv().await {
            Ok(Event::PeerUp(peer)) => {
                met.lock().unwrap_or_else(PoisonError::into_inner).insert(peer);
            }
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

async fn serve_echo(node: Node) -> Outcome<()> {
    let mut acceptor = node.accept(PROTOCOL)?;
    while let Some(connection) = acceptor.next().await {
        tokio::spawn(async move {
            while let Ok((mut send, mut recv)) = connection.accept_bi().await {
                while let Some(chunk) = recv.read_chunk(usize::MAX).await? {
                    send.write_all(&chunk).await?;
                }
                send.finish()?;
            }
            Outcome::Ok(())
        });
    }
    Ok(())
}

/// Starts `count` nodes, the odd ones behind NATs. Each is introduced by one that is open and
/// drawn from those before it, so that nobody knows everybody.
pub(crate) async fn start(count: u8, rng: &mut ChaCha8Rng) -> Outcome<Vec<Member>> {
    let mut members: Vec<Member> = Vec::new();
    for n in 0..count {
        let open: Vec<_> = members.iter().filter(|member| !member.is_natted).collect();
        let drawn = (!open.is_empty()).then(|| below(rng, open.len()));
        let introducer = drawn.map(|drawn| open[drawn]);
        members.push(Member::start(n, n % 2 == 1, introducer).await?);
    }
    for member in &members[1..] {
        let deadline = Instant::now() + PATIENCE;
        while member.status().await?.peers.is_empty() {
            if Instant::now() > deadline {
                return Err(format!("{:?} joins nobody", member.place).into());
            }
            sleep(PAUSE).await;
        }
    }
    Ok(members)
}

/// A number below `limit`, which is not zero.
fn below(rng: &mut ChaCha8Rng, limit: usize) -> usize {
    let limit = u64::try_from(limit).unwrap_or(u64::MAX);
    usize::try_from(rng.next_u64() % limit).unwrap_or_default()
}

/// Pairs of places in `members` that never had a connection with each other, in random order.
pub(crate) fn strangers(
    members: &[Member],
    sources: bool,
    targets: bool,
    rng: &mut ChaCha8Rng,
) -> Vec<(usize, usize)> {
    let of = |natted: bool| {
        let places = members.iter().enumerate();
        places.filter(move |(_, member)| member.is_natted == natted).map(|(n, _)| n)
    };
    let mut pairs: Vec<_> = of(sources)
        .flat_map(|from| of(targets).map(move |to| (from, to)))
        .filter(|(from, to)| from != to)
        .filter(|(from, to)| !members[*from].has_met(&members[*to]))
        .filter(|(from, to)| !members[*to].has_met(&members[*from]))
        .collect();
    for n in (1..pairs.len()).rev() {
        pairs.swap(n, below(rng, n + 1));
    }
    pairs
}

/// One connection, in seconds from the call of `connect`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Contact {
    pub(crate) connected_s: f64,
    pub(crate) first_byte_s: f64,
    /// Whether the first byte went straight.
    pub(crate) is_direct: bool,
    /// When the path was direct, if it became so.
    pub(crate) direct_s: Option<f64>,
    /// Requests of the index that the source made meanwhile, those of its housekeeping included.
    pub(crate) requests: f64,
}

/// Reaches a peer, has a byte echoed, waits for a direct path, and closes.
pub(crate) async fn contact(from: &Member, to: PeerAddr) -> Outcome<Contact> {
    let asked_before = from.asked().await?;
    let begin = Instant::now();
    let seconds = || begin.elapsed().as_secs_f64();
    let connection = timeout(PATIENCE, from.node.connect(to, PROTOCOL)).await??;
    let connected_s = seconds();
    let (mut send, mut recv) = connection.open_bi().await?;
    send.write_all(&[1]).await?;
    send.finish()?;
    if timeout(PATIENCE, recv.read_chunk(1)).await??.as_deref() != Some(&[1]) {
        return Err("a wrong echo".into());
    }
    let first_byte_s = seconds();
    let is_direct = is_direct(&connection);
    let mut watch = connection.path_changes();
    let direct =
        async { while !self::is_direct(&connection) && watch.changed().await.is_some() {} };
    let is_direct_late = timeout(DIRECT_MAX, direct).await.is_ok();
    let direct_s = is_direct_late.then(seconds);
    connection.close(0, "done").await;
    let requests = (from.asked().await? - asked_before) as f64;
    Ok(Contact { connected_s, first_byte_s, is_direct, direct_s, requests })
}

fn is_direct(connection: &Connection) -> bool {
    connection.path().is_some_and(|path| path.kind == PathKind::Direct)
}
