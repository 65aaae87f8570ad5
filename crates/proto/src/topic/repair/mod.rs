//! How two members find out what one has and the other lacks, and fetch it.
//!
//! They compare a digest of all heads. If it differs, they compare ranges of the authors, each
//! split in 16 until few enough are left to be named (Meyer, *Range-Based Set
//! Reconciliation*, 2023), so that the cost follows the differences and not the authors. Then
//! each asks for what it lacks, in batches, one at a time: who fetches sets the pace.
//!
//! Where the other's history begins later than ours ends, our log begins anew there.
//!
//! Invariants: a message costs at most 16 others; what is wanted is bounded; a peer
//! whose answers bring nothing new is asked no more until the next comparison.

mod message;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use bytes::Bytes;

pub use self::message::{
    Asked, ENTRIES_MAX, HEADS_MAX, Head, RANGES_MAX, Range, RepairMessage, SPANS_MAX, Summary,
};
use super::entry::Signed;
use super::log::{Log, Span};
use crate::id::NodeId;

/// Parts into which a range is split.
const SPLIT: usize = 16;

/// Authors up to which a range is not split but named.
const NAMED_MAX: usize = 48;

/// Messages that one of the other's may cause.
const MESSAGES_MAX: usize = 16;

/// Logs that are wanted of one peer at a time.
const WANTS_MAX: usize = 4_096;

/// Bytes of entries of one answer; one entry at least.
const BATCH_LEN_MAX: usize = 28 * 1024;

/// What a message of the peer leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Send this.
    Send(RepairMessage),
    /// A capability of an author, to be verified.
    Chain(NodeId, Bytes),
    /// An entry, to be verified and applied.
    Entry {
        /// Which.
        entry: Box<Signed>,
        /// Whether its predecessors, if they are missing, are not to be had of the peer.
        as_base: bool,
    },
    /// Both have the same.
    Equal,
    /// They do not.
    Differs,
    /// The peer's message makes no sense.
    Nonsense,
}

/// What is wanted of one log.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    /// Where the peer's begins.
    first: u64,
    to: u64,
    /// The peer has another entry in the place of our head: to be had as proof.
    is_conflict: bool,
}

/// The comparison with one peer.
#[derive(Debug, Default)]
pub struct Repair {
    wanted: BTreeMap<NodeId, Wanted>,
    /// What was asked for and is not answered.
    asked: Option<Vec<Asked>>,
    /// What was asked for before: if that is still what is missing, it is not to be had.
    last: Vec<Asked>,
    /// An answer is due that is not waited for.
    is_late: bool,
}

impl Repair {
    /// Begins to compare.
    #[must_use]
    pub fn start(&mut self, log: &Log) -> RepairMessage {
        // An answer that has not come by now is not waited for; when it comes it is welcome.
        self.is_late |= self.asked.take().is_some();
        RepairMessage::Digest { digest: log.digest().into(), is_asking: true }
    }

    /// Takes a message of the peer. `chain_of` gives the capability of an author.
    pub fn handle(
        &mut self,
        log: &Log,
        chain_of: &dyn Fn(NodeId) -> Option<Bytes>,
        message: RepairMessage,
    ) -> Vec<Reply> {
        match message {
            RepairMessage::Digest { digest, is_asking } => {
                let ours = log.digest();
                let is_equal = *digest == ours;
                let mut replies = vec![if is_equal { Reply::Equal } else { Reply::Differs }];
                if is_equal && is_asking {
                    let digest = ours.into();
                    replies.push(Reply::Send(RepairMessage::Digest { digest, is_asking: false }));
                } else if is_asking {
                    let mut ranges = Vec::new();
                    describe(log, NodeId::from_bytes([0; 32]), None, &mut ranges);
                    replies.extend(messages(ranges));
                }
                replies
            }
            RepairMessage::Ranges(ranges) => self.compare(log, ranges),
            RepairMessage::Ask(spans) => serve(log, chain_of, &spans).into_iter().collect(),
            RepairMessage::Entries { chains, entries } => self.take(chains, entries),
        }
    }

    fn compare(&mut self, log: &Log, ranges: Vec<Range>) -> Vec<Reply> {
        let mut answers = Vec::new();
        let mut heads_left = HEADS_MAX;
        // In order and without overlap: what an answer costs is bounded by what we have.
        let is_apart = |pair: &[Range]| pair[0].to.is_some_and(|to| to <= pair[1].from);
        if !ranges.windows(2).all(is_apart) {
            return vec![Reply::Nonsense];
        }
        for Range { from, to, summary } in ranges {
            if to.is_some_and(|to| to <= from) {
                return vec![Reply::Nonsense];
            }
            match summary {
                Summary::Fingerprint(theirs) if *theirs == log.fingerprint(from, to) => {}
                Summary::Fingerprint(_) => describe(log, from, to, &mut answers),
                Summary::Heads { heads, is_answer } => {
                    let is_ordered = heads.is_sorted_by(|a, b| a.author < b.author);
                    let is_within = heads
                        .iter()
                        .all(|head| head.author >= from && to.is_none_or(|to| head.author < to));
                    let Some(left) = heads_left.checked_sub(heads.len()) else {
                        return vec![Reply::Nonsense];
                    };
                    heads_left = left;
                    if !is_ordered || !is_within {
                        return vec![Reply::Nonsense];
                    }
                    self.want(log, &heads);
                    if !is_answer {
                        let summary = lacking(log, from, to, &heads);
                        answers.extend(summary.map(|summary| Range { from, to, summary }));
                    }
                }
            }
        }
        messages(answers).collect()
    }

    /// Notes what the peer has and we lack.
    fn want(&mut self, log: &Log, heads: &[Head]) {
        for head in heads {
            if head.first > head.head.saturating_add(1) || log.is_quarantined(head.author) {
                continue;
            }
            let ours = log.head(head.author);
            let is_conflict = ours.is_some_and(|ours| {
                ours.head == head.head && ours.head_id.short() != head.id && head.first <= head.head
            });
            let is_behind = ours.is_none_or(|ours| ours.head < head.head);
            let has_any = head.first <= head.head;
            if (is_conflict || is_behind && has_any) && self.wanted.len() < WANTS_MAX {
                let wanted = Wanted { first: head.first, to: head.head, is_conflict };
                self.wanted.insert(head.author, wanted);
            }
        }
    }

    /// What is to be asked for next, if nothing is and anything is wanted.
    pub fn next(&mut self, log: &Log) -> Option<RepairMessage> {
        if self.asked.is_some() {
            return None;
        }
        self.wanted.retain(|author, wanted| {
            wanted.is_conflict || log.head(*author).is_none_or(|ours| ours.head < wanted.to)
        });
        let spans: Vec<_> = self
            .wanted
            .iter()
            .take(SPANS_MAX)
            .map(|(author, wanted)| {
                let next = log.head(*author).map_or(1, |ours| ours.head.saturating_add(1));
                let from = if wanted.is_conflict { wanted.to } else { next.max(wanted.first) };
                Asked { author: *author, from, to: wanted.to }
            })
            .collect();
        if spans.is_empty() {
            return None;
        }
        if spans == self.last {
            self.wanted.clear();
            self.last.clear();
            return None;
        }
        self.last.clone_from(&spans);
        // Asked for once; what it brings is found in the answer.
        self.wanted.retain(|_, wanted| !wanted.is_conflict);
        self.asked = Some(spans.clone());
        Some(RepairMessage::Ask(spans))
    }

    /// Takes what was asked for.
    fn take(&mut self, chains: Vec<(NodeId, Bytes)>, entries: Vec<Bytes>) -> Vec<Reply> {
        let asked = match self.asked.take() {
            Some(asked) => asked,
            None if core::mem::take(&mut self.is_late) => Vec::new(),
            None => return vec![Reply::Nonsense],
        };
        if entries.is_empty() {
            // Nothing of it is to be had: not before the next comparison.
            for span in &asked {
                self.wanted.remove(&span.author);
            }
        }
        let mut replies: Vec<_> =
            chains.into_iter().map(|(author, chain)| Reply::Chain(author, chain)).collect();
        let mut before = None;
        for bytes in entries {
            let Ok(entry) = Signed::decode(bytes) else {
                replies.push(Reply::Nonsense);
                return replies;
            };
            let author = entry.author();
            let wanted = self.wanted.get(&author).filter(|_| before != Some(author));
            let as_base = wanted.is_some_and(|wanted| entry.seq() >= wanted.first);
            before = Some(author);
            replies.push(Reply::Entry { entry: Box::new(entry), as_base });
        }
        replies
    }
}

/// Describes what we have in a range, split if that is much.
fn describe(log: &Log, from: NodeId, to: Option<NodeId>, ranges: &mut Vec<Range>) {
    let authors: Vec<_> = log.compared(from, to).map(|(author, _)| author).collect();
    if authors.len() <= NAMED_MAX {
        let heads = log.compared(from, to).map(head).collect();
        let summary = Summary::Heads { heads, is_answer: false };
        ranges.push(Range { from, to, summary });
        return;
    }
    let part = authors.len().div_ceil(SPLIT);
    let mut begin = from;
    let mut ends: Vec<_> = authors.iter().step_by(part).skip(1).copied().map(Some).collect();
    ends.push(to);
    for end in ends {
        let summary = Summary::Fingerprint(log.fingerprint(begin, end).into());
        ranges.push(Range { from: begin, to: end, summary });
        begin = end.unwrap_or(begin);
    }
}

/// What we have in a range that a peer which has these heads lacks.
fn lacking(log: &Log, from: NodeId, to: Option<NodeId>, theirs: &[Head]) -> Option<Summary> {
    let lacks = |author: &NodeId, span: &Span| {
        let found = theirs.binary_search_by_key(author, |head| head.author);
        let their = found.ok().map(|at| &theirs[at]);
        their.is_none_or(|their| {
            their.head < span.head || their.head == span.head && their.id != span.head_id.short()
        })
    };
    let heads: Vec<_> = log
        .compared(from, to)
        .filter(|(author, span)| lacks(author, span))
        .map(head)
        .take(HEADS_MAX)
        .collect();
    (!heads.is_empty()).then_some(Summary::Heads { heads, is_answer: true })
}

fn head((author, span): (NodeId, Span)) -> Head {
    Head { author, first: span.first, head: span.head, id: span.head_id.short() }
}

/// Packs ranges into messages within their limits.
fn messages(ranges: Vec<Range>) -> impl Iterator<Item = Reply> {
    let mut packed: Vec<Vec<Range>> = Vec::new();
    let mut heads = HEADS_MAX;
    for range in ranges {
        let count = match &range.summary {
            Summary::Fingerprint(_) => 0,
            Summary::Heads { heads, .. } => heads.len(),
        };
        match packed.last_mut() {
            Some(last) if last.len() < RANGES_MAX && heads + count <= HEADS_MAX => {
                heads += count;
                last.push(range);
            }
            _ => {
                heads = count;
                packed.push(vec![range]);
            }
        }
    }
    packed.truncate(MESSAGES_MAX);
    packed.into_iter().map(|ranges| Reply::Send(RepairMessage::Ranges(ranges)))
}

/// The entries that somebody asks for, as many as fit; the last whole.
fn serve(log: &Log, chain_of: &dyn Fn(NodeId) -> Option<Bytes>, spans: &[Asked]) -> Option<Reply> {
    let (mut chains, mut entries, mut len) = (Vec::new(), Vec::new(), 0);
    'spans: for Asked { author, from, to } in spans {
        let Some(ours) = log.head(*author) else { continue };
        let from = (*from).max(ours.first);
        if from > 1 && from <= ours.head.min(*to) {
            // Its first entry, which carries it, may be one that nobody has any more.
            if let Some(chain) = chain_of(*author) {
                len += chain.len() + 40;
                chains.push((*author, chain));
            }
        }
        for seq in from..=(*to).min(ours.head) {
            if len >= BATCH_LEN_MAX || entries.len() >= ENTRIES_MAX {
                break 'spans;
            }
            let Some(entry) = log.entry(*author, seq) else { break };
            len += entry.bytes().len() + 4;
            entries.push(entry.bytes().clone());
        }
        if len >= BATCH_LEN_MAX {
            break;
        }
    }
    Some(Reply::Send(RepairMessage::Entries { chains, entries }))
}
