//! What is asked of the logs of a topic.

use core::ops::Bound;

use super::{Author, EntryRef, Log, Span};
use crate::id::NodeId;
use crate::topic::entry::{HEADS_MAX, Signed};
use crate::topic::id::{EntryId, ShortId};

impl Log {
    /// An entry that is kept.
    #[must_use]
    pub fn entry(&self, author: NodeId, seq: u64) -> Option<&Signed> {
        self.authors.get(&author)?.entry(seq)
    }

    /// An entry that is kept, by its short name.
    #[must_use]
    pub fn by_short(&self, id: ShortId) -> Option<&Signed> {
        let at = self.shorts.get(&id)?;
        self.entry(at.author, at.seq)
    }

    /// What is kept of an author's log; `None` if nothing was applied.
    #[must_use]
    pub fn head(&self, author: NodeId) -> Option<Span> {
        self.authors.get(&author).and_then(span)
    }

    /// The logs, in the order of their authors.
    pub fn heads(&self) -> impl Iterator<Item = (NodeId, Span)> {
        self.authors.iter().filter_map(|(id, author)| Some((*id, span(author)?)))
    }

    /// Those that are compared with others', of the authors from `from` on, before `to`.
    pub fn compared(
        &self,
        from: NodeId,
        to: Option<NodeId>,
    ) -> impl DoubleEndedIterator<Item = (NodeId, Span)> {
        let to = to.map_or(Bound::Unbounded, |to| Bound::Excluded(to.max(from)));
        let range = self.authors.range((Bound::Included(from), to));
        range
            .filter(|(_, author)| !author.is_quarantined)
            .filter_map(|(id, author)| Some((*id, self.counted(*id, span(author)?)?)))
    }

    /// What counts of a log: up to its limit, if it has one.
    fn counted(&self, author: NodeId, span: Span) -> Option<Span> {
        let Some(last) = self.limits.get(&author).filter(|last| **last < span.head) else {
            return Some(span);
        };
        let head_id = self.entry(author, *last)?.id();
        Some(Span { head: *last, head_id, ..span })
    }

    /// Nothing of an author after its entry `last` counts when logs are compared: some have applied
    /// more, before they knew.
    pub fn limit(&mut self, author: NodeId, last: u64) {
        self.limits.insert(author, last);
    }

    /// A digest of the heads of such a range: equal for who has the same.
    #[must_use]
    pub fn fingerprint(&self, from: NodeId, to: Option<NodeId>) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("baran 1 heads of a topic");
        for (author, span) in self.compared(from, to) {
            hasher.update(author.as_bytes());
            hasher.update(&span.head.to_be_bytes());
            hasher.update(span.head_id.as_bytes());
        }
        *hasher.finalize().as_bytes()
    }

    /// The digest of all.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        self.fingerprint(NodeId::from_bytes([0; 32]), None)
    }

    /// What our next entry begins with: its number, the one before it, and what of others it is
    /// the first to have seen, at most [`HEADS_MAX`].
    #[must_use]
    pub fn next_draft_parts(&self) -> (u64, Option<EntryId>, Vec<(NodeId, u64)>) {
        let span = self.head(self.me);
        let heads = self.fresh.iter().map(|(author, seq)| (*author, *seq)).take(HEADS_MAX);
        (span.map_or(1, |span| span.head + 1), span.map(|span| span.head_id), heads.collect())
    }

    /// Entries that are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Bytes that they take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What is kept, in the order in which it came.
    pub fn in_order(&self) -> impl Iterator<Item = EntryRef> {
        self.order.iter().copied()
    }
}

fn span(author: &Author) -> Option<Span> {
    let Author { head, head_id, .. } = author;
    (*head > 0).then(|| Span { first: author.first(), head: *head, head_id: *head_id })
}
