//! A wire between one inviter and its callers, which can be read, cut and written to.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::inviter::{CallerId, Event, Input, Inviter, Output};
use super::joiner::{self, Joiner};
use super::message::{ELEMENT_LEN, Hello, Message, Paired, Proof, Refusal, Refused, TAG_LEN};
use super::*;
use crate::id::NodeId;
use crate::invite::PeerAddr;
use crate::machine::{Machine, check_deadline};
use crate::time::Instant;

const CODE: &str = "4711-maple-river-stone";

fn code(text: &str) -> PairCode {
    text.parse().unwrap()
}

fn id(number: u8) -> NodeId {
    NodeId::from_bytes([number; 32])
}

fn addr(number: u8) -> PeerAddr {
    PeerAddr { addrs: vec![([192, 0, 2, number], 4_433).into()], ..id(number).into() }
}

fn at(ms: u64) -> Instant {
    Instant::from_micros(ms * 1_000)
}

/// What became of an attempt.
type Outcome = Result<PeerAddr, Failure>;

/// One inviter (peer 1), and joiners by their stream.
struct World {
    now: Instant,
    inviter: Inviter,
    joiners: BTreeMap<CallerId, Joiner>,
    outcomes: BTreeMap<CallerId, Outcome>,
    events: Vec<Event>,
    closed: BTreeSet<CallerId>,
    /// All that went over the wire, the direction in front: true from the inviter.
    record: Vec<(CallerId, bool, Vec<u8>)>,
    /// Bytes that are delivered at a time.
    piece: usize,
    /// Changes what is sent.
    meddle: fn(CallerId, bool, &mut Vec<u8>),
}

impl World {
    fn new() -> Self {
        Self {
            now: at(0),
            inviter: Inviter::new(at(0), id(1), code(CODE), [1; 32]),
            joiners: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            events: Vec::new(),
            closed: BTreeSet::new(),
            record: Vec::new(),
            piece: usize::MAX,
            meddle: |_, _, _| (),
        }
    }

    /// A joiner calls that believes to be `own` and to speak to `inviter`.
    fn join_as(&mut self, caller: u64, text: &str, own: PeerAddr, inviter: NodeId) -> CallerId {
        let caller = CallerId(caller);
        let seed = [100 + u8::try_from(caller.0).unwrap(); 32];
        self.joiners.insert(caller, Joiner::new(self.now, &code(text), own, inviter, seed));
        caller
    }

    /// Peer `number` calls with a code, and everything is delivered.
    fn join(&mut self, number: u8, text: &str) -> Option<Outcome> {
        let caller = self.join_as(number.into(), text, addr(number), id(1));
        self.call(caller, id(number));
        self.run();
        self.outcomes.get(&caller).cloned()
    }

    fn call(&mut self, caller: CallerId, peer: NodeId) {
        self.inviter.handle_input(self.now, Input::Called { caller, peer, own: addr(1) });
    }

    fn deliver(&mut self, caller: CallerId, bytes: &[u8]) {
        for piece in bytes.chunks(self.piece) {
            let bytes = piece.to_vec();
            self.inviter.handle_input(self.now, Input::Received { caller, bytes });
        }
    }

    fn run(&mut self) {
        loop {
            let mut is_idle = true;
            while let Some(output) = self.inviter.poll_output() {
                is_idle = false;
                self.carry(output);
            }
            for caller in self.joiners.keys().copied().collect::<Vec<_>>() {
                while let Some(output) = self.joiners.get_mut(&caller).unwrap().poll_output() {
                    is_idle = false;
                    match output {
                        joiner::Output::Send(mut bytes) => {
                            (self.meddle)(caller, false, &mut bytes);
                            self.record.push((caller, false, bytes.clone()));
                            self.deliver(caller, &bytes);
                        }
                        joiner::Output::Done(outcome) => {
                            assert!(self.outcomes.insert(caller, outcome).is_none());
                        }
                    }
                }
            }
            if is_idle {
                return;
            }
        }
    }

    fn carry(&mut self, output: Output) {
        match output {
            Output::Send { caller, mut bytes } => {
                assert!(!self.closed.contains(&caller), "sent after the end");
                (self.meddle)(caller, true, &mut bytes);
                self.record.push((caller, true, bytes.clone()));
                let Some(joiner) = self.joiners.get_mut(&caller) else { return };
                for piece in bytes.chunks(self.piece) {
                    joiner.handle_input(self.now, joiner::Input::Received(piece.to_vec()));
                }
            }
            Output::Close(caller) => {
                assert!(self.closed.insert(caller), "closed twice");
                if let Some(joiner) = self.joiners.get_mut(&caller) {
                    joiner.handle_input(self.now, joiner::Input::Gone);
                }
            }
            Output::Event(event) => self.events.push(event),
        }
    }

    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(next) = self.inviter.poll_timeout().filter(|next| *next <= end) {
            self.now = next;
            self.inviter.handle_timeout(next);
            self.run();
            check_deadline(&self.inviter, next);
        }
        self.now = end;
        for joiner in self.joiners.values_mut() {
            joiner.handle_timeout(end);
        }
        self.run();
    }

    fn sent(&self, caller: u64, from_inviter: bool) -> Vec<Vec<u8>> {
        let is_it = |(id, side, _): &&(CallerId, bool, Vec<u8>)| {
            *id == CallerId(caller) && *side == from_inviter
        };
        self.record.iter().filter(is_it).map(|(_, _, bytes)| bytes.clone()).collect()
    }
}

#[test]
fn the_right_words_pair_however_the_bytes_are_cut() {
    for piece in [1, 2, 7, usize::MAX] {
        let mut world = World { piece, ..World::new() };
        assert_eq!(world.join(2, "4711 mapl RIVER stone"), Some(Ok(addr(1))));
        assert_eq!(world.events, [Event::Paired(addr(2))]);
        assert!(world.inviter.is_done() && world.inviter.is_confirmed());
        assert_eq!(world.inviter.poll_timeout(), None);
        // Nothing that was sent has anything of the words in it.
        let seen: Vec<u8> = world.record.iter().flat_map(|(_, _, bytes)| bytes.clone()).collect();
        assert!(!seen.windows(5).any(|part| part == b"maple" || part == b"river"));
    }
}

#[test]
fn one_wrong_guess_kills_the_code() {
    for wrong in ["4711-maple-river-zoo", "4711-stone-river-maple", "4711-maple-maple-stone"] {
        let mut world = World::new();
        assert_eq!(world.join(2, wrong), Some(Err(Failure::Words)));
        assert_eq!(world.events, [Event::WrongGuess(id(2))]);
        // The guesser learned nothing that came after its guess.
        assert_eq!(world.sent(2, true).len(), 2);
        assert_eq!(world.join(3, CODE), Some(Err(Failure::Over)));
        assert_eq!(world.events.len(), 1);
        assert!(world.inviter.is_done());
    }
}

#[test]
fn of_two_guesses_at_once_one_is_looked_at() {
    let mut world = World::new();
    let right = world.join_as(2, CODE, addr(2), id(1));
    let wrong = world.join_as(3, "4711-maple-river-zoo", addr(3), id(1));
    world.call(wrong, id(3));
    world.call(right, id(2));
    let mut proofs = Vec::new();
    for caller in [wrong, right] {
        let joiner::Output::Send(hello) =
            world.joiners.get_mut(&caller).unwrap().poll_output().unwrap()
        else {
            panic!("a hello comes first")
        };
        world.deliver(caller, &hello);
        let Some(Output::Send { bytes, .. }) = world.inviter.poll_output() else {
            panic!("answer")
        };
        let joiner = world.joiners.get_mut(&caller).unwrap();
        joiner.handle_input(at(0), joiner::Input::Received(bytes));
        let Some(joiner::Output::Send(proof)) = joiner.poll_output() else { panic!("proof") };
        proofs.push((caller, proof));
    }
    for (caller, proof) in proofs {
        world.deliver(caller, &proof);
    }
    world.run();
    assert_eq!(world.events, [Event::WrongGuess(id(3))]);
    assert_eq!(world.outcomes[&right], Err(Failure::Over));
}

#[test]
fn a_code_pairs_one_peer() {
    let mut world = World::new();
    assert!(world.join(2, CODE).unwrap().is_ok());
    assert_eq!(world.join(3, CODE), Some(Err(Failure::Over)));
    assert_eq!(world.events, [Event::Paired(addr(2))]);
}

#[test]
fn another_number_is_no_guess() {
    let mut world = World::new();
    assert_eq!(world.join(2, "4712-maple-river-zoo"), Some(Err(Failure::Number)));
    assert!(!world.joiners[&CallerId(2)].has_proved());
    assert!(world.join(3, CODE).unwrap().is_ok());
}

#[test]
fn ids_that_the_link_did_not_prove_fail() {
    // Somebody in the middle: the inviter sees its id (9), the joiner too.
    let mut world = World::new();
    let caller = world.join_as(2, CODE, addr(2), id(1));
    world.call(caller, id(9));
    world.run();
    assert_eq!(world.outcomes[&caller], Err(Failure::Words));
    assert_eq!(world.events, [Event::WrongGuess(id(9))]);
    // The joiner believes to speak to another one than the one that answers.
    let mut world = World::new();
    let caller = world.join_as(2, CODE, addr(2), id(9));
    world.call(caller, id(2));
    world.run();
    assert_eq!(world.outcomes[&caller], Err(Failure::Words));
    // The two ids swapped.
    let mut world = World::new();
    let caller = world.join_as(2, CODE, addr(1), id(2));
    world.call(caller, id(2));
    world.run();
    assert_eq!(world.outcomes[&caller], Err(Failure::Words));
}

#[test]
fn what_was_said_once_proves_nothing_again() {
    let mut first = World::new();
    assert!(first.join(2, CODE).unwrap().is_ok());
    let said = first.sent(2, false);
    assert_eq!(said.len(), 3);
    // The same peer, another showing of the same code.
    let mut world = World::new();
    world.inviter = Inviter::new(at(0), id(1), code(CODE), [77; 32]);
    world.call(CallerId(2), id(2));
    for bytes in &said {
        world.deliver(CallerId(2), bytes);
    }
    world.run();
    assert_eq!(world.events, [Event::WrongGuess(id(2))]);
    // An element of the inviter's own side, sent back to it.
    let mut world = World::new();
    world.meddle = |_, from_inviter, bytes| {
        if !from_inviter && bytes[3] == 0 {
            assert_eq!(bytes[12], b'B');
            bytes[12] = b'A';
        }
    };
    let caller = world.join_as(2, CODE, addr(2), id(1));
    world.call(caller, id(2));
    world.run();
    assert!(world.events.is_empty() && world.closed.contains(&caller));
    assert_eq!(world.outcomes[&caller], Err(Failure::Gone));
}

#[test]
fn an_address_cannot_be_changed_on_the_way() {
    for from_inviter in [false, true] {
        let mut world = World::new();
        world.meddle = if from_inviter {
            |_, side, bytes| meddle_with_address(side, bytes)
        } else {
            |_, side, bytes| meddle_with_address(!side, bytes)
        };
        assert_eq!(world.join(2, CODE), Some(Err(Failure::Words)));
        assert_eq!(matches!(world.events[..], [Event::Paired(_)]), from_inviter);
    }
}

fn meddle_with_address(is_it: bool, bytes: &mut [u8]) {
    if is_it && bytes[3] == 2 {
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
    }
}

#[test]
fn who_knows_the_words_and_names_another_peer_is_not_paired() {
    let mut world = World::new();
    let other = PeerAddr { id: id(2), ..addr(8) };
    let caller = world.join_as(2, CODE, other.clone(), id(1));
    world.call(caller, id(2));
    world.run();
    // The address is anybody's to name; the id is not.
    assert_eq!(world.events, [Event::Paired(other)]);
    let proof = Proof { tag: [0; TAG_LEN], peer: minicbor::to_vec(addr(8)).unwrap() };
    assert_eq!(proof.peer_of(id(2)), None);
    assert_eq!(proof.peer_of(id(8)), Some(addr(8)));
    let longer = Proof { peer: [&proof.peer[..], &[0]].concat(), ..proof };
    assert_eq!(longer.peer_of(id(8)), None);
}

#[test]
fn silence_ends_an_attempt_and_then_the_code() {
    let mut world = World::new();
    world.call(CallerId(5), id(5));
    world.wait(ATTEMPT_MAX);
    assert_eq!(world.closed, BTreeSet::from([CallerId(5)]));
    assert!(world.join(2, "4712-maple-river-stone").unwrap().is_err());
    assert!(!world.inviter.is_done());
    world.wait(CODE_LIFE - ATTEMPT_MAX);
    assert_eq!(world.events, [Event::Expired]);
    assert!(world.inviter.is_done());
    assert_eq!(world.join(3, CODE), Some(Err(Failure::Over)));
    // A joiner that nobody answers gives up too.
    let mut world = World::new();
    let caller = world.join_as(2, CODE, addr(2), id(1));
    world.wait(ATTEMPT_MAX);
    assert_eq!(world.outcomes[&caller], Err(Failure::Late));
    assert_eq!(world.joiners[&caller].poll_timeout(), None);
}

#[test]
fn a_paired_peer_that_does_not_say_so_stays_paired() {
    let mut world = World::new();
    world.meddle = |_, from_inviter, bytes| {
        if !from_inviter && bytes[3] == 3 {
            bytes.clear();
        }
    };
    assert!(world.join(2, CODE).unwrap().is_ok());
    assert!(!world.inviter.is_done());
    world.wait(ATTEMPT_MAX);
    assert!(world.inviter.is_done() && !world.inviter.is_confirmed());
    assert_eq!(world.events, [Event::Paired(addr(2))]);
}

#[test]
fn callers_who_wait_keep_nobody_out() {
    let mut world = World::new();
    for caller in 10..10 + 50 {
        world.call(CallerId(caller), id(u8::try_from(caller).unwrap()));
        world.run();
        assert!(world.inviter.callers() <= CALLERS_MAX);
    }
    assert_eq!(world.closed.len(), 50 - CALLERS_MAX);
    // One peer has one attempt.
    world.call(CallerId(90), id(59));
    world.run();
    assert!(world.closed.contains(&CallerId(59)));
    assert!(world.join(2, CODE).unwrap().is_ok());
}

#[test]
fn what_is_no_message_ends_the_attempt_and_not_the_code() {
    let element = [b'B'; ELEMENT_LEN];
    let hello = |number| Message::Hello(Hello { number, element });
    let proof = Message::Proof(Proof { tag: [0; TAG_LEN], peer: Vec::new() });
    let refused = Message::Refused(Refused { why: Refusal::Words });
    let long = [&0x0401_u16.to_be_bytes()[..], &[0; 0x401]].concat();
    for wrong in [
        &[0, 0][..],
        &[0, 1, 0x80],
        &[0, 2, 0x82, 0],
        &[0xff, 0xff],
        &long,
        b"GET / HTTP/1.1\r\n\r\n",
        // Not a point of the curve, the wrong side, the wrong order.
        &hello(4_711).encode(),
        &proof.encode(),
        &refused.encode(),
        &Message::Paired(Paired {}).encode(),
    ] {
        let mut world = World::new();
        world.call(CallerId(5), id(5));
        world.deliver(CallerId(5), wrong);
        world.run();
        assert!(world.closed.contains(&CallerId(5)), "{wrong:?}");
        assert!(world.events.is_empty());
        assert!(world.join(2, CODE).unwrap().is_ok());
        let mut joiner = Joiner::new(at(0), &code(CODE), addr(2), id(1), [3; 32]);
        joiner.handle_input(at(0), joiner::Input::Received(wrong.to_vec()));
        let outputs: Vec<_> = core::iter::from_fn(|| joiner.poll_output()).collect();
        let failure = if wrong == refused.encode() { Failure::Words } else { Failure::Malformed };
        assert_eq!(outputs[1..], [joiner::Output::Done(Err(failure))]);
        assert!(!joiner.has_proved());
    }
}

#[test]
fn unknown_types_are_skipped_and_parts_are_waited_for() {
    let mut world = World::new();
    world.call(CallerId(5), id(5));
    world.deliver(CallerId(5), &[0, 4, 0x82, 0x18, 99, 0xa0]);
    world.deliver(CallerId(5), &[0]);
    world.run();
    assert!(world.closed.is_empty());
}

proptest! {
    #[test]
    fn garbage_never_panics_and_never_pairs(
        pieces in proptest::collection::vec(any::<Vec<u8>>(), 0..8),
        cut in 0..200_usize,
        flip in 0..2_000_usize,
    ) {
        let mut world = World::new();
        world.call(CallerId(5), id(5));
        for piece in &pieces {
            world.deliver(CallerId(5), piece);
        }
        let mut joiner = Joiner::new(at(0), &code(CODE), addr(2), id(1), [3; 32]);
        for piece in &pieces {
            joiner.handle_input(at(0), joiner::Input::Received(piece.clone()));
        }
        // A conversation of which one bit is flipped, or the end is missing.
        let mut good = World::new();
        let caller = good.join_as(2, CODE, addr(2), id(1));
        good.call(caller, id(2));
        let Some(joiner::Output::Send(mut hello)) =
            good.joiners.get_mut(&caller).unwrap().poll_output()
        else {
            panic!("a hello comes first")
        };
        let bit = flip % (hello.len() * 8);
        hello[bit / 8] ^= 1 << (bit % 8);
        hello.truncate(cut.max(1));
        good.deliver(caller, &hello);
        good.run();
        world.run();
        prop_assert!(world.events.is_empty());
        prop_assert!(!matches!(good.events[..], [Event::Paired(_)]));
    }
}
