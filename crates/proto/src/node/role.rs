//! Roles as a part of the node: the peers that they need reached, the links that are kept for them,
//! and what they tell the index.

use core::time::Duration;
use std::net::IpAddr;

use super::dial::Word;
use super::find::SEEK_MAX;
use super::{Event, LinkId, Node, Output, Side, Timer};
use crate::egress::class_of;
use crate::id::NodeId;
use crate::index::DiskAction;
use crate::invite::PeerAddr;
use crate::role::{self, NetPrefix, PeerView, Region, RoleStats};
use crate::time::Instant;
use crate::wire::NodeMessage;

/// How long a candidate may take to be reached: its link may have to be closed first, and a punched
/// one takes some seconds.
const PROBE_MAX: Duration = Duration::from_secs(45);

/// Pause between looks at whether it is.
const PROBE_PAUSE: Duration = Duration::from_secs(2);

/// The number under which roles write to disk: those of the index begin with 1.
const DISK_TOKEN: u64 = 0;

/// A candidate that is to be reached as any other node would.
#[derive(Debug)]
pub(super) struct Probing {
    contact: PeerAddr,
    until: Instant,
}

impl Node {
    /// Carries out what the roles want.
    pub(super) fn handle_role(&mut self, now: Instant, output: role::Output) {
        match output {
            role::Output::Send(peer, message) => {
                if let Some(link) = self.link_to(peer) {
                    self.send(link, NodeMessage::Role(message));
                }
            }
            role::Output::Reach(peer) => self.seek_for_role(now, &peer),
            role::Output::Probe(contact) => {
                let id = contact.id;
                self.probes.insert(id, Box::new(Probing { contact, until: now + PROBE_MAX }));
                self.advance_probe(now, id);
            }
            role::Output::Keep(peer, is_kept) => self.handle_warm(now, peer, is_kept),
            role::Output::Nearest { tag, key, count } => {
                self.index.find_nodes(now, tag, key, count);
            }
            role::Output::Seat(seat) => {
                self.index.set_seat(now, seat.map(|(region, _)| region));
            }
            role::Output::Seats(region, seats) => self.index.set_seats(now, region, &seats),
            role::Output::Persist(state) => {
                let action = DiskAction::Role(state.into());
                self.outputs.push_back(Output::Disk { token: DISK_TOKEN, action });
            }
            role::Output::Event(event) => {
                self.event(Event::Role(event));
            }
        }
    }

    /// Tells the roles what the other parts know.
    pub(super) fn inform_roles(&mut self, now: Instant) {
        let net = self.public_addrs().first().map(|addr| addr.ip());
        let net = net.filter(|ip| is_global(*ip)).map(NetPrefix::of);
        self.roles.set_net(net);
        self.roles.set_size(now, self.index.nodes());
        let (taken, most) = (self.reservations().count(), self.config.reservations_max.max(1));
        let load = taken.saturating_mul(usize::from(u8::MAX)) / most;
        // Whichever runs out first.
        self.roles.set_load(u8::try_from(load).unwrap_or(u8::MAX).max(self.load));
    }

    /// A linked peer as the roles see it.
    pub(super) fn view(&self, peer: NodeId) -> Option<PeerView> {
        let contact = self.contact(peer)?;
        let seen = self.link_to(peer).and_then(|link| self.links[&link].paths.frame_addr());
        let ip = seen.map(|addr| addr.ip()).filter(|ip| is_global(*ip));
        Some(PeerView { contact, ip })
    }

    /// Reaches a peer for the roles, once.
    fn seek_for_role(&mut self, now: Instant, peer: &PeerAddr) {
        let id = peer.id;
        if id == self.id || self.link_to(id).is_some() || !self.has_room_for(id) {
            return self.roles.unreachable(now, id);
        }
        let state = self.peers.or_default(id);
        state.for_role = true;
        state.remember(Word::Peer, peer);
        self.timers.set_if_idle(Timer::Seek(id), now + SEEK_MAX);
        self.attempt_signalled(now, id, &[]);
        self.give_up_if_idle(now, id);
    }

    /// Looks whether a candidate has been reached directly: on a link that we made, or that we keep
    /// anyway. One that it made says nothing of whether others reach it, and is closed.
    pub(super) fn advance_probe(&mut self, now: Instant, id: NodeId) {
        let Some(probing) = self.probes.get(&id) else { return };
        let (contact, is_late) = (probing.contact.clone(), now >= probing.until);
        let is_ours =
            |link: &LinkId| self.links[link].side == Side::Client || self.wants_kept(*link);
        let link = self.link_to(id);
        let is_direct = link.is_some_and(|link| self.links[&link].paths.frame_addr().is_some());
        let is_reached = is_direct && link.as_ref().is_some_and(is_ours);
        if is_reached || is_late {
            self.probes.remove(&id);
            self.timers.stop(Timer::Probe(id));
            return self.roles.probed(now, id, is_reached);
        }
        self.timers.set(Timer::Probe(id), now + PROBE_PAUSE);
        match link {
            None if !self.is_wanted(id) => self.seek_for_role(now, &contact),
            Some(link) if is_direct => self.outputs.push_back(Output::CloseIfIdle(link)),
            None | Some(_) => {}
        }
    }

    /// Our seat: of which region, and whether it serves.
    #[must_use]
    pub fn seat(&self) -> Option<(Region, bool)> {
        self.roles.seat()
    }

    /// Roles at this moment.
    #[must_use]
    pub fn role_stats(&self) -> RoleStats {
        self.roles.stats()
    }
}

/// Whether an address tells networks apart: those of private and test networks are all alike.
fn is_global(ip: IpAddr) -> bool {
    class_of(ip).is_none()
}
