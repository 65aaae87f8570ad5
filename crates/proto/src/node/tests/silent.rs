//! Links on which nothing is heard, and those that take their place.

use super::bare::{Bare, addr, hello, relay_opened, sent, told};
use super::world::{config, id};
use super::*;
use crate::key::Key;
use crate::wire::IndexMessage;
use crate::wire::node::{Hello, Need};

const NEED: NodeMessage = NodeMessage::Need(Need {});

/// The counters of the only path of a link, of which more is sent at each look.
struct Counters {
    link: LinkId,
    tx: u64,
    rx: u64,
}

impl Counters {
    fn of(link: LinkId) -> Self {
        Self { link, tx: 1, rx: 1 }
    }

    /// Lets time pass in which the owner sends and the peer answers, or does not.
    fn run(&mut self, node: &mut Bare, for_time: Duration, is_heard: bool) -> Vec<Output> {
        let end = node.now + for_time;
        let mut outputs = node.input(Input::Active(self.link));
        while let Some(at) = node.node.poll_timeout().filter(|at| *at <= end) {
            let new = node.run(at - node.now);
            for output in &new {
                if *output == (Output::Path { link: self.link, action: path::Output::Sample }) {
                    self.tx += 1;
                    self.rx += u64::from(is_heard);
                    let rtt = Duration::from_millis(20) + Duration::from_micros(self.rx);
                    let sample = Sample { path: PathId(0), tx: self.tx, rx: self.rx, rtt };
                    let samples = vec![sample];
                    outputs.extend(node.input(Input::Samples { link: self.link, samples }));
                }
            }
            outputs.extend(new);
        }
        outputs.extend(node.run(end - node.now));
        outputs
    }
}

/// A node with a relay 1 and a link to peer 2, through another relay that died: silent for a while.
fn silent() -> (Bare, LinkId, Counters, Vec<Output>) {
    let mut node = Bare::new(config());
    let relay = node.up_home(1, 1800);
    let link = node.up_relayed(2);
    node.say(link, hello());
    let mut counters = Counters::of(link);
    counters.run(&mut node, Duration::from_millis(300), true);
    let homes = vec![Home { id: id(1), addrs: vec![addr(1)] }];
    node.say(link, NodeMessage::Homes(told(homes)));
    let outputs = counters.run(&mut node, Duration::from_secs(3), false);
    (node, relay, counters, outputs)
}

fn requests(outputs: &[Output]) -> Vec<u32> {
    let request = |message| match message {
        NodeMessage::RelayOpen(open) if open.target == id(2) => Some(open.request),
        _ => None,
    };
    sent(outputs).into_iter().filter_map(request).collect()
}

fn closes(outputs: &[Output], link: LinkId) -> bool {
    outputs.contains(&Output::Close(link))
}

#[test]
fn the_peer_is_told_that_a_link_is_needed() {
    let mut node = Bare::new(config());
    let link = node.up(1);
    assert!(!sent(&node.say(link, hello())).contains(&NEED));
    assert_eq!(sent(&node.input(Input::Used(link))), [NEED]);
    assert_eq!(sent(&node.input(Input::Used(link))), [], "said once");
    // One that was wanted before it came is told at once.
    node.want(2, false);
    let (link, peer, side, path) = (LinkId(9), id(2), Side::Server, PathId(0));
    let remote = RemoteAddr::Direct(addr(2));
    let up = Input::LinkUp { link, peer, side, path, remote, dial: None };
    assert!(sent(&node.input(up)).contains(&NEED));
}

#[test]
fn a_link_beside_one_that_is_needed_is_needed_too() {
    let mut node = Bare::new(config());
    let first = node.up_with(1, Side::Client, RemoteAddr::Direct(addr(1)));
    node.input(Input::Used(first));
    let (link, peer, side, path) = (LinkId(9), id(1), Side::Server, PathId(0));
    let remote = RemoteAddr::Direct(addr(1));
    let up = Input::LinkUp { link, peer, side, path, remote, dial: None };
    assert!(sent(&node.input(up)).contains(&NEED));
}

#[test]
fn a_client_that_is_told_so_asks_for_relayed_paths() {
    let mut node = Bare::new(config());
    node.up_home(1, 1800);
    let link = node.up_with(2, Side::Client, RemoteAddr::Direct(addr(2)));
    node.say(link, hello());
    let homes = vec![Home { id: id(1), addrs: vec![addr(1)] }];
    node.say(link, NodeMessage::Homes(told(homes)));
    assert_eq!(requests(&node.run(Duration::from_secs(1))), [], "a means needs no backup");
    let mut outputs = node.say(link, NEED);
    outputs.extend(node.run(Duration::from_secs(1)));
    assert_eq!(requests(&outputs).len(), 1);
    assert!(!sent(&outputs).contains(&NEED), "the peer knows");
}

#[test]
fn a_silent_peer_is_dialled_anew_and_the_new_link_is_preferred() {
    let (mut node, relay, mut counters, outputs) = silent();
    let old = counters.link;
    let [request] = requests(&outputs)[..] else { panic!("{outputs:?}") };
    let outputs = node.say(relay, relay_opened(request, 5, 120));
    let (relay, channel) = (addr(1), Channel(5));
    let relayed = RemoteAddr::Relayed { relay, channel };
    let is_relayed = |output: &Output| match output {
        Output::Dial { peer, to, .. } => *peer == id(2) && *to == relayed,
        _ => false,
    };
    assert!(outputs.iter().any(is_relayed), "{outputs:?}");
    assert!(!closes(&outputs, old), "nothing is closed before there is another");
    let new = node.up_with(2, Side::Client, relayed);
    assert_eq!(node.node.link_to(id(2)), Some(new));
    assert!(closes(&counters.run(&mut node, Duration::from_secs(1), false), old));
}

#[test]
fn a_link_that_is_heard_again_keeps_its_conversations() {
    let (mut node, _, mut counters, _) = silent();
    let old = counters.link;
    let new = node.up_relayed(2);
    let outputs = counters.run(&mut node, Duration::from_secs(5), true);
    assert!(!closes(&outputs, old), "{outputs:?}");
    assert_eq!(node.node.link_to(id(2)), Some(new), "new ones take the new link nevertheless");
}

#[test]
fn a_peer_that_dials_again_hears_nothing_on_the_old_link() {
    let mut node = Bare::new(config());
    // Ours is the higher id of the two or the lower: the newer link must win all the same.
    let first = node.up_with(2, Side::Client, RemoteAddr::Direct(addr(2)));
    let other = node.up_with(3, Side::Client, RemoteAddr::Direct(addr(3)));
    node.run(Duration::from_secs(10));
    let second = node.up(2);
    let third = node.up(3);
    assert_eq!(node.node.link_to(id(2)), Some(second), "not {first:?}");
    assert_eq!(node.node.link_to(id(3)), Some(third), "not {other:?}");
    // Both at once is no sign of anything.
    let crossing = [4, 5].map(|n| {
        let ours = node.up_with(n, Side::Client, RemoteAddr::Direct(addr(n)));
        let theirs = node.up(n);
        let is_ours_preferred = node.node.id() < id(n);
        (node.node.link_to(id(n)), Some(if is_ours_preferred { ours } else { theirs }))
    });
    assert!(crossing.iter().all(|(is, expected)| is == expected), "{crossing:?}");
}

#[test]
fn one_that_falls_silent_after_another_came_is_given_up_too() {
    let mut node = Bare::new(config());
    let old = node.up_relayed(2);
    let new = node.up_relayed(2);
    let mut counters = Counters::of(old);
    counters.run(&mut node, Duration::from_millis(300), true);
    let outputs = counters.run(&mut node, Duration::from_secs(5), false);
    assert!(closes(&outputs, old), "{outputs:?}");
    assert!(!closes(&outputs, new) && node.node.link_to(id(2)) == Some(new));
}

#[test]
fn others_are_asked_where_a_silent_peer_is() {
    let mut node = Bare::new(config());
    let other = node.up(1);
    let link = node.up_relayed(2);
    for (link, run) in [(other, 1), (link, 2)] {
        node.say(
            link,
            NodeMessage::Hello(Hello { relays: true, indexes: true, run, ..Hello::default() }),
        );
    }
    node.run(Duration::from_secs(120));
    let mut counters = Counters::of(link);
    counters.run(&mut node, Duration::from_millis(300), true);
    let outputs = counters.run(&mut node, Duration::from_secs(3), false);
    let key = Key::of_node(id(2));
    let is_asked = |output: &Output| match output {
        Output::Send { link, message: NodeMessage::Index(IndexMessage::Find(find)) } => {
            *link == other && find.target == key
        }
        _ => false,
    };
    assert!(outputs.iter().any(is_asked), "{outputs:?}");
}
