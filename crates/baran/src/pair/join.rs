//! The side that was told the code.

use std::collections::BTreeSet;
use std::time::Duration;

use baran_proto::machine::Machine;
use baran_proto::pair::joiner::{Input, Output};
use baran_proto::pair::{ATTEMPT_MAX, Failure, GUESSES_MAX, Joiner, PROTOCOL, PairCode};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::{Clock, PIECE_LEN, PairError, seed};
use crate::data::DataError;
use crate::{Connection, FindError, Node, NodeId, PeerAddr, SessionError};

/// Linked peers that are asked whether they show the code, beside those that announce it.
const LINKED_MAX: usize = 32;
/// Announcers that are connected to in one round.
const ANNOUNCERS_MAX: usize = 32;
/// Longest wait for a connection to one of them.
const CONNECT_MAX: Duration = Duration::from_secs(15);
/// Longest look-up.
const LOOKUP_MAX: Duration = Duration::from_secs(10);
/// Pause between two rounds.
const ROUND_PAUSE: Duration = Duration::from_secs(1);

impl Node {
    /// Finds whoever shows the code and pairs with it. Goes on looking for `limit`. `store` is
    /// called before the peer is told that it is paired.
    ///
    /// # Errors
    ///
    /// If nobody shows the code within `limit`, the words are wrong, or `store` failed.
    pub async fn join_by_words(
        &self,
        code: &PairCode,
        limit: Duration,
        store: impl FnMut(&PeerAddr) -> Result<(), DataError> + Send,
    ) -> Result<PeerAddr, PairError> {
        let search = Search {
            node: self,
            code,
            store,
            asked: BTreeSet::from([self.id()]),
            guesses: 0,
            failure: None,
            is_joined: false,
        };
        search.run(Instant::now() + limit).await
    }
}

/// What is known while the inviter is looked for.
struct Search<'a, S> {
    node: &'a Node,
    code: &'a PairCode,
    store: S,
    /// Peers that need not be asked again.
    asked: BTreeSet<NodeId>,
    guesses: usize,
    /// What the one who shows the number said.
    failure: Option<Failure>,
    /// Whether there was anybody to ask.
    is_joined: bool,
}

impl<S: FnMut(&PeerAddr) -> Result<(), DataError> + Send> Search<'_, S> {
    async fn run(mut self, deadline: Instant) -> Result<PeerAddr, PairError> {
        loop {
            if let Some(peer) = self.round(deadline).await? {
                return Ok(peer);
            }
            match self.failure {
                Some(Failure::Words) => return Err(PairError::WrongWords),
                Some(Failure::Over) => return Err(PairError::Over),
                _ if Instant::now() + ROUND_PAUSE < deadline => sleep(ROUND_PAUSE).await,
                _ if self.is_joined => return Err(PairError::NotFound(self.code.number())),
                _ => return Err(PairError::NotJoined),
            }
        }
    }

    /// Asks everybody once who is linked or announces the number. Begins no attempt after
    /// `deadline`, and cuts none short.
    async fn round(&mut self, deadline: Instant) -> Result<Option<PeerAddr>, PairError> {
        let status = self.node.status().await.ok_or(PairError::Closed)?;
        let linked = status.peers.iter().map(|peer| PeerAddr::from(peer.id));
        let linked: Vec<_> =
            linked.filter(|peer| !self.asked.contains(&peer.id)).take(LINKED_MAX).collect();
        self.is_joined |= !linked.is_empty();
        let mut seen: BTreeSet<_> = linked.iter().map(|peer| peer.id).collect();
        let mut calls = JoinSet::new();
        for peer in linked {
            calls.spawn(call(self.node.clone(), peer));
        }
        let mut lookup = self.node.lookup(&self.code.topic());
        let mut is_looking = true;
        let end = Instant::now() + LOOKUP_MAX;
        while is_looking || !calls.is_empty() {
            tokio::select! {
                Some(called) = calls.join_next() => {
                    let Ok(Some(connection)) = called else { continue };
                    if let Some(peer) = self.attempt(connection).await? {
                        return Ok(Some(peer));
                    }
                }
                found = timeout_at(end, lookup.next()), if is_looking => match found {
                    Ok(Some(Ok(peer))) => {
                        self.is_joined = true;
                        let is_new = !self.asked.contains(&peer.id) && seen.insert(peer.id);
                        if is_new && calls.len() < ANNOUNCERS_MAX {
                            calls.spawn(call(self.node.clone(), peer));
                        }
                    }
                    Ok(Some(Err(FindError::Closed))) => return Err(PairError::Closed),
                    Ok(Some(Err(_))) | Err(_) => is_looking = false,
                    Ok(None) => {
                        self.is_joined = true;
                        is_looking = false;
                    }
                },
                () = sleep_until(deadline) => return Ok(None),
            }
        }
        Ok(None)
    }

    /// Tries the code with one peer.
    async fn attempt(&mut self, connection: Connection) -> Result<Option<PeerAddr>, PairError> {
        if self.guesses >= GUESSES_MAX {
            return Ok(None);
        }
        let peer = connection.peer();
        let mut joiner = Joiner::new(
            baran_proto::time::Instant::ZERO,
            self.code,
            self.node.invite(),
            peer,
            seed()?,
        );
        let result = exchange(&mut joiner, &connection, &mut self.store).await;
        self.guesses += usize::from(joiner.has_proved());
        let code = u32::from(!matches!(result, Ok(Ok(_))));
        connection.close(code, "").await;
        match result? {
            Ok(peer) => Ok(Some(peer)),
            Err(failure) => {
                tracing::debug!(peer = %peer.short(), %failure, "not paired");
                self.note(peer, failure);
                Ok(None)
            }
        }
    }

    fn note(&mut self, peer: NodeId, failure: Failure) {
        match failure {
            // It may show the code in a moment, or be reached better.
            Failure::Gone | Failure::Late => {}
            Failure::Number | Failure::Malformed => drop(self.asked.insert(peer)),
            Failure::Words | Failure::Over => {
                self.asked.insert(peer);
                self.failure = Some(failure);
            }
        }
    }
}

/// A connection to a peer that may show the code.
async fn call(node: Node, peer: PeerAddr) -> Option<Connection> {
    timeout(CONNECT_MAX, node.connect(peer, PROTOCOL)).await.ok()?.ok()
}

/// One attempt on one stream. The outer error is of our own side.
async fn exchange(
    joiner: &mut Joiner,
    connection: &Connection,
    store: &mut (impl FnMut(&PeerAddr) -> Result<(), DataError> + Send),
) -> Result<Result<PeerAddr, Failure>, PairError> {
    let clock = Clock::start();
    let Ok((mut send, mut recv)) = connection.open_bi().await else {
        return Ok(Err(Failure::Gone));
    };
    let mut result = None;
    loop {
        while let Some(output) = joiner.poll_output() {
            match output {
                Output::Send(bytes) => {
                    let written = timeout(ATTEMPT_MAX, send.write_all(&bytes)).await;
                    if !matches!(written, Ok(Ok(()))) {
                        joiner.handle_input(clock.now(), Input::Gone);
                    }
                }
                Output::Done(Ok(peer)) => {
                    store(&peer)?;
                    result = Some(Ok(peer));
                }
                Output::Done(Err(failure)) => result = Some(Err(failure)),
            }
        }
        if let Some(result) = result {
            drop(send.finish());
            return Ok(result);
        }
        tokio::select! {
            piece = recv.read_chunk(PIECE_LEN) => joiner.handle_input(clock.now(), heard(piece)),
            // A stream of a session that the peer refused may never end by itself.
            _ = connection.closed() => {
                // What was said before it was closed may still be unread.
                let last = timeout(Duration::ZERO, recv.read_chunk(PIECE_LEN)).await;
                joiner.handle_input(clock.now(), last.map_or(Input::Gone, heard));
            }
            () = clock.wait(joiner.poll_timeout()) => joiner.handle_timeout(clock.now()),
        }
    }
}

fn heard(piece: Result<Option<bytes::Bytes>, SessionError>) -> Input {
    match piece {
        Ok(Some(bytes)) => Input::Received(bytes.to_vec()),
        Ok(None) | Err(_) => Input::Gone,
    }
}
