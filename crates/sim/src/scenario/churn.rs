//! Nodes come and go. Half of the publishers leave for good as soon as their values are stored:
//! what they published has to live on without them.

use core::time::Duration;

use super::queries::Sought;
use super::{Run, lend, measure};
use crate::report::{Report, Target};

/// Nodes that ask for each value at the end: one of them finding it is proof that it is alive.
const WITNESSES: usize = 3;

pub(super) fn run(run: &mut Run<'_>, report: &mut Report) {
    run.begin();
    let orphaned: Vec<_> = run
        .queries
        .published
        .iter()
        .filter(|one| one.kept.is_some_and(|(kept, _)| kept > 0))
        .step_by(2)
        .map(|one| one.host)
        .collect();
    for host in &orphaned {
        run.world.retire(*host);
    }
    let since = run.world.now();
    run.look_up_until_end(false);
    let (before, after) = run.costs();
    measure::publishing(&run.queries, report);
    measure::lookups(&run.queries, 0.995, report);
    lend::figures(run, [since; 2], report);
    let alive = count_alive(run, &orphaned);
    let share = alive as f64 / orphaned.len() as f64;
    report.figure(
        "orphans",
        "values whose publisher left for good",
        orphaned.len() as f64,
        "",
        None,
    );
    let least = Some(Target::AtLeast(0.999));
    report.figure("orphans_alive", "of these alive at the end", share, "%", least);
    after.report(&before, report);
    measure::holdings(&run.world, report);
}

/// How many values of these publishers somebody finds.
fn count_alive(run: &mut Run<'_>, publishers: &[u32]) -> usize {
    let first = run.queries.outcomes.len();
    for publisher in publishers {
        for _ in 0..WITNESSES {
            if let Some(by) = run.queries.pick(&run.world) {
                run.queries.look_up(&mut run.world, by, *publisher);
            }
        }
        run.run_for(Duration::from_millis(200), |_, _| {});
    }
    run.finish();
    let late = &run.queries.outcomes[first..];
    let is_found = |publisher: &&u32| {
        late.iter().any(|one| one.sought == Sought::Value(**publisher) && one.found.is_some())
    };
    publishers.iter().filter(is_found).count()
}
