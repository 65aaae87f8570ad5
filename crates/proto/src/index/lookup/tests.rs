use std::net::{Ipv4Addr, SocketAddr};

use proptest::prelude::*;

use super::*;
use crate::wire::index::RecordKind;
use crate::wire::node::Home;

const OWN: NodeId = NodeId::from_bytes([0; 32]);

fn ms(millis: u64) -> Instant {
    Instant::from_micros(millis * 1_000)
}

fn id(number: u32) -> NodeId {
    let mut bytes = [1; 32];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    NodeId::from_bytes(bytes)
}

fn target() -> Key {
    Key::topic_secret("target")
}

/// An open peer in a network of its own.
fn open(number: u32) -> PeerAddr {
    let ip = Ipv4Addr::from_bits((20 << 24) + (number << 8) + 1);
    PeerAddr { id: id(number), addrs: vec![SocketAddr::from((ip, 4433))], homes: Vec::new() }
}

/// A peer that another signals for.
fn closed(number: u32) -> PeerAddr {
    PeerAddr { homes: vec![Home { id: id(9_999), addrs: Vec::new() }], ..open(number) }
}

fn candidate(peer: PeerAddr) -> Candidate {
    Candidate { peer, is_linked: false, rtt: None, vias: Vec::new(), is_stale: false, seat: None }
}

/// Numbers of which the first is nearest to the target.
fn by_distance(count: u32) -> Vec<u32> {
    let mut numbers: Vec<_> = (0..count).collect();
    numbers.sort_by_cached_key(|number| Key::of_node(id(*number)).distance(&target()));
    numbers
}

fn lookup(config: LookupConfig, start: impl IntoIterator<Item = Candidate>) -> Lookup {
    Lookup::new(target(), OWN, Purpose::Nodes, config, start)
}

fn asks(lookup: &mut Lookup, now: Instant) -> Vec<NodeId> {
    core::iter::from_fn(|| lookup.poll(now)).map(|ask| ask.peer.id).collect()
}

fn ids(numbers: &[u32]) -> Vec<NodeId> {
    numbers.iter().map(|number| id(*number)).collect()
}

#[test]
fn with_nobody_to_ask_it_is_done_at_once() {
    let mut lookup = lookup(LookupConfig::default(), [candidate(PeerAddr { id: OWN, ..open(1) })]);
    assert!(lookup.is_done() && lookup.poll(ms(0)).is_none());
    assert_eq!((lookup.poll_timeout(), lookup.nearest_found()), (None, Vec::new()));
}

#[test]
fn the_nearest_are_asked_and_slots_are_kept() {
    let near = by_distance(40);
    let config = LookupConfig { in_flight: 4, paths: 1, k: 6, ..LookupConfig::default() };
    let mut lookup = lookup(config, near.iter().map(|number| candidate(open(*number))));
    assert_eq!(asks(&mut lookup, ms(0)), ids(&near[..4]));
    assert!(lookup.answered(ms(50), id(near[1]), &[], 0, false).is_empty());
    lookup.failed(ms(60), id(near[0]));
    // One failed, so the seventh is of the six nearest that may be alive.
    assert_eq!(asks(&mut lookup, ms(60)), ids(&near[4..6]));
    for number in &near[2..6] {
        assert!(!lookup.is_done());
        lookup.answered(ms(100), id(*number), &[], 0, false);
    }
    assert_eq!(asks(&mut lookup, ms(100)), ids(&near[6..7]));
    lookup.answered(ms(150), id(near[6]), &[], 0, false);
    assert!(lookup.is_done());
    let answered: Vec<_> = lookup.nearest_found().iter().map(|peer| peer.id).collect();
    assert_eq!(answered, ids(&near[1..7]));
    assert_eq!((lookup.asked(), lookup.answers_received(), lookup.rounds()), (7, 6, 1));
}

#[test]
fn those_cheap_to_reach_go_first_among_those_about_as_near() {
    let near = by_distance(4_000);
    let bits = |number: &u32| Key::of_node(id(*number)).common_bits(&target());
    let first = near.iter().position(|number| bits(number) == 6).unwrap();
    let run: Vec<_> = near[first..].iter().copied().take(4).collect();
    let far = *near.iter().find(|number| bits(number) == 3).unwrap();
    let start = [
        candidate(closed(run[0])),
        Candidate { vias: vec![id(9_999)], ..candidate(closed(run[1])) },
        candidate(open(run[2])),
        Candidate { is_linked: true, ..candidate(closed(run[3])) },
        Candidate { is_linked: true, ..candidate(open(far)) },
    ];
    let config = LookupConfig { paths: 1, ..LookupConfig::default() };
    let mut lookup = lookup(config, start);
    let order = [run[3], run[2], run[1], run[0], far];
    assert_eq!(asks(&mut lookup, ms(0)), ids(&order));
}

#[test]
fn time_outs_follow_round_trips_and_distance() {
    let near = by_distance(3);
    let start = [
        Candidate {
            is_linked: true,
            rtt: Some(Duration::from_millis(100)),
            ..candidate(open(near[0]))
        },
        candidate(open(near[1])),
        candidate(closed(near[2])),
    ];
    let mut lookup = lookup(LookupConfig::default(), start);
    let timeouts: Vec<_> =
        core::iter::from_fn(|| lookup.poll(ms(0))).map(|ask| ask.timeout.as_millis()).collect();
    assert_eq!(timeouts, [300, 3_000, 4_500]);
    assert_eq!(lookup.poll_timeout(), Some(ms(200)));
    lookup.answered(ms(90), id(near[0]), &[], 0, false);
    // Half of 2 · 3 · 90 ms.
    assert_eq!(lookup.poll_timeout(), Some(ms(270)));
}

#[test]
fn a_late_peer_frees_its_slot_and_may_still_answer() {
    let near = by_distance(40);
    let config = LookupConfig { in_flight: 1, paths: 1, k: 1, ..LookupConfig::default() };
    let slow =
        |number: &u32| Candidate { rtt: Some(Duration::from_secs(1)), ..candidate(open(*number)) };
    let mut lookup = lookup(config, near[..3].iter().map(slow));
    assert_eq!(asks(&mut lookup, ms(0)), ids(&near[..1]));
    let deadline = lookup.poll_timeout().unwrap();
    lookup.handle_timeout(deadline);
    assert_eq!(asks(&mut lookup, deadline), ids(&near[1..2]));
    assert!(lookup.poll_timeout().unwrap() > deadline);
    lookup.answered(deadline, id(near[1]), &[], 0, false);
    // The nearest of all is waited for, but not for ever.
    assert!(!lookup.is_done());
    assert_eq!(lookup.answered(deadline, id(near[0]), &[open(7_000)], 0, false), [id(7_000)]);
    assert!(lookup.is_done());
    assert_eq!(lookup.nearest_found().len(), 1);
}

#[test]
fn a_silent_peer_is_given_up() {
    let mut lookup = lookup(LookupConfig::default(), [candidate(open(1))]);
    assert_eq!(asks(&mut lookup, ms(0)).len(), 1);
    let mut now = ms(0);
    while let Some(deadline) = lookup.poll_timeout() {
        assert!(deadline > now && !lookup.is_done());
        now = deadline;
        lookup.handle_timeout(now);
    }
    assert!(lookup.is_done());
    assert_eq!(now, ms(3_000));
}

#[test]
fn stale_peers_are_asked_besides_and_not_waited_for() {
    let near = by_distance(30);
    let stale = |number: &u32| Candidate { is_stale: true, ..candidate(open(*number)) };
    let start = near[..10].iter().map(stale).chain(near[10..].iter().map(|n| candidate(open(*n))));
    let config = LookupConfig { in_flight: 4, k: 8, ..LookupConfig::default() };
    let mut lookup = lookup(config, start);
    let asked = asks(&mut lookup, ms(0));
    let fresh: Vec<_> = asked.iter().filter(|id| !ids(&near[..10]).contains(id)).collect();
    assert_eq!((asked.len(), fresh.len()), (6, 4));
    for number in &near[10..18] {
        lookup.answered(ms(40), id(*number), &[], 0, false);
        asks(&mut lookup, ms(40));
    }
    assert!(lookup.is_done());
}

#[test]
fn if_all_are_stale_they_are_waited_for() {
    let stale = |number: u32| Candidate { is_stale: true, ..candidate(open(number)) };
    let mut lookup = lookup(LookupConfig::default(), (0..3).map(stale));
    assert_eq!(asks(&mut lookup, ms(0)).len(), 3);
    assert!(!lookup.is_done());
    lookup.handle_timeout(ms(1_600));
    assert!(!lookup.is_done());
    lookup.answered(ms(1_700), id(1), &[open(10)], 0, false);
    assert_eq!(asks(&mut lookup, ms(1_700)), [id(10)]);
}

#[test]
fn slots_go_round_among_the_paths() {
    let near = by_distance(2_000);
    let (start, others) = near.split_at(1_000);
    let config = LookupConfig { in_flight: 6, paths: 3, k: 20, ..LookupConfig::default() };
    let mut lookup =
        lookup(config, [others[0], others[1], others[2]].map(|number| candidate(open(number))));
    assert_eq!(asks(&mut lookup, ms(0)).len(), 3);
    // One names twelve nearest of all, the others four each that are farther.
    let named = |from: usize, n| start[from..from + n].iter().map(|n| open(*n)).collect::<Vec<_>>();
    lookup.answered(ms(9), id(others[0]), &named(0, 12), 0, false);
    lookup.answered(ms(9), id(others[1]), &named(100, 4), 0, false);
    lookup.answered(ms(9), id(others[2]), &named(200, 4), 0, false);
    let asked = asks(&mut lookup, ms(9));
    for from in [0, 100, 200] {
        let of_path = ids(&start[from..from + 12]);
        assert_eq!(asked.iter().filter(|id| of_path.contains(id)).count(), 2);
    }
}

#[test]
fn another_address_gives_a_second_try_and_no_third() {
    let config = LookupConfig { in_flight: 3, ..LookupConfig::default() };
    let mut lookup = lookup(config, (0..3).map(|number| candidate(open(number))));
    asks(&mut lookup, ms(0));
    let lie = PeerAddr { id: id(50), ..open(60) };
    assert_eq!(lookup.answered(ms(1), id(0), &[lie], 0, false), [id(50)]);
    assert_eq!(asks(&mut lookup, ms(1)), [id(50)]);
    lookup.failed(ms(2), id(50));
    assert!(lookup.answered(ms(3), id(1), &[open(50)], 0, false).is_empty());
    let again = lookup.poll(ms(3)).unwrap();
    assert_eq!(again.peer.addrs, [open(60).addrs[0], open(50).addrs[0]]);
    lookup.failed(ms(4), id(50));
    lookup.answered(ms(5), id(2), &[PeerAddr { id: id(50), ..open(70) }], 0, false);
    assert!(lookup.is_done());
    // Others' word changes nothing of what this node knew itself.
    assert_eq!(lookup.contact(id(0)).unwrap().0, open(0));
}

#[test]
fn nobody_changes_a_look_up_unasked() {
    let near = by_distance(3);
    let config = LookupConfig { in_flight: 1, paths: 1, ..LookupConfig::default() };
    let mut lookup = lookup(config, near.iter().map(|number| candidate(open(*number))));
    asks(&mut lookup, ms(0));
    for stranger in [near[1], 77] {
        assert!(lookup.answered(ms(1), id(stranger), &[open(5)], 1, true).is_empty());
        lookup.failed(ms(1), id(stranger));
    }
    lookup.answered(ms(1), id(near[0]), &[], 0, false);
    assert!(lookup.answered(ms(1), id(near[0]), &[open(5)], 0, false).is_empty());
    assert_eq!(asks(&mut lookup, ms(2)), ids(&near[1..2]));
    assert_eq!(lookup.answers_received(), 1);
}

#[test]
fn candidates_and_what_one_answer_adds_are_bounded() {
    let near = by_distance(3_000);
    let config = LookupConfig { in_flight: 60, candidates_max: 100, ..LookupConfig::default() };
    let start = near[2_900..].iter().rev().map(|number| candidate(open(*number)));
    let mut lookup = lookup(config, start);
    let twice = [open(near[0]), open(near[0]), PeerAddr { id: OWN, ..open(1) }];
    let many: Vec<_> = near[100..2_800].iter().map(|number| open(*number)).collect();
    asks(&mut lookup, ms(0));
    let asked: Vec<_> =
        lookup.known.values().filter(|known| known.tries > 0).map(|known| known.peer.id).collect();
    assert_eq!(lookup.answered(ms(1), asked[0], &twice, 0, false), [id(near[0])]);
    assert_eq!(lookup.answered(ms(1), asked[1], &many, 0, false).len(), CONTACTS_MAX);
    for (from, many) in asked[2..].iter().zip(many.chunks(CONTACTS_MAX).skip(1)) {
        lookup.answered(ms(1), *from, many, 0, false);
    }
    assert_eq!(lookup.known.len(), 100);
    assert!(lookup.contact(id(near[0])).is_some());
}

#[test]
fn a_peer_is_found_when_two_name_it_or_one_that_is_linked_to_it() {
    let wanted = 500;
    let begin = |named| {
        let config = LookupConfig { named, ..LookupConfig::default() };
        let start = (0..4).map(|number| candidate(open(number)));
        let key = Key::of_node(id(wanted));
        let mut lookup = Lookup::new(key, OWN, Purpose::Peer(id(wanted)), config, start);
        assert_eq!(asks(&mut lookup, ms(0)).len(), 4);
        lookup
    };
    let mut lookup = begin(2);
    lookup.answered(ms(1), id(0), &[open(wanted)], 0, false);
    assert!(!lookup.is_done() && lookup.poll(ms(1)).is_none());
    lookup.answered(ms(1), id(1), &[open(wanted)], 0, false);
    assert!(lookup.is_done());

    let mut lookup = begin(2);
    lookup.answered(ms(1), id(0), &[open(9), closed(wanted)], 0b10, false);
    assert!(lookup.is_done());
    assert_eq!(lookup.contact(id(wanted)), Some((closed(wanted), vec![id(0)])));

    let mut lookup = begin(9);
    for number in 0..4 {
        assert!(!lookup.is_done());
        lookup.answered(ms(1), id(number), &[open(wanted)], 0, false);
    }
    assert!(lookup.is_done());
    lookup.set_linked(id(wanted), true, None);
    assert!(lookup.is_done());
}

#[test]
fn records_of_one_network_are_not_enough() {
    let config = LookupConfig { enough: 2, in_flight: 6, ..LookupConfig::default() };
    let same = |number: u32, host| {
        let addr = SocketAddr::from((Ipv4Addr::new(20, 0, 0, host), 1));
        candidate(PeerAddr { addrs: vec![addr], ..open(number) })
    };
    let start = [same(1, 1), same(2, 2), same(3, 3), candidate(open(4)), candidate(open(5))];
    let purpose = Purpose::Records(RecordKind::Value);
    let mut lookup = Lookup::new(target(), OWN, purpose, config, start);
    asks(&mut lookup, ms(0));
    for number in 1..=3 {
        lookup.answered(ms(1), id(number), &[], 0, true);
        assert!(!lookup.is_done());
    }
    lookup.answered(ms(1), id(4), &[], 0, false);
    assert!(!lookup.is_done());
    lookup.answered(ms(1), id(5), &[], 0, true);
    assert!(lookup.is_done());
    assert_eq!(lookup.distances(), []);
}

#[test]
fn rounds_are_of_the_shortest_chains_that_led_to_what_was_found() {
    let near = by_distance(9);
    let config = LookupConfig { in_flight: 2, paths: 1, enough: 2, ..LookupConfig::default() };
    let purpose = Purpose::Records(RecordKind::Value);
    let start = near[6..].iter().map(|number| candidate(open(*number)));
    let mut lookup = Lookup::new(target(), OWN, purpose, config, start);
    assert_eq!(asks(&mut lookup, ms(0)), ids(&near[6..8]));
    let mut answer = |from: usize, named: &[usize], has_records, rounds, next: &[usize]| {
        let named: Vec<_> = named.iter().map(|at| open(near[*at])).collect();
        lookup.answered(ms(1), id(near[from]), &named, 0, has_records);
        assert_eq!(lookup.rounds(), rounds, "{from} answered");
        let next: Vec<_> = next.iter().map(|at| id(near[*at])).collect();
        assert_eq!(asks(&mut lookup, ms(1)), next);
    };
    answer(6, &[1], false, 1, &[1]);
    answer(1, &[0, 5], false, 2, &[0]);
    answer(7, &[5], false, 2, &[5]);
    answer(0, &[], false, 3, &[8]);
    answer(5, &[], true, 2, &[]);
    answer(8, &[], true, 2, &[]);
    assert!(lookup.is_done());
}

/// A look-up of records that begins with three homes that hold seats elsewhere, and with others.
fn with_homes(near: &[u32]) -> Lookup {
    let home = |number: &u32| Candidate {
        is_linked: true,
        seat: Some(Seat::Elsewhere),
        ..candidate(open(*number))
    };
    let config = LookupConfig { enough: 4, ..LookupConfig::default() };
    let purpose = Purpose::Records(RecordKind::Value);
    let others = near[..40].iter().map(|number| candidate(open(*number)));
    Lookup::new(target(), OWN, purpose, config, near[900..903].iter().map(home).chain(others))
}

/// Whom a look-up asks next when a peer has answered and named others, which are seats.
fn name_seats(lookup: &mut Lookup, from: u32, seats: &[u32], has_records: bool) -> Vec<NodeId> {
    let contacts: Vec<_> = seats.iter().map(|number| open(*number)).collect();
    lookup.answered(ms(9), id(from), &contacts, 0, has_records);
    contacts.iter().for_each(|contact| lookup.set_seat(contact.id));
    asks(lookup, ms(9))
}

#[test]
fn seats_go_first_whatever_their_distance_and_few_are_asked_besides() {
    let near = by_distance(1_000);
    let mut lookup = with_homes(&near);
    assert_eq!(asks(&mut lookup, ms(0)), ids(&[&near[900..903], &near[..1]].concat()));
    let seats = &near[800..804];
    let mut asked = name_seats(&mut lookup, near[900], seats, false);
    asked.extend(name_seats(&mut lookup, near[901], seats, false));
    asked.extend(name_seats(&mut lookup, near[902], seats, false));
    assert_eq!(asked, ids(&seats[..3]));
    assert_eq!(lookup.seats_believed(), 4);
    assert_eq!(name_seats(&mut lookup, near[0], &[], true), ids(&seats[3..]));
    for seat in &seats[..3] {
        assert!(!lookup.is_done());
        assert_eq!(name_seats(&mut lookup, *seat, &[], true), []);
    }
    assert!(lookup.is_done());
    assert_eq!((lookup.asked(), lookup.rounds()), (8, 2));
}

#[test]
fn a_seat_that_disappoints_makes_the_look_up_go_on_without_them() {
    let near = by_distance(1_000);
    for step in 0..3 {
        let mut lookup = with_homes(&near);
        asks(&mut lookup, ms(0));
        let asked = name_seats(&mut lookup, near[900], &near[800..804], false);
        assert_eq!(asked, ids(&near[800..801]));
        match step {
            0 => lookup.failed(ms(9), id(near[800])),
            1 => drop(lookup.answered(ms(9), id(near[800]), &[], 0, false)),
            _ => lookup.handle_timeout(ms(1_000)),
        }
        assert!(asks(&mut lookup, ms(1_000)).len() >= 6, "{step}");
    }
}

#[test]
fn who_wants_more_answers_than_there_are_seats_asks_all_others_as_ever() {
    let near = by_distance(1_000);
    let mut lookup = with_homes(&near);
    lookup.config.enough = 30;
    asks(&mut lookup, ms(0));
    name_seats(&mut lookup, near[900], &near[800..804], false);
    for home in &near[901..903] {
        name_seats(&mut lookup, *home, &[], false);
    }
    for seat in &near[800..803] {
        assert!(name_seats(&mut lookup, *seat, &[], true).len() <= 1);
    }
    assert!(name_seats(&mut lookup, near[803], &[], true).len() >= 6);
}

#[test]
fn of_one_path_five_are_taken_for_seats() {
    let near = by_distance(1_000);
    let mut lookup = with_homes(&near);
    asks(&mut lookup, ms(0));
    name_seats(&mut lookup, near[900], &near[800..812], false);
    let waits = |number: &&u32| lookup.is_seat(&Key::of_node(id(**number)).distance(&target()));
    assert_eq!(near.iter().filter(waits).count(), 3 + 4);
    let seats: Vec<_> = lookup.seats().iter().map(|seat| seat.id).collect();
    assert_eq!(seats, ids(&near[800..804]));
    assert_eq!(lookup.seats_believed(), 0, "one alone says so");
    name_seats(&mut lookup, near[800], &near[801..803], true);
    assert_eq!(lookup.seats_believed(), 2);
}

#[test]
fn a_region_is_asked_whole_and_at_all_its_points() {
    let near = by_distance(1_000);
    let region = Distance::of_fraction(0.04);
    let inside =
        near.iter().filter(|n| Key::of_node(id(**n)).distance(&target()) <= region).count();
    assert!((30..80).contains(&inside), "{inside}");
    let config = LookupConfig { in_flight: 100, region, ..LookupConfig::default() };
    let mut lookup = lookup(config, near.iter().map(|number| candidate(open(*number))));
    let asks: Vec<_> = core::iter::from_fn(|| lookup.poll(ms(0))).collect();
    assert_eq!(asks.len(), inside);
    let mut points: Vec<_> = asks.iter().map(|ask| ask.target.distance(&target())).collect();
    assert_eq!(points[0], Distance::of_fraction(0.0));
    points.sort_unstable();
    points.dedup();
    assert_eq!(points.len(), inside);
    assert!(points.last().unwrap().fraction() > 0.035 && *points.last().unwrap() <= region);
}

#[test]
fn a_crowd_is_asked_in_part_and_does_not_hide_those_behind() {
    // Three hundred crowd the nearest tenth of the region.
    let near = by_distance(60_000);
    let region = Distance::of_fraction(0.05);
    let share = |number: &u32| Key::of_node(id(*number)).distance(&target()).fraction();
    let crowd = near.iter().filter(|number| share(number) < 0.005).copied();
    let behind = near.iter().filter(|number| (0.01..0.1).contains(&share(number))).step_by(100);
    let behind: Vec<_> = behind.copied().collect();
    let start = crowd.take(300).chain(behind.iter().copied());
    let config = LookupConfig { in_flight: 500, region, ..LookupConfig::default() };
    let mut lookup = lookup(config, start.map(|number| candidate(open(number))));
    let asked = asks(&mut lookup, ms(0));
    let behind_inside: Vec<_> = behind.iter().filter(|number| share(number) <= 0.05).collect();
    assert!(behind_inside.len() >= 20);
    assert!(behind_inside.iter().all(|number| asked.contains(&id(**number))));
    assert!((80..=100).contains(&asked.len()), "{}", asked.len());
}

/// What somebody may name.
fn named() -> impl Strategy<Value = Vec<PeerAddr>> {
    let peer = |(number, is_open)| if is_open { open(number) } else { closed(number) };
    prop::collection::vec((0u32..60, any::<bool>()).prop_map(peer), 0..20)
}

proptest! {
    /// Whatever is answered, and in whatever order, bounds hold and the look-up ends.
    #[test]
    fn ends_whatever_comes(
        steps in prop::collection::vec(
            (0u32..60, named(), any::<u32>(), 0u8..5),
            0..200,
        ),
        region in prop_oneof![Just(1.0), 0.0..1.0f64],
    ) {
        let region = Distance::of_fraction(region);
        let config =
            LookupConfig { in_flight: 3, k: 5, candidates_max: 30, region, ..Default::default() };
        let mut lookup = lookup(config, (0..5).map(|number| candidate(open(number))));
        let mut now = ms(0);
        for (from, named, linked, step) in steps {
            while lookup.poll(now).is_some() {}
            match step {
                0 => lookup.failed(now, id(from)),
                1 => {
                    now = lookup.poll_timeout().unwrap_or(now);
                    lookup.handle_timeout(now);
                    prop_assert!(lookup.poll_timeout().is_none_or(|next| next > now));
                }
                _ => drop(lookup.answered(now, id(from), &named, linked, linked & 1 == 0)),
            }
            prop_assert!(lookup.known.len() <= 30 && lookup.in_flight <= 3);
            let is_asked = |known: &&Known| matches!(known.state, State::Asked { .. });
            let asked = lookup.known.values().filter(is_asked).count();
            prop_assert_eq!(asked, lookup.in_flight + lookup.stale_in_flight);
        }
        for _ in 0..500 {
            while lookup.poll(now).is_some() {}
            if lookup.is_done() {
                return Ok(());
            }
            now = lookup.poll_timeout().expect("it waits for somebody");
            lookup.handle_timeout(now);
        }
        prop_assert!(false, "it does not end");
    }
}
