//! Who held seats, for how long, and what they gave: looked at every second.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use baran_proto::role::Region;
use baran_proto::time::Instant;

use crate::net::capacity::Service;
use crate::plot::{Panel, Series};
use crate::report::{Report, Target, jain, quantile};
use crate::world::{Host, World};

/// Pause between two looks at what everybody gives.
const LOADS: Duration = Duration::from_secs(60);

/// Looks until a network that starts has taken its seats; who takes one later takes it over.
const SETTLED_LOOKS: u64 = 120;

/// Who was on, or held a seat, for less says little of how load is shared: an hour, or a tenth of a
/// shorter run.
const COUNTS_AFTER: Duration = Duration::from_secs(3600);

/// What one served others while it held a seat.
#[derive(Debug, Clone, Copy, Default)]
struct Held {
    seconds: u64,
    bytes: u64,
    /// What it had served in all when it was looked at last, if it held a seat then.
    before: Option<u64>,
}

/// What was seen so far.
#[derive(Debug, Default)]
pub(super) struct SeatWatch {
    seats: BTreeSet<(u32, Region)>,
    looks: u64,
    /// Seats of all looks together.
    seen: u64,
    /// From this moment on it counts who holds them.
    counts_from: Instant,
    /// Seats of all looks since then together, and those of adversaries among them.
    counted: [u64; 2],
    /// Seats that somebody came to hold.
    gained: u64,
    /// How many there were, by time.
    course: Vec<(Instant, usize)>,
    held: BTreeMap<u32, Held>,
    /// Minutes that each host was on.
    minutes_on: Vec<u32>,
    loads_at: Instant,
}

impl SeatWatch {
    /// Nothing was seen; the seats of adversaries count from some moment on.
    pub(super) fn new(counts_from: Instant) -> Self {
        Self { counts_from, ..Self::default() }
    }

    /// Looks at the world; called every second.
    pub(super) fn look(&mut self, world: &World) {
        let seats: BTreeSet<_> = world.seats().into_iter().collect();
        self.looks += 1;
        if self.looks > SETTLED_LOOKS {
            self.gained += seats.difference(&self.seats).count() as u64;
        }
        let is_bad = |(host, _): &&(u32, Region)| world.hosts[*host as usize].is_adversary;
        self.seen += seats.len() as u64;
        if world.now >= self.counts_from {
            self.counted[0] += seats.len() as u64;
            self.counted[1] += seats.iter().filter(is_bad).count() as u64;
        }
        self.course.push((world.now, seats.len()));
        for (host, _) in self.seats.difference(&seats) {
            self.held.entry(*host).or_default().before = None;
        }
        for (host, _) in &seats {
            let total = world.hosts[*host as usize].service.served();
            let held = self.held.entry(*host).or_default();
            if let Some(before) = held.before.replace(total) {
                held.seconds += 1;
                held.bytes += total - before;
            }
        }
        self.seats = seats;
        if world.now >= self.loads_at {
            self.loads_at = world.now + LOADS;
            self.minutes_on.resize(world.hosts.len(), 0);
            for (minutes, host) in self.minutes_on.iter_mut().zip(&world.hosts) {
                *minutes += u32::from(host.is_on);
            }
        }
    }

    /// Seats at the last look before `at`.
    fn seats_before(&self, at: Instant) -> usize {
        self.course.iter().rev().find(|(when, _)| *when < at).map_or(0, |(_, seats)| *seats)
    }

    /// What each host served that held a seat for long enough, of what it was credited with or what
    /// its owner lent in that time.
    fn loads_of_seats(&self, world: &World, least: Duration, of: fn(&Service) -> u64) -> Vec<f64> {
        let is_long = |(_, held): &(&u32, &Held)| held.seconds >= least.as_secs().max(1);
        let load = |(host, held): (&u32, &Held)| {
            let rate = of(&world.hosts[*host as usize].service);
            held.bytes as f64 / (rate as f64 * held.seconds as f64)
        };
        self.held.iter().filter(is_long).map(load).collect()
    }

    /// The same of all who could hold one, who are honest and were on for long enough, in the time
    /// that they were on.
    fn loads_of_eligible(&self, world: &World, least: Duration) -> Vec<f64> {
        let all = self.minutes_on.iter().zip(&world.hosts);
        let is_eligible = |(minutes, host): &(&u32, &Host)| {
            !host.is_adversary && u64::from(**minutes) * 60 >= least.as_secs().max(60)
        };
        let load = |(minutes, host): (&u32, &Host)| {
            let credited = host.service.credited() as f64 * f64::from(*minutes) * 60.0;
            host.service.served() as f64 / credited
        };
        all.filter(is_eligible).map(load).collect()
    }

    /// Adds what was seen: before it `happened`, and `since` the network should be there. With
    /// `is_day`, targets are those of a day.
    pub(super) fn report(
        &self,
        world: &World,
        [happened, since]: [Instant; 2],
        is_day: bool,
        report: &mut Report,
    ) {
        let (regions, planned) = world.planned_seats(world.online());
        report.figure("regions", "regions", regions as f64, "", None);
        let name = "seats before it happened";
        report.figure("seats", name, self.seats_before(happened) as f64, "", None);
        report.figure("seats_planned", "seats that there should be", planned as f64, "", None);
        let back = self.course.iter().find(|(at, seats)| *at >= since && seats * 2 >= planned);
        let recovered = back.map_or(f64::INFINITY, |(at, _)| (*at - since).as_secs_f64());
        report.figure("seats_recovered_s", "half of the seats are held", recovered, "s", None);
        let hours = self.looks.saturating_sub(SETTLED_LOOKS) as f64 / 3600.0;
        let mean_seats = self.seen as f64 / self.looks as f64;
        let turnover = self.gained as f64 / mean_seats / hours;
        let name = "seats that change hands in an hour";
        report.figure("seat_turnover_per_hour", name, turnover, "%", None);
        let is_attacked = world.hosts.iter().any(|host| host.is_adversary);
        let sybil = self.counted[1] as f64 / self.counted[0] as f64;
        let most = is_attacked.then_some(Target::AtMost(0.25));
        report.figure("sybil_seat_share", "seats that adversaries hold", sybil, "%", most);
        self.report_loads(world, is_day, report);
    }

    fn report_loads(&self, world: &World, is_day: bool, report: &mut Report) {
        let target = |least| is_day.then_some(Target::AtLeast(least));
        let least = COUNTS_AFTER.min((world.now - Instant::ZERO) / 10);
        let mut seats = self.loads_of_seats(world, least, Service::credited);
        let mut eligible = self.loads_of_eligible(world, least);
        let name = "Jain's index of load among seats";
        report.figure("jain_seats", name, jain(&seats), "", target(0.95));
        let lent = self.loads_of_seats(world, least, Service::lent);
        let name = "the same, if all that is lent is counted";
        report.figure("jain_seats_lent", name, jain(&lent), "", None);
        let name = "Jain's index of load among all who could hold one";
        report.figure("jain_eligible_24h", name, jain(&eligible), "", target(0.8));
        let over: u64 = world.hosts.iter().map(|host| host.service.over()).sum();
        let none = Some(Target::AtMost(0.0));
        let name = "bytes served above an owner's limit";
        report.figure("bytes_over_owner_limit", name, over as f64, "B", none);
        let served: u64 = world.hosts.iter().map(|host| host.service.served()).sum();
        let kb = served as f64 * 1e-3 / (world.time_online().as_secs_f64() / 3600.0);
        let name = "served to others, per node and hour";
        report.figure("served_kb_per_node_hour", name, kb, "KB", None);
        if is_day {
            let lines = [("all who could hold a seat", &mut eligible), ("seats", &mut seats)];
            let series = lines
                .map(|(name, loads)| Series { name: name.to_owned(), points: distribution(loads) });
            let up = "served to others, % of what is credited";
            report.panels.push(Panel { across: "share of them, %", up, series: series.into() });
        }
    }

    /// Adds how many seats there were, by time.
    pub(super) fn course(&self, step: Duration, report: &mut Report) {
        let every = usize::try_from(step.as_secs()).unwrap_or(usize::MAX).max(1);
        let minute = |at: Instant| (at - Instant::ZERO).as_secs_f64() / 60.0;
        let points = self.course.iter().step_by(every);
        let points = points.map(|(at, seats)| (minute(*at), *seats as f64)).collect();
        report.line("seats", "seats that are held", points);
    }
}

/// Hundredths of all, and the load below which they are, in hundredths of what is credited.
fn distribution(loads: &mut [f64]) -> Vec<(f64, f64)> {
    (0..=100).map(|at| (f64::from(at), quantile(loads, f64::from(at) / 100.0) * 100.0)).collect()
}
