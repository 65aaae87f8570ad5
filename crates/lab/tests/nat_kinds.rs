//! The lab's NATs are what their names say, shown with plain UDP.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use baran_lab::harness;
use baran_lab::nat::NatKind;
use baran_lab::probe::{Probe, QUIET, punch, reflect};
use baran_lab::world::{Lan, World, cut, heal};

/// Whose datagrams come in through a mapping that only `M:1` was sent to:
/// M's other port, another host, the same host and port (always).
fn filter_of(kind: NatKind) -> (bool, bool) {
    match kind {
        NatKind::Open | NatKind::FullCone => (true, true),
        NatKind::AddressRestricted => (true, false),
        NatKind::PortRestricted | NatKind::Symmetric | NatKind::Cgnat => (false, false),
    }
}

#[test]
fn mapping_and_filtering_are_those_of_rfc_4787() -> Result<()> {
    harness::test(async {
        let world = World::new().await?;
        let [near, far] =
            [world.host("m", NatKind::Open).await?, world.host("n", NatKind::Open).await?];
        let (one, two) = (reflect(&near, 1001).await?, reflect(&near, 1002).await?);
        let three = reflect(&far, 1001).await?;
        let port = Probe::bind(&near, 1003).await?;
        let stranger = Probe::bind(&far, 1003).await?;
        for (n, kind) in NatKind::ALL.into_iter().enumerate() {
            let host = world.host(&format!("h{n}"), kind).await?;
            let probe = Probe::bind(&host, 4000).await?;
            let seen = probe.seen_by(one).await.with_context(|| kind.name())?;
            ensure!(seen.ip() == host.public_address(), "{kind}: seen as {seen}");
            let lets_in = (probe.hears(&port, seen).await?, probe.hears(&stranger, seen).await?);
            ensure!(lets_in == filter_of(kind), "{kind} lets in {lets_in:?}");
            let again = [probe.seen_by(two).await?, probe.seen_by(three).await?];
            let stays = again.iter().all(|other| *other == seen);
            ensure!(stays == kind.is_endpoint_independent(), "{kind}: {seen}, then {again:?}");
        }
        Ok(())
    })
}

#[test]
fn unsolicited_datagrams_do_not_move_a_mapping() -> Result<()> {
    harness::test(async {
        let world = World::new().await?;
        let far = world.host("m", NatKind::Open).await?;
        let reflector = reflect(&far, 1001).await?;
        let kinds = NatKind::ALL.into_iter().filter(|kind| kind.is_endpoint_independent());
        for (n, kind) in kinds.enumerate() {
            let host = world.host(&format!("h{n}"), kind).await?;
            let probe = Probe::bind(&host, 4000).await?;
            let early = Probe::bind(&far, 2000 + u16::try_from(n)?).await?;
            let at = std::net::SocketAddr::new(host.public_address(), 4000);
            early.send(at, b"early").await?;
            tokio::time::sleep(QUIET).await;
            ensure!(probe.seen_by(reflector).await? == at, "{kind}: port not kept");
            while probe.receive(Duration::from_millis(1)).await.is_some() {}
            early.send(at, b"early").await?;
            tokio::time::sleep(QUIET).await;
            probe.send(far.socket(2000 + u16::try_from(n)?), b"out").await?;
            let (from, _) = loop {
                let next = early.receive(QUIET).await;
                let next = next.ok_or_else(|| anyhow::anyhow!("{kind}: nothing came out"))?;
                if next.1 == b"out" {
                    break next;
                }
            };
            ensure!(from == at, "{kind}: moved from {at} to {from}");
        }
        Ok(())
    })
}

#[test]
fn two_hosts_with_one_port_keep_one_mapping_each() -> Result<()> {
    harness::test(async {
        let world = World::new().await?;
        let far = world.host("m", NatKind::Open).await?;
        let reflectors = [reflect(&far, 1001).await?, reflect(&far, 1002).await?];
        let lan = Lan { nat: NatKind::FullCone, hairpin: false, isolated: false };
        let [a, b] = world.lan(["a", "b"], lan).await?;
        let (a, b) = (Probe::bind(&a, 4000).await?, Probe::bind(&b, 4000).await?);
        let at_a = a.seen_by(reflectors[0]).await?;
        let at_b = b.seen_by(reflectors[0]).await?;
        ensure!(at_a != at_b, "both are {at_a}");
        ensure!(b.seen_by(reflectors[1]).await? == at_b, "the second host's mapping moved");
        ensure!(a.seen_by(reflectors[1]).await? == at_a, "the first host's mapping moved");
        let stranger = Probe::bind(&far, 1003).await?;
        ensure!(a.hears(&stranger, at_a).await? && b.hears(&stranger, at_b).await?);
        Ok(())
    })
}

#[test]
fn punching_works_exactly_where_it_should() -> Result<()> {
    harness::test(async {
        for (n, a_kind) in NatKind::ALL.into_iter().enumerate() {
            for b_kind in &NatKind::ALL[n..] {
                let world = World::new().await?;
                let reflector = reflect(&world.host("m", NatKind::Open).await?, 1001).await?;
                let a = Probe::bind(&world.host("a", a_kind).await?, 4000).await?;
                let b = Probe::bind(&world.host("b", *b_kind).await?, 5000).await?;
                let ends = (a.seen_by(reflector).await?, b.seen_by(reflector).await?);
                let open = punch((&a, ends.0), (&b, ends.1)).await?;
                ensure!(open == a_kind.can_punch(*b_kind), "{a_kind} and {b_kind}: {open}");
            }
        }
        Ok(())
    })
}

#[test]
fn hosts_of_one_nat_meet_on_the_link_or_by_hairpin() -> Result<()> {
    harness::test(async {
        for (hairpin, isolated) in [(false, false), (true, false), (false, true), (true, true)] {
            let world = World::new().await?;
            let reflector = reflect(&world.host("m", NatKind::Open).await?, 1001).await?;
            let lan = Lan { nat: NatKind::PortRestricted, hairpin, isolated };
            let [a_host, b_host] = world.lan(["a", "b"], lan).await?;
            let (a, b) = (Probe::bind(&a_host, 4000).await?, Probe::bind(&b_host, 5000).await?);
            let ends = (a.seen_by(reflector).await?, b.seen_by(reflector).await?);
            let local = punch((&a, a_host.socket(4000)), (&b, b_host.socket(5000))).await?;
            ensure!(local != isolated, "{lan:?}: by the link {local}");
            let outer = punch((&a, ends.0), (&b, ends.1)).await?;
            ensure!(outer == hairpin, "{lan:?}: by the outer address {outer}");
            if hairpin {
                b.send(ends.0, b"x").await?;
                let from = a.receive(QUIET).await.map(|(from, _)| from);
                ensure!(from == Some(ends.1), "a hairpinned packet came from {from:?}");
            }
        }
        Ok(())
    })
}

#[test]
fn twins_with_one_private_address_punch_each_other() -> Result<()> {
    harness::test(async {
        let world = World::new().await?;
        let reflector = reflect(&world.host("m", NatKind::Open).await?, 1001).await?;
        let kind = NatKind::PortRestricted;
        let (a, b) = (world.host_at_home("a", kind).await?, world.host_at_home("b", kind).await?);
        ensure!(a.address() == b.address(), "{a:?} and {b:?}");
        let (a, b) = (Probe::bind(&a, 4000).await?, Probe::bind(&b, 4000).await?);
        let ends = (a.seen_by(reflector).await?, b.seen_by(reflector).await?);
        ensure!(punch((&a, ends.0), (&b, ends.1)).await?, "not punched");
        Ok(())
    })
}

#[test]
fn guarded_ipv6_hosts_punch_through_their_filters() -> Result<()> {
    harness::test(async {
        let world = World::new().await?;
        let far = world.host_v6("m", false).await?;
        let reflector = reflect(&far, 1001).await?;
        let (a, b) = (world.host_v6("a", true).await?, world.host_v6("b", true).await?);
        let (a, b) = (Probe::bind(&a, 4000).await?, Probe::bind(&b, 5000).await?);
        let ends = (a.seen_by(reflector).await?, b.seen_by(reflector).await?);
        let stranger = Probe::bind(&far, 1003).await?;
        ensure!(!a.hears(&stranger, ends.0).await?, "the filter lets a stranger in");
        ensure!(punch((&a, ends.0), (&b, ends.1)).await?, "not punched");
        Ok(())
    })
}

#[test]
fn loss_is_near_its_figure_and_a_cut_is_complete() -> Result<()> {
    harness::test(async {
        let world = World::new().await?;
        let (m, n) = (world.host("m", NatKind::Open).await?, world.host("n", NatKind::Open).await?);
        let (at_m, at_n) = (Probe::bind(&m, 1).await?, Probe::bind(&n, 1).await?);
        m.lose(5).await?;
        let mut arrived = 0;
        for _ in 0..2000 {
            at_m.send(n.socket(1), b"x").await?;
            arrived += u32::from(at_n.receive(Duration::from_millis(3)).await.is_some());
        }
        // Four standard deviations of a binomial (n = 2000, p = 0.05) are 39.
        ensure!((1850..=1950).contains(&arrived), "{arrived} of 2000 arrived at 5 % loss");
        m.lose(0).await?;
        ensure!(at_n.hears(&at_m, n.socket(1)).await?, "loss was not taken away");
        cut(&m, &n).await?;
        ensure!(!at_n.hears(&at_m, n.socket(1)).await?, "a packet passed the cut");
        ensure!(!at_m.hears(&at_n, m.socket(1)).await?, "a packet passed the cut");
        heal(&m, &n).await?;
        ensure!(at_n.hears(&at_m, n.socket(1)).await?, "the path was not healed");
        Ok(())
    })
}

#[test]
fn lag_delays_without_changing_the_nat() -> Result<()> {
    harness::test(async {
        let world = World::new().await?;
        let m = world.host("m", NatKind::Open).await?;
        let reflectors = [reflect(&m, 1001).await?, reflect(&m, 1002).await?];
        let lag = Duration::from_millis(40);
        for (n, kind) in NatKind::ALL.into_iter().enumerate() {
            let host = world.host(&format!("h{n}"), kind).await?;
            host.lag(lag).await?;
            let probe = Probe::bind(&host, 4000).await?;
            let seen = probe.seen_by(reflectors[0]).await?;
            ensure!(seen.ip() == host.public_address(), "{kind}: seen as {seen}");
            let start = std::time::Instant::now();
            let again = probe.seen_by(reflectors[1]).await?;
            let took = start.elapsed();
            ensure!(took >= lag && took < lag * 3, "{kind}: a round trip took {took:?}");
            ensure!((again == seen) == kind.is_endpoint_independent(), "{kind}: {seen}, {again}");
        }
        Ok(())
    })
}

#[test]
fn a_nat_forgets_its_mappings_when_told() -> Result<()> {
    harness::test(async {
        let world = World::new().await?;
        let m = world.host("m", NatKind::Open).await?;
        let reflector = reflect(&m, 1001).await?;
        let far = Probe::bind(&m, 1002).await?;
        let kinds = NatKind::ALL.into_iter().filter(|kind| kind.is_endpoint_independent());
        for (n, kind) in kinds.filter(|kind| *kind != NatKind::Open).enumerate() {
            let host = world.host(&format!("h{n}"), kind).await?;
            let probe = Probe::bind(&host, 4000).await?;
            let seen = probe.seen_by(reflector).await?;
            probe.send(m.socket(1002), b"out").await?;
            ensure!(probe.hears(&far, seen).await?, "{kind}: no mapping");
            host.forget_mappings().await?;
            ensure!(!probe.hears(&far, seen).await?, "{kind}: the mapping is still there");
            ensure!(probe.seen_by(reflector).await? == seen, "{kind}: another port than before");
        }
        Ok(())
    })
}

#[test]
fn a_switch_carries_multicast_and_leads_nowhere() -> Result<()> {
    harness::test(async {
        let world = World::new().await?;
        let far = world.host("m", NatKind::Open).await?;
        let [a, b, c] = &world.switch(&["a", "b", "c"]).await?[..] else { bail!("three hosts") };
        let group = Ipv4Addr::new(224, 0, 0, 251);
        let (at_b, at_c) = (Probe::bind(b, 5353).await?, Probe::bind(c, 5353).await?);
        at_b.join(b, group)?;
        at_c.join(c, group)?;
        let from_a = Probe::bind_at(a, a.socket(5353)).await?;
        for probe in [&at_b, &at_c] {
            ensure!(probe.hears(&from_a, (group, 5353).into()).await?, "multicast does not pass");
        }
        ensure!(at_b.hears(&from_a, b.socket(5353)).await?, "unicast does not pass");
        ensure!(from_a.send(far.socket(1), b"x").await.is_err(), "there is a way out");
        Ok(())
    })
}
