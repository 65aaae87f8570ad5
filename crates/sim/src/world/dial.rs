//! Dials: from the first packet to a link at both ends, or to nothing.

use core::time::Duration;
use std::net::SocketAddr;

use baran_proto::id::NodeId;
use baran_proto::node::{DialId, Input, RemoteAddr, Side};
use baran_proto::path::PathId;
use baran_proto::time::Instant;

use super::host::Pending;
use super::{What, World};
use crate::net::account::INITIAL;
use crate::net::capacity::HANDSHAKE;
use crate::net::channel::{numbers, slot_of};
use crate::net::conn::ConnId;
use crate::net::nat::passes;

/// How long the driver gives a handshake.
const PATIENCE: Duration = Duration::from_secs(10);

/// When the first packet of a handshake is sent again if nothing comes back: after three initial
/// round trips of 100 ms as our QUIC is set, then after twice as long each time (RFC 9002 §6.2).
const RETRANSMITS_MS: [u64; 5] = [300, 900, 2_100, 4_500, 9_300];

/// The first retransmission of a dial that began at `began` after `after`.
fn retransmit_after(began: Instant, after: Instant) -> Option<Instant> {
    let mut all = RETRANSMITS_MS.iter().map(|ms| began + Duration::from_millis(*ms));
    all.find(|at| *at > after)
}

/// Initial packets that a dial has sent so far.
fn initials(began: Instant, now: Instant) -> u32 {
    let again = RETRANSMITS_MS.iter().filter(|ms| began + Duration::from_millis(**ms) <= now);
    1 + u32::try_from(again.count()).unwrap_or(u32::MAX)
}

impl World {
    pub(super) fn dial(&mut self, host: u32, dial: DialId, peer: NodeId, to: RemoteAddr) {
        self.totals.dials += 1;
        let (target, via) = match to {
            RemoteAddr::Direct(addr) => {
                let owner = self.addresses.owner(addr).filter(|owner| *owner != host);
                (owner.filter(|to| self.outside(*to, host).port() == addr.port()), None)
            }
            RemoteAddr::Relayed { relay, channel } => {
                let (slot, end) = slot_of(channel);
                let relay = self.addresses.owner(relay);
                let bridge = self
                    .bridges
                    .get(slot)
                    .filter(|bridge| Some(bridge.relay) == relay && bridge.hosts[end] == host);
                (bridge.map(|bridge| bridge.hosts[1 - end]), Some(slot))
            }
        };
        let is_answered = target.is_some_and(|target| match via {
            None => self.knocks(host, target),
            Some(slot) => self.is_let_in(host, target, slot),
        });
        let is_meant = target.is_some_and(|target| self.hosts[target as usize].id == peer);
        let pending =
            Pending { dial, to: target, began: self.now, is_answered: is_answered && is_meant };
        self.hosts[host as usize].dials.push(pending);
        let run = self.hosts[host as usize].run;
        match target.filter(|_| is_answered) {
            Some(target) if is_meant => {
                if !self.answer_dial(host, dial, target, via, Duration::ZERO) {
                    self.set_unanswered(host, dial);
                    self.push(PATIENCE, What::DialFails { host, run, dial });
                }
            }
            // The peer is another than was meant: its key tells.
            Some(target) => {
                let after = self.latency(host, target) * 2;
                self.push(after, What::DialFails { host, run, dial });
            }
            None => self.push(PATIENCE, What::DialFails { host, run, dial }),
        }
    }

    /// Sends a first packet straight to a host: opens our NAT, and tells whether it gets there.
    fn knocks(&mut self, host: u32, to: u32) -> bool {
        let now = self.now;
        self.hosts[host as usize].filter.open(now, to);
        let (from, target) = (&self.hosts[host as usize], &self.hosts[to as usize]);
        let is_let_in = passes(from.nat, target.nat, target.filter.lets_in(now, host));
        // Whoever dials us meanwhile gets through with its next packet.
        let can_come = passes(target.nat, from.nat, true);
        let waiting = target
            .dials
            .iter()
            .position(|dial| dial.to == Some(host) && !dial.is_answered)
            .filter(|_| can_come);
        if let Some(at) = waiting
            && self.reaches(host, to)
        {
            let there = now + self.latency(host, to);
            let Pending { dial, began, .. } = self.hosts[to as usize].dials[at];
            if let Some(again) = retransmit_after(began, there)
                && self.answer_dial(to, dial, host, None, again - now)
            {
                self.hosts[to as usize].dials[at].is_answered = true;
            }
        }
        is_let_in && self.reaches(host, to)
    }

    /// Sends one small datagram, so that a NAT lets its answers in.
    pub(super) fn knock(&mut self, host: u32, addr: SocketAddr) {
        self.hosts[host as usize].traffic.knock();
        let owner = self.addresses.owner(addr).filter(|owner| *owner != host);
        if let Some(to) = owner.filter(|to| self.outside(*to, host).port() == addr.port()) {
            self.knocks(host, to);
        }
    }

    /// Whether a channel leads to a host that takes frames from its relay.
    fn is_let_in(&self, host: u32, to: u32, slot: u32) -> bool {
        self.bridges.get(slot).is_some_and(|bridge| {
            self.hosts[to as usize].inbound.contains(&bridge.relay)
                && self.reaches(host, bridge.relay)
                && self.reaches(bridge.relay, to)
        })
    }

    /// A dial whose packets pass becomes a link one round trip after `from_now`, and when the peer
    /// has time for it. Tells whether it has in time.
    fn answer_dial(
        &mut self,
        host: u32,
        dial: DialId,
        to: u32,
        via: Option<u32>,
        from_now: Duration,
    ) -> bool {
        let one_way = self.way(host, to, via);
        let Some(wait) = self.serve(to, self.now + from_now + one_way, HANDSHAKE) else {
            return false;
        };
        let lost = self.lost_time(one_way.max(Duration::from_millis(100)));
        let (run, to_run) = (self.hosts[host as usize].run, self.hosts[to as usize].run);
        let done = What::Dialled { host, run, dial, to, to_run, via };
        self.push(from_now + one_way * 2 + wait + lost, done);
        true
    }

    fn set_unanswered(&mut self, host: u32, dial: DialId) {
        let dials = self.hosts[host as usize].dials.iter_mut();
        dials.filter(|one| one.dial == dial).for_each(|one| one.is_answered = false);
    }

    /// One way, straight or through a channel's relay.
    pub(super) fn way(&mut self, a: u32, b: u32, via: Option<u32>) -> Duration {
        match via.and_then(|slot| self.bridges.get(slot)).map(|bridge| bridge.relay) {
            Some(relay) => self.latency(a, relay) + self.latency(relay, b),
            None => self.latency(a, b),
        }
    }

    fn take_dial(&mut self, host: u32, dial: DialId) -> Option<Pending> {
        let dials = &mut self.hosts[host as usize].dials;
        let at = dials.iter().position(|pending| pending.dial == dial)?;
        Some(dials.swap_remove(at))
    }

    fn count_failed_dial(&mut self, host: u32, dial: Pending) {
        let bytes = initials(dial.began, self.now) * INITIAL;
        self.hosts[host as usize].traffic.dial_bytes += u64::from(bytes);
    }

    pub(super) fn cancel_dial(&mut self, host: u32, dial: DialId) {
        if let Some(pending) = self.take_dial(host, dial) {
            self.count_failed_dial(host, pending);
        }
    }

    pub(super) fn dial_fails(&mut self, host: u32, run: u32, dial: DialId) {
        if self.hosts[host as usize].run != run {
            return;
        }
        // One that was answered late has an event of its own.
        let dials = &self.hosts[host as usize].dials;
        if dials.iter().any(|pending| pending.dial == dial && pending.is_answered) {
            return;
        }
        if let Some(pending) = self.take_dial(host, dial) {
            self.totals.dials_failed += 1;
            self.count_failed_dial(host, pending);
            self.input(host, Input::DialFailed(dial));
        }
    }

    /// The handshake is done at the client, unless the peer died or the dial was cancelled.
    pub(super) fn dialled(
        &mut self,
        host: u32,
        run: u32,
        dial: DialId,
        (to, to_run): (u32, u32),
        via: Option<u32>,
    ) {
        if self.hosts[host as usize].run != run {
            return;
        }
        let Some(pending) = self.take_dial(host, dial) else { return };
        let is_there = self.hosts[to as usize].run == to_run
            && match via {
                None => self.reaches(host, to),
                Some(slot) => self.is_let_in(host, to, slot),
            };
        if !is_there {
            self.totals.dials_failed += 1;
            self.count_failed_dial(host, pending);
            self.input(host, Input::DialFailed(dial));
            return;
        }
        self.totals.links += 1;
        let conn = self.conns.add(self.now, [host, to], via);
        if let Some(bridge) = via.and_then(|slot| self.bridges.get_mut(slot)) {
            bridge.users.push(conn);
        }
        self.hosts[host as usize].traffic.handshake(0);
        self.hosts[to as usize].traffic.handshake(1);
        let at = self.now + self.way(host, to, via);
        if let Some(conn) = self.conns.get_mut(conn) {
            conn.ends[1].arrives = at;
        }
        self.push_at(at, What::Accepted(conn));
        self.link_up(conn, 0, Some(dial));
    }

    pub(super) fn accepted(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(id) else { return };
        let [client, server] = conn.ends;
        if client.link.is_none() || !self.hosts[server.host as usize].is_on {
            // Closed by the client, or somebody died in the last half round trip.
            self.lose(id);
            return;
        }
        self.link_up(id, 1, None);
        self.observe(id, 1);
    }

    fn link_up(&mut self, id: ConnId, end: usize, dial: Option<DialId>) {
        let Some(link) = self.conns.bring_up(id, end) else { return };
        let Some(conn) = self.conns.get(id) else { return };
        let (host, peer) = (conn.ends[end].host, conn.ends[1 - end].host);
        let via = conn.routes.first().and_then(|route| route.via);
        let remote = self.remote(host, peer, via);
        self.hosts[host as usize].conns.push(id);
        let side = [Side::Client, Side::Server][end];
        let peer = self.hosts[peer as usize].id;
        self.input(host, Input::LinkUp { link, peer, side, path: PathId(0), remote, dial });
    }

    /// Where a path leads in the eyes of `host`.
    pub(super) fn remote(&self, host: u32, peer: u32, via: Option<u32>) -> RemoteAddr {
        match via.and_then(|slot| Some((slot, self.bridges.get(slot)?))) {
            Some((slot, bridge)) => {
                let pair = numbers(slot);
                let channel = if bridge.hosts[0] == host { pair.a } else { pair.b };
                RemoteAddr::Relayed { relay: self.outside(bridge.relay, host), channel }
            }
            None => RemoteAddr::Direct(self.outside(peer, host)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_packet_is_repeated_while_the_driver_is_patient() {
        let at = |ms: u64| Instant::from_micros(1_000 * ms);
        assert_eq!(retransmit_after(at(100), at(350)), Some(at(400)));
        assert_eq!(retransmit_after(at(100), at(400)), Some(at(1_000)));
        assert_eq!(retransmit_after(at(100), at(9_500)), None);
        assert_eq!((initials(at(0), at(10)), initials(at(0), at(10_000))), (1, 6));
    }
}
