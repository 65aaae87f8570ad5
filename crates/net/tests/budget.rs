//! The memory that connections share: taken for what is in use, given back in the end.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall stop")]

mod common;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use baran_net::endpoint::{Endpoint, EndpointConfig, EndpointEvent};
use baran_net::link::{Link, LinkEvent};
use baran_net::socket::SocketConfig;
use baran_proto::credit;
use baran_proto::egress::{Gate, GateConfig};
use baran_proto::forward::{ForwardConfig, Forwarder};
use baran_proto::id::{NodeId, SecretKey};
use baran_proto::node::{DialId, LinkId, RemoteAddr};
use baran_proto::wire::alpn;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;
use tokio::sync::mpsc;

const BUDGET: u64 = 8 << 20;

/// An endpoint without a node above it.
struct Host {
    id: NodeId,
    endpoint: Endpoint,
    events: mpsc::Receiver<EndpointEvent>,
    _link_events: mpsc::Receiver<(LinkId, LinkEvent)>,
}

impl Host {
    fn new(n: u8) -> Self {
        let secret = SecretKey::from_bytes([n; 32]);
        let id = secret.id();
        let binds = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
        let socket = SocketConfig { binds, seed: n.into(), ..SocketConfig::default() };
        let alpn = alpn("test").unwrap();
        let config = EndpointConfig { secret, alpn, socket, budget: BUDGET };
        let forwarder = Forwarder::new(&ForwardConfig::default(), ChaCha8Rng::seed_from_u64(1));
        let allow_nets = vec!["127.0.0.0/8".parse().unwrap()];
        let gate =
            Gate::new(GateConfig { allow_nets, probes_per_dest: 1000, ..GateConfig::default() });
        let (events_in, events) = mpsc::channel(16);
        let (link_events_in, link_events) = mpsc::channel(1024);
        let endpoint =
            Endpoint::bind(&config, forwarder, gate, Instant::now(), events_in, link_events_in)
                .unwrap();
        Self { id, endpoint, events, _link_events: link_events }
    }

    fn addr(&self) -> SocketAddr {
        self.endpoint.control().local_addrs()[0]
    }

    async fn link(&mut self) -> Link {
        match self.events.recv().await {
            Some(EndpointEvent::Up(new)) => {
                new.taken.send(()).unwrap();
                new.link
            }
            other => panic!("{other:?}"),
        }
    }

    async fn has(&self, bytes: u64) {
        while self.endpoint.budget().left() != bytes {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_transfer_takes_of_the_budget_is_given_back() {
    let (mut a, mut b) = (Host::new(1), Host::new(2));
    assert!(a.endpoint.control().trust(b.addr()) && b.endpoint.control().trust(a.addr()));
    let mut sessions = b.endpoint.acceptors().accept("test/1", 4).unwrap();
    a.endpoint.dial(DialId(1), b.id, RemoteAddr::Direct(b.addr()));
    let soon = Duration::from_secs(30);
    let work = async {
        let link_a = a.link().await;
        let at_a = link_a.open("test/1").unwrap();
        // A client's connection is a link once it speaks.
        let link_b = b.link().await;
        let at_b = sessions.recv().await.unwrap();
        for _ in 0..3 {
            let (mut send, recv_a) = at_a.open_bi().await.unwrap();
            let writer = tokio::spawn(async move {
                for _ in 0..200 {
                    send.write_all(&[7; 50_000]).await.unwrap();
                }
                drop(recv_a);
                send
            });
            let (send_b, mut recv) = at_b.accept_bi().await.unwrap();
            let (mut read, mut least) = (0, BUDGET);
            while read < 10_000_000 {
                read += recv.read_chunk(usize::MAX).await.unwrap().unwrap().len();
                least = least.min(b.endpoint.budget().left());
            }
            assert!(least <= BUDGET - (credit::OPEN - credit::INITIAL), "{least} left at least");
            drop((recv, send_b, writer.await.unwrap()));
            a.has(BUDGET).await;
            b.has(BUDGET).await;
        }
        // A connection that breaks in the midst of it all.
        let (mut send, _recv_a) = at_a.open_bi().await.unwrap();
        send.write_all(&[7; 4000]).await.unwrap();
        for n in 0..500_u16 {
            at_a.send_datagram(&n.to_be_bytes()).unwrap();
            tokio::task::yield_now().await;
        }
        let unread = at_b.accept_bi().await.unwrap();
        link_b.close(3, "enough");
        at_a.closed().await;
        at_b.closed().await;
        drop((unread, send, _recv_a, at_a, at_b, link_a, link_b));
        a.has(BUDGET).await;
        b.has(BUDGET).await;
    };
    tokio::time::timeout(soon, work).await.expect("in time");
}
