//! nftables in a namespace: load a ruleset, cut a path, lose packets, undo.
//!
//! Each purpose has a table of its own (`lab_cut`, `lab_loss`), so that undoing
//! one leaves the NAT and the other alone. They sit in the forward hook before
//! the NAT's filter, of the routers; hosts never notice more than silence.

use std::net::IpAddr;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use patchbay::Router;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

/// Loads `script` in the router's namespace as one transaction.
///
/// # Errors
///
/// If `nft` is missing or refuses the script; nothing has changed then.
pub async fn load(router: &Router, script: &str) -> Result<()> {
    let mut command = Command::new("nft");
    command.args(["-f", "-"]);
    with_pipes(&mut command);
    let child = router.spawn_command(command).context("start nft; is nftables installed?")?;
    run_child(child, script)
        .await
        .with_context(|| format!("nftables rules of {}:\n{script}", router.name()))
}

/// Prepares a command for [`run_child`].
fn with_pipes(command: &mut Command) {
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
}

/// A shell that stops at the first failure, for [`run_child`].
pub(crate) fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-ec", script]);
    with_pipes(&mut command);
    command
}

/// Gives a program its standard input and waits for its success.
pub(crate) async fn run_child(mut child: Child, input: &str) -> Result<()> {
    let mut stdin = child.stdin.take().context("standard input was asked for")?;
    stdin.write_all(input.as_bytes()).await?;
    drop(stdin);
    let output = child.wait_with_output().await?;
    if !output.status.success() {
        bail!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// The ruleset that drops every UDP packet between this router's inside and
/// `peers`, both ways, whatever flow it belongs to.
fn cut_script(peers: &[IpAddr]) -> String {
    let mut rules = String::from("table inet lab_cut\ndelete table inet lab_cut\n");
    rules.push_str("table inet lab_cut {\n    chain forward {\n");
    rules.push_str("        type filter hook forward priority filter - 20; policy accept;\n");
    for peer in peers {
        let family = if peer.is_ipv4() { "ip" } else { "ip6" };
        for side in ["saddr", "daddr"] {
            rules.push_str(&format!("        meta l4proto udp {family} {side} {peer} drop\n"));
        }
    }
    rules.push_str("    }\n}\n");
    rules
}

/// Drops UDP between the inside of `router` and `peers` from the next packet on.
///
/// # Errors
///
/// As [`load`].
pub async fn cut(router: &Router, peers: &[IpAddr]) -> Result<()> {
    load(router, &cut_script(peers)).await
}

/// Undoes [`cut`]; harmless if there was none.
///
/// # Errors
///
/// As [`load`].
pub async fn heal(router: &Router) -> Result<()> {
    load(router, "table inet lab_cut\ndelete table inet lab_cut\n").await
}

/// Loses `percent` of the UDP packets that the router forwards, each on its
/// own, both ways. Zero takes the loss away.
///
/// # Errors
///
/// As [`load`].
pub async fn lose(router: &Router, percent: u8) -> Result<()> {
    let mut script = String::from("table inet lab_loss\ndelete table inet lab_loss\n");
    if percent > 0 {
        script.push_str(&format!(
            "table inet lab_loss {{\n    chain forward {{\n        \
             type filter hook forward priority filter - 10; policy accept;\n        \
             meta l4proto udp numgen random mod 100 < {percent} drop\n    }}\n}}\n"
        ));
    }
    load(router, &script).await
}
