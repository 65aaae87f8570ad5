//! What each command does.

pub(crate) mod about;
pub(crate) mod find;
pub(crate) mod pair;
pub(crate) mod ping;
pub(crate) mod pipe;
pub(crate) mod store;
pub(crate) mod topic;
pub(crate) mod up;

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::args::{Global, NodeArgs};
use crate::daemon::client::Client;
use crate::daemon::protocol::Message;
use crate::output::Output;

/// Connects to a node, unless the user is faster to end it.
///
/// # Errors
///
/// If there is none.
pub(crate) async fn open(
    global: &Global,
    args: &NodeArgs,
    output: Output,
    ending: &mut Ending,
) -> Result<Client> {
    tokio::select! {
        client = Client::open(global, args, output) => client,
        () = ending.wait() => bail!("interrupted"),
    }
}

/// The node said what it is not asked.
pub(crate) fn unexpected(message: &Message) -> anyhow::Error {
    anyhow::anyhow!("the node gave an unexpected answer: {message:?}")
}

/// The signals by which people and service managers end a program.
#[derive(Debug)]
pub(crate) struct Ending([Signal; 3]);

impl Ending {
    /// From this moment on the signals no longer end the program by themselves.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub(crate) fn new() -> Result<Self> {
        let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()];
        let [terminate, interrupt, hangup] = kinds.map(signal);
        let watch = || Ok::<_, std::io::Error>(Self([terminate?, interrupt?, hangup?]));
        watch().context("watch signals")
    }

    /// Waits for one of them. Cancel-safe.
    pub(crate) async fn wait(&mut self) {
        let [terminate, interrupt, hangup] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
