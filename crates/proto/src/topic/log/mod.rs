//! The logs of all authors of one topic, in memory and within limits.
//!
//! An author's log is kept as one span, from the first entry that history holds to its head. The
//! head is kept for ever, so that what was trimmed is not taken for missing. An entry whose
//! predecessors are missing waits, within limits, until they come.
//!
//! Two different entries of one author with one number, or one that does not follow the entry
//! before it, prove that the author *forked* its log ([`ForkProof`]): it told two stories. It is
//! quarantined: nothing more of it is applied.
//!
//! Invariants: what is applied follows what was applied before it; an entry is applied once; what
//! is kept stays below [`LogConfig`]'s limits once [`Log::trim`] was called.

mod fork;
mod read;
#[cfg(test)]
mod tests;

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

pub use self::fork::{ForkError, ForkProof};
use super::entry::Signed;
use super::id::{EntryId, ShortId};
use crate::id::NodeId;
use crate::time::UnixTime;

/// Bytes that an entry takes in memory beside its encoding, about.
const ENTRY_OVERHEAD: usize = 256;

/// How far an author's clock may be ahead of ours, in milliseconds.
const AHEAD_MS_MAX: u64 = 600_000;

/// Quarantined authors whose proof is kept, to be shown to others.
const PROOFS_MAX: usize = 256;

/// How long an entry waits for its predecessors, in seconds: some comparisons with others.
const PENDING_S: u64 = 120;

/// How long what is missing of a log is asked of others before the log begins anew, in seconds.
const GAP_S: u64 = 60;

/// Limits of one topic's history.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// Bytes of entries that are kept.
    pub bytes_max: usize,
    /// How long an entry is kept.
    pub age_max: Duration,
    /// Authors that are known at a time.
    pub authors_max: usize,
    /// Entries that wait for their predecessors, and their bytes.
    pub pending_max: usize,
    /// See there.
    pub pending_bytes_max: usize,
    /// Of one author.
    pub pending_per_author_max: usize,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            bytes_max: 8 * 1024 * 1024,
            age_max: Duration::from_secs(30 * 24 * 3600),
            authors_max: 16_384,
            pending_max: 256,
            pending_bytes_max: 1024 * 1024,
            pending_per_author_max: 64,
        }
    }
}

/// An entry by its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntryRef {
    /// Whose log.
    pub author: NodeId,
    /// Which number in it.
    pub seq: u64,
}

/// What is kept of one author's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The first entry that is kept; one more than `head` if none is.
    pub first: u64,
    /// The last entry.
    pub head: u64,
    /// Its name.
    pub head_id: EntryId,
}

/// What became of an entry.
#[derive(Debug)]
pub enum Applied {
    /// It is applied, and with it those that waited for it: in the order of the log.
    New(Vec<EntryRef>),
    /// It was there, or is too old to be compared.
    Known,
    /// It waits for these predecessors.
    Waits {
        /// The first that is missing.
        from: u64,
        /// The last.
        to: u64,
    },
    /// With what was there it proves that its author forked its log. Nothing is applied.
    Forked(Box<ForkProof>),
    /// It cannot be applied.
    Refused(Refusal),
}

/// Why an entry cannot be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Its author is quarantined.
    Quarantined,
    /// It is of the future.
    Future,
    /// There are too many authors.
    Authors,
    /// Too much waits for predecessors.
    Pending,
    /// It does not follow what is known to come before it, of which no proof is kept.
    Backlink,
}

#[derive(Debug)]
struct Author {
    head: u64,
    head_id: EntryId,
    /// The last ones, up to the head.
    entries: VecDeque<Signed>,
    /// What waits for its predecessors, and since when.
    pending: BTreeMap<u64, (UnixTime, Signed)>,
    /// Since when what follows the head is said to be nowhere any more.
    gap_since: Option<UnixTime>,
    is_quarantined: bool,
}

impl Author {
    fn new(head: u64, head_id: EntryId) -> Self {
        Self {
            head,
            head_id,
            entries: VecDeque::new(),
            pending: BTreeMap::new(),
            gap_since: None,
            is_quarantined: false,
        }
    }

    /// What the next entry has to name as the one before it.
    fn before_next(&self) -> Option<EntryId> {
        (self.head > 0).then_some(self.head_id)
    }

    fn first(&self) -> u64 {
        // As many as are kept end at the head.
        self.head + 1 - self.entries.len() as u64
    }

    fn entry(&self, seq: u64) -> Option<&Signed> {
        let at = seq.checked_sub(self.first())?;
        self.entries.get(usize::try_from(at).ok()?)
    }
}

/// The logs of one topic. See the module's documentation.
#[derive(Debug)]
pub struct Log {
    me: NodeId,
    config: LogConfig,
    authors: BTreeMap<NodeId, Author>,
    shorts: BTreeMap<ShortId, EntryRef>,
    /// What is kept, in the order in which it came.
    order: VecDeque<EntryRef>,
    bytes: usize,
    pending: usize,
    pending_bytes: usize,
    /// Entries of others that none of ours names yet, nor one that came after them.
    fresh: BTreeMap<NodeId, u64>,
    proofs: BTreeMap<NodeId, ForkProof>,
    /// The last entries that count of authors that were removed.
    limits: BTreeMap<NodeId, u64>,
    fork: Option<ForkProof>,
    /// What no longer follows from the heads, to be told by `trim`.
    dropped: Vec<EntryRef>,
}

impl Log {
    /// Logs without entries, as the node `me` keeps them.
    #[must_use]
    pub fn new(me: NodeId, config: LogConfig) -> Self {
        Self {
            me,
            config,
            authors: BTreeMap::new(),
            shorts: BTreeMap::new(),
            order: VecDeque::new(),
            bytes: 0,
            pending: 0,
            pending_bytes: 0,
            fresh: BTreeMap::new(),
            proofs: BTreeMap::new(),
            limits: BTreeMap::new(),
            fork: None,
            dropped: Vec::new(),
        }
    }

    /// Takes over what the disk held: entries, and the heads of those logs of which history no
    /// longer holds the last. What does not follow from them is left out.
    pub fn restore(&mut self, mut entries: Vec<Signed>, heads: Vec<(NodeId, u64, EntryId)>) {
        entries.sort_by_key(|entry| (entry.author(), entry.seq()));
        let mut runs: BTreeMap<NodeId, Vec<Signed>> = BTreeMap::new();
        for entry in entries {
            let run = runs.entry(entry.author()).or_default();
            if run.last().is_some_and(|last| entry.backlink() != Some(last.id())) {
                run.clear();
            }
            run.push(entry);
        }
        let mut kept = Vec::new();
        for (author, run) in runs {
            let Some((seq, id)) = run.last().map(|last| (last.seq(), last.id())) else { continue };
            self.insert_author(author, seq, id, VecDeque::new());
            kept.extend(run);
        }
        for (author, seq, id) in heads {
            let is_newer = self.authors.get(&author).is_none_or(|known| known.head < seq);
            if is_newer && seq < u64::MAX {
                kept.retain(|entry| entry.author() != author);
                self.insert_author(author, seq, id, VecDeque::new());
            }
        }
        kept.sort_by_key(|entry| (entry.time_ms(), entry.author(), entry.seq()));
        // Within one log the order of the numbers counts, whatever its author's clock did.
        let mut places: BTreeMap<NodeId, Vec<usize>> = BTreeMap::new();
        for (place, entry) in kept.iter().enumerate() {
            places.entry(entry.author()).or_default().push(place);
        }
        let mut ordered: Vec<Option<Signed>> = kept.iter().map(|_| None).collect();
        kept.sort_by_key(|entry| (entry.author(), entry.seq()));
        let all: Vec<usize> = places.into_values().flatten().collect();
        for (entry, place) in kept.into_iter().zip(all) {
            ordered[place] = Some(entry);
        }
        ordered.into_iter().flatten().for_each(|entry| self.keep(entry));
    }

    fn insert_author(
        &mut self,
        id: NodeId,
        head: u64,
        head_id: EntryId,
        entries: VecDeque<Signed>,
    ) {
        let author = Author { entries, ..Author::new(head, head_id) };
        self.authors.insert(id, author);
    }

    /// Whether an entry is worth the look at its signature: it is neither there nor too old to be
    /// compared with what was.
    #[must_use]
    pub fn is_new(&self, author: NodeId, seq: u64, id: EntryId) -> bool {
        let Some(known) = self.authors.get(&author) else { return true };
        if known.pending.get(&seq).is_some_and(|(_, pending)| pending.id() == id) {
            return false;
        }
        if seq > known.head {
            return true;
        }
        known.entry(seq).is_some_and(|entry| entry.id() != id)
            || seq == known.head && known.head_id != id
    }

    /// Applies an entry whose signature is good. `as_base`: if its predecessors are missing, they
    /// are not to be had from anybody, and the log begins with it.
    pub fn apply(&mut self, now: UnixTime, entry: Signed, as_base: bool) -> Applied {
        let (author, seq) = (entry.author(), entry.seq());
        let ahead = now.as_secs().saturating_mul(1_000).saturating_add(AHEAD_MS_MAX);
        let known = self.authors.get(&author);
        if known.is_some_and(|known| known.is_quarantined) {
            return Applied::Refused(Refusal::Quarantined);
        }
        if entry.time_ms() > ahead {
            return Applied::Refused(Refusal::Future);
        }
        if known.is_none() && self.authors.len() >= self.config.authors_max {
            return Applied::Refused(Refusal::Authors);
        }
        let head = known.map_or(0, |known| known.head);
        if seq <= head {
            let there = known.and_then(|known| known.entry(seq));
            return match there.filter(|there| there.id() != entry.id()) {
                Some(there) => Applied::Forked(Box::new(ForkProof::new(there, &entry))),
                None => Applied::Known,
            };
        }
        if seq > head + 1 {
            return match as_base {
                true if self.is_gap_old(now, author) => {
                    self.rebase(author, &entry);
                    self.follow(entry)
                }
                _ => self.wait(now, head, entry),
            };
        }
        self.follow(entry)
    }

    /// Applies the entry after a head, and what waited for it.
    fn follow(&mut self, entry: Signed) -> Applied {
        let author = entry.author();
        if let Some(known) = self.authors.get_mut(&author) {
            if entry.backlink() != known.before_next() {
                return match known.entries.back() {
                    Some(last) => Applied::Forked(Box::new(ForkProof::new(last, &entry))),
                    None => Applied::Refused(Refusal::Backlink),
                };
            }
            known.gap_since = None;
        }
        let mut new = vec![EntryRef { author, seq: entry.seq() }];
        self.keep(entry);
        while let Some(next) = self.take_next(author) {
            let last = self.authors.get(&author).and_then(|known| known.entries.back());
            if let Some(last) = last.filter(|last| next.backlink() != Some(last.id())) {
                self.fork = Some(ForkProof::new(last, &next));
                break;
            }
            new.push(EntryRef { author, seq: next.seq() });
            self.keep(next);
        }
        Applied::New(new)
    }

    /// Takes from those that wait the one that follows an author's head.
    fn take_next(&mut self, author: NodeId) -> Option<Signed> {
        let known = self.authors.get_mut(&author)?;
        let (_, next) = known.pending.remove(&(known.head + 1))?;
        self.pending -= 1;
        self.pending_bytes -= next.bytes().len();
        Some(next)
    }

    /// Whether nobody had what is missing of a log for so long that it may begin anew. A member
    /// that has less than others, or says so, must not make us forget what we have.
    fn is_gap_old(&mut self, now: UnixTime, author: NodeId) -> bool {
        let Some(known) = self.authors.get_mut(&author).filter(|known| known.head > 0) else {
            return true;
        };
        let since = *known.gap_since.get_or_insert(now);
        now.as_secs().saturating_sub(since.as_secs()) >= GAP_S
    }

    fn wait(&mut self, now: UnixTime, head: u64, entry: Signed) -> Applied {
        let (author, seq, len) = (entry.author(), entry.seq(), entry.bytes().len());
        let config = &self.config;
        let is_full = self.pending >= config.pending_max
            || self.pending_bytes.saturating_add(len) > config.pending_bytes_max;
        let own = self.authors.get(&author).map_or(0, |known| known.pending.len());
        if is_full || own >= config.pending_per_author_max {
            return Applied::Refused(Refusal::Pending);
        }
        let nothing = || Author::new(0, EntryId::from_bytes([0; 32]));
        let known = self.authors.entry(author).or_insert_with(nothing);
        if let Some((_, there)) = known.pending.get(&seq) {
            return match there.id() == entry.id() {
                true => Applied::Known,
                false => Applied::Forked(Box::new(ForkProof::new(there, &entry))),
            };
        }
        known.pending.insert(seq, (now, entry));
        self.pending += 1;
        self.pending_bytes += len;
        Applied::Waits { from: head + 1, to: seq - 1 }
    }

    /// Lets the log of an author end before `entry`, whatever was there.
    fn rebase(&mut self, author: NodeId, entry: &Signed) {
        let id = entry.backlink().unwrap_or_else(|| EntryId::from_bytes([0; 32]));
        let old = self.authors.remove(&author);
        if let Some(old) = old {
            for gone in &old.entries {
                self.bytes -= gone.bytes().len() + ENTRY_OVERHEAD;
                self.shorts.remove(&gone.id().short());
                self.dropped.push(EntryRef { author, seq: gone.seq() });
            }
            self.order.retain(|kept| kept.author != author);
            let entries = old.pending.values().map(|(_, entry)| entry.bytes().len());
            self.pending_bytes -= entries.sum::<usize>();
            self.pending -= old.pending.len();
        }
        self.insert_author(author, entry.seq() - 1, id, VecDeque::new());
    }

    /// Keeps an entry that follows, or that comes from the disk.
    fn keep(&mut self, entry: Signed) {
        let (author, seq) = (entry.author(), entry.seq());
        for (seen, seen_seq) in entry.heads() {
            if self.fresh.get(seen).is_some_and(|fresh| fresh <= seen_seq) {
                self.fresh.remove(seen);
            }
        }
        if author != self.me {
            self.fresh.insert(author, seq);
        }
        self.bytes += entry.bytes().len() + ENTRY_OVERHEAD;
        let at = EntryRef { author, seq };
        self.shorts.insert(entry.id().short(), at);
        self.order.push_back(at);
        match self.authors.get_mut(&author) {
            Some(known) => {
                if seq > known.head {
                    (known.head, known.head_id) = (seq, entry.id());
                }
                known.entries.push_back(entry);
            }
            None => self.insert_author(author, seq, entry.id(), [entry].into()),
        }
    }

    /// Drops the oldest entries beyond the limits; their heads stay. Returns what is dropped.
    pub fn trim(&mut self, now: UnixTime) -> Vec<EntryRef> {
        let oldest = now.as_secs().saturating_sub(self.config.age_max.as_secs());
        let mut dropped = core::mem::take(&mut self.dropped);
        self.drop_orphans(now);
        while let Some(first) = self.order.front().copied() {
            let Some(author) = self.authors.get_mut(&first.author) else { break };
            let Some(entry) = author.entries.front() else { break };
            let is_old = entry.time_ms() / 1_000 < oldest;
            if self.bytes <= self.config.bytes_max && !is_old {
                break;
            }
            self.bytes -= entry.bytes().len() + ENTRY_OVERHEAD;
            self.shorts.remove(&entry.id().short());
            author.entries.pop_front();
            self.order.pop_front();
            dropped.push(first);
        }
        dropped
    }

    /// Lets go of what waited long enough for what does not come.
    fn drop_orphans(&mut self, now: UnixTime) {
        let (pending, bytes) = (&mut self.pending, &mut self.pending_bytes);
        self.authors.retain(|_, author| {
            author.pending.retain(|_, (since, entry)| {
                let is_kept = now.as_secs().saturating_sub(since.as_secs()) < PENDING_S;
                if !is_kept {
                    *pending -= 1;
                    *bytes -= entry.bytes().len();
                }
                is_kept
            });
            author.head > 0 || author.is_quarantined || !author.pending.is_empty()
        });
    }

    /// A fork that was found when entries that waited came to be applied.
    pub fn take_fork(&mut self) -> Option<ForkProof> {
        self.fork.take()
    }

    /// Nothing more of the author whose fork this proves is applied. Returns whether that is so:
    /// where authors are as many as may be, a stranger is not remembered.
    pub fn quarantine(&mut self, proof: &ForkProof) -> bool {
        let id = proof.author();
        self.set_quarantined(id);
        let is_quarantined = self.is_quarantined(id);
        if is_quarantined && self.proofs.len() < PROOFS_MAX {
            self.proofs.insert(id, proof.clone());
        }
        is_quarantined
    }

    /// The same where the proof is not at hand.
    pub fn set_quarantined(&mut self, id: NodeId) {
        if !self.authors.contains_key(&id) {
            if self.authors.len() >= self.config.authors_max {
                return;
            }
            self.insert_author(id, 0, EntryId::from_bytes([0; 32]), VecDeque::new());
        }
        let Some(author) = self.authors.get_mut(&id) else { return };
        author.is_quarantined = true;
        let pending = core::mem::take(&mut author.pending);
        self.pending -= pending.len();
        self.pending_bytes -= pending.values().map(|(_, entry)| entry.bytes().len()).sum::<usize>();
    }

    /// Whether nothing more of an author is applied.
    #[must_use]
    pub fn is_quarantined(&self, author: NodeId) -> bool {
        self.authors.get(&author).is_some_and(|known| known.is_quarantined)
    }

    /// The proof that an author forked its log, if it is at hand.
    #[must_use]
    pub fn proof(&self, author: NodeId) -> Option<&ForkProof> {
        self.proofs.get(&author)
    }

    /// Proofs of forks, to be shown to others.
    pub fn proofs(&self) -> impl Iterator<Item = &ForkProof> {
        self.proofs.values()
    }
}
