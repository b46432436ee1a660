//! What a target found out about an input, and what a refusal must look like.

use std::fmt::Display;

/// The answer to an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was read. The text says roughly what it was, so that the driver keeps inputs that reach
    /// something new.
    Accepted(String),
    /// It was refused, with this sentence.
    Refused(String),
}

impl Verdict {
    /// An input that was read.
    pub fn accepted(shape: impl Display) -> Self {
        Self::Accepted(shape.to_string())
    }

    /// A refusal, which must be one sentence for people.
    ///
    /// # Panics
    /// If it is empty, has a control character, or is much longer than the input.
    pub fn refused(sentence: impl Display, input: &[u8]) -> Self {
        let sentence = sentence.to_string();
        assert!(!sentence.trim().is_empty(), "a refusal says nothing");
        let control = sentence.chars().find(|character| character.is_control());
        let begin = &sentence[..sentence.floor_char_boundary(500)];
        assert!(control.is_none(), "a refusal has {control:?}: {begin:?}");
        // An escaped character has up to ten.
        let most = 10 * input.len() + 4000;
        assert!(
            sentence.len() <= most,
            "a refusal of {} bytes has {} bytes: {begin}",
            input.len(),
            sentence.len()
        );
        Self::Refused(sentence)
    }

    /// The kind of the answer: equal for answers that differ in values only.
    #[must_use]
    pub fn kind(&self) -> String {
        let text = match self {
            Self::Accepted(shape) => return format!("+{shape}"),
            Self::Refused(sentence) => sentence,
        };
        // What a file holds stands in quotes of some kind, or is a number.
        let mut kind = String::from("-");
        let mut quoted = None;
        for character in text.chars() {
            match quoted {
                Some(end) if character == end => quoted = None,
                Some(_) => {}
                None if matches!(character, '"' | '`' | '\'') => quoted = Some(character),
                None if character.is_ascii_digit() => {}
                None => kind.push(character),
            }
        }
        kind.truncate(kind.floor_char_boundary(200));
        kind
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_of_the_same_kind_differ_in_values_only() {
        let kind = |sentence: &str| Verdict::refused(sentence, b"").kind();
        assert_eq!(
            kind("line 3: x is \"a\"; accepted: 1"),
            kind("line 14: x is \"b c\"; accepted: 2")
        );
        assert_ne!(kind("x is missing"), kind("y is missing"));
        assert_ne!(kind("x"), Verdict::accepted("x").kind());
    }

    #[test]
    fn a_refusal_that_is_no_sentence_fails() {
        for wrong in ["", " ", "two\nlines", "a bell \u{7}", "a C1 \u{9b}", &"x".repeat(5000)] {
            let found = std::panic::catch_unwind(|| Verdict::refused(wrong, b""));
            assert!(found.is_err(), "{wrong:?}");
        }
    }
}
