//! The side that shows the code: any number of callers, one guess, one peer.

use core::fmt;
use std::collections::{BTreeMap, VecDeque};

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use super::exchange::{Ends, Exchange, Keys, Side};
use super::message::{Answer, Hello, Inbox, Message, Proof, Refusal, Refused};
use super::{ATTEMPT_MAX, CALLERS_MAX, CODE_LIFE, PairCode};
use crate::id::NodeId;
use crate::invite::PeerAddr;
use crate::machine::Machine;
use crate::time::Instant;
use crate::timer::Timers;

/// Names a caller's stream; chosen by the driver, each used once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallerId(pub u64);

/// What can happen to an inviter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A peer opened a stream.
    Called {
        /// The stream.
        caller: CallerId,
        /// Who, as its link proved.
        peer: NodeId,
        /// Where we can be reached at this moment: told if the caller is the right one.
        own: PeerAddr,
    },
    /// Bytes came.
    Received {
        /// On which stream.
        caller: CallerId,
        /// The bytes, cut anyhow.
        bytes: Vec<u8>,
    },
    /// A stream is over.
    Gone(CallerId),
}

/// What an inviter wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send bytes.
    Send {
        /// On which stream.
        caller: CallerId,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// End a stream once what was sent is delivered.
    Close(CallerId),
    /// Something happened.
    Event(Event),
}

/// What happened to the code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A peer proved the words. Comes before our own proof is sent, so that it can be stored first.
    Paired(PeerAddr),
    /// A peer guessed the words and was wrong: the code is dead.
    WrongGuess(NodeId),
    /// Nobody came in time.
    Expired,
}

/// What a caller's next message must be.
enum Expect {
    Hello,
    Proof(Keys),
    Paired,
}

struct Caller {
    peer: NodeId,
    own: PeerAddr,
    inbox: Inbox,
    expect: Expect,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Code,
    Attempt(CallerId),
}

/// Serves one code. See the [module](super).
pub struct Inviter {
    id: NodeId,
    code: PairCode,
    is_open: bool,
    is_confirmed: bool,
    rng: ChaCha20Rng,
    callers: BTreeMap<CallerId, Caller>,
    timers: Timers<Timer>,
    outputs: VecDeque<Output>,
}

impl Inviter {
    /// Opens `code` at `now` for as long as [`CODE_LIFE`]. `seed` must be unpredictable.
    #[must_use]
    pub fn new(now: Instant, id: NodeId, code: PairCode, seed: [u8; 32]) -> Self {
        let mut timers = Timers::default();
        timers.set(Timer::Code, now + CODE_LIFE);
        Self {
            id,
            code,
            is_open: true,
            is_confirmed: false,
            rng: ChaCha20Rng::from_seed(seed),
            callers: BTreeMap::new(),
            timers,
            outputs: VecDeque::new(),
        }
    }

    /// Whether the code is used up and nobody is left to talk to.
    #[must_use]
    pub fn is_done(&self) -> bool {
        !self.is_open && self.callers.is_empty()
    }

    /// Whether the peer that is paired has said that it took our proof. If not, it may not know.
    #[must_use]
    pub fn is_confirmed(&self) -> bool {
        self.is_confirmed
    }

    /// Attempts under way.
    #[must_use]
    pub fn callers(&self) -> usize {
        self.callers.len()
    }

    fn called(&mut self, now: Instant, id: CallerId, peer: NodeId, own: PeerAddr) {
        if !self.is_open {
            self.send(id, &Message::Refused(Refused { why: Refusal::Over }));
            self.outputs.push_back(Output::Close(id));
            return;
        }
        let again = self.callers.iter().find(|(_, caller)| caller.peer == peer).map(|(id, _)| *id);
        let oldest = self.callers.keys().next().filter(|_| self.callers.len() >= CALLERS_MAX);
        if let Some(out) = again.or_else(|| oldest.copied()) {
            self.end(out);
        }
        let caller = Caller { peer, own, inbox: Inbox::default(), expect: Expect::Hello };
        self.callers.insert(id, caller);
        self.timers.set(Timer::Attempt(id), now + ATTEMPT_MAX);
    }

    fn received(&mut self, id: CallerId, mut bytes: &[u8]) {
        while let Some(caller) = self.callers.get_mut(&id) {
            match caller.inbox.take(&mut bytes) {
                Ok(Some(message)) => self.handle_message(id, message),
                Ok(None) => return,
                Err(_) => self.end(id),
            }
        }
    }

    fn handle_message(&mut self, id: CallerId, message: Message) {
        let Some(caller) = self.callers.get_mut(&id) else { return };
        let expect = core::mem::replace(&mut caller.expect, Expect::Hello);
        match (expect, message) {
            (Expect::Hello, Message::Hello(hello)) => self.handle_hello(id, &hello),
            (Expect::Proof(keys), Message::Proof(proof)) => {
                self.handle_proof(id, &keys, &proof);
            }
            (Expect::Paired, Message::Paired(_)) => {
                self.is_confirmed = true;
                self.end(id);
            }
            _ => self.end(id),
        }
    }

    fn handle_hello(&mut self, id: CallerId, hello: &Hello) {
        let Some(caller) = self.callers.get_mut(&id) else { return };
        if hello.number != self.code.number() {
            return self.refuse(id, Refusal::Number);
        }
        let ends = Ends { inviter: self.id, joiner: caller.peer };
        let (exchange, element) = Exchange::start(Side::Inviter, &self.code, ends, &mut self.rng);
        let Some(keys) = exchange.finish(&hello.element) else { return self.end(id) };
        caller.expect = Expect::Proof(keys);
        self.send(id, &Message::Answer(Answer { element }));
    }

    fn handle_proof(&mut self, id: CallerId, keys: &Keys, proof: &Proof) {
        let Some(caller) = self.callers.get_mut(&id) else { return };
        let peer = caller.peer;
        if !keys.check(proof) {
            self.shut(Some(id));
            self.refuse(id, Refusal::Words);
            self.outputs.push_back(Output::Event(Event::WrongGuess(peer)));
            return;
        }
        // Knows the words and names somebody else: broken, and no guess.
        let Some(addr) = proof.peer_of(peer) else { return self.end(id) };
        caller.expect = Expect::Paired;
        let ours = keys.prove(&caller.own);
        self.shut(Some(id));
        self.outputs.push_back(Output::Event(Event::Paired(addr)));
        self.send(id, &Message::Proof(ours));
    }

    /// Ends the code, and every attempt but one.
    fn shut(&mut self, but: Option<CallerId>) {
        self.is_open = false;
        self.timers.stop(Timer::Code);
        let others: Vec<_> = self.callers.keys().filter(|id| Some(**id) != but).copied().collect();
        for id in others {
            self.refuse(id, Refusal::Over);
        }
    }

    fn refuse(&mut self, id: CallerId, why: Refusal) {
        self.send(id, &Message::Refused(Refused { why }));
        self.end(id);
    }

    fn end(&mut self, id: CallerId) {
        self.timers.stop(Timer::Attempt(id));
        if self.callers.remove(&id).is_some() {
            self.outputs.push_back(Output::Close(id));
        }
    }

    fn send(&mut self, caller: CallerId, message: &Message) {
        self.outputs.push_back(Output::Send { caller, bytes: message.encode() });
    }
}

impl Machine for Inviter {
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, now: Instant, input: Input) {
        match input {
            Input::Called { caller, peer, own } => self.called(now, caller, peer, own),
            Input::Received { caller, bytes } => self.received(caller, &bytes),
            Input::Gone(caller) => self.end(caller),
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        while let Some(timer) = self.timers.expire(now) {
            match timer {
                Timer::Code => {
                    self.shut(None);
                    self.outputs.push_back(Output::Event(Event::Expired));
                }
                Timer::Attempt(id) => self.end(id),
            }
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }
}

impl fmt::Debug for Inviter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Inviter");
        shown.field("code", &self.code).field("is_open", &self.is_open);
        shown.field("callers", &self.callers()).finish_non_exhaustive()
    }
}
