//! The hash of the wire format in PROTOCOL.md.
//!
//! Somebody who changes a message must have PROTOCOL.md open. The line `<!-- wire-hash: HEX -->`
//! there holds a hash of the sources that define the bytes on the wire; `cargo xtask tidy --bless`
//! writes it, after its author has read the text beside it.
//!
//! Hashed is the code, neither comments, blanks, nor tests: a reworded comment or a run of rustfmt
//! changes nothing on the wire. FNV-1a of 64 bits (draft-eastlake-fnv, section 2) is enough against
//! forgetting, which is all that it is for.

use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::{Problem, TextFile, read};

const DOCUMENT: &str = "PROTOCOL.md";
const MARK: &str = "<!-- wire-hash: ";
const MARK_END: &str = " -->";
/// What lies below and the file of the same name with `.rs` define the wire format.
const SOURCES: [&str; 3] =
    ["crates/proto/src/wire", "crates/proto/src/frame", "crates/proto/src/invite"];

/// Compares the hash in PROTOCOL.md with that of the sources.
pub(super) fn check(files: &[TextFile]) -> Vec<Problem> {
    match compare(files) {
        Ok(()) => Vec::new(),
        Err(error) => vec![Problem::error(DOCUMENT, format!("{error:#}"))],
    }
}

/// Writes the hash of the sources into PROTOCOL.md, at its end if there was none.
///
/// # Errors
/// If PROTOCOL.md or the sources are missing.
pub(crate) fn bless(root: &Path) -> Result<()> {
    let mut paths = vec![DOCUMENT.into()];
    for source in SOURCES {
        paths.push(format!("{source}.rs").into());
        paths.extend(rust_files_below(root, source)?);
    }
    paths.retain(|path| root.join(path).is_file());
    let files = read(root, &paths)?;
    let hash = hash(&files)?;
    let text = document(&files)?;
    let path = root.join(DOCUMENT);
    std::fs::write(&path, with_hash(text, &hash)).context(DOCUMENT)?;
    println!("{DOCUMENT}: wire-hash {hash}");
    Ok(())
}

fn compare(files: &[TextFile]) -> Result<()> {
    let text = document(files)?;
    let expect = hash(files)?;
    let mut marks = text.lines().filter_map(marked);
    let Some(found) = marks.next() else {
        bail!("holds no line `{MARK}HEX{MARK_END}`: `cargo xtask tidy --bless` adds it");
    };
    if marks.next().is_some() {
        bail!("holds more than one line `{MARK}HEX{MARK_END}`");
    }
    if found != expect {
        bail!(
            "the wire format has changed (hash {expect}, here {found}): describe the change here, \
             then run `cargo xtask tidy --bless`"
        );
    }
    Ok(())
}

fn document(files: &[TextFile]) -> Result<&str> {
    let file = files.iter().find(|file| file.path == DOCUMENT);
    Ok(&file.context("is missing: it describes every message")?.text)
}

fn marked(line: &str) -> Option<&str> {
    line.trim().strip_prefix(MARK)?.strip_suffix(MARK_END)
}

fn with_hash(text: &str, hash: &str) -> String {
    let line = format!("{MARK}{hash}{MARK_END}");
    let mut lines: Vec<&str> = text.lines().collect();
    match lines.iter().position(|line| marked(line).is_some()) {
        Some(at) => lines[at] = &line,
        None => lines.extend(["", &line]),
    }
    lines.join("\n") + "\n"
}

/// The hash of all sources of the wire format among `files`, as 16 hexadecimal digits.
fn hash(files: &[TextFile]) -> Result<String> {
    let mut sources: Vec<&TextFile> = files.iter().filter(|file| is_source(&file.path)).collect();
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    for source in SOURCES {
        if !sources.iter().any(|file| file.path.starts_with(source)) {
            bail!("there is no {source}.rs and no {source}/ to take the hash of");
        }
    }
    // The parameters of FNV-1a for 64 bits.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for file in sources {
        let code = essence(without_tests(&file.text));
        for byte in file.path.bytes().chain([0]).chain(code.bytes()).chain([0]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    Ok(format!("{hash:016x}"))
}

fn is_source(path: &str) -> bool {
    let Some(stem) = path.strip_suffix(".rs") else { return false };
    let is_test = stem.ends_with("/tests") || stem.ends_with("_tests") || stem.contains("/tests/");
    let is_below = |source: &str| {
        let rest = stem.strip_prefix(source);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    !is_test && SOURCES.iter().any(|source| is_below(source))
}

fn rust_files_below(root: &Path, source: &str) -> Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    let mut dirs = vec![root.join(source)];
    while let Some(dir) = dirs.pop().filter(|dir| dir.is_dir()) {
        for entry in std::fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() {
                dirs.push(path);
            } else if let Ok(relative) = path.strip_prefix(root) {
                found.push(relative.to_owned());
            }
        }
    }
    Ok(found)
}

/// The part of a file before its tests, which come last (house style).
fn without_tests(text: &str) -> &str {
    let mut at = 0;
    let mut lines = text.split_inclusive('\n').peekable();
    while let Some(line) = lines.next() {
        let next_is_module = lines.peek().is_some_and(|next| next.trim_start().starts_with("mod "));
        if line.trim() == "#[cfg(test)]" && next_is_module {
            return &text[..at];
        }
        at += line.len();
    }
    text
}

/// Rust code without comments and without blanks that do not separate two words. What stands in
/// quotes is kept as it is. A comma before a closing bracket comes and goes with a line break and
/// is dropped.
fn essence(code: &str) -> String {
    let mut out = String::with_capacity(code.len());
    let mut rest = code;
    let mut is_separated = false;
    while let Some(first) = rest.chars().next() {
        let blank = blank_length(rest);
        if blank > 0 {
            is_separated = true;
            rest = &rest[blank..];
            continue;
        }
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let follows_word = out.ends_with(is_word);
        if is_separated && follows_word && is_word(first) {
            out.push(' ');
        }
        let length = if follows_word && !is_separated { None } else { raw_length(rest) };
        let length = length.or_else(|| quoted_length(rest)).unwrap_or_else(|| first.len_utf8());
        if matches!(first, ')' | ']' | '}') && out.ends_with(',') {
            out.pop();
        }
        out.push_str(&rest[..length]);
        rest = &rest[length..];
        is_separated = false;
    }
    out
}

/// Bytes of blanks or of one comment at the start of `code`.
fn blank_length(code: &str) -> usize {
    if code.starts_with("//") {
        return code.find('\n').unwrap_or(code.len());
    }
    if code.starts_with("/*") {
        let mut depth = 0_usize;
        let mut at = 0;
        while at < code.len() {
            let two = &code.as_bytes()[at..code.len().min(at + 2)];
            match two {
                b"/*" => depth += 1,
                b"*/" => depth -= 1,
                _ => {
                    at += 1;
                    continue;
                }
            }
            at += 2;
            if depth == 0 {
                break;
            }
        }
        return at;
    }
    code.len() - code.trim_start().len()
}

/// Bytes of a raw string, `r"…"` or `br#"…"#`, at the start of `code`.
fn raw_length(code: &str) -> Option<usize> {
    let from = ["r", "br", "cr"].iter().find_map(|prefix| {
        let rest = code.strip_prefix(prefix)?;
        rest.trim_start_matches('#').starts_with('"').then_some(prefix.len())
    })?;
    let hashes = code[from..].find('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let body = from + hashes + 1;
    Some(code[body..].find(&end).map_or(code.len(), |at| body + at + end.len()))
}

/// Bytes of a string or a character in quotes at the start of `code`; a lifetime is none.
fn quoted_length(code: &str) -> Option<usize> {
    let quote = code.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let mut chars = code.char_indices().skip(1);
    if quote == '\'' {
        let (_, inner) = chars.next()?;
        if inner != '\\' {
            let (at, end) = chars.next()?;
            return (end == '\'').then_some(at + 1);
        }
        chars.next();
    }
    while let Some((at, c)) = chars.next() {
        if c == '\\' {
            chars.next();
        } else if c == quote {
            return Some(at + 1);
        }
    }
    Some(code.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> TextFile {
        TextFile { path: path.into(), text: text.into() }
    }

    fn sources(wire: &str) -> Vec<TextFile> {
        vec![
            file("crates/proto/src/frame.rs", "frame"),
            file("crates/proto/src/invite/mod.rs", "invite"),
            file("crates/proto/src/wire/mod.rs", wire),
        ]
    }

    #[test]
    fn comments_blanks_and_trailing_commas_are_no_essence() {
        for (code, expect) in [
            ("fn  a ( ) -> u8 { 1 } // one", "fn a()->u8{1}"),
            ("/* a /* b */ c */ x\n/// doc\ny", "x y"),
            ("f(\n    a,\n    b,\n)", "f(a,b)"),
            ("\"// kept,  \" ) ", "\"// kept,  \")"),
            (r##"r#"a " // b"# /* c */"##, r##"r#"a " // b"#"##),
            (r#"br"a  \" b"#, r#"br"a  \"b"#),
            (r#""\" // " x"#, r#""\" // "x"#),
            ("fn a<'a>(x: &'a str, c: 'x')", "fn a<'a>(x:&'a str,c:'x')"),
            (r"'\'' // c", r"'\''"),
            (r"'\\' '/' '\u{1F}'", r"'\\''/''\u{1F}'"),
            ("for \"x\"", "for\"x\""),
            ("\"ends never", "\"ends never"),
            ("/* ends never", ""),
            ("'", "'"),
        ] {
            assert_eq!(essence(code), expect, "{code}");
        }
    }

    #[test]
    fn the_hash_follows_the_code_only() {
        let base = hash(&sources("struct A(u8);\n")).unwrap();
        let same = [
            "// why\nstruct  A( u8, );\n",
            "struct A(u8);\n\n#[cfg(test)]\nmod tests { fn a() {} }\n",
            "struct A(u8);\n#[cfg(test)]\nmod tests;\n",
        ];
        for text in same {
            assert_eq!(hash(&sources(text)).unwrap(), base, "{text}");
        }
        assert_ne!(hash(&sources("struct A(u16);")).unwrap(), base);
        let mut more = sources("struct A(u8);");
        more.push(file("crates/proto/src/wire/tests.rs", "x"));
        more.push(file("crates/proto/src/wired.rs", "x"));
        assert_eq!(hash(&more).unwrap(), base);
        more.push(file("crates/proto/src/wire/hello.rs", "x"));
        assert_ne!(hash(&more).unwrap(), base);
    }

    #[test]
    fn a_missing_source_or_document_is_named() {
        let error = hash(&sources("x")[..2]).unwrap_err().to_string();
        assert!(error.contains("crates/proto/src/wire"), "{error}");
        let problems = check(&sources("x"));
        assert_eq!(problems[0].text, "is missing: it describes every message");
    }

    #[test]
    fn the_document_must_hold_the_hash_once() {
        let check_document = |text: &str| {
            let mut files = sources("x");
            files.push(file(DOCUMENT, text));
            check(&files).pop().map(|problem| problem.text)
        };
        let right = with_hash("# Protocol\n", &hash(&sources("x")).unwrap());
        assert_eq!(check_document(&right), None);
        assert!(check_document("# Protocol\n").unwrap().contains("holds no line"));
        assert!(check_document(&right.repeat(2)).unwrap().contains("more than one"));
        let wrong = with_hash("# Protocol\n", "0123");
        assert!(check_document(&wrong).unwrap().contains("here 0123"));
    }

    #[test]
    fn blessing_replaces_the_hash_where_it_stands() {
        let text = "a\n<!-- wire-hash: 12 -->\nb\n";
        assert_eq!(with_hash(text, "34"), "a\n<!-- wire-hash: 34 -->\nb\n");
        assert_eq!(with_hash("a\n", "34"), "a\n\n<!-- wire-hash: 34 -->\n");
    }
}
