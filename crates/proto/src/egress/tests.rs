use core::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

/// An address of no denied class.
const GLOBAL: &str = "1.2.3.4:5000";

/// The blocks that must be denied, and as what. Written from the IANA registries, apart from the
/// code under test; the first block that fits decides.
const BLOCKS: &[(&str, Denied)] = &[
    ("0.0.0.0/32", Denied::Unspecified),
    ("0.0.0.0/8", Denied::Reserved),
    ("10.0.0.0/8", Denied::Private),
    ("100.64.0.0/10", Denied::SharedAddressSpace),
    ("127.0.0.0/8", Denied::Loopback),
    ("169.254.0.0/16", Denied::LinkLocal),
    ("172.16.0.0/12", Denied::Private),
    ("192.0.0.0/24", Denied::Reserved),
    ("192.0.2.0/24", Denied::Reserved),
    ("192.88.99.0/24", Denied::Translated),
    ("192.168.0.0/16", Denied::Private),
    ("198.18.0.0/15", Denied::Reserved),
    ("198.51.100.0/24", Denied::Reserved),
    ("203.0.113.0/24", Denied::Reserved),
    ("224.0.0.0/4", Denied::Multicast),
    ("255.255.255.255/32", Denied::Broadcast),
    ("240.0.0.0/4", Denied::Reserved),
    ("::/128", Denied::Unspecified),
    ("::1/128", Denied::Loopback),
    ("::/96", Denied::Translated),
    ("::ffff:0:0:0/96", Denied::Translated),
    ("64:ff9b::/96", Denied::Translated),
    ("64:ff9b:1::/48", Denied::Translated),
    ("100::/64", Denied::Reserved),
    ("2001::/32", Denied::Translated),
    ("2001::/23", Denied::Reserved),
    ("2001:db8::/32", Denied::Reserved),
    ("2002::/16", Denied::Translated),
    ("3fff::/20", Denied::Reserved),
    ("5f00::/16", Denied::Reserved),
    ("fc00::/7", Denied::Private),
    ("fe80::/10", Denied::LinkLocal),
    ("fec0::/10", Denied::Reserved),
    ("ff00::/8", Denied::Multicast),
];

fn at(ms: u64) -> Instant {
    Instant::default() + Duration::from_millis(ms)
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn net(text: &str) -> Net {
    text.parse().unwrap()
}

fn gate() -> Gate {
    Gate::new(GateConfig::default())
}

/// Another spelling of the same address: mapped, with a flow label and a scope.
fn respelled(addr: SocketAddr) -> SocketAddr {
    let ip = match addr.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let scope = if ip.is_unicast_link_local() { 0 } else { 3 };
    core::net::SocketAddrV6::new(ip, addr.port(), 0xbeef, scope).into()
}

fn block_class(ip: IpAddr) -> Option<Denied> {
    let kind = BLOCKS.iter().find(|(block, _)| net(block).contains(ip)).map(|&(_, kind)| kind);
    match canonical_ip(ip) {
        IpAddr::V6(v6) if kind.is_none() && !net("2000::/3").contains(v6.into()) => {
            Some(Denied::Reserved)
        }
        IpAddr::V4(_) | IpAddr::V6(_) => kind,
    }
}

/// The first and the last address of a block.
fn edges(block: &str) -> [IpAddr; 2] {
    let (addr, prefix) = block.split_once('/').unwrap();
    let prefix: u32 = prefix.parse().unwrap();
    match addr.parse().unwrap() {
        IpAddr::V4(first) => {
            let hosts = u32::MAX.checked_shr(prefix).unwrap_or(0);
            [first.into(), Ipv4Addr::from_bits(first.to_bits() | hosts).into()]
        }
        IpAddr::V6(first) => {
            let hosts = u128::MAX.checked_shr(prefix).unwrap_or(0);
            [first.into(), Ipv6Addr::from_bits(first.to_bits() | hosts).into()]
        }
    }
}

/// The address after (`by` = 1) or before (−1) `ip`, wrapping around.
fn neighbour(ip: IpAddr, by: i8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => Ipv4Addr::from_bits(ip.to_bits().wrapping_add_signed(by.into())).into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits().wrapping_add_signed(by.into())).into(),
    }
}

/// An address in a denied block.
fn denied_ip() -> impl Strategy<Value = IpAddr> {
    (prop::sample::select(BLOCKS), any::<u128>()).prop_map(|((block, _), host)| {
        let [first, last] = edges(block);
        match (first, last) {
            (IpAddr::V4(first), IpAddr::V4(last)) => {
                let [.., a, b, c, d] = host.to_be_bytes();
                let hosts = first.to_bits() ^ last.to_bits();
                let host = u32::from_be_bytes([a, b, c, d]) & hosts;
                Ipv4Addr::from_bits(first.to_bits() | host).into()
            }
            (IpAddr::V6(first), IpAddr::V6(last)) => {
                let hosts = first.to_bits() ^ last.to_bits();
                Ipv6Addr::from_bits(first.to_bits() | host & hosts).into()
            }
            _ => unreachable!("both edges are of one family"),
        }
    })
}

#[test]
fn classes_change_exactly_at_the_edges_of_blocks() {
    for (block, _) in BLOCKS {
        let [first, last] = edges(block);
        for ip in [first, last, neighbour(first, -1), neighbour(last, 1)] {
            assert_eq!(class_of(ip), block_class(ip), "{ip} at an edge of {block}");
        }
    }
}

#[test]
fn global_addresses_have_no_class() {
    for ip in ["1.1.1.1", "100.63.255.255", "172.32.0.1", "192.0.1.1", "223.255.255.255"] {
        assert_eq!(class_of(ip.parse().unwrap()), None, "{ip}");
    }
    for ip in ["2001:200::1", "2606:4700::1111", "2a00:1450:4001::200e", "3ffe::1", "2003::1"] {
        assert_eq!(class_of(ip.parse().unwrap()), None, "{ip}");
    }
}

#[test]
fn translated_spellings_of_private_targets_are_denied() {
    for to in [
        "[64:ff9b::10.0.0.1]:5000",
        "[64:ff9b::1.2.3.4]:5000",
        "[64:ff9b:1:abcd::7f00:1]:5000",
        "[2002:7f00:1::1]:5000",
        "[2001:0:4136:e378:8000:63bf:80ff:fffe]:5000",
        "[::127.0.0.1]:5000",
        "[::ffff:0:127.0.0.1]:5000",
    ] {
        assert_eq!(gate().check(at(0), addr(to), 100, 1), Err(Denied::Translated), "{to}");
    }
}

#[test]
fn nets_read_and_contain() {
    let block = net("172.16.0.0/12");
    assert!(block.contains("172.31.255.255".parse().unwrap()));
    assert!(block.contains("::ffff:172.16.0.1".parse().unwrap()));
    assert!(!block.contains("172.32.0.0".parse().unwrap()));
    assert_eq!(net("::ffff:10.0.0.0/104"), net("10.0.0.0/8"));
    assert_eq!(net("fd00::1"), net("fd00::1/128"));
    assert!(!net("::/0").contains("1.2.3.4".parse().unwrap()));
    assert!(net("0.0.0.0/0").contains("255.255.255.255".parse().unwrap()));
    for bad in ["", "/8", "10.0.0.0/33", "fd00::/129", "10.0.0.0/x", "host/8"] {
        assert_eq!(bad.parse::<Net>(), Err(NotANet), "{bad}");
    }
}

#[test]
fn trust_opens_everything_and_is_counted() {
    let mut gate = gate();
    let to = addr("127.0.0.1:53");
    assert!(gate.trust(to) && gate.trust(respelled(to)));
    assert_eq!(gate.check(at(0), to, 1_000_000, 700), Ok(()));
    gate.untrust(to);
    assert!(gate.is_trusted(to));
    assert_eq!(gate.check(at(0), respelled(to), 65_000, 50), Ok(()));
    gate.untrust(respelled(to));
    gate.untrust(to);
    assert_eq!(gate.check(at(0), to, 100, 3), Err(Denied::Loopback));
    assert_eq!(gate.denied_count(Denied::Loopback), 3);
}

#[test]
fn nobody_trusts_a_group_or_port_zero() {
    let mut gate = gate();
    for to in ["224.0.0.251:5353", "[ff02::1]:5000", "255.255.255.255:5000", "[::]:5000"] {
        assert!(!gate.trust(addr(to)) && !gate.trust(respelled(addr(to))), "{to}");
        assert!(gate.check(at(0), addr(to), 100, 1).is_err(), "{to}");
    }
    assert!(!gate.trust(addr("1.2.3.4:0")));
}

#[test]
fn trust_is_bounded() {
    let mut gate = gate();
    let nth = |n: usize| {
        let n = u32::try_from(n).unwrap();
        SocketAddr::from((Ipv4Addr::from_bits(0x0100_0000 + n), 5000))
    };
    assert!((0..TRUSTED_MAX).all(|n| gate.trust(nth(n))));
    assert!(!gate.trust(nth(TRUSTED_MAX)));
    assert!(gate.trust(nth(0)), "one more holder of an address needs no room");
    gate.untrust(nth(1));
    assert!(gate.trust(nth(TRUSTED_MAX)));
}

#[test]
fn low_ports_are_closed_to_the_unproved() {
    let mut gate = Gate::new(GateConfig { allow_nets: vec![net("10.0.0.0/8")], ..gate().config });
    for port in [0, 53, 1023] {
        for host in ["1.2.3.4", "10.0.0.1"] {
            let to = addr(&format!("{host}:{port}"));
            assert_eq!(gate.check(at(0), to, 100, 1), Err(Denied::LowPort));
        }
    }
    assert_eq!(gate.check(at(0), addr("1.2.3.4:1024"), 100, 1), Ok(()));
}

#[test]
fn probes_are_small() {
    let mut gate = gate();
    assert_eq!(gate.check(at(0), addr(GLOBAL), 1281, 1), Err(Denied::TooLarge));
    assert_eq!(gate.check(at(0), addr(GLOBAL), 2561, 2), Err(Denied::TooLarge));
    assert_eq!(gate.check(at(0), addr(GLOBAL), 2560, 2), Ok(()));
    assert_eq!(gate.check(at(0), addr(GLOBAL), 1281, 0), Err(Denied::TooLarge));
    assert_eq!(gate.denied_count(Denied::TooLarge), 4);
}

#[test]
fn nine_probes_per_destination_and_window() {
    let mut gate = gate();
    assert_eq!(gate.check(at(0), addr(GLOBAL), 1200, 8), Ok(()));
    assert_eq!(gate.check(at(1000), respelled(addr(GLOBAL)), 200, 2), Err(Denied::DestBudget));
    assert_eq!(gate.check(at(1000), respelled(addr(GLOBAL)), 100, 1), Ok(()));
    assert_eq!(gate.check(at(10_999), addr(GLOBAL), 100, 1), Err(Denied::DestBudget));
    // Another port is another destination: a NAT gives each of its hosts one.
    assert_eq!(gate.check(at(10_999), addr("1.2.3.4:5001"), 100, 9), Ok(()));
    assert_eq!(gate.check(at(11_000), addr(GLOBAL), 100, 9), Ok(()));
    assert_eq!(gate.check(at(11_000), addr("1.2.3.5:5000"), 100, 10), Err(Denied::DestBudget));
}

#[test]
fn node_wide_budget_and_refusals_that_spend_nothing() {
    let mut gate = gate();
    let nth = |n: u16| SocketAddr::from(([1, 2, 3, 4], 5000 + n));
    for n in 0..50 {
        assert_eq!(gate.check(at(0), nth(n), 100, 1), Ok(()));
    }
    for n in 50..500 {
        assert_eq!(gate.check(at(0), nth(n), 100, 9), Err(Denied::NodeBudget));
    }
    assert_eq!(gate.denied_count(Denied::NodeBudget), 450 * 9);
    // 20 ms make one probe, and the denied destination still has all of its nine.
    assert_eq!(gate.check(at(20), nth(50), 100, 1), Ok(()));
    assert_eq!(gate.check(at(200), nth(50), 100, 8), Ok(()));
    assert_eq!(gate.check(at(1000), nth(50), 100, 1), Err(Denied::DestBudget));
}

#[test]
fn table_of_destinations_is_bounded() {
    let config = GateConfig { dests_max: 3, ..GateConfig::default() };
    let mut gate = Gate::new(config);
    let nth = |n: u16| SocketAddr::from(([1, 2, 3, 4], 5000 + n));
    for n in 0..3 {
        assert_eq!(gate.check(at(u64::from(n)), nth(n), 100, 1), Ok(()));
    }
    assert_eq!(gate.check(at(9_999), nth(3), 100, 1), Err(Denied::TableFull));
    assert_eq!(gate.check(at(9_999), nth(1), 100, 1), Ok(()), "known ones still pass");
    assert_eq!(gate.check(at(10_000), nth(3), 100, 1), Ok(()), "the first one's time is over");
    assert_eq!(gate.denied_count(Denied::TableFull), 1);
    assert_eq!(gate.probed.entries.len(), gate.probed.by_end.len());

    let mut none = Gate::new(GateConfig { dests_max: 0, ..GateConfig::default() });
    none.heard(at(0), nth(0), 1000);
    assert_eq!(none.check(at(0), nth(0), 100, 1), Err(Denied::TableFull));
}

#[test]
fn heard_sources_get_three_times_their_bytes_whatever_their_class() {
    for from in ["127.0.0.1:5000", "[fd00::1]:443", "[64:ff9b::a00:1]:53", GLOBAL] {
        let (mut gate, from) = (gate(), addr(from));
        gate.heard(at(0), respelled(from), 1200);
        assert_eq!(gate.check(at(1), from, 3000, 3), Ok(()), "{from}");
        assert_eq!(gate.check(at(1), respelled(from), 600, 1), Ok(()), "{from}");
        let over = gate.check(at(1), from, 1281, 1);
        assert_eq!(over, Err(class_of(from.ip()).unwrap_or(Denied::TooLarge)));
        gate.heard(at(9_000), from, 100);
        assert_eq!(gate.check(at(18_999), from, 200, 1), Ok(()), "{from}");
        let late = gate.check(at(19_000), from, 100, 1);
        assert_eq!(late, class_of(from.ip()).map_or(Ok(()), Err), "{from}");
    }
}

#[test]
fn flood_of_sources_pushes_out_the_oldest_only() {
    let mut gate = Gate::new(GateConfig { dests_max: 8, ..GateConfig::default() });
    let nth = |n: u16| SocketAddr::from(([127, 0, 0, 1], 5000 + n));
    for n in 0..1000 {
        gate.heard(at(u64::from(n)), nth(n), 100);
    }
    assert_eq!(gate.heard.entries.len(), 8);
    assert_eq!(gate.heard.by_end.len(), 8);
    assert_eq!(gate.check(at(1000), nth(991), 100, 1), Err(Denied::Loopback));
    assert_eq!(gate.check(at(1000), nth(992), 100, 1), Ok(()));
    // Being heard takes no room from probes.
    assert_eq!(gate.check(at(1000), addr(GLOBAL), 100, 1), Ok(()));
}

#[test]
fn pairing_opens_private_addresses_of_attached_subnets() {
    let mut gate = gate();
    let subnets = [("192.168.1.7", 24), ("fd00:1::7", 64), ("169.254.0.7", 16), ("100.64.0.7", 10)];
    gate.set_local_subnets(&subnets.map(|(ip, prefix)| (ip.parse().unwrap(), prefix)));
    let (near, far) = (addr("192.168.1.9:5000"), addr("192.168.2.9:5000"));
    assert_eq!(gate.check(at(0), near, 100, 1), Err(Denied::Private));

    gate.pair(at(0), Duration::from_secs(5));
    gate.pair(at(0), Duration::from_secs(1));
    assert_eq!(gate.check(at(4_999), respelled(near), 100, 1), Ok(()));
    assert_eq!(gate.check(at(0), addr("[fd00:1::9]:5000"), 100, 1), Ok(()));
    for (to, kind) in [
        (far, Denied::Private),
        (addr("[fd00:2::9]:5000"), Denied::Private),
        (addr("169.254.0.9:5000"), Denied::LinkLocal),
        (addr("100.64.0.9:5000"), Denied::SharedAddressSpace),
        (addr("127.0.0.1:5000"), Denied::Loopback),
        (addr("192.168.1.255:5000"), Denied::Broadcast),
        (addr("192.168.1.0:5000"), Denied::Broadcast),
        (addr("192.168.1.9:1023"), Denied::LowPort),
    ] {
        assert_eq!(gate.check(at(0), to, 100, 1), Err(kind), "{to}");
    }
    assert_eq!(gate.check(at(4_999), near, 100, 9), Err(Denied::DestBudget));
    assert_eq!(gate.check(at(5_000), near, 100, 1), Err(Denied::Private));
}

#[test]
fn broadcast_of_a_public_subnet_is_denied_and_short_links_have_none() {
    let mut gate = gate();
    gate.set_local_subnets(&[("1.2.3.4".parse().unwrap(), 29), ("1.9.9.9".parse().unwrap(), 31)]);
    assert_eq!(gate.check(at(0), addr("1.2.3.7:5000"), 100, 1), Err(Denied::Broadcast));
    assert_eq!(gate.check(at(0), addr("[::ffff:1.2.3.0]:5000"), 100, 1), Err(Denied::Broadcast));
    assert_eq!(gate.check(at(0), addr("1.2.3.6:5000"), 100, 1), Ok(()));
    assert_eq!(gate.check(at(0), addr("1.9.9.8:5000"), 100, 1), Ok(()));
}

#[test]
fn allowed_nets_pass_the_class_check_only() {
    let config = GateConfig { allow_nets: vec![net("198.18.0.0/15")], ..GateConfig::default() };
    let mut gate = Gate::new(config);
    let to = addr("[::ffff:198.19.0.1]:5000");
    assert_eq!(gate.check(at(0), to, 1281, 1), Err(Denied::TooLarge));
    assert_eq!(gate.check(at(0), to, 900, 9), Ok(()));
    assert_eq!(gate.check(at(0), to, 100, 1), Err(Denied::DestBudget));
    assert_eq!(gate.check(at(0), addr("198.20.0.1:5000"), 100, 1), Ok(()));
    assert_eq!(gate.check(at(0), addr("192.168.0.1:5000"), 100, 1), Err(Denied::Private));
}

#[test]
fn every_reason_has_its_own_counter() {
    for (index, kind) in Denied::ALL.into_iter().enumerate() {
        assert_eq!(kind as usize, index);
    }
}

/// A call of the property test, on small address sets so that calls meet.
#[derive(Clone, Debug)]
enum Call {
    Wait { ms: u64 },
    Heard { host: usize, bytes: usize },
    Pair,
    Probe { host: u8, datagrams: usize, bytes: usize },
    Answer { host: usize, bytes: usize },
}

fn call() -> impl Strategy<Value = Call> {
    prop_oneof![
        2 => (0u64..4_000).prop_map(|ms| Call::Wait { ms }),
        1 => (0usize..4, 0usize..1500).prop_map(|(host, bytes)| Call::Heard { host, bytes }),
        1 => Just(Call::Pair),
        6 => (0u8..8, 0usize..12, 0usize..4000).prop_map(|(host, datagrams, bytes)| Call::Probe {
            host,
            datagrams,
            bytes
        }),
        3 => (0usize..4, 0usize..2000).prop_map(|(host, bytes)| Call::Answer { host, bytes }),
    ]
}

/// Checks that no span of `sent` (moment in ms, datagrams) breaks `bound` (of its length in ms).
fn check_spans(sent: &[(u64, u64)], bound: impl Fn(u64) -> u64) {
    for (i, &(from, _)) in sent.iter().enumerate() {
        let mut sum = 0;
        for &(to, n) in &sent[i..] {
            sum += n;
            assert!(sum <= bound(to - from), "{sum} datagrams from {from} to {to} ms");
        }
    }
}

proptest! {
    #[test]
    fn class_agrees_with_the_registries(ip: u128, v4: u32, denied in denied_ip()) {
        let anywhere = IpAddr::from(Ipv6Addr::from_bits(ip));
        let four = Ipv4Addr::from_bits(v4);
        for ip in [anywhere, four.into(), four.to_ipv6_mapped().into(), denied] {
            prop_assert_eq!(class_of(ip), block_class(ip), "{}", ip);
        }
        prop_assert!(class_of(denied).is_some());
    }

    /// Nothing done for others opens a denied address, in any spelling and at any port.
    #[test]
    fn denied_classes_never_pass(
        ips in prop::collection::vec(denied_ip(), 1..20),
        port: u16,
        now_ms in 0u64..100_000,
        bytes in 0usize..2000,
        datagrams in 0usize..20,
    ) {
        let mut gate = gate();
        gate.set_local_subnets(&[("1.2.3.4".parse().unwrap(), 24)]);
        gate.trust(addr(GLOBAL));
        gate.pair(at(now_ms), Duration::from_secs(100));
        for ip in ips {
            let to = SocketAddr::new(ip, port);
            let neighbour = SocketAddr::new(ip, port.wrapping_add(1));
            gate.heard(at(now_ms), neighbour, 1000);
            for to in [to, respelled(to)] {
                let outcome = gate.check(at(now_ms), to, bytes, datagrams);
                prop_assert_eq!(outcome, Err(class_of(ip).unwrap()));
            }
        }
    }

    /// The budgets of destinations, node and answers hold for every sequence of calls.
    #[test]
    fn budgets_hold(calls in prop::collection::vec(call(), 1..200), dests_max in 1usize..9) {
        let mut gate = Gate::new(GateConfig { dests_max, ..GateConfig::default() });
        let strangers = ["127.0.0.1:5000", "10.0.0.1:5000", "[fd00::1]:53", "[2002::1]:5000"];
        let (mut now_ms, mut heard, mut answered) = (0, [0; 4], [0; 4]);
        let mut sent = vec![Vec::new(); 8];
        let mut sent_by_node = Vec::new();
        for call in calls {
            match call {
                Call::Wait { ms } => now_ms += ms,
                Call::Pair => gate.pair(at(now_ms), Duration::from_secs(1)),
                Call::Heard { host, bytes } => {
                    gate.heard(at(now_ms), addr(strangers[host]), bytes);
                    heard[host] += bytes;
                }
                Call::Answer { host, bytes } => {
                    if gate.check(at(now_ms), respelled(addr(strangers[host])), bytes, 1).is_ok() {
                        answered[host] += bytes;
                    }
                    prop_assert!(answered[host] <= 3 * heard[host]);
                }
                Call::Probe { host, datagrams, bytes } => {
                    let to = SocketAddr::from(([1, 2, 3, host], 5000));
                    let to = if now_ms % 2 == 0 { to } else { respelled(to) };
                    if gate.check(at(now_ms), to, bytes, datagrams).is_ok() {
                        prop_assert!(bytes <= 1280 * datagrams.max(1));
                        let count = u64::try_from(datagrams.max(1)).unwrap();
                        sent[usize::from(host)].push((now_ms, count));
                        sent_by_node.push((now_ms, count));
                    }
                }
            }
            prop_assert!(gate.probed.entries.len() <= dests_max);
            prop_assert!(gate.heard.entries.len() <= dests_max);
        }
        for sent in sent {
            check_spans(&sent, |ms| if ms < 10_000 { 9 } else { u64::MAX });
        }
        check_spans(&sent_by_node, |ms| 50 + ms * 50 / 1000);
    }
}
