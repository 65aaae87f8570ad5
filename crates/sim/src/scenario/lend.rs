//! What puts the lending of roles to the test: something happens to a network that stands, while
//! look-ups go on at a steady rate; how long do they fail?
//!
//! The two great outages of Skype are among them: August 2007, when all nodes restarted and nobody
//! was left to log in at (`mass-restart`), and December 2010, when a third of the super nodes died
//! and the others could not bear what they left (`lose-30`).

use core::time::Duration;

use baran_proto::time::Instant;

use super::recovery::{self, Seconds, Targets};
use super::{Run, due, measure};
use crate::args::Scenario;
use crate::report::Report;

/// In this time all nodes start for the first time.
const COLD: Duration = Duration::from_secs(60);

/// Peers that a newcomer was told of.
const INVITED: usize = 8;

/// How long all are off that restart.
const OFF: Duration = Duration::from_secs(2);

/// The share of seats that is lost at once.
const LOST: f64 = 0.3;

/// In this time a crowd comes, and after this time each looks for what all want.
const CROWD: Duration = Duration::from_secs(60);
const CROWD_ASKS: Duration = Duration::from_secs(10);

/// Look-ups begin so long before it happens: as it was is seen well enough.
const CALM: Duration = Duration::from_secs(180);

/// How long the network is cut in two, if there is twice as much time.
const CUT: Duration = Duration::from_secs(600);

/// Look-ups that begin later have no time to end.
const TAIL: Duration = Duration::from_secs(25);

pub(super) fn run(run: &mut Run<'_>, report: &mut Report) {
    let scenario = run.args.scenario;
    if scenario == Scenario::ColdStart {
        start_cold(run);
    } else {
        let is_attacked = scenario == Scenario::Sybil;
        run.populate(if is_attacked { run.args.adversaries } else { 0.0 });
        run.settle();
        let calm = Instant::ZERO + run.args.event_at();
        run.run_for((calm - run.world.now()).saturating_sub(CALM), |_, _| {});
        watch(run, calm - run.world.now());
    }
    let happened = run.world.now();
    let since = happen(run, scenario);
    watch(run, (run.end - run.world.now()).saturating_sub(TAIL));
    run.finish();
    measure::publishing(&run.queries, report);
    figures(run, [happened, since], report);
    let (before, after) = run.costs();
    after.report(&before, report);
    measure::holdings(&run.world, report);
}

/// What look-ups should do (design §11).
fn targets(scenario: Scenario) -> Targets {
    match scenario {
        Scenario::MassRestart => Targets { recovered_s: Some(45.0), least: None },
        Scenario::AllSeatsLost => Targets { recovered_s: Some(75.0), least: None },
        Scenario::Lose30 => Targets { recovered_s: None, least: Some(0.99) },
        _ => Targets::default(),
    }
}

/// Adds how look-ups went since the network should be there after what happened, and who held
/// seats; and the plot of both.
pub(super) fn figures(run: &Run<'_>, [happened, since]: [Instant; 2], report: &mut Report) {
    let seconds = Seconds::since(&run.queries.outcomes, since);
    seconds.report(targets(run.args.scenario), report);
    let is_day = run.args.scenario == Scenario::Fairness;
    let step = recovery::step(run.args.duration());
    measure::course(&run.queries, step, report);
    run.seats.course(step, report);
    run.seats.report(&run.world, [happened, since], is_day, report);
}

/// Runs for some time while anybody who is on looks for values.
fn watch(run: &mut Run<'_>, time: Duration) {
    watch_and(run, time, |_| {});
}

/// The same; `each` is called every second.
fn watch_and(run: &mut Run<'_>, time: Duration, mut each: impl FnMut(&mut Run<'_>)) {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number")]
    let lookups = (run.args.rate_per_s() * time.as_secs_f64()) as usize;
    let mut made = 0;
    run.run_for(time, |run, share| {
        while made < due(lookups, share) {
            made += 1;
            run.queries.look_up_by_anybody(&mut run.world);
        }
        each(run);
    });
}

/// Starts all nodes; those that are on publish the values meanwhile.
fn start_cold(run: &mut Run<'_>) {
    let nodes = run.args.nodes;
    run.world.populate_new(nodes, INVITED, COLD);
    run.install_servers(true);
    run.publish_within(COLD);
}

/// Lets it happen; returns the moment from which the network should be there.
fn happen(run: &mut Run<'_>, scenario: Scenario) -> Instant {
    match scenario {
        Scenario::MassRestart => {
            run.world.restart_all(OFF, Duration::from_secs(run.args.within.into()))
        }
        Scenario::AllSeatsLost => lose(run, 1.0),
        Scenario::Lose30 => lose(run, LOST),
        Scenario::FlashCrowd => gather_crowd(run),
        Scenario::Partition => {
            run.world.set_cut(true);
            watch(run, CUT.min((run.end - run.world.now()) / 2));
            run.world.set_cut(false);
            run.world.now()
        }
        _ => run.world.now(),
    }
}

/// A share of those that hold a seat is gone, without a word and for good.
fn lose(run: &mut Run<'_>, share: f64) -> Instant {
    let mut seats: Vec<_> = run.world.seats().into_iter().map(|(host, _)| host).collect();
    seats.dedup();
    run.world.vanish(&mut seats, share);
    run.world.now()
}

/// As many nodes again come, and each wants the same value.
fn gather_crowd(run: &mut Run<'_>) -> Instant {
    let since = run.world.now();
    let Some(wanted) = run.queries.pick_value() else { return since };
    let crowd = run.world.add_crowd(run.args.nodes, INVITED, CROWD);
    let mut asked = 0;
    watch_and(run, CROWD + CROWD_ASKS, |run| {
        while let Some((at, host)) = crowd.get(asked)
            && *at + CROWD_ASKS <= run.world.now()
        {
            asked += 1;
            run.queries.look_up(&mut run.world, *host, wanted);
        }
    });
    since
}
