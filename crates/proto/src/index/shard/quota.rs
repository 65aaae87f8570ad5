//! Who uses how much of a shard.
//!
//! Space is counted for authors, for the networks that records come from (identities are free,
//! networks are not), and in all. Counting never fails and limits are asked for before, so the
//! books hold whatever was put in.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::ShardConfig;
use crate::id::NodeId;
use crate::wire::index::RecordKind;

/// The network that a record came from: the smallest that one customer is commonly given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Prefix {
    /// A /24.
    V4([u8; 3]),
    /// A /48.
    V6([u8; 6]),
}

impl Prefix {
    pub(super) fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => {
                let [a, b, c, _] = ip.octets();
                Self::V4([a, b, c])
            }
            IpAddr::V6(ip) => {
                let [a, b, c, d, e, f, ..] = ip.octets();
                Self::V6([a, b, c, d, e, f])
            }
        }
    }
}

/// What one record, kept or about to be, takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim {
    pub(super) author: NodeId,
    pub(super) kind: RecordKind,
    pub(super) prefix: Option<Prefix>,
    pub(super) bytes: usize,
}

impl Claim {
    /// A node has one node record and any number of others.
    fn weight(&self) -> usize {
        usize::from(self.kind != RecordKind::Node)
    }
}

#[derive(Debug, Default)]
struct AuthorUse {
    /// Values and announcements.
    records: usize,
    /// Slots remembered.
    slots: usize,
}

#[derive(Debug, Default)]
struct PrefixUse {
    bytes: usize,
    slots: usize,
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) records: usize,
    pub(super) bytes: usize,
    slots: usize,
    authors: BTreeMap<NodeId, AuthorUse>,
    prefixes: BTreeMap<Prefix, PrefixUse>,
    /// The prefixes by what they use.
    heaviest: BTreeSet<(usize, Prefix)>,
}

impl Ledger {
    /// Whether a record fits, in place of another one, in a slot that may be new.
    pub(super) fn fits(
        &self,
        config: &ShardConfig,
        claim: &Claim,
        replaced: Option<&Claim>,
        is_new_slot: bool,
    ) -> bool {
        let freed = |prefix| replaced.filter(|old| old.prefix == prefix).map_or(0, |old| old.bytes);
        if let Some(author) = self.authors.get(&claim.author) {
            let records = author.records + claim.weight() - replaced.map_or(0, Claim::weight);
            if records > config.slots_per_author_max
                || is_new_slot && author.slots >= config.sequences_per_author_max
            {
                return false;
            }
        }
        if is_new_slot && self.slots >= config.sequences_max {
            return false;
        }
        let mut used = claim.bytes;
        if let Some(prefix) = claim.prefix
            && let Some(used_before) = self.prefixes.get(&prefix)
        {
            used = (used_before.bytes + claim.bytes).saturating_sub(freed(claim.prefix));
            if is_new_slot && used_before.slots >= config.sequences_per_prefix_max {
                return false;
            }
        }
        if claim.prefix.is_some() && used > config.bytes_per_prefix_max {
            return false;
        }
        let bytes = (self.bytes + claim.bytes).saturating_sub(replaced.map_or(0, |old| old.bytes));
        let records = self.records + usize::from(replaced.is_none());
        let is_full = bytes > config.bytes_max || records > config.records_max;
        !is_full || self.heaviest.last().is_some_and(|(most, _)| *most > used)
    }

    /// Whether more is kept than may be.
    pub(super) fn is_over(&self, config: &ShardConfig) -> bool {
        self.bytes > config.bytes_max || self.records > config.records_max
    }

    /// The prefix that uses most.
    pub(super) fn heaviest(&self) -> Option<Prefix> {
        self.heaviest.last().map(|(_, prefix)| *prefix)
    }

    /// Counts a record.
    pub(super) fn add(&mut self, claim: &Claim) {
        self.records += 1;
        self.bytes += claim.bytes;
        self.author(claim.author, |author| author.records += claim.weight());
        self.prefix(claim.prefix, |prefix| prefix.bytes += claim.bytes);
    }

    /// Takes that back.
    pub(super) fn remove(&mut self, claim: &Claim) {
        self.records -= 1;
        self.bytes -= claim.bytes;
        self.author(claim.author, |author| author.records -= claim.weight());
        self.prefix(claim.prefix, |prefix| prefix.bytes -= claim.bytes);
    }

    /// Counts a slot whose sequence is remembered.
    pub(super) fn remember(&mut self, author: NodeId, prefix: Option<Prefix>) {
        self.slots += 1;
        self.author(author, |author| author.slots += 1);
        self.prefix(prefix, |prefix| prefix.slots += 1);
    }

    /// Takes that back.
    pub(super) fn forget(&mut self, author: NodeId, prefix: Option<Prefix>) {
        self.slots -= 1;
        self.author(author, |author| author.slots -= 1);
        self.prefix(prefix, |prefix| prefix.slots -= 1);
    }

    fn author(&mut self, id: NodeId, change: impl FnOnce(&mut AuthorUse)) {
        let author = self.authors.entry(id).or_default();
        change(author);
        if author.records == 0 && author.slots == 0 {
            self.authors.remove(&id);
        }
    }

    fn prefix(&mut self, prefix: Option<Prefix>, change: impl FnOnce(&mut PrefixUse)) {
        let Some(prefix) = prefix else { return };
        let used = self.prefixes.entry(prefix).or_default();
        let before = used.bytes;
        change(used);
        let (bytes, is_gone) = (used.bytes, used.bytes == 0 && used.slots == 0);
        if bytes != before {
            self.heaviest.remove(&(before, prefix));
            if bytes > 0 {
                self.heaviest.insert((bytes, prefix));
            }
        }
        if is_gone {
            self.prefixes.remove(&prefix);
        }
    }
}
