//! What a user should know about how a text was read. It is stored with the embedding, so that it
//! is also shown when the embedding is found instead of computed.

use std::collections::BTreeMap;

use crate::encoder::Encoded;

const TOKENS: &str = "tokens";
const TRUNCATED: &str = "truncated_tokens";
const UNKNOWN: &str = "unknown_words";

/// Most unknown words in one note, and most characters of each word.
const MAX_WORDS: usize = 20;
const MAX_WORD: usize = 40;

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

/// Notes for people, from an embedding's metadata. The coordinator adds which images they are
/// about.
pub(crate) fn notes(metadata: &BTreeMap<String, String>) -> Vec<String> {
    let number =
        |key: &str| metadata.get(key).and_then(|value| value.parse().ok()).unwrap_or(0_usize);
    let words =
        metadata.get(UNKNOWN).and_then(|words| serde_json::from_str::<Vec<String>>(words).ok());
    let (tokens, truncated) = (number(TOKENS), number(TRUNCATED));
    let mut notes = Vec::new();
    if truncated > 0 {
        let all = tokens + truncated;
        notes.push(format!("a prompt has {all} tokens, the last {truncated} were cut off"));
    }
    let words = words.unwrap_or_default();
    if !words.is_empty() {
        let more = words.len().saturating_sub(MAX_WORDS);
        let named =
            words.iter().take(MAX_WORDS).map(|word| shortened(word)).collect::<Vec<_>>().join(", ");
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        notes.push(format!("the model does not know: {named}{more}"));
    }
    notes
}

fn shortened(word: &str) -> String {
    match word.char_indices().nth(MAX_WORD) {
        Some((end, _)) => format!("{}…", &word[..end]),
        None => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Encoder, FakeEncoder};

    #[test]
    fn cut_off_tokens_and_unknown_words_are_told() {
        let text = "a blorp above a blorpish zorg";
        let encoded = FakeEncoder::new(5).encode(&[text]).unwrap().remove(0);
        let notes = notes(&metadata(&encoded));
        assert_eq!(notes.len(), 2);
        assert_eq!(notes[0], "a prompt has 7 tokens, the last 2 were cut off");
        assert_eq!(notes[1], "the model does not know: blorp, blorpish");
        let plain = FakeEncoder::new(32).encode(&["a circle"]).unwrap().remove(0);
        assert_eq!(super::notes(&metadata(&plain)), Vec::<String>::new());
        let long = FakeEncoder::new(32).encode(&[&"blorp".repeat(9)]).unwrap().remove(0);
        let told = super::notes(&metadata(&long));
        assert_eq!(
            told,
            [format!("the model does not know: {}…", "blorp".repeat(8))],
            "words may have any length"
        );
    }
}
