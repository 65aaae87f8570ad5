//! Links: how they come up and go, their paths, and the addresses told on them.

use core::time::Duration;
use std::net::{IpAddr, SocketAddr};

use super::find::SEEK_MAX;
use super::home::{Told, Usage};
use super::{Event, GateAction, LinkId, NewLink, Node, Output, PAIR_TTL, RemoteAddr, Timer};
use crate::cbor::Cbor;
use crate::egress::canonical;
use crate::flat::FlatMap;
use crate::id::NodeId;
use crate::path::{self, PathId, PathManager, Remote, Selected, Side};
use crate::time::Instant;
use crate::wire::NodeMessage;
use crate::wire::node::{HOMES_MAX, Hello, Home, Homes, Need, Retired};

/// Most candidates that one peer is told, as many as QUIC lets us probe.
pub(super) const CANDIDATES_MAX: usize = 8;

/// How long a silent link is left to be heard again once another link to the peer stands, beside
/// three round trips: its paths are pinged at that moment, and what reached the peer for the new
/// link would reach it for the old one too.
const SUPERSEDED_MAX: Duration = Duration::from_millis(750);

/// A link to a peer.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) peer: NodeId,
    pub(super) side: Side,
    pub(super) paths: PathManager,
    /// Addresses of direct paths that the gate trusts on our word.
    trusted: FlatMap<PathId, SocketAddr>,
    /// The run of the peer's node, as it says.
    pub(super) run: u64,
    /// Whether the peer said that it relays.
    pub(super) relays: bool,
    /// Whether the peer is behind our own NAT or on our own network.
    is_neighbour: bool,
    /// The owner does not use it: it is there for the index, or to ask the peer for others.
    pub(super) is_means: bool,
    /// It may be dead: one of the two sides thought so and made another.
    pub(super) is_superseded: bool,
    /// The client prefers another one.
    pub(super) is_retired: bool,
    up_at: Instant,
    /// A relayed path was or is among the paths.
    pub(super) was_relayed: bool,
    /// The peer means to keep the link.
    pub(super) keeps_us: bool,
    /// We asked for a reservation that cannot be had, to say that we mean to keep the link.
    pub(super) is_said_kept: bool,
    /// We gave back a reservation: another one is asked for only if we want the link to last.
    pub(super) is_released: bool,
    /// Refusals for want of a direct path, since there is the one that we see.
    pub(super) not_direct: u32,
    /// We asked for a reservation and wait for the answer.
    pub(super) is_asked: bool,
    /// The peer's address for frames that our reservation there opened to unknown channels.
    pub(super) home_addr: Option<SocketAddr>,
    /// Homes and addresses of the peer, as it says.
    pub(super) said: Said,
    /// Whether anybody can dial the addresses, as it says.
    pub(super) is_open: bool,
    /// What we told it last of where we are.
    pub(super) told: Option<Told>,
}

impl Link {
    /// The lower of two ids stays client: who the client of this link is.
    pub(super) fn client(&self, us: NodeId) -> NodeId {
        match self.side {
            Side::Client => us,
            Side::Server => self.peer,
        }
    }
}

/// Where a peer says that it is, and how often we sought a path through each of its homes.
#[derive(Debug, Default)]
pub(super) struct Said {
    homes: Option<Cbor<Homes>>,
    /// In the order of the homes.
    attempts: [u32; HOMES_MAX],
}

impl Said {
    /// The peer's last message, decoded by each call.
    pub(super) fn homes(&self) -> Homes {
        let nothing = Homes { homes: Vec::new(), addrs: Vec::new(), is_open: false };
        self.homes.as_ref().and_then(Cbor::get).unwrap_or(nothing)
    }

    /// The homes, each with the number of attempts.
    pub(super) fn attempts(&self) -> impl Iterator<Item = (Home, u32)> {
        self.homes().homes.into_iter().zip(self.attempts)
    }

    /// Notes another attempt through a home.
    pub(super) fn count_attempt(&mut self, through: NodeId) {
        let homes = self.homes().homes;
        if let Some(at) = homes.iter().position(|home| home.id == through) {
            self.attempts[at] = self.attempts[at].saturating_add(1);
        }
    }

    /// Takes in another message; attempts through homes that it names again still count.
    pub(super) fn update(&mut self, homes: &Homes) {
        let known: Vec<_> = self.attempts().collect();
        self.homes = Some(Cbor::new(homes));
        self.attempts = [0; HOMES_MAX];
        for (home, attempts) in homes.homes.iter().zip(&mut self.attempts) {
            let before = known.iter().find(|(known, _)| known.id == home.id);
            *attempts = before.map_or(0, |(_, attempts)| *attempts);
        }
    }
}

impl Node {
    pub(super) fn handle_link_up(&mut self, now: Instant, id: LinkId, new: NewLink) {
        let NewLink { peer, side, path, remote, dial } = new;
        if self.links.contains_key(&id) {
            return; // A number is given once.
        }
        let is_first = self.link_to(peer).is_none();
        // It may take the place of one that the owner uses.
        let is_means = !self.peers.get(&peer).is_some_and(|state| state.wanted)
            && self.links_to(peer).iter().all(|other| self.links[other].is_means);
        let mut paths = self.config.path.clone();
        if is_means {
            paths.relayed_paths = 0;
        }
        self.links.insert(
            id,
            Box::new(Link {
                peer,
                side,
                paths: PathManager::new(paths, side),
                trusted: FlatMap::new(),
                run: 0,
                relays: false,
                is_neighbour: self.is_neighbour_addr(remote),
                is_means,
                is_superseded: false,
                is_retired: false,
                up_at: now,
                was_relayed: false,
                keeps_us: false,
                is_said_kept: false,
                is_released: false,
                not_direct: 0,
                is_asked: false,
                home_addr: None,
                said: Said::default(),
                is_open: false,
                told: None,
            }),
        );
        self.by_peer.or_default(peer).push(id);
        if is_first {
            self.event(Event::PeerUp { link: id, peer });
        }
        self.handle_path_opened(now, id, path, remote);
        self.finish_dials(peer, dial);
        self.say_hello(now, id);
        if !is_means {
            self.send(id, NodeMessage::Need(Need {}));
        }
        self.send_homes(id, self.ranked_homes());
        self.end_search_of(peer);
        if is_first {
            self.peer_came(now, id, remote);
        }
        self.watch_idle(now, id);
        self.ask_as_home(id);
        self.offer_candidates_to(now, id);
        self.supersede_older(now, id);
        self.retire_duplicates(peer);
        self.ask_signaller(id);
    }

    /// Says what we offer.
    pub(super) fn say_hello(&mut self, now: Instant, id: LinkId) {
        let hello = Hello {
            relays: self.relays(),
            indexes: self.index.is_serving(),
            unix_s: self.index.unix_s(now),
            run: self.run,
            nodes: self.index.nodes_observed(),
        };
        self.send(id, NodeMessage::Hello(hello));
    }

    /// The owner uses a link.
    pub(super) fn value(&mut self, now: Instant, id: LinkId) {
        if self.links.get(&id).is_some_and(|link| link.is_means) {
            self.send(id, NodeMessage::Need(Need {}));
            self.handle_need(now, id);
        }
    }

    /// The owner uses a link, or the peer's: it is worth warm paths beside the one in use.
    pub(super) fn handle_need(&mut self, now: Instant, id: LinkId) {
        let wanted = self.config.path.relayed_paths;
        let Some(link) = self.links.get_mut(&id).filter(|link| link.is_means) else { return };
        link.is_means = false;
        link.paths.set_relayed_paths(now, wanted);
        self.drain_paths(now, id);
        self.send_homes(id, self.ranked_homes());
    }

    /// A link that the owner does not use is direct: the relayed paths by which it came up are
    /// only a burden on the relays. It is the client that sees to relayed paths.
    pub(super) fn spare_relays(&mut self, id: LinkId) {
        let Some(link) = self.links.get(&id) else { return };
        if !link.is_means || link.side == Side::Server {
            return;
        }
        let relayed = link.paths.paths().filter(|path| !path.remote.is_direct());
        let close = |path| Output::Path { link: id, action: path::Output::Close(path) };
        self.outputs.extend(relayed.map(|path| close(path.path)));
    }

    /// A new link is preferred to those that we hear nothing on, and to those that the peer seems
    /// to hear nothing on: it would not have dialled, unless both did at the same time.
    fn supersede_older(&mut self, now: Instant, id: LinkId) {
        let Some(link) = self.links.get(&id) else { return };
        let (peer, is_dialled) = (link.peer, link.side == Side::Server);
        for other in self.links_to(peer).into_iter().filter(|other| *other < id) {
            let is_over =
                |old: &Link| old.paths.is_silent() || is_dialled && now - old.up_at > SEEK_MAX;
            if self.links.get(&other).is_some_and(|old| is_over(old)) {
                self.supersede(now, other);
            }
        }
    }

    /// Prefers any other link to the peer, and looks in a moment whether this one is dead.
    pub(super) fn supersede(&mut self, now: Instant, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.is_superseded = true;
        let rtt = link.paths.selected().and_then(|path| path.rtt).unwrap_or_default();
        self.timers.set(Timer::Superseded(id), now + SUPERSEDED_MAX + rtt * 3);
        let ping = |path: Selected| path::Output::Ping(path.path);
        let pings = link.paths.paths().map(|path| Output::Path { link: id, action: ping(path) });
        self.outputs.extend(pings);
    }

    /// The first word on a new link shows whether older ones are of an earlier run of the peer's
    /// node, which cannot tell us that they are dead.
    pub(super) fn drop_dead_links(&mut self, now: Instant, id: LinkId) {
        let Some(link) = self.links.get(&id) else { return };
        let (peer, run) = (link.peer, link.run);
        for other in self.links_to(peer).into_iter().filter(|other| *other < id) {
            let is_earlier = |old: &Link| run != 0 && old.run != 0 && old.run != run;
            if self.links.get(&other).is_some_and(|old| is_earlier(old)) {
                self.drop_dead_link(now, other);
            }
        }
    }

    /// Closes a link that is silent still, though the peer is there; one that is heard again keeps
    /// the conversations on it.
    pub(super) fn drop_if_silent(&mut self, now: Instant, id: LinkId) {
        if self.links.get(&id).is_some_and(|link| link.paths.is_silent()) {
            self.drop_dead_link(now, id);
        }
    }

    fn drop_dead_link(&mut self, now: Instant, id: LinkId) {
        self.outputs.push_back(Output::Close(id));
        self.handle_link_down(now, id);
    }

    /// All links to a peer.
    pub(super) fn links_to(&self, peer: NodeId) -> Vec<LinkId> {
        self.by_peer.get(&peer).cloned().unwrap_or_default()
    }

    fn retire_duplicates(&mut self, peer: NodeId) {
        let preferred = self.link_to(peer);
        let others: Vec<_> =
            self.links_to(peer).into_iter().filter(|id| Some(*id) != preferred).collect();
        for id in others {
            self.outputs.push_back(Output::Retire(id));
            let Some(link) = self.links.get_mut(&id) else { continue };
            if link.side == Side::Client && !core::mem::replace(&mut link.is_retired, true) {
                self.send(id, NodeMessage::Retired(Retired {}));
            }
        }
    }

    /// The client of a link prefers another one.
    pub(super) fn handle_retired(&mut self, id: LinkId) {
        if let Some(link) = self.links.get_mut(&id).filter(|link| link.side == Side::Server) {
            link.is_retired = true;
        }
    }

    pub(super) fn handle_link_down(&mut self, now: Instant, id: LinkId) {
        let Some(link) = self.links.remove(&id) else { return };
        if let Some(links) = self.by_peer.get_mut(&link.peer) {
            links.retain(|other| *other != id);
            if links.is_empty() {
                self.by_peer.remove(&link.peer);
            }
        }
        for addr in link.trusted.values() {
            self.outputs.push_back(Output::Gate(GateAction::Untrust(*addr)));
        }
        self.timers.stop(Timer::Paths(id));
        self.timers.stop(Timer::Idle(id));
        self.timers.stop(Timer::Superseded(id));
        self.timers.stop(Timer::Keep(id));
        self.drop_home(now, id, &link);
        self.drop_held(id);
        self.release_channels(|usage| usage.is_of(id));
        if self.link_to(link.peer).is_none() {
            self.candidates.forget(link.peer);
            self.drop_service(link.peer);
            self.event(Event::PeerDown(link.peer));
            self.peer_went(now, link.peer, link.paths.is_silent());
            self.lost_peer(now, link.peer, link.said.homes().homes);
        }
    }

    pub(super) fn handle_path_opened(
        &mut self,
        now: Instant,
        id: LinkId,
        path: PathId,
        remote: RemoteAddr,
    ) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let remote = match remote {
            RemoteAddr::Direct(addr) => {
                let addr = canonical(addr);
                self.outputs.push_back(Output::Gate(GateAction::Trust(addr)));
                if let Some(old) = link.trusted.insert(path, addr) {
                    self.outputs.push_back(Output::Gate(GateAction::Untrust(old)));
                }
                Remote::Direct(addr)
            }
            RemoteAddr::Relayed { relay, channel } => {
                link.was_relayed = true;
                let via = self.relay_at(canonical(relay));
                if let Some((on, relay)) = via {
                    self.use_channel(on, channel, Usage::Path(id, path));
                    self.count_attempt(id, relay);
                }
                Remote::Relayed { via: via.map(|(_, peer)| peer) }
            }
        };
        self.feed_paths(now, id, path::Input::Opened { path, remote });
        self.frame_addr_moved(now, id);
    }

    pub(super) fn handle_path_closed(&mut self, now: Instant, id: LinkId, path: PathId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if let Some(addr) = link.trusted.remove(&path) {
            self.outputs.push_back(Output::Gate(GateAction::Untrust(addr)));
        }
        self.release_channels(|usage| usage == Usage::Path(id, path));
        self.feed_paths(now, id, path::Input::Closed(path));
        self.frame_addr_moved(now, id);
    }

    /// The address that frames between us and the peer use may be another.
    fn frame_addr_moved(&mut self, now: Instant, id: LinkId) {
        let Some(link) = self.links.get(&id) else { return };
        let (peer, addr, home) = (link.peer, link.paths.frame_addr(), link.home_addr);
        if let Some(addr) = addr {
            self.rebind_service(peer, addr);
        }
        if home.is_some() && home != addr {
            self.move_home(now, id, addr);
            if addr.is_none() {
                // Asked again as soon as there is a direct path.
                self.timers.stop(Timer::Reservation(id));
                self.want_homes(now);
            }
        }
        self.want_home(now, id);
        self.peer_moved(now, peer);
    }

    /// Marks the links to `peer` as those of a neighbour if it is seen behind our own NAT or on
    /// our own network, and lets the gate pass probes to private addresses for a while.
    pub(super) fn pair_if_neighbour(&mut self, peer_addr: SocketAddr) -> bool {
        let is_neighbour = self.is_neighbour_ip(peer_addr.ip());
        if is_neighbour {
            self.outputs.push_back(Output::Gate(GateAction::Pair(PAIR_TTL)));
        }
        is_neighbour
    }

    pub(super) fn mark_neighbour(&mut self, now: Instant, peer: NodeId) {
        let links: Vec<_> = self
            .links
            .iter_mut()
            .filter(|(_, link)| link.peer == peer && !link.is_neighbour)
            .map(|(id, link)| {
                link.is_neighbour = true;
                *id
            })
            .collect();
        for id in links {
            self.offer_candidates_to(now, id);
        }
    }

    fn is_neighbour_ip(&self, ip: IpAddr) -> bool {
        self.candidates.is_our_outside(ip) || self.candidates.is_on_link(ip)
    }

    fn is_neighbour_addr(&self, remote: RemoteAddr) -> bool {
        match remote {
            RemoteAddr::Direct(addr) => self.is_neighbour_ip(addr.ip().to_canonical()),
            RemoteAddr::Relayed { channel, relay } => {
                self.relay_at(canonical(relay)).is_some_and(|(link, _)| {
                    self.held.get(&(link, channel)).is_some_and(|held| held.is_neighbour)
                })
            }
        }
    }

    pub(super) fn offer_candidates(&mut self, now: Instant) {
        let ids: Vec<_> = self.links.keys().copied().collect();
        for id in ids {
            self.offer_candidates_to(now, id);
        }
    }

    fn offer_candidates_to(&mut self, now: Instant, id: LinkId) {
        let Some(link) = self.links.get(&id) else { return };
        let offer = self.candidates.offer(link.is_neighbour, CANDIDATES_MAX);
        self.feed_paths(now, id, path::Input::Candidates(offer));
    }
}
