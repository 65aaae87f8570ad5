//! Who reaches whom: every pair of NATs, with the real binary.
//!
//! The cast is always the same: an ordinary node M that A and B know, nothing
//! else. A pings B by its id alone, so M has to be mirror, signaller and, until
//! (or instead of) a direct path, relay. The verdict is the route of the last
//! reply; the expectation is [`NatKind::can_punch`].

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::harness::Scratch;
use crate::nat::NatKind;
use crate::node::{Node, Pings, Route};
use crate::table::{Table, ms};
use crate::world::{Host, Lan, World, cut};

/// Pings of one round, and the pause between two.
const PINGS: u32 = 25;
const PING_INTERVAL_MS: u32 = 100;

/// Rounds that a pair gets to go direct when it should.
const ROUNDS: u32 = 4;

/// A place for A and B in a world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Case {
    /// Each behind a router of its own.
    Apart(NatKind, NatKind),
    /// The same, where A's router loses this percentage of UDP.
    Lossy(NatKind, NatKind, u8),
    /// Both behind one router.
    Together(Lan),
    /// Each behind a port-restricted router of its own, with one and the same
    /// private address.
    Twins,
    /// IPv6 only, each behind a stateful filter.
    Ipv6,
    /// All three behind port-restricted NATs, the introducer gone, the straight
    /// way between A and B closed: M relays from behind its NAT.
    NattedRelay,
}

impl Case {
    /// Every case of the table in docs/.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let mut cases = Vec::new();
        for (n, a) in NatKind::ALL.into_iter().enumerate() {
            cases.extend(NatKind::ALL[n..].iter().map(|b| Self::Apart(a, *b)));
        }
        for isolated in [false, true] {
            for hairpin in [false, true] {
                let nat = NatKind::PortRestricted;
                cases.push(Self::Together(Lan { nat, hairpin, isolated }));
            }
        }
        cases.push(Self::Twins);
        cases.push(Self::Ipv6);
        cases.push(Self::Lossy(NatKind::PortRestricted, NatKind::PortRestricted, 5));
        cases.push(Self::Lossy(NatKind::Symmetric, NatKind::Symmetric, 5));
        cases.push(Self::NattedRelay);
        cases
    }

    /// The name in tables.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Apart(a, b) => format!("{a} × {b}"),
            Self::Lossy(a, b, percent) => format!("{a} × {b}, {percent} % loss"),
            Self::Together(lan) => format!(
                "one {} NAT, {} hairpin, {}",
                lan.nat,
                if lan.hairpin { "with" } else { "no" },
                if lan.isolated { "hosts isolated" } else { "one link" }
            ),
            Self::Twins => "port-restricted × port-restricted, equal addresses".to_owned(),
            Self::Ipv6 => "IPv6 only × IPv6 only, stateful filters".to_owned(),
            Self::NattedRelay => "relay behind a port-restricted NAT".to_owned(),
        }
    }

    /// What plain punching can do.
    #[must_use]
    pub fn expected(self) -> Route {
        let direct = match self {
            Self::Apart(a, b) | Self::Lossy(a, b, _) => a.can_punch(b),
            Self::Together(lan) => !lan.isolated || lan.hairpin,
            Self::Twins | Self::Ipv6 => true,
            Self::NattedRelay => false,
        };
        if direct { Route::Direct } else { Route::Relayed }
    }

    /// Runs the case in a world where each host's packets are held for `lag`
    /// on their way out (zero: as fast as the machine). Hosts behind one router
    /// are spared: hairpin and lag exclude each other.
    ///
    /// # Errors
    ///
    /// If a node does not start, join or answer; a route other than the
    /// expected one is no error but an outcome.
    pub async fn run(self, lag: Duration) -> Result<Outcome> {
        let dir = Scratch::new(&self.name())?;
        let found = match self {
            Self::NattedRelay => natted_relay(dir.path(), lag).await,
            _ => self.with_mirror(dir.path(), lag).await,
        };
        let pings = found.with_context(|| self.name())?;
        ensure!(pings.complete, "{}: a ping was not answered", self.name());
        Ok(Outcome { case: self, pings })
    }

    async fn with_mirror(self, dir: &Path, lag: Duration) -> Result<Pings> {
        let world = World::new().await?;
        let [m, a, b] = self.hosts(&world).await?;
        delay(&[&m], lag).await?;
        if !matches!(self, Self::Together(_)) {
            delay(&[&a, &b], lag).await?;
        }
        let mirror = Node::up(&m, dir, &[], &[]).await?;
        let known = [mirror.at()];
        let mut a = Node::up(&a, dir, &known, &[]).await?;
        let mut b = Node::up(&b, dir, &known, &[]).await?;
        tokio::try_join!(a.joined(), b.joined())?;
        settle(&a, &b, self.expected()).await
    }

    async fn hosts(self, world: &World) -> Result<[Host; 3]> {
        if self == Self::Ipv6 {
            let (a, b) = (world.host_v6("a", true).await?, world.host_v6("b", true).await?);
            return Ok([world.host_v6("m", false).await?, a, b]);
        }
        let m = world.host("m", NatKind::Open).await?;
        let (a, b) = match self {
            Self::Apart(a, b) | Self::Lossy(a, b, _) => {
                (world.host("a", a).await?, world.host("b", b).await?)
            }
            Self::Twins => {
                let kind = NatKind::PortRestricted;
                (world.host_at_home("a", kind).await?, world.host_at_home("b", kind).await?)
            }
            Self::Together(lan) => world.lan(["a", "b"], lan).await?.into(),
            Self::Ipv6 | Self::NattedRelay => unreachable!("they build their own worlds"),
        };
        if let Self::Lossy(_, _, percent) = self {
            a.lose(percent).await?;
        }
        Ok([m, a, b])
    }
}

/// Pings until the route is the expected one, for some rounds at most. A pair
/// that should stay relayed gets one round: time to go direct by mistake.
async fn settle(a: &Node, b: &Node, expected: Route) -> Result<Pings> {
    let mut first: Option<Pings> = None;
    for _ in 0..ROUNDS {
        let mut pings = a.ping(&b.id, PINGS, PING_INTERVAL_MS).await?;
        if let Some(first) = &first {
            pings.first_reply_ms = first.first_reply_ms;
            pings.complete &= first.complete;
        }
        if pings.last_route() == Some(expected) || expected == Route::Relayed {
            return Ok(pings);
        }
        first = Some(pings);
    }
    first.context("no round of pings")
}

async fn delay(hosts: &[&Host], lag: Duration) -> Result<()> {
    if !lag.is_zero() {
        for host in hosts {
            host.lag(lag).await?;
        }
    }
    Ok(())
}

async fn natted_relay(dir: &Path, lag: Duration) -> Result<Pings> {
    let world = World::new().await?;
    let introducer = world.host("p", NatKind::Open).await?;
    let mut introducer = Node::up(&introducer, dir, &[], &[]).await?;
    let known = [introducer.at()];
    let mut nodes = Vec::new();
    for name in ["m", "a", "b"] {
        let host = world.host(name, NatKind::PortRestricted).await?;
        delay(&[&host], lag).await?;
        let mut node = Node::up(&host, dir, &known, &[]).await?;
        node.joined().await?;
        nodes.push(node);
    }
    let [m, a, b] = &nodes[..] else { unreachable!("three were started") };
    cut(&a.host, &b.host).await?;
    for end in [a, b] {
        let pings = settle(end, m, Route::Direct).await?;
        ensure!(pings.last_route() == Some(Route::Direct), "no direct path to the relay");
    }
    introducer.daemon.process.kill().await?;
    // Nobody tells the survivors; half a second is enough to notice or not.
    sleep(Duration::from_millis(500)).await;
    // The two may be linked already, through the introducer: what is sent until that is noticed is
    // lost, and the next round is not.
    let mut first_reply_ms = None;
    for _ in 0..ROUNDS {
        let pings = a.ping(&b.id, PINGS, PING_INTERVAL_MS).await?;
        first_reply_ms = first_reply_ms.or(pings.first_reply_ms);
        if pings.complete {
            let others: BTreeSet<_> = pings.replies.iter().map(|reply| &reply.via).collect();
            let is_by_m = others == BTreeSet::from([&Some(m.id.clone())]);
            ensure!(is_by_m, "relayed by {others:?}, not {}", m.id);
            return Ok(Pings { first_reply_ms, ..pings });
        }
    }
    bail!("no round without a lost ping")
}

/// What a case came to.
#[derive(Debug)]
pub struct Outcome {
    /// The case.
    pub case: Case,
    /// The round of pings that decided.
    pub pings: Pings,
}

impl Outcome {
    /// The route in the end.
    #[must_use]
    pub fn route(&self) -> Option<Route> {
        self.pings.last_route()
    }

    /// Whether it is the expected one.
    #[must_use]
    pub fn is_expected(&self) -> bool {
        self.route() == Some(self.case.expected())
    }

    /// One object for a JSON line.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "case": self.case.name(),
            "outcome": self.route().map(|route| route.to_string()),
            "expected": self.case.expected().to_string(),
            "first_reply_ms": self.pings.first_reply_ms,
            "direct_after_ms": self.pings.direct_after_ms,
            "rtt_direct_ms": self.pings.rtt_ms(Route::Direct),
            "rtt_relayed_ms": self.pings.rtt_ms(Route::Relayed),
        })
    }
}

/// The table of outcomes; cases that failed have their error's first line.
#[must_use]
pub fn table(outcomes: &[(Case, Result<Outcome>)]) -> Table {
    let mut table = Table::new(&[
        "A × B",
        "outcome",
        "expected",
        "first reply (ms)",
        "direct after (ms)",
        "rtt (ms)",
    ]);
    for (case, outcome) in outcomes {
        let mut cells = vec![case.name()];
        match outcome {
            Ok(outcome) => {
                let route = outcome.route();
                cells.push(route.map_or_else(|| "none".to_owned(), |route| route.to_string()));
                cells.push(case.expected().to_string());
                cells.push(ms(outcome.pings.first_reply_ms));
                cells.push(ms(outcome.pings.direct_after_ms));
                cells.push(ms(route.and_then(|route| outcome.pings.rtt_ms(route))));
            }
            Err(error) => {
                let text = error.root_cause().to_string();
                let line = text.lines().next().unwrap_or_default();
                cells.push(format!("failed: {}", line.chars().take(60).collect::<String>()));
                cells.push(case.expected().to_string());
            }
        }
        table.row(cells);
    }
    table
}
