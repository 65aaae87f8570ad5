//! Towns that lend seats to some of their nodes, through real gates, relays and NATs.

use super::world::{Nat, World, config, id};
use super::*;
use crate::index::IndexConfig;
use crate::role::{RoleConfig, RoleStats};

/// Epochs of ten minutes, and everything in proportion.
fn roles() -> NodeConfig {
    let role = RoleConfig {
        epoch: secs(600),
        applying: secs(60),
        probing: secs(120),
        uptime_min: secs(30),
        acting: secs(100),
        is_solved: |_, _, nonce| nonce == 1,
        verify: |_, _, _| true,
        ..RoleConfig::default()
    };
    let index = IndexConfig { replicas: 6, ..IndexConfig::default() };
    NodeConfig { index, role, ..config() }
}

impl World {
    fn roles_of(&self, n: usize) -> RoleStats {
        self.hosts[n].node.role_stats()
    }

    fn alive(&self) -> impl Iterator<Item = usize> {
        (0..self.hosts.len()).filter(|n| self.hosts[*n].is_alive)
    }

    /// Hosts that have a seat, and whether it is lent for minutes.
    fn seats(&self) -> Vec<(usize, bool)> {
        let stats = self.alive().map(|n| (n, self.roles_of(n)));
        stats
            .filter(|(_, stats)| stats.seat.is_some())
            .map(|(n, stats)| (n, stats.is_acting))
            .collect()
    }

    /// Hosts of which a living seat is home, or that have a seat.
    fn served(&self) -> usize {
        let seats: Vec<_> = self.seats().into_iter().map(|(n, _)| id(n)).collect();
        let is_served = |n: &usize| {
            let homes = self.roles_of(*n).homes;
            seats.contains(&id(*n)) || homes.iter().any(|home| seats.contains(home))
        };
        self.alive().filter(is_served).count()
    }
}

/// A town of which all but the first are behind NATs.
fn town(size: usize) -> World {
    let mut world = World::new();
    world.is_busy = false;
    for n in 0..size {
        let nat = if n == 0 { Nat::None } else { Nat::Easy };
        let site = 100 + u8::try_from(n).unwrap();
        let n = world.add_with(nat, site, roles());
        let first = PeerAddr { addrs: vec![world.outside(0, n)], ..id(0).into() };
        world.input(n, Input::Boot(if n == 0 { Vec::new() } else { vec![first] }));
        world.input(n, Input::Puzzle(1));
        world.run(Duration::from_millis(200));
    }
    world
}

#[test]
fn a_town_behind_nats_elects_seats_and_survives_the_loss_of_all_of_them() {
    let mut world = town(16);
    world.run(secs(60));
    assert!(world.seats().len() >= 2 && world.seats().iter().all(|(_, is_acting)| *is_acting));
    world.run(secs(1_300));
    let seats = world.seats();
    assert!(seats.len() >= 3 && seats.iter().all(|(_, is_acting)| !is_acting), "{seats:?}");
    assert!(seats.iter().any(|(n, _)| *n != 0), "a node behind a NAT may have one");
    assert_eq!(world.served(), 16);

    // What a seat is told of its allowance it tells others.
    let (busy, _) = seats[0];
    assert!(world.roles_of(busy).load < 200);
    world.input(busy, Input::Load(200));
    world.run(secs(6));
    assert_eq!(world.roles_of(busy).load, 200);

    for (n, _) in seats {
        world.kill(n);
    }
    let died = world.now;
    let left = world.alive().count();
    while world.served() < left && world.now - died < secs(120) {
        world.run(secs(1));
    }
    assert_eq!(world.served(), left, "{:?}", world.seats());
    assert!(world.now - died <= secs(45), "{:?}", world.now - died);
}
