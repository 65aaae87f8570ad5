//! Whether the wire is what it claims to be, asked with plain sockets before anything is measured.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::nat::Place;

const PORT: u16 = 999;

/// Round trips of which the middle one counts.
const ROUNDS: usize = 9;

/// How much longer than it should a round trip may take on a machine with other work.
const SLACK: Duration = Duration::from_millis(10);

/// Checks delay, mapping and filter with four places, of which the first two are open and the
/// others behind NATs. Returns the round-trip time.
pub(crate) fn check(places: [Place; 4], one_way: Duration) -> Outcome<Duration> {
    let [open, other, natted, far] = places;
    let bind = |place: Place| -> Outcome<UdpSocket> {
        let socket = UdpSocket::bind((place.inner, PORT))?;
        socket.set_read_timeout(Some(one_way * 2 + SLACK * 4))?;
        Ok(socket)
    };
    let [at_open, at_other, at_natted, at_far] =
        [bind(open)?, bind(other)?, bind(natted)?, bind(far)?];
    let at = |place: Place| SocketAddrV4::new(place.outer, PORT);

    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        says(&at_open, &at_other, at(other), open.outer, true)?;
        says(&at_other, &at_open, at(open), other.outer, true)?;
        times.push(begin.elapsed());
    }
    times.sort_unstable();
    let round_trip = times[ROUNDS / 2];
    if round_trip < one_way * 2 || round_trip > one_way * 2 + SLACK {
        return Err(format!("a round trip takes {round_trip:?}").into());
    }
    // The NAT lets in nobody, then whom its host has sent to, and still nobody else.
    says(&at_open, &at_natted, at(natted), open.outer, false)?;
    says(&at_natted, &at_open, at(open), natted.outer, true)?;
    says(&at_open, &at_natted, at(natted), open.outer, true)?;
    says(&at_other, &at_natted, at(natted), other.outer, false)?;
    // Two NATs are punched: the first packet is lost, the second finds a way.
    says(&at_natted, &at_far, at(far), natted.outer, false)?;
    says(&at_far, &at_natted, at(natted), far.outer, true)?;
    says(&at_natted, &at_far, at(far), natted.outer, true)?;
    // Another's private address is nowhere.
    says(&at_open, &at_natted, SocketAddrV4::new(natted.inner, PORT), open.outer, false)?;
    Ok(round_trip)
}

/// Sends to `to` and checks whether it `arrives` at `far`, from `seen`.
fn says(
    near: &UdpSocket,
    far: &UdpSocket,
    to: SocketAddrV4,
    seen: Ipv4Addr,
    arrives: bool,
) -> Outcome<()> {
    near.send_to(b"knock", to)?;
    let mut buffer = [0; 16];
    match far.recv_from(&mut buffer) {
        Ok((5, from)) if arrives && from.ip() == seen && from.port() == PORT => Ok(()),
        Ok((_, from)) => Err(format!("{to}: a packet came from {from}").into()),
        Err(_) if !arrives => Ok(()),
        Err(error) => Err(format!("{to}: {error}").into()),
    }
}
