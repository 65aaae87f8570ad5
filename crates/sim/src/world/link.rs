//! Links: messages on them, and how they end.

use core::time::Duration;

use baran_proto::allowance::{refusal, serves};
use baran_proto::id::SecretKey;
use baran_proto::node::{Input, LinkId};
use baran_proto::topic::entry::{Draft, Signed};
use baran_proto::topic::id::TopicId;
use baran_proto::topic::repair::RepairMessage;
use baran_proto::wire::topic::{GossipMessage, TOPIC_LENGTH_LEN, TopicBody, TopicMessage};
use baran_proto::wire::{IndexMessage, LENGTH_LEN, Message, NodeMessage};

use super::{News, What, World};
use crate::net::capacity::work_of;
use crate::net::conn::ConnId;
use crate::net::keepalive;
use crate::net::kind::Kind;

/// Pause before a message that could not pass is tried again: QUIC probes at least as often.
const RESEND: Duration = Duration::from_secs(1);

/// The type number of an encoded message: the first item of its array of two.
fn type_of(body: &[u8]) -> u8 {
    match body {
        [_, small @ 0..24, ..] => *small,
        [_, 24, large, ..] => *large,
        _ => u8::MAX,
    }
}

impl World {
    pub(super) fn send(&mut self, link: LinkId, message: NodeMessage) {
        let Some((id, end)) = self.conns.of_link(link) else { return };
        let kind = self.kind_of(id, end, &message);
        let (work, is_answer, refusal) = (work_of(&message), serves(&message), refusal(&message));
        // In its encoding, as on the wire: nobody says what nobody may read.
        let bytes = Message::Node(message).encode();
        let Some(host) = self.conns.get(id).map(|conn| conn.ends[end].host) else { return };
        let now = self.now;
        if is_answer && !self.hosts[host as usize].service.answer(now, bytes.len()) {
            if let Some(refusal) = refusal {
                self.send(link, refusal);
            }
            return;
        }
        let number = type_of(&bytes[LENGTH_LEN..]);
        let counter = self.totals.messages.entry(number).or_default();
        counter.0 += 1;
        counter.1 += bytes.len() as u64;
        let Some(conn) = self.conns.get_mut(id) else { return };
        let to = conn.ends[1 - end].host;
        let traffic = &mut self.hosts[host as usize].traffic;
        let sent = conn.ends[end].packets.send(now, kind, bytes.len(), traffic);
        self.hosts[to as usize].traffic.control_bytes_received += u64::from(sent);
        let bytes = bytes.into_boxed_slice();
        self.carry(id, 1 - end, (kind, work), bytes);
    }

    /// Sends on the stream of topics: in order with the rest, which the real one is not.
    pub(super) fn send_topic(&mut self, link: LinkId, message: &TopicMessage) {
        let Some((id, end)) = self.conns.of_link(link) else { return };
        let host = self.conns.get(id).map(|conn| conn.ends[end].host);
        if host.is_some_and(|host| self.hosts[host as usize].is_flooder) {
            return self.flood(id, end, message);
        }
        self.carry_topic(id, end, message);
    }

    /// A Sybil of a topic passes nothing on; with each thing that it says come forged entries.
    fn flood(&mut self, id: ConnId, end: usize, message: &TopicMessage) {
        const FORGED: usize = 5;
        let is_gossip = matches!(message.body, TopicBody::Gossip(_));
        let is_useful = match &message.body {
            TopicBody::Push(_) | TopicBody::Presence(_) => true,
            TopicBody::Gossip(message) => matches!(message, GossipMessage::Have(_)),
            TopicBody::Repair(message) => !matches!(message, RepairMessage::Digest { .. }),
            _ => false,
        };
        if !is_useful {
            self.carry_topic(id, end, message);
        }
        for _ in 0..if is_gossip { FORGED } else { 0 } {
            let secret = SecretKey::from_bytes(self.draw.bytes());
            let draft = Draft { seq: 1, payload: vec![0; 64].into(), ..Draft::default() };
            // Signed for another topic than the one it is sent in.
            let topic = TopicId::from_bytes([0; 32]);
            let entry = Signed::sign(&secret, "", topic, draft).bytes().clone();
            let body = TopicBody::Push(entry);
            self.carry_topic(id, end, &TopicMessage { number: message.number, body });
        }
    }

    fn carry_topic(&mut self, id: ConnId, end: usize, message: &TopicMessage) {
        let bytes = message.encode().into_boxed_slice();
        let now = self.now;
        let Some(conn) = self.conns.get_mut(id) else { return };
        let (host, to) = (conn.ends[end].host, conn.ends[1 - end].host);
        let traffic = &mut self.hosts[host as usize].traffic;
        let sent = conn.ends[end].packets.send(now, Kind::Topics, bytes.len(), traffic);
        self.hosts[to as usize].traffic.control_bytes_received += u64::from(sent);
        self.totals.topics.add(&message.body, bytes.len());
        self.carry(id, 1 - end, (Kind::Topics, 0), bytes);
    }

    /// What a message that an end sends is about.
    fn kind_of(&mut self, id: ConnId, end: usize, message: &NodeMessage) -> Kind {
        let hosts = self.conns.get(id).map(|conn| conn.ends.map(|end| end.host));
        match (Kind::of(message), message, hosts) {
            (Kind::Lookups, NodeMessage::Index(find), Some(hosts)) => {
                self.lookups.insert((hosts[end], find.request()));
                Kind::Lookups
            }
            (Kind::Found, NodeMessage::Index(IndexMessage::Found(found)), Some(hosts))
                if self.lookups.remove(&(hosts[1 - end], found.request)) =>
            {
                Kind::Lookups
            }
            (kind, ..) => kind,
        }
    }

    /// After what time an idle connection through which nothing passes is given up.
    pub(super) fn lost_after(&mut self, id: ConnId) -> Duration {
        let since = self.conns.get(id).map_or(self.now, |conn| conn.since);
        let age = self.now - since;
        keepalive::lost_after(&mut self.draw, age)
    }

    /// Lets a message arrive at an end, in order, when the host there has time for the `work` of
    /// it.
    fn carry(&mut self, id: ConnId, end: usize, (kind, work): (Kind, u32), bytes: Box<[u8]>) {
        if self.is_into_the_void(id, end) {
            return;
        }
        let Some(way) = self.best_way(id) else {
            self.push(RESEND, What::Message { conn: id, end, kind, bytes });
            return;
        };
        let at = self.now + way + self.lost_time(way);
        let Some(host) = self.conns.get(id).map(|conn| conn.ends[end].host) else { return };
        let Some(wait) = self.serve(host, at, work) else { return };
        let at = at + wait;
        let Some(conn) = self.conns.get_mut(id) else { return };
        let at = at.max(conn.ends[end].arrives);
        conn.ends[end].arrives = at;
        self.push_at(at, What::Message { conn: id, end, kind, bytes });
    }

    /// Whether a message goes to an end that is dead, of which its sender learns soon thereby.
    fn is_into_the_void(&mut self, id: ConnId, to: usize) -> bool {
        let Some(conn) = self.conns.get_mut(id) else { return true };
        let is_dead = conn.ends[to].is_dead;
        if is_dead && !core::mem::replace(&mut conn.is_doomed, true) {
            let after = keepalive::lost_after_sending();
            self.push(after, What::Closed { conn: id, end: 1 - to });
        }
        is_dead
    }

    pub(super) fn message(&mut self, id: ConnId, end: usize, kind: Kind, bytes: Box<[u8]>) {
        let Some(conn) = self.conns.get(id) else { return };
        let Some(link) = conn.ends[end].link else { return };
        let (host, from) = (conn.ends[end].host, conn.ends[1 - end].host);
        if conn.ends[1 - end].link.is_some() && !self.is_passable(id) {
            self.push(RESEND, What::Message { conn: id, end, kind, bytes });
            return;
        }
        self.trace.word(u64::from(host));
        self.trace.bytes(&bytes);
        // With the peer's first words comes where it sees us.
        self.observe(id, end);
        let now = self.now;
        if let Some(conn) = self.conns.get_mut(id) {
            let traffic = &mut self.hosts[host as usize].traffic;
            let acknowledged = conn.ends[end].packets.receive(now, kind, traffic);
            self.hosts[from as usize].traffic.control_bytes_received += u64::from(acknowledged);
        }
        if kind == Kind::Topics {
            let peer = self.hosts[from as usize].id;
            if let Ok(message) = TopicMessage::decode(&bytes[TOPIC_LENGTH_LEN..]) {
                self.input(host, Input::TopicMessage { peer, message });
            }
            return;
        }
        match Message::decode(&bytes[LENGTH_LEN..]) {
            Ok(Message::Node(message)) if self.hosts[host as usize].is_adversary => {
                match self.sabotage(host, from, &message) {
                    None => self.input(host, Input::Message { link, message }),
                    Some(Some(answer)) => self.send(link, answer),
                    Some(None) => {}
                }
            }
            Ok(Message::Node(message)) => self.input(host, Input::Message { link, message }),
            Ok(Message::Mux(_)) | Err(_) => {
                debug_assert!(false, "a node wrote what it would not read");
            }
        }
    }

    /// An end hears where its peer sees it on the direct path, once.
    pub(super) fn observe(&mut self, id: ConnId, end: usize) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        if conn.ends[end].is_observed || !conn.is_direct() {
            return;
        }
        let Some(link) = conn.ends[end].link else { return };
        conn.ends[end].is_observed = true;
        let (host, peer) = (conn.ends[end].host, conn.ends[1 - end].host);
        let addr = self.outside(host, peer);
        self.input(host, Input::Observed { link, addr });
    }

    pub(super) fn tell(&mut self, id: ConnId, end: usize, news: News) {
        let Some(conn) = self.conns.get(id) else { return };
        let Some(link) = conn.ends[end].link else { return };
        let (host, peer) = (conn.ends[end].host, conn.ends[1 - end].host);
        let input = match news {
            News::Candidates => Input::PeerCandidates(link),
            News::NoRelay => Input::RelayPathFailed(link),
            News::Closed(path) => Input::PathClosed { link, path },
            News::Opened(path) => {
                let Some(route) = conn.routes.iter().find(|route| route.path == path) else {
                    return;
                };
                let remote = self.remote(host, peer, route.via);
                Input::PathOpened { link, path, remote }
            }
        };
        self.input(host, input);
        if matches!(news, News::Opened(_)) {
            self.observe(id, end);
        }
    }

    /// Closes a connection from one end.
    pub(super) fn close(&mut self, id: ConnId, end: usize) {
        let after = self.best_way(id);
        self.push(Duration::ZERO, What::Closed { conn: id, end });
        match after {
            Some(after) => self.push(after, What::Closed { conn: id, end: 1 - end }),
            None => {
                let after = self.lost_after(id);
                self.push(after, What::Closed { conn: id, end: 1 - end });
            }
        }
    }

    pub(super) fn closed(&mut self, id: ConnId, end: usize) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        let Some(link) = conn.ends[end].link.take() else { return };
        let host = conn.ends[end].host;
        let is_over = conn.ends[1 - end].link.is_none();
        self.forget_conn(host, id);
        if is_over {
            self.lose(id);
        }
        self.input(host, Input::LinkDown(link));
    }

    /// One end goes without a word of its node; the other notices now or after a while.
    pub(super) fn drop_end(&mut self, id: ConnId, host: u32, says_goodbye: bool) {
        let Some(conn) = self.conns.get(id) else { return };
        let end = usize::from(conn.ends[0].host != host);
        let other = conn.ends[1 - end].link;
        let way = self.way_if_on(id);
        self.forget_conn(host, id);
        if let Some(conn) = self.conns.get_mut(id) {
            conn.ends[end].link = None;
            conn.ends[end].is_dead = true;
        }
        if other.is_none() {
            self.lose(id);
            return;
        }
        let after = match way {
            Some(way) if says_goodbye => way,
            _ => self.lost_after(id),
        };
        self.push(after, What::Closed { conn: id, end: 1 - end });
    }

    /// Takes a connection off a host's list, and counts the keep-alives that it took there.
    fn forget_conn(&mut self, host: u32, id: ConnId) {
        let since = self.conns.get(id).map(|conn| conn.since);
        let state = &mut self.hosts[host as usize];
        if let Some(since) = since {
            state.traffic.keep_alive(self.now - since);
        }
        if let Some(at) = state.conns.iter().position(|known| *known == id) {
            state.conns.swap_remove(at);
        }
    }

    /// Frees a connection that neither end has any more.
    pub(super) fn lose(&mut self, id: ConnId) {
        let Some(conn) = self.conns.remove(id) else { return };
        for slot in conn.routes.iter().filter_map(|route| route.via) {
            if let Some(bridge) = self.bridges.get_mut(slot) {
                bridge.users.retain(|user| *user != id);
            }
        }
    }

    /// The driver closes a link that is of no use, and says so at once.
    pub(super) fn close_now(&mut self, link: LinkId) -> bool {
        let Some((id, end)) = self.conns.of_link(link) else { return false };
        let after = self.best_way(id);
        let Some(conn) = self.conns.get_mut(id) else { return false };
        conn.ends[end].link = None;
        let host = conn.ends[end].host;
        let is_over = conn.ends[1 - end].link.is_none();
        self.forget_conn(host, id);
        if is_over {
            self.lose(id);
        } else {
            let after = after.unwrap_or_else(|| self.lost_after(id));
            self.push(after, What::Closed { conn: id, end: 1 - end });
        }
        true
    }

    pub(super) fn idle_out(&mut self, id: ConnId) {
        if self.conns.get(id).is_some() && !self.is_passable(id) {
            self.closed(id, 0);
            self.closed(id, 1);
        }
    }

    /// A retired link is closed by its client if another one is still preferred.
    pub(super) fn retired(&mut self, id: ConnId, end: usize) {
        let Some(conn) = self.conns.get(id) else { return };
        let (host, peer) = (conn.ends[end].host, conn.ends[1 - end].host);
        let (link, peer) = (conn.ends[end].link, self.hosts[peer as usize].id);
        let preferred = self.hosts[host as usize].node().and_then(|node| node.link_to(peer));
        if link.is_some() && preferred.is_some() && preferred != link {
            self.close(id, end);
        }
    }
}

#[cfg(test)]
mod tests {
    use baran_proto::frame::Channel;
    use baran_proto::wire::node::{RelayRenew, Reserve};

    use super::*;

    #[test]
    fn the_type_of_a_message_is_read_from_its_encoding() {
        let of = |message| type_of(&Message::Node(message).encode()[LENGTH_LEN..]);
        assert_eq!(of(NodeMessage::Reserve(Reserve {})), 1);
        assert_eq!(of(NodeMessage::RelayRenew(RelayRenew { channel: Channel(7) })), 7);
        assert_eq!(type_of(&[0x82, 24, 70]), 70);
    }
}
