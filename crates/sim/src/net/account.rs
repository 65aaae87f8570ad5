//! Bytes on the wire, per host.
//!
//! Messages have the lengths of their real encodings. Around them goes what QUIC, UDP and IPv4
//! add: messages that one side sends at one moment share a packet while they fit, a packet that is
//! not answered within the delay that QUIC allows costs an acknowledgement of its own. Handshakes,
//! failed dials and keep-alives are counted apart.

use core::time::Duration;

use baran_proto::time::Instant;

use super::keepalive::turns;
use super::kind::Kind;

/// IPv4 and UDP headers.
const IP_UDP: u32 = 20 + 8;

/// A packet of QUIC with a short header around its frames: first byte, connection id (`noq`
/// draws 8 bytes), packet number, authentication tag (RFC 9000 §17.3, RFC 9001 §5.3).
const PACKET: u32 = IP_UDP + 1 + 8 + 2 + 16;

/// Head of a STREAM frame: type, stream, offset, length (RFC 9000 §19.8).
const STREAM_FRAME: u32 = 1 + 1 + 4 + 2;

/// An ACK frame of one range (RFC 9000 §19.3).
const ACK_FRAME: u32 = 6;

/// Payload of a packet before MTU discovery found more.
const PAYLOAD_MAX: u32 = 1200 - (PACKET - IP_UDP);

/// How long an endpoint waits with an acknowledgement (RFC 9000 §18.2, `max_ack_delay`).
const ACK_DELAY: Duration = Duration::from_millis(25);

/// An Initial packet, padded (RFC 9000 §14.1).
pub const INITIAL: u32 = IP_UDP + 1200;

/// What a handshake costs each side: two padded flights of the client and one of the server, keys
/// as raw public keys of both sides (RFC 7250), connection ids, and four probes of the path's MTU
/// from 1,200 to 1,452 bytes, which each side sends once.
const HANDSHAKE: [u32; 2] = [2 * INITIAL + 150 + MTU_PROBES, INITIAL + 450 + MTU_PROBES];
const MTU_PROBES: u32 = 4 * (IP_UDP + 1400);

/// A ping of a keep-alive and its acknowledgement: each side sends half of both.
const KEEP_ALIVE: u32 = (PACKET + 1 + PACKET + ACK_FRAME) / 2;

/// What one end of a connection sent last, and owes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Packets {
    /// When the last packet left.
    sent_at: Instant,
    /// Payload in it.
    fill: u32,
    /// When an acknowledgement is due for what came; the origin of time if none is.
    ack_by: Instant,
    /// What that was.
    ack_of: Kind,
}

/// What a host sent, in bytes and packets.
#[derive(Debug, Clone, Copy, Default)]
pub struct Traffic {
    /// Control messages with all that is around them, and their acknowledgements, by [`Kind`].
    pub control: [u64; Kind::ALL.len()],
    /// The same, received.
    pub control_bytes_received: u64,
    /// Messages sent.
    pub messages: u64,
    /// Packets of control messages and acknowledgements.
    pub packets: u64,
    /// Connections made, whoever dialled.
    pub handshakes: u64,
    /// Bytes of handshakes.
    pub handshake_bytes: u64,
    /// Bytes of dials that came to nothing.
    pub dial_bytes: u64,
    /// Bytes of keep-alives.
    pub keep_alive_bytes: u64,
}

impl Traffic {
    /// Bytes of control messages of all kinds but those of the owner's look-ups.
    #[must_use]
    pub fn control_bytes(&self) -> u64 {
        let kinds = Kind::ALL.iter().filter(|kind| **kind != Kind::Lookups);
        kinds.map(|kind| self.control[*kind as usize]).sum()
    }

    /// Counts a handshake, seen from an end.
    pub fn handshake(&mut self, end: usize) {
        self.handshakes += 1;
        self.handshake_bytes += u64::from(HANDSHAKE[end]);
    }

    /// Counts the keep-alives of one end of a connection that stood so long.
    pub fn keep_alive(&mut self, stood: Duration) {
        self.keep_alive_bytes += turns(stood) * u64::from(KEEP_ALIVE);
    }

    /// Counts a datagram of a protocol that is not the node's, of so many bytes.
    pub fn datagram(&mut self, kind: Kind, len: u32) {
        self.packets += 1;
        self.control[kind as usize] += u64::from(IP_UDP + len);
    }

    /// Counts a knock: one small datagram that opens a NAT.
    pub fn knock(&mut self) {
        self.dial_bytes += u64::from(IP_UDP) + 1;
    }

    /// Adds what another host sent.
    pub fn add(&mut self, other: &Self) {
        self.control.iter_mut().zip(other.control).for_each(|(sum, kind)| *sum += kind);
        self.control_bytes_received += other.control_bytes_received;
        self.messages += other.messages;
        self.packets += other.packets;
        self.handshakes += other.handshakes;
        self.handshake_bytes += other.handshake_bytes;
        self.dial_bytes += other.dial_bytes;
        self.keep_alive_bytes += other.keep_alive_bytes;
    }
}

impl Packets {
    /// Sends a message of so many bytes; returns what that adds on the wire.
    pub fn send(&mut self, now: Instant, kind: Kind, len: usize, traffic: &mut Traffic) -> u32 {
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        let acknowledged = self.settle(now, traffic);
        let mut bytes = 0;
        let frame = len.saturating_add(STREAM_FRAME);
        let packets = if self.sent_at == now && self.fill + frame <= PAYLOAD_MAX {
            self.fill += frame;
            0
        } else {
            self.fill = frame % PAYLOAD_MAX;
            frame.div_ceil(PAYLOAD_MAX)
        };
        if self.ack_by != Instant::ZERO {
            self.ack_by = Instant::ZERO;
            bytes += ACK_FRAME;
        }
        self.sent_at = now;
        bytes += frame + packets * PACKET;
        traffic.control[kind as usize] += u64::from(bytes);
        traffic.messages += 1;
        traffic.packets += u64::from(packets);
        acknowledged + bytes
    }

    /// Receives a message; returns what the acknowledgements that this brings about add.
    pub fn receive(&mut self, now: Instant, kind: Kind, traffic: &mut Traffic) -> u32 {
        let bytes = self.settle(now, traffic);
        if self.ack_by == Instant::ZERO {
            (self.ack_by, self.ack_of) = (now + ACK_DELAY, kind);
        }
        bytes
    }

    /// Counts an acknowledgement that went out alone since.
    fn settle(&mut self, now: Instant, traffic: &mut Traffic) -> u32 {
        if self.ack_by == Instant::ZERO || self.ack_by > now {
            return 0;
        }
        self.ack_by = Instant::ZERO;
        traffic.packets += 1;
        traffic.control[self.ack_of as usize] += u64::from(PACKET + ACK_FRAME);
        PACKET + ACK_FRAME
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_micros(1_000 * ms)
    }

    #[test]
    fn messages_of_one_moment_share_a_packet() {
        let (mut packets, mut traffic) = (Packets::default(), Traffic::default());
        let first = packets.send(at(1), Kind::Find, 100, &mut traffic);
        let second = packets.send(at(1), Kind::Find, 100, &mut traffic);
        assert_eq!(first - second, PACKET);
        assert_eq!(packets.send(at(2), Kind::Find, 100, &mut traffic), first);
        assert_eq!((traffic.packets, traffic.messages), (2, 3));
        let long = packets.send(at(3), Kind::Find, 2_000, &mut traffic);
        assert_eq!(long, 2_000 + STREAM_FRAME + 2 * PACKET);
    }

    #[test]
    fn an_answer_carries_the_acknowledgement_or_it_goes_alone() {
        let (mut packets, mut traffic) = (Packets::default(), Traffic::default());
        let plain = packets.send(at(1), Kind::Find, 10, &mut traffic);
        assert_eq!(packets.receive(at(2), Kind::Found, &mut traffic), 0);
        assert_eq!(packets.send(at(3), Kind::Find, 10, &mut traffic), plain + ACK_FRAME);
        packets.receive(at(10), Kind::Found, &mut traffic);
        assert_eq!(packets.send(at(99), Kind::Find, 10, &mut traffic), plain + PACKET + ACK_FRAME);
        packets.receive(at(100), Kind::Found, &mut traffic);
        // A second packet within the delay is acknowledged together with the first.
        assert_eq!(packets.receive(at(101), Kind::Found, &mut traffic), 0);
        assert_eq!(packets.receive(at(200), Kind::Found, &mut traffic), PACKET + ACK_FRAME);
        assert_eq!(traffic.control[Kind::Found as usize], u64::from(2 * (PACKET + ACK_FRAME)));
    }
}
