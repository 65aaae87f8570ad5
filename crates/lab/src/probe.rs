//! Plain UDP sockets inside a world: what its NATs do, seen without baran.
//!
//! The lab is only worth its verdicts if "symmetric" is symmetric. These probes
//! ask the questions of RFC 4787 (which outer endpoint does a destination see?
//! whose packets come in?) and punch the plain way of RFC 5128 §3.3: each side
//! sends to the endpoint that a third host saw, and answers where it hears from.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout};

use crate::world::Host;

/// Long enough for a packet through any world here, which adds no delay.
pub const QUIET: Duration = Duration::from_millis(150);

/// The question that a reflector answers with the sender's outer endpoint.
const WHO: &[u8] = b"who";
const KNOCK: &[u8] = b"knock";
const ANSWER: &[u8] = b"answer";

/// A UDP socket on a host.
#[derive(Debug)]
pub struct Probe {
    socket: UdpSocket,
}

impl Probe {
    /// Binds `port` on `host`.
    ///
    /// # Errors
    ///
    /// If the port is taken or the namespace is gone.
    pub async fn bind(host: &Host, port: u16) -> Result<Self> {
        Self::bind_at(host, SocketAddr::new(unspecified(host.address()), port)).await
    }

    /// Binds `local` on `host`; with an address, multicast leaves by its interface.
    ///
    /// # Errors
    ///
    /// As [`Probe::bind`].
    pub async fn bind_at(host: &Host, local: SocketAddr) -> Result<Self> {
        let bound = host.device().spawn(move |_| async move { UdpSocket::bind(local).await })?;
        Ok(Self { socket: bound.await?.with_context(|| format!("bind {local}"))? })
    }

    /// Asks for what is sent to `group` on the interface of `host`.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn join(&self, host: &Host, group: Ipv4Addr) -> Result<()> {
        let IpAddr::V4(interface) = host.address() else { bail!("{group} needs IPv4") };
        self.socket.join_multicast_v4(group, interface).with_context(|| format!("join {group}"))
    }

    /// Sends one datagram.
    ///
    /// # Errors
    ///
    /// If the network refuses at once (no route).
    pub async fn send(&self, to: SocketAddr, datagram: &[u8]) -> Result<()> {
        // An ICMP error for an earlier datagram is reported by the next send.
        if self.socket.send_to(datagram, to).await.is_err() {
            self.socket.send_to(datagram, to).await.with_context(|| format!("send to {to}"))?;
        }
        Ok(())
    }

    /// The next datagram and where it came from, if one comes within `wait`.
    pub async fn receive(&self, wait: Duration) -> Option<(SocketAddr, Vec<u8>)> {
        let mut buffer = [0_u8; 2048];
        let deadline = Instant::now() + wait;
        while let Some(left) = deadline.checked_duration_since(Instant::now()) {
            match timeout(left, self.socket.recv_from(&mut buffer)).await {
                Ok(Ok((len, from))) => return Some((from, buffer[..len].to_vec())),
                // An ICMP error for something sent before: not a datagram.
                Ok(Err(_)) => {}
                Err(_) => break,
            }
        }
        None
    }

    /// Whether a datagram from `far` to `at` arrives here.
    ///
    /// # Errors
    ///
    /// If `far` cannot send.
    pub async fn hears(&self, far: &Self, at: SocketAddr) -> Result<bool> {
        while self.receive(Duration::from_millis(1)).await.is_some() {}
        far.send(at, KNOCK).await?;
        Ok(self.receive(QUIET).await.is_some_and(|(_, datagram)| datagram == KNOCK))
    }

    /// This socket's outer endpoint as `reflector` sees it.
    ///
    /// # Errors
    ///
    /// If the reflector does not answer.
    pub async fn seen_by(&self, reflector: SocketAddr) -> Result<SocketAddr> {
        for _ in 0..5 {
            self.send(reflector, WHO).await?;
            if let Some((from, text)) = self.receive(QUIET).await
                && from == reflector
            {
                return Ok(std::str::from_utf8(&text)?.parse()?);
            }
        }
        bail!("no answer from the reflector at {reflector}")
    }
}

/// Starts a reflector on `host`; it lives as long as the world.
///
/// # Errors
///
/// If the port is taken.
pub async fn reflect(host: &Host, port: u16) -> Result<SocketAddr> {
    let probe = Probe::bind(host, port).await?;
    host.device().spawn(move |_| async move {
        loop {
            if let Some((from, datagram)) = probe.receive(Duration::from_secs(3600)).await
                && datagram == WHO
            {
                // A lost answer is asked for again.
                let _ = probe.send(from, from.to_string().as_bytes()).await;
            }
        }
    })?;
    Ok(host.socket(port))
}

/// Lets both sides punch towards the endpoints that a third host saw, and tells
/// whether both heard an answer.
///
/// # Errors
///
/// If a side cannot send at all.
pub async fn punch(a: (&Probe, SocketAddr), b: (&Probe, SocketAddr)) -> Result<bool> {
    let (at_a, at_b) = tokio::try_join!(knock(a.0, b.1), knock(b.0, a.1))?;
    Ok(at_a && at_b)
}

async fn knock(probe: &Probe, far: SocketAddr) -> Result<bool> {
    let mut answered = false;
    for _ in 0..12 {
        // No route (another's private address) is as good as silence.
        let _ = probe.send(far, KNOCK).await;
        let round = Instant::now() + Duration::from_millis(25);
        while let Some(left) = round.checked_duration_since(Instant::now()) {
            match probe.receive(left).await {
                // Heard from where nobody was expected: knock there as well.
                Some((from, datagram)) if datagram == KNOCK => {
                    probe.send(from, ANSWER).await?;
                    if from != far && !answered {
                        probe.send(from, KNOCK).await?;
                    }
                }
                Some((_, datagram)) => answered |= datagram == ANSWER,
                None => break,
            }
        }
    }
    Ok(answered)
}

fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::from([0, 0, 0, 0]),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}
