//! The paths of a connection: which pass, how long they take, how they come and go.

use core::time::Duration;
use std::net::SocketAddr;

use baran_proto::frame::Channel;
use baran_proto::node::LinkId;
use baran_proto::path::PathId;

use super::{News, What, World};
use crate::net::channel::slot_of;
use crate::net::conn::{ConnId, Route};
use crate::net::keepalive;
use crate::net::nat::is_punchable;

impl World {
    fn passes(&self, hosts: [u32; 2], route: Route) -> bool {
        match route.via {
            None => self.reaches(hosts[0], hosts[1]),
            Some(slot) => self.bridges.get(slot).is_some_and(|bridge| {
                self.reaches(hosts[0], bridge.relay) && self.reaches(bridge.relay, hosts[1])
            }),
        }
    }

    /// The path that data takes: a direct one, else the relayed one that opened first.
    fn best_route(&self, id: ConnId) -> Option<(Route, [u32; 2])> {
        let conn = self.conns.get(id)?;
        let hosts = conn.ends.map(|end| end.host);
        let passable = conn.routes.iter().filter(|route| self.passes(hosts, **route));
        let best = passable.min_by_key(|route| (route.via.is_some(), route.path))?;
        Some((*best, hosts))
    }

    /// Whether anything passes.
    pub(super) fn is_passable(&self, id: ConnId) -> bool {
        self.best_route(id).is_some()
    }

    /// One way on the best path, if anything passes.
    pub(super) fn best_way(&mut self, id: ConnId) -> Option<Duration> {
        let (route, [a, b]) = self.best_route(id)?;
        Some(self.way(a, b, route.via))
    }

    /// One way on the best path, though one of the ends has just been switched off.
    pub(super) fn way_if_on(&mut self, id: ConnId) -> Option<Duration> {
        let conn = self.conns.get(id)?;
        let [a, b] = conn.ends.map(|end| end.host);
        let is_torn = self.is_cut && self.hosts[a as usize].half != self.hosts[b as usize].half;
        let via = if conn.is_direct() { None } else { conn.routes.first()?.via };
        (!is_torn).then(|| self.way(a, b, via))
    }

    /// One way on this path, without jitter.
    pub(super) fn route_time(&self, id: ConnId, route: Route) -> Option<Duration> {
        let conn = self.conns.get(id)?;
        let [a, b] = conn.ends.map(|end| &self.hosts[end.host as usize].place);
        Some(match route.via {
            None => a.one_way(b),
            Some(slot) => {
                let relay = &self.hosts[self.bridges.get(slot)?.relay as usize].place;
                a.one_way(relay) + relay.one_way(b)
            }
        })
    }

    /// A client starts a round of punching: each side probes what the other named.
    pub(super) fn punch(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(id) else { return };
        let [a, b] = conn.ends;
        let (from, to) = (&self.hosts[a.host as usize], &self.hosts[b.host as usize]);
        // Of a mapping that depends on the address nothing useful can be named, but its owner
        // reaches an open host, which takes the source of the probe for what it is.
        let is_named = match (from.nat, to.nat) {
            (crate::net::nat::Nat::Open, _) => a.has_candidate,
            (_, crate::net::nat::Nat::Open) => b.has_candidate,
            _ => a.has_candidate && b.has_candidate,
        };
        if is_named && is_punchable(from.nat, to.nat) && self.reaches(a.host, b.host) {
            // REACH_OUT to the server over the path in use, probes both ways, validation.
            let signal = self.best_way(id).unwrap_or_default();
            let after = signal + self.latency(a.host, b.host) * 3;
            self.push(after, What::PathOpens { conn: id, via: None });
        }
    }

    pub(super) fn path_opens(&mut self, id: ConnId, via: Option<u32>) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        let is_up = conn.ends.iter().all(|end| end.link.is_some());
        if !is_up || conn.routes.iter().any(|route| route.via == via) {
            return;
        }
        let path = PathId(conn.next_path);
        conn.next_path += 1;
        conn.routes.push(Route { path, via });
        let [a, b] = conn.ends.map(|end| end.host);
        if let Some(bridge) = via.and_then(|slot| self.bridges.get_mut(slot)) {
            bridge.users.push(id);
        }
        let after = self.way(a, b, via);
        self.push(after, What::Tell { conn: id, end: 1, news: News::Opened(path) });
        self.tell(id, 0, News::Opened(path));
    }

    pub(super) fn close_path(&mut self, id: ConnId, end: usize, path: PathId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        let Some(at) = conn.routes.iter().position(|route| route.path == path) else { return };
        let route = conn.routes.remove(at);
        let [a, b] = conn.ends.map(|end| end.host);
        if let Some(bridge) = route.via.and_then(|slot| self.bridges.get_mut(slot)) {
            bridge.users.retain(|user| *user != id);
        }
        let after = self.way(a, b, route.via);
        for (end, after) in [(end, Duration::ZERO), (1 - end, after)] {
            self.push(after, What::Tell { conn: id, end, news: News::Closed(path) });
        }
    }

    /// A client wants a relayed path on a link that stands.
    pub(super) fn open_relayed(
        &mut self,
        host: u32,
        link: LinkId,
        relay: SocketAddr,
        channel: Channel,
    ) {
        let Some((id, 0)) = self.conns.of_link(link) else { return };
        let Some(conn) = self.conns.get(id) else { return };
        let server = conn.ends[1].host;
        let (slot, end) = slot_of(channel);
        let relay = self.addresses.owner(relay);
        let leads_there = self.bridges.get(slot).is_some_and(|bridge| {
            bridge.hosts[end] == host
                && bridge.hosts[1 - end] == server
                && Some(bridge.relay) == relay
                && self.hosts[server as usize].inbound.contains(&bridge.relay)
        });
        let is_passable =
            leads_there && self.passes([host, server], Route { path: PathId(0), via: Some(slot) });
        if is_passable {
            let after = self.way(host, server, Some(slot)) * 4;
            self.push(after, What::PathOpens { conn: id, via: Some(slot) });
        } else {
            // QUIC tries for three probe time-outs before it gives a path up.
            let after = Duration::from_secs(3);
            self.push(after, What::Tell { conn: id, end: 0, news: News::NoRelay });
        }
    }

    /// A channel is gone: its paths die when QUIC notices, and with the last one the connection.
    pub(super) fn drop_users(&mut self, slot: u32, users: Vec<ConnId>) {
        for id in users {
            let Some(conn) = self.conns.get_mut(id) else { continue };
            let Some(at) = conn.routes.iter().position(|route| route.via == Some(slot)) else {
                continue;
            };
            let (since, now) = (conn.since, self.now);
            let after = keepalive::lost_after(&mut self.draw, now - since);
            if conn.routes.len() == 1 {
                self.push(after, What::IdleOut(id));
                continue;
            }
            let path = conn.routes.remove(at).path;
            for end in [0, 1] {
                self.push(after, What::Tell { conn: id, end, news: News::Closed(path) });
            }
        }
    }
}
