//! What is measured: nodes, next to each other or with a third between them.

use std::sync::Arc;
use std::time::Duration;

use baran::{
    Acceptor, Connection, Event, Node, PathKind, PeerAddr, RecvStream, SendStream, ServeLimits,
};

use crate::host::{Host, Outcome};

pub(crate) const PROTOCOL: &str = "bench/1";

/// Longest wait for a link or a home.
const PATIENCE: Duration = Duration::from_secs(20);

const V4: &str = "127.0.0.1:0";
const V6: &str = "[::1]:0";

/// A node that relays whatever comes, bound to `binds`.
async fn node(binds: &[&str], home: Option<PeerAddr>) -> Outcome<Node> {
    let mut builder = Node::builder().serve(ServeLimits {
        rate_bytes_per_s: 100_000_000_000,
        bytes_per_day: u64::MAX,
        ..ServeLimits::default()
    });
    for bind in binds {
        builder = builder.bind(bind.parse()?);
    }
    if let Some(home) = home {
        builder = builder.peer(home);
    }
    Ok(builder.spawn().await?)
}

/// Two nodes that can reach each other, one to dial and one to be dialled.
pub(crate) struct Pair {
    pub(crate) dialler: Node,
    pub(crate) listener: Node,
    pub(crate) acceptor: Acceptor,
    pub(crate) to: PeerAddr,
    pub(crate) kind: PathKind,
    /// Kept for as long as it shall relay.
    pub(crate) _relay: Option<Node>,
}

impl Pair {
    pub(crate) fn direct(client: &Host, server: &Host) -> Outcome<Self> {
        let dialler = client.run(node(&[V4], None))?;
        let listener = server.run(node(&[V4], None))?;
        let (acceptor, to) = (listener.accept(PROTOCOL)?, listener.invite());
        Ok(Self { dialler, listener, acceptor, to, kind: PathKind::Direct, _relay: None })
    }

    pub(crate) fn relayed(client: &Host, server: &Host, middle: &Host) -> Outcome<Self> {
        // One speaks IPv4 alone and one IPv6 alone, so that no direct path comes in between.
        let relay = middle.run(node(&[V4, V6], None))?;
        let dialler = client.run(at_home(V4, relay.invite()))?;
        let listener = server.run(at_home(V6, relay.invite()))?;
        let (acceptor, to) = (listener.accept(PROTOCOL)?, PeerAddr::from(listener.id()));
        Ok(Self { dialler, listener, acceptor, to, kind: PathKind::Relayed, _relay: Some(relay) })
    }
}

/// A node that has found its home.
async fn at_home(bind: &str, home: PeerAddr) -> Outcome<Node> {
    let node = node(&[bind], Some(home)).await?;
    let mut events = node.events();
    let held = async {
        while !matches!(events.recv().await?, Event::Home { held: true, .. }) {}
        Outcome::Ok(())
    };
    tokio::time::timeout(PATIENCE, held).await??;
    Ok(node)
}

/// Reaches the other node of a pair.
pub(crate) async fn connect(node: &Node, to: PeerAddr, kind: PathKind) -> Outcome<Connection> {
    let connection = tokio::time::timeout(PATIENCE, node.connect(to, PROTOCOL)).await??;
    let path = connection.path().ok_or("the peer is lost")?;
    if path.kind == kind { Ok(connection) } else { Err(format!("a wrong path: {path:?}").into()) }
}

pub(crate) async fn send(mut stream: SendStream, chunk: &[u8], bytes: usize) -> Outcome<()> {
    let mut left = bytes;
    while left > 0 {
        let n = left.min(chunk.len());
        stream.write_all(&chunk[..n]).await?;
        left -= n;
    }
    stream.finish()?;
    stream.acknowledged().await?;
    Ok(())
}

/// Reads to the end and returns the number of bytes.
pub(crate) async fn receive(mut stream: RecvStream) -> Outcome<usize> {
    let mut bytes = 0;
    while let Some(chunk) = stream.read_chunk(usize::MAX).await? {
        bytes += chunk.len();
    }
    Ok(bytes)
}

/// Returns what comes on each stream, until the connection ends.
pub(crate) async fn serve_echo(connection: Connection) -> Outcome<()> {
    while let Ok((mut send, mut recv)) = connection.accept_bi().await {
        tokio::spawn(async move {
            while let Some(chunk) = recv.read_chunk(usize::MAX).await? {
                send.write_all(&chunk).await?;
            }
            send.finish()?;
            Outcome::Ok(())
        });
    }
    Ok(())
}

pub(crate) async fn echo(connection: Arc<Connection>, ping: &[u8]) -> Outcome<()> {
    let (mut send, mut recv) = connection.open_bi().await?;
    send.write_all(ping).await?;
    send.finish()?;
    if recv.read_to_end(ping.len()).await? == ping { Ok(()) } else { Err("a wrong echo".into()) }
}
