//! One measurement of each kind, on endpoints of its own.

use std::sync::Arc;
use std::time::Instant;

use crate::bare::{self, Bare};
use crate::host::{Host, Outcome, process_cpu_ns};
use crate::nodes::{self, Pair};

/// Written at a time.
const CHUNK_BYTES: usize = 64 << 10;

/// What is echoed.
const PING: &[u8] = b"ping";

/// Echoes before those that are counted.
const ECHOES_WARM_UP: usize = 50;

/// What carries the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `noq` alone.
    Bare,
    /// Two nodes.
    Direct,
    /// Two nodes and a third between them.
    Relayed,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Bare, Self::Direct, Self::Relayed];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Direct => "direct",
            Self::Relayed => "relayed",
        }
    }
}

/// Three threads, one for each role. A measurement without a relay leaves one idle.
struct Hosts {
    client: Host,
    server: Host,
    relay: Host,
}

impl Hosts {
    fn start() -> Outcome<Self> {
        Ok(Self { client: Host::start()?, server: Host::start()?, relay: Host::start()? })
    }

    fn pair(&self, kind: Kind) -> Outcome<Pair> {
        if kind == Kind::Direct {
            Pair::direct(&self.client, &self.server)
        } else {
            Pair::relayed(&self.client, &self.server, &self.relay)
        }
    }

    fn cpu_ns(&self) -> Outcome<[f64; 4]> {
        let (client, server) = (self.client.cpu_ns()?, self.server.cpu_ns()?);
        Ok([process_cpu_ns(), client, server, self.relay.cpu_ns()?])
    }
}

/// One stream from end to end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Transfer {
    pub(crate) seconds: f64,
    /// Processor time in nanoseconds per byte: of the process, the sender, the receiver, the relay.
    pub(crate) cpu_ns_per_byte: [f64; 4],
}

impl Transfer {
    pub(crate) fn measure(kind: Kind, bytes: usize) -> Outcome<Self> {
        let hosts = Hosts::start()?;
        if kind == Kind::Bare {
            let client = Bare::start(&hosts.client, 1)?;
            let server = Bare::start(&hosts.server, 2)?;
            let (id, addr) = (server.id, server.addr()?);
            let accepted = hosts.server.begin(async move { server.accept().await });
            let connection = hosts.client.run(async move { client.connect(id, addr).await })?;
            let accepted = accepted.wait()?;
            let receive = async move {
                let (_, stream) = accepted.accept_bi().await?;
                bare::receive(stream).await
            };
            let send = async move {
                let (stream, _) = connection.open_bi().await?;
                bare::send(stream, &[7; CHUNK_BYTES], bytes).await
            };
            Self::time(&hosts, bytes, send, receive)
        } else {
            let Pair { dialler, listener, mut acceptor, to, kind, _relay } = hosts.pair(kind)?;
            let node = dialler.clone();
            let connect = async move { nodes::connect(&node, to, kind).await };
            let connection = hosts.client.run(connect)?;
            let receive = async move {
                let accepted = acceptor.next().await.ok_or("the node is closed")?;
                let (_, stream) = accepted.accept_bi().await?;
                nodes::receive(stream).await
            };
            let send = async move {
                let (stream, _) = connection.open_bi().await?;
                nodes::send(stream, &[7; CHUNK_BYTES], bytes).await
            };
            let this = Self::time(&hosts, bytes, send, receive);
            drop((dialler, listener));
            this
        }
    }

    fn time(
        hosts: &Hosts,
        bytes: usize,
        send: impl Future<Output = Outcome<()>> + Send + 'static,
        receive: impl Future<Output = Outcome<usize>> + Send + 'static,
    ) -> Outcome<Self> {
        let (start, before) = (Instant::now(), hosts.cpu_ns()?);
        let received = hosts.server.begin(receive);
        let sent = hosts.client.begin(send);
        let received = received.wait()?;
        let seconds = start.elapsed().as_secs_f64();
        sent.wait()?;
        let after = hosts.cpu_ns()?;
        if received != bytes {
            return Err(format!("{received} bytes of {bytes} came").into());
        }
        let cpu_ns_per_byte = std::array::from_fn(|i| (after[i] - before[i]) / bytes as f64);
        Ok(Self { seconds, cpu_ns_per_byte })
    }
}

/// The way to a peer that was never met, then small messages there and back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Contact {
    /// From the wish to the connection.
    pub(crate) connect_s: f64,
    /// From the wish to the first byte that came back.
    pub(crate) first_byte_s: f64,
    /// Median of a stream opened, written, echoed and read to its end.
    pub(crate) echo_s: f64,
}

impl Contact {
    pub(crate) fn measure(kind: Kind, echoes: usize) -> Outcome<Self> {
        let hosts = Hosts::start()?;
        if kind == Kind::Bare {
            let client = Bare::start(&hosts.client, 1)?;
            let server = Bare::start(&hosts.server, 2)?;
            let (id, addr) = (server.id, server.addr()?);
            let served =
                hosts.server.begin(async move { bare::serve_echo(server.accept().await?).await });
            let contact = hosts.client.run(async move {
                let start = Instant::now();
                let connection = client.connect(id, addr).await?;
                let connect_s = start.elapsed().as_secs_f64();
                Self::time(start, connect_s, echoes, || bare::echo(connection.clone(), PING)).await
            });
            served.wait()?;
            contact
        } else {
            let Pair { dialler, listener, mut acceptor, to, kind, _relay } = hosts.pair(kind)?;
            let served = hosts.server.begin(async move {
                nodes::serve_echo(acceptor.next().await.ok_or("the node is closed")?).await
            });
            let contact = hosts.client.run(async move {
                let start = Instant::now();
                let connection = Arc::new(nodes::connect(&dialler, to, kind).await?);
                let connect_s = start.elapsed().as_secs_f64();
                let echo = || nodes::echo(Arc::clone(&connection), PING);
                Self::time(start, connect_s, echoes, echo).await
            });
            served.wait()?;
            drop(listener);
            contact
        }
    }

    async fn time<F: Future<Output = Outcome<()>>>(
        start: Instant,
        connect_s: f64,
        echoes: usize,
        echo: impl Fn() -> F,
    ) -> Outcome<Self> {
        echo().await?;
        let first_byte_s = start.elapsed().as_secs_f64();
        for _ in 0..ECHOES_WARM_UP {
            echo().await?;
        }
        let mut times = Vec::with_capacity(echoes);
        for _ in 0..echoes {
            let start = Instant::now();
            echo().await?;
            times.push(start.elapsed().as_secs_f64());
        }
        Ok(Self { connect_s, first_byte_s, echo_s: crate::rounds::median(times) })
    }
}
