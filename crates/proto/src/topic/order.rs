//! Causal order: nothing before what its author had seen when it said that.
//!
//! An entry follows the one before it in its log and the heads that it names. One whose
//! predecessors have not come waits. What history dropped never comes: after [`WAITING_MAX`] that
//! wait, the oldest is delivered all the same.

use std::collections::{BTreeMap, VecDeque};

use crate::id::NodeId;

/// Most items that wait.
pub const WAITING_MAX: usize = 4_096;

#[derive(Debug)]
struct Waiting<T> {
    author: NodeId,
    seq: u64,
    heads: Vec<(NodeId, u64)>,
    item: T,
}

/// Puts items in causal order.
#[derive(Debug)]
pub struct Causal<T> {
    /// The last of each author that was delivered.
    delivered: BTreeMap<NodeId, u64>,
    /// The first of each author that ever came: what lies before it is not waited for.
    first: BTreeMap<NodeId, u64>,
    waiting: VecDeque<Waiting<T>>,
}

impl<T> Default for Causal<T> {
    fn default() -> Self {
        Self { delivered: BTreeMap::new(), first: BTreeMap::new(), waiting: VecDeque::new() }
    }
}

impl<T> Causal<T> {
    /// Takes an item that comes after those of its author with lower numbers, and returns what is
    /// due, in order.
    pub fn push(&mut self, author: NodeId, seq: u64, heads: Vec<(NodeId, u64)>, item: T) -> Vec<T> {
        self.first.entry(author).or_insert(seq);
        self.waiting.push_back(Waiting { author, seq, heads, item });
        let mut due = self.drain();
        while self.waiting.len() > WAITING_MAX {
            if let Some(oldest) = self.waiting.pop_front() {
                due.push(self.deliver(oldest));
                due.extend(self.drain());
            }
        }
        due
    }

    /// Nothing of an author up to this number will come: history dropped it.
    pub fn skip(&mut self, author: NodeId, seq: u64) -> Vec<T> {
        let last = self.delivered.entry(author).or_default();
        if *last >= seq {
            return Vec::new();
        }
        *last = seq;
        self.drain()
    }

    fn drain(&mut self) -> Vec<T> {
        let mut due = Vec::new();
        let mut at = 0;
        while let Some(next) = self.waiting.get(at) {
            if self.is_due(next) {
                if let Some(next) = self.waiting.remove(at) {
                    due.push(self.deliver(next));
                }
                at = 0;
            } else {
                at += 1;
            }
        }
        due
    }

    fn is_due(&self, next: &Waiting<T>) -> bool {
        let is_there =
            |author: &NodeId, seq: u64| self.delivered.get(author).is_some_and(|last| *last >= seq);
        let is_next = self.first.get(&next.author) == Some(&next.seq)
            || is_there(&next.author, next.seq.saturating_sub(1));
        is_next && next.heads.iter().all(|(author, seq)| is_there(author, *seq))
    }

    fn deliver(&mut self, next: Waiting<T>) -> T {
        let last = self.delivered.entry(next.author).or_default();
        *last = (*last).max(next.seq);
        next.item
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> NodeId {
        NodeId::from_bytes([n; 32])
    }

    #[test]
    fn an_answer_waits_for_the_question() {
        let mut causal = Causal::default();
        assert_eq!(causal.push(id(2), 1, vec![(id(1), 2)], "answer"), Vec::<&str>::new());
        assert_eq!(causal.push(id(1), 1, Vec::new(), "hello"), ["hello"]);
        assert_eq!(causal.push(id(1), 2, Vec::new(), "question"), ["question", "answer"]);
    }

    #[test]
    fn a_log_that_begins_late_is_not_waited_for() {
        let mut causal = Causal::default();
        assert_eq!(causal.push(id(1), 7, Vec::new(), 7), [7]);
        assert_eq!(causal.push(id(1), 8, Vec::new(), 8), [8]);
    }

    #[test]
    fn what_never_comes_holds_up_a_bounded_number() {
        let mut causal = Causal::default();
        let mut due = 0;
        for n in 0..WAITING_MAX as u64 + 10 {
            due += causal.push(id(1), n + 1, vec![(id(9), 1)], n).len();
        }
        assert_eq!(due, 10);
    }
}
