use core::ops::ControlFlow;
use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::machine::check_deadline;

const OWN: NodeId = NodeId::from_bytes([0xff; 32]);

fn id(n: u8) -> NodeId {
    NodeId::from_bytes([n; 32])
}

fn peer(n: u8) -> PeerAddr {
    PeerAddr { addrs: vec![([192, 0, 2, n], 4433).into()], ..id(n).into() }
}

fn peers(n: u8) -> Vec<PeerAddr> {
    (0..n).map(peer).collect()
}

fn s(seconds: u64) -> Instant {
    Instant::from_micros(seconds * 1_000_000)
}

/// A bootstrap and what it did when.
struct Run {
    machine: Bootstrap,
    now: Instant,
    dials: Vec<(Instant, NodeId)>,
    given_up: Vec<NodeId>,
    events: Vec<(Instant, Event)>,
    most_in_flight: usize,
}

impl Run {
    fn new(seed: u8) -> Self {
        Self::of(OWN, seed)
    }

    fn of(own: NodeId, seed: u8) -> Self {
        Self {
            machine: Bootstrap::new(own, BootstrapConfig::default(), [seed; 32]),
            now: Instant::ZERO,
            dials: Vec::new(),
            given_up: Vec::new(),
            events: Vec::new(),
            most_in_flight: 0,
        }
    }

    fn input(&mut self, input: Input) {
        self.machine.handle_input(self.now, input);
        self.drain();
    }

    fn up(&mut self, n: u8) {
        self.input(Input::PeerUp { peer: id(n), is_ours: true });
    }

    fn drain(&mut self) {
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Dial { peer } => self.dials.push((self.now, peer.id)),
                Output::GiveUp(peer) => self.given_up.push(peer),
                Output::Event(event) => self.events.push((self.now, event)),
            }
        }
        self.most_in_flight = self.most_in_flight.max(self.machine.dialling.len());
    }

    /// Lets time pass up to a moment; nobody answers.
    fn until(&mut self, end: Instant) {
        while let Some(at) = self.machine.poll_timeout().filter(|at| *at <= end) {
            self.now = at;
            self.machine.handle_timeout(at);
            self.drain();
            check_deadline(&self.machine, at);
        }
        self.now = end;
    }

    fn tries(&self, n: u8, until: Instant) -> usize {
        self.dials.iter().filter(|(at, peer)| *peer == id(n) && *at <= until).count()
    }
}

#[test]
fn sixteen_silent_peers_are_dialled_four_times_each_in_30_s() {
    for seed in 0..50 {
        let mut run = Run::new(seed);
        run.input(Input::Start { cached: peers(16) });
        run.until(s(30));
        for n in 0..16 {
            let tries = run.tries(n, s(30));
            assert!(tries >= 4, "seed {seed}, peer {n}: {tries}");
        }
        assert!(run.most_in_flight <= 12);
        assert_eq!(run.events, [(s(10), Event::Alone)]);
    }
}

#[test]
fn the_first_tries_go_two_at_a_time_in_the_order_given() {
    let mut run = Run::new(1);
    run.input(Input::Start { cached: peers(20) });
    run.until(Instant::from_micros(1_000_000));
    let expect: Vec<_> =
        (0..10).map(|n| (Instant::from_micros(u64::from(n) / 2 * 250_000), id(n))).collect();
    assert_eq!(run.dials, expect);
}

#[test]
fn a_peer_of_the_lan_is_dialled_at_once_and_before_the_cache() {
    let mut run = Run::new(1);
    run.input(Input::Start { cached: peers(16) });
    run.input(Input::Lan(peer(100)));
    run.input(Input::Lan(peer(5)));
    assert_eq!(run.dials[2..], [(Instant::ZERO, id(100)), (Instant::ZERO, id(5))]);
    run.up(100);
    assert_eq!(run.events, [(Instant::ZERO, Event::Joined { how: How::Lan, peers: 1 })]);
}

#[test]
fn a_peer_of_the_lan_that_moved_is_dialled_at_once() {
    let mut run = Run::new(1);
    run.input(Input::Start { cached: vec![peer(1)] });
    run.input(Input::Lan(peer(1)));
    run.until(s(1));
    run.input(Input::DialFailed(id(1)));
    run.input(Input::Lan(peer(1)));
    assert_eq!(run.dials.len(), 1, "nothing new");
    run.input(Input::Lan(PeerAddr { addrs: peer(2).addrs, ..peer(1) }));
    assert_eq!(run.dials[1..], [(s(1), id(1))]);
}

#[test]
fn an_invented_lan_takes_a_third_of_the_dials_and_no_memory() {
    let mut run = Run::new(1);
    run.input(Input::Start { cached: peers(16) });
    for n in 100..200 {
        run.input(Input::Lan(peer(n)));
    }
    run.until(s(3));
    let lan = run.dials.iter().filter(|(_, peer)| *peer >= id(100)).count();
    assert_eq!((lan, run.dials.len()), (4, 12));
    assert_eq!(run.machine.candidates.len(), 16 + 64);
    run.until(s(3600));
    assert_eq!(run.machine.candidates.len(), 16, "what never answers is forgotten");
    assert!(run.most_in_flight <= 12);
}

#[test]
fn enough_links_end_the_dialling_and_a_lost_one_resumes_it() {
    // Who knows few dials until eight of them are linked.
    let mut few = Run::new(1);
    few.input(Input::Start { cached: peers(16) });
    few.until(s(1));
    (0..7).for_each(|n| few.up(n));
    assert!(few.machine.wants_more());
    few.up(7);
    assert!(!few.machine.wants_more());
    let mut run = Run::new(1);
    run.input(Input::Start { cached: peers(32) });
    run.until(s(1));
    for n in 0..3 {
        run.up(n);
    }
    run.until(s(3000));
    let quiet = run.dials.len();
    assert_eq!(run.machine.poll_timeout(), None, "nothing is waited for");
    assert!(run.dials.iter().all(|(at, _)| *at < s(5)));
    run.input(Input::PeerDown(id(1)));
    run.until(s(3000 + 3600));
    assert!(run.dials.len() > quiet);
    assert_eq!(run.events.len(), 1, "joined once, and still");
}

#[test]
fn links_that_strangers_opened_do_not_end_the_dialling() {
    let mut run = Run::new(1);
    run.input(Input::Start { cached: peers(16) });
    for n in 100..120 {
        run.input(Input::PeerUp { peer: id(n), is_ours: false });
    }
    run.until(s(30));
    assert_eq!(run.events, [(Instant::ZERO, Event::Joined { how: How::Incoming, peers: 1 })]);
    assert!((0..16).all(|n| run.tries(n, s(30)) >= 4));
    // A cached peer that dialled us is one of our choice.
    for n in 0..8 {
        run.input(Input::PeerUp { peer: id(n), is_ours: false });
    }
    assert!(!run.machine.wants_more());
}

#[test]
fn all_links_lost_starts_everything_again() {
    let mut run = Run::new(1);
    run.input(Input::Named(id(2)));
    run.input(Input::Start { cached: peers(16) });
    for n in 2..10 {
        run.up(n);
    }
    run.until(s(1000));
    let before = run.dials.len();
    for n in 2..10 {
        run.input(Input::PeerDown(id(n)));
    }
    run.until(s(1030));
    for n in 0..16 {
        let tries = run.dials[before..].iter().filter(|(_, peer)| *peer == id(n)).count();
        assert!(tries >= 4, "peer {n}: {tries}");
    }
    run.up(3);
    let events: Vec<_> = run.events.iter().map(|(_, event)| *event).collect();
    let joined = |how| Event::Joined { how, peers: 1 };
    assert_eq!(events, [joined(How::Configured), Event::Alone, joined(How::Cache)]);
}

#[test]
fn a_link_that_flaps_does_not_start_everything_again_each_time() {
    let mut run = Run::new(1);
    run.input(Input::Start { cached: peers(16) });
    for second in 0..100 {
        run.until(s(second));
        run.input(Input::PeerUp { peer: id(200), is_ours: false });
        run.input(Input::PeerDown(id(200)));
    }
    let mut calm = Run::new(1);
    calm.input(Input::Start { cached: peers(16) });
    calm.until(s(100));
    assert!(run.dials.len() <= calm.dials.len() * 3 / 2, "{} dials", run.dials.len());
}

#[test]
fn the_rest_of_a_dead_cache_is_swept_and_gets_its_turns() {
    let mut run = Run::new(1);
    run.input(Input::Start { cached: peers(100) });
    run.until(s(120));
    assert!((0..100).all(|n| run.tries(n, s(120)) >= 1), "everybody was tried");
    run.until(s(4 * 3600));
    assert!((0..100).all(|n| run.tries(n, run.now) >= 8), "and had turns");
    let slow: Vec<_> = run.dials.iter().filter(|(at, _)| *at > s(3600)).collect();
    let per_hour = slow.len() / 3;
    assert!(per_hour < 800, "{per_hour} dials an hour without any network");
}

#[test]
fn too_few_links_cost_few_dials_in_the_long_run() {
    let mut run = Run::new(1);
    run.input(Input::Start { cached: peers(100) });
    run.up(0);
    run.until(s(3600));
    let before = run.dials.len();
    run.until(s(5 * 3600));
    let per_hour = (run.dials.len() - before) / 4;
    assert!((10..60).contains(&per_hour), "{per_hour} dials an hour");
}

#[test]
fn listed_peers_come_before_a_dead_cache_and_leave_it_its_turns() {
    let mut run = Run::new(1);
    run.input(Input::Start { cached: peers(100) });
    run.until(s(3600));
    let before = run.dials.len();
    run.input(Input::Listed((100..130).map(peer).collect()));
    run.until(s(3630));
    for n in 100..130 {
        assert_eq!(run.tries(n, run.now) >= 4, n < 108, "peer {n}");
    }
    run.until(s(4 * 3600));
    assert!((0..100).all(|n| run.dials[before..].iter().any(|(_, peer)| *peer == id(n))));
    // Those of the next answer take the places of those that did not answer.
    run.input(Input::Listed(vec![peer(107), peer(140), peer(5)]));
    let asked = run.dials.len();
    run.until(s(5 * 3600));
    let asked: BTreeSet<_> = run.dials[asked..].iter().map(|d| d.1).collect();
    assert!(asked.contains(&id(107)) && asked.contains(&id(140)) && !asked.contains(&id(100)));
    run.up(140);
    let joined = Event::Joined { how: How::Registry, peers: 1 };
    assert_eq!(run.events.last(), Some(&(run.now, joined)));
}

#[test]
fn an_attempt_that_hangs_is_given_up_and_one_that_failed_makes_room() {
    let mut run = Run::new(1);
    run.input(Input::Start { cached: peers(16) });
    run.until(s(2));
    assert_eq!(run.dials.len(), 12);
    run.input(Input::DialFailed(id(0)));
    run.input(Input::DialFailed(id(99)));
    assert_eq!(run.dials.last(), Some(&(s(2), id(12))));
    run.until(s(4));
    assert_eq!(run.given_up[0], id(1));
    assert!(!run.given_up.contains(&id(0)));
}

#[test]
fn without_anybody_to_dial_the_owner_is_told_and_a_newer_cache_is_taken() {
    let mut run = Run::new(1);
    run.input(Input::Start { cached: vec![PeerAddr::from(OWN)] });
    run.until(s(60));
    assert_eq!(run.events, [(s(10), Event::Alone)]);
    assert_eq!(run.machine.poll_timeout(), None);
    run.input(Input::Start { cached: peers(3) });
    assert_eq!(run.dials.len(), 2);
    run.input(Input::Start { cached: vec![peer(7), peer(1), peer(1)] });
    assert_eq!(run.given_up, [id(0)]);
    run.until(s(90));
    assert!(run.dials.iter().all(|(at, peer)| *at == s(60) || [id(7), id(1)].contains(peer)));
}

/// Twelve nodes behind NATs that keep ports and let in only whom they were sent to in the last
/// 30 s, started within 10 s of each other, with nobody else: whoever is dialled by a node that it
/// has dialled itself is linked.
#[test]
fn a_network_behind_nats_forms_again_with_no_third_party() {
    for seed in 0..20u8 {
        let ids: Vec<_> = (0..12).collect::<Vec<u8>>();
        let mut runs: Vec<_> = ids.iter().map(|n| Run::of(id(*n), seed * 12 + n)).collect();
        let boots: Vec<_> = ids
            .iter()
            .map(|n| Instant::from_micros(u64::from(*n) * 7_919_000 % 10_000_000))
            .collect();
        let mut sent = BTreeMap::new();
        let mut linked = BTreeSet::new();
        for step in 0..400 {
            let now = Instant::from_micros(step * 100_000);
            for a in ids.iter().copied().filter(|a| boots[usize::from(*a)] <= now) {
                let run = &mut runs[usize::from(a)];
                run.now = run.now.max(now);
                if run.machine.began.is_none() {
                    let cached = ids.iter().map(|n| peer(*n)).collect();
                    run.input(Input::Start { cached });
                }
                run.until(now);
                for (at, to) in core::mem::take(&mut run.dials) {
                    sent.insert((id(a), to), at);
                    let open = sent.get(&(to, id(a)));
                    if open.is_some_and(|open| at - *open < Duration::from_secs(30)) {
                        linked.insert((id(a).min(to), id(a).max(to)));
                        run.input(Input::PeerUp { peer: to, is_ours: true });
                        let other = &mut runs[usize::from(to.as_bytes()[0])];
                        other.now = other.now.max(now);
                        other.input(Input::PeerUp { peer: id(a), is_ours: false });
                        break;
                    }
                }
            }
            if components(&linked) == ControlFlow::Break(12) {
                assert!(now < s(30), "seed {seed}: {now:?}");
                break;
            }
        }
        assert_eq!(components(&linked), ControlFlow::Break(12), "seed {seed}");
    }
}

/// Breaks with the number of nodes reached from the first, if that is all.
fn components(linked: &BTreeSet<(NodeId, NodeId)>) -> ControlFlow<usize> {
    let mut reached = BTreeSet::from([id(0)]);
    loop {
        let before = reached.len();
        for (a, b) in linked {
            if reached.contains(a) || reached.contains(b) {
                reached.extend([*a, *b]);
            }
        }
        if reached.len() == 12 {
            return ControlFlow::Break(12);
        }
        if reached.len() == before {
            return ControlFlow::Continue(());
        }
    }
}

fn any_input() -> impl Strategy<Value = Input> {
    let n = || (0u8..24).prop_map(id);
    prop_oneof![
        proptest::collection::vec((0u8..24).prop_map(peer), 0..24)
            .prop_map(|cached| Input::Start { cached }),
        (0u8..24).prop_map(|n| Input::Lan(peer(n))),
        proptest::collection::vec((0u8..24).prop_map(peer), 0..24).prop_map(Input::Listed),
        n().prop_map(Input::Named),
        (n(), any::<bool>()).prop_map(|(peer, is_ours)| Input::PeerUp { peer, is_ours }),
        n().prop_map(Input::PeerDown),
        n().prop_map(Input::DialFailed),
    ]
}

proptest! {
    // Each case is a long run.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_inputs_break_the_limits_or_make_it_spin(
        inputs in proptest::collection::vec((0u64..20_000_000, any_input()), 0..80),
        seed: u8,
    ) {
        let mut run = Run::new(seed);
        for (pause, input) in inputs {
            run.until(run.now + Duration::from_micros(pause));
            run.input(input);
            let machine = &run.machine;
            prop_assert!(machine.dialling.keys().all(|id| !machine.up.contains_key(id)));
            prop_assert!(machine.candidates.len() <= 24);
        }
        prop_assert!(run.most_in_flight <= 12);
        // Each dial ends; from then on only pauses are waited for, a bounded number of them.
        let before = run.dials.len();
        let end = run.now + Duration::from_secs(600);
        run.until(end);
        prop_assert!(run.dials.len() - before < 600);
    }
}
