//! Streams and pings outlive the death of a path, a relay, the introducer.
//! Whole bytes are asserted; how long the silence lasts is for the table.

use anyhow::Result;
use baran_lab::failover::{Death, introducer_dies_under_pings};
use baran_lab::harness;

fn check(death: Death) -> Result<()> {
    harness::test(async { death.run().await.map(drop) })
}

#[test]
fn a_stream_outlives_its_direct_path() -> Result<()> {
    check(Death::DirectPath)
}

#[test]
fn a_stream_outlives_its_relay() -> Result<()> {
    check(Death::Relay)
}

#[test]
fn a_stream_outlives_its_introducer() -> Result<()> {
    check(Death::Introducer)
}

#[test]
fn pings_do_not_notice_the_death_of_the_introducer() -> Result<()> {
    harness::test(introducer_dies_under_pings())
}
