//! Lines that fit a number of columns.

use unicode_segmentation::UnicodeSegmentation;
use unicode_width::UnicodeWidthStr;

/// Breaks a line between words where it can, into a first line of `first` columns and others of
/// `rest`. One line at least; a character that is wider than that stands alone.
pub(super) fn wrap(text: &str, first: usize, rest: usize) -> Vec<String> {
    let graphemes: Vec<_> = text.graphemes(true).collect();
    let mut lines = Vec::new();
    let mut left = &graphemes[..];
    while !left.is_empty() || lines.is_empty() {
        let limit = if lines.is_empty() { first } else { rest };
        let (line, after) = left.split_at(fitting(left, limit));
        let line = line.concat();
        left = after;
        if !left.is_empty() {
            // Blanks at a break are the break.
            let blanks = left.iter().take_while(|grapheme| **grapheme == " ").count();
            left = &left[blanks..];
            lines.push(line.trim_end_matches(' ').to_owned());
        } else {
            lines.push(line);
        }
    }
    lines
}

/// How many of these characters the next line takes.
fn fitting(graphemes: &[&str], limit: usize) -> usize {
    let (mut width, mut word) = (0, 0);
    for (at, grapheme) in graphemes.iter().enumerate() {
        width += grapheme.width();
        if width > limit && at > 0 {
            return if *grapheme == " " || word == 0 { at } else { word };
        }
        if *grapheme == " " {
            word = at + 1;
        }
    }
    graphemes.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_break_between_words_and_in_words_that_are_too_long() {
        for (text, first, rest, expect) in [
            ("", 5, 5, &[""][..]),
            ("one two", 7, 7, &["one two"]),
            ("one two", 6, 6, &["one", "two"]),
            ("one two", 3, 3, &["one", "two"]),
            ("one two three", 4, 9, &["one", "two three"]),
            ("abcdefgh", 3, 4, &["abc", "defg", "h"]),
            ("a abcdef", 4, 4, &["a", "abcd", "ef"]),
            ("漢字漢字", 5, 4, &["漢字", "漢字"]),
            ("漢", 1, 1, &["漢"]),
        ] {
            assert_eq!(wrap(text, first, rest), expect, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn every_line_fits_and_nothing_but_blanks_is_lost(
            text in "[a-c 漢e\u{301}]{0,60}",
            first in 2_usize..20,
            rest in 2_usize..20,
        ) {
            let lines = wrap(&text, first, rest);
            for (n, line) in lines.iter().enumerate() {
                let limit = if n == 0 { first } else { rest };
                prop_assert!(line.width() <= limit, "{line:?} of {lines:?}");
            }
            let squeeze = |text: &str| text.replace(' ', "");
            prop_assert_eq!(squeeze(&lines.concat()), squeeze(&text));
        }
    }
}
