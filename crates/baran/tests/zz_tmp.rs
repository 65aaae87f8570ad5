//! Ends: what was acknowledged is not lost, whoever waits is told, two links become one.

mod support;

use baran::SessionError;
use support::{PROTOCOL, builder, noise, pair, within};

/// Both dial at once: two links for a moment. Conversations on either work, go on when one of the
/// links goes, and later ones find the peer at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_that_connect_to_each_other_at_once_both_succeed() {
    for _ in 0..5 {
        let (a, b) = (builder().spawn().await.unwrap(), builder().spawn().await.unwrap());
        let (mut accept_a, mut accept_b) =
            (a.accept(PROTOCOL).unwrap(), b.accept(PROTOCOL).unwrap());
        let d = std::sync::Mutex::new([0;4]);
        let both = async {
            tokio::join!(
                async { let r = a.connect(b.invite(), PROTOCOL).await; d.lock().unwrap()[0]=1; r},
                async { let r = b.connect(a.invite(), PROTOCOL).await; d.lock().unwrap()[1]=1; r},
                async { let r = accept_a.next().await; d.lock().unwrap()[2]=1; r},
                async { let r = accept_b.next().await; d.lock().unwrap()[3]=1; r},
            )
        };
        let r = tokio::time::timeout(std::time::Duration::from_secs(5), both).await;
        if r.is_err() {
            eprintln!("STUCK connects a b accepts a b {:?}", d.lock().unwrap());
            eprintln!("a<b {}", a.id() < b.id());
            for n in [&a,&b] { eprintln!("{:?} {:#?}", n.id(), n.status().await.unwrap().peers); eprintln!("{:?}", n.socket_stats()); }
            panic!();
        }
        let (from_a, from_b, at_a, at_b) = r.unwrap();
        let ends = [(from_a.unwrap(), at_b.unwrap()), (from_b.unwrap(), at_a.unwrap())];
        for round in 0..3 {
            for (from, at) in &ends {
                let (mut send, _recv) = within(from.open_bi()).await.unwrap();
                within(send.write_all(&noise(10_000))).await.unwrap();
                send.finish().unwrap();
                let (_send, mut recv) = within(at.accept_bi()).await.unwrap();
                assert!(within(recv.read_to_end(usize::MAX)).await.unwrap() == noise(10_000));
            }
            let later = within(a.connect(b.id(), PROTOCOL)).await.unwrap();
            within(later.close(round, "")).await;
            drop(within(accept_b.next()).await.unwrap());
        }
        for node in [&a, &b] {
            assert_eq!(within(node.status()).await.unwrap().peers.len(), 1);
        }
    }
}
