//! Prompts: limits, and the text preparation that a cascade asks for.

use serde::{Deserialize, Serialize};

use crate::{
    caption,
    digest::{Digest, FieldHasher},
    error::UserError,
};

/// Longest prompt, in characters, before preparation.
pub const MAX_CHARACTERS: usize = 4096;

/// How a text is prepared before it is tokenized; part of the encoder digest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TextPreparation {
    /// Nothing.
    None,
    /// Lower-cased and stripped of surrounding white space, as IF's pipelines always do.
    #[default]
    LowercaseStrip,
    /// Cleaned as IF's pipelines clean captions (see [`crate::caption`]): links, markup, file
    /// names, article numbers and CJK ideographs are removed, and punctuation is made uniform.
    IfClean,
}

impl TextPreparation {
    /// The text that the tokenizer gets.
    ///
    /// # Errors
    /// The text cannot be cleaned within the limits on work.
    pub fn apply(self, text: &str) -> Result<String, caption::Error> {
        match self {
            Self::None => Ok(text.to_owned()),
            Self::LowercaseStrip => Ok(text.to_lowercase().trim().to_owned()),
            // The reference cleans twice too.
            Self::IfClean => caption::clean(&caption::clean(text)?),
        }
    }

    /// [`apply`](Self::apply) for a text that a user gave in `field`.
    ///
    /// # Errors
    /// Names `field` if the text cannot be cleaned within the limits on work.
    pub fn prepare(self, field: &str, text: &str) -> Result<String, UserError> {
        self.apply(text).map_err(|error| {
            UserError::invalid(
                field,
                format!("{field} cannot be cleaned, which the cascade requires: {error}"),
            )
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

/// Whether nothing of a text is visible: it is empty, or has only white space and characters that
/// are ignored when text is shown (zero-width spaces and joiners, a byte order mark, soft hyphens,
/// variation selectors, fillers).
#[must_use]
pub fn is_blank(text: &str) -> bool {
    text.chars().all(|c| c.is_whitespace() || is_ignorable(c) || c == BLANK_BRAILLE)
}

/// Looks like a space, but Unicode counts it as a symbol.
const BLANK_BRAILLE: char = '\u{2800}';

/// Unicode's property `Default_Ignorable_Code_Point`: not shown when a font has no glyph for it.
#[must_use]
pub fn is_ignorable(c: char) -> bool {
    matches!(c,
        '\u{AD}' | '\u{34F}' | '\u{61C}' | '\u{115F}'..='\u{1160}' | '\u{17B4}'..='\u{17B5}' | '\u{180B}'..='\u{180F}'
        | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{3164}'
        | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}' | '\u{FFA0}' | '\u{FFF0}'..='\u{FFF8}' | '\u{1BCA0}'..='\u{1BCA3}'
        | '\u{1D173}'..='\u{1D17A}' | '\u{E0000}'..='\u{E0FFF}')
}

/// An optional text: a [blank](is_blank) one becomes the empty text.
#[must_use]
pub fn or_empty(text: &str) -> &str {
    if is_blank(text) { "" } else { text }
}

/// Checks a prompt as a user gave it.
///
/// # Errors
/// `field` is named when the text is [blank](is_blank), too long, or has control characters other
/// than tab and line breaks.
pub fn check_prompt(field: &str, text: &str) -> Result<(), UserError> {
    if is_blank(text) {
        let is = if text.is_empty() { "empty" } else { "empty (nothing in it can be seen)" };
        return Err(UserError::invalid(
            field,
            format!(
                "{field} is {is}; accepted: 1 to {MAX_CHARACTERS} characters that are not all blank"
            ),
        ));
    }
    check_text(field, text)
}

/// Checks that something of a prompt is left after its preparation.
///
/// # Errors
/// Names `field` if what the tokenizer would get is [blank](is_blank).
pub fn check_prepared(
    field: &str,
    preparation: TextPreparation,
    prepared: &str,
) -> Result<(), UserError> {
    if !is_blank(prepared) {
        return Ok(());
    }
    let message = format!(
        "{field} is empty after the cascade's text preparation ({}), which removes links, markup, file names and the \
         like; accepted: a text that has other words too",
        preparation.name()
    );
    Err(UserError::invalid(field, message))
}

/// Checks an optional text, a negative prompt or a style. The limits are the same, but it may be
/// [blank](is_blank), which means empty ([`or_empty`]).
///
/// # Errors
/// As for [`check_prompt`], except for blank texts.
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
            format!(
                "{field} contains the control character U+{:04X}; accepted: printable text",
                bad as u32
            ),
        ));
    }
    Ok(())
}

/// Identity of a prepared text for one encoder. Each has one embedding.
#[must_use]
pub fn text_digest(encoder: &Digest, prepared: &str) -> Digest {
    FieldHasher::new("text/1").field(&encoder.0).field(prepared.as_bytes()).finish()
}

/// As [`text_digest`], for the texts of one tenant: no other tenant's texts have the same digest.
#[must_use]
pub fn sealed_text_digest(tenant: &str, encoder: &Digest, prepared: &str) -> Digest {
    let text = text_digest(encoder, prepared);
    FieldHasher::new("sealed-text/1").field(tenant.as_bytes()).field(&text.0).finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_text_is_its_tenants_alone() {
        let (encoder, other) = (Digest::of(b"encoder"), Digest::of(b"other"));
        let digests = [
            text_digest(&encoder, "a cat"),
            sealed_text_digest("a", &encoder, "a cat"),
            sealed_text_digest("b", &encoder, "a cat"),
            sealed_text_digest("a", &other, "a cat"),
            sealed_text_digest("a", &encoder, "a dog"),
        ];
        let distinct: std::collections::BTreeSet<_> = digests.iter().collect();
        assert_eq!(distinct.len(), digests.len());
        assert_eq!(digests[1], sealed_text_digest("a", &encoder, "a cat"));
        let pinned = "5dcab454a31a13ab03d8a2f36341aaf7618b48c7c006c34813dac35e5c7f2322";
        assert_eq!(digests[0].to_string(), pinned, "embeddings are stored under it");
    }

    #[test]
    fn blank_long_and_control_texts_are_refused_by_field() {
        for text in ["", "  \n ", &"x".repeat(MAX_CHARACTERS + 1), "a\u{0}b"] {
            let error = check_prompt("prompts[3].text", text).expect_err(text);
            assert_eq!(error.field.as_deref(), Some("prompts[3].text"));
        }
        check_prompt("p", &"ß".repeat(MAX_CHARACTERS)).expect("characters, not bytes, are counted");
    }

    #[test]
    fn what_cannot_be_seen_is_no_prompt() {
        let invisible = [
            "\u{FEFF}",
            "\u{200B}",
            "\u{A0}",
            "\u{2060}",
            "\u{180E}",
            "\u{3000}",
            "\u{200C}",
            "\u{200D}",
            "\u{200E}",
            "\u{200F}",
            "\u{AD}",
            "\u{FE0F}",
            "\u{180B}",
            "\u{E0100}",
            "\u{85}",
            "\u{2028}",
            "\u{2003}",
            "\u{202F}",
            "\u{205F}",
            "\u{1680}",
            "\u{3164}",
            "\u{FFA0}",
            "\u{115F}",
            "\u{34F}",
            "\u{61C}",
            "\u{202E}",
            "\u{2066}",
            "\u{E0020}",
            "\u{2800}",
            "\u{FFF0}",
        ];
        for text in invisible
            .iter()
            .map(|one| (*one).to_owned())
            .chain([invisible.concat(), format!("\t{}\n", invisible.concat())])
        {
            assert!(is_blank(&text), "{}", text.escape_unicode());
            let error = check_prompt("prompt", &text).expect_err("refused");
            assert!(error.message.starts_with("prompt is empty (nothing"), "{}", error.message);
            assert_eq!(or_empty(&text), "");
            // Beside visible characters, they count as text.
            let seen = format!("{text}a{text}");
            assert!(!is_blank(&seen));
            assert_eq!(or_empty(&seen), seen);
        }
        for text in [
            "a",
            ".",
            "-",
            "\u{301}",
            "\u{4E00}",
            "\u{1F468}\u{200D}\u{1F469}",
            "\u{FFFD}",
            "\u{AC00}",
        ] {
            assert!(!is_blank(text), "{}", text.escape_unicode());
        }
    }

    #[test]
    fn a_prompt_of_which_preparation_leaves_nothing_is_refused() {
        let prepared =
            |text: &str| TextPreparation::IfClean.apply(text).expect("it can be cleaned");
        for text in [".hidden", "a.b.c.org", "www://example.org/a"] {
            let error =
                check_prepared("prompts[0].text", TextPreparation::IfClean, &prepared(text))
                    .expect_err(text);
            assert_eq!(error.field.as_deref(), Some("prompts[0].text"));
            assert!(error.message.contains("if-clean"), "{}", error.message);
        }
        check_prepared("p", TextPreparation::IfClean, &prepared("a cat"))
            .expect("something is left");
    }

    #[test]
    fn preparation_lowers_then_strips() {
        assert_eq!(
            TextPreparation::LowercaseStrip.apply("  A Red CIRCLE \n").as_deref(),
            Ok("a red circle")
        );
        assert_eq!(TextPreparation::None.apply(" A ").as_deref(), Ok(" A "));
    }
}
