//! Cuts the power of a modelled disk at ten thousand points: `power_cut [--cuts N] [--seed S]`.

#![allow(clippy::print_stdout, reason = "a command")]

#[path = "../tests/support/mod.rs"]
mod support;

fn main() {
    let cuts = support::argument("--cuts", 10_000);
    let seed = support::argument("--seed", 1);
    let outcome = support::power::cut(usize::try_from(cuts).expect("a number of cuts"), seed);
    println!("nothing was lost: {outcome:?}");
}
