use std::collections::BTreeMap;

use super::*;

fn ms(ms: u64) -> Instant {
    Instant::from_micros(ms * 1000)
}

fn direct(n: u8) -> Remote {
    Remote::Direct(SocketAddr::from(([192, 0, 2, n], 4000)))
}

fn relayed(n: u8) -> Remote {
    Remote::Relayed { via: Some(NodeId::from_bytes([n; 32])) }
}

fn candidate(n: u8) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, n], 5000))
}

/// A link whose world answers samples: paths in `silent` transmit and hear nothing.
struct Harness {
    machine: PathManager,
    now: u64,
    open: BTreeMap<PathId, (u64, u64, Duration)>,
    silent: Vec<PathId>,
    busy: bool,
    samples: usize,
    log: Vec<Output>,
}

impl Harness {
    fn new(side: Side) -> Self {
        Self {
            machine: PathManager::new(Config::default(), side),
            now: 1,
            open: BTreeMap::new(),
            silent: Vec::new(),
            busy: true,
            samples: 0,
            log: Vec::new(),
        }
    }

    fn input(&mut self, input: Input) {
        match &input {
            Input::Opened { path, .. } => {
                self.open.insert(*path, (0, 0, Duration::from_millis(10)));
            }
            Input::Closed(path) => {
                self.open.remove(path);
            }
            _ => {}
        }
        self.machine.handle_input(ms(self.now), input);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.machine.poll_output() {
            match &output {
                Output::Sample => {
                    self.samples += 1;
                    for (path, (tx, rx, _)) in &mut self.open {
                        *tx += u64::from(self.busy);
                        *rx += u64::from(self.busy && !self.silent.contains(path));
                    }
                    let samples = self
                        .open
                        .iter()
                        .map(|(path, (tx, rx, rtt))| Sample {
                            path: *path,
                            tx: *tx,
                            rx: *rx,
                            rtt: *rtt,
                        })
                        .collect();
                    self.machine.handle_input(ms(self.now), Input::Samples(samples));
                }
                Output::Close(path) => {
                    assert!(self.open.len() > 1, "the last path is never closed");
                    self.open.remove(path);
                    self.log.push(output);
                }
                _ => self.log.push(output),
            }
        }
    }

    fn run(&mut self, until: u64) {
        while let Some(at) = self.machine.poll_timeout().filter(|at| *at <= ms(until)) {
            self.now = at.as_micros().div_ceil(1000);
            self.machine.handle_timeout(ms(self.now));
            self.drain();
            machine::check_deadline(&self.machine, ms(self.now));
        }
        self.now = until;
    }

    fn count(&self, output: &Output) -> usize {
        self.log.iter().filter(|entry| *entry == output).count()
    }

    fn selected(&self) -> Option<Remote> {
        self.machine.selected().map(|selected| selected.remote)
    }
}

#[test]
fn starts_on_the_relay_and_moves_to_the_direct_path_at_once() {
    let mut link = Harness::new(Side::Client);
    link.input(Input::Opened { path: PathId(0), remote: relayed(1) });
    assert_eq!(link.selected(), Some(relayed(1)));
    link.input(Input::Opened { path: PathId(1), remote: direct(1) });
    assert_eq!(link.selected(), Some(direct(1)));
    assert_eq!(link.count(&Output::SetAvailable(PathId(1), true)), 1);
    assert!(link.log.ends_with(&[
        Output::SetAvailable(PathId(1), true),
        Output::SetAvailable(PathId(0), false),
        Output::Selected(link.machine.selected().unwrap()),
    ]));
}

#[test]
fn a_silent_path_is_pinged_and_closed_and_the_backup_carries_on() {
    let mut link = Harness::new(Side::Client);
    link.input(Input::Opened { path: PathId(0), remote: relayed(1) });
    link.input(Input::Opened { path: PathId(1), remote: direct(1) });
    link.run(1000);
    link.silent.push(PathId(1));
    link.log.clear();
    link.run(1400);
    assert_eq!(link.count(&Output::Ping(PathId(1))), 1);
    assert_eq!(link.count(&Output::Close(PathId(1))), 1);
    assert_eq!(link.selected(), Some(relayed(1)));
}

#[test]
fn where_no_path_is_heard_none_is_closed() {
    let mut link = Harness::new(Side::Client);
    link.input(Input::Opened { path: PathId(0), remote: relayed(1) });
    link.input(Input::Opened { path: PathId(1), remote: direct(1) });
    link.run(1000);
    link.silent.extend([PathId(0), PathId(1)]);
    link.log.clear();
    link.run(3000);
    assert!(!link.log.iter().any(|entry| matches!(entry, Output::Close(_))));
    link.silent.retain(|path| *path == PathId(1));
    link.run(3200);
    assert_eq!(link.count(&Output::Close(PathId(1))), 1, "the relay answers again");
}

#[test]
fn an_idle_path_is_left_alone() {
    let mut link = Harness::new(Side::Client);
    link.busy = false;
    link.input(Input::Opened { path: PathId(0), remote: relayed(1) });
    link.input(Input::Opened { path: PathId(1), remote: direct(1) });
    link.run(60_000);
    assert!(!link.log.iter().any(|entry| matches!(entry, Output::Close(_) | Output::Ping(_))));
}

#[test]
fn the_last_path_is_never_closed() {
    let mut link = Harness::new(Side::Server);
    link.input(Input::Opened { path: PathId(0), remote: direct(1) });
    link.silent.push(PathId(0));
    link.run(20_000);
    assert_eq!(link.selected(), Some(direct(1)));
}

#[test]
fn rounds_start_when_candidates_come_and_are_paced_after() {
    let mut link = Harness::new(Side::Client);
    link.input(Input::Opened { path: PathId(0), remote: relayed(1) });
    link.run(1000);
    assert_eq!(link.count(&Output::StartRound), 0, "nothing to offer yet");
    link.input(Input::Candidates(vec![candidate(1)]));
    link.run(1100);
    assert_eq!(link.count(&Output::StartRound), 1);
    link.input(Input::PeerCandidates);
    link.run(1200);
    assert_eq!(link.count(&Output::StartRound), 2);
    link.run(300_000);
    // 5, 10, 20, 40 and then every 60 s.
    assert_eq!(link.count(&Output::StartRound), 2 + 4 + 3);
    link.input(Input::Opened { path: PathId(1), remote: direct(1) });
    link.log.clear();
    link.run(900_000);
    assert_eq!(link.count(&Output::StartRound), 0, "direct: no more rounds");
}

#[test]
fn a_server_neither_starts_rounds_nor_asks_for_relays() {
    let mut link = Harness::new(Side::Server);
    link.input(Input::Opened { path: PathId(0), remote: relayed(1) });
    link.input(Input::Candidates(vec![candidate(1)]));
    link.run(100_000);
    let asked = |entry: &Output| matches!(entry, Output::StartRound | Output::WantRelay { .. });
    assert!(!link.log.iter().any(asked));
    assert_eq!(link.count(&Output::AddCandidate(candidate(1))), 1);
}

#[test]
fn a_second_relay_is_wanted_besides_the_first_and_retried_with_pauses() {
    let mut link = Harness::new(Side::Client);
    link.input(Input::Opened { path: PathId(0), remote: relayed(1) });
    link.run(10);
    let wanted = Output::WantRelay { besides: vec![NodeId::from_bytes([1; 32])] };
    assert_eq!(link.count(&wanted), 1);
    for _ in 0..3 {
        link.input(Input::RelayFailed);
        link.run(link.now + 100);
    }
    assert!(link.count(&wanted) < 4, "failures are not retried at once");
    link.run(60_000);
    link.input(Input::Opened { path: PathId(1), remote: relayed(2) });
    link.log.clear();
    link.run(200_000);
    assert!(!link.log.iter().any(|entry| matches!(entry, Output::WantRelay { .. })));
}

#[test]
fn round_trip_times_decide_with_hysteresis() {
    let mut link = Harness::new(Side::Client);
    link.input(Input::Opened { path: PathId(0), remote: direct(1) });
    link.input(Input::Opened { path: PathId(1), remote: direct(2) });
    let set = |link: &mut Harness, path, rtt| {
        link.open.get_mut(&PathId(path)).unwrap().2 = Duration::from_millis(rtt);
    };
    set(&mut link, 0, 20);
    set(&mut link, 1, 18);
    link.run(10_000);
    assert_eq!(link.selected(), Some(direct(1)), "a little better is not enough");
    set(&mut link, 1, 5);
    link.run(11_000);
    assert_eq!(link.selected(), Some(direct(1)), "nor is better for a moment");
    link.run(15_000);
    assert_eq!(link.selected(), Some(direct(2)));
    // Equal again: no way back, no oscillation.
    set(&mut link, 1, 20);
    link.log.clear();
    link.run(60_000);
    assert!(!link.log.iter().any(|entry| matches!(entry, Output::Selected(_))));
}

#[test]
fn surplus_direct_paths_are_closed_by_the_client() {
    let mut link = Harness::new(Side::Client);
    for n in 0..6 {
        link.input(Input::Opened { path: PathId(n), remote: direct(u8::try_from(n).unwrap()) });
    }
    link.run(5000);
    assert_eq!(link.machine.paths().count(), Config::default().direct_paths_max);
}

#[test]
fn same_inputs_same_outputs() {
    let run = || {
        let mut link = Harness::new(Side::Client);
        link.input(Input::Candidates(vec![candidate(1), candidate(2)]));
        for n in 0..4 {
            link.input(Input::Opened {
                path: PathId(n),
                remote: relayed(u8::try_from(n).unwrap()),
            });
            link.run(u64::from(n) * 700 + 500);
            link.silent.push(PathId(n));
        }
        link.run(100_000);
        format!("{:?}", link.log)
    };
    assert_eq!(run(), run());
}

/// A link of two paths on which nothing passes, until it is quiet.
fn quiet_link(side: Side) -> Harness {
    let mut link = Harness::new(side);
    link.busy = false;
    link.input(Input::Opened { path: PathId(0), remote: relayed(1) });
    link.input(Input::Opened { path: PathId(1), remote: relayed(2) });
    link.input(Input::Opened { path: PathId(2), remote: direct(1) });
    link.run(4000);
    link
}

#[test]
fn an_idle_link_is_quiet_after_seconds_and_then_waits_for_nothing() {
    for side in [Side::Client, Side::Server] {
        let link = quiet_link(side);
        assert_eq!(link.count(&Output::Quiet), 1);
        assert_eq!(link.machine.poll_timeout(), None);
        assert!(link.samples < 70, "sampled closely for two seconds only: {}", link.samples);
    }
}

#[test]
fn a_busy_link_is_never_quiet() {
    let mut link = Harness::new(Side::Client);
    link.input(Input::Opened { path: PathId(0), remote: direct(1) });
    link.run(60_000);
    assert_eq!(link.count(&Output::Quiet), 0);
    link.busy = false;
    link.run(64_000);
    assert_eq!(link.count(&Output::Quiet), 1);
}

#[test]
fn what_is_written_on_a_quiet_link_is_watched_and_a_dead_path_closed() {
    let mut link = quiet_link(Side::Client);
    link.run(100_000);
    assert_eq!(link.count(&Output::Quiet), 1, "nothing wakes it");
    link.silent.push(PathId(2));
    link.busy = true;
    link.input(Input::Active);
    link.run(100_500);
    assert_eq!(link.count(&Output::Close(PathId(2))), 1);
    assert_eq!(link.selected(), Some(relayed(1)));
    link.busy = false;
    link.run(110_000);
    assert_eq!(link.count(&Output::Quiet), 2);
}

#[test]
fn a_path_in_doubt_keeps_a_link_awake() {
    let mut link = Harness::new(Side::Client);
    link.input(Input::Opened { path: PathId(0), remote: direct(1) });
    link.run(1000);
    link.silent.push(PathId(0));
    link.run(1600);
    link.busy = false;
    link.run(60_000);
    assert_eq!(link.count(&Output::Quiet), 0);
}

#[test]
fn a_path_that_comes_or_goes_ends_the_quiet() {
    let mut link = quiet_link(Side::Server);
    link.input(Input::Closed(PathId(0)));
    assert!(link.machine.poll_timeout().is_some());
    link.run(10_000);
    assert_eq!((link.count(&Output::Quiet), link.machine.poll_timeout()), (2, None));
    link.input(Input::Opened { path: PathId(3), remote: direct(2) });
    link.run(20_000);
    assert_eq!((link.count(&Output::Quiet), link.machine.poll_timeout()), (3, None));
}

#[test]
fn a_quiet_link_is_spared_vain_rounds_and_requests_until_it_is_used() {
    let mut link = Harness::new(Side::Client);
    link.busy = false;
    link.input(Input::Opened { path: PathId(0), remote: relayed(1) });
    link.input(Input::Candidates(vec![candidate(1)]));
    link.run(200_000);
    assert_eq!(link.machine.poll_timeout(), None);
    assert_eq!(link.count(&Output::StartRound), 5, "at once, after 5, 10, 20, 40 s");
    let asked = |link: &Harness| {
        link.log.iter().filter(|output| matches!(output, Output::WantRelay { .. })).count()
    };
    assert_eq!(asked(&link), 5);
    link.run(900_000);
    link.input(Input::Active);
    link.run(900_100);
    assert_eq!((link.count(&Output::StartRound), asked(&link)), (6, 6));
    // A link that is used now and then is not spared for ever, nor asked for each time.
    for n in 0..30 {
        link.input(Input::Active);
        link.run(900_100 + (n + 1) * 20_000);
    }
    assert!((13..=17).contains(&link.count(&Output::StartRound)));
}

#[test]
fn an_acknowledgement_on_another_path_is_an_answer() {
    let mut link = Harness::new(Side::Client);
    link.input(Input::Opened { path: PathId(0), remote: relayed(1) });
    link.input(Input::Opened { path: PathId(1), remote: direct(1) });
    link.silent.push(PathId(0));
    for n in 0..200 {
        link.open.get_mut(&PathId(0)).unwrap().2 += Duration::from_nanos(20);
        link.run(n * 50);
    }
    assert!(!link.log.iter().any(|entry| matches!(entry, Output::Close(_))));
}

#[test]
fn a_dead_path_is_left_for_one_of_which_nothing_is_known() {
    let mut link = Harness::new(Side::Client);
    link.busy = false;
    link.input(Input::Opened { path: PathId(0), remote: relayed(1) });
    link.input(Input::Opened { path: PathId(1), remote: direct(1) });
    link.run(100);
    // Something is sent on the direct path alone, and a peer that is quiet answers on that one.
    let send = |link: &mut Harness| link.open.get_mut(&PathId(1)).unwrap().0 += 1;
    send(&mut link);
    link.run(500);
    assert_eq!(link.selected(), Some(relayed(1)), "the peer hears of this and wakes");
    assert!(!link.log.iter().any(|entry| matches!(entry, Output::Close(_))));
    link.open.get_mut(&PathId(0)).unwrap().1 += 1;
    link.run(1000);
    assert_eq!(link.count(&Output::Close(PathId(1))), 1);
}
