//! A share of all nodes works against the others: they name only their like, say that they keep
//! what they throw away, and find nothing. They have public addresses and never leave.

use core::time::Duration;

use super::{Run, measure};
use crate::report::Report;

pub(super) fn run(run: &mut Run<'_>, report: &mut Report) {
    run.populate(run.args.adversaries);
    run.settle();
    run.look_up_until_end(false);
    let (before, after) = run.costs();
    let bad = run.world.hosts.iter().filter(|host| host.is_on && host.is_adversary).count();
    report.figure("adversaries", "adversaries", bad as f64, "", None);
    measure::publishing(&run.queries, report);
    measure::lookups(&run.queries, 0.99, report);
    after.report(&before, report);
    measure::holdings(&run.world, report);
    measure::course(&run.queries, Duration::from_secs(30), report);
}
