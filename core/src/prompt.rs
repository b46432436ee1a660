//! Prompts: limits, and the text preparation that a cascade asks for.

use serde::{Deserialize, Serialize};

use crate::{
    caption,
    digest::{Digest, FieldHasher},
    error::UserError,
};

/// Longest prompt, in characters, before preparation.
pub const MAX_CHARACTERS: usize = 4096;

/// What is done to a text before it is tokenized; part of the encoder digest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TextPreparation {
    /// Nothing.
    None,
    /// Lower-cased and stripped of surrounding white space, as IF's pipelines always do.
    #[default]
    LowercaseStrip,
    /// Cleaned as IF's pipelines clean captions (see [`crate::caption`]): links, markup, file names, article numbers and
    /// CJK ideographs go, punctuation is levelled.
    IfClean,
}

impl TextPreparation {
    /// The text as the tokenizer gets it.
    ///
    /// # Errors
    /// A text that cannot be cleaned within bounds.
    pub fn apply(self, text: &str) -> Result<String, caption::Error> {
        match self {
            Self::None => Ok(text.to_owned()),
            Self::LowercaseStrip => Ok(text.to_lowercase().trim().to_owned()),
            // The reference cleans twice.
            Self::IfClean => caption::clean(&caption::clean(text)?),
        }
    }

    /// [`apply`](Self::apply) for a text that a user gave in `field`.
    ///
    /// # Errors
    /// `field` is named when the text cannot be cleaned within bounds.
    pub fn prepare(self, field: &str, text: &str) -> Result<String, UserError> {
        self.apply(text).map_err(|error| {
            UserError::invalid(field, format!("{field} cannot be cleaned as the cascade wants it: {error}"))
        })
    }

    /// Its name in `cascade.toml` and in digests.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::LowercaseStrip => "lowercase-strip",
            Self::IfClean => "if-clean",
        }
    }
}

/// Checks a prompt as a user gave it.
///
/// # Errors
/// `field` is named when the text is blank, too long, or has control characters other than tab and line breaks.
pub fn check_prompt(field: &str, text: &str) -> Result<(), UserError> {
    if text.trim().is_empty() {
        return Err(UserError::invalid(
            field,
            format!("{field} is empty; accepted: 1 to {MAX_CHARACTERS} characters that are not all blank"),
        ));
    }
    check_text(field, text)
}

/// Checks a negative prompt: the same limits, but it may be empty.
///
/// # Errors
/// As [`check_prompt`], but for the empty text.
pub fn check_text(field: &str, text: &str) -> Result<(), UserError> {
    let characters = text.chars().count();
    if characters > MAX_CHARACTERS {
        return Err(UserError::invalid(
            field,
            format!("{field} has {characters} characters; accepted: 1 to {MAX_CHARACTERS}"),
        ));
    }
    if let Some(bad) = text.chars().find(|c| c.is_control() && !matches!(c, '\t' | '\n' | '\r')) {
        return Err(UserError::invalid(
            field,
            format!("{field} contains the control character U+{:04X}; accepted: printable text", bad as u32),
        ));
    }
    Ok(())
}

/// Identity of a prepared text under one encoder: one embedding exists for each.
#[must_use]
pub fn text_digest(encoder: &Digest, prepared: &str) -> Digest {
    FieldHasher::new("text/1").field(&encoder.0).field(prepared.as_bytes()).finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blank_long_and_control_texts_are_refused_by_field() {
        for text in ["", "  \n ", &"x".repeat(MAX_CHARACTERS + 1), "a\u{0}b"] {
            let error = check_prompt("prompts[3].text", text).expect_err(text);
            assert_eq!(error.field.as_deref(), Some("prompts[3].text"));
        }
        check_prompt("p", &"ß".repeat(MAX_CHARACTERS)).expect("characters, not bytes, are counted");
    }

    #[test]
    fn preparation_lowers_then_strips() {
        assert_eq!(TextPreparation::LowercaseStrip.apply("  A Red CIRCLE \n").as_deref(), Ok("a red circle"));
        assert_eq!(TextPreparation::None.apply(" A ").as_deref(), Ok(" A "));
    }
}
