//! Brings a bare machine to the point where every check can run, or says what is missing.
//!
//! The lab makes network namespaces with kernel NATs and needs nftables, iproute2, conntrack and
//! faketime; ring compiles
//! C. Where we are root and the machine has apt, what is missing is installed. Elsewhere the step
//! fails with one line: a check that cannot run must not look like one that passed.

use std::process::Command;

use anyhow::{Result, bail};

use crate::process;

/// A program that some check starts and the Debian packages that bring it.
const PROGRAMS: [(&str, &str); 6] = [
    ("cc", "gcc libc6-dev"),
    ("nft", "nftables"),
    ("ip", "iproute2"),
    ("tc", "iproute2"),
    ("conntrack", "conntrack"),
    ("faketime", "faketime"),
];

/// Cargo commands that come as components of the toolchain.
const COMPONENTS: [(&str, &str); 2] = [("fmt", "rustfmt"), ("clippy", "clippy")];

/// Checks and, where it may, installs.
///
/// # Errors
/// If something is missing that it cannot install.
pub(crate) fn run() -> Result<String> {
    if !cfg!(target_os = "linux") {
        bail!("the lab needs the network namespaces of Linux: run the checks on a Linux machine");
    }
    let programs = install_programs()?;
    let components = install_components()?;
    let installed = [programs, components].concat();
    if installed.is_empty() {
        return Ok("nothing was missing".into());
    }
    Ok(format!("installed {}", installed.join(" ")))
}

fn install_programs() -> Result<Vec<&'static str>> {
    let missing = packages_for(|program| process::find(program).is_some());
    if missing.is_empty() {
        return Ok(missing);
    }
    let list = missing.join(" ");
    if !is_root() || process::find("apt-get").is_none() {
        bail!(
            "install what is missing and start again (on Debian, as root): apt-get install {list}"
        );
    }
    process::run(&mut apt(&["update"]))?;
    process::run(apt(&["install", "-y", "--no-install-recommends"]).args(&missing))?;
    let missing_still = packages_for(|program| process::find(program).is_some());
    if !missing_still.is_empty() {
        bail!("apt-get installed {list}, and the programs of {missing_still:?} are still missing");
    }
    Ok(missing)
}

/// The Debian packages of the programs that `has` does not know, each once.
fn packages_for(has: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let mut packages: Vec<_> = PROGRAMS
        .iter()
        .filter(|(program, _)| !has(program))
        .flat_map(|(_, packages)| packages.split(' '))
        .collect();
    packages.dedup();
    packages
}

fn apt(args: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").env("PATH", process::search_path()).args(args);
    command
}

fn install_components() -> Result<Vec<&'static str>> {
    let here = std::path::Path::new(".");
    let has = |name: &str| process::read(&mut process::cargo(here, &[name, "--version"])).is_ok();
    let missing: Vec<_> =
        COMPONENTS.iter().filter(|(name, _)| !has(name)).map(|(_, component)| *component).collect();
    if missing.is_empty() {
        return Ok(missing);
    }
    let advice = format!("rustup component add {}", missing.join(" "));
    if process::find("rustup").is_none() {
        bail!("the toolchain lacks {}: with rustup, {advice}", missing.join(" and "));
    }
    process::run(Command::new("rustup").args(["component", "add"]).args(&missing))?;
    Ok(missing)
}

fn is_root() -> bool {
    process::read(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_missing_package_is_named_once() {
        assert_eq!(packages_for(|_| true), Vec::<&str>::new());
        let lab = ["nftables", "iproute2", "conntrack", "faketime"];
        assert_eq!(packages_for(|program| program == "cc"), lab);
        assert_eq!(packages_for(|_| false), [&["gcc", "libc6-dev"], &lab[..]].concat());
    }
}
