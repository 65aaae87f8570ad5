use std::net::IpAddr;

use if_addrs::{IfAddr, IfOperStatus, Ifv4Addr, Ifv6Addr, Interface};

use super::*;

fn interface(name: &str, addr: &str, prefix: u8) -> Interface {
    let addr = match addr.parse().unwrap() {
        IpAddr::V4(ip) => {
            let netmask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0).into();
            IfAddr::V4(Ifv4Addr { ip, netmask, prefixlen: prefix, broadcast: None })
        }
        IpAddr::V6(ip) => {
            IfAddr::V6(Ifv6Addr { ip, netmask: ip, prefixlen: prefix, broadcast: None })
        }
    };
    let oper_status = IfOperStatus::Up;
    Interface { name: name.into(), addr, index: Some(2), oper_status, is_p2p: false }
}

/// A machine with a LAN, a way to the internet, a tunnel, and a LAN of IPv6 alone.
fn interfaces() -> Vec<Interface> {
    vec![
        interface("lo", "127.0.0.1", 8),
        interface("eth0", "192.168.7.2", 24),
        interface("eth0", "2001:db8:7::2", 64),
        interface("eth0", "fe80::2", 64),
        interface("wan0", "203.0.113.9", 24),
        interface("wan0", "fe80::9", 64),
        interface("link0", "10.0.0.1", 31),
        Interface { is_p2p: true, ..interface("tun0", "10.9.0.1", 24) },
        interface("six0", "fe80::6", 64),
    ]
}

fn config() -> LanConfig {
    LanConfig { id: id(1), network: "our-club".into(), local: vec!["[::]:4433".parse().unwrap()] }
}

fn id(n: u8) -> NodeId {
    NodeId::from_bytes([n; 32])
}

fn attached() -> Attached {
    Attached::of(interfaces(), &config().local)
}

/// An instance as others see it.
fn instance(id: &str, network: &str, ips: &str, port: u16) -> ResolvedService {
    let properties = [(KEY_ID, id), (KEY_NETWORK, network)];
    let info = ServiceInfo::new(SERVICE, "x", "x.local.", ips, port, &properties[..]);
    info.unwrap().as_resolved_service()
}

fn check(ips: &str, expect: &[&str]) {
    let theirs = instance(&id(2).to_string(), &network_hash("our-club", id(2)), ips, 4000);
    let found = peer_of(&config(), &attached(), &theirs);
    let expect: Vec<SocketAddr> = expect.iter().map(|addr| addr.parse().unwrap()).collect();
    let expect = (!expect.is_empty()).then(|| PeerAddr { addrs: expect, ..id(2).into() });
    assert_eq!(found, expect, "{ips}");
}

#[test]
fn only_addresses_of_attached_networks_are_dialled() {
    check("192.168.7.3", &["192.168.7.3:4000"]);
    check("2001:db8:7::3,192.168.7.3", &["192.168.7.3:4000", "[2001:db8:7::3]:4000"]);
    check("192.168.8.3", &[]);
    check("8.8.8.8,192.168.7.3", &["192.168.7.3:4000"]);
    check("127.0.0.1,10.9.0.2,224.0.0.251,0.0.0.0,::1,2001:db8:8::3", &[]);
    check("", &[]);
    check("fe80::3,192.168.7.3", &["192.168.7.3:4000"]);
    check("fe80::3,169.254.0.3", &[]);
    let many: Vec<_> = (10..99).map(|n| format!("192.168.7.{n}")).collect();
    let first: Vec<_> = many.iter().take(4).map(|ip| format!("{ip}:4000")).collect();
    check(&many.join(","), &first.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn where_nobody_gives_addresses_link_local_ones_do() {
    let bare = vec![interface("eth0", "169.254.7.2", 16), interface("eth0", "fe80::2", 64)];
    let attached = Attached::of(bare, &config().local);
    let hash = network_hash("our-club", id(2));
    let theirs = instance(&id(2).to_string(), &hash, "169.254.9.9,10.0.0.3", 4000);
    let found = peer_of(&config(), &attached, &theirs);
    assert_eq!(found.unwrap().addrs, ["169.254.9.9:4000".parse().unwrap()]);
}

#[test]
fn the_node_is_announced_where_a_lan_is() {
    let serves = |attached: &Attached| {
        let interfaces = interfaces();
        let served = interfaces.iter().filter(|interface| attached.serves(interface));
        served.map(|interface| interface.ip().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(serves(&attached()), ["192.168.7.2", "2001:db8:7::2", "fe80::2", "fe80::6"]);
    let bound = |addr: &str| Attached::of(interfaces(), &[addr.parse().unwrap()]);
    assert_eq!(serves(&bound("192.168.7.2:1")), ["192.168.7.2"]);
    assert_eq!(serves(&bound("0.0.0.0:1")), ["192.168.7.2"]);
    assert_eq!(serves(&bound("127.0.0.1:1")), [""; 0]);
}

#[test]
fn what_is_not_a_peer_of_the_network_is_passed_over() {
    let (two, hash) = (id(2).to_string(), network_hash("our-club", id(2)));
    let of = |id: &str, network: &str, port| {
        peer_of(&config(), &attached(), &instance(id, network, "192.168.7.3", port))
    };
    assert!(of(&two, &hash, 4000).is_some());
    assert_eq!(of(&two, &hash, 0), None);
    assert_eq!(of(&two, &network_hash("test", id(2)), 4000), None);
    assert_eq!(of(&two, &network_hash("our-club", id(3)), 4000), None, "it is of another node");
    assert_eq!(of(&id(1).to_string(), &network_hash("our-club", id(1)), 4000), None, "ourselves");
    for junk in ["", "\u{1b}[2J", "\u{fffd}", &"a".repeat(52), &two[1..]] {
        assert_eq!(of(junk, &hash, 4000), None);
        assert_eq!(of(&two, junk, 4000), None);
    }
    let bare = ServiceInfo::new(SERVICE, "x", "x.local.", "192.168.7.3", 1, None).unwrap();
    assert_eq!(peer_of(&config(), &attached(), &bare.as_resolved_service()), None);
}

#[test]
fn what_is_announced_is_understood_by_others_and_names_no_network() {
    let all = IfPredicate::new(|_| true);
    let (first, second) = (service(&config(), all.clone()), service(&config(), all));
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_ne!(first.get_fullname(), second.get_fullname());
    let mut resolved = first.as_resolved_service();
    resolved.addresses = [IpAddr::from([192, 168, 7, 3]).into()].into();
    let theirs = LanConfig { id: id(9), ..config() };
    let expect = PeerAddr { addrs: vec!["192.168.7.3:4433".parse().unwrap()], ..id(1).into() };
    assert_eq!(peer_of(&theirs, &attached(), &resolved), Some(expect));
    assert!(!format!("{resolved:?}").contains("our-club"));
}
