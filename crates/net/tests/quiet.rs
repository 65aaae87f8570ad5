//! A link that is quiet: who writes on it, or what arrives, is reported once, and until then
//! nothing is.

use std::net::SocketAddr;
use std::time::Duration;

use baran_net::endpoint::{Endpoint, EndpointConfig, EndpointEvent, NewLink};
use baran_net::link::{Link, LinkEvent};
use baran_net::mux::Session;
use baran_net::socket::SocketConfig;
use baran_proto::egress::{Gate, GateConfig};
use baran_proto::forward::{ForwardConfig, Forwarder};
use baran_proto::id::SecretKey;
use baran_proto::node::{DialId, LinkId, RemoteAddr};
use baran_proto::path::PathId;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;
use tokio::sync::mpsc;

const PROTOCOL: &str = "test/1";

/// One end, and what its links report.
struct End {
    endpoint: Endpoint,
    ups: mpsc::Receiver<EndpointEvent>,
    events: mpsc::Receiver<(LinkId, LinkEvent)>,
}

impl End {
    fn new(secret: &SecretKey) -> Self {
        let config = EndpointConfig {
            secret: secret.clone(),
            alpn: b"test".to_vec(),
            socket: SocketConfig {
                binds: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
                ..SocketConfig::default()
            },
            budget: 1 << 20,
        };
        let forwarder = Forwarder::new(&ForwardConfig::default(), ChaCha8Rng::seed_from_u64(1));
        let gate = Gate::new(GateConfig::default());
        let (up, ups) = mpsc::channel(16);
        let (event, events) = mpsc::channel(16);
        let start = std::time::Instant::now();
        let endpoint = Endpoint::bind(&config, forwarder, gate, start, up, event)
            .expect("loopback can be bound");
        Self { endpoint, ups, events }
    }

    fn addr(&self) -> SocketAddr {
        self.endpoint.control().local_addrs()[0]
    }

    async fn link(&mut self) -> Link {
        match self.ups.recv().await.expect("the endpoint runs") {
            EndpointEvent::Up(NewLink { link, taken, .. }) => {
                taken.send(()).expect("the link waits");
                link
            }
            EndpointEvent::DialFailed(_, reason) => panic!("{reason}"),
        }
    }

    /// Waits until the link is quiet, as the path manager would after samples that found nothing.
    async fn be_quiet(&mut self, link: &Link) {
        loop {
            for _ in 0..3 {
                drop(link.sample(&[PathId(0)]));
            }
            link.be_quiet();
            // What was on its way may arrive yet.
            let wait = Duration::from_millis(300);
            match tokio::time::timeout(wait, self.active()).await {
                Ok(()) => {}
                Err(_) => return,
            }
        }
    }

    /// Waits for a report that the link is active.
    async fn active(&mut self) {
        while !matches!(self.events.recv().await.expect("the link runs").1, LinkEvent::Active) {}
    }

    /// How often the link was reported active, up to this moment.
    fn reports(&mut self) -> usize {
        let events = std::iter::from_fn(|| self.events.try_recv().ok());
        events.filter(|(_, event)| matches!(event, LinkEvent::Active)).count()
    }
}

async fn pair() -> (End, End, Link, Link) {
    let secrets = [1, 2].map(|n| SecretKey::from_bytes([n; 32]));
    let (mut a, mut b) = (End::new(&secrets[0]), End::new(&secrets[1]));
    assert!(a.endpoint.control().trust(b.addr()));
    assert!(b.endpoint.control().trust(a.addr()));
    drop(a.endpoint.dial(DialId(1), secrets[1].id(), RemoteAddr::Direct(b.addr())));
    let link_a = a.link().await;
    // The server hears of a control stream when something is said on it.
    let session = link_a.open("hello/1").expect("the link stands");
    let link_b = b.link().await;
    drop(session);
    (a, b, link_a, link_b)
}

async fn session(a: &Link, b: &End) -> (Session, Session) {
    let mut acceptor = b.endpoint.acceptors().accept(PROTOCOL, 4).expect("nobody else does");
    let ours = a.open(PROTOCOL).expect("the link stands");
    let theirs = acceptor.recv().await.expect("the session arrives");
    (ours, theirs)
}

#[tokio::test]
async fn what_is_written_and_what_arrives_is_reported_once() {
    let (mut a, mut b, link_a, link_b) = pair().await;
    let (ours, theirs) = session(&link_a, &b).await;
    let (mut send, _recv) = ours.open_bi().await.unwrap();
    send.write_all(b"x").await.unwrap();
    let (_, mut recv) = theirs.accept_bi().await.unwrap();
    recv.read_chunk(1).await.unwrap();

    a.be_quiet(&link_a).await;
    b.be_quiet(&link_b).await;
    send.write_all(b"y").await.unwrap();
    send.write_all(b"z").await.unwrap();
    a.active().await;
    b.active().await;

    a.be_quiet(&link_a).await;
    b.be_quiet(&link_b).await;
    theirs.send_datagram(b"datagram").unwrap();
    theirs.send_datagram(b"datagram").unwrap();
    b.active().await;
    a.active().await;
    ours.read_datagram().await.unwrap();
    ours.read_datagram().await.unwrap();
    assert_eq!((a.reports(), b.reports()), (0, 0), "once each");
}

#[tokio::test]
async fn a_keep_alive_is_no_report() {
    let (mut a, mut b, link_a, link_b) = pair().await;
    a.be_quiet(&link_a).await;
    b.be_quiet(&link_b).await;
    let received = |link: &Link| link.sample(&[PathId(0)])[0].rx;
    let before = received(&link_b);
    link_a.ping(PathId(0));
    while received(&link_b) == before {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!((a.reports(), b.reports()), (0, 0));
    drop((a, b));
}
