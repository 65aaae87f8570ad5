//! A network does without whoever brought it together: the scenes of `baran-lab find`.

use std::time::Duration;

use anyhow::{Result, ensure};
use baran_lab::find::Scene;
use baran_lab::harness;

/// Elections take epochs, of which one may be lost while the machine is busy, and what follows two
/// minutes.
const ELECTION_MAX: Duration = Duration::from_secs(660);

fn check(scene: Scene) -> Result<()> {
    check_within(Duration::from_secs(180), scene)
}

fn check_within(limit: Duration, scene: Scene) -> Result<()> {
    harness::test_within(limit, async move {
        let report = scene.run().await?;
        ensure!(report.is_well(), "{}:\n{}", scene.name(), report.faults().join("\n"));
        Ok(())
    })
}

#[test]
fn eleven_behind_nats_outlive_the_only_public_node() -> Result<()> {
    check(Scene::Warm)
}

#[test]
fn twelve_behind_nats_are_one_network_again_after_all_restarted() -> Result<()> {
    check(Scene::Reborn)
}

#[test]
fn a_link_that_leads_nowhere_is_a_network() -> Result<()> {
    check(Scene::Lan)
}

#[test]
fn a_node_alone_says_so() -> Result<()> {
    check(Scene::Lonely)
}

#[test]
fn calendars_may_differ_by_a_day() -> Result<()> {
    check(Scene::Clocks)
}

#[test]
fn a_value_outlives_its_author_and_most_of_its_holders() -> Result<()> {
    check(Scene::Records)
}

#[test]
fn two_dozen_elect_seats_and_outlive_the_loss_of_all() -> Result<()> {
    check_within(ELECTION_MAX, Scene::Seats)
}

/// A thousand messages by as many commands, and a cut of a minute.
const TALK_MAX: Duration = Duration::from_secs(420);

#[test]
fn five_talk_through_absence_a_cut_and_the_loss_of_the_founder() -> Result<()> {
    check_within(TALK_MAX, Scene::Topics)
}
