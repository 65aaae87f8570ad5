//! What lies in a slot of the registry.
//!
//! ```text
//! slot  = mutable item (BEP 44) under the key that the network's name and the slot's number give
//! value = version 1 (1 byte) | record* ; record = length (2 bytes BE) | bytes
//! ```
//!
//! Each storing node may have another edition of an item. All that are seen count together, so that
//! one forged edition with a high sequence hides nothing as long as others are to be had.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use baran_proto::egress::{Net, canonical, class_of, is_unicast};
use baran_proto::id::{NodeId, SecretKey};
use baran_proto::invite::PeerAddr;
use baran_proto::record::{CLOCK_SKEW, Content, Record, RecordError};
use baran_proto::time::UnixTime;
use bytes::Bytes;
use mainline::SigningKey;
use rand_chacha::ChaCha8Rng;
use rand_core::Rng;

/// Slots of a network: a joining node can read all of them, and a jammed one is no loss.
pub(super) const SLOTS: u8 = 16;
/// Longest value. BEP 44 allows less than 1,000 bytes with the length before it.
const VALUE_LEN_MAX: usize = 990;
/// Most addresses of one node: of both families.
const ADDRS_MAX: usize = 2;
/// Most peers that one visit finds: as many as the bootstrap remembers.
pub(super) const PEERS_MAX: usize = 8;
/// Least port of a peer: system ports (RFC 6335 §6) belong to services that answer strangers.
const PORT_MIN: u16 = 1024;
/// How long a node may be listed after it was there last. Shorter than a node record may live
/// elsewhere: a registry of dead nodes leads nowhere.
const LISTED_FOR: Duration = Duration::from_secs(3 * 3600);
/// Age at which an item that is full is written anew.
const STALE_AFTER: u64 = 1800;

const VERSION: u8 = 1;

/// The key pair of a slot: whoever knows the network's name has it.
pub(super) fn key(network: &str, slot: u8) -> SigningKey {
    let mut hasher = blake3::Hasher::new_derive_key("baran 1 slot of a public registry");
    hasher.update(&[slot]).update(network.as_bytes());
    SigningKey::from_bytes(hasher.finalize().as_bytes())
}

/// The record by which a node is found at the first of `addrs`.
///
/// # Errors
///
/// Those of [`Record::sign`]; with these contents there are none.
pub(super) fn own(
    secret: &SecretKey,
    network: &str,
    unix: UnixTime,
    addrs: &[SocketAddr],
) -> Result<Record, RecordError> {
    let addrs = addrs.iter().take(ADDRS_MAX).copied().collect();
    let content = Content::Node { addrs, homes: Vec::new(), versions: vec![1] };
    // The index's records of the node have far higher sequences, so this one replaces none.
    Record::sign(secret, network, None, unix.as_secs(), unix + LISTED_FOR, content)
}

/// What was read of slots: valid node records, the newest of each node.
#[derive(Debug, Default)]
pub(super) struct Seen {
    records: BTreeMap<NodeId, Record>,
    /// The highest sequence of an item, if any was there.
    sequence: Option<i64>,
}

impl Seen {
    /// Takes an edition of an item, whatever it holds.
    pub(super) fn take(&mut self, network: &str, unix: UnixTime, sequence: i64, value: &[u8]) {
        self.sequence = self.sequence.max(Some(sequence));
        let Some((&VERSION, mut rest)) = value.split_first() else { return };
        if value.len() > VALUE_LEN_MAX {
            return;
        }
        while let Some((len, tail)) = rest.split_first_chunk::<2>() {
            let len = usize::from(u16::from_be_bytes(*len));
            let Some((bytes, tail)) = tail.split_at_checked(len) else { return };
            rest = tail;
            let Ok(record) = Record::decode(&Bytes::copy_from_slice(bytes), network) else {
                continue;
            };
            if matches!(record.content(), Content::Node { .. }) && record.lifetime(unix).is_ok() {
                self.add(record);
            }
        }
    }

    fn add(&mut self, record: Record) {
        let known = self.records.get(&record.author());
        if known.is_none_or(|known| known.sequence() < record.sequence()) {
            self.records.insert(record.author(), record);
        }
    }

    /// Adds what was seen elsewhere.
    pub(super) fn merge(&mut self, other: &Self) {
        other.records.values().for_each(|record| self.add(record.clone()));
    }

    /// Leaves a node out, and says until when it is listed.
    pub(super) fn remove(&mut self, id: NodeId) -> Option<UnixTime> {
        self.records.remove(&id).map(|record| record.expires())
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether a node has to write: it is not listed for much longer, and either there is room or
    /// the item is about to be forgotten. However many nodes there are, a slot is thereby written
    /// about every half hour.
    pub(super) fn wants(&self, unix: UnixTime, own: &Record, listed: Option<UnixTime>) -> bool {
        let is_listed = listed.is_some_and(|until| until > unix + LISTED_FOR / 2);
        let written = self.sequence.and_then(|at| u64::try_from(at).ok());
        let is_stale = written.is_some_and(|at| unix.as_secs().saturating_sub(at) > STALE_AFTER);
        is_stale || !is_listed && self.has_room(own)
    }

    /// Whether nobody has to leave for `own`.
    pub(super) fn has_room(&self, own: &Record) -> bool {
        let others: usize = self.records.values().map(len_of).sum();
        1 + others + len_of(own) <= VALUE_LEN_MAX
    }

    /// The item that lists `own` beside as many of the others as fit, chosen by lot, and its
    /// sequence: the time, or one above what is there. `None` if somebody drove the sequence far
    /// ahead: the slot is left to him.
    pub(super) fn with(
        &self,
        own: &Record,
        unix: UnixTime,
        rng: &mut ChaCha8Rng,
    ) -> Option<(i64, Vec<u8>)> {
        let clock = |unix: UnixTime| i64::try_from(unix.as_secs()).unwrap_or(i64::MAX - 1);
        let above = self.sequence.map_or(0, |sequence| sequence.saturating_add(1));
        if above > clock(unix + CLOCK_SKEW) {
            return None;
        }
        let mut others: Vec<_> = self.records.values().collect();
        shuffle(&mut others, rng);
        let mut value = vec![VERSION];
        for record in [own].into_iter().chain(others) {
            if value.len() + len_of(record) <= VALUE_LEN_MAX {
                let len = u16::try_from(record.bytes().len()).ok()?;
                value.extend(len.to_be_bytes());
                value.extend_from_slice(record.bytes());
            }
        }
        Some((above.max(clock(unix)), value))
    }

    /// Some of the nodes and where they may be dialled, drawn by lot, of different networks first:
    /// an attacker has many identities, but fewer networks.
    pub(super) fn pick(&self, allow_nets: &[Net], rng: &mut ChaCha8Rng) -> Vec<PeerAddr> {
        let mut peers: Vec<_> = self.records.values().filter_map(|r| peer(r, allow_nets)).collect();
        shuffle(&mut peers, rng);
        let mut networks = BTreeSet::new();
        let (mut picked, rest): (Vec<_>, Vec<_>) =
            peers.into_iter().partition(|peer| networks.insert(prefix(peer.addrs[0].ip())));
        picked.extend(rest);
        picked.truncate(PEERS_MAX);
        picked
    }
}

/// Bytes that a record takes of a value.
fn len_of(record: &Record) -> usize {
    2 + record.bytes().len()
}

/// Where the author may be dialled; `None` if nowhere.
fn peer(record: &Record, allow_nets: &[Net]) -> Option<PeerAddr> {
    let Content::Node { addrs, .. } = record.content() else { return None };
    let addrs: Vec<_> = usable(addrs.iter().copied(), allow_nets);
    (!addrs.is_empty()).then(|| PeerAddr { addrs, ..record.author().into() })
}

/// The first addresses that may be dialled because a stranger names them, or told to strangers.
pub(super) fn usable(
    addrs: impl IntoIterator<Item = SocketAddr>,
    allow_nets: &[Net],
) -> Vec<SocketAddr> {
    let is_usable = |addr: &SocketAddr| {
        let is_allowed = || allow_nets.iter().any(|net| net.contains(addr.ip()));
        is_unicast(*addr)
            && addr.port() >= PORT_MIN
            && (class_of(addr.ip()).is_none() || is_allowed())
    };
    let mut found = Vec::new();
    for addr in addrs.into_iter().map(canonical).filter(is_usable) {
        if found.len() < ADDRS_MAX && !found.contains(&addr) {
            found.push(addr);
        }
    }
    found
}

/// The network of an address, as far as one owner's reach: /16, IPv6 /32.
fn prefix(ip: IpAddr) -> (bool, [u8; 4]) {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            (false, [a, b, 0, 0])
        }
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.octets();
            (true, [a, b, c, d])
        }
    }
}

/// Puts into an order drawn by lot (Fisher and Yates).
pub(super) fn shuffle<T>(items: &mut [T], rng: &mut ChaCha8Rng) {
    for i in (1..items.len()).rev() {
        let below = u64::try_from(i).expect("far fewer items") + 1;
        let other = usize::try_from(rng.next_u64() % below).expect("at most i");
        items.swap(i, other);
    }
}
