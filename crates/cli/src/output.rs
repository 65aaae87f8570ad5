//! What commands write: one JSON object a line, or text for people.
//!
//! Invariant: no character that a terminal obeys leaves here, whoever wrote it. What
//! [`escape`](crate::escape) finds bad is written as escapes, in JSON too, where it can only stand
//! inside of strings. The one exception is data that the user asked for as it is
//! ([`Output::bytes`]), and that never goes to a terminal.

use std::fmt::{Display, Write as _};
use std::io::{self, Write as _};

use serde::Serialize;

use crate::escape::{escape, judged};

/// Where and how a command writes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    is_json: bool,
    to_stderr: bool,
}

impl Output {
    /// Writes to standard output.
    pub(crate) fn new(is_json: bool) -> Self {
        Self { is_json, to_stderr: false }
    }

    /// Writes to standard error, because standard output carries data.
    pub(crate) fn on_stderr(self) -> Self {
        Self { to_stderr: true, ..self }
    }

    /// Whether objects are written.
    pub(crate) fn is_json(self) -> bool {
        self.is_json
    }

    /// Writes an item.
    ///
    /// # Errors
    ///
    /// If the reader is gone.
    pub(crate) fn item<T: Serialize + Display>(self, item: &T) -> io::Result<()> {
        let text = if self.is_json { json_line(item) } else { text_line(item) };
        self.write(text.as_bytes())
    }

    /// Writes for people what has no object, a hint; on standard error, and not with `--json`.
    pub(crate) fn hint(self, text: &str) {
        if !self.is_json {
            drop(io::stderr().write_all(text_line(&text).as_bytes()));
        }
    }

    /// Writes why the command failed: on standard error for people, and with `--json` as an object
    /// too.
    pub(crate) fn error(self, error: &anyhow::Error) {
        let text = format!("{error:#}");
        if self.is_json {
            drop(self.write(json_line(&serde_json::json!({ "error": text })).as_bytes()));
        }
        if !(self.is_json && self.to_stderr) {
            let line = text_line(&format!("error: {text}"));
            drop(io::stderr().write_all(line.as_bytes()));
        }
    }

    /// Writes bytes as they are, whoever wrote them. Not to a terminal.
    ///
    /// # Errors
    ///
    /// If the reader is gone.
    pub(crate) fn bytes(self, bytes: &[u8]) -> io::Result<()> {
        self.write(bytes)
    }

    /// Writes text that is ours alone: pictures, scripts, manual pages.
    ///
    /// # Errors
    ///
    /// If the reader is gone.
    pub(crate) fn raw(self, text: &str) -> io::Result<()> {
        self.write(text.as_bytes())
    }

    fn write(self, bytes: &[u8]) -> io::Result<()> {
        if self.to_stderr {
            return io::stderr().write_all(bytes);
        }
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes)?;
        stdout.flush()
    }
}

fn json_line<T: Serialize>(item: &T) -> String {
    let json = serde_json::to_string(item).expect("our objects have text for keys");
    let mut line = String::with_capacity(json.len() + 1);
    for (c, is_bad) in judged(&json) {
        if is_bad {
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(line, "\\u{unit:04x}").expect("writing to memory does not fail");
            }
        } else {
            line.push(c);
        }
    }
    line.push('\n');
    line
}

fn text_line<T: Display + ?Sized>(item: &T) -> String {
    let mut line = escape(&item.to_string());
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sets the title, clears the screen by a C1 control, deletes, turns the text around.
    const HOSTILE: &str = "a\x1b]0;t\x07\u{9b}2J\x7f\r\t\u{202e}b\u{2066}\u{200f}\u{e0041}";

    fn is_clean(line: &str) -> bool {
        judged(line.trim_end_matches('\n')).all(|(_, is_bad)| !is_bad)
    }

    #[test]
    fn text_from_others_cannot_command_the_terminal() {
        let line = text_line(&HOSTILE);
        assert!(is_clean(&line), "{line:?}");
        assert!(line.starts_with("a\\u{1b}]0;t\\u{7}\\u{9b}2J"), "{line}");
        assert_eq!(text_line(&"übrig: 漢字 ✓\nzwei"), "übrig: 漢字 ✓\nzwei\n");
    }

    #[test]
    fn json_holds_the_same_text_without_the_characters() {
        let line = json_line(&serde_json::json!({ "error": HOSTILE }));
        assert!(is_clean(&line), "{line:?}");
        assert_eq!(line.lines().count(), 1);
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["error"], HOSTILE);
    }
}
