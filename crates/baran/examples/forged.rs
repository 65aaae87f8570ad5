//! What entries with wrong signatures cost: how long one processor takes to read and refuse one.
//!
//! A peer that sends them is banned after its second; this is what the first ones cost, and what
//! a crowd of such peers would.

#![allow(clippy::print_stdout, reason = "a program that prints a figure")]

use std::time::Instant;

use baran_proto::id::SecretKey;
use baran_proto::topic::entry::{Draft, Signed};
use baran_proto::topic::id::TopicId;

/// Entries that are read: what comes in ten seconds of a flood.
const COUNT: usize = 50_000;

/// Bytes of payload of each.
const LEN: usize = 1_024;

fn main() {
    let secret = SecretKey::from_bytes([1; 32]);
    let [topic, other] = [1, 2].map(|n| TopicId::from_bytes([n; 32]));
    let draft = Draft { seq: 1, payload: vec![0; LEN].into(), ..Draft::default() };
    let bytes = Signed::sign(&secret, "main", other, draft).bytes().clone();
    let begin = Instant::now();
    let refused = (0..COUNT)
        .filter(|_| Signed::decode(bytes.clone()).is_ok_and(|it| !it.verify("main", topic)))
        .count();
    let each = begin.elapsed().as_secs_f64() / COUNT as f64;
    println!("{refused} of {COUNT} refused, {:.1} us each", each * 1e6);
    println!("5,000 a second take {:.0} % of a processor", each * 5_000.0 * 100.0);
}
