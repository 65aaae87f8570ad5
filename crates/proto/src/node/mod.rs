//! The whole node as one state machine.
//!
//! It holds the links to peers, each with its [path manager](crate::path); reaches peers that are
//! wanted (`dial`); lends itself as relay and signaller (`relay`); borrows others as such
//! (`home`); and knows its own addresses ([`candidate`](crate::candidate)). QUIC, sockets and
//! the forwarding of relayed frames are outside: the driver carries out each [`Output`] and reports
//! back as an [`Input`].
//!
//! Two peers that dial each other at once get two links. Both sides prefer the one whose client
//! has the lower id, and among links of the same client the newest in that one's count, which tells
//! the other, but none that was silent when another came; a link that is not preferred takes no new
//! sessions and is closed by its client
//! when idle.

mod api;
mod dial;
mod find;
mod home;
mod link;
mod relay;
mod role;
mod topic;

use core::time::Duration;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

pub use self::api::*;
use self::dial::Peer;
use self::find::Openness;
use self::home::{Held, Usage};
use self::link::Link;
use self::relay::RelayService;
use self::role::Probing;
use crate::bootstrap::{self, Bootstrap};
use crate::candidate::Candidates;
use crate::flat::FlatMap;
use crate::frame::Channel;
use crate::id::{NodeId, SecretKey};
use crate::index::Index;
use crate::machine::{self, Machine};
use crate::path;
use crate::role::Roles;
use crate::time::Instant;
use crate::timer::Timers;
use crate::topic::machine::{NUMBERS_FROM, Topics};
use crate::wire::NodeMessage;

/// How long a neighbour that was announced may be punched at private addresses.
const PAIR_TTL: Duration = Duration::from_secs(30);

/// Turns that the parts of a node take at one moment: a signaller is dialled for a peer that is
/// sought for a look-up, and so on; more would be a circle.
const TURNS_MAX: usize = 16;

/// A link as it comes up: [`Input::LinkUp`] without its number.
#[derive(Debug, Clone, Copy)]
struct NewLink {
    peer: NodeId,
    side: Side,
    path: PathId,
    remote: RemoteAddr,
    dial: Option<DialId>,
}

/// What waits for its time in a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// Try again to reach a wanted peer.
    Retry(NodeId),
    /// Renew our reservation at the peer of a link.
    Reservation(LinkId),
    /// Renew a channel that we opened at the peer of a link.
    Channel(LinkId, Channel),
    /// Drop expired reservations of others.
    Service,
    /// The path manager of a link has something to do.
    Paths(LinkId),
    /// A peer has been sought long enough.
    Seek(NodeId),
    /// Whoever was asked to signal for a peer has had time.
    Via(NodeId),
    /// A link may be of no use.
    Idle(LinkId),
    /// A link that another one replaces may still be silent.
    Superseded(LinkId),
    /// Tell the peers where we are.
    Tell,
    /// Say that a link is to last, if no reservation has said it.
    Keep(LinkId),
    /// A candidate that is being reached.
    Probe(NodeId),
}

/// A node. See the module's documentation.
#[derive(Debug)]
pub struct Node {
    id: NodeId,
    config: Arc<NodeConfig>,
    rng: ChaCha8Rng,
    candidates: Candidates,
    links: FlatMap<LinkId, Box<Link>>,
    /// The links to each peer.
    by_peer: FlatMap<NodeId, Vec<LinkId>>,
    peers: FlatMap<NodeId, Box<Peer>>,
    dials: FlatMap<DialId, dial::Dial>,
    next_dial: u64,
    next_request: u32,
    requests: FlatMap<(LinkId, u32), NodeId>,
    held: FlatMap<(LinkId, Channel), Held>,
    service: RelayService,
    index: Index,
    bootstrap: Bootstrap,
    roles: Roles,
    topics: Topics,
    /// How much of what the owner allows is in use.
    load: u8,
    /// Candidates that are being reached for the roles.
    probes: FlatMap<NodeId, Box<Probing>>,
    openness: Openness,
    /// Drawn for this run, told in Hello.
    run: u64,
    timers: Timers<Timer>,
    outputs: VecDeque<Output>,
}

impl Node {
    /// A node without links. `seed` feeds all its randomness (jitter of retries, choice of warm
    /// connections).
    ///
    /// One config is shared by all nodes that are given the same [`Arc`] of it.
    #[must_use]
    pub fn new(secret: SecretKey, config: impl Into<Arc<NodeConfig>>, seed: [u8; 32]) -> Self {
        let mut config = config.into();
        let id = secret.id();
        let mut rng = ChaCha8Rng::from_seed(seed);
        let mut draw = || {
            let mut seed = [0; 32];
            rng.fill_bytes(&mut seed);
            seed
        };
        // What the wire can say; never nothing, which would be renewed without pause.
        let sayable = |ttl: Duration| ttl.clamp(Duration::from_secs(1), home::TTL_MAX);
        let ttls = (sayable(config.relay_ttl), sayable(config.reservation_ttl));
        if ttls != (config.relay_ttl, config.reservation_ttl) {
            let config = Arc::make_mut(&mut config);
            (config.relay_ttl, config.reservation_ttl) = ttls;
        }
        let bootstrap = Bootstrap::new(id, config.bootstrap, draw());
        let network = config.network.clone();
        let index = Index::new(secret.clone(), network.clone(), config.index.clone(), draw());
        let mut roles = config.role.clone();
        roles.serves &= config.relays && config.index.serves;
        // Beside the others' randomness, so that a node without topics does what it did.
        let seed = blake3::derive_key("baran 1 randomness of topics", &seed);
        let topics = Topics::new(secret.clone(), network.clone(), config.topic.clone(), seed);
        let roles = Roles::new(secret, network, roles, draw());
        Self {
            id,
            service: RelayService::new(&config),
            index,
            bootstrap,
            roles,
            topics,
            load: 0,
            probes: FlatMap::new(),
            openness: Openness::default(),
            run: rng.next_u64().max(1),
            config,
            rng,
            candidates: Candidates::default(),
            links: FlatMap::new(),
            by_peer: FlatMap::new(),
            peers: FlatMap::new(),
            dials: FlatMap::new(),
            next_dial: 0,
            next_request: 0,
            requests: FlatMap::new(),
            held: FlatMap::new(),
            timers: Timers::default(),
            outputs: VecDeque::new(),
        }
    }

    /// The link to `peer` that new sessions should use.
    #[must_use]
    pub fn link_to(&self, peer: NodeId) -> Option<LinkId> {
        let links = self.by_peer.get(&peer)?;
        if let [only] = links[..] {
            return Some(only);
        }
        links.iter().copied().max_by_key(|id| {
            let link = &self.links[id];
            let is_lower = link.client(self.id) == self.id.min(peer);
            (!link.is_superseded, is_lower, !link.is_retired, *id)
        })
    }

    /// Who we are.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// The open paths of a link.
    #[must_use]
    pub fn paths(&self, link: LinkId) -> Vec<Selected> {
        self.links.get(&link).map(|link| link.paths.paths().collect()).unwrap_or_default()
    }

    /// The path in use on a link.
    #[must_use]
    pub fn selected(&self, link: LinkId) -> Option<Selected> {
        self.links.get(&link)?.paths.selected()
    }

    /// Our addresses, as we and others know them.
    #[must_use]
    pub fn candidates(&self) -> &Candidates {
        &self.candidates
    }

    /// Sends on a link, if it stands.
    fn send(&mut self, link: LinkId, message: NodeMessage) {
        if self.links.contains_key(&link) {
            self.outputs.push_back(Output::Send { link, message });
        }
    }

    /// The link whose peer sends relayed frames from `addr`, and that peer.
    fn relay_at(&self, addr: SocketAddr) -> Option<(LinkId, NodeId)> {
        self.links
            .iter()
            .find(|(_, link)| link.paths.frame_addr() == Some(addr))
            .map(|(id, link)| (*id, link.peer))
    }

    /// Feeds the path manager of a link, if that link stands, and carries out what it wants.
    fn feed_paths(&mut self, now: Instant, link: LinkId, input: path::Input) {
        if let Some(state) = self.links.get_mut(&link) {
            state.paths.handle_input(now, input);
            self.drain_paths(now, link);
        }
    }

    /// The same for all links to a peer: any of them may wait for the answer of a relay.
    fn feed_links(&mut self, now: Instant, peer: NodeId, input: &path::Input) {
        for link in self.links_to(peer) {
            self.feed_paths(now, link, input.clone());
        }
    }

    /// Turns the outputs of a link's path manager into ours, and its deadline into a timer.
    fn drain_paths(&mut self, now: Instant, id: LinkId) {
        let Some(peer) = self.links.get(&id).map(|link| link.peer) else { return };
        while let Some(output) = self.links.get_mut(&id).and_then(|link| link.paths.poll_output()) {
            match output {
                path::Output::WantRelay { besides } => self.want_relay(now, id, &besides),
                path::Output::Silent => self.seek_silent(now, id),
                path::Output::Selected(selected) => {
                    self.event(Event::Path { link: id, peer, selected });
                    if selected.remote.is_direct() {
                        self.spare_relays(id);
                    }
                }
                action => self.outputs.push_back(Output::Path { link: id, action }),
            }
        }
        match self.links.get(&id).and_then(|link| link.paths.poll_timeout()) {
            Some(at) => self.timers.set(Timer::Paths(id), at),
            None => self.timers.stop(Timer::Paths(id)),
        }
    }

    fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    fn handle_message(&mut self, now: Instant, link: LinkId, message: NodeMessage) {
        let Some(peer) = self.links.get(&link).map(|link| link.peer) else { return };
        match message {
            NodeMessage::Hello(hello) => self.handle_hello(now, link, &hello),
            NodeMessage::Reserve(_) => self.handle_reserve(now, link),
            NodeMessage::Release(_) => self.handle_release(now, peer),
            NodeMessage::Need(_) => self.handle_need(now, link),
            NodeMessage::Retired(_) => self.handle_retired(link),
            NodeMessage::Reserved(granted) => self.handle_reserved(now, link, &granted),
            NodeMessage::RelayOpen(open) => self.handle_relay_open(now, link, &open),
            NodeMessage::RelayOpened(opened) => self.handle_relay_opened(now, link, &opened),
            NodeMessage::Refused(refused) => self.handle_refused(now, link, &refused),
            NodeMessage::RelayIncoming(incoming) => {
                self.handle_relay_incoming(now, link, &incoming);
            }
            NodeMessage::RelayRenew(renew) => self.handle_relay_renew(now, peer, renew.channel),
            NodeMessage::RelayClosed(closed) => self.handle_relay_closed(link, closed.channel),
            NodeMessage::Homes(homes) => self.handle_homes(now, link, &homes),
            NodeMessage::Index(message) => self.index.handle_message(now, peer, message),
            NodeMessage::Role(message) => self.roles.handle_message(now, peer, message),
        }
    }

    fn handle_host_addrs(&mut self, now: Instant, addrs: Vec<HostAddr>, bound: Vec<SocketAddr>) {
        if self.candidates.set_host(addrs, bound) {
            let nets = self.candidates.host_nets();
            self.outputs.push_back(Output::Gate(GateAction::LocalNets(nets)));
            self.offer_candidates(now);
            self.tell_homes(now);
        }
    }
}

impl Node {
    /// Handles the timers that are due, of all parts.
    fn expire(&mut self, now: Instant) {
        self.index.handle_timeout(now);
        self.bootstrap.handle_timeout(now);
        if self.topics.poll_timeout().is_some_and(|at| at <= now) {
            self.topics.handle_timeout(now);
        }
        if self.roles.poll_timeout().is_some_and(|at| at <= now) {
            self.inform_roles(now);
            self.roles.handle_timeout(now);
        }
        self.drain_parts(now);
        while let Some(timer) = self.timers.expire(now) {
            match timer {
                Timer::Retry(peer) => self.retry(now, peer),
                Timer::Reservation(link) => self.renew_reservation(now, link),
                Timer::Channel(link, channel) => self.renew_channel(now, link, channel),
                Timer::Service => self.expire_reservations(now),
                Timer::Paths(link) => {
                    if let Some(state) = self.links.get_mut(&link) {
                        state.paths.handle_timeout(now);
                        self.drain_paths(now, link);
                    }
                }
                Timer::Seek(peer) => self.end_seek(now, peer),
                Timer::Via(peer) => self.ask_next_via(now, peer),
                Timer::Idle(link) => self.check_idle(now, link),
                Timer::Superseded(link) => self.drop_if_silent(now, link),
                Timer::Tell => self.tell_homes_now(now),
                Timer::Keep(link) => self.say_kept(link),
                Timer::Probe(peer) => self.advance_probe(now, peer),
            }
        }
        self.drain_parts(now);
    }
}

impl Machine for Node {
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, now: Instant, input: Input) {
        match input {
            Input::Clock(unix) => {
                self.index.handle_clock(now, unix);
                self.roles.handle_clock(now, unix);
                self.topics.handle_clock(now, unix);
            }
            Input::Puzzle(nonce) => self.roles.set_nonce(now, nonce),
            Input::Restore(mut restored) => {
                self.topics.restore(now, core::mem::take(&mut restored.topics));
                self.roles.restore(now, &restored.role);
                self.index.restore(now, restored);
            }
            Input::Boot(cached) => {
                self.index.remember(now, &cached);
                self.bootstrap.handle_input(now, bootstrap::Input::Start { cached });
            }
            Input::Lan(peer) => self.bootstrap.handle_input(now, bootstrap::Input::Lan(peer)),
            Input::Registry(peers) => {
                self.bootstrap.handle_input(now, bootstrap::Input::Listed(peers));
            }
            Input::Index(command) => self.index.handle_command(now, command),
            Input::Topic(command) => self.topics.handle_command(now, command),
            Input::TopicMessage { peer, message } => self.handle_topic_message(now, peer, message),
            Input::TopicBroken(peer) => self.handle_topic_broken(now, peer),
            Input::DiskDone { token, is_kept } if token >= NUMBERS_FROM => {
                self.topics.disk_done(now, token, is_kept);
            }
            Input::DiskDone { token, is_kept } => self.index.disk_done(now, token, is_kept),
            Input::Want { peer, keep } => self.handle_want(now, &peer, keep),
            Input::Serve(is_on) => self.handle_serve(now, is_on),
            Input::Load(load) => self.load = load,
            Input::Unwant(peer) => self.handle_unwant(peer),
            Input::Forget(peer) => self.handle_forget(now, peer),
            Input::HostAddrs { addrs, bound } => self.handle_host_addrs(now, addrs, bound),
            Input::DialFailed(dial) => self.handle_dial_failed(now, dial),
            Input::LinkUp { link, peer, side, path, remote, dial } => {
                self.handle_link_up(now, link, NewLink { peer, side, path, remote, dial });
            }
            Input::LinkDown(link) => self.handle_link_down(now, link),
            Input::Message { link, message } => self.handle_message(now, link, message),
            Input::PathOpened { link, path, remote } => {
                self.handle_path_opened(now, link, path, remote);
            }
            Input::PathClosed { link, path } => self.handle_path_closed(now, link, path),
            Input::Used(link) => self.value(now, link),
            Input::Samples { link, samples } => {
                self.feed_paths(now, link, path::Input::Samples(samples));
            }
            Input::Observed { link, addr } => self.handle_observed(now, link, addr),
            Input::Active(link) => self.feed_paths(now, link, path::Input::Active),
            Input::PeerCandidates(link) => {
                self.feed_paths(now, link, path::Input::PeerCandidates);
            }
            Input::ChannelOpened { token, result } => {
                self.handle_channel_opened(now, token, result);
            }
            Input::ChannelsExpired(channels) => self.handle_channels_expired(&channels),
            Input::RelayPathFailed(link) => {
                self.release_channels(|usage| usage == Usage::Opening(link));
                self.feed_paths(now, link, path::Input::RelayFailed);
            }
        }
        self.drain_parts(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        // What one part does may be due at once in another.
        for _ in 0..TURNS_MAX {
            self.expire(now);
            if self.poll_timeout().is_none_or(|at| at > now) {
                return;
            }
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        machine::pop(&mut self.outputs)
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let parts = [
            self.index.poll_timeout(),
            self.bootstrap.poll_timeout(),
            self.roles.poll_timeout(),
            self.topics.poll_timeout(),
        ];
        parts.into_iter().flatten().chain(self.timers.next()).min()
    }
}

/// A pause that grows from `base` with each of `tries` up to `max`, jittered by half either way so
/// that many nodes do not knock at once.
fn backoff(rng: &mut ChaCha8Rng, base: Duration, max: Duration, tries: u32) -> Duration {
    use rand_core::Rng;
    let pause = base.saturating_mul(2u32.saturating_pow(tries)).min(max);
    let percent = 50 + rng.next_u32() % 101;
    pause * percent / 100
}

#[cfg(test)]
mod tests;
