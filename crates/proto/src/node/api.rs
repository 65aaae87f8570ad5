//! What goes into a node and comes out of it.

use core::time::Duration;
use std::net::{IpAddr, SocketAddr};

use crate::bootstrap::{BootstrapConfig, How};
pub use crate::candidate::HostAddr;
use crate::egress::Net;
use crate::forward::{ChannelPair, Endpoint, OpenError};
use crate::frame::Channel;
use crate::id::NodeId;
use crate::index::{self, Command, DiskAction, IndexConfig, Restored};
use crate::invite::PeerAddr;
use crate::path;
pub use crate::path::{PathId, Sample, Selected, Side};
use crate::role::{self, RoleConfig};
use crate::time::UnixTime;
use crate::topic::machine as topic;
use crate::wire::NodeMessage;
use crate::wire::topic::TopicMessage;

/// A QUIC connection, numbered by the driver in the order of their coming up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkId(pub u64);

/// An attempt to connect, numbered by the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DialId(pub u64);

/// Limits and the owner's wishes.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Whether to relay and signal for others.
    pub relays: bool,
    /// Bytes a second that we relay for everybody together, as told to those who ask.
    pub relay_rate_bytes_per_s: u64,
    /// Reservations granted at most.
    pub reservations_max: usize,
    /// Channels that one peer may have opened at a time.
    pub channels_per_peer_max: usize,
    /// How long a channel lasts unless renewed.
    pub relay_ttl: Duration,
    /// How long a reservation lasts unless renewed.
    pub reservation_ttl: Duration,
    /// Peers that we reserve at; the best [`HOMES_MAX`](crate::wire::node::HOMES_MAX) are named as
    /// homes.
    pub homes: usize,
    /// Peers remembered as wanted at a time.
    pub peers_max: usize,
    /// Peers asked at a time to signal for one that is wanted.
    pub signallers_max: usize,
    /// First and longest pause between attempts to reach a peer that is to be kept.
    pub retry: (Duration, Duration),
    /// Of each link's path manager.
    pub path: path::Config,
    /// The network's name, which records are signed for.
    pub network: String,
    /// Addresses that count as public although their class forbids it, as the egress gate has them.
    pub allow_nets: Vec<Net>,
    /// Of the index.
    pub index: IndexConfig,
    /// Of the bootstrap.
    pub bootstrap: BootstrapConfig,
    /// Of the roles that the network lends.
    pub role: RoleConfig,
    /// Of topics.
    pub topic: topic::TopicConfig,
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            relays: true,
            relay_rate_bytes_per_s: 0,
            reservations_max: 1024,
            channels_per_peer_max: 32,
            relay_ttl: Duration::from_secs(120),
            // The link ends it before; renewing costs messages.
            reservation_ttl: Duration::from_secs(4 * 3600),
            // Every warm connection, and as many that others keep to us.
            homes: 16,
            peers_max: 4096,
            signallers_max: 3,
            retry: (Duration::from_millis(250), Duration::from_secs(60)),
            path: path::Config::default(),
            network: "main".into(),
            allow_nets: Vec::new(),
            index: IndexConfig::default(),
            bootstrap: BootstrapConfig::default(),
            role: RoleConfig::default(),
            topic: topic::TopicConfig::default(),
        }
    }
}

/// Where a path leads, in addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RemoteAddr {
    /// Straight to this address.
    Direct(SocketAddr),
    /// In frames to a relay.
    Relayed {
        /// The relay's address.
        relay: SocketAddr,
        /// The channel on frames to it.
        channel: Channel,
    },
}

/// What can happen to a node.
#[derive(Debug, Clone)]
pub enum Input {
    /// The owner wants a link to this peer; with `keep` for good, else until one stands or
    /// [`Input::Unwant`].
    Want {
        /// Who, and where it may be.
        peer: PeerAddr,
        /// Whether to come back whenever the link is lost.
        keep: bool,
    },
    /// The owner lends this node to others, relays, signals and keeps records for them, or does not
    /// (any more). As [`NodeConfig`] says until then.
    Serve(bool),
    /// How much of what the owner allows is in use, from 0 for nothing to 255 for all of it
    /// ([`Allowance::load`](crate::allowance::Allowance::load)).
    Load(u8),
    /// Nobody waits for this peer: whoever did has a link, or has given up. One that is to be kept
    /// is sought nevertheless.
    Unwant(NodeId),
    /// The owner wants this peer neither once nor for good. A link that stands stays.
    Forget(NodeId),
    /// The addresses of our interfaces, and what our sockets are bound to.
    HostAddrs {
        /// All of them, loopback left out.
        addrs: Vec<HostAddr>,
        /// At least one.
        bound: Vec<SocketAddr>,
    },
    /// What the calendar says: at the start before all else, and now and then.
    Clock(UnixTime),
    /// The puzzle of this node's identity ([`role::puzzle`]) is solved by this nonce: from then on
    /// it takes part in votes.
    Puzzle(u64),
    /// What the disk held, at the start.
    Restore(Restored),
    /// The peers of the last run, in the order of dialling; starts the bootstrap.
    Boot(Vec<PeerAddr>),
    /// A peer was found on the LAN.
    Lan(PeerAddr),
    /// A public registry names these peers, the most promising first.
    Registry(Vec<PeerAddr>),
    /// The owner asks something of the index.
    Index(Command),
    /// The owner asks something of a topic.
    Topic(topic::Command),
    /// A linked peer said something on its stream of topics.
    TopicMessage {
        /// Who.
        peer: NodeId,
        /// What.
        message: TopicMessage,
    },
    /// What was on its way on the streams of topics to a linked peer or from it is lost.
    TopicBroken(NodeId),
    /// An [`Output::Disk`] is on disk, or cannot be.
    DiskDone {
        /// As in the request.
        token: u64,
        /// Whether it is.
        is_kept: bool,
    },
    /// An [`Output::Dial`] came to nothing.
    DialFailed(DialId),
    /// A connection is authenticated.
    LinkUp {
        /// Its number, higher than any before.
        link: LinkId,
        /// Who it leads to, as TLS proved.
        peer: NodeId,
        /// Our side of it.
        side: Side,
        /// Its first path.
        path: PathId,
        /// Where that leads.
        remote: RemoteAddr,
        /// The attempt that it came from, if we dialled.
        dial: Option<DialId>,
    },
    /// A connection is gone.
    LinkDown(LinkId),
    /// The peer of a link said something.
    Message {
        /// On which link.
        link: LinkId,
        /// What.
        message: NodeMessage,
    },
    /// A further path of a link is validated.
    PathOpened {
        /// Which link.
        link: LinkId,
        /// Which path.
        path: PathId,
        /// Where it leads.
        remote: RemoteAddr,
    },
    /// A path of a link is gone.
    PathClosed {
        /// Which link.
        link: LinkId,
        /// Which path.
        path: PathId,
    },
    /// A conversation of an application is on this link.
    Used(LinkId),
    /// The counters of a link's paths, as [`path::Output::Sample`] asked.
    Samples {
        /// Which link.
        link: LinkId,
        /// One for each path.
        samples: Vec<Sample>,
    },
    /// The peer of a link sees us at an address, on a direct path.
    Observed {
        /// Which link.
        link: LinkId,
        /// Where.
        addr: SocketAddr,
    },
    /// The peer of a link named more of its addresses.
    PeerCandidates(LinkId),
    /// The forwarder's answer to [`ForwardAction::Open`].
    ChannelOpened {
        /// As in the request.
        token: u64,
        /// The numbers of the channel's two ends.
        result: Result<ChannelPair, OpenError>,
    },
    /// The forwarder let go of channels that nobody renewed.
    ChannelsExpired(Vec<Channel>),
    /// An [`Output::OpenRelayed`] came to nothing.
    RelayPathFailed(LinkId),
    /// Something was written or arrived on a link after [`path::Output::Quiet`], or a keep-alive of
    /// it was not answered.
    Active(LinkId),
}

/// What a node wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Connect to a peer; report [`Input::LinkUp`] or [`Input::DialFailed`].
    Dial {
        /// Named in the report.
        dial: DialId,
        /// Whose key must be proved.
        peer: NodeId,
        /// Where.
        to: RemoteAddr,
    },
    /// Stop an attempt; nothing is reported.
    CancelDial(DialId),
    /// Send a message.
    Send {
        /// On which link.
        link: LinkId,
        /// What.
        message: NodeMessage,
    },
    /// Send a message on the link's stream of topics. What finds no room may be dropped: members
    /// compare what they have.
    SendTopic {
        /// On which link.
        link: LinkId,
        /// What.
        message: TopicMessage,
    },
    /// Read nothing more from a peer's streams of topics, and close them.
    ExpelTopic(NodeId),
    /// Do something with a link's paths.
    Path {
        /// Which link.
        link: LinkId,
        /// What: neither [`path::Output::WantRelay`] nor [`path::Output::Selected`].
        action: path::Output,
    },
    /// Open a relayed path on a link; report [`Input::PathOpened`] or [`Input::RelayPathFailed`].
    OpenRelayed {
        /// Which link.
        link: LinkId,
        /// The relay's address.
        relay: SocketAddr,
        /// The channel on frames to it.
        channel: Channel,
    },
    /// This link is not preferred (any more): close it when it is idle.
    Retire(LinkId),
    /// Close this link, whatever is on it; nothing is reported.
    Close(LinkId),
    /// Close this link and report [`Input::LinkDown`] at once, unless it has sessions.
    CloseIfIdle(LinkId),
    /// Send something tiny to this address, so that our NAT lets its answers in.
    Knock(SocketAddr),
    /// Write to disk, or remove; report [`Input::DiskDone`].
    Disk {
        /// Named in the report.
        token: u64,
        /// What.
        action: DiskAction,
    },
    /// Accept frames of unknown channels from this address, or stop to.
    InboundRelay(SocketAddr, bool),
    /// For the forwarder.
    Forward(ForwardAction),
    /// For the egress gate.
    Gate(GateAction),
    /// For the owner.
    Event(Event),
}

/// For the forwarder of relayed frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ForwardAction {
    /// Open a channel between two peers; report [`Input::ChannelOpened`].
    Open {
        /// Named in the report.
        token: u64,
        /// Who asked.
        a: Endpoint,
        /// Whom it asked for.
        b: Endpoint,
        /// How long it lasts unless extended.
        ttl: Duration,
    },
    /// Let a channel last this long from this moment.
    Extend(Channel, Duration),
    /// Close all channels of a peer.
    ClosePeer(NodeId),
    /// A peer's frames come from another address.
    Rebind(NodeId, SocketAddr),
}

/// For the egress gate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GateAction {
    /// This address has proved itself, or our owner or a dial names it.
    Trust(SocketAddr),
    /// Takes one [`GateAction::Trust`] back.
    Untrust(SocketAddr),
    /// A neighbour behind our NAT is about to be punched: private addresses of our own networks
    /// may be probed for so long.
    Pair(Duration),
    /// The networks of our interfaces.
    LocalNets(Vec<(IpAddr, u8)>),
}

/// What the owner may want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A link to a peer stands.
    PeerUp {
        /// The link.
        link: LinkId,
        /// The peer.
        peer: NodeId,
    },
    /// The last link to a peer is gone.
    PeerDown(NodeId),
    /// Data of a link flows on another path.
    Path {
        /// The link.
        link: LinkId,
        /// Its peer.
        peer: NodeId,
        /// The path.
        selected: Selected,
    },
    /// Others see us differently.
    Observed,
    /// A peer is (or is no longer) our home: it relays and signals for us.
    Home {
        /// The peer.
        peer: NodeId,
        /// Whether it is.
        held: bool,
    },
    /// We relay and signal for a peer, or stop to.
    Serving {
        /// The peer.
        peer: NodeId,
        /// Whether we do.
        granted: bool,
    },
    /// There is a link where there was none.
    Joined {
        /// How the first peer was found.
        how: How,
        /// Peers that are linked.
        peers: usize,
    },
    /// No known peer answers. Attempts go on.
    Alone,
    /// A peer of the last run or of the LAN could not be reached.
    NotReached(NodeId),
    /// Of the index.
    Index(index::Event),
    /// Of roles.
    Role(role::Event),
    /// Of topics.
    Topic(topic::Event),
    /// Nobody can be asked for a wanted peer, or all who were asked refused and all dials came to
    /// nothing. Said at most once for each attempt; attempts go on while the peer is wanted.
    Unreachable(NodeId),
}
