//! What a node is made with.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use baran_proto::index::IndexConfig;
use baran_proto::role::RoleConfig;

use crate::data::DataDir;
use crate::serve::ServeLimits;
use crate::{Net, Node, NodeError, PeerAddr, SecretKey};

/// Makes a [`Node`].
#[derive(Debug)]
pub struct NodeBuilder {
    pub(crate) secret: Option<SecretKey>,
    pub(crate) network: String,
    pub(crate) binds: Vec<SocketAddr>,
    pub(crate) peers: Vec<PeerAddr>,
    pub(crate) allow_nets: Vec<Net>,
    pub(crate) serve: ServeLimits,
    pub(crate) budget_bytes: u64,
    pub(crate) data: Option<Arc<DataDir>>,
    pub(crate) index: IndexConfig,
    pub(crate) role: RoleConfig,
    pub(crate) is_lan_used: bool,
    #[cfg(feature = "mainline")]
    pub(crate) registry: Option<crate::MainlineConfig>,
}

impl Default for NodeBuilder {
    fn default() -> Self {
        Self {
            secret: None,
            network: "main".into(),
            binds: Vec::new(),
            peers: Vec::new(),
            allow_nets: Vec::new(),
            serve: ServeLimits::default(),
            budget_bytes: 32 * 1024 * 1024,
            data: None,
            index: IndexConfig::default(),
            role: RoleConfig::default(),
            is_lan_used: false,
            #[cfg(feature = "mainline")]
            registry: None,
        }
    }
}

impl NodeBuilder {
    /// The node's identity. A fresh one if none is given.
    #[must_use]
    pub fn secret(mut self, secret: SecretKey) -> Self {
        self.secret = Some(secret);
        self
    }

    /// The network to be part of; nodes of different networks never talk. `main` by default.
    #[must_use]
    pub fn network(mut self, name: impl Into<String>) -> Self {
        self.network = name.into();
        self
    }

    /// An address to listen on. Without any: every address of the machine, a port of its choice.
    #[must_use]
    pub fn bind(mut self, addr: SocketAddr) -> Self {
        self.binds.push(addr);
        self
    }

    /// A peer to reach and to come back to for as long as the node runs.
    #[must_use]
    pub fn peer(mut self, peer: PeerAddr) -> Self {
        self.peers.push(peer);
        self
    }

    /// Addresses that may be reached although their class forbids it: loopback and test networks.
    #[must_use]
    pub fn allow_net(mut self, net: Net) -> Self {
        self.allow_nets.push(net);
        self
    }

    /// What the node may serve others: relay, answer and keep in the index, signal.
    #[must_use]
    pub fn serve(mut self, limits: ServeLimits) -> Self {
        self.serve = limits;
        self
    }

    /// Bytes that all connections together may buffer beyond the little that each is admitted
    /// with. 32 MiB by default.
    #[must_use]
    pub fn budget_bytes(mut self, bytes: u64) -> Self {
        self.budget_bytes = bytes;
        self
    }

    /// How long an epoch is in which seats are voted in: an hour by default. All nodes of a
    /// network must agree on it; for networks that are made for a test.
    #[must_use]
    pub fn epoch(mut self, epoch: Duration) -> Self {
        self.role = RoleConfig::with_epoch(epoch);
        self
    }

    /// The directory that holds the node's identity (unless [`NodeBuilder::secret`] gives one), its
    /// port, the peers that it knew, the records that it keeps and those that it published. The
    /// caller holds its [`DataLock`](crate::data::DataLock). Without one the node begins anew.
    #[must_use]
    pub fn data(mut self, dir: DataDir) -> Self {
        self.data = Some(Arc::new(dir));
        self
    }

    /// Whether to find peers on the local network, and to be found (mDNS, RFC 6762). Off by
    /// default.
    #[must_use]
    pub fn lan(mut self, is_used: bool) -> Self {
        self.is_lan_used = is_used;
        self
    }

    /// A public registry to ask for peers when nobody else answers, and to be listed in: the
    /// `BitTorrent` Mainline DHT. Off by default, because it tells the world that this address runs
    /// a node of this network.
    #[cfg(feature = "mainline")]
    #[must_use]
    pub fn registry(mut self, config: crate::MainlineConfig) -> Self {
        self.registry = Some(config);
        self
    }

    /// A node that stays for a moment: it uses the index, but serves nobody and makes only the
    /// connections that it needs.
    #[must_use]
    pub fn passing(mut self) -> Self {
        self.serve = ServeLimits::off();
        self.index.warm_near = 0;
        self.index.warm_random = 2;
        self
    }

    /// Starts the node. Must be called inside a Tokio runtime.
    ///
    /// # Errors
    ///
    /// If an address cannot be bound or the settings contradict each other.
    #[expect(clippy::unused_async, reason = "starting will wait for the store and port mapping")]
    pub async fn spawn(self) -> Result<Node, NodeError> {
        Node::start(self)
    }
}
