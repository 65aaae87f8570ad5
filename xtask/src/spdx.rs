//! Licence expressions: the part of SPDX 2.3 (annex D) that crates use.
//!
//! `AND` binds tighter than `OR`; a `/`, the old form of crates.io, is an `OR`; `X WITH Y` is one
//! licence. Deviation: an `+` after an identifier is not understood, and such a licence is then not
//! on any list.

/// True if somebody who accepts the licences for which `accepts` is true may use the work.
///
/// Text that is no expression is not accepted.
pub(crate) fn is_accepted(expression: &str, accepts: impl Fn(&str) -> bool) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut parser = Parser { words: &words, accepts };
    matches!((parser.any(), parser.words), (Some(true), []))
}

/// Each method takes what it understands off the front of `words` and returns whether it is
/// accepted; none means that the text is no expression.
struct Parser<'a, F> {
    words: &'a [&'a str],
    accepts: F,
}

impl<'a, F: Fn(&str) -> bool> Parser<'a, F> {
    fn any(&mut self) -> Option<bool> {
        let mut accepted = self.all()?;
        while self.take("OR") {
            accepted |= self.all()?;
        }
        Some(accepted)
    }

    fn all(&mut self) -> Option<bool> {
        let mut accepted = self.one()?;
        while self.take("AND") {
            accepted &= self.one()?;
        }
        Some(accepted)
    }

    fn one(&mut self) -> Option<bool> {
        if self.take("(") {
            let accepted = self.any()?;
            return self.take(")").then_some(accepted);
        }
        let name = self.word()?;
        if self.take("WITH") {
            let exception = self.word()?;
            return Some((self.accepts)(&format!("{name} WITH {exception}")));
        }
        Some((self.accepts)(name))
    }

    fn word(&mut self) -> Option<&'a str> {
        let (first, rest) = self.words.split_first()?;
        if matches!(*first, "(" | ")" | "AND" | "OR" | "WITH") {
            return None;
        }
        self.words = rest;
        Some(first)
    }

    fn take(&mut self, word: &str) -> bool {
        match self.words.split_first() {
            Some((first, rest)) if *first == word => {
                self.words = rest;
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(expression: &str, expect: bool) {
        let accepts = |name: &str| ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"].contains(&name);
        assert_eq!(is_accepted(expression, accepts), expect, "{expression}");
    }

    #[test]
    fn either_side_of_or_will_do_and_both_of_and_must() {
        check("MIT", true);
        check("GPL-3.0", false);
        check("GPL-3.0 OR MIT", true);
        check("GPL-3.0/MIT", true);
        check("GPL-3.0 AND MIT", false);
        check("ISC AND MIT", true);
    }

    #[test]
    fn and_binds_tighter_than_or_and_brackets_tighter_still() {
        check("MIT OR GPL-3.0 AND GPL-2.0", true);
        check("(MIT OR GPL-3.0) AND GPL-2.0", false);
        check("(MIT OR GPL-3.0) AND ISC", true);
    }

    #[test]
    fn an_exception_is_part_of_the_licence() {
        check("Apache-2.0 WITH LLVM-exception", true);
        check("MIT WITH something", false);
    }

    #[test]
    fn what_is_no_expression_is_not_accepted() {
        for text in ["", "MIT OR", "(MIT", "MIT)", "MIT ISC", "OR MIT", "AND", "MIT WITH"] {
            check(text, false);
        }
    }
}
