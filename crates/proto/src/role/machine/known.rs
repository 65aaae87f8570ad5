//! What was found out about identities once and need not be again.

use std::collections::VecDeque;

use crate::flat::FlatMap;
use crate::id::NodeId;

/// Identities whose solution is remembered: the electors of some epochs and everybody who applied.
const SOLVED_MAX: usize = 1024;

/// Solutions of puzzles that were checked: a check takes a hundredth of a second.
#[derive(Debug, Default)]
pub(super) struct Puzzles {
    solved: FlatMap<NodeId, u64>,
    /// The longest known first.
    order: VecDeque<NodeId>,
}

impl Puzzles {
    /// Remembers a solution.
    pub(super) fn learn(&mut self, id: NodeId, nonce: u64) {
        if self.solved.insert(id, nonce).is_some() {
            return;
        }
        self.order.push_back(id);
        if self.order.len() > SOLVED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.solved.remove(&oldest);
        }
    }

    /// Whether a nonce solves the puzzle of an identity.
    pub(super) fn is_solved(
        &mut self,
        network: &str,
        check: fn(&str, NodeId, u64) -> bool,
        id: NodeId,
        nonce: u64,
    ) -> bool {
        if self.solved.get(&id) == Some(&nonce) {
            return true;
        }
        let is_solved = check(network, id, nonce);
        if is_solved {
            self.learn(id, nonce);
        }
        is_solved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_known_are_forgotten() {
        let mut puzzles = Puzzles::default();
        let id = |n: u16| {
            let mut bytes = [0; 32];
            bytes[..2].copy_from_slice(&n.to_be_bytes());
            NodeId::from_bytes(bytes)
        };
        let is_first_known =
            |puzzles: &mut Puzzles| puzzles.is_solved("main", |_, _, _| false, id(0), 7);
        for n in 0..1024 {
            assert!(puzzles.is_solved("main", |_, _, nonce| nonce == 7, id(n), 7));
        }
        assert!(is_first_known(&mut puzzles));
        assert!(!puzzles.is_solved("main", |_, _, _| false, id(0), 8));
        puzzles.learn(id(1024), 7);
        assert!(!is_first_known(&mut puzzles));
        assert_eq!(puzzles.solved.len(), SOLVED_MAX);
    }
}
