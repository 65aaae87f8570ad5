mod world;

use core::time::Duration;

use bytes::Bytes;

use self::world::World;
use crate::id::NodeId;
use crate::role::Kind;
use crate::role::machine::{Event, RoleConfig};
use crate::role::term::RANKS_MAX;
use crate::wire::RoleMessage;
use crate::wire::role::Present;

/// Epochs of ten minutes, and everything in proportion.
fn config() -> RoleConfig {
    RoleConfig {
        epoch: secs(600),
        skew: secs(60),
        applying: secs(100),
        probing: secs(120),
        uptime_min: secs(60),
        acting: secs(100),
        is_solved: |_, _, nonce| nonce == 1,
        ..RoleConfig::default()
    }
}

/// The same where signatures are not looked at, for those that run long.
fn quick() -> RoleConfig {
    RoleConfig { verify: |_, _, _| true, ..config() }
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn seats(world: &World) -> Vec<NodeId> {
    world.seats().keys().copied().collect()
}

/// Runs until something holds, and tells how many seconds it took.
fn until(world: &mut World, most_s: u64, holds: impl Fn(&World) -> bool) -> u64 {
    for waited in 0..most_s {
        if holds(world) {
            return waited;
        }
        world.run(secs(1));
    }
    panic!("not within {most_s} s: {:?}, {} served", world.count(), world.served(3));
}

#[test]
fn a_network_begins_with_seats_lent_at_once_and_elects_others() {
    let mut world = World::new(24, config());
    until(&mut world, 15, |world| world.served(3) >= 22);
    let (active, standby, acting) = world.count();
    assert!(acting >= 2 && acting == active + standby, "{active} {standby} {acting}");
    world.run(secs(1_300));
    assert_eq!(world.served(3), 24);
    let (active, standby, acting) = world.count();
    assert!((active, acting) == (3, 0) && standby >= 1, "{active} {standby} {acting}");
    // Nothing voids what was voted in by all of them.
    let is_void = |event: &Event| matches!(event, Event::Void { .. });
    let mut events = world.hosts.values().flat_map(|host| &host.events);
    assert!(!events.any(|(_, event)| is_void(event)));
}

#[test]
fn a_hundred_nodes_elect_eight_seats_and_four_that_wait() {
    let mut world = World::new(120, quick());
    until(&mut world, 30, |world| world.served(3) >= 114);
    world.run(secs(1_300));
    let (active, standby, acting) = world.count();
    // Mandates hold for two epochs of a term's six, so those of who is followed are there too.
    assert!(active == 8 && (4..=12).contains(&standby) && acting == 0, "{active} {standby}");
    assert!(world.served(3) >= 118, "{}", world.served(3));
    for host in world.hosts.values() {
        for (kind, votes) in host.roles.votes_by_poll() {
            let most = if kind == Kind::Acting { 8 } else { RANKS_MAX };
            assert!(votes <= most, "an elector gave {votes} votes");
        }
    }

    // All of them die, without a word.
    for seat in seats(&world) {
        world.kill(seat);
    }
    let left = world.alive().count();
    let took = until(&mut world, 40, |world| {
        let (active, _, acting) = world.count();
        acting >= 4 && acting == active && world.served(1) >= left * 99 / 100
    });
    assert!(took <= 25, "{took}");
    world.run(secs(1_300));
    let (active, _, acting) = world.count();
    assert!((active, acting) == (8, 0), "{:?}", world.count());
    assert!(world.served(3) >= left - 3, "{}", world.served(3));
}

#[test]
fn nobody_stands_twice_because_the_calendar_is_told_again() {
    let asked = |is_told_often: bool| {
        let mut world = World::new(40, quick());
        for _ in 0..140 {
            world.run(secs(10));
            let (now, unix) = (world.now, world.unix());
            let all: Vec<_> = world.alive().filter(|_| is_told_often).collect();
            for id in all {
                world.host(id).roles.handle_clock(now, unix);
            }
        }
        assert_eq!((world.count().0, world.count().2), (5, 0), "elected, none at once");
        world.bytes[&36]
    };
    let (once, often) = (asked(false), asked(true));
    assert!(often * 4 <= once * 5, "{often} bytes of Apply for {once}");
}

#[test]
fn incumbents_stay_until_their_term_is_over() {
    let mut world = World::new(40, quick());
    world.run(secs(1_400));
    let first = seats(&world);
    world.run(secs(1_800));
    let later = seats(&world);
    let stayed = first.iter().filter(|seat| later.contains(seat)).count();
    assert!(stayed * 3 >= first.len() * 2, "{stayed} of {}", first.len());
    world.run(secs(600 * 13));
    let last = seats(&world);
    let left = later.iter().filter(|seat| !last.contains(seat)).count();
    assert!(left * 3 >= later.len() * 2, "{left} of {}", later.len());
    assert!(world.served(3) >= 38);
}

#[test]
fn who_cannot_be_reached_is_not_elected() {
    let mut world = World::new(24, config());
    let hidden: Vec<_> = world.alive().step_by(2).collect();
    for id in &hidden {
        world.host(*id).is_hidden = true;
    }
    world.run(secs(1_900));
    let elected: Vec<_> = world.seats().into_iter().filter(|(_, (_, acting))| !acting).collect();
    assert!(elected.len() >= 3, "{elected:?}");
    assert!(elected.iter().all(|(id, _)| !hidden.contains(id)));
}

#[test]
fn who_does_not_serve_is_not_elected() {
    let mut world = World::new(24, config());
    let unwilling: Vec<_> = world.alive().step_by(2).collect();
    for id in &unwilling {
        let now = world.now;
        world.host(*id).roles.set_serving(now, false);
    }
    world.run(secs(1_400));
    let elected = seats(&world);
    assert!(elected.len() >= 3 && elected.iter().all(|id| !unwilling.contains(id)));
    // One that has a seat gives it back when its owner says so.
    let (now, seat) = (world.now, elected[0]);
    world.host(seat).roles.set_serving(now, false);
    world.run(secs(20));
    assert!(!seats(&world).contains(&seat));
}

#[test]
fn mandates_survive_a_restart_of_all() {
    let mut world = World::new(24, config());
    world.run(secs(1_400));
    let before = world.seats();
    let all: Vec<_> = world.alive().collect();
    for id in all {
        world.restart(id);
    }
    world.run(secs(1));
    assert_eq!(world.seats().keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
    until(&mut world, 30, |world| world.served(3) >= 24);
}

#[test]
fn a_standby_takes_the_place_of_a_lost_seat() {
    let mut world = World::new(80, quick());
    world.run(secs(1_400));
    let (active, standby, _) = world.count();
    assert!(active == 8 && standby >= 4, "{active} {standby}");
    let lost = world.seats().into_iter().find(|(_, (is_active, _))| *is_active).unwrap().0;
    world.kill(lost);
    let took = until(&mut world, 30, |world| world.count().0 == 8);
    assert!(took <= 20, "{took}");
}

/// The seat that most use, and those who do.
fn most_used(world: &World) -> (NodeId, Vec<NodeId>) {
    let guests = |seat: &NodeId| -> Vec<NodeId> {
        let is_guest = |id: &NodeId| world.hosts[id].roles.stats().homes.contains(seat);
        world.alive().filter(is_guest).collect()
    };
    let seat = seats(world).into_iter().max_by_key(|seat| guests(seat).len()).unwrap();
    let guests = guests(&seat);
    assert!(guests.len() >= 8, "{}", guests.len());
    (seat, guests)
}

#[test]
fn a_seat_that_lies_to_many_loses_its_mandate() {
    let mut world = World::new(120, quick());
    world.run(secs(1_400));
    let (seat, lied_to) = most_used(&world);
    let now = world.now;
    for id in &lied_to[..7] {
        world.host(*id).roles.omission(now, seat);
        world.host(*id).roles.omission(now, seat);
    }
    world.drain_all();
    world.run(secs(5));
    assert!(seats(&world).contains(&seat), "seven are not enough, however often they say it");
    let now = world.now;
    world.host(lied_to[7]).roles.omission(now, seat);
    world.drain_all();
    world.run(secs(5));
    assert!(!seats(&world).contains(&seat));
    let removed = Event::Removed(seat);
    let knows = world.hosts.values().filter(|host| host.events.iter().any(|(_, e)| *e == removed));
    assert!(knows.count() >= 8, "its fellows know");
}

#[test]
fn nobody_is_removed_as_dead_whom_its_fellows_hear() {
    let mut world = World::new(120, quick());
    world.run(secs(1_400));
    let (seat, guests) = most_used(&world);
    let now = world.now;
    for id in &guests {
        for _ in 0..3 {
            world.host(*id).roles.seat_failed(now, seat);
        }
    }
    world.drain_all();
    world.run(secs(5));
    assert!(world.bytes.contains_key(&41), "they reported it");
    assert!(seats(&world).contains(&seat));
}

#[test]
fn a_full_seat_names_others() {
    let mut world = World::new(40, quick());
    world.run(secs(1_400));
    let seat = seats(&world)[0];
    world.host(seat).roles.set_load(u8::MAX);
    let before = world.hosts.values().filter(|h| h.roles.stats().homes.contains(&seat)).count();
    let other = seats(&world)[1];
    world.kill(other);
    world.run(secs(30));
    let after = world.hosts.values().filter(|h| h.roles.stats().homes.contains(&seat)).count();
    assert!(after <= before && seats(&world).contains(&seat), "it takes nobody in, and stays");
    assert!(world.served(3) >= 37, "{}", world.served(3));
}

#[test]
fn who_is_served_asks_seldom() {
    let mut world = World::new(120, quick());
    world.run(secs(1_300));
    let said =
        |world: &World| [32, 33].map(|number| world.bytes.get(&number).copied().unwrap_or(0));
    let before: u64 = said(&world).iter().sum();
    world.run(secs(3_600));
    let bytes = said(&world).iter().sum::<u64>() - before;
    assert!(bytes / 120 < 4_000, "{} bytes a node and hour", bytes / 120);
    assert!(world.served(3) >= 118, "{}", world.served(3));
}

#[test]
fn who_has_more_capacity_serves_more() {
    let mut world = World::with_capacities(160, quick(), [14, 14, 17, 17]);
    world.run(secs(4_000));
    assert!(world.served(3) >= 158, "{}", world.served(3));
    let mean_guests = |capacity_log2| {
        let is_of = |seat: &NodeId| world.capacity_log2(*seat) == capacity_log2;
        let of: Vec<_> = seats(&world).into_iter().filter(is_of).collect();
        let homes = world.hosts.values().flat_map(|host| host.roles.stats().homes);
        homes.filter(|home| of.contains(home)).count() as f64 / of.len() as f64
    };
    let (slow, fast) = (mean_guests(14), mean_guests(17));
    assert!(fast >= 2.0 * slow, "{fast} {slow}");
}

#[test]
fn three_nodes_elect_nobody() {
    let mut world = World::new(3, config());
    world.run(secs(2_000));
    assert_eq!(world.count(), (0, 0, 0));
    assert!(world.bytes.is_empty(), "not a word: {:?}", world.bytes);
}

#[test]
fn one_peer_makes_us_verify_so_much_and_no_more() {
    let mut world = World::new(24, config());
    world.run(secs(5));
    let (now, to) = (world.now, world.alive().next().unwrap());
    let voids = |world: &mut World| {
        world.drain_all();
        let is_void = |(_, event): &&(_, Event)| matches!(event, Event::Void { .. });
        world.host(to).events.iter().filter(is_void).count()
    };
    let garbage = Present { mandate: Bytes::from_static(b"no mandate"), load: 0 };
    let from = world.host(to).roles.linked.keys().next().copied().unwrap();
    for _ in 0..100 {
        let message = RoleMessage::Present(garbage.clone());
        world.host(to).roles.handle_message(now, from, message);
    }
    let seen = voids(&mut world);
    assert!((20..=32).contains(&seen), "{seen} were looked at");
}
