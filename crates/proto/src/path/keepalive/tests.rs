use std::collections::BTreeMap;

use super::*;

const LATENCY: u64 = 50;

fn ms(ms: u64) -> Instant {
    Instant::from_micros(ms * 1000)
}

/// One side of the link, and what its QUIC counts.
struct End {
    machine: KeepAlive,
    counters: BTreeMap<PathId, (u64, u64)>,
    /// Acknowledgements of each path's packets, whatever path they came on.
    acknowledged: BTreeMap<PathId, u32>,
    /// Whether it still runs.
    is_up: bool,
    /// How long its NAT keeps a mapping, and when it was last renewed, in milliseconds.
    mapping: u64,
    renewed: BTreeMap<PathId, u64>,
    pings: Vec<u64>,
    unanswered: u32,
    /// When its path manager is quiet again.
    quiet_at: Option<u64>,
    lost: Option<u64>,
}

/// Two ends whose keep-alives pass their NATs or do not.
struct World {
    ends: [End; 2],
    now: u64,
    /// Arrivals: when, at which end, on which path, and of what path's packet it is the
    /// acknowledgement, if it is one. Those travel on the path in use, which is the first.
    flying: BTreeMap<(u64, u64), (usize, PathId, Option<PathId>)>,
    sequence: u64,
    dead: Vec<PathId>,
    /// Moments at which nothing passes.
    outage: core::ops::Range<u64>,
}

impl World {
    fn new(mapping_s: [u64; 2], paths: u32) -> Self {
        let end = |side, mapping_s: u64| End {
            machine: KeepAlive::new(side),
            counters: (0..paths).map(|n| (PathId(n), (0, 0))).collect(),
            acknowledged: BTreeMap::new(),
            is_up: true,
            mapping: mapping_s * 1000,
            renewed: (0..paths).map(|n| (PathId(n), 0)).collect(),
            pings: Vec::new(),
            unanswered: 0,
            quiet_at: None,
            lost: None,
        };
        let mut world = Self {
            ends: [end(Side::Client, mapping_s[0]), end(Side::Server, mapping_s[1])],
            now: 0,
            flying: BTreeMap::new(),
            sequence: 0,
            dead: Vec::new(),
            outage: 0..0,
        };
        for end in 0..2 {
            for path in 0..paths {
                world.input(end, Input::Opened(PathId(path)));
            }
        }
        world
    }

    fn input(&mut self, end: usize, input: Input) {
        self.ends[end].machine.handle_input(ms(self.now), input);
        self.drain(end);
    }

    fn drain(&mut self, n: usize) {
        while let Some(output) = self.ends[n].machine.poll_output() {
            let end = &mut self.ends[n];
            match output {
                Output::Look => {
                    let sample = |(path, (tx, rx)): (&PathId, &(u64, u64))| Sample {
                        path: *path,
                        tx: *tx,
                        rx: *rx,
                        rtt: Duration::from_nanos(
                            100_000_000 + u64::from(*end.acknowledged.get(path).unwrap_or(&0)),
                        ),
                    };
                    let counters = end.counters.iter().map(sample).collect();
                    end.machine.handle_input(ms(self.now), Input::Counters(counters));
                }
                Output::Ping(path) => {
                    end.pings.push(self.now);
                    self.send(n, path, None);
                }
                Output::Unanswered => {
                    end.unanswered += 1;
                    end.quiet_at = Some(self.now + 4000);
                    end.machine.handle_input(ms(self.now), Input::Active);
                }
                Output::Lost => end.lost = Some(self.now),
            }
        }
    }

    fn send(&mut self, from: usize, path: PathId, acknowledged: Option<PathId>) {
        self.ends[from].counters.get_mut(&path).unwrap().0 += 1;
        self.ends[from].renewed.insert(path, self.now);
        self.sequence += 1;
        let arrival = (1 - from, path, acknowledged);
        self.flying.insert((self.now + LATENCY, self.sequence), arrival);
    }

    fn arrive(&mut self, n: usize, path: PathId, acknowledged: Option<PathId>) {
        let end = &mut self.ends[n];
        let is_open = self.now - end.renewed[&path] <= end.mapping;
        let is_lost = self.dead.contains(&path) || self.outage.contains(&self.now);
        if !end.is_up || !is_open || is_lost {
            return;
        }
        end.counters.get_mut(&path).unwrap().1 += 1;
        match acknowledged {
            Some(path) => *end.acknowledged.entry(path).or_default() += 1,
            None => self.send(n, PathId(0), Some(path)),
        }
    }

    fn run(&mut self, seconds: u64) {
        let until = self.now + seconds * 1000;
        loop {
            let due = |end: &End| end.machine.poll_timeout().filter(|_| end.is_up);
            let timer = self.ends.iter().filter_map(due).min();
            let timer = timer.map(|at| at.as_micros().div_ceil(1000));
            let arrival = self.flying.first_key_value().map(|((at, _), _)| *at);
            let quiet = self.ends.iter().filter_map(|end| end.quiet_at).min();
            let next = timer.into_iter().chain(arrival).chain(quiet).min();
            let Some(next) = next.filter(|at| *at <= until) else { break };
            // What an end that was stopped has missed is over.
            self.now = self.now.max(next);
            if let Some(end) = self.ends.iter().position(|end| end.quiet_at == Some(next)) {
                self.ends[end].quiet_at = None;
                self.input(end, Input::Quiet);
                continue;
            }
            if arrival == Some(next) {
                let (_, (end, path, acknowledged)) = self.flying.pop_first().unwrap();
                self.arrive(end, path, acknowledged);
                continue;
            }
            for n in 0..2 {
                if self.ends[n].is_up {
                    self.ends[n].machine.handle_timeout(ms(self.now));
                    self.drain(n);
                    machine::check_deadline(&self.ends[n].machine, ms(self.now));
                }
            }
        }
        self.now = until;
    }

    /// Both ends stop to be busy, `apart` milliseconds after each other.
    fn quiet(&mut self, apart: u64) {
        self.input(0, Input::Quiet);
        self.now += apart;
        self.input(1, Input::Quiet);
    }

    fn pauses(&self) -> [u64; 2] {
        [0, 1].map(|end| self.ends[end].machine.pause().as_secs())
    }
}

#[test]
fn pauses_climb_where_mappings_live_and_the_ends_take_turns() {
    let mut world = World::new([120, 120], 2);
    world.quiet(300);
    world.run(15 + 15 + 30 + 30 + 10);
    assert_eq!(world.pauses(), [60, 60]);
    world.ends.iter_mut().for_each(|end| end.pings.clear());
    world.run(3600);
    // A turn a minute: each end pings both paths in its own, and the unused one in the other's.
    let pings = world.ends.each_ref().map(|end| end.pings.len());
    assert!(pings.iter().all(|pings| (84..=90).contains(pings)), "{pings:?}");
    assert_eq!(world.pauses(), [60, 60]);
    assert!(world.ends.iter().all(|end| end.unanswered == 0));
}

#[test]
fn turns_are_kept_whatever_end_is_quiet_first_and_by_how_much() {
    for (first, apart) in [(0, 0), (0, 2500), (1, 1000), (1, 2500)] {
        let mut world = World::new([120, 120], 1);
        world.input(first, Input::Quiet);
        world.run(0);
        world.now += apart;
        world.input(1 - first, Input::Quiet);
        world.run(200);
        assert_eq!(world.pauses(), [60, 60], "{first} {apart}");
    }
}

#[test]
fn a_mapping_that_dies_early_keeps_pauses_short() {
    for (mapping, paths) in [([40, 120], 1), ([120, 40], 1), ([40, 40], 1), ([40, 120], 2)] {
        let mut world = World::new(mapping, paths);
        world.quiet(100);
        world.run(3600);
        // How long each end could not be reached: after the mapping's life, until it sent again.
        world.ends.iter_mut().for_each(|end| end.pings.clear());
        world.run(24 * 3600);
        assert!(world.ends.iter().all(|end| end.lost.is_none()), "{mapping:?}");
        // One for each turn with one path, three with two.
        let pings: usize = world.ends.iter().map(|end| end.pings.len()).sum();
        let pings = pings / if paths == 1 { 1 } else { 3 };
        assert!((24 * 3600 / 32..24 * 3600 / 20).contains(&pings), "{mapping:?} {pings}");
    }
}

#[test]
fn a_peer_that_is_gone_is_noticed_from_any_moment_of_silence() {
    for (survivor, died) in (0..2).flat_map(|end| (0..70).map(move |s| (end, s))) {
        let mut world = World::new([120, 120], 2);
        world.quiet(100);
        world.run(100 + died);
        world.ends[1 - survivor].is_up = false;
        let died = world.now;
        world.run(200);
        let lost = world.ends[survivor].lost.expect("noticed") - died;
        assert!(lost <= 86_000, "{survivor} {lost}");
        assert!(world.ends[survivor].unanswered > 0, "the path manager was told");
    }
}

#[test]
fn a_link_with_data_is_lost_after_some_seconds_of_silence() {
    let mut world = World::new([120, 120], 1);
    world.run(60);
    assert!(world.ends.iter().all(|end| end.lost.is_none()), "nothing sent, nothing missed");
    world.ends[1].is_up = false;
    world.send(0, PathId(0), None);
    let sent = world.now;
    world.run(30);
    let lost = world.ends[0].lost.expect("noticed") - sent;
    assert!((12_000..=16_000).contains(&lost), "{lost}");
}

#[test]
fn an_outage_shorter_than_that_ends_nothing() {
    let mut world = World::new([120, 120], 2);
    world.quiet(0);
    world.run(14);
    world.outage = world.now..world.now + 10_000;
    world.run(20);
    assert!(world.ends.iter().all(|end| end.counters[&PathId(0)].1 > 0), "the late turn passes");
    world.run(60);
    assert!(world.ends.iter().all(|end| end.lost.is_none()));
}

#[test]
fn a_process_that_was_stopped_does_not_take_its_own_sleep_for_the_peers() {
    let mut world = World::new([120, 120], 1);
    world.quiet(0);
    world.ends[0].is_up = false;
    world.run(50);
    world.ends[0].is_up = true;
    world.run(30);
    assert_eq!(world.ends[0].lost, None);
    assert!(world.ends[1].lost.is_some(), "the other end heard nothing for that long");
}

#[test]
fn one_path_of_two_that_does_not_answer_is_reported_and_the_link_lives() {
    let mut world = World::new([120, 120], 2);
    world.quiet(0);
    world.dead.push(PathId(1));
    world.run(120);
    assert!(world.ends.iter().any(|end| end.unanswered > 0));
    assert!(world.ends.iter().all(|end| end.lost.is_none()));
}

#[test]
fn an_unused_path_of_a_busy_link_is_kept_alive_by_both_ends() {
    let mut world = World::new([30, 30], 2);
    for _ in 0..600 {
        world.send(0, PathId(0), None);
        world.run(1);
    }
    let pings = world.ends.each_ref().map(|end| end.pings.len());
    assert!(pings.iter().all(|pings| (30..=40).contains(pings)), "{pings:?}");
}

#[test]
fn a_new_path_starts_with_short_pauses() {
    let mut world = World::new([120, 120], 1);
    world.quiet(0);
    world.run(300);
    assert_eq!(world.pauses(), [60, 60]);
    for end in 0..2 {
        world.ends[end].counters.insert(PathId(7), (0, 0));
        world.ends[end].renewed.insert(PathId(7), world.now);
        world.input(end, Input::Opened(PathId(7)));
    }
    assert_eq!(world.pauses(), [15, 15]);
}

#[test]
fn a_link_without_paths_waits_for_nothing() {
    let mut machine = KeepAlive::new(Side::Client);
    machine.handle_input(ms(1), Input::Quiet);
    assert_eq!(machine.poll_timeout(), None);
    machine.handle_input(ms(1), Input::Opened(PathId(0)));
    assert!(machine.poll_timeout().is_some());
    machine.handle_input(ms(2), Input::Closed(PathId(0)));
    assert_eq!(machine.poll_timeout(), None);
}
