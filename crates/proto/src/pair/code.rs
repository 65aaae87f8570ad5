//! The code that people tell each other.

use core::fmt;
use core::str::FromStr;

use bip39::Language;
use rand_core::Rng;
use thiserror::Error;

/// Words of a code: 11 bits each.
const WORDS: usize = 3;
/// Words of the list (BIP-39).
const LIST_LEN: u16 = 2_048;
/// The numbers: four digits without a leading zero, which somebody would leave out.
const NUMBER_MIN: u16 = 1_000;
const NUMBER_MAX: u16 = 9_999;
/// Letters that tell the words of the list apart (BIP-39).
const PREFIX_LEN: usize = 4;
/// Longest text that is looked at, in bytes.
const TEXT_LEN_MAX: usize = 128;
/// Words that are suggested for a mistyped one, and the letters that they share with it.
const SUGGESTIONS_MAX: usize = 3;
const SUGGEST_LEN: usize = 3;

/// A number where the inviter is found, and three words of the English list of BIP-39.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PairCode {
    number: u16,
    words: [u16; WORDS],
}

impl PairCode {
    /// Draws a code. `rng` must be unpredictable.
    pub fn draw(rng: &mut impl Rng) -> Self {
        // 2^32 is no multiple of 9,000: a number is likelier than another by 2e-6 at most.
        #[expect(clippy::cast_possible_truncation, reason = "less than `count`")]
        let mut below = |count: u16| (rng.next_u32() % u32::from(count)) as u16;
        let words = [(); WORDS].map(|()| below(LIST_LEN));
        Self { number: NUMBER_MIN + below(NUMBER_MAX - NUMBER_MIN + 1), words }
    }

    /// The public part: where the inviter is found. 1,000 to 9,999.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }

    /// The topic under which whoever shows a code of this number is found. Everybody can know it.
    #[must_use]
    pub fn topic(&self) -> String {
        format!("baran/pair/1/{}", self.number)
    }

    /// The secret part, as both sides write it.
    pub(super) fn password(&self) -> String {
        self.words.map(word).join("-")
    }
}

impl fmt::Display for PairCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.number, self.password())
    }
}

impl fmt::Debug for PairCode {
    /// Shows the public part alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PairCode").field(&self.number).finish()
    }
}

impl FromStr for PairCode {
    type Err = CodeError;

    /// Reads what a person typed: any case, any separators, words cut after four letters.
    fn from_str(text: &str) -> Result<Self, CodeError> {
        if text.len() > TEXT_LEN_MAX {
            return Err(CodeError::Shape);
        }
        let lower = text.to_lowercase();
        let mut parts = lower.split(|c: char| !c.is_alphanumeric()).filter(|part| !part.is_empty());
        let mut part = || parts.next().ok_or(CodeError::Shape);
        let number = part()?;
        let number = number
            .parse()
            .ok()
            .filter(|number| (NUMBER_MIN..=NUMBER_MAX).contains(number))
            .ok_or_else(|| CodeError::Number(number.to_owned()))?;
        let mut words = [0; WORDS];
        for word in &mut words {
            *word = find(part()?)?;
        }
        if parts.next().is_some() {
            return Err(CodeError::Shape);
        }
        Ok(Self { number, words })
    }
}

fn word(index: u16) -> &'static str {
    Language::English.word_list()[usize::from(index)]
}

/// The word that was meant. Four letters decide, so an ending is never wrong; words of three
/// letters are whole.
fn find(typed: &str) -> Result<u16, CodeError> {
    let prefix: String = typed.chars().take(PREFIX_LEN).collect();
    let list = Language::English;
    let is_it =
        |word: &&str| *word == typed || word.len() >= PREFIX_LEN && word.starts_with(&prefix);
    let found = list.find_word(typed).or_else(|| {
        let word =
            list.word_list().iter().find(|word| prefix.len() >= PREFIX_LEN && is_it(word))?;
        list.find_word(word)
    });
    found.ok_or_else(|| {
        let start: String = typed.chars().take(SUGGEST_LEN).collect();
        let near = list.words_by_prefix_iter(&start).take(SUGGESTIONS_MAX).collect::<Vec<_>>();
        CodeError::Word { typed: typed.to_owned(), near: near.join(", ") }
    })
}

/// Why a text is no code.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CodeError {
    /// Not a number and three words.
    #[error("a code is a number and three words, like 4711-maple-river-stone")]
    Shape,
    /// What stands first is no number of a code.
    #[error("{0:?} is no number of a code: it has four digits, as in 4711-maple-river-stone")]
    Number(String),
    /// A word is not of the list.
    #[error("{typed:?} is not one of the words{}", suggestion(.near))]
    Word {
        /// What was typed.
        typed: String,
        /// Words that begin alike, with commas; may be empty.
        near: String,
    },
}

fn suggestion(near: &str) -> String {
    if near.is_empty() {
        return ": ask for the code again".to_owned();
    }
    format!(": was it {near}?")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;

    #[test]
    fn codes_are_read_as_people_type_them() {
        let code: PairCode = "4711-maple-river-stone".parse().unwrap();
        assert_eq!(code.to_string(), "4711-maple-river-stone");
        assert_eq!(code.number(), 4_711);
        for text in [
            " 4711 Maple RIVER stone\n",
            "4711 mapl rive ston",
            "4711, maple; river; stones.",
            "4711-maple--river_stone",
        ] {
            assert_eq!(text.parse(), Ok(code), "{text}");
        }
        assert!(!format!("{code:?}").contains("maple"));
    }

    #[test]
    fn other_texts_say_what_is_wrong() {
        let parse = |text: &str| text.parse::<PairCode>();
        for text in ["", "4711", "4711-maple-river", "4711-maple-river-stone-zoo", &"1 ".repeat(99)]
        {
            assert_eq!(parse(text), Err(CodeError::Shape), "{text}");
        }
        for text in ["0-maple-river-stone", "47110-a-b-c", "maple-river-stone-4711"] {
            assert!(matches!(parse(text), Err(CodeError::Number(_))), "{text}");
        }
        let error = parse("4711-mapel-river-stone").unwrap_err().to_string();
        assert!(error.contains("\"mapel\" is not one of the words: was it maple"), "{error}");
        let error = parse("4711-xyzzy-river-stone").unwrap_err().to_string();
        assert!(error.contains("ask for the code again"), "{error}");
        // Three letters of a longer word are not enough, even where they are unique.
        assert!(parse("4711-riv-river-stone").is_err());
    }

    #[test]
    fn drawn_codes_are_read_back_and_differ() {
        let mut rng = ChaCha20Rng::from_seed([7; 32]);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..1_000 {
            let code = PairCode::draw(&mut rng);
            assert_eq!(code.to_string().parse(), Ok(code));
            seen.insert(code.to_string());
        }
        assert_eq!(seen.len(), 1_000);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(text: String) {
            let _ = text.parse::<PairCode>();
        }
    }
}
