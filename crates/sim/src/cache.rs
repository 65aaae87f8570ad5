//! Peer caches: whom a node knew when it ran last.
//!
//! The real cache ([`baran_proto::peers`]) is a file of the driver's. Here it is twelve bytes a
//! contact, because a world has some 256 of them for every host; its ranking by time is reduced to
//! an order in which those that were linked last come first.
//!
//! A world that begins has no former run: its caches are drawn. A node knew up to twenty peers of
//! each distance (Kademlia), was linked to its nearest ones and to some others, and behind a NAT
//! had open ones among them as homes. What is drawn is a function of the seed, so it is drawn when
//! it is asked for: most hosts are off, and those that are on want it when they start and when they
//! stop.

use std::borrow::Cow;

use baran_proto::invite::PeerAddr;
use baran_proto::key::Key;
use baran_proto::wire::node::Home;

use crate::draw::Draw;
use crate::net::nat::Nat;
use crate::world::World;

/// Homes remembered of a contact, as many as contacts tell.
pub const HOMES: usize = 2;

/// In the place of a home: none.
pub const NOBODY: u32 = u32::MAX;

/// Contacts of each distance.
const BUCKET: usize = 20;

/// Contacts that a cache holds.
const CACHE: usize = 256;

/// Warm connections of each kind: the nearest, and others.
const WARM: usize = 4;

/// A contact in a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Who.
    pub host: u32,
    /// Through whom it could be reached.
    pub homes: [u32; HOMES],
}

/// Where a host is in the key space.
type Point = (Key, u32);

/// Hosts by their points.
type Sorted = Vec<Point>;

/// What the caches of a world that begins are drawn from.
#[derive(Debug)]
pub(crate) struct Former {
    /// Those that will be on, and others.
    sorted: [Sorted; 2],
    /// Share of a cache that is of the others.
    stale: f64,
    /// Of each host, by its number: through whom it could be reached.
    homes: Vec<[u32; HOMES]>,
}

impl World {
    /// Gives all these hosts the contacts of a former run: most are `on`, which will be on, some
    /// `off`.
    pub fn remember_former(&mut self, all: &[u32], on: &[u32], off: &[u32], stale: f64) {
        let sorted = [self.sorted(on), self.sorted(off)];
        let open = self.open_points(&sorted[0]);
        for host in all {
            self.draw_homes_of(*host, &open);
        }
        let homes = self.hosts.iter().map(|host| host.homes).collect();
        self.former = Some(Former { sorted, stale, homes });
    }

    /// Gives some hosts a cache of contacts of these, and homes.
    pub fn draw_caches_of(&mut self, whom: &[u32], on: &[u32]) {
        let sorted = [self.sorted(on), Sorted::new()];
        let open = self.open_points(&sorted[0]);
        for host in whom {
            self.draw_homes_of(*host, &open);
        }
        let homes = self.hosts.iter().map(|host| host.homes).collect();
        let former = Former { sorted, stale: 0.0, homes };
        for host in whom {
            self.hosts[*host as usize].cache = Some(self.draw_cache(*host, &former));
        }
    }

    /// Those of these hosts that have a public address.
    pub(crate) fn open_of(&self, all: &[u32]) -> Vec<u32> {
        let is_open = |host: &&u32| self.hosts[**host as usize].nat == Nat::Open;
        all.iter().filter(is_open).copied().collect()
    }

    /// Gives a host that was never on some of these peers.
    pub(crate) fn invite(&mut self, host: u32, peers: &[u32], invited: usize) {
        let mut draw = Draw::new(self.config.seed, 5 << 32 | u64::from(host));
        let mut cache: Vec<Known> = Vec::with_capacity(invited);
        for _ in 0..invited * 4 {
            let peer = draw.pick(peers).copied().filter(|peer| *peer != host);
            let is_known = |peer: u32| cache.iter().any(|known| known.host == peer);
            if let Some(peer) = peer.filter(|peer| cache.len() < invited && !is_known(*peer)) {
                cache.push(Known { host: peer, homes: [NOBODY; HOMES] });
            }
        }
        self.hosts[host as usize].cache = Some(cache.into_boxed_slice());
    }

    fn open_points(&self, all: &[Point]) -> Sorted {
        let open = all.iter().filter(|(_, host)| self.hosts[*host as usize].nat == Nat::Open);
        open.copied().collect()
    }

    fn draw_homes_of(&mut self, host: u32, open: &[Point]) {
        let state = &self.hosts[host as usize];
        if state.nat != Nat::Open {
            let mut draw = Draw::new(self.config.seed, 6 << 32 | u64::from(host));
            self.hosts[host as usize].homes = draw_homes(&mut draw, state.key, host, open);
        }
    }

    fn draw_cache(&self, host: u32, former: &Former) -> Box<[Known]> {
        let mut draw = Draw::new(self.config.seed, 4 << 32 | u64::from(host));
        let [on, off] = &former.sorted;
        let key = self.hosts[host as usize].key;
        let mut all = draw_contacts(&mut draw, key, [on, off], former.stale);
        all.retain(|known| *known != host);
        let first = order(&mut draw, &mut all, former.homes[host as usize]);
        let known = |host: u32| Known { host, homes: former.homes[host as usize] };
        first.into_iter().chain(all).take(CACHE).map(known).collect()
    }

    fn sorted(&self, hosts: &[u32]) -> Sorted {
        let mut all: Sorted =
            hosts.iter().map(|host| (self.hosts[*host as usize].key, *host)).collect();
        all.sort_unstable();
        all
    }

    /// Whom a host knew when it was on last.
    pub(crate) fn cache_of(&self, host: u32) -> Cow<'_, [Known]> {
        match (&self.hosts[host as usize].cache, &self.former) {
            (Some(cache), _) => Cow::Borrowed(cache),
            (None, Some(former)) if former.homes.get(host as usize).is_some() => {
                Cow::Owned(self.draw_cache(host, former).into_vec())
            }
            (None, _) => Cow::default(),
        }
    }

    /// What a node that starts is told of its former run.
    pub(crate) fn cached_peers(&self, host: u32) -> Vec<PeerAddr> {
        self.cache_of(host).iter().map(|known| self.contact_of(*known)).collect()
    }

    /// A host as those who were linked to it in a former run know it.
    pub(crate) fn former_contact(&self, host: u32) -> PeerAddr {
        let homes = self.former.as_ref().and_then(|former| former.homes.get(host as usize));
        self.contact_of(Known { host, homes: homes.copied().unwrap_or([NOBODY; HOMES]) })
    }

    fn contact_of(&self, known: Known) -> PeerAddr {
        let addr = |host: u32| self.hosts[host as usize].outside(host, host);
        let homes = known.homes.into_iter().filter(|home| *home != NOBODY);
        let home = |host: u32| Home { id: self.hosts[host as usize].id, addrs: vec![addr(host)] };
        PeerAddr {
            id: self.hosts[known.host as usize].id,
            addrs: vec![addr(known.host)],
            homes: homes.map(home).collect(),
        }
    }

    /// A node stops: its host keeps whom it is linked to, and whom it knew before.
    pub(crate) fn save_cache(&mut self, host: u32) {
        let state = &self.hosts[host as usize];
        let Some(node) = state.node() else { return };
        let homes = self.as_homes(&node.our_homes());
        let before = self.cache_of(host);
        let mut cache = Vec::with_capacity(before.len());
        for conn in &state.conns {
            let Some(conn) = self.conns.get(*conn) else { continue };
            let [a, b] = conn.ends.map(|end| end.host);
            let peer = if a == host { b } else { a };
            let id = self.hosts[peer as usize].id;
            let Some(contact) = node.contact(id).filter(|_| node.serves(id)) else { continue };
            let known = Known { host: peer, homes: self.as_homes(&contact.homes) };
            if !cache.iter().any(|other: &Known| other.host == peer) {
                cache.push(known);
            }
        }
        cache.truncate(CACHE / 2);
        for known in before.iter() {
            if cache.len() < CACHE && !cache.iter().any(|other| other.host == known.host) {
                cache.push(*known);
            }
        }
        let state = &mut self.hosts[host as usize];
        state.cache = Some(cache.into_boxed_slice());
        state.homes = homes;
    }

    fn as_homes(&self, homes: &[Home]) -> [u32; HOMES] {
        let mut hosts = homes.iter().filter_map(|home| self.host_of(home.id));
        core::array::from_fn(|_| hosts.next().unwrap_or(NOBODY))
    }

    /// Gives a newcomer some open peers that are on, as an invite would.
    pub fn introduce(&mut self, host: u32, peers: usize) {
        let mut draw = Draw::new(self.config.seed, 5 << 32 | u64::from(host));
        let mut cache: Vec<Known> = Vec::with_capacity(peers);
        for _ in 0..1_000 {
            let at = draw.below(self.hosts.len());
            let state = &self.hosts[at];
            let at = u32::try_from(at).unwrap_or(NOBODY);
            let is_useful = state.is_on
                && state.nat == Nat::Open
                && at != host
                && (self.config.policy.has_floor() || self.is_serving(at));
            if is_useful && !cache.iter().any(|known| known.host == at) {
                cache.push(Known { host: at, homes: [NOBODY; HOMES] });
            }
            if cache.len() == peers {
                break;
            }
        }
        self.hosts[host as usize].cache = Some(cache.into_boxed_slice());
    }
}

/// The nearest open host, and another one.
fn draw_homes(draw: &mut Draw, key: Key, host: u32, open: &[Point]) -> [u32; HOMES] {
    let mut homes = [NOBODY; HOMES];
    let at = open.partition_point(|(other, _)| *other < key);
    let near = open[at.saturating_sub(4)..open.len().min(at + 4)].iter();
    homes[0] = near.min_by_key(|(other, _)| other.distance(&key)).map_or(NOBODY, |near| near.1);
    let other = draw.pick(open).map_or(NOBODY, |(_, host)| *host);
    if other != host && other != homes[0] {
        homes[1] = other;
    }
    homes
}

/// Takes those out that were linked: homes, the nearest, and some others; shuffles the rest.
fn order(draw: &mut Draw, all: &mut Vec<u32>, homes: [u32; HOMES]) -> Vec<u32> {
    let mut first: Vec<_> = homes.into_iter().filter(|home| *home != NOBODY).collect();
    let near: Vec<_> = all.iter().copied().take(WARM).collect();
    for last in (1..all.len()).rev() {
        let other = draw.below(last + 1);
        all.swap(last, other);
    }
    for known in near.into_iter().chain(all.iter().copied().take(WARM)) {
        if !first.contains(&known) {
            first.push(known);
        }
    }
    all.retain(|known| !first.contains(known));
    first
}

/// Up to [`BUCKET`] hosts of each distance from `key`, the nearest first, about [`CACHE`] in all.
fn draw_contacts(draw: &mut Draw, key: Key, sorted: [&[Point]; 2], stale: f64) -> Vec<u32> {
    // What shares so many bits with the key, in both lists, narrowed bit by bit.
    let mut ranges = sorted;
    let mut buckets = Vec::new();
    for bit in 0..256 {
        let (near, far): (Vec<_>, Vec<_>) = ranges.iter().map(|all| split(all, key, bit)).unzip();
        let mut bucket = Vec::new();
        // Never more draws than would find twenty among twenty.
        for _ in 0..far[0].len().min(BUCKET * 2) {
            let from = if draw.chance(stale) && !far[1].is_empty() { far[1] } else { far[0] };
            let found = draw.pick(from).map(|(_, host)| *host);
            bucket.extend(found.filter(|host| !bucket.contains(host)));
            if bucket.len() == BUCKET {
                break;
            }
        }
        buckets.push(bucket);
        ranges = [near[0], near[1]];
        if ranges[0].len() <= 1 {
            break;
        }
    }
    let mut contacts: Vec<_> = buckets.into_iter().rev().flatten().collect();
    contacts.truncate(CACHE);
    contacts
}

/// Splits a sorted range of keys that share `bit` bits with `key` into those that share the next
/// one too, and those that do not.
fn split(all: &[Point], key: Key, bit: usize) -> (&[Point], &[Point]) {
    let of = |key: &Key| key.as_bytes()[bit / 8] >> (7 - bit % 8) & 1 == 1;
    let (zeros, ones) = all.split_at(all.partition_point(|(other, _)| !of(other)));
    if of(&key) { (ones, zeros) } else { (zeros, ones) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contacts_are_dense_near_and_sparse_far() {
        let mut draw = Draw::new(1, 1);
        let mut all: Sorted =
            (0..5_000).map(|host| (Key::from_bytes(draw.bytes()), host)).collect();
        all.sort_unstable();
        let (key, _) = all[77];
        let contacts = draw_contacts(&mut draw, key, [&all, &[]], 0.0);
        assert!((130..=CACHE).contains(&contacts.len()), "{}", contacts.len());
        let key_of = |host: u32| all.iter().find(|(_, other)| *other == host).unwrap().0;
        let bits: Vec<_> = contacts.iter().map(|host| key_of(*host).common_bits(&key)).collect();
        assert!(bits.is_sorted_by(|near, far| near >= far));
        assert_eq!(bits.iter().filter(|bits| **bits == 0).count(), BUCKET);
    }
}
