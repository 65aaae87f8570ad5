//! The driver's part in solving the identity's puzzle: in a thread that yields to all others.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use baran_proto::id::NodeId;
use baran_proto::node::Input;
use baran_proto::role::puzzle::{self, DIFFICULTY};
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use super::{Command, Driver};
use crate::status::PuzzleStatus;

/// The niceness of the thread: the highest, as whoever waits for it waits for nothing else.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 19;

/// How far the puzzle is.
#[derive(Debug, Default)]
pub(super) enum Puzzle {
    /// Nobody needs it.
    #[default]
    Unwanted,
    /// So many tries were made.
    Solving(Arc<AtomicU64>),
    /// By this nonce.
    Solved(u64),
}

impl Puzzle {
    pub(super) fn status(&self) -> PuzzleStatus {
        match self {
            Self::Unwanted => PuzzleStatus::Unwanted,
            Self::Solving(tries) => PuzzleStatus::Solving {
                tries: tries.load(Ordering::Relaxed),
                expected: 1 << DIFFICULTY,
            },
            Self::Solved(nonce) => PuzzleStatus::Solved { nonce: *nonce },
        }
    }
}

impl Driver {
    /// Begins to solve it. `found` is what an earlier run found; others wrote on the disk, perhaps.
    pub(crate) fn solve_puzzle(&mut self, found: Option<u64>) {
        let mut first = [0; 8];
        if let Err(error) = getrandom::fill(&mut first) {
            warn!(%error, "the puzzle is not solved");
            return;
        }
        let tries = Arc::new(AtomicU64::new(0));
        self.puzzle = Puzzle::Solving(Arc::clone(&tries));
        let search = Search {
            network: self.network.clone(),
            id: self.node.id(),
            tries,
            own: self.own.clone(),
        };
        let nonces = found.into_iter().chain(u64::from_be_bytes(first)..);
        let thread = std::thread::Builder::new().name("puzzle".into());
        if let Err(error) = thread.spawn(move || search.run(nonces)) {
            warn!(%error, "the puzzle is not solved");
        }
    }

    /// The puzzle is solved: that is kept, for it is worth a second.
    pub(super) fn handle_puzzle_solved(&mut self, nonce: u64) {
        info!(nonce, "the puzzle of this identity is solved");
        self.puzzle = Puzzle::Solved(nonce);
        self.input(Input::Puzzle(nonce));
        let writing = self.disk.write_nonce(nonce);
        tokio::spawn(async move {
            if let Err(error) = writing.await {
                debug!(%error, "the puzzle will have to be solved again");
            }
        });
    }
}

/// What the thread knows.
struct Search {
    network: String,
    id: NodeId,
    tries: Arc<AtomicU64>,
    own: mpsc::Sender<Command>,
}

impl Search {
    /// Tries nonces until one solves the puzzle or the driver is gone.
    fn run(self, nonces: impl Iterator<Item = u64>) {
        // Elsewhere it would be the niceness of the whole process.
        #[cfg(target_os = "linux")]
        if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
            debug!(%error, "the puzzle is solved at full priority");
        }
        for nonce in nonces {
            if self.own.is_closed() {
                return;
            }
            if puzzle::is_solved(&self.network, self.id, nonce) {
                // A driver that is gone needs it no more.
                drop(self.own.blocking_send(Command::PuzzleSolved(nonce)));
                return;
            }
            self.tries.fetch_add(1, Ordering::Relaxed);
        }
    }
}
