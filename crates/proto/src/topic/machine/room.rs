//! One topic of a node.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use rand_chacha::ChaCha8Rng;
use rand_core::Rng;

use super::{DiskAction, RequestId, RestoredTopic, TopicConfig};
use crate::bucket::TokenBucket;
use crate::flat::FlatMap;
use crate::id::{NodeId, SecretKey};
use crate::index::QueryId;
use crate::time::Instant;
use crate::topic::access::Access;
use crate::topic::access::capability::{Chain, Rank};
use crate::topic::access::epoch::EpochChange;
use crate::topic::access::keys::{self, NONCE_LEN};
use crate::topic::entry::{KIND_CONTROL, Signed};
use crate::topic::gossip::Gossip;
use crate::topic::id::{EntryId, TopicId};
use crate::topic::log::{EntryRef, ForkProof, Log};
use crate::topic::presence::Presence;
use crate::topic::repair::Repair;

/// Something that waits to be said.
#[derive(Debug)]
pub(super) struct Draft {
    /// Of the owner; none is asked for what the topic itself needs said.
    pub(super) request: Option<RequestId>,
    pub(super) kind: u8,
    pub(super) payload: Bytes,
}

/// What is known of an author beside its entries.
#[derive(Debug, Clone, Default, Encode, Decode)]
#[cbor(map)]
pub(super) struct Author {
    /// Its capability, verified.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub(super) chain: Option<Vec<u8>>,
    /// Its last entry: what history no longer has counts too.
    #[n(1)]
    pub(super) head: Option<(u64, EntryId)>,
    /// It said two things in one place.
    #[n(2)]
    #[cbor(default)]
    pub(super) is_forked: bool,
    /// The two entries that prove it, to be shown to newcomers after a restart as well.
    #[n(3)]
    pub(super) fork: Option<(ByteVec, ByteVec)>,
}

/// A neighbour: how far its logs and ours agree.
#[derive(Debug, Default)]
pub(super) struct Neighbor {
    pub(super) repair: Repair,
    /// Since when they are equal.
    pub(super) synced_ms: Option<u64>,
}

/// Presences that are looked at and passed on in a second, and at once, whoever sends them: each
/// costs a signature to be verified at every member. Members of themselves say about half as many.
const PRESENCES_PER_S: u64 = 4;
const PRESENCES_AT_ONCE: u64 = 256;

/// Removed members, and those that remained, that are remembered.
const REMOVED_MAX: usize = 1_024;
const REMAINED_MAX: usize = 4_096;

/// What is kept on disk of a topic beside its entries and their authors.
#[derive(Debug, Encode, Decode)]
#[cbor(map)]
pub(super) struct RoomState {
    #[cbor(n(0), with = "minicbor::bytes")]
    pub(super) access: Vec<u8>,
    #[n(1)]
    removed: Vec<(NodeId, u64)>,
    #[n(2)]
    remained: Vec<NodeId>,
}

impl RoomState {
    /// Of a topic that we left.
    pub(super) fn left() -> Self {
        Self { access: Vec::new(), removed: Vec::new(), remained: Vec::new() }
    }

    pub(super) fn encode(&self) -> Bytes {
        minicbor::to_vec(self).expect("writing to memory cannot fail").into()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, minicbor::decode::Error> {
        minicbor::decode(bytes)
    }
}

/// One topic.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) access: Access,
    pub(super) log: Log,
    pub(super) gossip: Gossip,
    pub(super) neighbors: FlatMap<NodeId, Neighbor>,
    /// The query by which the index announces us.
    pub(super) announcement: QueryId,
    /// Entries in the order in which we came to know them, from number `first_arrival`.
    pub(super) arrivals: VecDeque<EntryRef>,
    pub(super) first_arrival: u64,
    /// Capabilities that were verified, of authors.
    pub(super) chains: FlatMap<NodeId, Chain>,
    /// Who was removed, and the last number of each that counts.
    pub(super) removed: FlatMap<NodeId, u64>,
    /// Who remained when others were removed: what they came by may count no more, they do.
    pub(super) remained: BTreeSet<NodeId>,
    /// Forks that were found when entries that waited were applied.
    pub(super) forks: Vec<ForkProof>,
    /// What waits to be said, and what of it is being written: the request of each entry.
    pub(super) outbox: VecDeque<Draft>,
    pub(super) writing: Vec<(Option<RequestId>, Signed)>,
    pub(super) presences: FlatMap<NodeId, Presence>,
    /// Presences that are looked at and passed on in a second.
    pub(super) presence_rate: TokenBucket,
    /// Our last one, as it travels; empty if we have said none.
    pub(super) our_presence: Bytes,
    /// What we say of ourselves.
    pub(super) status: Bytes,
    /// Time of our last presence, in milliseconds since 1970.
    pub(super) said_ms: u64,
    /// Payloads pushed to us that were new, and that we had.
    pub(super) pushed: (u64, u64),
}

impl Room {
    pub(super) fn new(
        me: NodeId,
        access: Access,
        config: &TopicConfig,
        announcement: QueryId,
        now: Instant,
        seed: [u8; 32],
    ) -> Self {
        Self {
            access,
            log: Log::new(me, config.log.clone()),
            gossip: Gossip::new(me, config.gossip, now, seed),
            neighbors: FlatMap::new(),
            announcement,
            arrivals: VecDeque::new(),
            first_arrival: 0,
            chains: FlatMap::new(),
            removed: FlatMap::new(),
            remained: BTreeSet::new(),
            forks: Vec::new(),
            outbox: VecDeque::new(),
            writing: Vec::new(),
            presences: FlatMap::new(),
            presence_rate: TokenBucket::new(PRESENCES_PER_S, PRESENCES_AT_ONCE),
            our_presence: Bytes::new(),
            status: Bytes::new(),
            said_ms: 0,
            pushed: (0, 0),
        }
    }

    /// The last entry in what is on disk of an author.
    pub(super) fn head_of(author: &[u8]) -> Option<(u64, EntryId)> {
        minicbor::decode::<Author>(author).ok()?.head
    }

    pub(super) fn id(&self) -> TopicId {
        self.access.keys().id
    }

    /// What the disk held: signed by us or verified before it was written.
    pub(super) fn restore(&mut self, state: RoomState, restored: RestoredTopic) {
        for (id, last) in state.removed {
            self.removed.insert(id, last);
            self.log.limit(id, last);
        }
        self.remained = state.remained.into_iter().collect();
        let mut heads = Vec::new();
        let mut forked = Vec::new();
        for (id, bytes) in restored.authors {
            let Ok(author) = minicbor::decode::<Author>(&bytes) else { continue };
            if let Some(chain) = author.chain.as_deref().and_then(|bytes| Chain::decode(bytes).ok())
            {
                self.chains.insert(id, chain);
            }
            if let Some((seq, head)) = author.head {
                heads.push((id, seq, head));
            }
            if author.is_forked {
                forked.push((id, author.fork));
            }
        }
        let entries = restored.entries.into_iter().filter_map(|bytes| Signed::decode(bytes).ok());
        self.log.restore(entries.collect(), heads);
        for (author, fork) in forked {
            let read = |(a, b): (ByteVec, ByteVec)| {
                ForkProof::from_entries(Vec::from(a).into(), Vec::from(b).into()).ok()
            };
            match fork.and_then(read).filter(|proof| proof.author() == author) {
                Some(proof) => drop(self.log.quarantine(&proof)),
                None => self.log.set_quarantined(author),
            }
        }
        self.arrivals = self.log.in_order().collect();
    }

    /// What is to be on disk of an author beside its entries.
    pub(super) fn author_action(&self, author: NodeId) -> DiskAction {
        let head = self.log.head(author).map(|span| (span.head, span.head_id));
        let chain = self.chains.get(&author).map(Chain::encode);
        let is_forked = self.log.is_quarantined(author);
        let fork = self.log.proof(author).map(|proof| {
            let (a, b) = proof.entries();
            (a.to_vec().into(), b.to_vec().into())
        });
        let state = Author { chain, head, is_forked, fork };
        let bytes = minicbor::to_vec(&state).expect("writing to memory cannot fail");
        DiskAction::Author(self.id(), author, bytes.into())
    }

    /// What an author may do at a moment, as far as it has shown.
    pub(super) fn rank_of(&self, author: NodeId, at: crate::time::UnixTime) -> Option<Rank> {
        if self.access.keys().is_public() {
            return Some(Rank::Write);
        }
        let chain = self.chains.get(&author)?;
        let grant = chain.last();
        let is_void = chain.issuers().any(|issuer| self.removed.contains_key(&issuer))
            && !self.remained.contains(&author)
            // Of one that was removed itself counts what it said before.
            && !self.removed.contains_key(&author);
        (grant.is_valid(at) && !is_void).then_some(grant.rank)
    }

    /// The epoch of the newest key that we have; 0 in a public topic.
    pub(super) fn epoch(&self) -> u32 {
        self.access.newest_read_key().map_or(0, |(epoch, _)| epoch)
    }

    /// Seals for who has the key of an epoch; `None` if we have not.
    pub(super) fn seal_with(
        &self,
        epoch: u32,
        plain: &[u8],
        rng: &mut ChaCha8Rng,
    ) -> Option<Bytes> {
        let key = self.access.read_key(epoch)?;
        let mut nonce = [0; NONCE_LEN];
        rng.fill_bytes(&mut nonce);
        Some(keys::seal(key, nonce, self.id().as_bytes(), plain).into())
    }

    /// Opens what was sealed so.
    pub(super) fn open(&self, epoch: u32, sealed: &[u8]) -> Option<Bytes> {
        let key = self.access.read_key(epoch)?;
        keys::open(key, self.id().as_bytes(), sealed).map(Into::into)
    }

    /// Carries out a change of the epoch by somebody who may.
    pub(super) fn obey(&mut self, change: &EpochChange, secret: &SecretKey) {
        for (member, last) in change.removed() {
            let last = (*last).min(self.removed.get(member).copied().unwrap_or(u64::MAX));
            if self.removed.len() < REMOVED_MAX || self.removed.contains_key(member) {
                self.removed.insert(*member, last);
                self.log.limit(*member, last);
                self.presences.remove(member);
            }
        }
        let room = REMAINED_MAX.saturating_sub(self.remained.len());
        self.remained.extend(change.members().take(room));
        if let Some(key) = change.open_for(secret) {
            self.access.learn(change.epoch(), key);
        }
        self.open_past();
    }

    /// Learns the keys of earlier epochs: each change holds that of the epoch before it, for who
    /// has the key of its own. Who joined later has that of one epoch only.
    pub(super) fn open_past(&mut self) {
        let changes: Vec<_> = self
            .log
            .in_order()
            .filter_map(|at| self.log.entry(at.author, at.seq))
            .filter(|entry| entry.kind() == KIND_CONTROL)
            .filter_map(|entry| EpochChange::decode(entry.payload()).ok())
            .collect();
        loop {
            let previous = |change: &EpochChange| {
                let before = change.epoch().checked_sub(1)?;
                let key = self.access.read_key(change.epoch())?;
                let is_known = self.access.read_key(before).is_some();
                if is_known { None } else { Some((before, change.previous_with(key)?)) }
            };
            let Some((epoch, key)) = changes.iter().find_map(previous) else { break };
            if !self.access.learn(epoch, key) {
                break;
            }
        }
    }

    /// What is to be on disk of the topic itself.
    pub(super) fn state(&self) -> RoomState {
        RoomState {
            access: self.access.encode(),
            removed: self.removed.iter().map(|(id, last)| (*id, *last)).collect(),
            remained: self.remained.iter().copied().collect(),
        }
    }
}
