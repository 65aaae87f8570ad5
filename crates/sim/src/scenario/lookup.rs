//! Look-ups of values and connections by id in a network at rest.

use core::time::Duration;

use super::{Run, measure};
use crate::report::Report;

pub(super) fn run(run: &mut Run<'_>, report: &mut Report) {
    run.begin();
    run.look_up_until_end(true);
    let (before, after) = run.costs();
    measure::publishing(&run.queries, report);
    measure::lookups(&run.queries, 0.995, report);
    measure::connects(&run.queries, 0.99, report);
    after.report(&before, report);
    measure::holdings(&run.world, report);
    measure::course(&run.queries, Duration::from_secs(30), report);
}
