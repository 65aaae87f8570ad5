//! Reaching a peer that is wanted: at its addresses, and through whoever may signal for it.
//!
//! Everything that might work starts at once, and the first link that stands wins (RFC 8305's
//! happy eyeballs without its pauses: a dial that comes to nothing costs a packet or two). A peer
//! that is to be kept is tried again and again with growing, jittered pauses; one that is wanted
//! once is tried again until the owner gives up.

use core::time::Duration;
use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::home::{Held, Usage};
use super::{DialId, Event, GateAction, LinkId, Node, Output, RemoteAddr, Timer, backoff};
use crate::bootstrap;
use crate::egress::canonical;
use crate::frame::Channel;
use crate::id::NodeId;
use crate::invite::{ADDRS_MAX, PeerAddr};
use crate::key::Key;
use crate::machine::Machine;
use crate::time::Instant;
use crate::wire::NodeMessage;
use crate::wire::node::{HOMES_MAX, Home, RelayOpen};

/// Least pause between attempts, whatever is configured: a timer must not be due for ever.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(200);

/// A peer that is wanted, or was.
#[derive(Debug, Default)]
pub(super) struct Peer {
    /// Where the owner says it is, the latest word first.
    addrs: Vec<SocketAddr>,
    /// Where other peers say it is: dialled within the gate's budget for strangers.
    pub(super) claimed_addrs: Vec<SocketAddr>,
    /// Its homes, as the owner says.
    homes: Vec<Home>,
    /// Its homes as it last said itself.
    pub(super) claimed_homes: Vec<Home>,
    /// Somebody waits for a link.
    pub(super) wanted: bool,
    /// A link that is lost is to be had again.
    pub(super) keep: bool,
    /// Wanted only as a home of these, to be asked for them.
    for_peers: BTreeSet<NodeId>,
    /// Sought once by the index.
    pub(super) for_index: bool,
    /// Sought once by the bootstrap.
    pub(super) for_bootstrap: bool,
    /// Sought once by the roles.
    pub(super) for_role: bool,
    /// Sought once by a topic.
    pub(super) for_topic: bool,
    /// Linked peers that are asked to signal for it when those that were asked did not help.
    pub(super) spare_vias: Vec<NodeId>,
    tries: u32,
    /// The owner knows that the latest attempt came to nothing.
    is_reported: bool,
}

/// Of the repeated attempts to reach a home of another peer, those for which others are asked to
/// signal.
const MEANS_SIGNALLED: u32 = 2;

/// An attempt to connect.
#[derive(Debug)]
pub(super) struct Dial {
    peer: NodeId,
    to: RemoteAddr,
    is_trusted: bool,
}

/// Whose word an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    /// The owner's: the egress gate trusts it.
    Owner,
    /// A peer's: it must not make us send whatever it likes wherever it likes.
    Peer,
}

impl Peer {
    /// Notes where the peer is, the latest word first.
    pub(super) fn remember(&mut self, word: Word, peer: &PeerAddr) {
        let (addrs, homes) = match word {
            Word::Owner => (&mut self.addrs, &mut self.homes),
            Word::Peer => (&mut self.claimed_addrs, &mut self.claimed_homes),
        };
        remember(addrs, &peer.addrs);
        if !peer.homes.is_empty() {
            homes.clone_from(&peer.homes);
            homes.truncate(HOMES_MAX);
        }
    }

    /// Whether somebody waits for it for its own sake or another's, until it is there.
    fn is_pursued(&self) -> bool {
        self.wanted || !self.for_peers.is_empty()
    }

    /// Whether a part of the node waits for it, once.
    pub(super) fn is_sought(&self) -> bool {
        self.for_index || self.for_bootstrap || self.for_role || self.for_topic
    }

    fn is_located(&self) -> bool {
        !(self.addrs.is_empty() && self.homes.is_empty())
    }
}

/// Puts `new` in front of `addrs`, within the limit.
fn remember(addrs: &mut Vec<SocketAddr>, new: &[SocketAddr]) {
    let mut all: Vec<_> = new.iter().copied().map(canonical).collect();
    all.append(addrs);
    for addr in all {
        if addrs.len() < ADDRS_MAX && !addrs.contains(&addr) {
            addrs.push(addr);
        }
    }
}

impl Node {
    pub(super) fn handle_want(&mut self, now: Instant, peer: &PeerAddr, keep: bool) {
        if peer.id == self.id || !self.has_room_for(peer.id) {
            self.event(Event::Unreachable(peer.id));
            return;
        }
        let state = self.peers.or_default(peer.id);
        state.wanted = true;
        state.keep |= keep;
        state.tries = 0;
        state.remember(Word::Owner, peer);
        self.bootstrap.handle_input(now, bootstrap::Input::Named(peer.id));
        for link in self.links_to(peer.id) {
            self.value(now, link);
        }
        if keep {
            self.handle_warm(now, peer.id, true);
        }
        match self.link_to(peer.id) {
            None => self.retry(now, peer.id),
            Some(link) if self.live_link_to(peer.id).is_none() => self.seek_silent(now, link),
            Some(_) => {}
        }
    }

    pub(super) fn handle_unwant(&mut self, id: NodeId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.wanted = peer.keep;
        if !peer.wanted {
            self.index.end_search(id);
        }
        self.forget_if_unwanted(id);
    }

    pub(super) fn handle_forget(&mut self, now: Instant, id: NodeId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.keep = false;
        self.handle_unwant(id);
        self.handle_warm(now, id, false);
    }

    /// Whether `home` is wanted to be asked for `target`.
    pub(super) fn is_wanted_for(&self, home: NodeId, target: NodeId) -> bool {
        self.peers.get(&home).is_some_and(|peer| peer.for_peers.contains(&target))
    }

    pub(super) fn is_wanted(&self, id: NodeId) -> bool {
        self.peers.get(&id).is_some_and(|peer| peer.is_pursued() || peer.is_sought())
    }

    pub(super) fn forget_if_unwanted(&mut self, id: NodeId) {
        if self.is_wanted(id) {
            return;
        }
        self.peers.remove(&id);
        self.index.end_search(id);
        self.timers.stop(Timer::Retry(id));
        self.timers.stop(Timer::Seek(id));
        self.timers.stop(Timer::Via(id));
        self.finish_dials(id, None);
        self.unwant_homes_of(id, &[]);
    }

    /// Of the peers that were wanted only to be asked for `id`, drops all but those in `named` and
    /// those that the owner named.
    pub(super) fn unwant_homes_of(&mut self, id: NodeId, named: &[Home]) {
        let by_owner: Vec<_> = self
            .peers
            .get(&id)
            .map(|peer| peer.homes.iter().map(|home| home.id).collect())
            .unwrap_or_default();
        let is_named =
            |id: &NodeId| by_owner.contains(id) || named.iter().any(|home| home.id == *id);
        let homes: Vec<_> = self
            .peers
            .iter_mut()
            .filter(|(home, _)| !is_named(home))
            .filter_map(|(home, peer)| peer.for_peers.remove(&id).then_some(*home))
            .collect();
        for home in homes {
            self.forget_if_unwanted(home);
        }
    }

    /// Starts everything that might reach a wanted peer.
    pub(super) fn retry(&mut self, now: Instant, id: NodeId) {
        if self.link_to(id).is_some() {
            return;
        }
        let Some(peer) = self.peers.get_mut(&id).filter(|peer| peer.is_pursued()) else { return };
        let (base, max) = self.config.retry;
        let pause = backoff(&mut self.rng, base, max, peer.tries);
        let tries = peer.tries;
        peer.tries = peer.tries.saturating_add(1);
        peer.is_reported = false;
        let is_wanted = peer.wanted;
        let is_lost = is_wanted && (tries > 0 || !peer.is_located());
        let targets: Vec<_> = peer.for_peers.iter().copied().collect();
        // A home behind a NAT is reached as any peer is; but not the homes of homes of homes.
        let is_means = |id| self.peers.get(id).is_some_and(|target| target.wanted);
        let is_for_wanted = targets.iter().any(is_means);
        let is_lost = is_lost || tries > 0 && is_for_wanted;
        // A dial lasts longer than the first pauses; those in progress are not repeated.
        self.timers.set(Timer::Retry(id), now + pause.max(RETRY_PAUSE_MIN));
        self.attempt(now, id);
        // A home of somebody is mostly reached straight, else asked for by few: it may be gone. For
        // a look-up nobody is asked for it: others can answer too.
        if is_wanted || is_for_wanted && (1..=MEANS_SIGNALLED).contains(&tries) {
            for link in self.signallers_for(id, tries) {
                self.request_channel(link, id);
            }
        }
        if is_lost {
            self.index.search(now, id, tries > 0);
        }
        self.report_if_unreachable(id);
    }

    /// Dials a peer wherever it may be, and its homes.
    pub(super) fn attempt(&mut self, now: Instant, id: NodeId) {
        let Some(peer) = self.peers.get(&id) else { return };
        let (addrs, claimed) = (peer.addrs.clone(), peer.claimed_addrs.clone());
        let (homes, claimed_homes) = (peer.homes.clone(), peer.claimed_homes.clone());
        for addr in addrs {
            self.dial(now, id, RemoteAddr::Direct(addr), Word::Owner);
        }
        for addr in claimed {
            self.dial(now, id, RemoteAddr::Direct(addr), Word::Peer);
        }
        for home in homes {
            self.want_as_home(now, &home, id, Word::Owner);
        }
        for home in claimed_homes {
            self.want_as_home(now, &home, id, Word::Peer);
        }
    }

    /// Asks the index for all peers that are wanted: there is somebody to ask at last.
    pub(super) fn search_wanted(&mut self, now: Instant) {
        let wanted: Vec<_> = self
            .peers
            .iter()
            .filter(|(id, peer)| peer.wanted && self.link_to(**id).is_none())
            .map(|(id, _)| *id)
            .collect();
        for id in wanted {
            self.index.search(now, id, false);
        }
    }

    /// Those for whose sake a peer is wanted, and who are not linked.
    pub(super) fn targets_of(&self, home: NodeId) -> Vec<NodeId> {
        let Some(peer) = self.peers.get(&home) else { return Vec::new() };
        peer.for_peers.iter().copied().filter(|target| self.link_to(*target).is_none()).collect()
    }

    /// Whom to ask for `id`: those nearest to it first, who most likely are its neighbours; not all
    /// at once, others with each try.
    fn signallers_for(&self, id: NodeId, tries: u32) -> Vec<LinkId> {
        let mut all: Vec<_> = self
            .links
            .iter()
            .filter(|(_, link)| link.relays && link.peer != id)
            .filter(|(_, link)| link.paths.frame_addr().is_some())
            .map(|(link, _)| *link)
            .collect();
        let key = Key::of_node(id);
        all.sort_by_cached_key(|link| Key::of_node(self.links[link].peer).distance(&key));
        let asked_max = self.config.signallers_max;
        if all.len() > asked_max {
            let asked_before = (tries as usize).saturating_mul(asked_max);
            let len = all.len();
            all.rotate_left(asked_before % len);
            all.truncate(asked_max);
        }
        all
    }

    /// Tells the owner if nothing is under way that might reach `id`.
    pub(super) fn report_if_unreachable(&mut self, id: NodeId) {
        let is_under_way = self.link_to(id).is_some() || self.is_under_way(id);
        if let Some(peer) = self.peers.get_mut(&id)
            && peer.wanted
            && !is_under_way
            && !core::mem::replace(&mut peer.is_reported, true)
        {
            self.event(Event::Unreachable(id));
        }
    }

    /// Whether anything is under way that might reach `id`.
    pub(super) fn is_under_way(&self, id: NodeId) -> bool {
        self.index.is_searching(id)
            || self.dials.values().any(|dial| dial.peer == id)
            || self.peers.get(&id).is_some_and(|peer| !peer.spare_vias.is_empty())
            || self.requests.values().any(|target| *target == id)
            || self.peers.iter().any(|(home, peer)| {
                let is_dialled = self.dials.values().any(|dial| dial.peer == *home);
                let is_awaited = peer.tries == 0 && self.link_to(*home).is_none();
                peer.for_peers.contains(&id) && (is_awaited || is_dialled)
            })
    }

    /// Reaches a home of `target`, to ask it for `target`.
    pub(super) fn want_as_home(&mut self, now: Instant, home: &Home, target: NodeId, word: Word) {
        if home.id == self.id || self.link_to(home.id).is_some() || !self.has_room_for(home.id) {
            return;
        }
        let peer = self.peers.or_default(home.id);
        match word {
            Word::Owner => remember(&mut peer.addrs, &home.addrs),
            Word::Peer => remember(&mut peer.claimed_addrs, &home.addrs),
        }
        // By the timer, because homes may have homes that may have homes.
        if peer.for_peers.insert(target) {
            self.timers.set(Timer::Retry(home.id), now);
        } else {
            self.timers.set_if_idle(Timer::Retry(home.id), now + RETRY_PAUSE_MIN);
        }
    }

    pub(super) fn dial(
        &mut self,
        now: Instant,
        peer: NodeId,
        to: RemoteAddr,
        word: Word,
    ) -> Option<DialId> {
        if self.dials.values().any(|dial| dial.peer == peer && dial.to == to) {
            return None;
        }
        let id = DialId(self.next_dial);
        self.next_dial += 1;
        let is_trusted = word == Word::Owner;
        self.dials.insert(id, Dial { peer, to, is_trusted });
        if let RemoteAddr::Direct(addr) = to {
            self.openness.sent(now, addr);
            if is_trusted {
                self.outputs.push_back(Output::Gate(GateAction::Trust(addr)));
            }
        }
        self.outputs.push_back(Output::Dial { dial: id, peer, to });
        Some(id)
    }

    /// Whether we have a relayed dial to `peer` under way.
    pub(super) fn is_dialling_relayed(&self, peer: NodeId) -> bool {
        self.dials
            .values()
            .any(|dial| dial.peer == peer && matches!(dial.to, RemoteAddr::Relayed { .. }))
    }

    fn end_dial(&mut self, id: DialId) -> Option<Dial> {
        let dial = self.dials.remove(&id)?;
        if let RemoteAddr::Direct(addr) = dial.to
            && dial.is_trusted
        {
            self.outputs.push_back(Output::Gate(GateAction::Untrust(addr)));
        }
        Some(dial)
    }

    /// Ends all attempts to reach `peer`; all but `won` are still running.
    pub(super) fn finish_dials(&mut self, peer: NodeId, won: Option<DialId>) {
        let ids: Vec<_> =
            self.dials.iter().filter(|(_, dial)| dial.peer == peer).map(|(id, _)| *id).collect();
        for id in ids {
            self.end_dial(id);
            if Some(id) != won {
                self.outputs.push_back(Output::CancelDial(id));
                self.spare_channel(id);
            }
        }
        if let Some(peer_state) = self.peers.get_mut(&peer)
            && won.is_some()
        {
            peer_state.tries = 0;
        }
    }

    pub(super) fn handle_dial_failed(&mut self, now: Instant, id: DialId) {
        let Some(dial) = self.end_dial(id) else { return };
        self.release_channels(|usage| usage == Usage::Dial(id));
        if self.link_to(dial.peer).is_some() {
            return;
        }
        self.ask_next_via(now, dial.peer);
        if let Some(peer) = self.peers.get(&dial.peer) {
            let waiting: Vec<_> = peer.for_peers.iter().copied().collect();
            let pause = self.config.retry.0.max(RETRY_PAUSE_MIN);
            self.timers.set_if_idle(Timer::Retry(dial.peer), now + pause);
            self.report_if_unreachable(dial.peer);
            for target in waiting {
                self.report_if_unreachable(target);
                self.give_up_if_idle(now, target);
            }
            self.give_up_if_idle(now, dial.peer);
        }
    }

    pub(super) fn request_channel(&mut self, link: LinkId, target: NodeId) {
        let pending =
            self.requests.iter().any(|((on, _), for_peer)| *on == link && *for_peer == target);
        let is_held = |((on, _), held): (&(LinkId, Channel), &Held)| {
            *on == link && held.target == target && held.ours
        };
        let holds = self.held.iter().any(is_held);
        if pending || holds {
            return;
        }
        let request = self.next_request;
        self.next_request = self.next_request.wrapping_add(1);
        self.requests.insert((link, request), target);
        self.send(link, NodeMessage::RelayOpen(RelayOpen { request, target }));
    }

    /// A link came up that offers to signal: asks it for every peer that is still wanted.
    pub(super) fn ask_signaller(&mut self, link: LinkId) {
        let Some(state) = self.links.get(&link) else { return };
        let us = state.peer;
        if !state.relays || state.paths.frame_addr().is_none() || !self.is_kept(us) {
            return;
        }
        let wanted: Vec<_> = self
            .peers
            .iter()
            .filter(|(id, peer)| peer.wanted && **id != us && self.link_to(**id).is_none())
            .map(|(id, _)| *id)
            .take(self.config.peers_max)
            .collect();
        for peer in wanted {
            self.request_channel(link, peer);
        }
    }

    /// The last link to a peer is gone, which had told us its homes.
    pub(super) fn lost_peer(&mut self, now: Instant, id: NodeId, homes: Vec<Home>) {
        self.unwant_homes_of(id, &[]);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.wanted = peer.keep;
        peer.tries = 0;
        peer.claimed_homes = homes;
        if self.is_wanted(id) {
            let (base, max) = self.config.retry;
            let pause = backoff(&mut self.rng, base, max, 0).max(RETRY_PAUSE_MIN);
            self.timers.set(Timer::Retry(id), now + pause);
        } else {
            self.forget_if_unwanted(id);
        }
    }
}
