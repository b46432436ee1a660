//! What a user should know of how a text was read, kept with the embedding so that it is said again when the
//! embedding is found instead of computed.

use std::collections::BTreeMap;

use darkroom_core::digest::Digest;

use crate::encoder::Encoded;

const TOKENS: &str = "tokens";
const TRUNCATED: &str = "truncated_tokens";
const UNKNOWN: &str = "unknown_words";

/// Most unknown words named in one note.
const MAX_WORDS: usize = 20;

/// The embedding's metadata.
pub(crate) fn metadata(encoded: &Encoded) -> BTreeMap<String, String> {
    let words = serde_json::to_string(&encoded.unknown_words).unwrap_or_default();
    [
        (TOKENS, encoded.tokens.to_string()),
        (TRUNCATED, encoded.truncated_tokens.to_string()),
        (UNKNOWN, words),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

/// Notes for people from an embedding's metadata. The text itself is named by its hash only.
pub(crate) fn notes(text: &Digest, metadata: &BTreeMap<String, String>) -> Vec<String> {
    let number = |key: &str| metadata.get(key).and_then(|value| value.parse().ok()).unwrap_or(0_usize);
    let words = metadata.get(UNKNOWN).and_then(|words| serde_json::from_str::<Vec<String>>(words).ok());
    let (tokens, truncated) = (number(TOKENS), number(TRUNCATED));
    let text = text.short();
    let mut notes = Vec::new();
    if truncated > 0 {
        let all = tokens + truncated;
        notes.push(format!("a prompt has {all} tokens, the last {truncated} were cut off (text {text})"));
    }
    let words = words.unwrap_or_default();
    if !words.is_empty() {
        let more = words.len().saturating_sub(MAX_WORDS);
        let named = words[..words.len().min(MAX_WORDS)].join(", ");
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        notes.push(format!("the model does not know: {named}{more} (text {text})"));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Encoder, FakeEncoder};

    #[test]
    fn cut_off_tokens_and_unknown_words_are_told() {
        let text = "a blorp above a blorpish zorg";
        let encoded = FakeEncoder::new(5).encode(&[text]).unwrap().remove(0);
        let digest = Digest::of(b"t");
        let notes = notes(&digest, &metadata(&encoded));
        assert_eq!(notes.len(), 2);
        assert_eq!(
            notes[0],
            format!("a prompt has 7 tokens, the last 2 were cut off (text {})", digest.short())
        );
        assert!(notes[1].starts_with("the model does not know: blorp, blorpish (text "), "{}", notes[1]);
        let plain = FakeEncoder::new(32).encode(&["a circle"]).unwrap().remove(0);
        assert_eq!(super::notes(&digest, &metadata(&plain)), Vec::<String>::new());
    }
}
