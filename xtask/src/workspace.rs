//! What cargo and git know about the workspace: packages, dependencies, files.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::process;

/// The workspace that this program was started in.
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    /// The directory that holds the root `Cargo.toml`.
    pub(crate) root: PathBuf,
    /// Where cargo builds, with `CARGO_TARGET_DIR` and configuration applied.
    pub(crate) target: PathBuf,
    /// Our own packages.
    pub(crate) members: Vec<Package>,
}

/// One package, ours or somebody else's.
#[derive(Debug, Default, Clone)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    /// An SPDX expression.
    pub(crate) license: Option<String>,
    /// Where it was fetched from; a package on this disk has none.
    pub(crate) source: Option<String>,
    pub(crate) manifest: PathBuf,
    pub(crate) dependencies: Vec<Dependency>,
    /// The root files of its libraries and binaries.
    pub(crate) root_files: Vec<PathBuf>,
}

/// A dependency as its package's manifest declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// True for one that only tests, examples and benches use.
    pub(crate) is_dev: bool,
}

impl Workspace {
    /// Asks cargo about the workspace around the current directory. Needs no network.
    ///
    /// # Errors
    /// If cargo cannot read a manifest.
    pub(crate) fn load() -> Result<Self> {
        let metadata = metadata(Path::new("."), &["--no-deps"])?;
        let path = |key| {
            let text = metadata[key].as_str();
            text.map(PathBuf::from).with_context(|| format!("cargo metadata holds no {key}"))
        };
        Ok(Self {
            root: path("workspace_root")?,
            target: path("target_directory")?,
            members: packages(&metadata),
        })
    }

    /// Asks cargo for all packages that a build on this machine uses, ours among them.
    ///
    /// # Errors
    /// If cargo cannot resolve the dependencies.
    pub(crate) fn all_packages(&self) -> Result<Vec<Package>> {
        let about = process::read(Command::new("rustc").arg("-vV"))?;
        let host = about.lines().find_map(|line| line.strip_prefix("host: "));
        let host = host.context("rustc -vV names no host")?;
        // Without the filter cargo fetches the packages of every platform.
        Ok(packages(&metadata(&self.root, &["--filter-platform", host])?))
    }

    /// All files that are tracked by git or would be if they were added, relative to the root.
    ///
    /// # Errors
    /// If a directory cannot be read.
    pub(crate) fn files(&self) -> Result<Vec<PathBuf>> {
        let mut git = Command::new("git");
        git.current_dir(&self.root).args(["-c", "safe.directory=*", "ls-files", "-z"]);
        git.args(["--cached", "--others", "--exclude-standard"]);
        let mut files: Vec<PathBuf> = match process::read(&mut git) {
            Ok(list) => list.split_terminator('\0').map(PathBuf::from).collect(),
            // A source archive has no repository around it.
            Err(_) => walk(&self.root)?,
        };
        // One that is deleted and not yet committed is still in git's list.
        files.retain(|file| self.root.join(file).is_file());
        files.sort();
        files.dedup();
        Ok(files)
    }
}

fn metadata(dir: &Path, args: &[&str]) -> Result<Value> {
    let mut command = process::cargo(dir, &["metadata", "--format-version", "1"]);
    let text = process::read(command.args(args))?;
    serde_json::from_str(&text).context("cargo metadata printed no JSON")
}

fn packages(metadata: &Value) -> Vec<Package> {
    list(&metadata["packages"]).iter().map(package).collect()
}

fn package(value: &Value) -> Package {
    let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let is_root = |target: &&Value| {
        list(&target["kind"]).iter().any(|kind| matches!(kind.as_str(), Some("lib" | "bin")))
    };
    let dependency = |value: &Value| Dependency {
        name: value["name"].as_str().unwrap_or_default().to_owned(),
        is_dev: value["kind"].as_str() == Some("dev"),
    };
    Package {
        name: text("name"),
        version: text("version"),
        license: value["license"].as_str().map(str::to_owned),
        source: value["source"].as_str().map(str::to_owned),
        manifest: text("manifest_path").into(),
        dependencies: list(&value["dependencies"]).iter().map(dependency).collect(),
        root_files: list(&value["targets"])
            .iter()
            .filter(is_root)
            .filter_map(|target| target["src_path"].as_str().map(PathBuf::from))
            .collect(),
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// All files below `root` except what is built.
fn walk(root: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default();
            if path.is_dir() && !path.is_symlink() {
                if name != "target" && name != ".git" && name != "node_modules" {
                    dirs.push(path);
                }
            } else if let Ok(relative) = path.strip_prefix(root) {
                files.push(relative.to_owned());
            }
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_workspace_is_understood() {
        let workspace = Workspace::load().unwrap();
        let xtask = workspace.members.iter().find(|package| package.name == "xtask").unwrap();
        let anyhow = Dependency { name: "anyhow".into(), is_dev: false };
        assert!(xtask.dependencies.contains(&anyhow));
        assert_eq!(xtask.root_files, [workspace.root.join("xtask/src/main.rs")]);
        assert_eq!(xtask.license.as_deref(), Some("MIT OR Apache-2.0"));
        assert!(workspace.files().unwrap().contains(&PathBuf::from("xtask/src/main.rs")));
    }

    #[test]
    fn a_walk_finds_sources_and_leaves_out_what_is_built() {
        let files = walk(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap();
        assert!(files.contains(&PathBuf::from("src/tidy/wire.rs")));
        assert!(!files.iter().any(|file| file.starts_with("target")));
    }
}
