//! Hosts that meet through the world.

use super::*;
use crate::net::nat::Nat;

/// A world of hosts of these kinds, all on, that know nobody; no packet is lost.
fn world(nats: &[Nat]) -> World {
    let mut world = World::new(Config { loss: 0.0, ..Config::default() });
    for nat in nats {
        let host = world.add_host(&Profile { nat: Some(*nat), ..Profile::default() });
        world.join(host);
    }
    world
}

fn run(world: &mut World, seconds: u64) {
    world.run_until(world.now() + Duration::from_secs(seconds));
}

/// Lets `a` seek `b`, whose address it knows.
fn want(world: &mut World, a: u32, b: u32) {
    let peer = baran_proto::invite::PeerAddr {
        addrs: vec![world.outside(b, a)],
        ..world.hosts[b as usize].id.into()
    };
    world.input(a, Input::Want { peer, keep: true });
}

fn is_linked(world: &World, a: u32, b: u32) -> bool {
    let id = world.hosts[b as usize].id;
    world.hosts[a as usize].node().is_some_and(|node| node.link_to(id).is_some())
}

/// Host 1 wants host 2, which it knows by name only, and both are linked to host 0, which is open.
fn signalled(nats: [Nat; 2]) -> World {
    let mut world = world(&[Nat::Open, nats[0], nats[1]]);
    want(&mut world, 1, 0);
    want(&mut world, 2, 0);
    run(&mut world, 5);
    let id = world.hosts[2].id;
    world.input(1, Input::Want { peer: id.into(), keep: true });
    run(&mut world, 10);
    world
}

#[test]
fn whoever_is_open_is_reached_in_a_round_trip() {
    for nat in [Nat::Open, Nat::Easy, Nat::Hard] {
        let mut world = world(&[nat, Nat::Open]);
        want(&mut world, 0, 1);
        run(&mut world, 1);
        assert!(is_linked(&world, 0, 1) && is_linked(&world, 1, 0), "{nat:?}");
        assert_eq!(world.hosts[0].traffic.handshakes, 1);
        assert!(world.hosts[1].traffic.control_bytes() > 0);
    }
}

#[test]
fn who_is_flooded_answers_as_fast_as_its_uplink_and_loses_the_rest() {
    let mut world = world(&[Nat::Open; 4]);
    world.config.is_limited = true;
    // A handshake takes two and a half seconds.
    world.hosts[0].service = crate::net::capacity::Service::new(3_000, false);
    (1..4).for_each(|host| want(&mut world, host, 0));
    let linked = |world: &World| (1..4).filter(|host| is_linked(world, *host, 0)).count();
    run(&mut world, 1);
    assert_eq!(linked(&world), 1);
    run(&mut world, 3);
    assert_eq!(linked(&world), 2);
    run(&mut world, 60);
    assert_eq!(linked(&world), 3, "who was lost tries again");
}

#[test]
fn two_filters_open_when_both_dial_and_not_before() {
    let mut world = world(&[Nat::Easy, Nat::Easy, Nat::Hard]);
    want(&mut world, 0, 1);
    run(&mut world, 60);
    assert!(!is_linked(&world, 0, 1));
    want(&mut world, 1, 0);
    run(&mut world, 60);
    assert!(is_linked(&world, 0, 1) && is_linked(&world, 1, 0));
    // A mapping that depends on the address is another one for each peer.
    want(&mut world, 0, 2);
    want(&mut world, 2, 0);
    run(&mut world, 60);
    assert!(!is_linked(&world, 0, 2));
}

#[test]
fn a_relay_joins_those_that_cannot_reach_each_other() {
    let mut world = signalled([Nat::Easy, Nat::Hard]);
    assert!(is_linked(&world, 1, 2) && is_linked(&world, 2, 1));
    // With the relay goes the only path.
    world.leave(0);
    run(&mut world, 200);
    assert!(!is_linked(&world, 1, 2) && !is_linked(&world, 2, 1));
}

#[test]
fn punching_turns_a_relayed_link_into_a_direct_one() {
    let mut world = signalled([Nat::Easy, Nat::Easy]);
    world.leave(0);
    run(&mut world, 200);
    assert!(is_linked(&world, 1, 2) && is_linked(&world, 2, 1));
}

#[test]
fn a_peer_that_vanishes_is_missed_and_one_that_says_goodbye_is_not() {
    for (goodbye, after, missed) in [(1.0, 1, true), (0.0, 10, false), (0.0, 100, true)] {
        let mut world = world(&[Nat::Open, Nat::Open]);
        world.config.goodbye = goodbye;
        want(&mut world, 0, 1);
        run(&mut world, 20);
        assert!(is_linked(&world, 0, 1));
        world.leave(1);
        run(&mut world, after);
        assert_eq!(!is_linked(&world, 0, 1), missed, "after {after} s");
    }
}

#[test]
fn a_cut_ends_what_crosses_it() {
    let mut world = world(&[Nat::Open, Nat::Open]);
    world.hosts[0].half = false;
    world.hosts[1].half = true;
    want(&mut world, 0, 1);
    run(&mut world, 20);
    world.set_cut(true);
    run(&mut world, 200);
    assert!(!is_linked(&world, 0, 1) && !is_linked(&world, 1, 0));
    world.set_cut(false);
    run(&mut world, 120);
    assert!(is_linked(&world, 0, 1) && is_linked(&world, 1, 0));
}

#[test]
fn a_host_comes_back_with_its_cache_and_its_disk() {
    let mut world = world(&[Nat::Open, Nat::Open]);
    want(&mut world, 0, 1);
    run(&mut world, 30);
    world.leave(0);
    assert!(!world.cache_of(0).is_empty());
    run(&mut world, 150);
    world.join(0);
    run(&mut world, 10);
    assert!(is_linked(&world, 0, 1) && is_linked(&world, 1, 0));
    assert_eq!(world.hosts[0].run, 2);
}

#[test]
fn nothing_is_left_of_hosts_that_are_gone() {
    let mut world = world(&[Nat::Open; 4]);
    for (a, b) in [(0, 1), (1, 2), (2, 3), (3, 0)] {
        want(&mut world, a, b);
    }
    run(&mut world, 20);
    (0..4).for_each(|host| world.leave(host));
    run(&mut world, 300);
    assert_eq!((world.conns_len(), world.online()), (0, 0));
    assert!(world.deadlines.first().is_none());
}
