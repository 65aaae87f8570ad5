//! The peer cache: whom to turn to after a restart, as data.
//!
//! Modelled on Bitcoin's address manager after the attacks on it (Heilman et al., *Eclipse Attacks
//! on Bitcoin's Peer-to-Peer Network*, 2015): peers that were linked (*tried*) and peers that were
//! only named by others (*new*) are kept apart, each kind in buckets chosen with a secret key. A
//! peer's place follows from its prefix, so whoever holds few prefixes reaches few buckets, cannot
//! aim at one, and never pushes out tried peers with named ones. Where we deviate: the buckets are
//! small sets and not single slots, so that a small network loses nobody to a collision; peers
//! without public addresses (a LAN, a test network) have no prefix to count and are spread by
//! their whole address.
//!
//! Invariants: at most [`ENTRIES_MAX`] peers, at most [`PER_PREFIX_MAX`] of a public prefix,
//! whatever is put in. Failures and the passing of time only change ranks: a machine that had no
//! network for a year, or whose clock jumped, still knows all its peers. What others say of a
//! tried peer changes nothing about it.

mod form;

use core::cmp::Reverse;
use core::time::Duration;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use rand_chacha::ChaCha8Rng;
use rand_core::Rng;

pub use self::form::{CACHE_LEN_MAX, CacheError};
use crate::egress::{Denied, canonical, class_of, is_unicast};
use crate::id::NodeId;
use crate::invite::{ADDRS_MAX, PeerAddr};
use crate::time::UnixTime;
use crate::wire::node::{HOME_ADDRS_MAX, HOMES_MAX, Home};

/// Most peers in a cache (design §6).
pub const ENTRIES_MAX: usize = 2 * BUCKETS * BUCKET_LEN;
/// Most peers of one public prefix: /16 of IPv4, /32 of IPv6 (design §6).
pub const PER_PREFIX_MAX: usize = 12;
/// Peers that are dialled before all others (design §6).
pub const ANCHORS: usize = 2;

/// Buckets of each kind, and peers in each: [`ENTRIES_MAX`] is 256.
const BUCKETS: usize = 16;
const BUCKET_LEN: usize = 8;
/// Buckets of tried peers that one prefix reaches.
const BUCKETS_PER_PREFIX: u64 = 4;
/// Buckets of new peers that one prefix of namers reaches (Bitcoin: a quarter of them too).
const BUCKETS_PER_SOURCE: u64 = 4;

/// In this time a score halves (design §6).
const HALF_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);
/// Most link time that one sighting adds, so that a sighting long after the one before does not
/// count what lay between. Sightings of a link that stands should come more often.
const SIGHTING_MAX: Duration = Duration::from_secs(3600);
/// What the first link to a peer is worth, as seconds of link time.
const FIRST_LINK_S: f64 = 60.0;
/// A new peer that was named longer ago than this gives way to one named today (Bitcoin: 30 days).
const STALE_AFTER: Duration = Duration::from_secs(30 * 24 * 3600);

/// A peer in the cache.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Who, and where it was reached or is said to be.
    pub peer: PeerAddr,
    /// When it was first put in.
    pub first_seen: UnixTime,
    /// When a link to it last stood; for a new peer, when it was last named.
    pub last_seen: UnixTime,
    /// Whether a link to it ever stood.
    pub is_tried: bool,
    /// Attempts in a row that came to nothing.
    pub failures: u8,
    /// Seconds of link time, as of `last_seen`; halves in seven days.
    score: f64,
    bucket: usize,
    /// The public prefixes of its addresses, each once.
    prefixes: Vec<Prefix>,
}

/// How much an entry is worth keeping; the greater the better.
type Rank = (bool, Reverse<u8>, bool, u64);

impl Entry {
    /// Seconds of link time in which older ones count less: half after seven days.
    #[must_use]
    pub fn score(&self, now: UnixTime) -> f64 {
        let age = (now - self.last_seen).as_secs_f64();
        self.score * (-age / HALF_LIFE.as_secs_f64()).exp2()
    }

    fn rank(&self, now: UnixTime) -> Rank {
        let is_fresh = now - self.last_seen <= STALE_AFTER;
        // Not negative, so the bits are in the order of the numbers.
        (self.is_tried, Reverse(self.failures), is_fresh, self.score(now).to_bits())
    }
}

/// The peers that a node knows from earlier. See the module's documentation.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerCache {
    secret: [u8; 32],
    entries: BTreeMap<NodeId, Entry>,
}

impl PeerCache {
    /// An empty cache. The secret is drawn at random by the caller, is kept in the encoded form,
    /// and must not be known to others.
    #[must_use]
    pub fn new(secret: [u8; 32]) -> Self {
        Self { secret, entries: BTreeMap::new() }
    }

    /// Notes a peer. `lived`: a link to it stands or just stood, so its key is proved and it was
    /// reached where `peer` says; to be called when the link comes up, and again at least every
    /// hour while it stands, which makes its score. Otherwise it was only named:
    /// [`PeerCache::heard`] without a known namer.
    pub fn seen(&mut self, now: UnixTime, peer: PeerAddr, lived: bool) {
        if !lived {
            self.heard(now, peer, None);
            return;
        }
        let peer = tidy(peer);
        let old = self.entries.remove(&peer.id);
        let mut entry = Entry {
            first_seen: old.as_ref().map_or(now, |old| old.first_seen),
            last_seen: now,
            is_tried: true,
            failures: 0,
            score: FIRST_LINK_S,
            bucket: 0,
            prefixes: Vec::new(),
            peer,
        };
        let old = old.filter(|old| old.is_tried);
        let place = old.as_ref().map(|old| (old.bucket, old.prefixes.clone()));
        if let Some(old) = old {
            let linked = (now - old.last_seen).min(SIGHTING_MAX);
            entry.score = old.score(now) + linked.as_secs_f64();
            for addr in old.peer.addrs {
                if entry.peer.addrs.len() < ADDRS_MAX && !entry.peer.addrs.contains(&addr) {
                    entry.peer.addrs.push(addr);
                }
            }
            if entry.peer.homes.is_empty() {
                entry.peer.homes = old.peer.homes;
            }
        }
        entry.prefixes = prefixes(&entry.peer);
        entry.bucket = self.tried_bucket(&entry.peer);
        if place.is_some_and(|place| place == (entry.bucket, entry.prefixes.clone())) {
            self.entries.insert(entry.peer.id, entry);
        } else {
            self.place(now, entry);
        }
    }

    /// Notes a peer that somebody named whose address is `from`. Changes nothing about a peer that
    /// was linked before, and where a peer is said to be only if it was not reached there.
    pub fn heard(&mut self, now: UnixTime, peer: PeerAddr, from: Option<IpAddr>) {
        let peer = tidy(peer);
        match self.entries.get_mut(&peer.id) {
            Some(known) if known.is_tried => return,
            // Nor does naming a peer anew move it to where it has no room.
            Some(known) if known.failures == 0 => {
                known.last_seen = now;
                return;
            }
            _ => {}
        }
        let old = self.entries.remove(&peer.id);
        let bucket = self.new_bucket(&peer, from);
        let entry = Entry {
            first_seen: old.as_ref().map_or(now, |old| old.first_seen),
            last_seen: now,
            is_tried: false,
            failures: old.map_or(0, |old| old.failures),
            score: 0.0,
            bucket,
            prefixes: prefixes(&peer),
            peer,
        };
        self.place(now, entry);
    }

    /// An attempt to reach the peer came to nothing: others go before it. It stays, because that
    /// says as much about our own network as about the peer.
    pub fn failed(&mut self, id: NodeId) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.failures = entry.failures.saturating_add(1);
        }
    }

    /// Drops a peer.
    pub fn forget(&mut self, id: NodeId) {
        self.entries.remove(&id);
    }

    /// The peers in the order of dialling: the [`ANCHORS`] with the most link time, then the other
    /// tried ones, then the new ones. The tried are drawn by link time and failures, so that
    /// mostly the better come first and yet not all nodes turn to the same ones.
    #[must_use]
    pub fn order(&self, now: UnixTime, rng: &mut ChaCha8Rng) -> Vec<PeerAddr> {
        let anchors = self.anchors(now);
        let rest = self.entries.values().filter(|entry| !anchors.contains(&entry.peer.id));
        // Efraimidis and Spirakis 2006: in the order of exponential draws, each at its weight's
        // rate, whatever is drawn first is drawn by weight.
        let mut drawn: Vec<_> = rest
            .map(|entry| {
                let uniform = (f64::from(rng.next_u32()) + 1.0) / 2f64.powi(32);
                let discount = f64::from(entry.failures) + 1.0;
                let weight = (entry.score(now) + FIRST_LINK_S) / (discount * discount);
                (!entry.is_tried, -uniform.ln() / weight, &entry.peer)
            })
            .collect();
        drawn.sort_by(|a, b| (a.0.cmp(&b.0)).then(a.1.total_cmp(&b.1)));
        let first = anchors.iter().map(|id| &self.entries[id].peer);
        first.chain(drawn.into_iter().map(|(.., peer)| peer)).cloned().collect()
    }

    /// The tried peers with the most link time, of different public prefixes.
    fn anchors(&self, now: UnixTime) -> Vec<NodeId> {
        let mut tried: Vec<_> = self.entries.values().filter(|entry| entry.is_tried).collect();
        tried.sort_by(|a, b| b.score(now).total_cmp(&a.score(now)));
        let mut anchors: Vec<&Entry> = Vec::new();
        for entry in tried {
            let is_near =
                anchors.iter().flat_map(|a| &a.prefixes).any(|p| entry.prefixes.contains(p));
            if anchors.len() < ANCHORS && !is_near {
                anchors.push(entry);
            }
        }
        anchors.into_iter().map(|entry| entry.peer.id).collect()
    }

    /// How many peers are in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nobody is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The peers, by identity.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// What is known of a peer.
    #[must_use]
    pub fn entry(&self, id: NodeId) -> Option<&Entry> {
        self.entries.get(&id)
    }

    /// Puts an entry whose bucket is chosen where it belongs, if what stands there ranks lower. A
    /// tried one that finds no place, or loses it, is kept among the new ones if these have room.
    fn place(&mut self, now: UnixTime, entry: Entry) {
        if entry.peer.addrs.is_empty() && entry.peer.homes.is_empty() {
            return;
        }
        let Some(outranked) = self.make_room(now, &entry) else {
            if entry.is_tried {
                self.demote(now, entry);
            }
            return;
        };
        self.entries.insert(entry.peer.id, entry);
        for loser in outranked.into_iter().filter(|loser| loser.is_tried) {
            self.demote(now, loser);
        }
    }

    fn demote(&mut self, now: UnixTime, entry: Entry) {
        let bucket = self.new_bucket(&entry.peer, None);
        let entry = Entry { is_tried: false, score: 0.0, bucket, ..entry };
        if self.make_room(now, &entry).is_some() {
            self.entries.insert(entry.peer.id, entry);
        }
    }

    /// Removes what must go for `entry` to fit its bucket and its prefixes. `None`, and nothing
    /// has changed, if that would be better than `entry`.
    fn make_room(&mut self, now: UnixTime, entry: &Entry) -> Option<Vec<Entry>> {
        let mut losers: Vec<NodeId> = Vec::new();
        let same_bucket =
            |other: &Entry| other.is_tried == entry.is_tried && other.bucket == entry.bucket;
        losers.extend(self.worst_of_full(now, entry, BUCKET_LEN, &[], same_bucket)?);
        for prefix in &entry.prefixes {
            let same_prefix = |other: &Entry| other.prefixes.contains(prefix);
            let loser = self.worst_of_full(now, entry, PER_PREFIX_MAX, &losers, same_prefix)?;
            losers.extend(loser);
        }
        Some(losers.iter().filter_map(|id| self.entries.remove(id)).collect())
    }

    /// Of the entries in a set that has no more room: the worst, if it ranks below `entry`; `None`
    /// if it does not. Without `gone`, which are to be removed anyway.
    fn worst_of_full(
        &self,
        now: UnixTime,
        entry: &Entry,
        max: usize,
        gone: &[NodeId],
        is_in_set: impl Fn(&Entry) -> bool,
    ) -> Option<Option<NodeId>> {
        let present = |other: &&Entry| !gone.contains(&other.peer.id) && is_in_set(other);
        if self.entries.values().filter(present).count() < max {
            return Some(None);
        }
        let worst = self.entries.values().filter(present).min_by_key(|other| other.rank(now))?;
        (worst.rank(now) < entry.rank(now)).then_some(Some(worst.peer.id))
    }

    fn tried_bucket(&self, peer: &PeerAddr) -> usize {
        let which = self.hash("which", &[peer.id.as_bytes()]) % BUCKETS_PER_PREFIX;
        self.bucket("tried", &[&place_of(peer), &which.to_be_bytes()])
    }

    fn new_bucket(&self, peer: &PeerAddr, from: Option<IpAddr>) -> usize {
        let namer = from.map(place_of_ip);
        let which = self.hash("which", &[&place_of(peer)]) % BUCKETS_PER_SOURCE;
        self.bucket("new", &[namer.as_deref().unwrap_or_default(), &which.to_be_bytes()])
    }

    fn bucket(&self, kind: &str, parts: &[&[u8]]) -> usize {
        let bucket = self.hash(kind, parts) % BUCKETS as u64;
        usize::try_from(bucket).expect("smaller than the number of buckets")
    }

    fn hash(&self, kind: &str, parts: &[&[u8]]) -> u64 {
        let mut hasher = blake3::Hasher::new_keyed(&self.secret);
        for part in [&[kind.as_bytes()], parts].concat() {
            hasher.update(&[u8::try_from(part.len()).unwrap_or(u8::MAX)]);
            hasher.update(part);
        }
        let hash = *hasher.finalize().as_bytes();
        u64::from_be_bytes(*hash.first_chunk().expect("32 bytes have 8"))
    }
}

/// A block of public addresses that probably has one owner: the family and the leading bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Prefix {
    V4([u8; 2]),
    V6([u8; 4]),
}

/// The prefix that a public address counts for; none for any other.
fn prefix_of(ip: IpAddr) -> Option<Prefix> {
    let is_public = class_of(ip).is_none();
    is_public.then(|| match ip.to_canonical() {
        IpAddr::V4(ip) => Prefix::V4(*ip.octets().first_chunk().expect("4 bytes have 2")),
        IpAddr::V6(ip) => Prefix::V6(*ip.octets().first_chunk().expect("16 bytes have 4")),
    })
}

/// The public prefixes of a peer, each once.
fn prefixes(peer: &PeerAddr) -> Vec<Prefix> {
    let mut found = Vec::new();
    for prefix in peer.addrs.iter().filter_map(|addr| prefix_of(addr.ip())) {
        if !found.contains(&prefix) {
            found.push(prefix);
        }
    }
    found
}

/// What chooses the bucket of an address: its public prefix, else all of it.
fn place_of_ip(ip: IpAddr) -> Vec<u8> {
    match (prefix_of(ip), ip.to_canonical()) {
        (Some(Prefix::V4(prefix)), _) => prefix.to_vec(),
        (Some(Prefix::V6(prefix)), _) => prefix.to_vec(),
        (None, IpAddr::V4(ip)) => ip.octets().to_vec(),
        (None, IpAddr::V6(ip)) => ip.octets().to_vec(),
    }
}

/// What chooses a peer's bucket: a public address if it has one, else any, else its home.
fn place_of(peer: &PeerAddr) -> Vec<u8> {
    let public = peer.addrs.iter().find(|addr| prefix_of(addr.ip()).is_some());
    match public.or_else(|| peer.addrs.first()) {
        Some(addr) => place_of_ip(addr.ip()),
        None => peer.homes.first().map(|home| home.id.as_bytes().to_vec()).unwrap_or_default(),
    }
}

/// The peer within the limits of the wire, with addresses that can be dialled, each once and in
/// one spelling.
fn tidy(peer: PeerAddr) -> PeerAddr {
    let homes = peer.homes.into_iter().take(HOMES_MAX);
    let home = |home: Home| Home { addrs: tidy_addrs(home.addrs, HOME_ADDRS_MAX), ..home };
    PeerAddr {
        id: peer.id,
        addrs: tidy_addrs(peer.addrs, ADDRS_MAX),
        homes: homes.map(home).collect(),
    }
}

fn tidy_addrs(addrs: Vec<SocketAddr>, max: usize) -> Vec<SocketAddr> {
    let mut tidied = Vec::new();
    // A link-local address means nothing without the interface, which is not kept.
    let is_lasting = |addr: &SocketAddr| class_of(addr.ip()) != Some(Denied::LinkLocal);
    let dialable = addrs.into_iter().filter(|addr| is_unicast(*addr) && is_lasting(addr));
    for addr in dialable.map(canonical) {
        if tidied.len() < max && !tidied.contains(&addr) {
            tidied.push(addr);
        }
    }
    tidied
}

#[cfg(test)]
mod tests;
