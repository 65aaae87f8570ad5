//! The index and the bootstrap as parts of the node: the peers that they seek, the links that are
//! kept for them, and where this node is, for others to find.

use core::time::Duration;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use super::dial::Word;
use super::{Event, LinkId, Node, Output, RemoteAddr, Side, Timer};
use crate::bootstrap;
use crate::candidate::Mapping;
use crate::egress::{canonical, class_of};
use crate::flat::FlatMap;
use crate::id::NodeId;
use crate::index::{self, Place};
use crate::invite::{ADDRS_MAX, PeerAddr};
use crate::machine::Machine;
use crate::time::Instant;
use crate::topic::machine::NUMBERS_FROM;
use crate::wire::NodeMessage;
use crate::wire::node::{HOME_ADDRS_MAX, Home, Release};

/// How long a peer is sought for one request of the index. A handshake over a slow way takes one
/// second, signalling and punching two; whoever is slower is no use to a look-up.
pub(super) const SEEK_MAX: Duration = Duration::from_secs(6);

/// How long a link of no use is kept, in case that it is of use again.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// Pause before a link that was of use is looked at again.
const IDLE_AGAIN: Duration = Duration::from_secs(60);

/// Signallers asked for a peer that is sought.
const VIAS_MAX: usize = 2;

/// How long one of them is given before the next is asked: two round trips over most of the
/// internet, and the loss of a packet.
const VIA_PAUSE: Duration = Duration::from_secs(1);

/// How long a NAT may let in answers to what was sent: RFC 4787 §4.3 asks for two minutes at least,
/// Linux has three.
const SOLICITED: Duration = Duration::from_secs(180);

/// Addresses remembered as such.
const SOLICITED_MAX: usize = 512;

/// Peers that have to come unasked before we say that anybody can.
const STRANGERS_MIN: usize = 2;

/// Whether others get in unasked.
#[derive(Debug, Default)]
pub(super) struct Openness {
    /// To whom something was sent, and when last.
    sent: FlatMap<IpAddr, Instant>,
    /// Peers that came unasked since we are where we are.
    strangers: BTreeSet<NodeId>,
}

impl Openness {
    /// Something is sent to this address.
    pub(super) fn sent(&mut self, now: Instant, to: SocketAddr) {
        if self.sent.len() >= SOLICITED_MAX {
            self.sent.retain(|_, at| now - *at < SOLICITED);
        }
        if self.sent.len() < SOLICITED_MAX {
            self.sent.insert(to.ip(), now);
        } else {
            // Too many to tell who came unasked.
            self.strangers.clear();
        }
    }

    fn came(&mut self, now: Instant, peer: NodeId, from: SocketAddr) {
        let is_asked = self.sent.get(&from.ip()).is_some_and(|at| now - *at < SOLICITED);
        if !is_asked && self.strangers.len() < STRANGERS_MIN {
            self.strangers.insert(peer);
        }
    }
}

impl Node {
    /// Carries out what index and bootstrap want, until they want nothing.
    pub(super) fn drain_parts(&mut self, now: Instant) {
        loop {
            if let Some(output) = self.index.poll_output() {
                self.handle_index(now, output);
            } else if let Some(output) = self.bootstrap.poll_output() {
                self.handle_bootstrap(now, output);
            } else if let Some(output) = self.roles.poll_output() {
                self.handle_role(now, output);
            } else if let Some(output) = self.topics.poll_output() {
                self.handle_topic(now, output);
            } else {
                return;
            }
        }
    }

    fn handle_index(&mut self, now: Instant, output: index::Output) {
        match output {
            index::Output::Send(peer, message) => {
                if let Some(link) = self.link_to(peer) {
                    self.send(link, NodeMessage::Index(message));
                }
            }
            index::Output::Reach { peer, vias } => self.seek(now, &peer, &vias),
            index::Output::Release(peer) => {
                if let Some(state) = self.peers.get_mut(&peer) {
                    state.for_index = false;
                    self.forget_if_unwanted(peer);
                }
            }
            index::Output::Located { peer, vias } => self.learn(now, &peer, &vias),
            index::Output::Searched(peer) => self.report_if_unreachable(peer),
            index::Output::Warm(peer, is_warm) => self.handle_warm(now, peer, is_warm),
            index::Output::Disk(token, action) => {
                self.outputs.push_back(Output::Disk { token, action });
            }
            index::Output::Omission { seat, .. } => self.roles.omission(now, seat),
            index::Output::Nodes(tag, nodes) => self.roles.nearest(now, tag, &nodes),
            index::Output::Event(event) if event.query().0 >= NUMBERS_FROM => {
                self.topics.handle_index(now, event);
            }
            index::Output::Event(event) => self.event(Event::Index(event)),
        }
    }

    fn handle_bootstrap(&mut self, now: Instant, output: bootstrap::Output) {
        match output {
            bootstrap::Output::Dial { peer } => self.dial_cached(now, &peer),
            bootstrap::Output::GiveUp(peer) => {
                if let Some(state) = self.peers.get_mut(&peer) {
                    state.for_bootstrap = false;
                    self.forget_if_unwanted(peer);
                    self.event(Event::NotReached(peer));
                }
            }
            bootstrap::Output::Event(bootstrap::Event::Joined { how, peers }) => {
                self.event(Event::Joined { how, peers });
            }
            bootstrap::Output::Event(bootstrap::Event::Alone) => self.event(Event::Alone),
        }
    }

    /// A peer of an earlier run or of the LAN: the owner's own knowledge.
    fn dial_cached(&mut self, now: Instant, peer: &PeerAddr) {
        let id = peer.id;
        if self.link_to(id).is_some() || !self.has_room_for(id) {
            return self.not_reached(now, id);
        }
        let state = self.peers.or_default(id);
        state.for_bootstrap = true;
        state.remember(Word::Owner, peer);
        self.timers.set(Timer::Seek(id), now + SEEK_MAX);
        self.attempt(now, id);
    }

    /// Reaches a peer for the index, once.
    fn seek(&mut self, now: Instant, peer: &PeerAddr, vias: &[NodeId]) {
        let id = peer.id;
        if id == self.id || self.link_to(id).is_some() || !self.has_room_for(id) {
            return self.index.unreachable(now, id);
        }
        let state = self.peers.or_default(id);
        state.for_index = true;
        state.remember(Word::Peer, peer);
        self.timers.set_if_idle(Timer::Seek(id), now + SEEK_MAX);
        self.attempt_signalled(now, id, vias);
        self.give_up_if_idle(now, id);
    }

    /// Nothing is heard on a link that stands: if the peer was restarted, it is where it was, and a
    /// new link shows it (`drop_dead_links`).
    pub(super) fn seek_silent(&mut self, now: Instant, link: LinkId) {
        let Some(peer) = self.links.get(&link).map(|link| link.peer) else { return };
        if self.links_to(peer).iter().any(|other| !self.links[other].paths.is_silent()) {
            return self.supersede(now, link);
        }
        self.roles.doubt(now, peer);
        let Some(contact) = self.contact(peer).filter(|_| self.has_room_for(peer)) else { return };
        let state = self.peers.or_default(peer);
        state.for_index = true;
        state.remember(Word::Peer, &contact);
        self.timers.set_if_idle(Timer::Seek(peer), now + SEEK_MAX);
        for addr in contact.addrs {
            self.dial(now, peer, RemoteAddr::Direct(addr), Word::Peer);
        }
        self.attempt_signalled(now, peer, &[]);
        // Its homes may be gone too: others know who is linked to it.
        self.index.search(now, peer, true);
    }

    /// A link to a peer on which something is heard, or nothing was sent.
    pub(super) fn live_link_to(&self, peer: NodeId) -> Option<LinkId> {
        self.link_to(peer).filter(|link| !self.links[link].paths.is_silent())
    }

    /// Somebody says where a peer that the owner wants may be.
    fn learn(&mut self, now: Instant, peer: &PeerAddr, vias: &[NodeId]) {
        let id = peer.id;
        if self.live_link_to(id).is_some() {
            return;
        }
        let Some(state) = self.peers.get_mut(&id) else { return };
        state.remember(Word::Peer, peer);
        self.attempt_signalled(now, id, vias);
    }

    /// Tries what others say of a peer: through those linked to it, through its homes and, if it
    /// has none, straight.
    pub(super) fn attempt_signalled(&mut self, now: Instant, id: NodeId, vias: &[NodeId]) {
        let Some(state) = self.peers.get(&id) else { return };
        let (addrs, homes) = (state.claimed_addrs.clone(), state.claimed_homes.clone());
        let is_wanted = state.wanted;
        let is_for_itself = is_wanted || state.is_sought();
        let linked = |via: &NodeId| self.live_link_to(*via);
        let mut signallers: Vec<_> = vias.iter().filter_map(linked).take(VIAS_MAX).collect();
        if signallers.is_empty() {
            signallers = homes.iter().filter_map(|home| linked(&home.id)).take(VIAS_MAX).collect();
        }
        if homes.is_empty() {
            for addr in addrs {
                self.dial(now, id, RemoteAddr::Direct(addr), Word::Peer);
            }
        } else if signallers.is_empty() && is_for_itself {
            // For a look-up one home will do: there are others to be asked.
            let homes_max = if is_wanted { VIAS_MAX } else { 1 };
            // One that is linked is silent, or it would be among the signallers.
            let is_absent = |home: &Home| self.link_to(home.id).is_none();
            let absent: Vec<_> = homes.into_iter().filter(is_absent).take(homes_max).collect();
            for home in absent {
                self.want_as_home(now, &home, id, Word::Peer);
            }
        }
        // Each that is asked costs four messages; where nobody waits one after the other will do.
        let is_urgent = is_wanted || self.link_to(id).is_some();
        let is_asked = self.requests.values().any(|target| *target == id);
        let at_once = if is_urgent { VIAS_MAX } else { usize::from(!is_asked) };
        let spare = signallers.split_off(at_once.min(signallers.len()));
        for link in signallers {
            self.request_channel(link, id);
        }
        self.spare_vias(now, id, &spare);
    }

    /// Notes who else is linked to a peer that is being reached.
    fn spare_vias(&mut self, now: Instant, id: NodeId, spare: &[LinkId]) {
        let vias = spare.iter().filter_map(|link| self.links.get(link)).map(|link| link.peer);
        let Some(state) = self.peers.get_mut(&id) else { return };
        for via in vias {
            if state.spare_vias.len() < VIAS_MAX && !state.spare_vias.contains(&via) {
                state.spare_vias.push(via);
            }
        }
        if !state.spare_vias.is_empty() {
            self.timers.set_if_idle(Timer::Via(id), now + VIA_PAUSE);
        }
    }

    /// Has the next one signal for a peer, unless it is linked or somebody does already.
    pub(super) fn ask_next_via(&mut self, now: Instant, id: NodeId) {
        self.timers.stop(Timer::Via(id));
        let is_signalled = self.link_to(id).is_some() || self.is_dialling_relayed(id);
        let Some(state) = self.peers.get_mut(&id) else { return };
        if is_signalled {
            state.spare_vias.clear();
            return;
        }
        if state.spare_vias.is_empty() {
            return;
        }
        let via = state.spare_vias.remove(0);
        if !state.spare_vias.is_empty() {
            self.timers.set(Timer::Via(id), now + VIA_PAUSE);
        }
        match self.live_link_to(via) {
            Some(link) => self.request_channel(link, id),
            None => self.ask_next_via(now, id),
        }
    }

    /// Whether one more peer can be remembered, if it is not yet.
    pub(super) fn has_room_for(&self, id: NodeId) -> bool {
        self.peers.len() < self.config.peers_max || self.peers.contains_key(&id)
    }

    /// A peer that is sought once has had its time.
    pub(super) fn end_seek(&mut self, now: Instant, id: NodeId) {
        let Some(state) = self.peers.get_mut(&id) else { return };
        let is_cached = core::mem::take(&mut state.for_bootstrap);
        let is_for_role = core::mem::take(&mut state.for_role);
        let is_for_topic = core::mem::take(&mut state.for_topic);
        if core::mem::take(&mut state.for_index) || is_for_role || is_for_topic || is_cached {
            if is_cached {
                self.event(Event::NotReached(id));
            }
            self.forget_if_unwanted(id);
            self.not_reached(now, id);
        }
    }

    /// Ends the search for a peer for which nothing is under way any more.
    pub(super) fn give_up_if_idle(&mut self, now: Instant, id: NodeId) {
        let is_sought = self.peers.get(&id).is_some_and(|state| state.is_sought());
        if is_sought && !self.is_under_way(id) {
            self.timers.stop(Timer::Seek(id));
            self.end_seek(now, id);
        }
    }

    fn not_reached(&mut self, now: Instant, id: NodeId) {
        self.index.unreachable(now, id);
        self.roles.unreachable(now, id);
        self.topics.unreachable(now, id);
        self.bootstrap.handle_input(now, bootstrap::Input::DialFailed(id));
    }

    /// A link to a peer stands: whoever sought it needs to no more.
    pub(super) fn end_search_of(&mut self, peer: NodeId) {
        if let Some(state) = self.peers.get_mut(&peer) {
            (state.for_index, state.for_bootstrap) = (false, false);
            (state.for_role, state.for_topic) = (false, false);
        }
        self.timers.stop(Timer::Seek(peer));
        self.index.end_search(peer);
    }

    /// Tells index and bootstrap of the first link to a peer.
    pub(super) fn peer_came(&mut self, now: Instant, link: LinkId, remote: RemoteAddr) {
        let Some(state) = self.links.get(&link) else { return };
        let (peer, side) = (state.peer, state.side);
        if let (Side::Server, RemoteAddr::Direct(from)) = (side, remote) {
            let was_open = self.is_open();
            self.openness.came(now, peer, canonical(from));
            if self.is_open() != was_open {
                self.tell_homes(now);
            }
        }
        if let Some(contact) = self.contact(peer) {
            self.index.peer_up(now, &contact);
        }
        self.inform_roles(now);
        if let Some(view) = self.view(peer) {
            self.roles.peer_up(now, &view);
        }
        self.topics.peer_up(now, peer);
        let is_ours = side == Side::Client;
        self.bootstrap.handle_input(now, bootstrap::Input::PeerUp { peer, is_ours });
    }

    /// Looks after a while whether a link is of use.
    pub(super) fn watch_idle(&mut self, now: Instant, link: LinkId) {
        self.timers.set(Timer::Idle(link), now + IDLE_MAX);
    }

    /// The last link to a peer is gone; `is_silent` if because nothing was heard of it.
    pub(super) fn peer_went(&mut self, now: Instant, peer: NodeId, is_silent: bool) {
        self.index.peer_down(now, peer);
        self.roles.peer_down(now, peer, !is_silent);
        self.topics.peer_down(now, peer);
        self.bootstrap.handle_input(now, bootstrap::Input::PeerDown(peer));
    }

    /// Tells the index where a linked peer is.
    pub(super) fn peer_moved(&mut self, now: Instant, peer: NodeId) {
        if let Some(contact) = self.contact(peer) {
            let seen = self.link_to(peer).and_then(|link| self.links[&link].paths.frame_addr());
            let ip = seen.map(|addr| addr.ip()).filter(|ip| class_of(*ip).is_none());
            self.index.peer_moved(now, &contact, None, ip);
        }
        if let Some(view) = self.view(peer) {
            self.roles.peer_moved(&view);
        }
    }

    /// Where a linked peer is reached by others: as we see it, as it says, and through its homes
    /// unless it says that it needs none.
    #[must_use]
    pub fn contact(&self, peer: NodeId) -> Option<PeerAddr> {
        let link = self.links.get(&self.link_to(peer)?)?;
        let mut addrs: Vec<_> = link.paths.frame_addr().into_iter().collect();
        let said = link.said.homes();
        for addr in said.addrs {
            if addrs.len() < ADDRS_MAX && !addrs.contains(&addr) {
                addrs.push(addr);
            }
        }
        let homes = if said.is_open { Vec::new() } else { said.homes };
        Some(PeerAddr { id: peer, addrs, homes })
    }

    /// Whether anybody may dial us without help: there is no NAT, or strangers came through it.
    #[must_use]
    pub fn is_open(&self) -> bool {
        let is_public = |ip: IpAddr| {
            class_of(ip).is_none() || self.config.allow_nets.iter().any(|net| net.contains(ip))
        };
        self.candidates.offer(false, 1).iter().any(|addr| is_public(addr.ip()))
            && (self.candidates.mapping() == Mapping::None
                || self.openness.strangers.len() >= STRANGERS_MIN)
    }

    /// Others see us at another address: what we know of our NAT may be of the old one.
    pub(super) fn handle_observed(&mut self, now: Instant, id: LinkId, addr: SocketAddr) {
        let Some(link) = self.links.get(&id) else { return };
        let peer = link.peer;
        let before = self.candidates.offer(false, 1);
        if self.candidates.report(peer, addr) {
            if !before.is_empty() && self.candidates.offer(false, 1) != before {
                self.openness.strangers.clear();
            }
            self.event(Event::Observed);
            self.offer_candidates(now);
            self.tell_homes(now);
        }
    }

    /// Our addresses for who is not linked to us: none if each peer sees another.
    pub(super) fn public_addrs(&self) -> Vec<SocketAddr> {
        match self.candidates.mapping() {
            Mapping::AddressDependent => Vec::new(),
            Mapping::Unknown | Mapping::None | Mapping::EndpointIndependent => {
                self.candidates.offer(false, HOME_ADDRS_MAX)
            }
        }
    }

    /// Where we are, for our node record.
    pub(super) fn place(&self) -> Place {
        let mut addrs = self.public_addrs();
        if addrs.is_empty() {
            addrs = self.candidates.host_addrs();
            addrs.truncate(HOME_ADDRS_MAX);
        }
        let homes = if self.is_open() { Vec::new() } else { self.ranked_homes() };
        Place { addrs, homes }
    }

    /// Whether a link to this peer is to last: the owner, the index, or the peer itself wants it.
    pub(super) fn is_kept(&self, peer: NodeId) -> bool {
        self.wants_to_keep(peer)
            || self.service.holds(peer)
            || self.links_to(peer).iter().any(|link| self.links[link].keeps_us)
    }

    /// Whether the owner or the index wants a link to this peer to last.
    fn wants_to_keep(&self, peer: NodeId) -> bool {
        self.index.is_warm(peer)
            || self.roles.is_kept(peer)
            || self.topics.is_kept(peer)
            || self.peers.get(&peer).is_some_and(|state| state.keep)
    }

    /// The same of the peer of a link.
    pub(super) fn wants_kept(&self, id: LinkId) -> bool {
        self.links.get(&id).is_some_and(|link| self.wants_to_keep(link.peer))
    }

    /// The links to a peer are to last, or not for the reason that was.
    pub(super) fn handle_warm(&mut self, now: Instant, peer: NodeId, is_warm: bool) {
        for link in self.links_to(peer) {
            if is_warm {
                self.want_home(now, link);
            } else {
                self.release_if_unkept(now, link);
            }
        }
    }

    /// Gives up a reservation at a peer whose link is not to last.
    pub(super) fn release_if_unkept(&mut self, now: Instant, id: LinkId) {
        let Some(peer) = self.links.get(&id).map(|link| link.peer) else { return };
        // Two that hold reservations at each other only because the other does would never end.
        if self.wants_to_keep(peer) {
            return;
        }
        let Some(link) = self.links.get_mut(&id) else { return };
        let is_said = core::mem::take(&mut link.is_said_kept);
        let is_asked = core::mem::take(&mut link.is_asked);
        if link.home_addr.is_some() || is_asked || is_said {
            link.is_released = true;
            self.timers.stop(Timer::Reservation(id));
            self.send(id, NodeMessage::Release(Release {}));
            if self.links.get(&id).is_some_and(|link| link.home_addr.is_some()) {
                self.move_home(now, id, None);
            }
        }
        self.timers.set(Timer::Idle(id), now + IDLE_MAX);
    }

    /// A link has been there for a while: is it of use?
    pub(super) fn check_idle(&mut self, now: Instant, id: LinkId) {
        let Some(link) = self.links.get(&id) else { return };
        let peer = link.peer;
        if self.is_kept(peer) {
            return; // Whatever ends that sets the timer again.
        }
        let idle = self.idle_with(id);
        let pause = if idle.contains(&id) { IDLE_MAX } else { IDLE_AGAIN };
        self.timers.set(Timer::Idle(id), now + pause);
        self.outputs.extend(idle.into_iter().map(Output::CloseIfIdle));
    }

    /// The links to be closed, if they are idle, because a link and those with paths through it are
    /// of no use known here: the last ones of the chain, or all if they serve each other in a ring.
    fn idle_with(&self, id: LinkId) -> Vec<LinkId> {
        let (mut chain, mut last) = (vec![id], Vec::new());
        let mut at = 0;
        while let Some(on) = chain.get(at).copied() {
            at += 1;
            let Some(peer) = self.links.get(&on).map(|link| link.peer) else { continue };
            if self.is_kept(peer) || self.is_wanted(peer) || self.service.carries_for(peer) {
                return Vec::new();
            }
            let mut is_last = true;
            for held in self.held.iter().filter(|((at, _), _)| *at == on).map(|(_, held)| held) {
                match held.user() {
                    _ if !held.is_used() => {}
                    None => return Vec::new(),
                    Some(user) => {
                        is_last = false;
                        if !chain.contains(&user) {
                            chain.push(user);
                        }
                    }
                }
            }
            if is_last {
                last.push(on);
            }
        }
        if last.is_empty() { chain } else { last }
    }

    /// Whether a linked peer takes part in the index.
    #[must_use]
    pub fn serves(&self, peer: NodeId) -> bool {
        self.index.is_served_by(peer)
    }

    /// The index at this moment.
    #[must_use]
    pub fn index_stats(&self) -> index::IndexStats {
        self.index.stats()
    }

    /// Whether anybody can be asked.
    #[must_use]
    pub fn is_joined(&self) -> bool {
        self.index.is_joined()
    }

    /// Homes, seats first, then those that anybody can dial.
    pub(super) fn ranked_homes(&self) -> Vec<Home> {
        let mut homes: Vec<_> = self
            .links
            .values()
            .filter_map(|link| {
                let addr = link.home_addr?;
                let is_kept = self.peers.get(&link.peer).is_some_and(|state| state.keep);
                let home = Home { id: link.peer, addrs: vec![addr] };
                Some((!self.roles.is_seat(link.peer), !link.is_open, !is_kept, home))
            })
            .collect();
        homes.sort_by_key(|(is_leaf, is_closed, is_unkept, _)| (*is_leaf, *is_closed, *is_unkept));
        homes.into_iter().map(|(.., home)| home).collect()
    }
}
