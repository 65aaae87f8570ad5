//! Every node stops at one moment without a word, and starts again within ten seconds, when no
//! node is there to be asked: all that they have is their caches.

use core::time::Duration;

use baran_proto::time::Instant;

use super::queries::Outcome;
use super::{Run, due, measure};
use crate::report::{FOUND, Report, Target};

/// How long all are off, and in which time they are switched on again.
const OFF: Duration = Duration::from_secs(2);
const WITHIN: Duration = Duration::from_secs(10);

/// Look-ups are grouped by this time.
const STEP: Duration = Duration::from_secs(5);

/// The share of look-ups that has to work for the network to be there again.
const ENOUGH: f64 = 0.99;

pub(super) fn run(run: &mut Run<'_>, report: &mut Report) {
    run.begin();
    let first = run.queries.outcomes.len();
    let last_boot = run.world.restart_all(OFF, WITHIN);
    let joined = watch(run, last_boot);
    measure::publishing(&run.queries, report);
    let late = &run.queries.outcomes[first..];
    let healed = healed_after(late, last_boot);
    let name = "after the last start, 99 % of look-ups work";
    report.figure("healed_s", name, healed, "s", Some(Target::AtMost(45.0)));
    let all_joined = joined
        .iter()
        .find(|(_, share)| *share >= ENOUGH)
        .map_or(f64::NAN, |(minute, _)| minute * 60.0 - (last_boot - Instant::ZERO).as_secs_f64());
    report.figure("joined_s", "after the last start, 99 % are joined", all_joined, "s", None);
    let end = run.world.now();
    let settled = late.iter().filter(|one| end - one.began < Duration::from_secs(120));
    let share = measure::share(settled);
    let least = Some(Target::AtLeast(ENOUGH));
    report.figure("lookups_found_late", "look-ups of the last two minutes", share, "%", least);
    measure::holdings(&run.world, report);
    measure::course(&run.queries, STEP, report);
    report.line(FOUND, "nodes that are joined", joined);
}

/// Runs to the end with look-ups all the time, most of them soon after the restart; returns the
/// course of the share of nodes that are joined.
fn watch(run: &mut Run<'_>, last_boot: Instant) -> Vec<(f64, f64)> {
    let time = (run.end - run.world.now()).saturating_sub(Duration::from_secs(20));
    let lookups = run.args.lookups as usize;
    let mut made = 0;
    let mut joined = Vec::new();
    run.run_for(time, |run, share| {
        let minute = (run.world.now() - Instant::ZERO).as_secs_f64() / 60.0;
        joined.push((minute, run.world.joined() as f64 / f64::from(run.args.nodes)));
        if run.world.now() < last_boot {
            return;
        }
        while made < due(lookups, share.sqrt()) {
            made += 1;
            run.queries.look_up_by_anybody(&mut run.world);
        }
    });
    run.finish();
    joined
}

/// Seconds from `start` to the first step from which on enough look-ups work.
fn healed_after(outcomes: &[Outcome], start: Instant) -> f64 {
    let steps = 600 / STEP.as_secs();
    let share = |at: u64| {
        let from = start + Duration::from_secs(STEP.as_secs() * at);
        let within = |one: &&Outcome| one.began >= from && one.began < from + STEP;
        measure::share(outcomes.iter().filter(within))
    };
    let shares: Vec<_> = (0..steps).map(share).take_while(|share| share.is_finite()).collect();
    let bad = shares.iter().rposition(|share| *share < ENOUGH);
    match bad {
        None if shares.is_empty() => f64::NAN,
        None => 0.0,
        Some(last) if last + 1 == shares.len() => f64::INFINITY,
        Some(last) => (last as f64 + 1.0) * STEP.as_secs_f64(),
    }
}
