//! The check of dependencies: licences, sources, and one version of what holds connections.
//!
//! `cargo deny` does it where it is installed (`deny.toml`). A fresh machine does not have it and
//! would compile it for minutes, so the same three rules are checked here from `cargo metadata`:
//! change both places together.

use anyhow::{Result, bail};

use crate::process;
use crate::spdx;
use crate::workspace::{Package, Workspace};

/// The only place that dependencies come from.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Licences under which we may ship somebody's code in a binary that is MIT OR Apache-2.0.
const LICENCES: [&str; 10] = [
    "MIT",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BlueOak-1.0.0",
    "CC0-1.0",
    "ISC",
    "Unicode-3.0",
    "Zlib",
];

/// Packages whose types meet across crates: with two versions of one, connections of the one are
/// not those of the other.
const ONE_VERSION: [&str; 5] = ["noq", "noq-proto", "noq-udp", "rustls", "tokio"];

/// Runs `cargo deny` or, without it, the check of our own.
///
/// # Errors
/// If a rule is broken.
pub(crate) fn run(workspace: &Workspace) -> Result<String> {
    let root = &workspace.root;
    if process::read(&mut process::cargo(root, &["deny", "--version"])).is_ok() {
        let args = ["deny", "--workspace", "check", "licenses", "sources", "bans"];
        process::run(&mut process::cargo(root, &args))?;
        return Ok("by cargo deny".into());
    }
    let packages = workspace.all_packages()?;
    let problems = check(&packages);
    for problem in &problems {
        println!("error: {problem}");
    }
    if !problems.is_empty() {
        bail!("{} of our rules for dependencies broken", problems.len());
    }
    Ok(format!("{} packages", packages.len()))
}

/// The rules that `packages`, all of a build, break; one line each.
fn check(packages: &[Package]) -> Vec<String> {
    let mut problems = Vec::new();
    for package in packages {
        let Package { name, version, .. } = package;
        // What lies in the workspace has no source; cargo refuses a path outside without a version.
        if let Some(source) = package.source.as_deref().filter(|source| *source != REGISTRY) {
            problems.push(format!("{name} {version} comes from {source}, not from crates.io"));
        }
        match &package.license {
            None => problems.push(format!("{name} {version} states no licence")),
            Some(licence) => {
                if !spdx::is_accepted(licence, |one| LICENCES.contains(&one)) {
                    problems.push(format!("{name} {version} has the licence {licence}"));
                }
            }
        }
    }
    for name in ONE_VERSION {
        let versions: Vec<_> =
            packages.iter().filter(|p| p.name == name).map(|p| p.version.as_str()).collect();
        if versions.len() > 1 {
            problems.push(format!("{name} is there in versions {}", versions.join(" and ")));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, version: &str, licence: &str, source: Option<&str>) -> Package {
        Package {
            name: name.into(),
            version: version.into(),
            license: (!licence.is_empty()).then(|| licence.into()),
            source: source.map(Into::into),
            ..Package::default()
        }
    }

    #[test]
    fn good_packages_break_nothing() {
        let packages = [
            package("baran", "0.1.0", "MIT OR Apache-2.0", None),
            package("syn", "1.0.0", "MIT", Some(REGISTRY)),
            package("syn", "2.0.0", "Unlicense OR MIT", Some(REGISTRY)),
            package("tokio", "1.0.0", "MIT", Some(REGISTRY)),
        ];
        assert_eq!(check(&packages), Vec::<String>::new());
    }

    #[test]
    fn each_rule_is_checked() {
        let packages = [
            package("a", "1.0.0", "GPL-3.0", Some(REGISTRY)),
            package("b", "1.0.0", "", Some(REGISTRY)),
            package("c", "1.0.0", "MIT", Some("git+https://example.org/c")),
            package("tokio", "1.0.0", "MIT", Some(REGISTRY)),
            package("tokio", "2.0.0", "MIT", Some(REGISTRY)),
        ];
        assert_eq!(
            check(&packages),
            [
                "a 1.0.0 has the licence GPL-3.0",
                "b 1.0.0 states no licence",
                "c 1.0.0 comes from git+https://example.org/c, not from crates.io",
                "tokio is there in versions 1.0.0 and 2.0.0",
            ]
        );
    }

    #[test]
    fn the_file_for_cargo_deny_allows_the_same_licences() {
        let text = include_str!("../../deny.toml");
        let list = text.split_once("\nallow = [").unwrap().1.split_once(']').unwrap().0;
        let quoted = list.split('"').skip(1).step_by(2).collect::<Vec<_>>();
        assert_eq!(quoted, LICENCES);
        for name in ONE_VERSION {
            assert!(text.contains(&format!("{{ crate = \"{name}\", deny-multiple")), "{name}");
        }
    }
}
