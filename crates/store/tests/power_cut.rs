//! The power fails: nothing that was acknowledged is lost, and nothing is there in part.
//!
//! `cargo run --release -p baran-store --example power_cut` does it ten thousand times.

mod support;

use support::power;

#[test]
fn what_was_acknowledged_survives_500_power_cuts() {
    let outcome = power::cut(500, 1);
    assert_eq!(outcome.cuts, 500);
    // Else the cuts are where they cut nothing.
    assert!(outcome.in_the_middle > 250, "{outcome:?}");
    assert!(outcome.ahead > 0, "{outcome:?}");
}
