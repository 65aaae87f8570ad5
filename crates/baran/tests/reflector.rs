//! What must not leave a node: answers larger than their question, probes to addresses that a
//! stranger names, frames that nobody may send on.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall stop")]

mod support;

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use baran::Node;
use baran_proto::frame::{Channel, HEADER_LEN, STUN_COOKIE, write_header};
use baran_proto::id::NodeId;
use baran_proto::wire::node::{RefusalReason, RelayClosed, RelayOpen, RelayRenew, Reserve};
use baran_proto::wire::{Message, NodeMessage};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use support::{
    QUIET, RawLink, assert_serves, builder, raw_endpoint, raw_endpoint_on, secret, serve_echo, shy,
    until, within,
};

async fn node() -> Node {
    let node = builder().spawn().await.unwrap();
    serve_echo(&node);
    node
}

fn plain() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

/// The lengths of all that arrives until it is quiet.
async fn lengths(socket: &UdpSocket) -> Vec<usize> {
    let (mut lengths, mut buf) = (Vec::new(), vec![0; 65_536]);
    let mut last = Instant::now();
    while last.elapsed() < QUIET {
        match socket.recv(&mut buf) {
            Ok(len) => {
                lengths.push(len);
                last = Instant::now();
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
    lengths
}

/// The first datagram of a handshake with whoever listens at a port of loopback.
async fn initial() -> Vec<u8> {
    let (sink, key) = (plain(), secret(1));
    let to = baran::PeerAddr {
        id: secret(2).id(),
        addrs: vec![sink.local_addr().unwrap()],
        homes: Vec::new(),
    };
    let endpoint = raw_endpoint(&key);
    let dial = tokio::spawn(async move {
        drop(support::raw_dial(&endpoint, &key, &to, "main", support::WIDE).await);
    });
    let mut buf = vec![0; 2048];
    until(async || sink.peek(&mut buf).is_ok()).await;
    let len = sink.recv(&mut buf).unwrap();
    dial.abort();
    buf.truncate(len);
    buf
}

fn frame(channel: Channel, inner: &[u8]) -> Vec<u8> {
    let mut header = [0; HEADER_LEN];
    write_header(&mut header, channel);
    [&header[..], inner].concat()
}

fn stun_request(len: usize) -> Vec<u8> {
    let mut request = vec![0; len.max(20)];
    request[1] = 1;
    let attributes = u16::try_from(request.len() - 20).unwrap();
    request[2..4].copy_from_slice(&attributes.to_be_bytes());
    request[4..8].copy_from_slice(&STUN_COOKIE);
    request
}

/// Random datagrams, and real ones with a few bits turned, of every length from the empty one up:
/// a socket of its own for each length, so that each answer is known to have a question as long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_to_garbage_is_larger_than_the_garbage() {
    let node = node().await;
    let to = node.addresses()[0];
    let initial = initial().await;
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let lengths_tried = [0, 1, 8, 21, 22, 41, 43, 50, 100, 400, 1199, 1200, 1205, 1280, 1472];
    for len in lengths_tried {
        let source = plain();
        for round in 0..120 {
            let mut datagram = match round % 4 {
                0 => {
                    let mut random = vec![0; len];
                    rng.fill_bytes(&mut random);
                    random
                }
                1 => frame(Channel(rng.next_u32()), &initial),
                2 => stun_request(len),
                _ => initial.clone(),
            };
            datagram.resize(len, 0);
            for _ in 0..=rng.next_u32() % 4 {
                if let Some(at) = (rng.next_u32() as usize).checked_rem(len) {
                    datagram[at] ^= 1 << (rng.next_u32() % 8);
                }
            }
            source.send_to(&datagram, to).unwrap();
            tokio::time::sleep(Duration::from_micros(50)).await;
        }
        let answers = lengths(&source).await;
        // A binding request that still is one has its answer, 24 bytes longer at the most.
        assert!(answers.iter().all(|n| *n <= len || *n <= 44), "{len}: {answers:?}");
    }
    assert_serves(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stun_answers_are_longer_by_24_bytes_at_most_and_limited_in_rate() {
    let node = node().await;
    let asker = plain();
    let start = Instant::now();
    for _ in 0..1_000 {
        asker.send_to(&stun_request(20), node.addresses()[0]).unwrap();
        tokio::time::sleep(Duration::from_micros(50)).await;
    }
    let answers = lengths(&asker).await;
    let allowed = 200 + 100 * (start.elapsed().as_secs() + 1);
    assert!(!answers.is_empty() && answers.iter().all(|len| *len == 32), "{answers:?}");
    assert!(answers.len() as u64 <= allowed, "{} answers", answers.len());
    assert!(node.socket_stats().stun_limited > 0);
}

/// Names `addrs` to a node as the peer's own, as often as it may, and lets it probe them.
async fn name(node: &Node, n: u32, addrs: &[SocketAddr]) -> RawLink {
    let link = RawLink::new(node, &secret(n)).await;
    for addr in addrs {
        link.conn.add_nat_traversal_address(*addr).unwrap();
    }
    for _ in 0..3 {
        link.conn.initiate_nat_traversal_round().unwrap();
        tokio::time::sleep(QUIET).await;
    }
    link
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_that_a_peer_names_are_not_probed() {
    let victims = ["127.0.0.1:0", "127.0.0.2:0", "127.8.9.10:0", "[::1]:0"].map(|addr| {
        let socket = UdpSocket::bind(addr).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    });
    let mut named: Vec<_> = victims.iter().map(|victim| victim.local_addr().unwrap()).collect();
    let port = named[1].port();
    let others = [
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "224.0.0.251",
        "239.255.255.250",
        "255.255.255.255",
        "0.0.0.0",
        "192.0.2.1",
        "198.18.0.1",
        "240.0.0.1",
        "192.88.99.1",
        "::",
        "fe80::1",
        "fc00::1",
        "ff02::1",
        "::ffff:127.0.0.2",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:2",
        "2002:7f00:2::1",
        "2001:0:7f00:2::1",
        "::127.0.0.2",
        "2001:db8::1",
    ];
    named.extend(others.map(|ip| SocketAddr::new(ip.parse().unwrap(), port)));
    let low = ["8.8.8.8:53", "8.8.8.8:1023", "[2620:fe::fe]:53"];
    named.extend(low.map(|addr| addr.parse::<SocketAddr>().unwrap()));

    let node = shy().bind("[::1]:0".parse().unwrap()).spawn().await.unwrap();
    serve_echo(&node);
    for (n, addrs) in (1..).zip(named.chunks(8)) {
        let before = node.socket_stats();
        let link = name(&node, n, addrs).await;
        let after = node.socket_stats();
        let denied = after.send_denied - before.send_denied;
        assert!(denied > 0, "{addrs:?} were not even tried");
        assert_eq!(after.send_errors, before.send_errors, "the gate, not the system, said no");
        assert!(link.conn.close_reason().is_none());
    }
    for victim in &victims {
        assert_eq!(lengths(victim).await, [0; 0], "at {:?}", victim.local_addr());
    }
    assert_serves(&node).await;

    // The same with a node whose owner allows loopback: probes come, and no more than nine.
    let open = builder().spawn().await.unwrap();
    let link = name(&open, 99, &[victims[1].local_addr().unwrap()]).await;
    let probes = lengths(&victims[1]).await;
    assert!((1..=9).contains(&probes.len()), "{probes:?}");
    drop(link);
}

/// The same of a node that dialled: what the other end adds is not probed either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_that_a_dialled_peer_adds_are_not_probed() {
    let victim = plain();
    let (node, key) = (shy().spawn().await.unwrap(), secret(1));
    let endpoint = raw_endpoint(&key);
    let to = baran::PeerAddr {
        id: key.id(),
        addrs: vec![endpoint.local_addr().unwrap()],
        homes: Vec::new(),
    };
    let accept = async { endpoint.accept().await.unwrap().await.unwrap() };
    let dial = node.connect(to, support::PROTOCOL);
    let (conn, connection) = within(async { tokio::join!(accept, dial) }).await;
    let _connection = connection.unwrap();
    conn.add_nat_traversal_address(victim.local_addr().unwrap()).unwrap();
    conn.add_nat_traversal_address("224.0.0.251:5353".parse().unwrap()).unwrap();
    assert_eq!(lengths(&victim).await, [0; 0]);
    assert!(conn.close_reason().is_none());
}

/// A raw peer, and a second hold on the very socket that its connection uses.
async fn on_own_socket(node: &Node, n: u32) -> (RawLink, UdpSocket) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let endpoint = raw_endpoint_on(&secret(n), socket.try_clone().unwrap());
    let link = RawLink::on(&endpoint, &node.invite(), &secret(n), support::WIDE).await;
    (link, socket)
}

async fn ask(link: &mut RawLink, request: u32, target: NodeId) -> Result<Channel, RefusalReason> {
    link.say(Message::Node(NodeMessage::RelayOpen(RelayOpen { request, target }))).await;
    link.hear(|message| match message {
        Message::Node(NodeMessage::RelayOpened(opened)) => Some(Ok(opened.channel)),
        Message::Node(NodeMessage::Refused(refused)) if refused.request == Some(request) => {
            Some(Err(refused.reason))
        }
        _ => None,
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_forwards_for_the_two_ends_of_a_channel_and_nobody_else() {
    let relay = node().await;
    let to = relay.addresses()[0];
    let (mut a, at_a) = on_own_socket(&relay, 1).await;
    let (mut b, at_b) = on_own_socket(&relay, 2).await;
    let (mut third, at_third) = on_own_socket(&relay, 3).await;
    let (a_id, b_id) = (secret(1).id(), secret(2).id());

    assert_eq!(ask(&mut a, 1, relay.id()).await, Err(RefusalReason::Pointless));
    assert_eq!(ask(&mut a, 2, a_id).await, Err(RefusalReason::Pointless));
    assert_eq!(ask(&mut a, 3, b_id).await, Err(RefusalReason::NoReservation));
    assert_eq!(ask(&mut a, 4, secret(77).id()).await, Err(RefusalReason::NoReservation));

    b.say(Message::Node(NodeMessage::Reserve(Reserve {}))).await;
    b.hear(|m| matches!(m, Message::Node(NodeMessage::Reserved(_))).then_some(())).await;
    let channel_a = ask(&mut a, 5, b_id).await.unwrap();
    let channel_b = b
        .hear(|message| match message {
            Message::Node(NodeMessage::RelayIncoming(incoming)) => Some(incoming),
            _ => None,
        })
        .await;
    assert_eq!(channel_b.peer, a_id);
    let channel_b = channel_b.channel;

    let counts = || {
        let stats = relay.socket_stats();
        (stats.frames_forwarded, stats.frames_refused)
    };
    let stranger = plain();
    let inner = [0x40; 100];
    let foreign = [
        (&at_third, channel_a),
        (&at_third, channel_b),
        (&stranger, channel_a),
        (&at_a, channel_b),
        (&at_b, channel_a),
        (&at_a, Channel(channel_a.0 ^ 1)),
        (&at_a, Channel(channel_a.0 ^ 0x1_0000)),
        (&at_a, Channel(0xffff_ffff)),
    ];
    for (socket, channel) in foreign {
        socket.send_to(&frame(channel, &inner), to).unwrap();
    }
    until(async || counts().1 >= foreign.len() as u64).await;
    assert_eq!(counts(), (0, foreign.len() as u64));
    // Others neither keep the channel nor end it.
    third.say(Message::Node(NodeMessage::RelayRenew(RelayRenew { channel: channel_a }))).await;
    third.say(Message::Node(NodeMessage::RelayClosed(RelayClosed { channel: channel_a }))).await;
    assert_eq!(ask(&mut third, 1, relay.id()).await, Err(RefusalReason::Pointless));

    at_a.send_to(&frame(channel_a, &inner), to).unwrap();
    at_b.send_to(&frame(channel_b, &inner), to).unwrap();
    until(async || counts().0 == 2).await;

    // With an end gone the channel is gone.
    b.conn.close(0_u32.into(), b"");
    until(async || {
        at_a.send_to(&frame(channel_a, &inner), to).unwrap();
        counts().1 > foreign.len() as u64
    })
    .await;
    let forwarded = counts().0;
    at_a.send_to(&frame(channel_a, &inner), to).unwrap();
    until(async || counts().1 > foreign.len() as u64 + 1).await;
    assert_eq!(counts().0, forwarded);
    assert_eq!(ask(&mut a, 6, b_id).await, Err(RefusalReason::NoReservation));
    assert_serves(&relay).await;
}
