//! Worlds: an internet of namespaces with hosts behind chosen NATs.
//!
//! `patchbay` makes the namespaces, links, addresses and routes; the rules of
//! [`crate::nat`] make the NATs. Every router hangs on one exchange:
//!
//! ```text
//!   host ── router (NAT) ──┐            198.18.0.0/24, 2001:db8::/64
//!   host ── router ────────┼── exchange
//!   host ── home ── isp ───┘            100.64.n.0/24 between home and isp
//! ```
//!
//! A world lives as long as its [`World`]; dropping it takes its namespaces,
//! links and rules along. Worlds share nothing, so they may live side by side.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use patchbay::{Device, IpSupport, Lab, Nat, Router, RouterPreset};
use tokio::process::{Child, Command};

use crate::lag;
use crate::nat::{NatKind, NatRules, stateful_v6};
use crate::nft;

/// The public ranges of every world: what the egress gate of a node under test
/// must be allowed to send to.
pub const PUBLIC_RANGES: [&str; 2] = ["198.18.0.0/15", "2001:db8::/32"];

/// Waits until every link carries packets. The kernel's link watch may take a
/// second to open a new bridge port; an ARP request lost until then is repeated
/// only a second later.
const LINKS_ARE_UP: &str = "
for i in $(seq 500); do
    { ip -o link show type veth | grep -v 'state UP'; bridge link | grep -v 'state forwarding'; } \
        | grep -q . || exit 0
    sleep 0.01
done
ip -o link show type veth >&2; bridge link >&2; exit 1";

/// Pins the addresses of bridges. A bridge takes the lowest of its ports' addresses unless it was
/// given one, so a new port may change it: neighbours then send to the old one, which nobody
/// answers, until their ARP entries expire half a minute later.
const BRIDGES_KEEP_THEIR_ADDRESS: &str = r"
ip -o link show type bridge | while read -r _ bridge rest; do
    ip link set dev ${bridge%:} address $(echo $rest | sed 's|.*link/ether \([^ ]*\).*|\1|')
done";

/// Deletes all flows, and fails if one of a datagram is there afterwards.
const FORGET_FLOWS: &str = "conntrack -F 2>&1; ! conntrack -L -p udp 2>/dev/null | grep .";

/// Leaves of a router its bridge alone, without an address. Snooping would need a querier, which is
/// a router's work; without it a switch floods multicast.
const ONLY_A_SWITCH: &str = r"
ip link set dev ix down
for bridge in $(ip -o link show type bridge | sed 's/^[0-9]*: \([^:]*\):.*/\1/'); do
    ip address flush dev $bridge
    ip link set dev $bridge type bridge mcast_snooping 0
done";

/// Takes a host's routes to what is not on its link.
const NO_ROUTES: &str = "ip -4 route flush default; ip -6 route flush default";

/// A small internet.
#[derive(Clone)]
pub struct World {
    lab: Lab,
    providers: std::sync::Arc<AtomicU8>,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "World({})", self.lab.prefix())
    }
}

/// What two hosts behind one router can do about each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lan {
    /// What the router is to the outside.
    pub nat: NatKind,
    /// Whether the router turns packets for its own outer address round.
    pub hairpin: bool,
    /// Whether hosts of the network are kept apart on the link, as guest
    /// networks do ("client isolation").
    pub isolated: bool,
}

impl World {
    /// Makes an empty world: an exchange without anybody.
    ///
    /// # Errors
    ///
    /// If the process may not make network namespaces.
    pub async fn new() -> Result<Self> {
        // Real root is fine: every namespace thread has a private mount
        // namespace of its own before patchbay mounts anything.
        let lab = Lab::builder()
            .allow_real_root()
            .build()
            .await
            .context("cannot make network namespaces; run as root or with user namespaces")?;
        Ok(Self { lab, providers: <_>::default() })
    }

    /// Adds a host with an IPv4 address behind a router of its own.
    ///
    /// # Errors
    ///
    /// If the kernel refuses a link, an address or a rule.
    pub async fn host(&self, name: &str, kind: NatKind) -> Result<Host> {
        self.host_behind(name, kind, None).await
    }

    /// Adds a host like [`World::host`] that has the address 192.168.1.2, as
    /// the first host of many a home: two of them are each other's twins.
    ///
    /// # Errors
    ///
    /// As [`World::host`].
    pub async fn host_at_home(&self, name: &str, kind: NatKind) -> Result<Host> {
        self.host_behind(name, kind, Some("192.168.1.0/24")).await
    }

    async fn host_behind(&self, name: &str, kind: NatKind, inside: Option<&str>) -> Result<Host> {
        let mut routers = Vec::new();
        let parent = if kind == NatKind::Cgnat {
            // RFC 6598 gives providers 100.64.0.0/10 between the two NATs.
            let n = self.providers.fetch_add(1, Ordering::Relaxed);
            let inner = format!("100.64.{n}.0/24").parse()?;
            let router = self
                .lab
                .add_router(&format!("{name}-isp"))
                .nat(Nat::Moderate)
                .downstream_cidr(inner)
                .build()
                .await?;
            let parent = router.id();
            routers.push(Edge::new(router, kind, false).await?);
            Some(parent)
        } else {
            None
        };
        let mut builder = self.lab.add_router(&format!("{name}-router"));
        builder = match kind {
            NatKind::Open => builder.preset(RouterPreset::PublicV4),
            _ => builder.nat(Nat::Moderate),
        };
        if let Some(inside) = inside {
            builder = builder.downstream_cidr(inside.parse()?);
        }
        if let Some(parent) = parent {
            builder = builder.upstream(parent);
        }
        routers.insert(0, Edge::new(builder.build().await?, kind, false).await?);
        self.device(name, routers).await
    }

    /// Adds two hosts behind one IPv4 router.
    ///
    /// # Errors
    ///
    /// If the kernel refuses a link, an address or a rule, or the kind cannot
    /// do what is asked.
    pub async fn lan(&self, names: [&str; 2], lan: Lan) -> Result<[Host; 2]> {
        if lan.hairpin && matches!(lan.nat, NatKind::Open | NatKind::Symmetric | NatKind::Cgnat) {
            bail!("the lab knows hairpin for single endpoint-independent NATs only");
        }
        let router = self.lab.add_router("shared-router").nat(Nat::Moderate).build().await?;
        let edge = Edge::new(router, lan.nat, lan.hairpin).await?;
        let first = self.device(names[0], vec![edge.clone()]).await?;
        let second = self.device(names[1], vec![edge.clone()]).await?;
        if lan.isolated {
            // Ports of the router's bridge carry `v` and a number as names.
            let isolate = "for p in $(ip -o link | sed -n 's/^[0-9]*: \\(v[0-9]*\\)@.*/\\1/p'); \
                           do bridge link set dev $p isolated on; done";
            nft::run_child(edge.router.spawn_command(nft::shell(isolate))?, "").await?;
        }
        Ok([first, second])
    }

    /// Adds hosts on one switch that leads nowhere: there is no router, no route but to the link
    /// itself, and nobody who gives out addresses or answers names.
    ///
    /// # Errors
    ///
    /// If the kernel refuses a link or an address.
    pub async fn switch(&self, names: &[&str]) -> Result<Vec<Host>> {
        let router = self.lab.add_router("switch").nat(Nat::Moderate).build().await?;
        let edge = Edge { router, outer: None, rules: None };
        let mut hosts = Vec::new();
        for name in names {
            hosts.push(self.device(name, vec![edge.clone()]).await?);
        }
        nft::run_child(edge.router.spawn_command(nft::shell(ONLY_A_SWITCH))?, "").await?;
        for host in &hosts {
            nft::run_child(host.device.spawn_command(nft::shell(NO_ROUTES))?, "").await?;
        }
        Ok(hosts)
    }

    /// Adds a host that has IPv6 only, with a public address; `guarded` puts a
    /// stateful filter (answers only) before it, as home routers do.
    ///
    /// # Errors
    ///
    /// If the kernel refuses a link, an address or a rule.
    pub async fn host_v6(&self, name: &str, guarded: bool) -> Result<Host> {
        let router = self
            .lab
            .add_router(&format!("{name}-router"))
            .preset(RouterPreset::Public)
            .ip_support(IpSupport::V6Only)
            .build()
            .await?;
        if guarded {
            nft::load(&router, &stateful_v6("ix")).await?;
        }
        self.device(name, vec![Edge { router, outer: None, rules: None }]).await
    }

    async fn device(&self, name: &str, edges: Vec<Edge>) -> Result<Host> {
        let router = edges.first().context("a host needs a router")?.router.id();
        let device = self.lab.add_device(name).iface("eth0", router).build().await?;
        let check = || nft::shell(LINKS_ARE_UP);
        nft::run_child(device.spawn_command(check())?, "").await.context(device.ns().to_owned())?;
        nft::run_child(self.lab.ix().spawn_command(check())?, "").await.context("exchange")?;
        let pin = || nft::shell(BRIDGES_KEEP_THEIR_ADDRESS);
        nft::run_child(self.lab.ix().spawn_command(pin())?, "").await.context("exchange")?;
        for edge in &edges {
            let child = edge.router.spawn_command(check())?;
            nft::run_child(child, "").await.context(edge.router.name().to_owned())?;
            nft::run_child(edge.router.spawn_command(pin())?, "").await?;
        }
        Ok(Host { name: name.to_owned(), device, edges })
    }
}

/// A router on a host's way out, with the address it shows to its outside.
#[derive(Clone)]
struct Edge {
    router: Router,
    outer: Option<IpAddr>,
    /// The rules of its NAT.
    rules: Option<String>,
}

impl Edge {
    /// Gives `router` the rules of `kind`.
    async fn new(router: Router, kind: NatKind, hairpin: bool) -> Result<Self> {
        // With the bridge's own netfilter calls, a packet that hairpin turns
        // round is forwarded from port to port below the IP layer.
        let plain_bridge = "for f in /proc/sys/net/bridge/bridge-nf-call-*; do \
                            [ ! -e $f ] || echo 0 > $f; done";
        nft::run_child(router.spawn_command(nft::shell(plain_bridge))?, "").await?;
        if kind == NatKind::Open {
            return Ok(Self { router, outer: None, rules: None });
        }
        let outer = router.uplink_ip().context("a NAT needs an IPv4 address outside")?;
        let wan = if router.iface("ix").is_some() { "ix" } else { "wan" };
        let rules = NatRules { kind, hairpin, wan, outer }.script();
        nft::load(&router, &rules).await?;
        Ok(Self { router, outer: Some(outer.into()), rules: Some(rules) })
    }
}

/// A machine in a world, and the routers between it and the exchange.
#[derive(Clone)]
pub struct Host {
    name: String,
    device: Device,
    /// Nearest first; never empty.
    edges: Vec<Edge>,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host")
            .field("name", &self.name)
            .field("address", &self.address())
            .field("public", &self.public_address())
            .finish_non_exhaustive()
    }
}

impl Host {
    /// The host's name, unique in its world.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address of the host's own interface.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        let v4 = self.device.ip().map(IpAddr::V4);
        v4.or_else(|| self.device.ip6().map(IpAddr::V6))
            .unwrap_or_else(|| Ipv4Addr::UNSPECIFIED.into())
    }

    /// The address that the open network sees.
    #[must_use]
    pub fn public_address(&self) -> IpAddr {
        self.edges.last().and_then(|edge| edge.outer).unwrap_or_else(|| self.address())
    }

    /// `port` at the host's own address.
    #[must_use]
    pub fn socket(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.address(), port)
    }

    /// The namespace, for code that runs in this process.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Starts a program on this host.
    ///
    /// # Errors
    ///
    /// If the program cannot be started.
    pub fn spawn(&self, command: Command) -> Result<Child> {
        self.device.spawn_command(command)
    }

    /// Loses `percent` of the UDP packets between this host and the rest.
    ///
    /// # Errors
    ///
    /// If nftables refuses the rule.
    pub async fn lose(&self, percent: u8) -> Result<()> {
        nft::lose(&self.edges[0].router, percent).await
    }

    /// Holds what this host sends for `one_way` on its way through its router.
    ///
    /// # Errors
    ///
    /// If the kernel has no TUN devices, or the host's router was told before.
    pub async fn lag(&self, one_way: Duration) -> Result<()> {
        lag::hold(&self.edges[0].router, one_way).await
    }

    /// Makes every NAT of this host forget all mappings and flows, as if it had been switched off
    /// and on again. Do it while nothing runs on the host.
    ///
    /// # Errors
    ///
    /// If nftables or conntrack refuse, or something is left.
    pub async fn forget_mappings(&self) -> Result<()> {
        for edge in &self.edges {
            if let Some(rules) = &edge.rules {
                // Loading replaces the sets, conntrack holds the flows.
                nft::load(&edge.router, rules).await?;
                nft::run_child(edge.router.spawn_command(nft::shell(FORGET_FLOWS))?, "").await?;
            }
        }
        Ok(())
    }

    fn outermost(&self) -> &Router {
        &self.edges[self.edges.len() - 1].router
    }
}

/// Drops every UDP packet that goes straight between two hosts behind different
/// routers. Paths over third hosts stay as they are.
///
/// # Errors
///
/// If the hosts share a router, or nftables refuses the rule.
pub async fn cut(a: &Host, b: &Host) -> Result<()> {
    if a.outermost().id() == b.outermost().id() {
        bail!("{} and {} share a router: their link is not routed", a.name, b.name);
    }
    let peer = [b.public_address()];
    nft::cut(a.outermost(), &peer).await?;
    nft::cut(b.outermost(), &[a.public_address()]).await
}

/// Undoes [`cut`].
///
/// # Errors
///
/// If nftables refuses.
pub async fn heal(a: &Host, b: &Host) -> Result<()> {
    nft::heal(a.outermost()).await?;
    nft::heal(b.outermost()).await
}
