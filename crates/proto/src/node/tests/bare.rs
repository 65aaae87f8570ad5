//! One node whose peers say whatever the test likes.

use super::world::{config, id, secret};
use super::*;
use crate::forward::{ChannelPair, OpenError};
use crate::wire::node::{
    Hello, Homes, RefusalReason, Refused, RelayClosed, RelayIncoming, RelayOpen, RelayOpened,
    RelayRenew, Reserve, Reserved, Retired,
};

/// The node is number 0; its peers are the others.
pub(super) struct Bare {
    pub(super) node: Node,
    pub(super) now: Instant,
    next_link: u64,
}

pub(super) fn addr(n: usize) -> SocketAddr {
    SocketAddr::from(([5, 0, 0, u8::try_from(n).unwrap()], 4000))
}

impl Bare {
    pub(super) fn new(config: NodeConfig) -> Self {
        Self { node: Node::new(secret(0), config, [7; 32]), now: Instant::ZERO, next_link: 0 }
    }

    pub(super) fn drain(&mut self) -> Vec<Output> {
        core::iter::from_fn(|| self.node.poll_output()).collect()
    }

    pub(super) fn input(&mut self, input: Input) -> Vec<Output> {
        self.node.handle_input(self.now, input);
        self.drain()
    }

    pub(super) fn run(&mut self, for_time: Duration) -> Vec<Output> {
        let end = self.now + for_time;
        let mut outputs = Vec::new();
        while let Some(at) = self.node.poll_timeout().filter(|at| *at <= end) {
            self.now = at.max(self.now);
            self.node.handle_timeout(self.now);
            outputs.extend(self.drain());
            machine::check_deadline(&self.node, self.now);
        }
        self.now = end;
        outputs
    }

    pub(super) fn up_with(&mut self, n: usize, side: Side, remote: RemoteAddr) -> LinkId {
        let link = LinkId(self.next_link);
        self.next_link += 1;
        self.input(Input::LinkUp { link, peer: id(n), side, path: PathId(0), remote, dial: None });
        link
    }

    /// Peer `n` dialled us directly.
    pub(super) fn up(&mut self, n: usize) -> LinkId {
        self.up_with(n, Side::Server, RemoteAddr::Direct(addr(n)))
    }

    /// Peer `n` is linked to us by a relayed path alone.
    pub(super) fn up_relayed(&mut self, n: usize) -> LinkId {
        let remote = RemoteAddr::Relayed { relay: addr(99), channel: Channel(9) };
        self.up_with(n, Side::Server, remote)
    }

    pub(super) fn say(&mut self, link: LinkId, message: NodeMessage) -> Vec<Output> {
        self.input(Input::Message { link, message })
    }

    /// Peer `n`, which is to be kept, is linked directly, offers to relay and grants the
    /// reservation.
    pub(super) fn up_home(&mut self, n: usize, ttl_s: u32) -> LinkId {
        self.want(n, true);
        let link = self.up(n);
        assert!(sent(&self.say(link, hello())).contains(&NodeMessage::Reserve(Reserve {})));
        self.say(link, reserved(ttl_s));
        link
    }

    /// Peers asks on `link` for `target`; the forwarder answers with `result`.
    pub(super) fn open(
        &mut self,
        link: LinkId,
        target: usize,
        result: Result<ChannelPair, OpenError>,
    ) -> Vec<NodeMessage> {
        let mut outputs = self.say(link, relay_open(target));
        if let [Output::Forward(ForwardAction::Open { token, .. })] = outputs[..] {
            outputs = self.input(Input::ChannelOpened { token, result });
        }
        sent(&outputs)
    }

    pub(super) fn want(&mut self, n: usize, keep: bool) -> Vec<Output> {
        self.input(Input::Want { peer: id(n).into(), keep })
    }
}

pub(super) fn hello() -> NodeMessage {
    NodeMessage::Hello(Hello { relays: true, ..Hello::default() })
}

/// What a peer tells that nobody can dial.
pub(super) fn told(homes: Vec<Home>) -> Homes {
    Homes { homes, addrs: Vec::new(), is_open: false }
}

pub(super) fn reserved(ttl_s: u32) -> NodeMessage {
    NodeMessage::Reserved(Reserved { ttl_s, rate_bytes_per_s: 1 })
}

pub(super) fn relay_open(target: usize) -> NodeMessage {
    NodeMessage::RelayOpen(RelayOpen { request: 7, target: id(target) })
}

pub(super) fn relay_opened(request: u32, channel: u32, ttl_s: u32) -> NodeMessage {
    let channel = Channel(channel);
    NodeMessage::RelayOpened(RelayOpened { request, channel, target_addr: addr(50), ttl_s })
}

pub(super) fn incoming(channel: u32, peer: usize) -> NodeMessage {
    let (channel, peer) = (Channel(channel), id(peer));
    NodeMessage::RelayIncoming(RelayIncoming { channel, peer, peer_addr: addr(50) })
}

pub(super) fn refused(request: Option<u32>, reason: RefusalReason) -> NodeMessage {
    NodeMessage::Refused(Refused { request, reason })
}

pub(super) fn pair(n: u32) -> Result<ChannelPair, OpenError> {
    Ok(ChannelPair { a: Channel(2 * n), b: Channel(2 * n + 1) })
}

/// The messages among outputs.
pub(super) fn sent(outputs: &[Output]) -> Vec<NodeMessage> {
    let sent = outputs.iter().filter_map(|output| match output {
        Output::Send { message, .. } => Some(message.clone()),
        _ => None,
    });
    sent.collect()
}

pub(super) fn dialled(outputs: &[Output]) -> usize {
    outputs.iter().filter(|output| matches!(output, Output::Dial { .. })).count()
}

/// A relay refuses the second of two peers, both linked directly, a channel to `target`; the
/// third holds a reservation, the fourth one is linked by a relayed path.
fn check_refused(config: NodeConfig, target: usize, reason: RefusalReason) {
    let mut relay = Bare::new(config);
    let [_, link, holder] = [1, 2, 3].map(|n| relay.up(n));
    relay.up_relayed(4);
    relay.say(holder, NodeMessage::Reserve(Reserve {}));
    assert_eq!(relay.open(link, target, pair(0)), [refused(Some(7), reason)], "{target}");
}

#[test]
fn a_relay_refuses_what_is_pointless_or_not_reserved() {
    check_refused(config(), 0, RefusalReason::Pointless);
    check_refused(config(), 2, RefusalReason::Pointless);
    for target in [1, 4, 5] {
        check_refused(config(), target, RefusalReason::NoReservation);
    }
    check_refused(NodeConfig { relays: false, ..config() }, 3, RefusalReason::Off);
    check_refused(NodeConfig { channels_per_peer_max: 0, ..config() }, 3, RefusalReason::Full);
}

#[test]
fn a_relay_serves_only_peers_that_it_is_linked_to_directly() {
    let mut relay = Bare::new(config());
    let (holder, far) = (relay.up(1), relay.up_relayed(2));
    let not_direct = |request| [refused(request, RefusalReason::NotDirect)];
    assert_eq!(sent(&relay.say(far, NodeMessage::Reserve(Reserve {}))), not_direct(None));
    relay.say(holder, NodeMessage::Reserve(Reserve {}));
    assert_eq!(relay.open(far, 1, pair(0)), not_direct(Some(7)));
    // The holder's direct path goes; another one stays.
    let (path, remote) = (PathId(1), RemoteAddr::Relayed { relay: addr(9), channel: Channel(1) });
    relay.input(Input::PathOpened { link: holder, path, remote });
    relay.input(Input::PathClosed { link: holder, path: PathId(0) });
    let near = relay.up(3);
    assert_eq!(relay.open(near, 1, pair(0)), not_direct(Some(7)));
}

#[test]
fn an_owner_who_stops_to_lend_says_so_to_all_and_ends_reservations() {
    let mut relay = Bare::new(config());
    let [holder, other] = [1, 2].map(|n| relay.up(n));
    relay.say(holder, NodeMessage::Reserve(Reserve {}));
    let offers = |messages: &[NodeMessage]| -> Vec<(bool, bool)> {
        let hellos = messages.iter().filter_map(|message| match message {
            NodeMessage::Hello(hello) => Some((hello.relays, hello.indexes)),
            _ => None,
        });
        hellos.collect()
    };
    let told = sent(&relay.input(Input::Serve(false)));
    assert_eq!(offers(&told), [(false, false); 2]);
    assert!(told.contains(&refused(None, RefusalReason::Off)), "{told:?}");
    assert_eq!(relay.node.reservations().count(), 0);
    let again = sent(&relay.say(other, NodeMessage::Reserve(Reserve {})));
    assert_eq!(again, [refused(None, RefusalReason::Off)]);
    assert_eq!(offers(&sent(&relay.input(Input::Serve(false)))), [], "nothing has changed");
    assert_eq!(offers(&sent(&relay.input(Input::Serve(true)))), [(true, true); 2]);
    assert!(matches!(
        sent(&relay.say(other, NodeMessage::Reserve(Reserve {})))[..],
        [NodeMessage::Reserved(_), ..]
    ));
}

#[test]
fn the_owners_limits_hold() {
    let mut relay =
        Bare::new(NodeConfig { reservations_max: 2, channels_per_peer_max: 2, ..config() });
    let links = [1, 2, 3].map(|n| relay.up(n));
    let full = |request| [refused(request, RefusalReason::Full)];
    let reserve = || NodeMessage::Reserve(Reserve {});
    let granted = Reserved { ttl_s: 14_400, rate_bytes_per_s: config().relay_rate_bytes_per_s };
    for link in [links[0], links[1], links[0]] {
        assert_eq!(sent(&relay.say(link, reserve())), [NodeMessage::Reserved(granted.clone())]);
    }
    assert_eq!(sent(&relay.say(links[2], reserve())), full(None));

    let answer = |n: u32| {
        [
            incoming_at(2 * n + 1, 3, addr(3)),
            NodeMessage::RelayOpened(RelayOpened {
                request: 7,
                channel: Channel(2 * n),
                target_addr: addr(1),
                ttl_s: 120,
            }),
        ]
    };
    assert_eq!(relay.open(links[2], 1, Err(OpenError::Full)), full(Some(7)));
    assert_eq!(relay.open(links[2], 1, pair(0)), answer(0));
    // One that the forwarder has not answered yet counts too.
    assert_eq!(relay.say(links[2], relay_open(1)).len(), 1);
    assert_eq!(relay.open(links[2], 1, pair(2)), full(Some(7)));

    let mut off = Bare::new(NodeConfig { relays: false, ..config() });
    let link = off.up(1);
    assert_eq!(sent(&off.say(link, reserve())), [refused(None, RefusalReason::Off)]);
}

fn incoming_at(channel: u32, peer: usize, peer_addr: SocketAddr) -> NodeMessage {
    let (channel, peer) = (Channel(channel), id(peer));
    NodeMessage::RelayIncoming(RelayIncoming { channel, peer, peer_addr })
}

#[test]
fn a_channel_that_expires_or_whose_peer_goes_is_forgotten_and_who_renews_it_is_told() {
    let mut relay = Bare::new(config());
    let [a, b] = [1, 2].map(|n| relay.up(n));
    relay.say(b, NodeMessage::Reserve(Reserve {}));
    let renew = |channel| NodeMessage::RelayRenew(RelayRenew { channel: Channel(channel) });
    let closed = |link, channel| Output::Send {
        link,
        message: NodeMessage::RelayClosed(RelayClosed { channel: Channel(channel) }),
    };
    relay.open(a, 2, pair(1));
    let expired = vec![Channel(2), Channel(3), Channel(77)];
    assert_eq!(relay.input(Input::ChannelsExpired(expired)), []);
    assert_eq!(relay.say(a, renew(2)), [closed(a, 2)]);
    relay.open(a, 2, pair(2));
    let outputs = relay.input(Input::LinkDown(b));
    assert!(outputs.contains(&Output::Forward(ForwardAction::ClosePeer(id(2)))));
    assert_eq!(relay.node.channels().count(), 0);
    assert_eq!(relay.say(a, renew(4)), [closed(a, 4)]);
}

#[test]
fn what_nobody_asked_for_has_no_effect() {
    let mut node = Bare::new(config());
    let link = node.up(1);
    node.want(5, false);
    let unasked = [
        relay_opened(0, 1, 60),
        relay_opened(u32::MAX, 1, 0),
        incoming(1, 2),
        reserved(60),
        refused(None, RefusalReason::Full),
        refused(Some(0), RefusalReason::Full),
        NodeMessage::RelayClosed(RelayClosed { channel: Channel(1) }),
    ];
    for message in unasked {
        assert_eq!(node.say(link, message.clone()), [], "{message:?}");
        assert_eq!(node.say(LinkId(77), message.clone()), [], "{message:?}");
    }
    for message in [hello(), relay_open(1), NodeMessage::Reserve(Reserve {})] {
        assert_eq!(node.say(LinkId(77), message), []);
    }
    let (path, remote) = (PathId(3), RemoteAddr::Direct(addr(9)));
    for input in [
        Input::DialFailed(DialId(77)),
        Input::LinkDown(LinkId(77)),
        Input::PathClosed { link: LinkId(77), path },
        Input::PathClosed { link, path },
        Input::Samples { link: LinkId(77), samples: Vec::new() },
        Input::Observed { link: LinkId(77), addr: addr(9) },
        Input::PeerCandidates(LinkId(77)),
        Input::ChannelOpened { token: 77, result: pair(1) },
        Input::ChannelsExpired(vec![Channel(77)]),
        Input::RelayPathFailed(LinkId(77)),
        Input::Unwant(id(9)),
        Input::Forget(id(9)),
    ] {
        assert_eq!(node.input(input.clone()), [], "{input:?}");
    }
    // Trust is given only to what stands.
    assert_eq!(node.input(Input::PathOpened { link: LinkId(77), path, remote }), []);
}

#[test]
fn whatever_life_a_relay_claims_renewal_is_neither_rushed_nor_forgotten() {
    for (ttl_s, at_ms) in [(0, 500), (1, 500), (10, 5_000), (u32::MAX, 7_200_000)] {
        let mut node = Bare::new(config());
        let link = node.up_home(1, ttl_s);
        node.run(Duration::from_millis(at_ms - 1));
        let renewal = [NodeMessage::Reserve(Reserve {})];
        let reserves =
            |outputs: &[Output]| sent(outputs).into_iter().filter(|m| renewal.contains(m)).count();
        assert_eq!(reserves(&node.run(Duration::from_millis(1))), 1, "{ttl_s}");

        // The same for a channel, and less often once it is known to be of use.
        assert_eq!(sent(&node.want(5, false)).len(), 1);
        node.say(link, relay_opened(0, 42, ttl_s));
        for pause_ms in [at_ms, 30 * at_ms, 30 * at_ms].map(|ms| ms.min(7_200_000)) {
            let renew = NodeMessage::RelayRenew(RelayRenew { channel: Channel(42) });
            let early = node.run(Duration::from_millis(pause_ms - 1));
            assert!(!sent(&early).contains(&renew), "{ttl_s}");
            assert!(sent(&node.run(Duration::from_millis(1))).contains(&renew), "{ttl_s}");
        }
    }
}

#[test]
fn tables_are_bounded() {
    let mut node = Bare::new(NodeConfig { peers_max: 3, channels_per_peer_max: 2, ..config() });
    for n in 1..4 {
        node.want(n, true);
    }
    assert_eq!(node.want(9, true), [Output::Event(Event::Unreachable(id(9)))]);
    let mut known: PeerAddr = id(2).into();
    known.addrs = (0..20).map(addr).collect();
    let outputs = node.input(Input::Want { peer: known, keep: true });
    assert_eq!(dialled(&outputs), crate::invite::ADDRS_MAX, "one that is known may be sought");

    let home = node.up_home(3, 60);
    for channel in 0..9 {
        node.say(home, incoming(channel, 7));
    }
    assert_eq!(node.node.held.len(), 2);
    node.say(home, NodeMessage::RelayClosed(RelayClosed { channel: Channel(0) }));
    node.say(home, incoming(10, 7));
    assert!(!node.node.held.contains_key(&(home, Channel(10))), "we asked for none of them");
    node.run(secs(121));
    node.say(home, incoming(11, 7));
    assert!(node.node.held.contains_key(&(home, Channel(11))), "there is room again");
    node.input(Input::LinkDown(home));
    assert_eq!(node.node.held.len(), 0);
}

#[test]
fn a_peer_that_names_ever_new_homes_makes_us_dial_few() {
    let mut node = Bare::new(config());
    let relay = node.up(1);
    node.say(relay, hello());
    node.want(5, true);
    let remote = RemoteAddr::Relayed { relay: addr(1), channel: Channel(42) };
    let link = node.up_with(5, Side::Client, remote);
    let (mut dials, mut sent_homes) = (0, 0);
    for n in 10..210 {
        let home = |n| Home { id: id(n), addrs: (0..4).map(|m| addr(m + n % 50)).collect() };
        let homes = vec![home(n), home((n + 1) % 250), home((n + 2) % 250)];
        sent_homes += homes.len();
        dials += dialled(&node.say(link, NodeMessage::Homes(told(homes))));
        dials += dialled(&node.run(Duration::from_millis(10)));
        assert!(node.node.peers.len() <= 1 + 3);
        assert!(node.node.dials.len() <= 3 * 4);
    }
    // Two seconds: at most one home for each quarter, and its four addresses.
    assert!((1..=9 * 4).contains(&dials), "{dials} of {sent_homes}");
}

#[test]
fn a_relay_that_is_silent_or_refuses_does_not_keep_others_from_being_homes() {
    let mut node = Bare::new(NodeConfig { homes: 1, ..config() });
    let [silent, full, good] = [1, 2, 3].map(|n| {
        node.want(n, true);
        node.up(n)
    });
    let reserve = |link| Output::Send { link, message: NodeMessage::Reserve(Reserve {}) };
    assert_eq!(node.say(silent, hello()), [reserve(silent)]);
    assert_eq!(node.say(full, hello()), [], "one is enough");
    assert_eq!(node.say(good, hello()), []);
    let outputs = node.run(secs(40));
    assert!(outputs.contains(&reserve(full)));
    let outputs = node.say(full, refused(None, RefusalReason::Full));
    assert_eq!(outputs, [reserve(good)]);
    node.say(good, reserved(60));
    assert_eq!(node.node.our_homes().len(), 1);
}

#[test]
fn a_home_that_is_not_reached_directly_is_none_until_it_is() {
    let mut node = Bare::new(config());
    let home = node.up_home(1, 3600);
    let event = |held| Output::Event(Event::Home { peer: id(1), held });
    let remote = RemoteAddr::Relayed { relay: addr(9), channel: Channel(1) };
    node.input(Input::PathOpened { link: home, path: PathId(1), remote });
    let outputs = node.input(Input::PathClosed { link: home, path: PathId(0) });
    assert!(outputs.contains(&event(false)));
    assert!(outputs.contains(&Output::InboundRelay(addr(1), false)));
    let remote = RemoteAddr::Direct(addr(2));
    let outputs = node.input(Input::PathOpened { link: home, path: PathId(2), remote });
    assert!(sent(&outputs).contains(&NodeMessage::Reserve(Reserve {})));
    let outputs = node.say(home, reserved(60));
    assert!(outputs.contains(&event(true)));
    assert!(outputs.contains(&Output::InboundRelay(addr(2), true)));
}

#[test]
fn a_channel_for_a_peer_that_is_unwanted_meanwhile_is_left_to_expire() {
    let mut node = Bare::new(config());
    let relay = node.up_home(1, 3600);
    node.want(5, false);
    node.input(Input::Unwant(id(5)));
    assert_eq!(dialled(&node.say(relay, relay_opened(0, 42, 60))), 0);
    assert_eq!(sent(&node.run(secs(100))), []);
    assert_eq!(node.node.held.len(), 0);
}

#[test]
fn a_relay_whose_path_died_may_be_asked_again() {
    let mut node = Bare::new(config());
    let relay = node.up_home(1, 3600);
    node.want(5, true);
    let outputs = node.say(relay, relay_opened(0, 42, 3600));
    let [Output::Dial { to: RemoteAddr::Direct(_), .. }, Output::Dial { dial, peer, to: remote }] =
        outputs[..]
    else {
        panic!("{outputs:?}")
    };
    let link = LinkId(50);
    let (side, path) = (Side::Client, PathId(0));
    node.input(Input::LinkUp { link, peer, side, path, remote, dial: Some(dial) });
    let homes = vec![Home { id: id(1), addrs: vec![addr(1)] }];
    node.say(link, NodeMessage::Homes(told(homes)));
    let (path, remote) = (PathId(1), RemoteAddr::Direct(addr(5)));
    node.input(Input::PathOpened { link, path, remote });
    node.run(secs(1));
    node.input(Input::PathClosed { link, path: PathId(0) });
    let asked = sent(&node.run(secs(30)));
    let asks = |message: &&NodeMessage| matches!(message, NodeMessage::RelayOpen(_));
    assert!(asked.iter().any(|message| asks(&message)), "{asked:?}");
}

/// A node that reached peer 5 through a relay and was told these homes of it.
fn with_homes(homes: &[usize]) -> Bare {
    let mut node = Bare::new(config());
    node.up(1);
    node.want(5, true);
    let remote = RemoteAddr::Relayed { relay: addr(1), channel: Channel(42) };
    let link = node.up_with(5, Side::Client, remote);
    let homes = homes.iter().map(|n| Home { id: id(*n), addrs: vec![addr(*n)] }).collect();
    node.say(link, NodeMessage::Homes(told(homes)));
    node
}

pub(super) fn dials_to(outputs: &[Output], n: usize) -> usize {
    let to = |output: &&Output| matches!(output, Output::Dial { peer, .. } if *peer == id(n));
    outputs.iter().filter(to).count()
}

#[test]
fn a_home_that_does_not_answer_does_not_hide_the_next() {
    let mut node = with_homes(&[10, 11]);
    let outputs = node.run(secs(1));
    assert_eq!((dials_to(&outputs, 10), dials_to(&outputs, 11)), (1, 0));
    assert_eq!(dials_to(&node.run(secs(60)), 11), 1);
}

#[test]
fn a_home_that_is_lost_is_dialled_again_while_it_is_of_use() {
    let mut node = with_homes(&[10]);
    assert_eq!(dials_to(&node.run(secs(1)), 10), 1);
    let home = node.up_with(10, Side::Client, RemoteAddr::Direct(addr(10)));
    node.run(secs(100));
    node.input(Input::LinkDown(home));
    assert_eq!(dials_to(&node.run(secs(2)), 10), 1);
    node.input(Input::LinkDown(LinkId(1)));
    node.input(Input::Forget(id(5)));
    assert_eq!(node.node.peers.len(), 0, "nobody is sought any more");
}

#[test]
fn of_two_links_of_one_client_that_counts_which_the_client_prefers() {
    let retired = |outputs: &[Output]| {
        let said = NodeMessage::Retired(Retired {});
        let mut said = outputs.iter().filter(|output| match output {
            Output::Send { message, .. } => *message == said,
            _ => false,
        });
        said.next().is_some()
    };
    // The server counts the other one as the newest, until the client says.
    let mut node = Bare::new(NodeConfig::default());
    let (first, second) = (node.up(1), node.up(1));
    assert_eq!(node.node.link_to(id(1)), Some(second));
    assert!(
        !retired(&node.say(first, NodeMessage::Hello(Hello::default()))),
        "that is the client's to say"
    );
    node.say(second, NodeMessage::Retired(Retired {}));
    assert_eq!(node.node.link_to(id(1)), Some(first));
    // A client prefers its newest, says so once, and is not told otherwise.
    let mut node = Bare::new(NodeConfig::default());
    let first = node.up_with(1, Side::Client, RemoteAddr::Direct(addr(1)));
    let second = node.up_with(1, Side::Client, RemoteAddr::Direct(addr(1)));
    assert_eq!(node.node.link_to(id(1)), Some(second));
    node.say(second, NodeMessage::Retired(Retired {}));
    assert_eq!(node.node.link_to(id(1)), Some(second), "only {first:?} is retired");
}
