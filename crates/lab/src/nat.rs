//! The kinds of NAT that the lab builds, as nftables rules of our own.
//!
//! Terms are those of RFC 4787: a *mapping* is endpoint-independent (EIM) or
//! endpoint-dependent (EDM); *filtering* is endpoint-independent (EIF),
//! address-dependent (ADF) or address-and-port-dependent (APDF). The names of
//! [`NatKind`] are the older ones of RFC 3489, which people know.
//!
//! Plain `masquerade` is none of these kinds: conntrack maps each flow on its
//! own, so two hosts that share a source port, or one unsolicited packet from
//! the far side, turn an endpoint-independent mapping into a dependent one
//! without notice. The rules here keep their own tables:
//!
//! - `mapping` (inner endpoint → outer endpoint) makes every later flow of an
//!   inner endpoint leave by the same outer port, whatever its destination.
//! - `cone` (outer port → inner endpoint) brings packets of strangers in, for
//!   the filter to judge.
//! - `taken` (outer ports in use) sends a second inner host with the same
//!   source port to a random outer port, as RFC 4787 REQ-1 wants.
//! - `contacted` (outer port, remote address) is the address-dependent filter.
//!
//! Invariant: no UDP packet from outside is delivered to the router itself. If
//! one were, conntrack would confirm a flow that occupies the outer port, and
//! the inner host's answer to that very peer would leave from another port.

use std::fmt;
use std::net::Ipv4Addr;

/// Seconds that an idle mapping lives; longer than any run of the lab.
const MAPPING_S: u32 = 300;

/// Outer ports given to inner endpoints that cannot keep their own.
const OUTER_PORTS: &str = "20000-60000";

/// What stands between a host and the open network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NatKind {
    /// No NAT and no filter: the host has a public address.
    Open,
    /// EIM and EIF: whoever knows the outer port reaches the host.
    FullCone,
    /// EIM and ADF: only addresses that the host has sent to.
    AddressRestricted,
    /// EIM and APDF: only the exact endpoints that the host has sent to.
    PortRestricted,
    /// EDM with random ports and APDF: a new outer port for every destination.
    Symmetric,
    /// A port-restricted home router behind a port-restricted provider's NAT.
    Cgnat,
}

impl NatKind {
    /// Every kind, easiest first.
    pub const ALL: [Self; 6] = [
        Self::Open,
        Self::FullCone,
        Self::AddressRestricted,
        Self::PortRestricted,
        Self::Symmetric,
        Self::Cgnat,
    ];

    /// The kinds that a single router can be.
    pub const SINGLE: [Self; 5] = [
        Self::Open,
        Self::FullCone,
        Self::AddressRestricted,
        Self::PortRestricted,
        Self::Symmetric,
    ];

    /// Whether every destination sees the same outer endpoint.
    #[must_use]
    pub fn is_endpoint_independent(self) -> bool {
        self != Self::Symmetric
    }

    /// Whether plain punching (no prediction, no port guessing) opens a direct
    /// path between hosts behind these two kinds.
    ///
    /// An endpoint-dependent mapping shows each destination a port that nobody
    /// could name beforehand, so the far side must let in a packet from a port
    /// that it has never sent to: port filters do not.
    #[must_use]
    pub fn can_punch(self, other: Self) -> bool {
        let port_filtered =
            |kind| matches!(kind, Self::PortRestricted | Self::Symmetric | Self::Cgnat);
        match (self, other) {
            (Self::Symmetric, far) | (far, Self::Symmetric) => !port_filtered(far),
            _ => true,
        }
    }

    /// The name used in tables and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "none",
            Self::FullCone => "full cone",
            Self::AddressRestricted => "address-restricted",
            Self::PortRestricted => "port-restricted",
            Self::Symmetric => "symmetric",
            Self::Cgnat => "CGNAT",
        }
    }
}

impl fmt::Display for NatKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How one IPv4 router translates.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NatRules<'a> {
    /// The kind; [`NatKind::Cgnat`] counts as port-restricted in each router.
    pub(crate) kind: NatKind,
    /// Whether inner hosts reach each other by the outer address (RFC 4787 §6).
    pub(crate) hairpin: bool,
    /// Name of the outer interface.
    pub(crate) wan: &'a str,
    /// The outer address.
    pub(crate) outer: Ipv4Addr,
}

impl NatRules<'_> {
    /// The complete ruleset, which replaces whatever the router had.
    pub(crate) fn script(&self) -> String {
        match self.kind {
            NatKind::Open => "flush ruleset\n".to_owned(),
            NatKind::Symmetric => self.dependent(),
            NatKind::FullCone
            | NatKind::AddressRestricted
            | NatKind::PortRestricted
            | NatKind::Cgnat => self.independent(),
        }
    }

    fn dependent(&self) -> String {
        let Self { wan, outer, .. } = self;
        format!(
            r#"flush ruleset
table ip nat {{
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        oifname "{wan}" meta l4proto udp snat to {outer}:{OUTER_PORTS} fully-random
        oifname "{wan}" snat to {outer}
    }}
    chain forward {{
        type filter hook forward priority filter; policy accept;
        iifname "{wan}" ct state established,related accept
        iifname "{wan}" drop
    }}
    chain input {{
        type filter hook input priority filter; policy accept;
        meta l4proto udp drop
    }}
}}
"#
        )
    }

    fn independent(&self) -> String {
        let Self { wan, outer, .. } = self;
        let learn = format!("oifname \"{wan}\" meta l4proto udp ct direction original update");
        let filter = match self.kind {
            NatKind::FullCone => String::new(),
            NatKind::AddressRestricted => format!(
                r#"iifname "{wan}" meta l4proto udp \
        ct original proto-dst . ip saddr @contacted accept
        iifname "{wan}" drop"#
            ),
            NatKind::Open | NatKind::PortRestricted | NatKind::Symmetric | NatKind::Cgnat => {
                format!("iifname \"{wan}\" drop")
            }
        };
        let (hairpin_in, hairpin_out) =
            if self.hairpin { self.hairpin_rules() } else { <_>::default() };
        format!(
            r#"flush ruleset
table ip nat {{
    map mapping {{
        type ipv4_addr . inet_service : ipv4_addr . inet_service
        flags dynamic,timeout; timeout {MAPPING_S}s; size 65536
    }}
    map cone {{
        type inet_service : ipv4_addr . inet_service
        flags dynamic,timeout; timeout {MAPPING_S}s; size 65536
    }}
    set taken {{
        type inet_service
        flags dynamic,timeout; timeout {MAPPING_S}s; size 65536
    }}
    set contacted {{
        type inet_service . ipv4_addr
        flags dynamic,timeout; timeout {MAPPING_S}s; size 65536
    }}
    chain prerouting {{
        type nat hook prerouting priority dstnat; policy accept;
        iifname "{wan}" ip daddr {outer} meta l4proto udp dnat ip to udp dport map @cone
        {hairpin_in}
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        oifname "{wan}" meta l4proto udp snat ip to ip saddr . udp sport map @mapping
        oifname "{wan}" udp sport @taken snat to {outer}:{OUTER_PORTS} fully-random
        oifname "{wan}" snat to {outer}
        {hairpin_out}
    }}
    chain learn {{
        type filter hook postrouting priority srcnat + 10; policy accept;
        {learn} @mapping {{ ct original ip saddr . ct original proto-src : ip saddr . udp sport }}
        {learn} @cone {{ udp sport : ct original ip saddr . ct original proto-src }}
        {learn} @taken {{ udp sport }}
        oifname "{wan}" meta l4proto udp update @contacted {{ udp sport . ip daddr }}
    }}
    chain forward {{
        type filter hook forward priority filter; policy accept;
        iifname "{wan}" ct state established,related accept
        {filter}
    }}
    chain input {{
        type filter hook input priority filter; policy accept;
        meta l4proto udp drop
    }}
}}
"#
        )
    }

    /// Rules that send a packet for the outer address back inside, from the
    /// sender's outer endpoint (RFC 4787 REQ-9a, "external source").
    fn hairpin_rules(&self) -> (String, String) {
        let Self { wan, outer, .. } = self;
        (
            format!(
                "iifname != \"{wan}\" ip daddr {outer} meta l4proto udp \
                 dnat ip to udp dport map @cone"
            ),
            format!(
                "oifname != \"{wan}\" ct status dnat ct original ip daddr {outer} \
                 snat ip to ip saddr . udp sport map @mapping"
            ),
        )
    }
}

/// Rules of an IPv6 router without translation that lets in answers only
/// (RFC 6092, the habit of home routers).
pub(crate) fn stateful_v6(wan: &str) -> String {
    format!(
        r#"flush ruleset
table ip6 guard {{
    chain forward {{
        type filter hook forward priority filter; policy accept;
        iifname "{wan}" ct state established,related accept
        iifname "{wan}" meta l4proto ipv6-icmp accept
        iifname "{wan}" drop
    }}
    chain input {{
        type filter hook input priority filter; policy accept;
        meta l4proto udp drop
    }}
}}
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn punching_fails_only_between_a_random_port_and_a_port_filter() {
        use NatKind::*;
        for (a, b, expect) in [
            (Open, Symmetric, true),
            (FullCone, Symmetric, true),
            (AddressRestricted, Symmetric, true),
            (PortRestricted, Symmetric, false),
            (Symmetric, Symmetric, false),
            (Cgnat, Symmetric, false),
            (PortRestricted, PortRestricted, true),
            (Cgnat, Cgnat, true),
        ] {
            assert_eq!(a.can_punch(b), expect, "{a} and {b}");
            assert_eq!(b.can_punch(a), expect, "{b} and {a}");
        }
    }
}
