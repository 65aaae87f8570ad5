//! Two machines whose calendars differ by a day: they talk, and what cannot work says why.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::Report;
use crate::harness::SETTLE;
use crate::nat::NatKind;
use crate::node::Node;
use crate::world::World;

/// A day, as libfaketime writes it and in seconds.
const OFFSET: (&str, f64) = ("+1d", 86_400.0);

/// How much of the offset may be lost on the way.
const TOLERANCE_S: f64 = 60.0;

const TOPIC: &str = "a topic of two calendars";

const LIMIT: Duration = Duration::from_secs(20);

pub(super) async fn play(dir: &Path, report: &mut Report) -> Result<()> {
    let world = World::new().await?;
    let kind = NatKind::PortRestricted;
    let m = Node::up(&world.host("m", NatKind::Open).await?, dir, &[], &[]).await?;
    let mut right = Node::up(&world.host("right", kind).await?, dir, &[m.at()], &[]).await?;
    let ahead = world.host("ahead", kind).await?;
    let mut ahead = Node::up_at(&ahead, dir, &[m.at()], OFFSET.0).await?;
    right.joined().await?;
    ahead.joined().await?;
    for (from, to) in [(&right, &ahead), (&ahead, &right)] {
        let pings = from.ping(&to.id, 1, 100).await?;
        report.check(pings.complete, || format!("{} reaches nobody", from.host.name()));
    }
    let knows = |status: &serde_json::Value| status["index"]["clock_skew_s"].is_number();
    let status = ahead.until_status(SETTLE, knows).await?;
    let skew = status["index"]["clock_skew_s"].as_f64().unwrap_or_default();
    report.figure("skew that the node with the wrong clock tells", skew, "s");
    let off = (skew.abs() - OFFSET.1).abs();
    report.check(off < TOLERANCE_S, || format!("a day is {skew} s"));
    // What works in spite of the day needs no word, what does not must say why.
    let put = ahead.run(&["put", "name", "value"], LIMIT).await?;
    let got = right.run(&["get", &ahead.id, "name"], LIMIT).await?;
    let is_found = got.text("value") == Some("value");
    report.figure("a value of the wrong clock is found", is_found, "");
    report.check(is_found || put.stderr.contains("clock"), || format!("put: {put}; get: {got}"));
    let mut announcing = ahead.spawn(&["announce", TOPIC])?;
    let announced = announcing.next(LIMIT).await?;
    let is_warned = announced.as_ref().is_some_and(|line| line["clock_skew_s"].is_number());
    report.check(is_warned, || format!("no word about the clock: {announced:?}"));
    let looked = right.run(&["lookup", TOPIC], LIMIT).await?;
    let is_found = looked.lines.iter().any(|line| line["id"] == *ahead.id);
    report.figure("a topic announced by the wrong clock is found", is_found, "");
    announcing.terminate().await?;

    // Between right clocks a third machine's wrong one changes nothing.
    let put = right.run(&["put", "name", "value"], LIMIT).await?;
    report.check(put.success, || format!("put with a right clock: {put}"));
    let got = m.run(&["get", &right.id, "name"], LIMIT).await?;
    report.check(got.text("value") == Some("value"), || format!("get: {got}"));
    Ok(())
}
