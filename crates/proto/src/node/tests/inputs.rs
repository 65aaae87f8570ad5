//! Arbitrary inputs, possible and impossible ones, never make a node panic or spin.

use proptest::prelude::*;

use super::world::{config, id, secret};
use super::*;
use crate::forward::{ChannelPair, OpenError};
use crate::index::{self, IndexConfig};
use crate::machine::check_deadline;
use crate::role::RoleConfig;
use crate::time::UnixTime;
use crate::wire::node::{
    Hello, Homes, RefusalReason, Refused, RelayClosed, RelayIncoming, RelayOpen, RelayOpened,
    RelayRenew, Release, Reserve, Reserved, Retired,
};
use crate::wire::{LENGTH_LEN, Message};

fn peer() -> impl Strategy<Value = NodeId> {
    (0usize..5).prop_map(id)
}

fn link() -> impl Strategy<Value = LinkId> {
    (0u64..5).prop_map(LinkId)
}

fn path_id() -> impl Strategy<Value = PathId> {
    (0u32..4).prop_map(PathId)
}

fn channel() -> impl Strategy<Value = Channel> {
    (0u32..5).prop_map(Channel)
}

fn addr() -> impl Strategy<Value = SocketAddr> {
    prop_oneof![
        (0u8..5).prop_map(|n| SocketAddr::from(([5, 0, 0, n], 4000))),
        (0u8..5).prop_map(|n| SocketAddr::from(([192, 168, 1, n], 4000))),
        Just("[2600::1]:4000".parse().unwrap()),
    ]
}

fn remote() -> impl Strategy<Value = RemoteAddr> {
    prop_oneof![
        addr().prop_map(RemoteAddr::Direct),
        (addr(), channel()).prop_map(|(relay, channel)| RemoteAddr::Relayed { relay, channel }),
    ]
}

fn home() -> impl Strategy<Value = Home> {
    let addrs = prop::collection::vec(addr(), 0..=4);
    (peer(), addrs).prop_map(|(id, addrs)| Home { id, addrs })
}

fn ttl_s() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0), Just(1), Just(120), Just(u32::MAX)]
}

fn reason() -> impl Strategy<Value = RefusalReason> {
    prop_oneof![
        Just(RefusalReason::Off),
        Just(RefusalReason::Full),
        Just(RefusalReason::NoReservation),
    ]
}

fn message() -> impl Strategy<Value = NodeMessage> {
    let request = || 0u32..4;
    prop_oneof![
        any::<bool>().prop_map(|relays| NodeMessage::Hello(Hello {
            relays,
            indexes: relays,
            nodes: if relays { u32::MAX } else { 1 },
            ..Hello::default()
        })),
        Just(NodeMessage::Reserve(Reserve {})),
        Just(NodeMessage::Release(Release {})),
        Just(NodeMessage::Retired(Retired {})),
        index::tests::inputs::message().prop_map(NodeMessage::Index),
        crate::wire::tests::role::role_message().prop_map(NodeMessage::Role),
        ttl_s().prop_map(|ttl_s| NodeMessage::Reserved(Reserved { ttl_s, rate_bytes_per_s: 0 })),
        (request(), peer())
            .prop_map(|(request, target)| NodeMessage::RelayOpen(RelayOpen { request, target })),
        (request(), channel(), addr(), ttl_s()).prop_map(
            |(request, channel, target_addr, ttl_s)| NodeMessage::RelayOpened(RelayOpened {
                request,
                channel,
                target_addr,
                ttl_s
            })
        ),
        (prop::option::of(request()), reason())
            .prop_map(|(request, reason)| NodeMessage::Refused(Refused { request, reason })),
        (channel(), peer(), addr()).prop_map(|(channel, peer, peer_addr)| {
            NodeMessage::RelayIncoming(RelayIncoming { channel, peer, peer_addr })
        }),
        channel().prop_map(|channel| NodeMessage::RelayRenew(RelayRenew { channel })),
        channel().prop_map(|channel| NodeMessage::RelayClosed(RelayClosed { channel })),
        prop::collection::vec(home(), 0..=3).prop_map(|homes| NodeMessage::Homes(Homes {
            homes,
            addrs: Vec::new(),
            is_open: false
        })),
    ]
}

fn links() -> impl Strategy<Value = Input> {
    let side = prop_oneof![Just(Side::Client), Just(Side::Server)];
    let dial = prop::option::of((0u64..6).prop_map(DialId));
    let sample = (path_id(), 0u64..4, 0u64..4, 0u64..300).prop_map(|(path, tx, rx, ms)| Sample {
        path,
        tx,
        rx,
        rtt: Duration::from_millis(ms),
    });
    prop_oneof![
        3 => (link(), peer(), side, path_id(), remote(), dial).prop_map(
            |(link, peer, side, path, remote, dial)| Input::LinkUp {
                link,
                peer,
                side,
                path,
                remote,
                dial
            }
        ),
        1 => link().prop_map(Input::LinkDown),
        3 => (link(), path_id(), remote())
            .prop_map(|(link, path, remote)| Input::PathOpened { link, path, remote }),
        2 => (link(), path_id()).prop_map(|(link, path)| Input::PathClosed { link, path }),
        2 => (link(), prop::collection::vec(sample, 0..4))
            .prop_map(|(link, samples)| Input::Samples { link, samples }),
        1 => (link(), addr()).prop_map(|(link, addr)| Input::Observed { link, addr }),
        1 => link().prop_map(Input::PeerCandidates),
        1 => link().prop_map(Input::RelayPathFailed),
    ]
}

/// What index and bootstrap are told.
fn parts() -> impl Strategy<Value = Input> {
    let known =
        || (peer(), addr()).prop_map(|(id, addr)| PeerAddr { addrs: vec![addr], ..id.into() });
    prop_oneof![
        2 => index::tests::inputs::command().prop_map(Input::Index),
        1 => any::<u32>().prop_map(|secs| Input::Clock(UnixTime::from_secs(secs.into()))),
        1 => prop::collection::vec(known(), 0..4).prop_map(Input::Boot),
        1 => known().prop_map(Input::Lan),
        1 => (0u64..6, any::<bool>())
            .prop_map(|(token, is_kept)| Input::DiskDone { token, is_kept }),
        1 => link().prop_map(Input::Active),
        1 => Just(Input::Restore(index::Restored::default())),
        1 => (0u64..2).prop_map(Input::Puzzle),
    ]
}

fn input() -> impl Strategy<Value = Input> {
    let addrs = || prop::collection::vec(addr(), 0..4);
    let homes = prop::collection::vec(home(), 0..3);
    let host = addr().prop_map(|addr| HostAddr { ip: addr.ip(), prefix: 24 });
    let opened = prop_oneof![
        (channel(), channel()).prop_map(|(a, b)| Ok(ChannelPair { a, b })),
        Just(Err(OpenError::Full)),
        Just(Err(OpenError::Unroutable)),
    ];
    prop_oneof![
        3 => (peer(), addrs(), homes, any::<bool>()).prop_map(|(id, addrs, homes, keep)| {
            Input::Want { peer: PeerAddr { id, addrs, homes }, keep }
        }),
        1 => any::<bool>().prop_map(Input::Serve),
        1 => any::<u8>().prop_map(Input::Load),
        1 => peer().prop_map(Input::Unwant),
        1 => peer().prop_map(Input::Forget),
        1 => prop::collection::vec(host, 0..3)
            .prop_map(|addrs| Input::HostAddrs {
                addrs,
                bound: vec![SocketAddr::from(([0; 16], 4000))],
            }),
        1 => (0u64..6).prop_map(|dial| Input::DialFailed(DialId(dial))),
        8 => links(),
        12 => (link(), message()).prop_map(|(link, message)| Input::Message { link, message }),
        2 => (0u64..4, opened)
            .prop_map(|(token, result)| Input::ChannelOpened { token, result }),
        1 => prop::collection::vec(channel(), 0..3).prop_map(Input::ChannelsExpired),
        6 => parts(),
    ]
}

/// Drains the node and checks what must hold for whatever it says.
fn drain(node: &mut Node) {
    while let Some(output) = node.poll_output() {
        match output {
            Output::Send { message, .. } => {
                let bytes = Message::Node(message).encode();
                assert!(Message::decode(&bytes[LENGTH_LEN..]).is_ok(), "others can read it");
            }
            Output::Path { action, .. } => assert!(!matches!(
                action,
                path::Output::Silent | path::Output::WantRelay { .. } | path::Output::Selected(_)
            )),
            _ => {}
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_inputs_never_panic_and_leave_no_deadline_behind(
        seed: [u8; 32],
        is_on: bool,
        steps in prop::collection::vec((0u64..4_000, input()), 1..80),
    ) {
        let index = IndexConfig { serves: is_on, jobs_max: 4, ..IndexConfig::default() };
        let role = RoleConfig { is_solved: |_, _, nonce| nonce == 1, ..RoleConfig::default() };
        let limits =
            NodeConfig { peers_max: 4, channels_per_peer_max: 2, index, role, ..config() };
        let mut node = Node::new(secret(0), limits, seed);
        let mut now = Instant::from_micros(1);
        for (pause_ms, input) in steps {
            node.handle_input(now, input);
            drain(&mut node);
            let end = now + Duration::from_millis(pause_ms);
            while let Some(at) = node.poll_timeout().filter(|at| *at <= end) {
                now = at.max(now);
                node.handle_timeout(now);
                drain(&mut node);
                check_deadline(&node, now);
            }
            now = end;
            prop_assert!(node.peers.len() <= 4);
            prop_assert!(node.our_homes().len() <= 3);
            prop_assert!(node.held.len() <= 5 * 5 && node.requests.len() <= 5 * 5);
        }
    }
}
