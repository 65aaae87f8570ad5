//! A public registry: the last way into the network, for a node whose owner allows it.
//!
//! The registry is the `BitTorrent` Mainline DHT (BEP 5), where anybody may leave a kilobyte under
//! a key (mutable items, BEP 44). What a bare `ip:port` there could not tell, whose key is to be
//! expected, is told by what the slots hold: node records that each node signs ([`Record`]). A node
//! that is found here is dialled like any other, and has to prove the key that signed.
//!
//! A node without any peer for a while reads slots, at first a few and then all, until it has found
//! some. A node that strangers can reach writes itself into one now and then. Both are visits: the
//! node takes part in that DHT as a client for some seconds and leaves, keeps nothing for it, and
//! forgets whom it met there.
//!
//! Everybody who knows the network's name can write all slots, so everything read is taken for
//! hostile: bounded, verified, dropped when expired, and dialled at public addresses only. Whoever
//! wants can flood the slots with nodes of his own, or empty them; he cannot pass for somebody
//! else.
//!
//! [`Record`]: baran_proto::record::Record

#[cfg(feature = "mainline")]
mod search;
#[cfg(feature = "mainline")]
mod slot;
#[cfg(all(test, feature = "mainline"))]
mod tests;

#[cfg(feature = "mainline")]
use std::net::Ipv4Addr;
use std::net::SocketAddr;
#[cfg(feature = "mainline")]
use std::time::Duration;

use baran_proto::invite::PeerAddr;
#[cfg(feature = "mainline")]
use baran_proto::{egress::Net, id::SecretKey};
#[cfg(feature = "mainline")]
use tokio::sync::{mpsc, watch};

/// How the `BitTorrent` Mainline DHT is used as a registry.
#[cfg(feature = "mainline")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MainlineConfig {
    /// Nodes of that DHT that are asked first, as `host:port`. None: those that are well known.
    pub servers: Vec<String>,
    /// The local address that is used; that DHT has IPv4 alone.
    pub bind: Ipv4Addr,
    /// How long one node of that DHT is waited for. Reading and writing take several times that.
    pub timeout: Duration,
    /// Time without any peer before the registry is asked: other ways come first.
    pub patience: Duration,
    /// Pause between two visits of a node without peers: the first and the longest; it doubles.
    pub pause: (Duration, Duration),
    /// Pause between two looks of a node with peers at whether it is still listed. That DHT keeps
    /// what nobody writes anew for two hours (BEP 44).
    pub refresh: Duration,
}

#[cfg(feature = "mainline")]
impl Default for MainlineConfig {
    fn default() -> Self {
        let s = Duration::from_secs;
        Self {
            servers: Vec::new(),
            bind: Ipv4Addr::UNSPECIFIED,
            timeout: s(2),
            patience: s(12),
            pause: (s(30), s(1800)),
            refresh: s(2700),
        }
    }
}

/// Who uses the registry.
#[cfg(feature = "mainline")]
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    /// What its records are signed with.
    pub(crate) secret: SecretKey,
    /// The network's name.
    pub(crate) network: String,
    /// Addresses that may be dialled and told although they are not public.
    pub(crate) allow_nets: Vec<Net>,
    /// Whether it stays, and is of use to others.
    pub(crate) is_lasting: bool,
}

/// How the node stands, for the registry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Situation {
    /// Whether there is any link.
    pub(crate) has_peers: bool,
    /// Whether strangers reach the node without help.
    pub(crate) is_open: bool,
    /// Where it is believed to be reachable.
    pub(crate) addrs: Vec<SocketAddr>,
    /// The port that it listens on.
    pub(crate) port: u16,
}

/// The registry of a node; unless it is started there is none.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    #[cfg(feature = "mainline")]
    search: Option<Started>,
}

#[cfg(feature = "mainline")]
#[derive(Debug)]
struct Started {
    situation: watch::Sender<Situation>,
    found: mpsc::Receiver<Vec<PeerAddr>>,
    task: tokio::task::AbortHandle,
}

#[cfg(feature = "mainline")]
impl Drop for Started {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(feature = "mainline")]
impl Registry {
    /// Begins to look after whether the registry is needed. Must be called inside a Tokio runtime.
    pub(crate) fn start(config: MainlineConfig, identity: Identity) -> Self {
        let (situation, situations) = watch::channel(Situation::default());
        // Each answer takes the place of the one before: one that waits is enough.
        let (found_sender, found) = mpsc::channel(1);
        let task = tokio::spawn(search::run(config, identity, situations, found_sender));
        Self { search: Some(Started { situation, found, task: task.abort_handle() }) }
    }

    /// Tells how the node stands.
    pub(crate) fn tell(&self, situation: impl FnOnce() -> Situation) {
        let Some(search) = &self.search else { return };
        let situation = situation();
        search.situation.send_if_modified(|known| {
            let is_news = *known != situation;
            *known = situation;
            is_news
        });
    }

    /// The next peers that it names, the most promising first; never, if there is none.
    pub(crate) async fn found(&mut self) -> Vec<PeerAddr> {
        match &mut self.search {
            Some(search) => match search.found.recv().await {
                Some(peers) => peers,
                None => std::future::pending().await,
            },
            None => std::future::pending().await,
        }
    }
}

/// This build has no registry.
#[cfg(not(feature = "mainline"))]
#[expect(clippy::unused_self, reason = "as in a build that has one")]
impl Registry {
    pub(crate) fn tell(&self, _situation: impl FnOnce() -> Situation) {}

    pub(crate) async fn found(&mut self) -> Vec<PeerAddr> {
        std::future::pending().await
    }
}
