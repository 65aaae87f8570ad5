//! How a file is laid out: its length, its columns, the blanks at the ends.

use super::{Problem, TextFile};

/// A file of more lines is asked to be split; a habit of the house: 150 to 400.
const LINES_WARN: usize = 600;
/// A file of more lines fails.
const LINES_MAX: usize = 900;
/// The `max_width` of `rustfmt.toml`, which rustfmt does not apply to comments and strings.
const COLUMNS_MAX: usize = 100;

/// Checks one file.
pub(super) fn check(file: &TextFile) -> Vec<Problem> {
    let mut problems = Vec::new();
    if is_evidence(&file.path) {
        return problems;
    }
    if file.is_rust() {
        problems.extend(check_length(file));
    }
    for (index, line) in file.text.lines().enumerate() {
        let mut found = |text: &str| problems.push(Problem::error(file.place(index), text));
        // `lines` takes a carriage return away with the line feed.
        if line.ends_with([' ', '\t', '\r']) {
            found("blank at the end of the line");
        }
        if !file.is_rust() {
            continue;
        }
        if line.contains('\t') {
            found("tab in Rust code");
        }
        if line.chars().count() > COLUMNS_MAX && !is_link(line) {
            found("more than 100 columns");
        }
    }
    if file.text.contains("\r\n") {
        problems.push(Problem::error(&file.path, "lines end with carriage returns"));
    }
    if !file.text.is_empty() && !file.text.ends_with('\n') {
        problems.push(Problem::error(&file.path, "no line end at the end of the file"));
    }
    problems
}

fn check_length(file: &TextFile) -> Option<Problem> {
    let lines = file.text.lines().count();
    if lines > LINES_MAX {
        let text = format!("{lines} lines, {LINES_MAX} are allowed: split it");
        Some(Problem::error(&file.path, text))
    } else if lines > LINES_WARN {
        Some(Problem::warning(&file.path, format!("{lines} lines, think of splitting it")))
    } else {
        None
    }
}

/// Recorded inputs are kept as they came.
fn is_evidence(path: &str) -> bool {
    ["/corpus/", "/testdata/", "proptest-regressions/"].iter().any(|part| path.contains(part))
}

/// A comment that holds an address, which cannot be broken.
fn is_link(line: &str) -> bool {
    line.trim_start().starts_with("//") && line.contains("://")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_text(path: &str, text: &str, expect: &[&str]) {
        let file = TextFile { path: path.into(), text: text.into() };
        let problems = check(&file);
        let shown: Vec<_> = problems.iter().map(|p| format!("{} {}", p.place, p.text)).collect();
        assert_eq!(shown, expect, "{path} {text:?}");
    }

    #[test]
    fn blanks_and_line_ends() {
        check_text("a.rs", "fn a() {}\n", &[]);
        check_text("a.md", "x\ny \n", &["a.md:2 blank at the end of the line"]);
        check_text("a.md", "x", &["a.md no line end at the end of the file"]);
        check_text("a.md", "", &[]);
        check_text("a.md", "x\r\n", &["a.md lines end with carriage returns"]);
        check_text("a.rs", "\tx\n", &["a.rs:1 tab in Rust code"]);
        check_text("a.mk", "\tx\n", &[]);
        check_text("fuzz/corpus/x/1", "a ", &[]);
    }

    #[test]
    fn columns_are_counted_in_rust_only_and_links_are_spared() {
        let wide = "x".repeat(101);
        check_text("a.rs", &format!("{wide}\n"), &["a.rs:1 more than 100 columns"]);
        check_text("a.rs", &format!("{}\n", "ö".repeat(100)), &[]);
        check_text("a.md", &format!("{wide}\n"), &[]);
        check_text("a.rs", &format!("    // https://example.org/{wide}\n"), &[]);
    }

    #[test]
    fn long_files_warn_and_longer_ones_fail() {
        let file = |lines| TextFile { path: "a.rs".into(), text: "x\n".repeat(lines) };
        assert_eq!(check_length(&file(LINES_WARN)), None);
        assert!(check_length(&file(LINES_WARN + 1)).unwrap().is_warning);
        assert!(check_length(&file(LINES_MAX)).unwrap().is_warning);
        assert!(!check_length(&file(LINES_MAX + 1)).unwrap().is_warning);
    }
}
