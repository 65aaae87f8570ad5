//! Nodes that work against the others.
//!
//! An adversary runs a real node, so that it has links and is met like any other, but what it is
//! asked of the index never gets to that node: it names those of its like that are nearest to the
//! key, claims to keep every record, and has none. It lets itself be made a home and then signals
//! for nobody.

use baran_proto::invite::PeerAddr;
use baran_proto::key::Key;
use baran_proto::wire::index::{CONTACTS_MAX, Find, Found, Store, StoreOutcome, Stored};
use baran_proto::wire::{IndexMessage, NodeMessage};

use super::World;
use crate::net::nat::Nat;
use crate::world::Profile;

impl Profile {
    /// An adversary: it can afford a public address.
    #[must_use]
    pub fn adversary() -> Self {
        Self { nat: Some(Nat::Open), is_adversary: true, ..Self::default() }
    }
}

impl World {
    /// Lets all adversaries know each other.
    pub fn enlist_adversaries(&mut self) {
        let all = self.hosts.iter().zip(0..).filter(|(host, _)| host.is_adversary);
        let mut all: Vec<_> = all.map(|(host, number)| (host.key, number)).collect();
        all.sort_unstable();
        self.adversaries = all;
    }

    /// What an adversary does about a message instead of its node: answers, or nothing at all.
    /// `None` if its node may have it.
    pub(super) fn sabotage(&self, message: &NodeMessage) -> Option<Option<NodeMessage>> {
        let answer = match message {
            NodeMessage::Index(IndexMessage::Find(find)) => self.mislead(find),
            NodeMessage::Index(IndexMessage::Store(Store { request, .. })) => {
                IndexMessage::Stored(Stored { request: *request, outcome: StoreOutcome::Kept })
            }
            NodeMessage::Index(IndexMessage::Offer(_)) | NodeMessage::RelayOpen(_) => {
                return Some(None);
            }
            _ => return None,
        };
        Some(Some(NodeMessage::Index(answer)))
    }

    /// Names the adversaries nearest to a key.
    fn mislead(&self, find: &Find) -> IndexMessage {
        let contact = |(_, host): &(Key, u32)| {
            let addr = self.outside(*host, *host);
            PeerAddr { id: self.hosts[*host as usize].id, addrs: vec![addr], homes: Vec::new() }
        };
        let contacts = nearest_of(&self.adversaries, &find.target, CONTACTS_MAX);
        IndexMessage::Found(Found {
            request: find.request,
            contacts: contacts.iter().map(contact).collect(),
            linked: 0,
            records: Vec::new(),
            more: None,
            seats: 0,
        })
    }

    /// The hosts that are on and nearest to a key, the nearest first.
    #[must_use]
    pub fn nearest(&self, key: Key, n: usize) -> Vec<u32> {
        let on = self.hosts.iter().zip(0..).filter(|(host, _)| host.is_on);
        let mut all: Vec<_> = on.map(|(host, number)| (host.key.distance(&key), number)).collect();
        all.sort_unstable();
        all.into_iter().take(n).map(|(_, host)| host).collect()
    }
}

/// The `n` of a sorted list that are nearest to a key.
fn nearest_of(sorted: &[(Key, u32)], target: &Key, n: usize) -> Vec<(Key, u32)> {
    // Neighbours in the order of keys share the longest prefixes, so the smallest subtree around
    // the target that holds enough lies around its place; one bit more makes it certain.
    let mut range = sorted;
    for bit in 0..256 {
        let next = subtree(range, target, bit);
        if next.len() < n {
            break;
        }
        range = next;
    }
    let mut near = range.to_vec();
    near.sort_unstable_by_key(|(key, _)| key.distance(target));
    near.truncate(n);
    near
}

/// Those of a sorted range whose `bit` is the target's.
fn subtree<'a>(range: &'a [(Key, u32)], target: &Key, bit: usize) -> &'a [(Key, u32)] {
    let of = |key: &Key| key.as_bytes()[bit / 8] >> (7 - bit % 8) & 1 == 1;
    let (zeros, ones) = range.split_at(range.partition_point(|(key, _)| !of(key)));
    if of(target) { ones } else { zeros }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::Draw;

    #[test]
    fn the_nearest_of_a_sorted_list_are_the_nearest() {
        let mut draw = Draw::new(1, 1);
        let mut all: Vec<_> = (0..500).map(|n| (Key::from_bytes(draw.bytes()), n)).collect();
        all.sort_unstable();
        for _ in 0..50 {
            let target = Key::from_bytes(draw.bytes());
            let mut expected = all.clone();
            expected.sort_by_key(|(key, _)| key.distance(&target));
            assert_eq!(nearest_of(&all, &target, 12), expected[..12]);
        }
    }
}
