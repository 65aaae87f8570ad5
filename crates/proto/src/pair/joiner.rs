//! The side that was told the code: one attempt with one peer.

use core::fmt;
use std::collections::VecDeque;

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use thiserror::Error;

use super::exchange::{Ends, Exchange, Keys, Side};
use super::message::{Answer, Hello, Inbox, Message, Paired, Proof, Refusal};
use super::{ATTEMPT_MAX, PairCode};
use crate::id::NodeId;
use crate::invite::PeerAddr;
use crate::machine::Machine;
use crate::time::Instant;

/// What can happen to an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Bytes came, cut anyhow.
    Received(Vec<u8>),
    /// The stream is over.
    Gone,
}

/// What an attempt wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send bytes.
    Send(Vec<u8>),
    /// It is over. If it went well, our word that it did follows, so that the peer can be stored
    /// first.
    Done(Result<PeerAddr, Failure>),
}

/// Why an attempt came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Failure {
    /// The peer shows no code of this number.
    #[error("shows no code of this number")]
    Number,
    /// The words are not the peer's. Its code is dead, if it is the one that was meant.
    #[error("has other words")]
    Words,
    /// The peer's code was used or has expired.
    #[error("has a code that was used or has expired")]
    Over,
    /// The peer does not keep to the protocol.
    #[error("does not keep to the protocol")]
    Malformed,
    /// The stream ended too early.
    #[error("ended the conversation")]
    Gone,
    /// The peer is silent.
    #[error("does not answer")]
    Late,
}

enum State {
    ExpectAnswer(Exchange),
    ExpectProof(Keys),
    Done,
}

/// One attempt. See the [module](super).
pub struct Joiner {
    peer: NodeId,
    own: PeerAddr,
    state: State,
    has_proved: bool,
    inbox: Inbox,
    deadline: Option<Instant>,
    outputs: VecDeque<Output>,
}

impl Joiner {
    /// Begins an attempt with `peer`, as its link proved. `own` is where we can be reached;
    /// `seed` must be unpredictable and is for this attempt alone.
    #[must_use]
    pub fn new(now: Instant, code: &PairCode, own: PeerAddr, peer: NodeId, seed: [u8; 32]) -> Self {
        let mut rng = ChaCha20Rng::from_seed(seed);
        let ends = Ends { inviter: peer, joiner: own.id };
        let (exchange, element) = Exchange::start(Side::Joiner, code, ends, &mut rng);
        let hello = Message::Hello(Hello { number: code.number(), element });
        Self {
            peer,
            own,
            state: State::ExpectAnswer(exchange),
            has_proved: false,
            inbox: Inbox::default(),
            deadline: Some(now + ATTEMPT_MAX),
            outputs: VecDeque::from([Output::Send(hello.encode())]),
        }
    }

    /// Whether the peer could check one guess of the words against what we told it.
    #[must_use]
    pub fn has_proved(&self) -> bool {
        self.has_proved
    }

    fn received(&mut self, mut bytes: &[u8]) {
        while !matches!(self.state, State::Done) {
            match self.inbox.take(&mut bytes) {
                Ok(Some(message)) => self.handle_message(message),
                Ok(None) => return,
                Err(_) => self.end(Err(Failure::Malformed)),
            }
        }
    }

    fn handle_message(&mut self, message: Message) {
        match (core::mem::replace(&mut self.state, State::Done), message) {
            (State::ExpectAnswer(exchange), Message::Answer(answer)) => {
                self.handle_answer(exchange, &answer);
            }
            (State::ExpectProof(keys), Message::Proof(proof)) => self.handle_proof(&keys, &proof),
            (_, Message::Refused(refused)) => self.end(Err(match refused.why {
                Refusal::Number => Failure::Number,
                Refusal::Words => Failure::Words,
                Refusal::Over => Failure::Over,
            })),
            _ => self.end(Err(Failure::Malformed)),
        }
    }

    fn handle_answer(&mut self, exchange: Exchange, answer: &Answer) {
        let Some(keys) = exchange.finish(&answer.element) else {
            return self.end(Err(Failure::Malformed));
        };
        let proof = Message::Proof(keys.prove(&self.own));
        self.outputs.push_back(Output::Send(proof.encode()));
        self.has_proved = true;
        self.state = State::ExpectProof(keys);
    }

    fn handle_proof(&mut self, keys: &Keys, proof: &Proof) {
        if !keys.check(proof) {
            return self.end(Err(Failure::Words));
        }
        let Some(peer) = proof.peer_of(self.peer) else {
            return self.end(Err(Failure::Malformed));
        };
        self.end(Ok(peer));
        self.outputs.push_back(Output::Send(Message::Paired(Paired {}).encode()));
    }

    fn end(&mut self, result: Result<PeerAddr, Failure>) {
        self.state = State::Done;
        self.deadline = None;
        self.outputs.push_back(Output::Done(result));
    }
}

impl Machine for Joiner {
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, _now: Instant, input: Input) {
        match input {
            Input::Received(bytes) => self.received(&bytes),
            Input::Gone if !matches!(self.state, State::Done) => self.end(Err(Failure::Gone)),
            Input::Gone => {}
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.deadline.is_some_and(|at| at <= now) {
            self.end(Err(Failure::Late));
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }
}

impl fmt::Debug for Joiner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Joiner");
        shown.field("peer", &self.peer).field("deadline", &self.deadline).finish_non_exhaustive()
    }
}
