//! `cargo xtask tidy`: rules of the house that neither the compiler nor clippy knows.
//!
//! Each rule is a pure function over text or metadata that returns [`Problem`]s; this module reads
//! the files, once, and prints.

mod crates;
mod layout;
pub(crate) mod wire;
mod words;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::workspace::Workspace;

/// One place where a rule is broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Path relative to the root, with `:line` where there is one.
    place: String,
    /// The rule and what to do.
    text: String,
    /// A warning does not fail the step.
    is_warning: bool,
}

impl Problem {
    fn error(place: impl Into<String>, text: impl Into<String>) -> Self {
        Self { place: place.into(), text: text.into(), is_warning: false }
    }

    fn warning(place: impl Into<String>, text: impl Into<String>) -> Self {
        Self { place: place.into(), text: text.into(), is_warning: true }
    }
}

/// A text file of the repository.
#[derive(Debug, Clone, Default)]
pub(crate) struct TextFile {
    /// Relative to the root, with `/` between its parts.
    path: String,
    text: String,
}

impl TextFile {
    fn is_rust(&self) -> bool {
        self.has_extension("rs")
    }

    fn has_extension(&self, extension: &str) -> bool {
        Path::new(&self.path).extension().is_some_and(|own| own == extension)
    }

    fn place(&self, line_index: usize) -> String {
        format!("{}:{}", self.path, line_index + 1)
    }
}

/// Checks all rules and prints what is wrong.
///
/// # Errors
/// If a rule is broken or a file cannot be read.
pub(crate) fn run(workspace: &Workspace) -> Result<String> {
    let files = read(&workspace.root, &workspace.files()?)?;
    let limits = files.iter().find(|file| file.path == "docs/limits.md");
    let limits = limits.map_or("", |file| file.text.as_str());
    let paths = words::machine_paths(&workspace.root);

    let mut problems = crates::check(workspace, &files);
    for file in &files {
        problems.extend(layout::check(file));
        problems.extend(words::check_open_ends(file, limits));
        problems.extend(words::check_machine_paths(file, &paths));
        problems.extend(words::check_registries(file));
    }
    problems.extend(wire::check(&files));

    for Problem { place, text, is_warning } in &problems {
        let kind = if *is_warning { "warning" } else { "error" };
        println!("{kind}: {place}: {text}");
    }
    let warnings = problems.iter().filter(|problem| problem.is_warning).count();
    let errors = problems.len() - warnings;
    if errors > 0 {
        bail!("tidy: {errors} errors and {warnings} warnings in {} files", files.len());
    }
    println!("tidy: {} files, {warnings} warnings", files.len());
    Ok(format!("{} files, {warnings} warnings", files.len()))
}

/// Reads those of `paths` that are text.
fn read(root: &Path, paths: &[PathBuf]) -> Result<Vec<TextFile>> {
    let mut files = Vec::new();
    for path in paths {
        let bytes = std::fs::read(root.join(path)).with_context(|| path.display().to_string())?;
        if let Ok(text) = String::from_utf8(bytes)
            && !text.contains('\0')
        {
            files.push(TextFile { path: path.to_string_lossy().replace('\\', "/"), text });
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binary_files_are_left_out() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let files = read(root, &["src/main.rs".into(), "Cargo.toml".into()]).unwrap();
        assert_eq!(files.len(), 2);
        assert!(files[0].is_rust() && !files[1].is_rust());
        assert_eq!(files[1].place(2), "Cargo.toml:3");
        let program = std::env::current_exe().unwrap();
        assert!(read(Path::new("/"), &[program]).unwrap().is_empty());
    }
}
