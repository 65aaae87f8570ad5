//! The side that asks: finds the daemon of the data directory, or starts a node of its own.
//!
//! A command's own node has the identity of the directory and holds its lock, so there are never
//! two nodes of one identity. It is served by the same [`Server`] as a daemon's clients are,
//! through memory in the place of a socket.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use baran::data::{DataDir, DataError, DataLock};
use baran::pair::PairedPeers;
use baran::{Node, NodeBuilder};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::protocol::{Command, Message, Request, read_line, write_line};
use super::server::Server;
use crate::args::{Global, NodeArgs};
use crate::output::Output;
use crate::serve::Responder;

/// Longest wait for a daemon that starts, or for another command to end.
const START_MAX: Duration = Duration::from_secs(3);
/// How often it is looked whether it did.
const START_POLL: Duration = Duration::from_millis(50);
/// Buffer of the connection through memory: some frames.
const MEMORY_LEN: usize = 256 * 1024;
/// Longest wait for the own node's last words.
const SETTLE_MAX: Duration = Duration::from_secs(2);

/// What a client reads from.
pub(crate) type Reader = BufReader<Box<dyn AsyncRead + Send + Unpin>>;
/// What a client writes to.
pub(crate) type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// A command's connection to a node.
pub(crate) struct Client {
    /// From the node.
    pub(crate) reader: Reader,
    /// To the node.
    pub(crate) writer: Writer,
    network: Option<String>,
    /// Peers for a daemon to connect to.
    peers: Vec<String>,
    await_home: bool,
    own: Option<OwnNode>,
}

/// A node that lasts as long as a command.
struct OwnNode {
    node: Node,
    tasks: JoinSet<()>,
    _lock: DataLock,
}

/// The data directory that the user chose, opened.
///
/// # Errors
///
/// If it cannot be used.
pub(crate) fn data_dir(global: &Global) -> Result<DataDir, DataError> {
    let path = global.data.clone().unwrap_or_else(DataDir::default_path);
    DataDir::open(&path)
}

/// The settings of a node that lives in `dir`. The caller holds its lock.
///
/// # Errors
///
/// If what lies there cannot be used.
pub(crate) fn builder(dir: &DataDir, args: &NodeArgs) -> Result<NodeBuilder, DataError> {
    let network = network(args);
    let mut builder = Node::builder().data(dir.clone()).network(network).lan(!args.no_lan);
    for paired in PairedPeers::of(dir).of_network(network)? {
        builder = builder.peer(paired.peer);
    }
    for bind in &args.bind {
        builder = builder.bind(*bind);
    }
    for net in &args.allow_nets {
        builder = builder.allow_net(*net);
    }
    for peer in &args.peers {
        builder = builder.peer(peer.clone());
    }
    Ok(builder)
}

/// The network of a node.
pub(crate) fn network(args: &NodeArgs) -> &str {
    args.network.as_deref().unwrap_or("main")
}

impl Client {
    /// Connects to the daemon, or starts a node.
    ///
    /// # Errors
    ///
    /// If neither is possible.
    pub(crate) async fn open(global: &Global, args: &NodeArgs, output: Output) -> Result<Self> {
        let dir = data_dir(global)?;
        let deadline = Instant::now() + START_MAX;
        loop {
            let in_use = match dir.lock() {
                Ok(lock) => return Self::with_own_node(&dir, lock, args).await,
                Err(error @ DataError::InUse { .. }) => error,
                Err(error) => return Err(error.into()),
            };
            match UnixStream::connect(dir.socket_path()).await {
                Ok(stream) => return Ok(Self::with_daemon(stream, args, output)),
                Err(_) if Instant::now() < deadline => sleep(START_POLL).await,
                Err(error) => return Err(no_answer(&in_use, &dir.socket_path(), &error)),
            }
        }
    }

    fn with_daemon(stream: UnixStream, args: &NodeArgs, output: Output) -> Self {
        if !args.bind.is_empty() || !args.allow_nets.is_empty() || args.no_lan {
            output.hint("the daemon goes on with its own --bind, --allow-net and --no-lan");
        }
        let (reader, writer) = stream.into_split();
        Self {
            reader: BufReader::new(Box::new(reader)),
            writer: Box::new(writer),
            network: args.network.clone(),
            peers: args.peers.iter().map(baran::PeerAddr::to_invite).collect(),
            await_home: !args.peers.is_empty(),
            own: None,
        }
    }

    async fn with_own_node(dir: &DataDir, lock: DataLock, args: &NodeArgs) -> Result<Self> {
        let node = builder(dir, args)?.passing().spawn().await?;
        let responder = Responder::new(&node)?;
        let server = Arc::new(Server::new(node.clone(), network(args), false, dir));
        let (ours, theirs) = tokio::io::duplex(MEMORY_LEN);
        let mut tasks = JoinSet::new();
        tasks.spawn(responder.run());
        tasks.spawn(async move {
            let (reader, writer) = tokio::io::split(theirs);
            server.serve(reader, writer).await;
        });
        let (reader, writer) = tokio::io::split(ours);
        Ok(Self {
            reader: BufReader::new(Box::new(reader)),
            writer: Box::new(writer),
            network: None,
            peers: Vec::new(),
            await_home: !args.peers.is_empty(),
            own: Some(OwnNode { node, tasks, _lock: lock }),
        })
    }

    /// Whether the node ends with the command.
    pub(crate) fn has_own_node(&self) -> bool {
        self.own.is_some()
    }

    /// Asks the node.
    ///
    /// # Errors
    ///
    /// If it is gone.
    pub(crate) async fn request(&mut self, command: Command) -> Result<()> {
        let request = Request {
            network: self.network.clone(),
            peers: self.peers.clone(),
            await_home: self.await_home,
            command,
        };
        write_line(&mut self.writer, &request).await
    }

    /// Ends the connection, and the own node if there is one.
    pub(crate) async fn close(mut self) {
        drop(self.writer.shutdown().await);
        drop((self.reader, self.writer));
        let Some(mut own) = self.own else { return };
        // The server ends with the connection, the responder only with the node.
        drop(timeout(SETTLE_MAX, own.tasks.join_next()).await);
        own.node.close().await;
        own.tasks.shutdown().await;
    }
}

/// The node's next word. Not cancel-safe.
///
/// # Errors
///
/// If it says that the command failed, or is gone.
pub(crate) async fn message(reader: &mut Reader) -> Result<Message> {
    match read_line(reader).await? {
        Some(Message::Error(error)) => bail!(error),
        Some(message) => Ok(message),
        None => bail!("the node ended before it answered"),
    }
}

fn no_answer(in_use: &DataError, socket: &Path, error: &std::io::Error) -> anyhow::Error {
    let error = anyhow::anyhow!("{}: {error}", socket.display());
    error.context(in_use.to_string()).context("the daemon, or another command, does not answer")
}
