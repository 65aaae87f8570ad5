mod bare;
mod carry;
mod find;
mod inputs;
mod kept;
mod roles;
mod silent;
mod world;

use std::hash::{DefaultHasher, Hasher};
use std::net::IpAddr;

use self::world::{IDLE, LATENCY, Nat, World, config, id, number};
use super::*;
use crate::invite::PeerAddr;
use crate::path::Remote;
use crate::wire::node::Home;

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// The selected path of a link.
#[derive(Debug, PartialEq, Eq)]
enum Route {
    Direct,
    Via(usize),
}

impl World {
    fn route(&self, a: usize, b: usize) -> Option<Route> {
        self.selected(a, b).map(|remote| match remote {
            Remote::Direct(_) => Route::Direct,
            Remote::Relayed { via } => Route::Via(number(via.expect("the relay is known"))),
        })
    }

    /// All routes that data from `a` to `b` took, in their order.
    fn routes(&self, a: usize, b: usize) -> Vec<bool> {
        let events = self.hosts[a].events();
        events
            .filter_map(|(_, event)| match event {
                Event::Path { peer, selected, .. } if *peer == id(b) => {
                    Some(selected.remote.is_direct())
                }
                _ => None,
            })
            .collect()
    }

    /// When `a` dialled `b`, in milliseconds since `since`.
    fn dials(&self, a: usize, b: usize, since: Instant) -> Vec<u128> {
        let log = self.hosts[a].log.iter().filter(|(at, _)| *at >= since);
        log.filter(|(_, output)| matches!(output, Output::Dial { peer, .. } if *peer == id(b)))
            .map(|(at, _)| (*at - since).as_millis())
            .collect()
    }

    fn homes(&self, n: usize) -> Vec<usize> {
        let homes = self.hosts[n].node.our_homes();
        homes.iter().map(|home| number(home.id)).collect()
    }
}

/// Hosts behind these NATs, all linked to `relays` public ones, which have the lowest numbers.
fn world_with(relays: usize, nats: &[Nat]) -> World {
    let mut world = World::new();
    for _ in 0..relays {
        world.add(Nat::None);
    }
    for nat in nats {
        let n = world.add(*nat);
        for relay in 0..relays {
            world.want(n, relay, true, true);
        }
    }
    world.run(secs(1));
    world
}

#[test]
fn a_bare_id_is_reached_directly_when_it_knocks() {
    let mut world = world_with(1, &[Nat::Easy, Nat::Easy]);
    let (a, b, start) = (1, 2, world.now);
    world.want(a, b, false, false);
    world.run(LATENCY * 20);
    // Two to ask, two to dial: no more than to one that is not behind a NAT.
    let up = world.hosts[a]
        .events()
        .find(|(_, event)| matches!(event, Event::PeerUp { peer, .. } if *peer == id(b)));
    assert_eq!(up.unwrap().0 - start, LATENCY * 4);
    assert_eq!((world.routes(a, b), world.routes(b, a)), (vec![true], vec![true]));
    assert_eq!(world.hosts[a].dials.len(), 0, "the relayed dial is cancelled");
    let knocked = Output::Knock(world.outside(a, b));
    assert!(world.hosts[b].log.iter().any(|(_, output)| *output == knocked));
}

#[test]
fn a_bare_id_is_reached_through_a_relay_and_moves_to_a_direct_path() {
    let mut world = world_with(1, &[Nat::Easy, Nat::Easy]);
    world.loses_knocks = true;
    let (a, b, start) = (1, 2, world.now);
    world.want(a, b, false, false);
    world.run(LATENCY * 20);
    assert_eq!((world.route(a, b), world.route(b, a)), (Some(Route::Direct), Some(Route::Direct)));
    assert_eq!(world.routes(a, b), [false, true], "relayed first, then direct for good");
    // Two to ask, three to dial, one for the candidates, four for the round, and no pause.
    let direct = world.hosts[a].events().find(|(_, event)| {
        matches!(event, Event::Path { selected, .. } if selected.remote.is_direct()) && {
            matches!(event, Event::Path { peer, .. } if *peer == id(b))
        }
    });
    assert!(direct.unwrap().0 - start < LATENCY * 11);
    assert_eq!(world.hosts[0].node.channels().collect::<Vec<_>>(), [(id(a), id(b))]);
}

#[test]
fn pairs_that_cannot_be_punched_stay_relayed() {
    let mut world = world_with(1, &[Nat::Hard, Nat::Hard]);
    world.want(1, 2, false, true);
    world.run(secs(10));
    world.is_busy = false;
    world.run(secs(300));
    assert_eq!(world.route(1, 2), Some(Route::Via(0)));
    assert_eq!(world.links(1, 2).len(), 1, "the channel is renewed and the link stands");
}

#[test]
fn of_simultaneous_links_both_sides_prefer_the_one_of_the_lower_id() {
    for (delay, are_two) in [(0, true), (5, true), (20, false), (30, false)] {
        let delay = Duration::from_millis(delay);
        for first in [0, 1] {
            let mut world = World::new();
            world.add(Nat::None);
            world.add(Nat::None);
            world.want(first, 1 - first, true, true);
            world.run(delay);
            world.want(1 - first, first, true, true);
            world.run(secs(5));
            assert_eq!(world.links(0, 1).len(), 1, "{delay:?} {first}: the other is retired");
            assert_eq!(world.client(0, 1), world.client(1, 0));
            let retired = world.hosts[0].log.iter().any(|(_, o)| matches!(o, Output::Retire(_)));
            assert_eq!(retired, are_two, "a late dial is cancelled");
            assert_eq!(world.client(0, 1), Some(if are_two { 0 } else { first }));
            for n in [0, 1] {
                assert!(!world.hosts[n].has_seen(&Event::PeerDown(id(1 - n))));
            }
        }
    }
}

#[test]
fn a_target_that_holds_no_reservation_is_unreachable_until_it_does() {
    let mut world = world_with(1, &[Nat::Easy]);
    let (a, b) = (1, 2);
    world.add(Nat::Easy);
    world.want(a, b, false, true);
    world.run(secs(5));
    assert!(world.hosts[a].has_seen(&Event::Unreachable(id(b))));
    assert_eq!(world.route(a, b), None);
    world.want(b, 0, true, true);
    world.run(secs(60));
    assert_eq!(world.route(a, b), Some(Route::Direct));
}

#[test]
fn a_relay_that_dies_is_replaced_by_the_warm_path_and_then_by_a_third() {
    let mut world = world_with(3, &[Nat::Hard, Nat::Hard]);
    let (a, b) = (3, 4);
    world.want(a, b, false, true);
    world.run(secs(5));
    let Some(Route::Via(first)) = world.route(a, b) else { panic!("relayed") };
    let death = world.now;
    world.kill(first);
    world.run(Duration::from_millis(500));
    let Some(Route::Via(second)) = world.route(a, b) else { panic!("relayed") };
    assert_ne!(first, second);
    let (at, _) = world.hosts[a].events().next_back().unwrap();
    assert!(at - death < Duration::from_millis(500), "before QUIC notices anything");
    world.run(secs(2));
    world.kill(second);
    world.run(secs(2));
    assert_eq!(world.route(a, b), Some(Route::Via(3 - first - second)));
    assert!(!world.hosts[a].has_seen(&Event::PeerDown(id(b))), "one link all the time");
}

#[test]
fn a_home_of_the_peer_is_dialled_for_a_second_relayed_path() {
    let mut world = World::new();
    let [common, other] = [world.add(Nat::None), world.add(Nat::None)];
    let [a, b] = [world.add(Nat::Hard), world.add(Nat::Hard)];
    world.want(a, common, true, true);
    world.want(b, common, true, true);
    world.want(b, other, true, true);
    world.run(secs(1));
    world.want(a, b, false, true);
    world.run(secs(5));
    assert_eq!(world.links(a, other).len(), 1);
    assert_eq!(world.hosts[other].node.channels().collect::<Vec<_>>(), [(id(a), id(b))]);
    // Its address is hearsay: it was dialled without the gate's trust.
    let addr = world.outside(other, a);
    let log: Vec<_> = world.hosts[a].log.iter().map(|(_, output)| output).collect();
    let dialled =
        log.iter().position(|o| matches!(o, Output::Dial { peer, .. } if *peer == id(other)));
    let trusted = log.iter().position(|o| **o == Output::Gate(GateAction::Trust(addr)));
    assert!(dialled < trusted, "only the validated path is trusted");
    world.kill(common);
    world.run(secs(1));
    assert_eq!(world.route(a, b), Some(Route::Via(other)));
}

#[test]
fn homes_of_homes_are_left_alone() {
    let mut world = World::new();
    let relays = [0; 4].map(|_| world.add(Nat::None));
    let [a, b] = [world.add(Nat::Hard), world.add(Nat::Hard)];
    // The homes of `b` have the other two as theirs.
    for home in &relays[..2] {
        world.want(*home, relays[2], true, true);
        world.want(*home, relays[3], true, true);
        world.want(b, *home, true, true);
    }
    world.want(a, relays[0], true, true);
    world.run(secs(1));
    world.want(a, b, false, true);
    world.run(secs(60));
    let linked = relays.map(|relay| world.links(a, relay).len());
    assert_eq!(linked, [1, 1, 0, 0], "one link does not lead to ever more");
}

#[test]
fn a_peer_wanted_for_good_is_redialled_with_growing_pauses_until_forgotten() {
    let mut world = World::new();
    let [a, b] = [world.add(Nat::None), world.add(Nat::None)];
    world.want(a, b, true, true);
    world.run(secs(1));
    world.kill(b);
    world.run(IDLE + secs(1));
    assert!(world.hosts[a].has_seen(&Event::PeerDown(id(b))));
    let since = world.now;
    world.input(a, Input::Unwant(id(b)));
    world.run(secs(600));
    let dials = world.dials(a, b, since);
    let pauses: Vec<_> = dials.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses[0] < 10_000 && *pauses.last().unwrap() >= 30_000, "{pauses:?}");
    assert!(pauses.iter().all(|pause| *pause <= 90_000 + 3_000), "{pauses:?}");
    assert!(world.hosts[a].has_seen(&Event::Unreachable(id(b))));

    world.input(a, Input::Forget(id(b)));
    let since = world.now;
    world.run(secs(600));
    assert!(world.dials(a, b, since).is_empty());
    assert!(world.hosts[a].trusted().is_empty(), "no trust outlives what it was for");
}

#[test]
fn a_peer_wanted_once_is_not_redialled() {
    let mut world = World::new();
    let [a, b] = [world.add(Nat::None), world.add(Nat::None)];
    world.want(a, b, true, false);
    world.run(secs(1));
    world.close_all(a, b);
    let since = world.now;
    world.run(secs(100));
    assert!(world.dials(a, b, since).is_empty());
}

#[test]
fn a_kept_peer_is_found_again_through_homes_that_it_once_told() {
    let mut world = world_with(2, &[Nat::Easy, Nat::Easy]);
    let (a, b) = (2, 3);
    world.want(a, b, false, true);
    world.run(secs(2));
    // From here on `a` knows no relay but by hearsay.
    world.input(a, Input::Forget(id(0)));
    world.input(a, Input::Forget(id(1)));
    world.close_all(a, 0);
    world.close_all(a, 1);
    world.close_all(a, b);
    world.run(secs(20));
    assert_eq!(world.route(a, b), Some(Route::Direct));
}

#[test]
fn the_best_three_homes_are_named_to_every_peer() {
    let mut world = world_with(5, &[Nat::Easy]);
    let a = 5;
    world.run(secs(1));
    for relay in 0..5 {
        assert!(world.hosts[relay].node.reservations().any(|peer| peer == id(a)), "at all of them");
    }
    assert_eq!(world.homes(a).len(), 3);
    let told = |world: &World, peer: usize| {
        let link = world.hosts[a].node.link_to(id(peer)).unwrap();
        let log = world.hosts[a].log.iter().rev();
        log.filter_map(|(_, output)| match output {
            Output::Send { link: on, message: NodeMessage::Homes(homes) } if *on == link => {
                Some(homes.homes.iter().map(|home| number(home.id)))
            }
            _ => None,
        })
        .next()
        .unwrap()
        .collect::<Vec<_>>()
    };
    let check = |world: &World, peers: &[usize]| {
        for peer in peers.iter().copied() {
            let mut homes = world.homes(a);
            homes.retain(|home| *home != peer);
            let told = told(world, peer);
            assert_eq!((told.len(), told.contains(&peer)), (3, false), "all but itself");
            assert_eq!(told[..homes.len()], homes, "{peer}: in the same order");
        }
    };
    check(&world, &[0, 1, 2, 3, 4]);
    let lost = world.homes(a)[0];
    world.kill(lost);
    world.run(IDLE + secs(2));
    assert!(world.hosts[a].has_seen(&Event::Home { peer: id(lost), held: false }));
    assert_eq!(world.homes(a).len(), 3, "another takes its place");
    assert!(!world.homes(a).contains(&lost));
    let alive: Vec<_> = (0..5).filter(|peer| *peer != lost).collect();
    check(&world, &alive);
}

#[test]
fn a_reservation_that_is_not_renewed_expires() {
    let mut world = world_with(1, &[Nat::Easy]);
    assert!(world.hosts[0].has_seen(&Event::Serving { peer: id(1), granted: true }));
    world.is_busy = false;
    let ttl = config().reservation_ttl;
    world.run(ttl * 3);
    assert_eq!(world.hosts[0].node.reservations().collect::<Vec<_>>(), [id(1)], "renewed");
    world.hosts[1].is_alive = false;
    world.run(ttl);
    assert!(world.hosts[0].has_seen(&Event::Serving { peer: id(1), granted: false }));
    assert_eq!(world.hosts[0].node.reservations().count(), 0);
}

#[test]
fn neighbours_are_told_private_addresses_and_strangers_are_not() {
    let mut world = World::new();
    let relay = world.add(Nat::None);
    let [a, b] = [0, 1].map(|_| world.add_with(Nat::Easy, 9, config()));
    let stranger = world.add(Nat::Easy);
    for n in [a, b, stranger] {
        world.want(n, relay, true, true);
    }
    world.run(secs(1));
    world.want(a, b, false, true);
    world.want(a, stranger, false, true);
    world.run(secs(3));
    let private: IpAddr = world.local(a).ip();
    assert!(world.told(a, b).contains(&private));
    assert!(!world.told(a, stranger).contains(&private));
    assert!(!world.told(a, relay).contains(&private));
    // Without hairpinning only the private address works, and it is probed with permission.
    assert_eq!(world.selected(a, b), Some(Remote::Direct(world.local(b))));
    let log: Vec<_> = world.hosts[a].log.iter().map(|(_, output)| output).collect();
    let round = |o: &&Output| matches!(o, Output::Path { action: path::Output::StartRound, .. });
    let paired = log.iter().position(|o| matches!(o, Output::Gate(GateAction::Pair(_))));
    assert!(paired.unwrap() < log.iter().position(round).unwrap());
    assert_eq!(world.route(a, stranger), Some(Route::Direct));
}

#[test]
fn a_minority_of_liars_about_our_address_changes_nothing() {
    let candidates = |lie| {
        let mut world = World::new();
        for n in 0..5 {
            world.add(Nat::None);
            world.hosts[n].lie = Some("6.6.6.6:6666".parse().unwrap()).filter(|_| lie && n < 2);
        }
        let [a, b] = [world.add(Nat::Easy), world.add(Nat::Easy)];
        for n in [a, b] {
            for relay in 0..5 {
                world.want(n, relay, true, true);
            }
        }
        world.run(secs(1));
        world.want(a, b, false, true);
        world.run(secs(3));
        assert_eq!(world.route(a, b), Some(Route::Direct));
        assert!(!world.hosts[a].node.candidates().is_our_outside("6.6.6.6".parse().unwrap()));
        world.told(a, b)
    };
    assert_eq!(candidates(true), candidates(false));
}

/// A world with a bit of everything, and its digest.
fn eventful() -> Option<u64> {
    let mut world = world_with(3, &[Nat::Easy, Nat::Hard, Nat::Hard, Nat::Easy]);
    world.trace = Some(DefaultHasher::new());
    for (a, b) in [(3, 4), (5, 4), (6, 3), (4, 6)] {
        world.want(a, b, false, true);
    }
    world.run(secs(3));
    world.kill(0);
    world.run(secs(20));
    world.is_busy = false;
    world.cut.insert((3, 4));
    world.close_all(3, 4);
    world.run(secs(200));
    world.input(3, Input::Forget(id(4)));
    world.run(secs(100));
    assert!((3..7).all(|n| world.links(n, 1).len() == 1));
    world.trace.map(|trace| trace.finish())
}

#[test]
fn the_same_world_twice_leaves_the_same_trace() {
    assert_eq!(eventful(), eventful());
}

#[test]
fn an_invite_with_homes_alone_is_enough() {
    let mut world = World::new();
    let [relay, a, b] = [Nat::None, Nat::Easy, Nat::Easy].map(|nat| world.add(nat));
    world.want(b, relay, true, true);
    world.run(secs(1));
    let homes = world.hosts[b].node.our_homes();
    let home = Home { id: id(relay), addrs: vec![world.outside(relay, b)] };
    assert_eq!(homes, [home]);
    let peer = PeerAddr { homes, ..id(b).into() };
    world.input(a, Input::Want { peer, keep: false });
    assert!(!world.hosts[a].has_seen(&Event::Unreachable(id(b))), "there is hope");
    world.run(secs(1));
    assert_eq!(world.route(a, b), Some(Route::Direct));
}
