//! Lending ourselves: reservations that others hold here, and channels between them.
//!
//! We forward frames for two peers that both hold an authenticated direct link to us, only towards
//! one that holds a reservation, and never to an address that somebody named. The owner's limits
//! on rate and bytes are kept by the [forwarder](crate::forward); the number of reservations and
//! of channels is kept here.

use core::time::Duration;

use std::net::SocketAddr;

use super::{Event, ForwardAction, LinkId, Node, NodeConfig, Output, Timer};
use crate::flat::FlatMap;
use crate::forward::{ChannelPair, Endpoint, OpenError};
use crate::frame::Channel;
use crate::id::NodeId;
use crate::time::Instant;
use crate::wire::NodeMessage;
use crate::wire::node::{
    RENEWED, RefusalReason, Refused, RelayClosed, RelayIncoming, RelayOpen, RelayOpened, Reserved,
};

/// One end of a channel that we forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct End {
    peer: NodeId,
    other: Channel,
    other_peer: NodeId,
    /// Whether this end asked for the channel.
    opener: bool,
}

/// A channel that the forwarder is asked for.
#[derive(Debug)]
struct Opening {
    link: LinkId,
    request: u32,
    a: Endpoint,
    b: Endpoint,
}

/// What we lend. See the module's documentation.
#[derive(Debug)]
pub(super) struct RelayService {
    is_on: bool,
    reservations: FlatMap<NodeId, Instant>,
    ends: FlatMap<Channel, End>,
    openings: FlatMap<u64, Opening>,
    next_token: u64,
}

impl RelayService {
    pub(super) fn new(config: &NodeConfig) -> Self {
        Self {
            is_on: config.relays,
            reservations: FlatMap::new(),
            ends: FlatMap::new(),
            openings: FlatMap::new(),
            next_token: 0,
        }
    }
}

impl RelayService {
    /// Whether a peer holds a reservation here.
    pub(super) fn holds(&self, peer: NodeId) -> bool {
        self.reservations.contains_key(&peer)
    }

    /// Whether a channel of a peer's is open.
    pub(super) fn carries_for(&self, peer: NodeId) -> bool {
        self.ends.values().any(|end| end.peer == peer)
    }
}

/// A life as the wire has it.
fn seconds(ttl: Duration) -> u32 {
    u32::try_from(ttl.as_secs()).expect("bounded by the constructor")
}

impl Node {
    /// The peers that hold a reservation here.
    pub fn reservations(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.service.reservations.keys().copied()
    }

    /// The pairs of peers that we forward for, the opener first.
    pub fn channels(&self) -> impl Iterator<Item = (NodeId, NodeId)> + '_ {
        self.service.ends.values().filter(|end| end.opener).map(|end| (end.peer, end.other_peer))
    }

    /// Whether we relay and signal for others.
    #[must_use]
    pub fn relays(&self) -> bool {
        self.service.is_on
    }

    /// The owner lends this node, or does not: all peers are told. Who held a reservation here is
    /// told that it is over, and looks for another home.
    pub(super) fn handle_serve(&mut self, now: Instant, is_on: bool) {
        if self.service.is_on == is_on && self.index.is_serving() == is_on {
            return;
        }
        self.service.is_on = is_on;
        self.index.set_serving(now, is_on);
        self.roles.set_serving(now, is_on);
        for link in self.links.keys().copied().collect::<Vec<_>>() {
            self.say_hello(now, link);
        }
        if is_on {
            return;
        }
        for peer in self.reservations().collect::<Vec<_>>() {
            self.drop_service(peer);
            for link in self.links_to(peer) {
                self.refuse(link, None, RefusalReason::Off);
            }
            self.index.set_guest(peer, false);
            if let Some(link) = self.link_to(peer) {
                self.release_if_unkept(now, link);
            }
        }
    }

    fn refuse(&mut self, link: LinkId, request: Option<u32>, reason: RefusalReason) {
        self.send(link, NodeMessage::Refused(Refused { request, reason }));
    }

    pub(super) fn handle_reserve(&mut self, now: Instant, id: LinkId) {
        let kept = self.links.values().filter(|link| link.keeps_us).count();
        let Some(link) = self.links.get_mut(&id) else { return };
        // Who asks means to keep the link, whatever the answer.
        link.keeps_us |= kept < self.config.reservations_max;
        let peer = link.peer;
        let held = self.service.reservations.contains_key(&peer);
        let reason = if !self.service.is_on {
            Some(RefusalReason::Off)
        } else if link.paths.frame_addr().is_none() {
            Some(RefusalReason::NotDirect)
        } else if !held && self.service.reservations.len() >= self.config.reservations_max {
            Some(RefusalReason::Full)
        } else {
            None
        };
        if let Some(reason) = reason {
            self.refuse(id, None, reason);
            return;
        }
        let ttl_s = seconds(self.config.reservation_ttl);
        self.service.reservations.insert(peer, now + Duration::from_secs(ttl_s.into()));
        self.timers.set_if_idle(Timer::Service, now + Duration::from_secs(ttl_s.into()));
        let rate_bytes_per_s = self.config.relay_rate_bytes_per_s;
        self.send(id, NodeMessage::Reserved(Reserved { ttl_s, rate_bytes_per_s }));
        if !held {
            self.event(Event::Serving { peer, granted: true });
            self.index.set_guest(peer, true);
            self.want_home(now, id);
        }
    }

    pub(super) fn expire_reservations(&mut self, now: Instant) {
        let expired: Vec<_> = self
            .service
            .reservations
            .iter()
            .filter(|(_, expires)| **expires <= now)
            .map(|(peer, _)| *peer)
            .collect();
        for peer in expired {
            self.service.reservations.remove(&peer);
            self.reservation_ended(now, peer);
        }
        if let Some(next) = self.service.reservations.values().min() {
            self.timers.set(Timer::Service, *next);
        }
    }

    /// The peer of a link gives its reservation back.
    pub(super) fn handle_release(&mut self, now: Instant, peer: NodeId) {
        let mut was_kept = false;
        for link in self.links_to(peer) {
            if let Some(link) = self.links.get_mut(&link) {
                was_kept |= core::mem::take(&mut link.keeps_us);
            }
        }
        if self.service.reservations.remove(&peer).is_some() {
            self.reservation_ended(now, peer);
        } else if was_kept && let Some(link) = self.link_to(peer) {
            self.release_if_unkept(now, link);
        }
    }

    fn reservation_ended(&mut self, now: Instant, peer: NodeId) {
        self.event(Event::Serving { peer, granted: false });
        self.index.set_guest(peer, false);
        if let Some(link) = self.link_to(peer) {
            self.release_if_unkept(now, link);
        }
    }

    pub(super) fn handle_relay_open(&mut self, now: Instant, id: LinkId, open: &RelayOpen) {
        let RelayOpen { request, target } = *open;
        match self.check_relay_open(now, id, target) {
            Ok((a, b)) => {
                let token = self.service.next_token;
                self.service.next_token += 1;
                self.service.openings.insert(token, Opening { link: id, request, a, b });
                let ttl = self.config.relay_ttl;
                self.outputs.push_back(Output::Forward(ForwardAction::Open { token, a, b, ttl }));
            }
            Err(reason) => self.refuse(id, Some(request), reason),
        }
    }

    /// Finds both ends of the channel that the peer of a link asks for.
    fn check_relay_open(
        &self,
        now: Instant,
        id: LinkId,
        target: NodeId,
    ) -> Result<(Endpoint, Endpoint), RefusalReason> {
        let link = &self.links[&id];
        if !self.service.is_on {
            return Err(RefusalReason::Off);
        }
        if target == self.id || target == link.peer {
            return Err(RefusalReason::Pointless);
        }
        let opened =
            self.service.ends.values().filter(|end| end.peer == link.peer && end.opener).count();
        let opening =
            self.service.openings.values().filter(|opening| opening.a.peer == link.peer).count();
        if opened + opening >= self.config.channels_per_peer_max {
            return Err(RefusalReason::Full);
        }
        if self.service.reservations.get(&target).is_none_or(|expires| *expires <= now) {
            return Err(RefusalReason::NoReservation);
        }
        let endpoint = |peer, link: LinkId| {
            let addr = self.links[&link].paths.frame_addr().ok_or(RefusalReason::NotDirect)?;
            Ok(Endpoint { peer, addr })
        };
        let target_link = self.link_to(target).ok_or(RefusalReason::NoReservation)?;
        Ok((endpoint(link.peer, id)?, endpoint(target, target_link)?))
    }

    pub(super) fn handle_channel_opened(
        &mut self,
        _now: Instant,
        token: u64,
        result: Result<ChannelPair, OpenError>,
    ) {
        let Some(Opening { link, request, a, b }) = self.service.openings.remove(&token) else {
            return;
        };
        let pair = match result {
            Ok(pair) => pair,
            Err(error) => {
                let reason = match error {
                    OpenError::Off => RefusalReason::Off,
                    OpenError::Full => RefusalReason::Full,
                    OpenError::SamePeer | OpenError::Unroutable => RefusalReason::Pointless,
                };
                self.refuse(link, Some(request), reason);
                return;
            }
        };
        let end = |peer, other, other_peer, opener| End { peer, other, other_peer, opener };
        self.service.ends.insert(pair.a, end(a.peer, pair.b, b.peer, true));
        self.service.ends.insert(pair.b, end(b.peer, pair.a, a.peer, false));
        // The target hears first, so that it knows the channel when the first frame comes.
        if let Some(target_link) = self.link_to(b.peer) {
            let incoming = RelayIncoming { channel: pair.b, peer: a.peer, peer_addr: a.addr };
            self.send(target_link, NodeMessage::RelayIncoming(incoming));
        }
        let ttl_s = seconds(self.config.relay_ttl);
        let opened = RelayOpened { request, channel: pair.a, target_addr: b.addr, ttl_s };
        self.send(link, NodeMessage::RelayOpened(opened));
    }

    pub(super) fn handle_relay_renew(&mut self, _now: Instant, peer: NodeId, channel: Channel) {
        if self.service.ends.get(&channel).is_some_and(|end| end.peer == peer) {
            let ttl = self.config.relay_ttl.saturating_mul(RENEWED);
            self.outputs.push_back(Output::Forward(ForwardAction::Extend(channel, ttl)));
        } else {
            self.tell_closed(peer, channel);
        }
    }

    /// The forwarder let go of these channels because nobody renewed them. Most were only needed to
    /// get two peers together, so nobody is told: who opened one knows that it was not renewed, and
    /// the other forgets what it does not use.
    pub(super) fn handle_channels_expired(&mut self, expired: &[Channel]) {
        for channel in expired {
            self.service.ends.remove(channel);
        }
    }

    fn tell_closed(&mut self, peer: NodeId, channel: Channel) {
        if let Some(link) = self.link_to(peer) {
            self.send(link, NodeMessage::RelayClosed(RelayClosed { channel }));
        }
    }

    pub(super) fn rebind_service(&mut self, peer: NodeId, addr: SocketAddr) {
        if self.service.ends.values().any(|end| end.peer == peer) {
            self.outputs.push_back(Output::Forward(ForwardAction::Rebind(peer, addr)));
        }
    }

    /// A peer is gone: so is everything that we lent it. Its counterparts are not told: mostly it
    /// has a direct path to them, and one that is silent they notice.
    pub(super) fn drop_service(&mut self, peer: NodeId) {
        if self.service.reservations.remove(&peer).is_some() {
            self.event(Event::Serving { peer, granted: false });
        }
        let gone: Vec<_> = self
            .service
            .ends
            .iter()
            .filter(|(_, end)| end.peer == peer)
            .flat_map(|(channel, end)| [*channel, end.other])
            .collect();
        if gone.is_empty() {
            return;
        }
        for channel in gone {
            self.service.ends.remove(&channel);
        }
        self.outputs.push_back(Output::Forward(ForwardAction::ClosePeer(peer)));
    }
}
