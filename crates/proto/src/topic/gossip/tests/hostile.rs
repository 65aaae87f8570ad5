//! Members that do not do what they should.

use super::super::missing::MISSING_MAX;
use super::super::*;
use super::world::{World, ms};
use crate::topic::id::ShortId;

fn garbage(world: &mut World) -> ShortId {
    let mut id = [0; 16];
    world.rng.fill_bytes(&mut id);
    ShortId::from_bytes(id)
}

/// A world in which a neighbour of `victim` is played by the test.
fn infiltrated(seed: u64) -> (World, NodeId, NodeId) {
    let mut world = World::new(seed, 12);
    world.run(ms(10_000));
    let victim = world.random();
    let foe = NodeId::from_bytes([0xee; 32]);
    world.input(victim, Input::PeerUp(foe));
    world.say(foe, victim, GossipMessage::Neighbor { is_urgent: true });
    assert!(world.members[&victim].gossip.is_neighbor(foe));
    (world, victim, foe)
}

#[test]
fn who_announces_and_never_delivers_is_dropped() {
    let (mut world, victim, foe) = infiltrated(1);
    for _ in 0..20 {
        let id = garbage(&mut world);
        world.say(foe, victim, GossipMessage::Have(vec![id]));
        world.run(ms(1_000));
    }
    let gossip = &world.members[&victim].gossip;
    assert!(!gossip.is_neighbor(foe));
    // And is not taken back at once.
    world.say(foe, victim, GossipMessage::Neighbor { is_urgent: true });
    assert!(!world.members[&victim].gossip.is_neighbor(foe));
    assert!(world.members[&victim].gossip.neighbors().count() >= 4);
}

#[test]
fn a_member_that_promises_and_is_silent_loses_its_neighbours() {
    let mut world = World::new(2, 20);
    world.run(ms(10_000));
    let silent = world.random();
    world.members.get_mut(&silent).unwrap().is_silent = true;
    let before: Vec<_> = world.members[&silent].gossip.neighbors().collect();
    // Its own entries are announced only, and it passes on none of the others'.
    for _ in 0..30 {
        let ids = (0..4).map(|_| garbage(&mut world)).collect::<Vec<_>>();
        for (peer, _) in &before {
            world.say(silent, *peer, GossipMessage::Have(ids.clone()));
        }
        world.run(ms(500));
    }
    let holds = |id: &NodeId| world.members[id].gossip.is_neighbor(silent);
    assert!(!before.iter().any(|(id, _)| holds(id)));
}

#[test]
fn a_flood_of_duplicates_ends_in_a_ban() {
    let (mut world, victim, foe) = infiltrated(3);
    let id = world.publish(victim, 100);
    let (mut sent, mut dropped_after) = (0, None);
    while !world.members[&victim].gossip.is_banned(world.now, foe) {
        world.input(victim, Input::Duplicate { id, from: foe, len: 100 });
        world.run(ms(5));
        sent += 1;
        if !world.members[&victim].gossip.is_neighbor(foe) {
            dropped_after.get_or_insert(sent);
            // It goes on asking.
            world.say(foe, victim, GossipMessage::Neighbor { is_urgent: true });
        }
        assert!(sent < 2_000);
    }
    assert!(dropped_after.unwrap() < 400, "{dropped_after:?}");
    world.input(victim, Input::PeerUp(foe));
    world.say(foe, victim, GossipMessage::Neighbor { is_urgent: true });
    world.input(victim, Input::Found(vec![foe.into()]));
    assert!(!world.members[&victim].gossip.is_neighbor(foe));
    assert!(world.members[&victim].gossip.members().all(|addr| addr.id != foe));
}

#[test]
fn garbage_ids_take_bounded_room() {
    let (mut world, victim, _) = infiltrated(4);
    for n in 0..200_u8 {
        let foe = NodeId::from_bytes([n; 32]);
        world.input(victim, Input::PeerUp(foe));
        world.say(foe, victim, GossipMessage::Neighbor { is_urgent: true });
        for _ in 0..10 {
            let ids = (0..SHORTS_MAX).map(|_| garbage(&mut world)).collect();
            world.say(foe, victim, GossipMessage::Have(ids));
        }
        let gossip = &world.members[&victim].gossip;
        assert!(gossip.missing.len() <= MISSING_MAX);
        assert!(gossip.peers.len() <= 60, "{}", gossip.peers.len());
        assert!(gossip.neighbors().count() <= 8);
    }
    world.run(ms(60_000));
    assert_eq!(world.members[&victim].gossip.missing.len(), 0);
}

#[test]
fn lists_over_the_limits_and_too_many_messages_are_punished() {
    let (mut world, victim, foe) = infiltrated(5);
    for _ in 0..2 {
        let ids = (0..=SHORTS_MAX).map(|_| garbage(&mut world)).collect();
        world.say(foe, victim, GossipMessage::Have(ids));
    }
    let gossip = &world.members[&victim].gossip;
    assert!(!gossip.is_neighbor(foe));
    assert_eq!(gossip.missing.len(), 0);

    let (mut world, victim, foe) = infiltrated(6);
    for message in [GossipMessage::Prune, GossipMessage::Shuffle(Vec::new())] {
        for _ in 0..200 {
            world.say(foe, victim, message.clone());
        }
    }
    assert!(world.members[&victim].gossip.is_banned(world.now, foe));
}

#[test]
fn grafts_do_not_make_a_node_send_without_end() {
    let (mut world, victim, foe) = infiltrated(7);
    let ids: Vec<_> = (0..SHORTS_MAX).map(|_| world.publish(victim, 1 << 20)).collect();
    let pushed = world.counts["push"];
    for _ in 0..10 {
        world.say(foe, victim, GossipMessage::Graft(ids.clone()));
    }
    assert!(world.counts["push"] - pushed <= 8);
}

#[test]
fn what_the_parent_reports_counts() {
    let (mut world, victim, foe) = infiltrated(8);
    world.input(victim, Input::Bad { peer: foe, weight: 19 });
    assert!(world.members[&victim].gossip.is_neighbor(foe));
    world.input(victim, Input::Bad { peer: foe, weight: 1 });
    assert!(!world.members[&victim].gossip.is_neighbor(foe));
    world.input(victim, Input::Bad { peer: foe, weight: u32::MAX });
    assert!(world.members[&victim].gossip.is_banned(world.now, foe));
}

#[test]
fn a_crowd_that_asks_urgently_does_not_take_the_view_at_once() {
    let mut world = World::new(9, 30);
    world.run(ms(10_000));
    let victim = world.random();
    let before: Vec<_> = world.members[&victim].gossip.neighbors().map(|(id, _)| id).collect();
    for n in 0..100_u8 {
        let foe = NodeId::from_bytes([n; 32]);
        world.input(victim, Input::PeerUp(foe));
        world.say(foe, victim, GossipMessage::Neighbor { is_urgent: true });
    }
    let gossip = &world.members[&victim].gossip;
    let left = before.iter().filter(|id| gossip.is_neighbor(**id)).count();
    assert!(left + 3 >= before.len(), "{left} of {}", before.len());
}
