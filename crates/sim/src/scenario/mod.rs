//! Scenarios: what a world goes through, and what is measured.
//!
//! All of them begin alike: a network that has stood for a while starts from its caches within
//! half a minute and settles; nodes publish values; then it happens. What differs is what happens,
//! and what should be true of it.

mod adversaries;
mod churn;
mod eclipse;
mod lend;
mod lookup;
mod measure;
mod queries;
mod recovery;
mod restart;
mod seats;
mod topic;

use core::time::Duration;

use baran_proto::time::Instant;

use self::measure::Cost;
use self::queries::Queries;
use self::seats::SeatWatch;
use crate::args::{Args, Scenario};
use crate::policy::Servers;
use crate::population;
use crate::progress::Progress;
use crate::report::Report;
use crate::world::{Config, World};

/// In this time all nodes start.
const START: Duration = Duration::from_secs(30);

/// After this time the network has settled.
const SETTLED: Duration = Duration::from_secs(120);

/// In this time the values are published.
const PUBLISH: Duration = Duration::from_secs(30);

/// After this time caches, tables and shards have filled, and what a node costs is what it costs at
/// rest. Runs that are not twice as long are measured from the end of the beginning.
const WARM: Duration = Duration::from_secs(30 * 60);

/// Between two looks at what nodes told their owners.
const STEP: Duration = Duration::from_secs(1);

/// A run under way.
struct Run<'a> {
    args: &'a Args,
    world: World,
    queries: Queries,
    /// Who serves, once there is somebody.
    servers: Option<Servers>,
    seats: SeatWatch,
    progress: Progress,
    /// What was sent until costs count.
    warm: Option<Cost>,
    /// When the run is over.
    end: Instant,
}

/// Runs a scenario; how far it is, `progress` says.
#[must_use]
pub fn run(args: &Args, progress: Progress) -> Report {
    let mut run = Run::new(args, progress);
    let mut report = Report {
        scenario: args.scenario.name(),
        nodes: args.nodes,
        seed: args.seed,
        policy: args.policy.name(),
        parameters: parameters(args),
        ..Report::default()
    };
    match args.scenario {
        Scenario::Lookup => lookup::run(&mut run, &mut report),
        Scenario::Churn => churn::run(&mut run, &mut report),
        Scenario::Restart => restart::run(&mut run, &mut report),
        Scenario::Eclipse => eclipse::run(&mut run, &mut report),
        Scenario::Adversaries => adversaries::run(&mut run, &mut report),
        Scenario::ColdStart
        | Scenario::MassRestart
        | Scenario::AllSeatsLost
        | Scenario::Lose30
        | Scenario::FlashCrowd
        | Scenario::Sybil
        | Scenario::Partition
        | Scenario::Fairness => lend::run(&mut run, &mut report),
        Scenario::Topic => topic::run(&mut run, &mut report),
    }
    run.progress.end();
    report.trace = run.world.trace().to_string();
    report
}

fn parameters(args: &Args) -> Vec<(&'static str, String)> {
    let mut all = vec![
        ("nodes", args.nodes.to_string()),
        ("minutes", (args.duration().as_secs() / 60).to_string()),
        ("seed", args.seed.to_string()),
        ("policy", args.policy.name().to_owned()),
        ("churn", format!("{} %/h", args.churn_per_h() * 100.0)),
        ("open", args.open.to_string()),
        ("symmetric", args.symmetric.to_string()),
        ("loss", args.loss.to_string()),
        ("stale", args.stale.to_string()),
    ];
    match args.scenario {
        Scenario::Eclipse => all.push(("sybils", args.sybils.to_string())),
        Scenario::Adversaries | Scenario::Sybil => {
            all.push(("adversaries", args.adversaries.to_string()));
        }
        Scenario::Topic => {
            all.push(("messages", args.messages.to_string()));
            all.push(("flooders", args.flooders.to_string()));
        }
        Scenario::MassRestart => all.push(("within", format!("{} s", args.within))),
        _ => {}
    }
    all
}

impl<'a> Run<'a> {
    fn new(args: &'a Args, progress: Progress) -> Self {
        let config = Config {
            seed: args.seed,
            open: args.open,
            hard: args.symmetric.min(1.0 - args.open),
            loss: args.loss,
            policy: args.policy,
            is_limited: args.scenario.is_limited(),
            ..Config::default()
        };
        Self {
            args,
            world: World::new(config),
            queries: Queries::new(args.seed),
            servers: None,
            seats: SeatWatch::new(Instant::ZERO + args.elected_at()),
            progress,
            warm: None,
            end: Instant::ZERO + args.duration(),
        }
    }

    fn population(&self) -> population::Config {
        population::Config {
            nodes: self.args.nodes as usize,
            churn_per_h: self.args.churn_per_h(),
            stale: self.args.stale,
            ..population::Config::default()
        }
    }

    /// Fills the world; a share of those who are on works against the others.
    fn populate(&mut self, adversaries: f64) {
        let population = self.population();
        self.world.populate(&population, START, adversaries);
        if adversaries > 0.0 {
            self.world.enlist_adversaries();
        }
        self.install_servers(false);
    }

    /// From this moment on the policy says who serves; with `is_new` nobody has before.
    fn install_servers(&mut self, is_new: bool) {
        let hosts: Vec<_> = (0..self.args.nodes).collect();
        self.servers = Some(Servers::new(&self.world, &hosts, is_new));
    }

    /// Fills the world, lets it settle, and publishes the values.
    fn begin(&mut self) {
        self.populate(0.0);
        self.settle();
    }

    fn settle(&mut self) {
        self.run_for(SETTLED, |_, _| {});
        self.publish_within(PUBLISH);
        self.run_for(Duration::from_secs(15), |_, _| {});
    }

    /// Runs for some time in which the values are published.
    fn publish_within(&mut self, time: Duration) {
        let values = self.args.values as usize;
        let mut publishers = Vec::new();
        self.run_for(time, |run, share| {
            while publishers.len() < due(values, share) {
                let Some(host) = run.queries.pick(&run.world) else { break };
                let is_new = !publishers.contains(&host);
                publishers.push(host);
                if is_new {
                    run.queries.publish(&mut run.world, host);
                }
            }
        });
    }

    /// Runs for some time; `each` is called every [`STEP`] with the share of it that is over.
    fn run_for(&mut self, time: Duration, mut each: impl FnMut(&mut Self, f64)) {
        let (from, to) = (self.world.now(), self.world.now() + time);
        while self.world.now() < to {
            let share = (self.world.now() - from).as_secs_f64() / time.as_secs_f64();
            each(self, share);
            self.warm_up();
            if let Some(servers) = &mut self.servers {
                servers.tick(&mut self.world);
            }
            self.seats.look(&self.world);
            let next = (self.world.now() + STEP).min(to);
            self.world.run_until(next);
            self.queries.read(&mut self.world);
            let (now, online) = (self.world.now(), self.world.online());
            let done =
                (now - Instant::ZERO).as_secs_f64() / (self.end - Instant::ZERO).as_secs_f64();
            let minutes = (now - Instant::ZERO).as_secs_f64() / 60.0;
            self.progress.at(
                done.min(1.0),
                &format!("minute {minutes:.1}, {online} nodes, {} links", self.world.conns_len()),
            );
        }
    }

    /// Runs to the end, with look-ups spread over the time; with `connects` every other one is a
    /// connection by id. Leaves time for the last ones to end.
    fn look_up_until_end(&mut self, connects: bool) {
        let tail = Duration::from_secs(25);
        let time = (self.end - self.world.now()).saturating_sub(tail);
        let lookups = self.args.lookups as usize;
        let mut made = 0;
        self.run_for(time, |run, share| {
            while made < due(lookups, share) {
                made += 1;
                if connects && made % 2 == 0 {
                    run.queries.connect_any(&mut run.world);
                } else {
                    run.queries.look_up_any(&mut run.world);
                }
            }
        });
        self.finish();
    }

    /// Waits for the look-ups under way.
    fn finish(&mut self) {
        for _ in 0..30 {
            if self.queries.is_idle() {
                break;
            }
            self.run_for(STEP, |_, _| {});
        }
    }

    /// Notes what was sent when it is time.
    fn warm_up(&mut self) {
        let is_long = self.args.duration() >= WARM * 2;
        let warm = if is_long { WARM } else { SETTLED + PUBLISH };
        if self.warm.is_none() && self.world.now() >= Instant::ZERO + warm {
            self.warm = Some(Cost::now(&self.world, &self.queries));
        }
    }

    /// What was sent until costs count, and until this moment.
    fn costs(&self) -> (Cost, Cost) {
        let now = Cost::now(&self.world, &self.queries);
        (self.warm.unwrap_or(now), now)
    }
}

/// How many of `all` are due after a share of the time, the first at once.
fn due(all: usize, share: f64) -> usize {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number")]
    let due = (all as f64 * share).floor() as usize + 1;
    due.min(all)
}
