//! Nodes on loopback that pair, over links that stand already.

use std::time::Duration;

use baran_store::private::NotPrivate;

use super::*;
use crate::data::DataDir;
use crate::{Node, PeerAddr};

const LIMIT: Duration = Duration::from_secs(20);

async fn node(peers: &[&Node]) -> Node {
    let mut builder =
        Node::builder().bind(([127, 0, 0, 1], 0).into()).allow_net("127.0.0.0/8".parse().unwrap());
    for peer in peers {
        builder = builder.peer(peer.invite());
    }
    let node = builder.spawn().await.unwrap();
    let until = std::time::Instant::now() + LIMIT;
    while node.status().await.unwrap().peers.len() < peers.len() {
        assert!(std::time::Instant::now() < until, "no link");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    node
}

fn nothing(_: &PeerAddr) -> Result<(), DataError> {
    Ok(())
}

fn wrong(code: PairCode) -> PairCode {
    let text = code.to_string();
    let (rest, last) = text.rsplit_once('-').unwrap();
    let other = if last == "zoo" { "zone" } else { "zoo" };
    format!("{rest}-{other}").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_are_stored_and_the_code_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let open = |name: &str| PairedPeers::of(&DataDir::open(&dir.path().join(name)).unwrap());
    let (a_book, b_book) = (open("a"), open("b"));
    let a = node(&[]).await;
    let b = node(&[&a]).await;
    // Somebody who is linked and shows nothing is in the way of nobody.
    let _other = node(&[&a, &b]).await;
    let invitation = a.invite_by_words().await.unwrap();
    let code = invitation.code();
    assert!(matches!(a.invite_by_words().await, Err(PairError::Busy)));
    let store = move |peer: &PeerAddr| a_book.add(peer, "main").map(drop);
    let shown = tokio::spawn(invitation.paired(store));
    let found = b.join_by_words(&code, LIMIT, |peer| b_book.add(peer, "main")).await.unwrap();
    let pairing = shown.await.unwrap().unwrap();
    assert_eq!((found.id, pairing.peer.id), (a.id(), b.id()));
    assert!(pairing.is_confirmed);
    assert_eq!(found.addrs, a.invite().addrs);
    for (book, peer) in [("a", b.id()), ("b", a.id())] {
        let known = open(book).of_network("main").unwrap();
        assert_eq!(known.iter().map(|known| known.peer.id).collect::<Vec<_>>(), [peer]);
    }
    let again = b.join_by_words(&code, Duration::from_secs(1), nothing).await;
    assert!(matches!(again, Err(PairError::NotFound(_))), "{again:?}");
    // The node may show another one.
    drop(a.invite_by_words().await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_guess_ends_it_on_both_sides() {
    let a = node(&[]).await;
    let b = node(&[&a]).await;
    let invitation = a.invite_by_words().await.unwrap();
    let code = invitation.code();
    let shown = tokio::spawn(invitation.paired(nothing));
    let other: PairCode = if code.number() == 1_000 {
        "1001-zoo-zoo-zoo".parse().unwrap()
    } else {
        "1000-zoo-zoo-zoo".parse().unwrap()
    };
    // Another number is no guess.
    let result = b.join_by_words(&other, Duration::from_secs(1), nothing).await;
    assert!(matches!(result, Err(PairError::NotFound(_))), "{result:?}");
    let result = b.join_by_words(&wrong(code), LIMIT, nothing).await;
    assert!(matches!(result, Err(PairError::WrongWords)), "{result:?}");
    let result = shown.await.unwrap();
    assert!(matches!(result, Err(PairError::WrongGuess(peer)) if peer == b.id()), "{result:?}");
    let result = b.join_by_words(&code, Duration::from_secs(1), nothing).await;
    assert!(matches!(result, Err(PairError::NotFound(_))), "{result:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_and_silence_are_no_guesses() {
    let a = node(&[]).await;
    let (b, c) = (node(&[&a]).await, node(&[&a]).await);
    let invitation = a.invite_by_words().await.unwrap();
    let code = invitation.code();
    let shown = tokio::spawn(invitation.paired(nothing));
    let silent = c.connect(a.id(), baran_proto::pair::PROTOCOL).await.unwrap();
    let (_held, _open) = silent.open_bi().await.unwrap();
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 4_000], &[]] {
        let connection = c.connect(a.id(), baran_proto::pair::PROTOCOL).await.unwrap();
        let (mut send, mut recv) = connection.open_bi().await.unwrap();
        drop(send.write_all(garbage).await);
        drop(send.finish());
        let end = tokio::time::timeout(LIMIT, recv.read_to_end(100)).await;
        assert!(end.is_ok(), "the attempt goes on");
    }
    assert_eq!(b.join_by_words(&code, LIMIT, nothing).await.unwrap().id, a.id());
    assert_eq!(shown.await.unwrap().unwrap().peer.id, b.id());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cannot_store_is_not_paired() {
    fn full(_: &PeerAddr) -> Result<(), DataError> {
        Err(DataError::Unwritable("here".into()))
    }
    let a = node(&[]).await;
    let b = node(&[&a]).await;
    let invitation = a.invite_by_words().await.unwrap();
    let code = invitation.code();
    let shown = tokio::spawn(invitation.paired(full));
    let result = b.join_by_words(&code, Duration::from_secs(3), nothing).await;
    assert!(result.is_err(), "{result:?}");
    assert!(matches!(shown.await.unwrap(), Err(PairError::Store(_))));
    // The other side: the one who shows the code learns that it is not confirmed.
    let invitation = a.invite_by_words().await.unwrap();
    let code = invitation.code();
    let shown = tokio::spawn(invitation.paired(nothing));
    let result = b.join_by_words(&code, LIMIT, full).await;
    assert!(matches!(result, Err(PairError::Store(_))), "{result:?}");
    assert!(!shown.await.unwrap().unwrap().is_confirmed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alone_there_is_nobody_to_ask() {
    let a = node(&[]).await;
    let code: PairCode = "4711-maple-river-stone".parse().unwrap();
    let result = a.join_by_words(&code, Duration::from_secs(1), nothing).await;
    assert!(matches!(result, Err(PairError::NotJoined)), "{result:?}");
    let invitation = a.invite_by_words().await.unwrap();
    a.close().await;
    assert!(matches!(invitation.paired(nothing).await, Err(PairError::Closed)));
}

#[test]
fn the_book_holds_what_was_added_and_survives_a_person() {
    let dir = tempfile::tempdir().unwrap();
    let dir = DataDir::open(&dir.path().join("d")).unwrap();
    let book = PairedPeers::of(&dir);
    let peer = |byte| PeerAddr::from(NodeId::from_bytes([byte; 32]));
    let at = |byte| PeerAddr { addrs: vec![([192, 0, 2, byte], 1).into()], ..peer(1) };
    let ids = |network: &str| {
        let known = book.of_network(network).unwrap();
        known.into_iter().map(|known| known.peer).collect::<Vec<_>>()
    };
    assert_eq!(ids("main"), []);
    book.add(&at(1), "main").unwrap();
    book.add(&peer(2), "main").unwrap();
    book.add(&peer(2), "two words\nand lines").unwrap();
    book.add(&at(9), "main").unwrap();
    assert_eq!(ids("main"), [peer(2), at(9)]);
    assert_eq!(ids("two words\nand lines"), [peer(2)]);
    let path = dir.path().join("paired");
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().count(), 3);
    std::fs::write(&path, format!("# mine\n\n\u{0}\nx y z\n{text}a b c d\n")).unwrap();
    assert_eq!(ids("main"), [peer(2), at(9)]);
    for count in 0..253 {
        book.add(&peer(3), &format!("n{count}")).unwrap();
    }
    assert!(book.add(&peer(7), "main").unwrap_err().to_string().contains("remove the lines"));
    assert_eq!(ids("main"), [peer(2), at(9)]);
    // What is not the file is not read, what is too long neither.
    std::fs::write(&path, "x".repeat(600_000)).unwrap();
    assert!(book.of_network("main").is_err());
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
    assert!(matches!(book.of_network("main"), Err(DataError::NotPrivate(NotPrivate::Symlink(_)))));
}
