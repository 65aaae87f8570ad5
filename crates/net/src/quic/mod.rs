//! How `noq` is set up: raw public keys, transport parameters, limits on handshakes.

pub mod route;
pub mod tls;

use std::sync::Arc;
use std::time::Duration;

use noq::{IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};

use self::route::Frames;

/// The one version of QUIC that we speak (RFC 9000): the demultiplexer knows no other.
const VERSION: u32 = 1;

/// Longest UDP payload that we take, and that a path of jumbo frames is searched for: Ethernet's
/// 9,000 bytes less the headers of IPv6 and UDP. There a byte costs a third of the processor time.
pub(crate) const UDP_PAYLOAD_MAX: u16 = 9_000 - 40 - 8;

/// Longest UDP payload that any other path is searched for, and `noq`'s own default.
const UDP_PAYLOAD_COMMON: u16 = 1_500 - 40 - 8;

/// Paths of one connection that may be open at a time: three direct ones, two relayed, and room
/// for those that are being replaced.
const PATHS_MAX: u32 = 7;

/// Bytes that a peer may have in flight to us on a new connection, or that lie in QUIC because a
/// gap before them is not filled. Raised from the node's budget.
pub(crate) const WINDOW: u32 = 64 * 1024;

/// Bytes that we hold for a peer on a new connection until they are acknowledged. Raised as the
/// path carries more, from the node's budget.
pub(crate) const SEND_WINDOW: u64 = 64 * 1024;

/// Most that it is raised to: 320 Mb/s over a round trip of 100 ms.
pub(crate) const SEND_WINDOW_MAX: u64 = 4 * 1024 * 1024;

/// Streams that a peer may always have open, beside the control stream.
pub(crate) const STREAMS: u32 = 16;

/// Closed streams that `noq` 1.4.0 waits for (an eighth of the limit, rounded down) before it lets
/// the peer open as many others. They come on top, or a peer that holds most of its streams open
/// could wait for ever to open another.
const STREAMS_SLACK: u32 = 2;

/// Time without any packet after which a path, and with the last path the connection, is lost:
/// three times the longest pause between [keep-alives](baran_proto::path::keepalive). Nothing waits
/// for it unless those fail: they notice within 16 s that a link which carries something is dead,
/// and the path manager closes a silent path much earlier if there is another. QUIC takes the
/// lesser of what the two sides say (RFC 9000 §10.1), so none may say less.
const IDLE_MS: u32 = 3 * 1000 * PAUSE_MAX_S;

/// The longest pause between keep-alives in seconds.
const PAUSE_MAX_S: u32 = 60;

/// The round trip assumed before one is measured. A third of RFC 9002's, so that a lost first
/// packet costs 300 ms, and probes of hole punching, which `noq` spaces by a tenth of it, follow
/// each other in 10 ms.
const INITIAL_RTT: Duration = Duration::from_millis(100);

/// Transport parameters of every connection, the first path of which carries such frames.
#[must_use]
pub fn transport(frames: Frames) -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(match frames {
        Frames::Common => UDP_PAYLOAD_COMMON,
        Frames::Jumbo => UDP_PAYLOAD_MAX,
    });
    let idle = IdleTimeout::from(VarInt::from_u32(IDLE_MS));
    config
        .max_concurrent_bidi_streams((STREAMS + STREAMS_SLACK + 1).into())
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .receive_window(WINDOW.into())
        // The multiplexer drains every stream at once; its credit bounds each stream, the window
        // of the connection what is in flight.
        .stream_receive_window(VarInt::from_u32(64 * 1024 * 1024))
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(Some(64 * 1024))
        .datagram_send_buffer_size(64 * 1024)
        .max_idle_timeout(Some(idle))
        // Keep-alives are the link's, which sends them by turns and learns from what comes of them.
        .keep_alive_interval(None)
        .default_path_max_idle_timeout(Some(Duration::from_millis(IDLE_MS.into())))
        .default_path_keep_alive_interval(None)
        .initial_rtt(INITIAL_RTT)
        .mtu_discovery_config(Some(mtu))
        .max_concurrent_multipath_paths(PATHS_MAX)
        .max_remote_nat_traversal_addresses(8)
        .send_observed_address_reports(true)
        .receive_observed_address_reports(true);
    Arc::new(config)
}

/// Settings of the endpoint. The QUIC bit is never greased: the first byte of a datagram tells
/// QUIC from relayed frames and STUN.
///
/// # Panics
///
/// Never: our longest payload is one that QUIC allows.
#[must_use]
pub fn endpoint() -> noq::EndpointConfig {
    let mut config = noq::EndpointConfig::default();
    config
        .grease_quic_bit(false)
        .supported_versions(vec![VERSION])
        .max_udp_payload_size(UDP_PAYLOAD_MAX)
        .expect("between 1,200 and 65,527");
    config
}
