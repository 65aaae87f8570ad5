//! The line that is being typed, and those that were.
//!
//! Invariant: the cursor stands between two characters as people see them (grapheme clusters,
//! Unicode TR 29).

use unicode_segmentation::UnicodeSegmentation;
use unicode_width::UnicodeWidthStr;

use crate::escape;

/// Longest text in bytes: a message's.
const LEN_MAX: usize = 32_000;
/// Lines that are remembered.
const TYPED_MAX: usize = 200;
/// Stands for a line's end.
const LINE_END: &str = "⏎";

/// A line of text with a cursor.
#[derive(Debug, Default)]
pub(super) struct Input {
    text: String,
    /// In bytes.
    cursor: usize,
    typed: Vec<String>,
    /// Which of the lines that were typed is shown, and what was being typed before.
    recalled: Option<(usize, String)>,
}

impl Input {
    /// Whether there is nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Types a text; what has no room, and controls but for line feeds and tabs, are left out.
    pub(super) fn insert(&mut self, text: &str) {
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        for c in text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')) {
            if self.text.len() + c.len_utf8() > LEN_MAX {
                return;
            }
            self.text.insert(self.cursor, c);
            self.cursor += c.len_utf8();
        }
        self.settle();
    }

    /// What is typed may have become one character with what stands behind it.
    fn settle(&mut self) {
        let mut ends = self.text.grapheme_indices(true).map(|(at, part)| at + part.len());
        if self.cursor > 0 {
            self.cursor = ends.find(|end| *end >= self.cursor).unwrap_or(self.text.len());
        }
    }

    /// Takes the text, and remembers it.
    pub(super) fn take(&mut self) -> String {
        let text = std::mem::take(&mut self.text);
        (self.cursor, self.recalled) = (0, None);
        if !text.is_empty() && self.typed.last() != Some(&text) {
            self.typed.push(text.clone());
            if self.typed.len() > TYPED_MAX {
                self.typed.remove(0);
            }
        }
        text
    }

    pub(super) fn left(&mut self) {
        self.cursor = self.before();
    }

    pub(super) fn right(&mut self) {
        self.cursor = self.after();
    }

    pub(super) fn begin(&mut self) {
        self.cursor = 0;
    }

    pub(super) fn end(&mut self) {
        self.cursor = self.text.len();
    }

    pub(super) fn word_left(&mut self) {
        self.cursor = self.word_before();
    }

    pub(super) fn word_right(&mut self) {
        let words = self.text[self.cursor..].unicode_word_indices().next();
        self.cursor = words.map_or(self.text.len(), |(at, word)| self.cursor + at + word.len());
    }

    pub(super) fn erase_left(&mut self) {
        self.erase(self.before(), self.cursor);
    }

    pub(super) fn erase_right(&mut self) {
        self.erase(self.cursor, self.after());
    }

    pub(super) fn erase_word(&mut self) {
        self.erase(self.word_before(), self.cursor);
    }

    pub(super) fn erase_to_begin(&mut self) {
        self.erase(0, self.cursor);
    }

    pub(super) fn erase_to_end(&mut self) {
        self.text.truncate(self.cursor);
    }

    /// Shows the line that was typed before.
    pub(super) fn older(&mut self) {
        let at = self.recalled.as_ref().map_or(self.typed.len(), |(at, _)| *at);
        let Some(at) = at.checked_sub(1) else { return };
        let draft = match self.recalled.take() {
            Some((_, draft)) => draft,
            None => std::mem::take(&mut self.text),
        };
        self.text.clone_from(&self.typed[at]);
        self.recalled = Some((at, draft));
        self.end();
    }

    /// Shows the line that was typed after, or at last what was being typed.
    pub(super) fn newer(&mut self) {
        let Some((at, draft)) = self.recalled.take() else { return };
        if let Some(text) = self.typed.get(at + 1) {
            self.text.clone_from(text);
            self.recalled = Some((at + 1, draft));
        } else {
            self.text = draft;
        }
        self.end();
    }

    /// What `columns` show, escaped, and in which of them the cursor stands.
    pub(super) fn view(&self, columns: usize) -> (String, usize) {
        let show = |text: &str| escape::escape(&text.replace('\t', " ")).replace('\n', LINE_END);
        let (before, after) = self.text.split_at(self.cursor);
        let (before, after) = (show(before), show(after));
        // The end of what is before fits, with a column for the cursor.
        let (mut start, mut width) = (before.len(), 0);
        for (at, grapheme) in before.grapheme_indices(true).rev() {
            width += grapheme.width();
            if width + 1 > columns {
                break;
            }
            start = at;
        }
        let shown = &before[start..];
        let cursor = shown.width();
        (format!("{shown}{after}"), cursor)
    }

    fn erase(&mut self, from: usize, to: usize) {
        self.text.replace_range(from..to, "");
        self.cursor = from;
        self.settle();
    }

    fn before(&self) -> usize {
        let mut before = self.text[..self.cursor].grapheme_indices(true);
        before.next_back().map_or(0, |(at, _)| at)
    }

    fn after(&self) -> usize {
        let next = self.text[self.cursor..].graphemes(true).next();
        self.cursor + next.map_or(0, str::len)
    }

    fn word_before(&self) -> usize {
        let mut words = self.text[..self.cursor].unicode_word_indices();
        words.next_back().map_or(0, |(at, _)| at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(text: &str) -> Input {
        let mut input = Input::default();
        input.insert(text);
        input
    }

    #[test]
    fn the_cursor_goes_by_what_people_see() {
        let mut input = typed("ae\u{301}👨\u{200d}👩\u{200d}👧");
        input.left();
        input.erase_left();
        assert_eq!(input.text, "a👨\u{200d}👩\u{200d}👧");
        input.right();
        input.erase_left();
        assert_eq!((input.text.as_str(), input.cursor), ("a", 1));
        input.right();
        input.erase_right();
        input.begin();
        input.left();
        input.erase_left();
        input.erase_right();
        assert!(input.is_empty());
    }

    #[test]
    fn words_and_ends_are_reached_and_erased() {
        let mut input = typed("one two, three");
        input.word_left();
        input.word_left();
        assert_eq!(input.cursor, 4);
        input.word_right();
        assert_eq!(input.cursor, 7);
        input.erase_word();
        assert_eq!(input.text, "one , three");
        input.erase_to_end();
        assert_eq!(input.text, "one ");
        input.insert("x");
        input.left();
        input.erase_to_begin();
        assert_eq!(input.text, "x");
    }

    #[test]
    fn what_was_typed_comes_back_and_so_does_what_was_being_typed() {
        let mut input = Input::default();
        for text in ["one", "two", "two"] {
            input.insert(text);
            input.take();
        }
        input.insert("draft");
        input.older();
        assert_eq!(input.text, "two");
        input.older();
        input.older();
        assert_eq!(input.text, "one");
        input.newer();
        input.newer();
        assert_eq!(input.text, "draft");
        input.newer();
        assert_eq!(input.text, "draft");
    }

    #[test]
    fn a_paste_is_cleaned_and_bounded() {
        let mut input = typed("a\x1b[31m\r\nb\u{7}\tc");
        assert_eq!(input.text, "a[31m\nb\tc");
        assert_eq!(input.view(80), ("a[31m⏎b c".to_owned(), 9));
        input.insert(&"x".repeat(2 * LEN_MAX));
        assert_eq!(input.text.len(), LEN_MAX);
        for _ in 0..2 * TYPED_MAX {
            input.insert("y");
            input.erase_left();
            input.insert(&input.typed.len().to_string());
            input.take();
        }
        assert!(input.typed.len() <= TYPED_MAX);
    }

    #[test]
    fn a_long_line_is_shown_around_the_cursor() {
        let mut input = typed("0123456789");
        assert_eq!(input.view(5), ("6789".to_owned(), 4));
        input.begin();
        assert_eq!(input.view(5), ("0123456789".to_owned(), 0));
        input.right();
        assert_eq!(input.view(5), ("0123456789".to_owned(), 1));
        for columns in 0..3 {
            typed("漢字").view(columns);
        }
    }
}
