//! Words that may not stand in the repository, or only with a reason.
//!
//! The words are put together from halves here, because this file is checked as well.

use std::path::Path;

use super::{Problem, TextFile};

/// Marks of unfinished work.
const OPEN_ENDS: [&str; 2] = [concat!("TO", "DO"), concat!("FIX", "ME")];
const IGNORED: &str = concat!("#[", "ignore");
const IGNORED_IF: &str = concat!("#[", "cfg_attr(");

/// Directories in which anybody may have a checkout and which good text may name.
const COMMON_DIRS: [&str; 19] = [
    "/",
    "/app",
    "/build",
    "/builds",
    "/code",
    "/data",
    "/home",
    "/media",
    "/mnt",
    "/opt",
    "/repo",
    "/root",
    "/src",
    "/srv",
    "/tmp",
    "/usr",
    "/usr/local",
    "/usr/src",
    "/var/tmp",
];

/// The registry line of a `Cargo.lock`, and the address in a lock file of npm.
const CARGO_REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";
const NPM_REGISTRY: &str = "https://registry.npmjs.org/";

/// Finds marks of unfinished work and tests that do not run. They may stay if a line of
/// `docs/limits.md` names the file.
pub(super) fn check_open_ends(file: &TextFile, limits: &str) -> Vec<Problem> {
    let is_prose = ["md", "txt", "lock", "json", "svg"].iter().any(|e| file.has_extension(e));
    if is_prose || limits.lines().any(|line| line.contains(&file.path)) {
        return Vec::new();
    }
    let mut problems = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        let mut found = |word: &str| {
            let text = format!("{word} without a line in docs/limits.md that names this file");
            problems.push(Problem::error(file.place(index), text));
        };
        for word in OPEN_ENDS {
            if has_word(line, word) {
                found(word);
            }
        }
        let is_ignored = line.contains(IGNORED)
            || line.contains(IGNORED_IF) && line.replace(' ', "").contains(",ignore");
        if file.is_rust() && is_ignored {
            found("a test that does not run");
        }
    }
    problems
}

/// The paths of this machine that a checkout at `root` could leak.
pub(super) fn machine_paths(root: &Path) -> Vec<String> {
    let home = std::env::var_os("HOME").map(std::path::PathBuf::from);
    let cargo_home = std::env::var_os("CARGO_HOME").map(std::path::PathBuf::from);
    let cargo_home = cargo_home.or_else(|| home.map(|home| home.join(".cargo")));
    let paths = [Some(root.to_owned()), root.parent().map(Path::to_owned), cargo_home];
    let mut paths: Vec<String> = paths
        .into_iter()
        .flatten()
        .map(|path| path.to_string_lossy().into_owned())
        .filter(|path| path.starts_with('/') && !COMMON_DIRS.contains(&path.as_str()))
        .collect();
    paths.sort();
    // What lies in another one of the list is found with it.
    paths.dedup_by(|next, first| Path::new(next).starts_with(&**first));
    paths
}

/// Finds absolute paths of this machine.
pub(super) fn check_machine_paths(file: &TextFile, paths: &[String]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        for path in paths.iter().filter(|path| has_path(line, path)) {
            let text = format!("names {path}, a path of this machine");
            problems.push(Problem::error(file.place(index), text));
        }
    }
    problems
}

/// Finds registries other than the usual public ones in lock files and in the configuration of
/// cargo and npm: they work on one machine only.
pub(super) fn check_registries(file: &TextFile) -> Vec<Problem> {
    let name = file.path.rsplit('/').next().unwrap_or_default();
    let is_cargo_config = file.path.contains(".cargo/config");
    let is_foreign = |line: &str| match name {
        "Cargo.lock" => {
            let source = line.strip_prefix("source = ").map(|source| source.trim_matches('"'));
            source.is_some_and(|source| source != CARGO_REGISTRY)
        }
        "package-lock.json" | "npm-shrinkwrap.json" | "yarn.lock" | "pnpm-lock.yaml" => {
            line.contains("resolved") && line.contains("://") && !line.contains(NPM_REGISTRY)
                || line.contains("tarball:")
        }
        ".npmrc" | ".yarnrc" | ".yarnrc.yml" => line.contains("://"),
        _ => is_cargo_config && line.contains("://"),
    };
    let mut problems = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        if is_foreign(line) {
            let text = format!("names another registry than the public one: {}", line.trim());
            problems.push(Problem::error(file.place(index), text));
        }
    }
    problems
}

/// True if `word` stands in `line` and is not a part of a longer word.
fn has_word(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        !line[..at].ends_with(is_part) && !line[at + word.len()..].starts_with(is_part)
    })
}

/// True if `line` holds `path` or something below it, and not as the end of a longer path.
fn has_path(line: &str, path: &str) -> bool {
    let before = |c: char| c.is_alphanumeric() || "._-~*}$)".contains(c);
    let after = |c: char| c.is_alphanumeric() || "._-".contains(c);
    line.match_indices(path).any(|(at, _)| {
        let rest = &line[at + path.len()..];
        // Of a directory right below the root the bare name, "/x", may be an ordinary word.
        let is_bare = path.matches('/').count() == 1 && !rest.starts_with('/');
        !line[..at].ends_with(before) && !rest.starts_with(after) && !is_bare
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> TextFile {
        TextFile { path: path.into(), text: text.into() }
    }

    #[test]
    fn unfinished_work_needs_a_line_in_the_limits() {
        let limits = "- crates/x/src/a.rs: waits for the store\n";
        let todo = format!("x\n// {}: later\n", OPEN_ENDS[0]);
        let found = check_open_ends(&file("b.rs", &todo), limits);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].place, "b.rs:2");
        assert_eq!(check_open_ends(&file("crates/x/src/a.rs", &todo), limits), []);
        assert_eq!(check_open_ends(&file("b.md", &todo), ""), []);
        assert_eq!(check_open_ends(&file("b.rs", &todo.replace(": l", "_l")), ""), []);
        assert_eq!(check_open_ends(&file("b.sh", OPEN_ENDS[1]), "").len(), 1);
    }

    #[test]
    fn a_test_that_does_not_run_is_found_in_both_forms() {
        let conditional = format!("{IGNORED_IF}not(feature = \"x\"), ignore)]\n");
        for text in [format!("{IGNORED}]\n"), format!("{IGNORED} = \"slow\"]\n"), conditional] {
            assert_eq!(check_open_ends(&file("a.rs", &text), "").len(), 1, "{text}");
        }
        let harmless = format!("{IGNORED_IF}unix, allow(dead_code))] // we ignore it\n");
        assert_eq!(check_open_ends(&file("a.rs", &harmless), ""), []);
    }

    #[test]
    fn paths_of_this_machine_are_found_with_what_lies_below_them() {
        let paths = ["/somewhere".to_owned(), "/home/me/.cargo".to_owned()];
        let count = |text| check_machine_paths(&file("a.md", text), &paths).len();
        assert_eq!(count("in /somewhere/main"), 1);
        assert_eq!(count("`/somewhere/`"), 1);
        assert_eq!(count("cd /home/me/.cargo"), 1);
        assert_eq!(count("the /somewhere option"), 0);
        assert_eq!(count("crates/somewhere/src and ~/somewhere/"), 0);
        assert_eq!(count("/home/me/.cargo-x"), 0);
    }

    #[test]
    fn a_common_directory_is_no_path_of_this_machine() {
        let paths = machine_paths(Path::new("/tmp/checkout"));
        assert!(paths.contains(&"/tmp/checkout".to_owned()), "{paths:?}");
        assert!(!paths.contains(&"/tmp".to_owned()), "{paths:?}");
        let paths = machine_paths(Path::new("/elsewhere/checkout"));
        assert!(paths.contains(&"/elsewhere".to_owned()), "{paths:?}");
        assert!(!paths.contains(&"/elsewhere/checkout".to_owned()), "{paths:?}");
    }

    #[test]
    fn only_the_public_registries_are_accepted() {
        let count = |path, text: &str| check_registries(&file(path, text)).len();
        let line = |source| format!("[[package]]\nsource = \"{source}\"\n");
        assert_eq!(count("Cargo.lock", &line(CARGO_REGISTRY)), 0);
        assert_eq!(count("bench/Cargo.lock", &line("registry+https://mirror.example")), 1);
        assert_eq!(count("Cargo.lock", &line("git+https://example.org/x#1")), 1);
        let resolved = "\"resolved\": \"https://registry.npmjs.org/a/-/a-1.0.0.tgz\",\n";
        assert_eq!(count("web/package-lock.json", resolved), 0);
        assert_eq!(count("web/package-lock.json", &resolved.replace("npmjs", "mirror")), 1);
        assert_eq!(count("web/.npmrc", "registry=https://mirror.example/\n"), 1);
        assert_eq!(count(".cargo/config.toml", "registry = \"sparse+https://x/\"\n"), 1);
        assert_eq!(count(".cargo/config.toml", "[alias]\n"), 0);
    }
}
