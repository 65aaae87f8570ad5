//! Nodes that work against the others.
//!
//! An adversary runs a real node, so that it has links and is met like any other, but what it is
//! asked of the index never gets to that node: it names those of its like that are nearest to the
//! key, claims to keep every record, and has none. It lets itself be made a home and then signals
//! for nobody.
//!
//! It wants seats as any node does, with the capacity that is elected most often. Asked for its
//! vote it gives it to its like at once, without looking at them, and to nobody else; asked who has
//! seats, it says that its like have them. What it cannot do is make an honest elector vote.

use baran_proto::invite::PeerAddr;
use baran_proto::key::Key;
use baran_proto::role::Term;
use baran_proto::role::term::digest;
use baran_proto::wire::index::{
    CONTACTS_MAX, Find, Found, SEATS_NAMED_MAX, Store, StoreOutcome, Stored,
};
use baran_proto::wire::role::{Apply, Ask, Ballot, SEATS_MAX, SeatHint, Seats};
use baran_proto::wire::{IndexMessage, NodeMessage, RoleMessage};

use super::World;
use crate::net::nat::Nat;
use crate::world::Profile;

/// The uplink that an adversary has, or says that it has: 100 Mbit/s.
const SAID_BYTES_PER_S: u64 = 12_500_000;

impl Profile {
    /// An adversary: it can afford a public address and whatever capacity gets it chosen.
    #[must_use]
    pub fn adversary() -> Self {
        let capacity = Some(SAID_BYTES_PER_S);
        Self { nat: Some(Nat::Open), is_adversary: true, capacity, ..Self::default() }
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

    /// What the adversary `host` does about a message of `from` instead of its node: answers, or
    /// nothing at all. `None` if its node may have it.
    pub(super) fn sabotage(
        &self,
        host: u32,
        from: u32,
        message: &NodeMessage,
    ) -> Option<Option<NodeMessage>> {
        let index = |message| Some(Some(NodeMessage::Index(message)));
        match message {
            NodeMessage::Index(IndexMessage::Find(find)) => index(self.mislead(find)),
            NodeMessage::Index(IndexMessage::Store(Store { request, .. })) => {
                index(IndexMessage::Stored(Stored {
                    request: *request,
                    outcome: StoreOutcome::Kept,
                }))
            }
            NodeMessage::Role(RoleMessage::Ask(ask)) => {
                Some(Some(NodeMessage::Role(RoleMessage::Seats(self.boast(host, ask)))))
            }
            NodeMessage::Role(RoleMessage::Apply(apply)) => {
                Some(self.favour(host, from, apply).map(NodeMessage::Role))
            }
            NodeMessage::Index(IndexMessage::Offer(_)) | NodeMessage::RelayOpen(_) => Some(None),
            _ => None,
        }
    }

    /// Names the adversaries nearest to a key, and says that they hold the seats of its region.
    fn mislead(&self, find: &Find) -> IndexMessage {
        let contacts = self.like(&find.target, CONTACTS_MAX);
        IndexMessage::Found(Found {
            request: find.request,
            seats: (1 << contacts.len().min(SEATS_NAMED_MAX)) - 1,
            contacts,
            linked: 0,
            records: Vec::new(),
            more: None,
        })
    }

    /// The same, to who asks for seats.
    fn boast(&self, host: u32, ask: &Ask) -> Seats {
        let bits = self.hosts[host as usize].node().map_or(0, |node| node.role_stats().bits);
        let hint = |contact| SeatHint { contact, load: 0, is_active: true, capacity_log2: u8::MAX };
        let seats: Vec<_> = self.like(&ask.key, SEATS_MAX).into_iter().map(hint).collect();
        Seats { bits, known: u8::try_from(seats.len()).unwrap_or(u8::MAX), seats }
    }

    /// Votes for its like, as if it had measured what they claim.
    fn favour(&self, host: u32, from: u32, apply: &Apply) -> Option<RoleMessage> {
        if !self.hosts[from as usize].is_adversary {
            return None;
        }
        let term = Term::decode(&apply.term).ok()?;
        let vote = self.vote_of(host, &apply.term, Some(term.capacity_log2));
        Some(RoleMessage::Vote(Ballot { term: digest(&apply.term), vote }))
    }

    /// The adversaries nearest to a key, as others are told of them.
    fn like(&self, key: &Key, count: usize) -> Vec<PeerAddr> {
        let contact = |(_, host): &(Key, u32)| {
            let addr = self.outside(*host, *host);
            PeerAddr { id: self.hosts[*host as usize].id, addrs: vec![addr], homes: Vec::new() }
        };
        nearest_of(&self.adversaries, key, count).iter().map(contact).collect()
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
pub(super) fn nearest_of(sorted: &[(Key, u32)], target: &Key, n: usize) -> Vec<(Key, u32)> {
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
    use baran_proto::id::NodeId;
    use baran_proto::node::NodeConfig;
    use baran_proto::role::{Kind, Region};
    use bytes::Bytes;

    use super::*;
    use crate::draw::Draw;
    use crate::world::Config;
    use crate::world::host::PUZZLE;

    #[test]
    fn an_adversary_votes_for_its_like_and_for_nobody_else() {
        let mut world = World::new(Config::default());
        let [bad, like] = [0, 1].map(|_| world.add_host(&Profile::adversary()));
        let honest = world.add_host(&Profile::default());
        world.join(bad);
        let term = Term {
            region: Region::ALL,
            epoch: 7,
            holder: world.hosts[like as usize].id,
            kind: Kind::Ordinary,
            roles: 0,
            capacity_log2: 20,
            electors: 32,
            since_epoch: 7,
            expires_s: 0,
        };
        let term = term.encode();
        let apply = Apply { term: term.clone(), nonce: PUZZLE, mandate: Bytes::new() };
        assert_eq!(world.favour(bad, honest, &apply), None);
        let Some(RoleMessage::Vote(Ballot { term: name, vote })) = world.favour(bad, like, &apply)
        else {
            panic!("a vote");
        };
        assert_eq!((name, vote.measured_log2), (digest(&term), Some(20)));
        assert!(vote.is_signed(&NodeConfig::default().network, &term, NodeId::verify));
    }

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
