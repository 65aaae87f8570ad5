//! The direction of dependency between our crates, and what every crate has.
//!
//! The rooms of the house: `proto` knows nobody; `net` and `store` know `proto`; `baran` knows
//! those three; `cli` knows `baran` and `sim`; `lab` starts the binary and links none of ours.
//! What only tests use may differ: a test may look from above.

use std::path::Path;

use super::{Problem, TextFile};
use crate::workspace::{Package, Workspace};

/// Each of our crates and those of ours that it may depend on.
const MAY_USE: [(&str, &[&str]); 8] = [
    ("baran-proto", &[]),
    ("baran-net", &["baran-proto"]),
    ("baran-store", &["baran-proto"]),
    ("baran-sim", &["baran-proto"]),
    ("baran", &["baran-net", "baran-proto", "baran-store"]),
    ("baran-cli", &["baran", "baran-sim"]),
    ("baran-lab", &[]),
    ("xtask", &[]),
];

/// Crates of others and the only ones of ours that may use them. QUIC stays behind `net`, so that
/// a new version touches one crate, and nothing with sockets or tasks gets into `proto`.
const ONLY_IN: [(&str, &[&str]); 5] = [
    ("noq", &["baran-net"]),
    ("noq-proto", &["baran-net"]),
    ("noq-udp", &["baran-net"]),
    ("socket2", &["baran-net", "baran", "baran-cli", "baran-lab"]),
    ("tokio", &["baran-net", "baran-store", "baran", "baran-cli", "baran-lab"]),
];

/// Checks all members of the workspace; `files` are the repository's.
pub(super) fn check(workspace: &Workspace, files: &[TextFile]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for package in &workspace.members {
        let manifest = relative(&package.manifest, &workspace.root);
        problems.extend(check_direction(package, &manifest));
        for path in package.root_files.iter().map(|path| relative(path, &workspace.root)) {
            let text = files.iter().find(|file| file.path == path).map(|file| &file.text);
            if !text.is_some_and(|text| has_head(text)) {
                problems.push(Problem::error(path, "starts without a `//!` head"));
            }
        }
        let text = files.iter().find(|file| file.path == manifest).map(|file| &file.text);
        if !text.is_some_and(|text| has_workspace_lints(text)) {
            let missing = "lacks the lines `[lints]` and `workspace = true`";
            problems.push(Problem::error(manifest, missing));
        }
    }
    problems
}

fn check_direction(package: &Package, manifest: &str) -> Vec<Problem> {
    let name = package.name.as_str();
    let Some((_, may_use)) = MAY_USE.iter().find(|(known, _)| *known == name) else {
        let text =
            format!("the crate {name} is new: add it to MAY_USE in xtask/src/tidy/crates.rs");
        return vec![Problem::error(manifest, text)];
    };
    let mut problems = Vec::new();
    for used in package.dependencies.iter().filter(|dependency| !dependency.is_dev) {
        let used = used.name.as_str();
        let is_ours = MAY_USE.iter().any(|(known, _)| *known == used);
        let only_in = ONLY_IN.iter().find(|(known, _)| *known == used);
        if is_ours && !may_use.contains(&used) {
            let text = format!("{name} may not depend on {used}; it may on {may_use:?}");
            problems.push(Problem::error(manifest, text));
        }
        if let Some((_, crates)) = only_in
            && !crates.contains(&name)
        {
            let text = format!("{name} may not depend on {used}; only {crates:?} may");
            problems.push(Problem::error(manifest, text));
        }
    }
    problems
}

fn has_head(text: &str) -> bool {
    text.lines().find(|line| !line.trim().is_empty()).is_some_and(|line| line.starts_with("//!"))
}

fn has_workspace_lints(manifest: &str) -> bool {
    let lines = manifest.lines().map(|line| line.replace(' ', ""));
    let mut section = String::new();
    for line in lines {
        if line.starts_with('[') {
            section = line;
        } else if section == "[lints]" && line.starts_with("workspace=true") {
            return true;
        }
    }
    false
}

fn relative(path: &Path, root: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).to_string_lossy().replace('\\', "/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Dependency;

    fn check(name: &str, uses: &[&str], dev_uses: &[&str], expect: &[&str]) {
        let dependency = |is_dev| move |name: &&str| Dependency { name: name.to_string(), is_dev };
        let normal = uses.iter().map(dependency(false));
        let package = Package {
            name: name.into(),
            dependencies: normal.chain(dev_uses.iter().map(dependency(true))).collect(),
            ..Package::default()
        };
        let problems = check_direction(&package, "Cargo.toml");
        let texts: Vec<_> = problems.iter().map(|problem| problem.text.as_str()).collect();
        assert_eq!(texts, expect);
    }

    #[test]
    fn the_direction_of_the_design_is_accepted() {
        check("baran-proto", &["bytes"], &["proptest"], &[]);
        check("baran-net", &["baran-proto", "noq", "tokio"], &[], &[]);
        check("baran", &["baran-net", "baran-proto", "baran-store", "tokio"], &[], &[]);
        check("baran-cli", &["baran", "baran-sim"], &[], &[]);
        check("baran-lab", &["patchbay", "tokio"], &[], &[]);
    }

    #[test]
    fn a_dependency_against_the_direction_is_found() {
        let text = r#"baran-net may not depend on baran; it may on ["baran-proto"]"#;
        check("baran-net", &["baran"], &[], &[text]);
        let text = "baran-lab may not depend on baran-proto; it may on []";
        check("baran-lab", &["baran-proto"], &[], &[text]);
        let text = r#"baran-cli may not depend on baran-net; it may on ["baran", "baran-sim"]"#;
        check("baran-cli", &["baran-net"], &[], &[text]);
    }

    #[test]
    fn tests_may_look_from_above() {
        check("baran-net", &[], &["baran"], &[]);
        check("baran", &[], &["noq"], &[]);
    }

    #[test]
    fn quic_stays_behind_net_and_tasks_out_of_proto() {
        check("baran", &["noq"], &[], &[r#"baran may not depend on noq; only ["baran-net"] may"#]);
        let text = "baran-proto may not depend on tokio; only [\"baran-net\", \"baran-store\", \
                    \"baran\", \"baran-cli\", \"baran-lab\"] may";
        check("baran-proto", &["tokio"], &[], &[text]);
    }

    #[test]
    fn an_unknown_crate_must_be_given_its_place() {
        let text = "the crate baran-x is new: add it to MAY_USE in xtask/src/tidy/crates.rs";
        check("baran-x", &[], &[], &[text]);
    }

    #[test]
    fn heads_and_lints_are_recognised() {
        assert!(has_head("//! What it is.\nfn main() {}\n"));
        assert!(!has_head("// What it is.\n"));
        assert!(!has_head(""));
        assert!(has_workspace_lints("[package]\nname = \"x\"\n[lints]\nworkspace = true\n"));
        assert!(!has_workspace_lints("[lints]\n[dependencies]\nworkspace = true\n"));
        assert!(!has_workspace_lints("[package]\nversion.workspace = true\n"));
    }
}
