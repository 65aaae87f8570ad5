//! Which links are kept, where reservations are held, and how a stranger is met half way.

use std::collections::BTreeSet;

use super::bare::{
    Bare, addr, hello, incoming, pair, relay_open, relay_opened, reserved, sent, told,
};
use super::world::{Nat, World, config, id};
use super::*;
use crate::key::Key;
use crate::wire::node::{Homes, Need, Release, Reserve};

const RESERVE: NodeMessage = NodeMessage::Reserve(Reserve {});
const NEED: NodeMessage = NodeMessage::Need(Need {});
const RELEASE: NodeMessage = NodeMessage::Release(Release {});

fn closes(outputs: &[Output], link: LinkId) -> usize {
    outputs.iter().filter(|output| **output == Output::CloseIfIdle(link)).count()
}

fn knocks(outputs: &[Output]) -> usize {
    outputs.iter().filter(|output| matches!(output, Output::Knock(_))).count()
}

/// A node, its link to a relay (1), and a relayed link through that to a peer that is wanted (5).
fn relayed(keep: bool) -> (Bare, LinkId, LinkId) {
    let mut node = Bare::new(config());
    let relay = node.up(1);
    node.say(relay, hello());
    node.want(5, keep);
    let outputs = node.say(relay, relay_opened(0, 42, 120));
    let dial = outputs.iter().find_map(|output| match output {
        Output::Dial { dial, to: RemoteAddr::Relayed { .. }, .. } => Some(*dial),
        _ => None,
    });
    let remote = RemoteAddr::Relayed { relay: addr(1), channel: Channel(42) };
    let (link, side, path) = (LinkId(50), Side::Client, PathId(0));
    node.input(Input::LinkUp { link, peer: id(5), side, path, remote, dial });
    (node, relay, link)
}

#[test]
fn nothing_is_reserved_at_a_peer_that_is_not_kept() {
    let mut node = Bare::new(config());
    let link = node.up(1);
    assert_eq!(sent(&node.say(link, hello())), []);
    node.want(2, false);
    let wanted_once = node.up(2);
    assert_eq!(sent(&node.say(wanted_once, hello())), []);
    assert!(!sent(&node.run(secs(20))).contains(&RESERVE));
    // The owner wants to keep one that is there.
    assert_eq!(sent(&node.want(1, true)), [NEED, RESERVE]);
    assert_eq!(sent(&node.want(1, true)), [], "asked already");
    node.say(link, reserved(1800));
    assert_eq!(node.node.our_homes().len(), 1);
}

#[test]
fn a_reservation_is_answered_with_one_and_both_end_together() {
    let mut node = Bare::new(config());
    let link = node.up(1);
    node.say(link, hello());
    let answer = sent(&node.say(link, RESERVE));
    assert_eq!(answer.len(), 2);
    assert!(matches!(answer[0], NodeMessage::Reserved(_)) && answer[1] == RESERVE);
    node.say(link, reserved(1800));
    assert_eq!(closes(&node.run(secs(600)), link), 0, "kept for the peer's sake");
    let outputs = node.say(link, RELEASE);
    assert!(outputs.contains(&Output::Event(Event::Serving { peer: id(1), granted: false })));
    assert!(outputs.contains(&Output::Event(Event::Home { peer: id(1), held: false })));
    assert!(sent(&outputs).contains(&RELEASE));
    assert_eq!(node.node.reservations().count(), 0);
    assert_eq!(closes(&node.run(secs(31)), link), 1);
    assert_eq!(sent(&node.say(link, RELEASE)), [], "there is nothing left to give back");
}

#[test]
fn a_peer_that_is_kept_no_longer_is_left() {
    let mut node = Bare::new(config());
    let link = node.up_home(1, 1800);
    // The peer reserves here too, only because we did at its.
    node.say(link, RESERVE);
    assert_eq!(closes(&node.run(secs(300)), link), 0);
    let outputs = node.input(Input::Forget(id(1)));
    assert_eq!(sent(&outputs)[..1], [RELEASE], "else both would wait for the other");
    assert!(outputs.contains(&Output::InboundRelay(addr(1), false)));
    node.say(link, RELEASE);
    let outputs = node.run(secs(31));
    assert_eq!(closes(&outputs, link), 1);
    assert!(!sent(&outputs).contains(&RESERVE), "nor is it renewed");
    // As long as the link is in use, it is asked now and then.
    assert_eq!(closes(&node.run(secs(300)), link), 10);
}

#[test]
fn a_link_of_no_use_is_closed_after_half_a_minute() {
    let mut node = Bare::new(config());
    let idle = node.up(1);
    let kept = node.up_home(2, 1800);
    let serving = node.up(3);
    node.say(serving, RESERVE);
    assert_eq!(closes(&node.run(Duration::from_millis(29_900)), idle), 0);
    let outputs = node.run(secs(1));
    assert_eq!([idle, kept, serving].map(|link| closes(&outputs, link)), [1, 0, 0]);
    let outputs = node.run(secs(1000));
    assert_eq!([kept, serving].map(|link| closes(&outputs, link)), [0, 0]);
}

#[test]
fn of_two_links_to_a_peer_the_one_that_stays_is_closed_too() {
    let mut node = Bare::new(config());
    let remote = RemoteAddr::Direct(addr(1));
    let (first, second) =
        (node.up_with(1, Side::Server, remote), node.up_with(1, Side::Client, remote));
    assert_eq!(node.node.link_to(id(1)), Some(second), "dialled by the lower id");
    node.input(Input::LinkDown(first));
    assert_eq!(closes(&node.run(secs(31)), second), 1);
}

#[test]
fn a_link_whose_channel_is_in_use_stays() {
    let (mut node, relay, link) = relayed(false);
    assert_eq!(closes(&node.run(secs(600)), relay), 0);
    node.input(Input::LinkDown(link));
    node.input(Input::Forget(id(5)));
    assert!(closes(&node.run(secs(100)), relay) >= 1);
}

#[test]
fn the_three_nearest_are_asked_to_signal_then_the_next() {
    let mut node = Bare::new(config());
    for n in 1..=8 {
        let link = node.up(n);
        node.say(link, hello());
    }
    let target = Key::of_node(id(20));
    let mut near: Vec<_> = (1..=8).collect();
    near.sort_by_key(|n| Key::of_node(id(*n)).distance(&target));
    let asked = |outputs: &[Output]| {
        let links = outputs.iter().filter_map(|output| match output {
            Output::Send { link, message: NodeMessage::RelayOpen(_) } => {
                Some(1 + usize::try_from(link.0).unwrap())
            }
            _ => None,
        });
        links.collect::<BTreeSet<_>>()
    };
    let first = asked(&node.want(20, true));
    assert_eq!(first, near[..3].iter().copied().collect());
    let second = asked(&node.run(Duration::from_millis(500)));
    assert!(second.is_superset(&near[3..6].iter().copied().collect()), "{second:?} of {near:?}");
}

#[test]
fn a_target_knocks_once_for_each_channel_that_its_home_opens() {
    let mut node = Bare::new(NodeConfig { channels_per_peer_max: 2, ..config() });
    let home = node.up_home(1, 1800);
    let stranger = node.up(2);
    assert_eq!(knocks(&node.say(stranger, incoming(1, 7))), 0, "not our home");
    let outputs = node.say(home, incoming(1, 7));
    assert_eq!(outputs, [Output::Knock(addr(50))]);
    assert_eq!(knocks(&node.say(home, incoming(1, 7))), 0);
    assert_eq!(knocks(&node.say(home, incoming(2, 8))), 1);
    let many: usize = (3..100).map(|n| knocks(&node.say(home, incoming(n, 9)))).sum();
    assert_eq!(many, 0, "a home does not make us knock at ever new doors");
    node.up(4);
    let mut linked = Bare::new(config());
    let home = linked.up_home(1, 1800);
    linked.up(4);
    assert_eq!(knocks(&linked.say(home, incoming(1, 4))), 0, "it is here");
}

#[test]
fn who_was_given_a_channel_dials_the_target_itself_too() {
    let mut node = Bare::new(config());
    let relay = node.up(1);
    node.say(relay, hello());
    node.want(5, false);
    let outputs = node.say(relay, relay_opened(0, 42, 120));
    let dials: Vec<_> = outputs
        .iter()
        .filter_map(|output| match output {
            Output::Dial { to, .. } => Some(*to),
            _ => None,
        })
        .collect();
    let relayed = RemoteAddr::Relayed { relay: addr(1), channel: Channel(42) };
    assert_eq!(dials, [RemoteAddr::Direct(addr(50)), relayed]);
    let trusted = |output: &Output| matches!(output, Output::Gate(GateAction::Trust(_)));
    assert!(!outputs.iter().any(trusted), "it is the word of a peer");
}

#[test]
fn a_relay_grants_the_long_life_to_reservations_and_the_short_one_to_channels() {
    let mut relay = Bare::new(config());
    let [a, b] = [1, 2].map(|n| relay.up(n));
    let granted = sent(&relay.say(b, RESERVE));
    assert!(granted.iter().any(|m| matches!(m, NodeMessage::Reserved(r) if r.ttl_s == 14_400)));
    let answer = relay.open(a, 2, pair(1));
    assert!(answer.iter().any(|m| matches!(m, NodeMessage::RelayOpened(o) if o.ttl_s == 120)));
    // What is given back is gone at once.
    relay.say(b, RELEASE);
    assert_eq!(relay.node.reservations().count(), 0);
    let refused = sent(&relay.say(a, relay_open(2)));
    assert!(matches!(refused[..], [NodeMessage::Refused(_)]));
}

#[test]
fn who_cannot_be_a_home_is_told_that_the_link_is_to_last() {
    let (mut node, _, link) = relayed(true);
    let early = [node.say(link, hello()), node.run(secs(9))].concat();
    assert!(!sent(&early).contains(&RESERVE), "a direct path may open yet");
    assert!(sent(&node.run(secs(2))).contains(&RESERVE));
    assert!(!sent(&node.run(secs(60))).contains(&RESERVE), "said once");
    let outputs = node.input(Input::Forget(id(5)));
    assert!(sent(&outputs).contains(&RELEASE));
}

#[test]
fn a_link_that_the_peer_means_to_keep_stays_though_nothing_is_lent() {
    let mut node = Bare::new(NodeConfig { relays: false, ..config() });
    let link = node.up(1);
    assert!(matches!(sent(&node.say(link, RESERVE))[..], [NodeMessage::Refused(_)]));
    assert_eq!(closes(&node.run(secs(600)), link), 0);
    assert_eq!(sent(&node.say(link, RELEASE)), []);
    assert_eq!(closes(&node.run(secs(31)), link), 1);
}

#[test]
fn reservations_asked_for_and_given_back_at_one_time_do_not_go_round() {
    let mut node = Bare::new(config());
    let link = node.up_home(1, 1800);
    node.input(Input::Forget(id(1)));
    // The peer's own wish was under way when it got our Release.
    let answer = sent(&node.say(link, RESERVE));
    assert!(matches!(answer[..], [NodeMessage::Reserved(_)]), "{answer:?}");
    assert_eq!(sent(&node.say(link, RELEASE)), []);
}

#[test]
fn a_home_that_anybody_can_dial_is_named_before_others() {
    let mut node = Bare::new(config());
    let [closed, open] = [1, 2].map(|n| node.up_home(n, 1800));
    node.say(closed, NodeMessage::Homes(told(Vec::new())));
    let homes = Homes { homes: Vec::new(), addrs: vec![addr(2)], is_open: true };
    node.say(open, NodeMessage::Homes(homes));
    let homes: Vec<_> = node.node.our_homes().iter().map(|home| home.id).collect();
    assert_eq!(homes, [id(2), id(1)]);
    let contact = node.node.contact(id(2)).unwrap();
    assert_eq!((contact.addrs, contact.homes), (vec![addr(2)], Vec::new()));
}

#[test]
fn who_has_a_path_through_a_link_is_looked_at_before_the_link() {
    let (mut node, relay, link) = relayed(false);
    node.input(Input::Unwant(id(5)));
    let outputs = node.run(secs(200));
    assert!(closes(&outputs, link) >= 1, "if it has no sessions");
    assert_eq!(closes(&outputs, relay), 0, "if it has, the relay is of use");
    node.input(Input::LinkDown(link));
    assert!(closes(&node.run(secs(100)), relay) >= 1);
}

#[test]
fn idle_links_are_closed_and_those_with_sessions_stay() {
    let mut world = World::new();
    let [a, b, c] = [Nat::None, Nat::None, Nat::None].map(|nat| world.add(nat));
    world.want(a, b, true, false);
    world.want(a, c, true, false);
    world.sessions.insert((a, c));
    world.run(secs(29));
    assert_eq!((world.links(a, b).len(), world.links(a, c).len()), (1, 1));
    world.run(secs(3));
    assert_eq!((world.links(a, b).len(), world.links(a, c).len()), (0, 1));
    world.run(secs(100));
    world.sessions.clear();
    world.run(secs(40));
    assert_eq!(world.links(a, c).len(), 0);
}

#[test]
fn links_that_only_serve_each_other_are_closed() {
    let mut world = World::new();
    let [a, b, c] = [Nat::None, Nat::None, Nat::None].map(|nat| world.add(nat));
    // They are each other's homes, so each is a warm way to the other.
    world.want(b, c, true, true);
    world.run(secs(1));
    world.want(a, b, true, false);
    world.want(a, c, true, false);
    world.sessions.insert((a, c));
    world.run(secs(300));
    assert_eq!(world.links(a, c).len(), 1);
    let paths = |world: &World, n| {
        let link = world.links(a, n)[0];
        world.hosts[a].node.paths(link).len()
    };
    assert_eq!(paths(&world, c), 2, "a session has a warm way beside the direct one");
    world.sessions.clear();
    world.run(secs(400));
    assert_eq!([b, c].map(|n| world.links(a, n).len()), [0, 0]);
    assert_eq!(world.links(b, c).len(), 1, "kept");
}
