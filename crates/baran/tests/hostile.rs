//! Peers that hold a valid key and break every rule above it: the link may go, the node does not.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall stop")]

mod support;

use baran::{Connection, Node, PeerAddr, SessionError};
use baran_proto::credit;
use baran_proto::wire::mux::{Credit, SessionOpen};
use baran_proto::wire::{Message, MuxMessage};
use bytes::Bytes;
use support::{
    PROTOCOL, QUIET, RawLink, WIDE, assert_serves, builder, noise, raw_dial, raw_endpoint, secret,
    serve_echo, until, within,
};

/// A node that echoes.
async fn node() -> Node {
    let node = builder().spawn().await.unwrap();
    serve_echo(&node);
    node
}

/// A link with session 0 open.
async fn link(node: &Node, n: u32) -> RawLink {
    let mut link = RawLink::new(node, &secret(n)).await;
    link.open_session(0).await;
    link.assert_echo(0).await;
    link
}

/// A message of the control stream with this body, in its length.
fn framed(body: &[u8]) -> Vec<u8> {
    [&u16::try_from(body.len()).unwrap().to_be_bytes()[..], body].concat()
}

fn session_open(session: u32) -> Vec<u8> {
    let open = SessionOpen { session, protocol: PROTOCOL.into() };
    Message::Mux(MuxMessage::SessionOpen(open)).encode()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn violations_on_the_control_stream_end_the_link_alone() {
    let node = node().await;
    let bystander = link(&node, 0).await;
    let violations = [
        ("too long", vec![0xff; 3000]),
        ("not CBOR", framed(&[0xff, 0x00, 0x13])),
        ("empty", framed(&[])),
        ("no body", framed(&[0x82, 0x18, 0x40])),
        ("a known type with a wrong body", framed(&[0x82, 0x00, 0x61, 0x41])),
        ("bytes after the message", framed(&[0x82, 0x00, 0xa1, 0x00, 0xf5, 0x00])),
        ("a list that claims four thousand million items", framed(&[0x9a, 0xff, 0xff, 0xff, 0xff])),
        ("a number of the node's parity", session_open(1)),
        ("a session opened twice", session_open(0)),
        ("a protocol without a name", {
            let open = SessionOpen { session: 2, protocol: String::new() };
            Message::Mux(MuxMessage::SessionOpen(open)).encode()
        }),
    ];
    for (n, (what, bytes)) in (1..).zip(violations) {
        let mut link = link(&node, n).await;
        link.say.write_all(&bytes).await.unwrap();
        let end = within(link.conn.closed()).await;
        assert!(matches!(end, noq::ConnectionError::ApplicationClosed(_)), "{what}: {end}");
        bystander.assert_echo(0).await;
    }
    assert_serves(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_stream_that_ends_ends_the_link_alone() {
    let node = node().await;
    let mut finished = link(&node, 1).await;
    finished.say.finish().unwrap();
    within(finished.conn.closed()).await;
    let mut reset = link(&node, 2).await;
    reset.say.reset(9_u32.into()).unwrap();
    within(reset.conn.closed()).await;
    let mut stopped = link(&node, 3).await;
    stopped.hear.stop(9_u32.into()).unwrap();
    // Something that must be answered.
    let open = SessionOpen { session: 2, protocol: "nobody/1".into() };
    stopped.say(Message::Mux(MuxMessage::SessionOpen(open))).await;
    within(stopped.conn.closed()).await;
    let endpoint = raw_endpoint(&secret(4));
    let never = raw_dial(&endpoint, &secret(4), &node.invite(), "main", WIDE).await.unwrap();
    assert_serves(&node).await;
    within(never.closed()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_newer_version_might_say_is_skipped() {
    let node = node().await;
    let mut link = link(&node, 1).await;
    for number in [50, 100] {
        link.say.write_all(&framed(&[0x82, 0x18, number, 0xa0])).await.unwrap();
        link.say.write_all(&framed(&[0x82, 0x18, number, 0x83, 1, 2, 3])).await.unwrap();
    }
    link.say.write_all(&framed(&[0x82, 0x18, 0xff, 0x61, 0x41])).await.unwrap();
    link.open_session(2).await;
    link.assert_echo(2).await;
    link.assert_echo(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_and_datagrams_of_no_session_harm_nothing() {
    let node = node().await;
    let mut link = link(&node, 1).await;
    // Of the node's own numbering, and of one that is over: refused.
    let (send, mut recv) = link.open_stream(7).await;
    assert!(within(recv.read_to_end(1)).await.is_err());
    within(send.stopped()).await.unwrap();
    // Heads cut short, too large, or none at all.
    for head in [&[][..], &[0xc0], &[0x40], &[0xff; 8], &[0xc0, 0, 0, 1, 0, 0, 0, 0]] {
        let (mut send, mut recv) = link.conn.open_bi().await.unwrap();
        send.write_all(head).await.unwrap();
        send.finish().unwrap();
        drop(within(recv.read_to_end(1)).await);
    }
    for datagram in [&[][..], &[0xc0], &[0x40, 0x99, 1], &[7, 7], &[0xff; 600]] {
        link.conn.send_datagram(Bytes::copy_from_slice(datagram)).unwrap();
    }
    for stream in [0, 1, 2, 400, 401, u64::MAX] {
        let credit = Credit { stream, limit: u64::MAX };
        link.say(Message::Mux(MuxMessage::Credit(credit))).await;
    }
    for stream in 0..2_000 {
        let credit = Credit { stream: 1_000 + stream * 4, limit: stream };
        link.say(Message::Mux(MuxMessage::Credit(credit))).await;
    }
    // A stream that overtakes the opening of its session waits for it.
    let (mut early, mut answer) = link.open_stream(2).await;
    early.write_all(b"early").await.unwrap();
    early.finish().unwrap();
    tokio::time::sleep(QUIET).await;
    link.open_session(2).await;
    assert_eq!(within(answer.read_to_end(10)).await.unwrap(), b"early");
    link.assert_echo(0).await;
}

/// A peer that keeps writing beyond its credit loses the stream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credit_that_is_ignored_fails_the_stream_alone() {
    let node = builder().spawn().await.unwrap();
    let mut acceptor = node.accept(PROTOCOL).unwrap();
    let mut link = RawLink::new(&node, &secret(1)).await;
    link.open_session(0).await;
    let at_node = within(acceptor.next()).await.unwrap();
    let (mut send, _recv) = link.open_stream(0).await;
    let stalled = {
        send.write_all(b"x").await.unwrap();
        within(at_node.accept_bi()).await.unwrap()
    };
    let bytes = noise(4 * usize::try_from(credit::OPEN).unwrap());
    let stopped = within(async {
        loop {
            if let Err(error) = send.write_all(&bytes).await {
                return error;
            }
        }
    })
    .await;
    assert!(matches!(stopped, noq::WriteError::Stopped(_)), "{stopped}");
    let (_, mut recv) = stalled;
    let mut read = 0;
    let error = loop {
        match within(recv.read_chunk(usize::MAX)).await {
            Ok(chunk) => read += chunk.unwrap().len() as u64,
            Err(error) => break error,
        }
    };
    assert!(read <= credit::OPEN && matches!(error, SessionError::Lost(_)), "{read}: {error}");
    // The link stands.
    let (mut send, _recv) = link.open_stream(0).await;
    send.write_all(b"hello").await.unwrap();
    send.finish().unwrap();
    let (_send, mut recv) = within(at_node.accept_bi()).await.unwrap();
    assert_eq!(within(recv.read_to_end(10)).await.unwrap(), b"hello");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_sessions_are_refused_one_by_one() {
    let node = node().await;
    // Nobody takes these, so more than a queue of them is too many.
    let _acceptor = node.accept("idle/1").unwrap();
    let mut link = link(&node, 1).await;
    for n in 1..=3_000 {
        let open = SessionOpen { session: 2 * n, protocol: "idle/1".into() };
        link.say(Message::Mux(MuxMessage::SessionOpen(open))).await;
    }
    let mut refused = 0;
    let is_close = |message| matches!(message, Message::Mux(MuxMessage::SessionClose(_)));
    while refused < 2_900 {
        link.hear(|message| is_close(message).then_some(())).await;
        refused += 1;
    }
    link.assert_echo(0).await;
    // A peer that does not even listen to the refusals.
    let mut deaf = RawLink::on(&raw_endpoint(&secret(2)), &node.invite(), &secret(2), 2_000).await;
    let talk = async {
        for n in 0..20_000 {
            let open = SessionOpen { session: 2 * n, protocol: "nobody/1".into() };
            let message = Message::Mux(MuxMessage::SessionOpen(open)).encode();
            if deaf.say.write_all(&message).await.is_err() {
                return;
            }
        }
    };
    within(talk).await;
    let end = within(deaf.conn.closed()).await.to_string();
    assert!(end.contains("does not read"), "it costs memory, so it is let go: {end}");
    link.assert_echo(0).await;
    assert_serves(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_other_than_the_dialled_one_is_refused() {
    let (node, other) = (node().await, builder().spawn().await.unwrap());
    let wrong = PeerAddr { id: secret(9).id(), ..node.invite() };
    let refused = raw_dial(&raw_endpoint(&secret(1)), &secret(1), &wrong, "main", WIDE).await;
    assert!(matches!(refused, Err(noq::ConnectionError::TransportError(_))), "{refused:?}");
    let dial = tokio::time::timeout(5 * QUIET, other.connect(wrong, PROTOCOL));
    assert!(dial.await.is_err(), "no link to an impostor");
    assert!(within(other.status()).await.unwrap().peers.is_empty());
    assert_serves(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn different_networks_never_connect() {
    let node = node().await;
    for network in ["other", "mai", "main2"] {
        let refused =
            raw_dial(&raw_endpoint(&secret(1)), &secret(1), &node.invite(), network, WIDE).await;
        let error = refused.unwrap_err().to_string();
        assert!(error.contains("application protocol") || error.contains("120"), "{error}");
    }
    let other = builder().network("other").peer(node.invite()).spawn().await.unwrap();
    let dial = tokio::time::timeout(5 * QUIET, other.connect(node.invite(), PROTOCOL));
    assert!(dial.await.is_err());
    for node in [&node, &other] {
        assert!(within(node.status()).await.unwrap().peers.is_empty());
    }
}

/// What a session's application does is its own business: a peer that closes, or a session that
/// is over on one side, leaves no stream behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_of_a_session_that_is_over_are_refused_and_free_their_place() {
    let node = builder().spawn().await.unwrap();
    let mut acceptor = node.accept(PROTOCOL).unwrap();
    let mut link = RawLink::new(&node, &secret(1)).await;
    link.open_session(0).await;
    let over: Connection = within(acceptor.next()).await.unwrap();
    over.close(1, "").await;
    // More than may be open at a time.
    for _ in 0..40 {
        let (_send, mut recv) = within(link.open_stream(0)).await;
        assert!(within(recv.read_to_end(1)).await.is_err());
    }
    link.open_session(2).await;
    let _open = within(acceptor.next()).await.unwrap();
    until(async || node.status().await.unwrap().peers[0].sessions == 1).await;
}
