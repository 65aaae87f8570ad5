//! QUIC connections: two ends, their paths, and what flowed.
//!
//! One slab for the whole world. A link's number as its node knows it says where in the slab it
//! is, so no host needs a table of its own.

use baran_proto::node::LinkId;
use baran_proto::path::PathId;
use baran_proto::time::Instant;

/// A connection; its slot may be taken again, its generation never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnId {
    /// Where in the slab.
    pub slot: u32,
    /// Which user of that slot.
    pub generation: u32,
}

/// One end.
#[derive(Debug, Clone, Copy)]
pub struct End {
    /// Whose.
    pub host: u32,
    /// The link's number there; `None` before it is up and after it is gone.
    pub link: Option<LinkId>,
    /// Nothing sent to this end arrives before what was sent earlier.
    pub arrives: Instant,
    /// Packets of this end: when the last left, how full it is, what waits for acknowledgement.
    pub packets: super::account::Packets,
    /// The peer's report where it sees this end came.
    pub is_observed: bool,
    /// Its host was switched off.
    pub is_dead: bool,
    /// The address outside is among the candidates that this end named.
    pub has_candidate: bool,
}

/// A path: straight, or through a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Its number in QUIC.
    pub path: PathId,
    /// The slot of the channel, if it is relayed.
    pub via: Option<u32>,
}

/// A connection.
#[derive(Debug)]
pub struct Conn {
    /// Which user of the slot.
    pub generation: u32,
    /// Client and server.
    pub ends: [End; 2],
    /// Open paths.
    pub routes: Vec<Route>,
    /// The next path's number.
    pub next_path: u32,
    /// When it came up.
    pub since: Instant,
    /// One end is dead and the other has sent into the void, so it will notice soon.
    pub is_doomed: bool,
}

impl Conn {
    /// Whether a direct path is open.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.routes.iter().any(|route| route.via.is_none())
    }
}

/// All connections.
#[derive(Debug, Default)]
pub struct Conns {
    all: Vec<Option<Conn>>,
    generations: Vec<u32>,
    free: Vec<u32>,
    links: u64,
    standing: usize,
}

/// Bits of a link's number that say slot and end; those above count.
const SLOT_BITS: u32 = 32;

impl Conns {
    /// Adds a connection from one host to another; no end is up yet.
    ///
    /// # Panics
    ///
    /// With more than 2³¹ connections.
    pub fn add(&mut self, now: Instant, hosts: [u32; 2], via: Option<u32>) -> ConnId {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.all.push(None);
            self.generations.push(0);
            u32::try_from(self.all.len() - 1).expect("fewer connections than fit in memory")
        });
        let generation = self.generations[slot as usize];
        let end = |host| End {
            host,
            link: None,
            arrives: now,
            packets: super::account::Packets::default(),
            is_observed: false,
            is_dead: false,
            has_candidate: false,
        };
        let routes = vec![Route { path: PathId(0), via }];
        let conn = Conn {
            generation,
            ends: hosts.map(end),
            routes,
            next_path: 1,
            since: now,
            is_doomed: false,
        };
        self.all[slot as usize] = Some(conn);
        self.standing += 1;
        ConnId { slot, generation }
    }

    /// A connection, unless it is gone.
    #[must_use]
    pub fn get(&self, id: ConnId) -> Option<&Conn> {
        self.all[id.slot as usize].as_ref().filter(|conn| conn.generation == id.generation)
    }

    /// A connection, unless it is gone.
    pub fn get_mut(&mut self, id: ConnId) -> Option<&mut Conn> {
        self.all[id.slot as usize].as_mut().filter(|conn| conn.generation == id.generation)
    }

    /// Removes a connection.
    pub fn remove(&mut self, id: ConnId) -> Option<Conn> {
        self.get(id)?;
        let conn = self.all[id.slot as usize].take()?;
        let generation = &mut self.generations[id.slot as usize];
        *generation = generation.wrapping_add(1);
        self.free.push(id.slot);
        self.standing -= 1;
        Some(conn)
    }

    /// Brings one end up and numbers its link.
    pub fn bring_up(&mut self, id: ConnId, end: usize) -> Option<LinkId> {
        self.links += 1;
        let number = self.links << SLOT_BITS | u64::from(id.slot) << 1 | end as u64;
        let link = LinkId(number);
        self.get_mut(id)?.ends[end].link = Some(link);
        Some(link)
    }

    /// The connection of a link that is up, and which end of it.
    #[must_use]
    pub fn of_link(&self, link: LinkId) -> Option<(ConnId, usize)> {
        let end = usize::from(link.0 & 1 == 1);
        let slot = u32::try_from((link.0 & ((1 << SLOT_BITS) - 1)) >> 1).ok()?;
        let conn = self.all.get(slot as usize)?.as_ref()?;
        let id = ConnId { slot, generation: conn.generation };
        (conn.ends[end].link == Some(link)).then_some((id, end))
    }

    /// Connections that stand.
    #[must_use]
    pub fn len(&self) -> usize {
        self.standing
    }

    /// Whether none stands.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.standing == 0
    }

    /// The number of every connection that stands, in the order of slots.
    pub fn iter(&self) -> impl Iterator<Item = (ConnId, &Conn)> {
        self.all.iter().enumerate().filter_map(|(slot, conn)| {
            let conn = conn.as_ref()?;
            let slot = u32::try_from(slot).ok()?;
            Some((ConnId { slot, generation: conn.generation }, conn))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_finds_its_connection_until_it_is_gone() {
        let mut conns = Conns::default();
        let a = conns.add(Instant::ZERO, [1, 2], None);
        let b = conns.add(Instant::ZERO, [3, 4], None);
        let link = conns.bring_up(b, 1).unwrap();
        assert_eq!(conns.of_link(link), Some((b, 1)));
        assert!(conns.bring_up(a, 0).unwrap() > link, "numbers grow");
        assert_eq!(conns.remove(b).map(|conn| conn.ends[1].host), Some(4));
        assert_eq!(conns.of_link(link), None);
        let c = conns.add(Instant::ZERO, [5, 6], None);
        assert_eq!(c.slot, b.slot);
        assert!(conns.get(b).is_none() && conns.of_link(link).is_none());
        assert_eq!(conns.len(), 2);
    }
}
