//! The socket below QUIC, over loopback: what goes up, what goes on, and what must not go out.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall stop")]

mod common;

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use baran_net::socket::SocketConfig;
use baran_proto::frame::{Channel, HEADER_LEN, STUN_COOKIE, write_header};
use common::Peer;
use noq::Connection;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

/// Longer than anything here takes.
const SOON: Duration = Duration::from_secs(30);

/// How long to wait for what must not come.
const QUIET: Duration = Duration::from_millis(150);

fn plain() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(QUIET)).unwrap();
    socket
}

/// The next datagram, or `None` after a quiet while. Lets the endpoints work meanwhile.
async fn receive(socket: &UdpSocket) -> Option<Vec<u8>> {
    let socket = socket.try_clone().unwrap();
    tokio::task::spawn_blocking(move || {
        let mut buf = vec![0; 65_536];
        socket.recv(&mut buf).ok().map(|n| buf[..n].to_vec())
    })
    .await
    .unwrap()
}

async fn connect(from: &Peer, to: &Peer, addr: SocketAddr) -> (Connection, Connection) {
    let dial = async { from.endpoint.connect(addr, "peer").unwrap().await.unwrap() };
    let answer = async {
        // What garbage opened fails to authenticate.
        loop {
            if let Ok(connection) = to.endpoint.accept().await.unwrap().await {
                return connection;
            }
        }
    };
    tokio::time::timeout(SOON, async { tokio::join!(dial, answer) }).await.unwrap()
}

/// Moves `total` pseudo-random bytes from `a` to `b` and compares every one.
async fn transfer(a: &Connection, b: &Connection, total: usize) {
    let send = async {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut stream = a.open_uni().await.unwrap();
        let mut chunk = vec![0; 64 << 10];
        let mut left = total;
        while left > 0 {
            let n = left.min(chunk.len());
            rng.fill_bytes(&mut chunk);
            stream.write_all(&chunk[..n]).await.unwrap();
            left -= n;
        }
        stream.finish().unwrap();
        stream.stopped().await.unwrap();
    };
    let receive = async {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut stream = b.accept_uni().await.unwrap();
        let (mut chunk, mut expect) = (vec![0; 64 << 10], vec![0; 64 << 10]);
        let mut left = total;
        while left > 0 {
            let n = left.min(chunk.len());
            rng.fill_bytes(&mut expect);
            stream.read_exact(&mut chunk[..n]).await.unwrap();
            assert!(chunk[..n] == expect[..n], "bytes differ, {left} from the end");
            left -= n;
        }
        assert!(stream.read_chunk(1).await.unwrap().is_none());
    };
    tokio::time::timeout(SOON, async { tokio::join!(send, receive) }).await.unwrap();
}

fn frame(channel: Channel, inner: &[u8]) -> Vec<u8> {
    let mut header = [0; HEADER_LEN];
    write_header(&mut header, channel);
    [&header[..], inner].concat()
}

#[tokio::test]
async fn quic_passes_between_trusting_peers() {
    let (a, b) = (Peer::new(), Peer::new());
    a.trusts(&b);
    b.trusts(&a);
    let (client, server) = connect(&a, &b, b.addr()).await;
    transfer(&client, &server, 3_000_000).await;
    transfer(&server, &client, 1_000_000).await;
    let stats = a.control.stats();
    assert_eq!((stats.send_denied, stats.send_errors, stats.unknown_dropped), (0, 0, 0));
}

#[tokio::test]
async fn an_answer_needs_no_trust_within_three_times_the_question() {
    let (a, b) = (Peer::new(), Peer::new());
    a.trusts(&b);
    let (client, server) = connect(&a, &b, b.addr()).await;
    b.trusts(&a);
    transfer(&server, &client, 100_000).await;
}

#[tokio::test]
async fn one_node_serves_both_families_on_two_sockets() {
    let binds = vec!["127.0.0.1:0".parse().unwrap(), "[::1]:0".parse().unwrap()];
    let b = Peer::with_config(&SocketConfig { binds, ..SocketConfig::default() });
    let a = Peer::with_config(&SocketConfig::default());
    let port = a.addr().port();
    for (local, to) in ["127.0.0.1", "::1"].into_iter().zip(b.control.local_addrs()) {
        assert!(a.control.trust(to));
        assert!(b.control.trust(SocketAddr::new(local.parse().unwrap(), port)));
        let (client, server) = connect(&a, &b, to).await;
        transfer(&server, &client, 300_000).await;
    }
    assert_eq!(b.control.stats().send_unroutable, 0);
}

#[tokio::test]
async fn a_relay_carries_fifty_megabytes_unchanged() {
    let (a, b, relay) = (Peer::new(), Peer::new(), Peer::new());
    let (at_a, at_b) = relay.open(a.addr(), b.addr(), 60_000);
    let to_b = a.control.add_relayed(relay.addr(), at_a);
    let to_a = b.control.add_relayed(relay.addr(), at_b);
    assert!(a.control.is_mapped(to_b) && b.control.is_mapped(to_a));
    let (client, server) = connect(&a, &b, to_b).await;
    assert_eq!(server.path(noq::PathId::ZERO).unwrap().remote_address().unwrap(), to_a);
    transfer(&client, &server, 50_000_000).await;

    let relayed = relay.control.stats();
    assert!(relayed.bytes_forwarded > 50_000_000);
    assert_eq!((relayed.frames_refused, relayed.unknown_dropped), (0, 0));
    let received = b.control.stats();
    assert_eq!((received.overflow_dropped, received.frames_refused), (0, 0));

    a.control.remove_relayed(to_b);
    client.close(0_u32.into(), b"");
    tokio::time::sleep(QUIET).await;
    assert!(a.control.stats().send_unmapped > 0);
}

#[tokio::test]
async fn a_registered_relay_brings_unannounced_peers() {
    let (a, b, relay) = (Peer::new(), Peer::new(), Peer::new());
    let (at_a, at_b) = relay.open(a.addr(), b.addr(), 60_000);
    let to_b = a.control.add_relayed(relay.addr(), at_a);
    b.control.set_inbound_relay(relay.addr(), true);
    let (client, server) = connect(&a, &b, to_b).await;
    transfer(&server, &client, 1_000_000).await;
    let mapped = server.path(noq::PathId::ZERO).unwrap().remote_address().unwrap();
    assert_eq!(b.control.lookup_relayed(mapped), Some((relay.addr(), at_b)));
}

#[tokio::test]
async fn frames_go_on_only_from_the_bound_source_and_in_time() {
    let relay = Peer::new();
    let (a, b, stranger) = (plain(), plain(), plain());
    let (at_a, at_b) = relay.open(a.local_addr().unwrap(), b.local_addr().unwrap(), 60_000);
    let inner = [0x40; 100];

    a.send_to(&frame(at_a, &inner), relay.addr()).unwrap();
    assert_eq!(receive(&b).await, Some(frame(at_b, &inner)));
    b.send_to(&frame(at_b, &inner), relay.addr()).unwrap();
    assert_eq!(receive(&a).await, Some(frame(at_a, &inner)));

    stranger.send_to(&frame(at_a, &inner), relay.addr()).unwrap();
    a.send_to(&frame(at_b, &inner), relay.addr()).unwrap();
    a.send_to(&frame(Channel(at_a.0 ^ 1), &inner), relay.addr()).unwrap();
    a.send_to(&frame(at_a, &[0x40; 20]), relay.addr()).unwrap();
    assert_eq!(
        (receive(&b).await, receive(&a).await, receive(&stranger).await),
        (None, None, None)
    );
    assert_eq!(relay.control.stats().frames_refused, 3);

    let (c, d) = (plain(), plain());
    let (at_c, _) = relay.open(c.local_addr().unwrap(), d.local_addr().unwrap(), 1);
    tokio::time::sleep(Duration::from_millis(5)).await;
    c.send_to(&frame(at_c, &inner), relay.addr()).unwrap();
    assert_eq!(receive(&d).await, None);
    assert_eq!(relay.control.with_forwarder(|f| f.stats()).expired, 1);
    assert_eq!(relay.control.stats().frames_forwarded, 2);
}

#[tokio::test]
async fn nothing_leaves_for_a_denied_destination() {
    let (a, victim) = (Peer::new(), plain());
    let to = victim.local_addr().unwrap();
    let dial = a.endpoint.connect(to, "peer").unwrap();
    assert_eq!(receive(&victim).await, None);
    assert!(a.control.stats().send_denied > 0);
    drop(dial);

    assert!(a.control.trust(to));
    let _dial = a.endpoint.connect(to, "peer").unwrap();
    assert!(receive(&victim).await.is_some_and(|initial| initial.len() >= 1200));

    a.control.untrust(to);
    while receive(&victim).await.is_some() {}
    let _dial = a.endpoint.connect(to, "peer").unwrap();
    assert_eq!(receive(&victim).await, None);
}

#[tokio::test]
async fn stun_is_answered_up_to_its_rate() {
    let binds = vec!["127.0.0.1:0".parse().unwrap()];
    let config = SocketConfig { binds, stun_answers_per_s: 1, ..SocketConfig::default() };
    let (node, asker) = (Peer::with_config(&config), plain());
    let SocketAddr::V4(own) = asker.local_addr().unwrap() else { panic!("bound to IPv4") };
    let mut request = [0; 20];
    request[1] = 1;
    request[4..8].copy_from_slice(&STUN_COOKIE);
    request[8..].fill(7);
    for _ in 0..2 {
        asker.send_to(&request, node.addr()).unwrap();
        let reply = receive(&asker).await.unwrap();
        assert_eq!((&reply[..2], &reply[8..20]), (&[1, 1][..], &request[8..]));
        // RFC 8489 §14.2: port and address, each exclusive-or the cookie.
        let port = u16::from_be_bytes([reply[26] ^ 0x21, reply[27] ^ 0x12]);
        let ip: Vec<u8> = reply[28..32].iter().zip(STUN_COOKIE).map(|(a, b)| a ^ b).collect();
        assert_eq!((port, &ip[..]), (own.port(), &own.ip().octets()[..]));
    }
    asker.send_to(&request, node.addr()).unwrap();
    assert_eq!(receive(&asker).await, None);
    let stats = node.control.stats();
    assert_eq!((stats.stun_answered, stats.stun_limited), (2, 1));
}

/// Random datagrams and mutations of valid ones: no panic, and no answer larger than its question
/// (STUN excepted, which is at most 44 bytes).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_is_survived_and_not_amplified() {
    let (node, source, sink) = (Peer::new(), plain(), plain());
    source.set_nonblocking(true).unwrap();
    let (at_source, _) =
        node.open(source.local_addr().unwrap(), sink.local_addr().unwrap(), 60_000);
    node.control.set_inbound_relay(source.local_addr().unwrap(), true);

    let dialler = Peer::new();
    dialler.control.trust(sink.local_addr().unwrap());
    let _dial = dialler.endpoint.connect(sink.local_addr().unwrap(), "peer").unwrap();
    let initial = receive(&sink).await.unwrap();
    let mut stun = vec![0; 28];
    stun[1] = 1;
    stun[4..8].copy_from_slice(&STUN_COOKIE);
    let seeds = [initial.clone(), frame(at_source, &initial), frame(Channel(5), &initial), stun];

    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let mut reply = [0; 65_536];
    for round in 0..1_500 {
        let mut datagram = seeds[rng.next_u32() as usize % seeds.len()].clone();
        if round % 3 == 0 {
            datagram.resize(rng.next_u32() as usize % 1_500, 0);
            rng.fill_bytes(&mut datagram);
        } else {
            // Past the first bytes, so that most stay what they are; a valid Initial may be
            // answered three times over (RFC 9000 §8.1), a changed one not at all.
            for _ in 0..=rng.next_u32() % 4 {
                let at = rng.next_u32() as usize % datagram.len();
                datagram[at] ^= 1 << (rng.next_u32() % 8);
            }
            datagram.truncate(datagram.len() - rng.next_u32() as usize % 2);
        }
        source.send_to(&datagram, node.addr()).unwrap();
        tokio::time::sleep(Duration::from_micros(300)).await;
        while let Ok(n) = source.recv(&mut reply) {
            let is_stun = reply[4..8] == STUN_COOKIE && n <= 44;
            assert!(is_stun || n <= datagram.len(), "{n} bytes for {}", datagram.len());
        }
    }
    let stats = node.control.stats();
    assert!(stats.unknown_dropped > 0 && stats.stun_ignored > 0, "{stats:?}");
    assert!(stats.frames_received > 0 && stats.mappings <= 64, "{stats:?}");

    // It still works.
    let a = Peer::new();
    a.trusts(&node);
    node.trusts(&a);
    let (client, server) = connect(&a, &node, node.addr()).await;
    transfer(&client, &server, 100_000).await;
}
