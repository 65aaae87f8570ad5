//! The real binary in every world of the matrix: direct where plain punching
//! can, relayed everywhere else, and no ping unanswered.

use std::time::Duration;

use anyhow::{Result, ensure};
use baran_lab::harness::{self, Scratch};
use baran_lab::matrix::Case;
use baran_lab::nat::NatKind;
use baran_lab::node::{Node, Route};
use baran_lab::world::{Lan, World};

fn check(cases: &[Case]) -> Result<()> {
    harness::test(async {
        for case in cases {
            let outcome = case.run(Duration::ZERO).await?;
            ensure!(outcome.is_expected(), "{}: {}", case.name(), outcome.json());
        }
        Ok(())
    })
}

/// This kind against itself and every kind after it.
fn check_from(kind: NatKind) -> Result<()> {
    let later = NatKind::SINGLE.into_iter().filter(|other| *other >= kind);
    check(&later.map(|other| Case::Apart(kind, other)).collect::<Vec<_>>())
}

#[test]
fn open_against_all() -> Result<()> {
    check_from(NatKind::Open)
}

#[test]
fn full_cone_against_the_rest() -> Result<()> {
    check_from(NatKind::FullCone)
}

#[test]
fn address_restricted_against_the_rest() -> Result<()> {
    check_from(NatKind::AddressRestricted)
}

#[test]
fn port_restricted_against_the_rest() -> Result<()> {
    check_from(NatKind::PortRestricted)
}

#[test]
fn symmetric_against_symmetric() -> Result<()> {
    check_from(NatKind::Symmetric)
}

#[test]
fn the_dialling_side_may_be_the_harder_one() -> Result<()> {
    check(&[
        Case::Apart(NatKind::Symmetric, NatKind::Open),
        Case::Apart(NatKind::Symmetric, NatKind::AddressRestricted),
        Case::Apart(NatKind::PortRestricted, NatKind::Open),
    ])
}

#[test]
fn carrier_grade_nat() -> Result<()> {
    check(&[
        Case::Apart(NatKind::Cgnat, NatKind::Cgnat),
        Case::Apart(NatKind::Cgnat, NatKind::PortRestricted),
        Case::Apart(NatKind::Symmetric, NatKind::Cgnat),
    ])
}

#[test]
fn two_hosts_behind_one_nat() -> Result<()> {
    let lan =
        |hairpin, isolated| Case::Together(Lan { nat: NatKind::PortRestricted, hairpin, isolated });
    check(&[lan(false, false), lan(true, false), lan(true, true), lan(false, true)])
}

#[test]
fn two_hosts_with_one_private_address() -> Result<()> {
    check(&[Case::Twins])
}

#[test]
fn ipv6_only() -> Result<()> {
    check(&[Case::Ipv6])
}

#[test]
fn five_percent_loss() -> Result<()> {
    let kinds = [NatKind::PortRestricted, NatKind::Symmetric];
    check(&kinds.map(|kind| Case::Lossy(kind, kind, 5)))
}

#[test]
fn the_relay_may_be_behind_a_nat() -> Result<()> {
    check(&[Case::NattedRelay])
}

#[test]
fn a_node_knows_its_own_nat() -> Result<()> {
    harness::test(async {
        let dir = Scratch::new("node")?;
        let world = World::new().await?;
        let mut mirrors: Vec<Node> = Vec::new();
        for name in ["m1", "m2"] {
            let known: Vec<_> = mirrors.iter().map(Node::at).collect();
            let host = world.host(name, NatKind::Open).await?;
            mirrors.push(Node::up(&host, dir.path(), &known, &[]).await?);
        }
        let known: Vec<_> = mirrors.iter().map(Node::at).collect();
        for (name, kind, nat) in [
            ("a", NatKind::Open, "none"),
            ("b", NatKind::PortRestricted, "endpoint-independent"),
            ("c", NatKind::Symmetric, "address-dependent"),
        ] {
            let host = world.host(name, kind).await?;
            let node = Node::up(&host, dir.path(), &known, &[]).await?;
            for mirror in &mirrors {
                node.until_route(&mirror.id, Route::Direct, harness::SETTLE).await?;
            }
            let status = node.until_status(harness::SETTLE, |status| status["nat"] == nat).await?;
            let observed = status["observed"].to_string();
            let public = host.public_address().to_string();
            ensure!(observed.contains(&public), "{kind}: {public} is not in {observed}");
        }
        Ok(())
    })
}

#[test]
fn sigterm_ends_a_node_cleanly() -> Result<()> {
    harness::test(async {
        let dir = Scratch::new("node")?;
        let world = World::new().await?;
        let host = world.host("m", NatKind::Open).await?;
        Node::up(&host, dir.path(), &[], &[]).await?.daemon.terminate().await
    })
}
