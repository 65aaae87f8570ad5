//! Foreign text on a terminal.
//!
//! Peers choose texts that reach this program (reasons, names, messages), and a terminal takes
//! orders from what is written to it. Nothing of that leaves as it is:
//!
//! - controls (C0 but for the line feed, DEL, C1), which begin every escape sequence;
//! - marks that turn the direction of text and what separates lines and paragraphs (Unicode TR 36
//!   §3.2), by which one text passes for another;
//! - characters that are not seen at all (Unicode TR 39 §3.1), by which two names look the same.
//!
//! Joiners, variation selectors and combining marks belong to languages and emoji. They stay where
//! these use them: joiners between two characters beyond ASCII, a selector after something that is
//! seen, and no more than [`MARKS_MAX`] marks on one character.

use unicode_width::UnicodeWidthChar;

/// Most marks on one character: Tibetan and pointed Hebrew need as many.
const MARKS_MAX: usize = 6;

/// Columns that a tab is shown with.
const TAB: &str = "    ";

/// `text` with an escape in the place of every character that a terminal could obey or a reader
/// could not see. Line feeds stay.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for (c, is_bad) in judged(text) {
        if is_bad && c != '\n' {
            escaped.extend(c.escape_unicode());
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// A name, on one line.
pub(crate) fn name(text: &str) -> String {
    escape(text).replace('\n', "\\u{a}")
}

/// The lines of a message, escaped. Tabs become blanks, and a carriage return before a line feed
/// belongs to it.
pub(crate) fn lines(text: &str) -> Vec<String> {
    let text = text.trim_end_matches('\n').replace("\r\n", "\n").replace('\t', TAB);
    text.split('\n').map(escape).collect()
}

/// The characters of `text`, each with whether it must not reach a terminal as it is, the line feed
/// among them.
pub(crate) fn judged(text: &str) -> impl Iterator<Item = (char, bool)> {
    let mut chars = text.chars().peekable();
    let mut before = Before::default();
    std::iter::from_fn(move || {
        let c = chars.next()?;
        let is_bad = before.judge(c, chars.peek().copied());
        Some((c, is_bad))
    })
}

/// What stands before a character.
#[derive(Default)]
struct Before {
    /// The last character that is seen, unless there is a blank or something escaped after it.
    base: Option<char>,
    /// Marks on it.
    marks: usize,
    is_joiner: bool,
    is_selector: bool,
}

impl Before {
    fn judge(&mut self, c: char, next: Option<char>) -> bool {
        let is_bad = if is_joiner(c) {
            let joins = next.is_some_and(|next| self.may_precede(next));
            self.is_joiner || !joins || self.base.is_none_or(|base| base.is_ascii())
        } else if is_selector(c) {
            self.is_joiner || self.is_selector || self.base.is_none()
        } else if is_never(c) {
            true
        } else if c.width() == Some(0) {
            self.marks += 1;
            self.base.is_none() || self.marks > MARKS_MAX
        } else {
            self.base = (!c.is_whitespace()).then_some(c);
            self.marks = 0;
            false
        };
        self.is_joiner = is_joiner(c) && !is_bad;
        self.is_selector = is_selector(c) && !is_bad;
        if is_bad {
            self.base = None;
        }
        is_bad
    }

    /// Whether a joiner may stand before `next`: something beyond ASCII that stays as it is.
    fn may_precede(&self, next: char) -> bool {
        let is_mark_too_many = next.width() == Some(0) && self.marks >= MARKS_MAX;
        let is_special = is_joiner(next) || is_selector(next) || is_never(next);
        !(next.is_ascii() || next.is_whitespace() || is_special || is_mark_too_many)
    }
}

fn is_joiner(c: char) -> bool {
    matches!(c, '\u{200c}' | '\u{200d}')
}

fn is_selector(c: char) -> bool {
    matches!(c, '\u{fe00}'..='\u{fe0f}')
}

/// Whether a character is bad wherever it stands.
fn is_never(c: char) -> bool {
    let turns_or_parts = matches!(
        c,
        '\u{61c}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}'
    );
    let unseen = matches!(
        c,
        '\u{ad}'
            | '\u{34f}'
            | '\u{115f}'
            | '\u{1160}'
            | '\u{17b4}'
            | '\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'
            | '\u{2060}'..='\u{206f}'
            | '\u{2800}'
            | '\u{3164}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'
    );
    c.is_control() || turns_or_parts || unseen
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_commands_hides_or_turns_is_escaped() {
        for (text, expect) in [
            ("a\x1b]0;t\x07", "a\\u{1b}]0;t\\u{7}"),
            ("\u{9b}2J", "\\u{9b}2J"),
            ("\x1b[31mred", "\\u{1b}[31mred"),
            ("del\x7f", "del\\u{7f}"),
            ("over\rwritten\x08", "over\\u{d}written\\u{8}"),
            ("a\tb\0", "a\\u{9}b\\u{0}"),
            ("gpj.\u{202e}exe", "gpj.\\u{202e}exe"),
            ("\u{202a}\u{202b}\u{202c}\u{202d}", "\\u{202a}\\u{202b}\\u{202c}\\u{202d}"),
            ("\u{2066}\u{2067}\u{2068}\u{2069}", "\\u{2066}\\u{2067}\\u{2068}\\u{2069}"),
            ("\u{200e}\u{200f}\u{61c}", "\\u{200e}\\u{200f}\\u{61c}"),
            ("one\u{2028}two\u{2029}", "one\\u{2028}two\\u{2029}"),
            ("an\u{200b}a", "an\\u{200b}a"),
            ("an\u{200d}a \u{200c}", "an\\u{200d}a \\u{200c}"),
            ("ana\u{feff}\u{2060}\u{ad}", "ana\\u{feff}\\u{2060}\\u{ad}"),
            ("\u{3164}", "\\u{3164}"),
            ("a\u{e0041}", "a\\u{e0041}"),
            ("\u{301}a", "\\u{301}a"),
            ("a \u{301}", "a \\u{301}"),
            ("é\u{200d}\u{200d}é", "é\\u{200d}\\u{200d}é"),
            ("é\u{200d} b", "é\\u{200d} b"),
            ("\u{fe0f}1", "\\u{fe0f}1"),
            ("1\u{fe0f}\u{fe0f}", "1\u{fe0f}\\u{fe0f}"),
        ] {
            assert_eq!(escape(text), expect, "{text:?}");
        }
    }

    #[test]
    fn what_languages_and_emoji_need_stays() {
        for text in [
            "übrig: 漢字 ✓\nzwei",
            "e\u{301}a\u{308}",
            "می\u{200c}خواهم",
            "क\u{94d}\u{200d}ष",
            "👨\u{200d}👩\u{200d}👧 🏳\u{fe0f}\u{200d}🌈",
            "1\u{fe0f}\u{20e3} ❤\u{fe0f}",
            "שָׁלוֹם",
            "\u{1112}\u{1161}\u{11ab}",
            "สวัสดีครับ",
        ] {
            assert_eq!(escape(text), text, "{text:?}");
        }
    }

    #[test]
    fn marks_do_not_pile_up() {
        let pile = format!("a{}", "\u{301}".repeat(100));
        let escaped = escape(&pile);
        assert_eq!(escaped.chars().filter(|c| *c == '\u{301}').count(), MARKS_MAX);
    }

    #[test]
    fn messages_have_lines_and_names_have_not() {
        assert_eq!(lines("a\tb\r\nc\n\nd\n\n"), ["a    b", "c", "", "d"]);
        assert_eq!(lines(""), [""]);
        assert_eq!(lines("\x1b[2J\rb"), ["\\u{1b}[2J\\u{d}b"]);
        assert_eq!(name("an\na\u{2028}"), "an\\u{a}a\\u{2028}");
    }

    proptest! {
        #[test]
        fn nothing_bad_is_left(text in any::<String>()) {
            let escaped = escape(&text);
            prop_assert!(escaped.chars().all(|c| c == '\n' || !is_never(c)), "{escaped:?}");
            // What is escaped is harmless as it stands.
            prop_assert_eq!(escape(&escaped), escaped);
        }
    }
}
