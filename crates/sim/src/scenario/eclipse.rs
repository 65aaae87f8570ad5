//! Sybils crowd the key of a value: their ids are nearer to it than anybody's. They name only each
//! other and say that they keep what they throw away (Sridhar et al., *Content Censorship in the
//! `InterPlanetary` File System*, NDSS 2024, with 45 Sybils against a look-up of the 20 nearest).
//!
//! The Sybils are there before the value is published, have public addresses in networks of their
//! own, and are in everybody's reach: the attacker's best case.

use core::time::Duration;

use super::{Run, START, due, measure, queries};
use crate::report::Report;
use crate::world::Profile;

pub(super) fn run(run: &mut Run<'_>, report: &mut Report) {
    run.populate(0.0);
    let victim = 0;
    let key = queries::key_of(&run.world, victim);
    let profile = Profile::adversary();
    let sybils: Vec<_> =
        (0..run.args.sybils).map(|_| run.world.add_host_near(&profile, key)).collect();
    run.world.enlist_adversaries();
    let others: Vec<_> = (0..run.args.nodes).collect();
    run.world.draw_caches_of(&sybils, &others);
    for sybil in &sybils {
        run.world.join_at(run.world.now() + START, *sybil);
    }
    run.settle();
    run.queries.published.clear();
    run.queries.publish(&mut run.world, victim);
    run.run_for(Duration::from_secs(30), |_, _| {});
    let nearest = run.world.nearest(key, 20);
    let crowd = nearest.iter().filter(|host| sybils.contains(host)).count();
    let lookups = run.args.lookups as usize;
    let time = (run.end - run.world.now()).saturating_sub(Duration::from_secs(25));
    let mut made = 0;
    run.run_for(time, |run, share| {
        while made < due(lookups, share) {
            made += 1;
            run.queries.look_up_any(&mut run.world);
        }
    });
    run.finish();
    report.figure("sybils", "Sybils", sybils.len() as f64, "", None);
    report.figure(
        "sybils_nearest",
        "Sybils among the 20 nearest to the key",
        crowd as f64,
        "",
        None,
    );
    let kept = run.queries.published.first().and_then(|one| one.kept).map_or(0, |(kept, _)| kept);
    report.figure("copies", "copies that somebody claims to keep", kept as f64, "", None);
    let honest = run.world.honest_copies(key);
    report.figure("honest_copies", "copies that honest nodes keep", honest as f64, "", None);
    measure::lookups(&run.queries, 0.99, report);
    measure::holdings(&run.world, report);
    measure::course(&run.queries, Duration::from_secs(30), report);
}
