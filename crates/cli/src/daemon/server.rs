//! The side that has the node: takes the requests of clients, one task each.
//!
//! Whoever may connect speaks for the owner, so only the owner and the superuser may: the socket
//! is 0600 in a directory that is 0700, and the system is asked who the other end is. Clients are
//! still kept from harming the daemon by mistake: their number, the length of what they say and
//! the time that they take to say it are bounded, and what is not understood is answered and
//! dropped.

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use baran::data::DataDir;
use baran::pair::PairedPeers;
use baran::{ConnectError, Node, PeerAddr, TopicLabels};
use data_encoding::BASE64;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::chat::Chats;
use super::finder::{self, Limit};
use super::protocol::{Command, Message, PING, Request, read_line, write_line};
use super::{pairer, pinger, pipe, topics};
use crate::view::{InviteView, Roles, Status};

/// Clients at a time.
const CLIENTS_MAX: usize = 64;
/// Longest wait for a request, and for an error to be read.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest wait for a home before an invite is given out without one.
const HOME_WAIT: Duration = Duration::from_secs(3);
/// How often it is looked whether there is one.
const HOME_POLL: Duration = Duration::from_millis(20);
/// Pause before a peer that was lost is connected to again.
const RETRY: Duration = Duration::from_secs(1);

/// A node and what clients may know of its process.
#[derive(Debug)]
pub(crate) struct Server {
    /// The node.
    pub(crate) node: Node,
    /// Its network.
    pub(crate) network: String,
    /// Whether it stays when the command ends.
    pub(crate) is_daemon: bool,
    /// The peers that it was paired with.
    pub(crate) paired: PairedPeers,
    /// What its owner calls topics, and itself in them.
    pub(crate) labels: TopicLabels,
    /// The chats that are open.
    pub(super) chats: Chats,
    /// Connections to those that were paired since it started.
    kept: Mutex<JoinSet<()>>,
}

/// The socket of a daemon. Removed when dropped.
#[derive(Debug)]
pub(crate) struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Listens at `path`. The caller holds the lock of the directory: what lies there was left by
    /// a process that is gone.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub(crate) fn bind(path: &Path) -> Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("remove {}", path.display()));
            }
            _ => {}
        }
        let listener = UnixListener::bind(path).with_context(|| {
            format!("listen at {} (if that is too long, choose a shorter --data)", path.display())
        })?;
        let socket = Self { listener, path: path.to_owned() };
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(path, mode).with_context(|| path.display().to_string())?;
        Ok(socket)
    }

    /// Takes clients until it is cancelled.
    pub(crate) async fn run(&self, server: &Arc<Server>) {
        let places = Arc::new(Semaphore::new(CLIENTS_MAX));
        let mut clients = JoinSet::new();
        loop {
            let (stream, _) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, most likely: some client will end.
                    tracing::warn!(%error, "cannot take a client");
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            while clients.try_join_next().is_some() {}
            if !is_owner(&stream) {
                tracing::warn!("refused a client of another user");
                continue;
            }
            let place = Arc::clone(&places).try_acquire_owned();
            let server = Arc::clone(server);
            clients.spawn(async move {
                let (reader, mut writer) = stream.into_split();
                if place.is_err() {
                    refuse(&mut writer, "too many commands at once: end some of them").await;
                    return;
                }
                server.serve(reader, writer).await;
            });
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.path));
    }
}

fn is_owner(stream: &UnixStream) -> bool {
    let us = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == us || peer.uid() == 0)
}

async fn refuse(writer: &mut (impl AsyncWrite + Unpin), why: &str) {
    drop(timeout(PATIENCE, write_line(writer, &Message::Error(why.to_owned()))).await);
}

impl Server {
    /// Serves `node` of a data directory.
    pub(crate) fn new(node: Node, network: &str, is_daemon: bool, dir: &DataDir) -> Self {
        let (network, paired) = (network.to_owned(), PairedPeers::of(dir));
        let (labels, chats) = (TopicLabels::of(dir), Chats::default());
        Self { node, network, is_daemon, paired, labels, chats, kept: Mutex::default() }
    }

    /// Stays connected to a peer as long as the node runs.
    pub(super) fn keep(&self, peer: PeerAddr) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.spawn(keep(self.node.clone(), peer));
    }

    /// Serves one client to the end.
    pub(crate) async fn serve(
        &self,
        reader: impl AsyncRead + Send + Unpin,
        mut writer: impl AsyncWrite + Send + Unpin,
    ) {
        let mut reader = BufReader::new(reader);
        if let Err(error) = self.handle(&mut reader, &mut writer).await {
            refuse(&mut writer, &format!("{error:#}")).await;
        }
        drop(writer.shutdown().await);
    }

    async fn handle(
        &self,
        reader: &mut (impl AsyncBufRead + Send + Unpin),
        writer: &mut (impl AsyncWrite + Send + Unpin),
    ) -> Result<()> {
        let request = timeout(PATIENCE, read_line::<Request>(reader)).await;
        let Some(request) = request.context("no request came")?? else { return Ok(()) };
        tracing::debug!(command = %request.command, "request");
        if request.network.as_ref().is_some_and(|network| *network != self.network) {
            let (pid, ours) = (std::process::id(), &self.network);
            bail!("process {pid} runs this node in network {ours:?}: use another --data");
        }
        // Ends with the request.
        let mut kept = JoinSet::new();
        for peer in &request.peers {
            kept.spawn(keep(self.node.clone(), peer.parse()?));
        }
        let await_home = request.await_home;
        match request.command {
            Command::Status => {
                let status = self.node.status().await.context("the node is closed")?;
                let status = Status::new(&status, self.is_daemon);
                write_line(writer, &Message::Status(Box::new(status))).await
            }
            Command::Roles => {
                let status = self.node.status().await.context("the node is closed")?;
                let roles = Roles::new(&status, self.is_daemon);
                write_line(writer, &Message::Roles(Box::new(roles))).await
            }
            Command::Invite => {
                self.settle(await_home).await;
                let invite = InviteView::from(&self.node.invite());
                write_line(writer, &Message::Invite(invite)).await
            }
            Command::Ping(ping) => pinger::run(&self.node, &ping, reader, writer).await,
            Command::PipeListen { from } => {
                let from = from.iter().map(|id| id.parse()).collect::<Result<Vec<_>, _>>()?;
                self.settle(await_home).await;
                pipe::listen(&self.node, &from, reader, writer).await
            }
            Command::PipeConnect { to, timeout_ms } => {
                let limit = Duration::from_millis(timeout_ms);
                pipe::connect(&self.node, to.parse()?, limit, reader, writer).await
            }
            Command::InviteWords => pairer::invite(self, reader, writer).await,
            Command::JoinWords { code, timeout_ms } => {
                pairer::join(self, &code.parse()?, timeout_ms, reader, writer).await
            }
            Command::Topic(request) => {
                self.settle(await_home && request.makes_invite()).await;
                topics::handle(self, request, reader, writer).await
            }
            command => self.find(command, reader, writer).await,
        }
    }

    /// Handles what is asked of the index.
    async fn find(
        &self,
        command: Command,
        reader: &mut (impl AsyncBufRead + Send + Unpin),
        writer: &mut (impl AsyncWrite + Send + Unpin),
    ) -> Result<()> {
        let node = &self.node;
        match command {
            Command::Put { name, value, timeout_ms } => {
                let limit = Limit::new(node, timeout_ms).await?;
                let value = BASE64.decode(value.as_bytes())?;
                finder::put(node, &name, value, &limit, writer).await
            }
            Command::Get { author, name, timeout_ms } => {
                let limit = Limit::new(node, timeout_ms).await?;
                finder::get(node, author.parse()?, &name, &limit, writer).await
            }
            Command::Announce { topic, timeout_ms } => {
                let limit = Limit::new(node, timeout_ms).await?;
                finder::announce(node, &topic, &limit, reader, writer).await
            }
            Command::Lookup { topic, limit: count, timeout_ms } => {
                let limit = Limit::new(node, timeout_ms).await?;
                let count = usize::try_from(count).unwrap_or(usize::MAX);
                finder::lookup(node, &topic, count, &limit, reader, writer).await
            }
            Command::Resolve { id, timeout_ms } => {
                let limit = Limit::new(node, timeout_ms).await?;
                finder::resolve(node, id.parse()?, &limit, writer).await
            }
            other => bail!("{other} is not asked of the index"),
        }
    }

    /// Waits for a home to name in the invite, if there may be one soon.
    async fn settle(&self, is_worth_it: bool) {
        let deadline = Instant::now() + HOME_WAIT;
        while is_worth_it && self.node.invite().homes.is_empty() && Instant::now() < deadline {
            sleep(HOME_POLL).await;
        }
    }
}

/// Stays connected to a peer until it is cancelled.
async fn keep(node: Node, peer: PeerAddr) {
    loop {
        match node.connect(peer.clone(), PING).await {
            Ok(connection) => drop(connection.closed().await),
            Err(ConnectError::Oneself | ConnectError::Closed) => return,
            Err(ConnectError::Session(_)) => {}
        }
        sleep(RETRY).await;
    }
}

/// Reads until the client stops writing: it wants the command to end.
pub(super) async fn until_stopped(reader: &mut (impl AsyncBufRead + Unpin)) {
    drop(tokio::io::copy_buf(reader, &mut tokio::io::sink()).await);
}
