//! SentencePiece models (`spiece.model`), the format in which T5 checkpoints were first published.
//! They are read natively, with the same ids as the `sentencepiece` library for any text.
//!
//! Text is normalised ([`normalizer`]), and then the most likely pieces are found ([`unigram`]);
//! Kudo, "Subword Regularization", 2018. This is our own code because existing libraries agree only
//! on plain captions: they split at blanks first, normalise by grapheme cluster, or keep runs of
//! unknown characters apart.

mod model_file;
mod normalizer;
mod unigram;

use model_file::Piece;
use normalizer::Normalizer;
pub(super) use normalizer::check_table;
use unigram::Unigram;

/// A unigram tokenizer with T5's end token.
pub(super) struct SentencePiece {
    normalizer: Normalizer,
    unigram: Unigram,
    end: u32,
}

/// A token of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) id: u32,
    /// The byte range of the text that it stands for.
    pub(super) span: (usize, usize),
}

impl SentencePiece {
    /// Reads a model file's bytes.
    pub(super) fn new(bytes: &[u8]) -> Result<Self, String> {
        let model = model_file::parse(bytes).ok_or("not a SentencePiece model")?;
        if !model.unigram {
            return Err("its model is not a unigram model, which T5 has".to_owned());
        }
        let end = model
            .pieces
            .iter()
            .position(|piece| piece.text == "</s>")
            .ok_or("it has no piece `</s>`")?;
        let end = u32::try_from(end).map_err(|_| "it has too many pieces")?;
        let unigram = Unigram::new(&model)?;
        let symbols = model.pieces.iter().filter(|piece| piece.kind == Piece::UserDefined);
        let normalizer =
            Normalizer::new(&model.normalizer, symbols.map(|piece| piece.text.as_str()))?;
        Ok(Self { normalizer, unigram, end })
    }

    /// The tokens of a text, without the end token, and without truncation.
    pub(super) fn encode(&self, text: &str) -> Vec<Token> {
        let normalized = self.normalizer.normalize(text);
        let pieces = self.unigram.best(&normalized.text);
        pieces
            .into_iter()
            .map(|(id, (from, to))| Token { id, span: normalized.span(from, to) })
            .collect()
    }

    /// Id of the token that ends every text.
    pub(super) fn end(&self) -> u32 {
        self.end
    }

    /// Id of text outside the vocabulary.
    pub(super) fn unknown(&self) -> u32 {
        self.unigram.unknown()
    }

    /// Number of ids.
    pub(super) fn vocabulary(&self) -> usize {
        self.unigram.vocabulary()
    }
}

/// The table of characters of a model file.
#[cfg(test)]
pub(super) fn charsmap_of(bytes: &[u8]) -> Vec<u8> {
    model_file::parse(bytes).map(|model| model.normalizer.charsmap).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, path::PathBuf};

    use serde::Deserialize;

    use super::*;

    /// Made by `tools/reference/sentencepiece_fixture.py` with the library itself.
    #[derive(Deserialize)]
    struct Hostile {
        texts: Vec<String>,
        /// By model: ids, separated by blanks.
        ids: BTreeMap<String, Vec<String>>,
    }

    fn fixture(name: &str) -> Vec<u8> {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/spiece");
        std::fs::read(folder.join(name)).unwrap()
    }

    #[test]
    fn hostile_texts_become_the_ids_that_sentencepiece_gives() {
        let hostile: Hostile = serde_json::from_slice(&fixture("hostile.json")).unwrap();
        assert!(hostile.ids.len() >= 6 && hostile.texts.len() >= 600);
        for (name, rows) in &hostile.ids {
            let model = SentencePiece::new(&fixture(name)).unwrap();
            assert_eq!(rows.len(), hostile.texts.len());
            for (text, ids) in hostile.texts.iter().zip(rows) {
                let expected: Vec<u32> =
                    ids.split_whitespace().map(|id| id.parse().unwrap()).collect();
                let tokens = model.encode(text);
                let got: Vec<u32> = tokens.iter().map(|token| token.id).collect();
                assert_eq!(got, expected, "{name}: {text:?}");
                for Token { span: (from, to), .. } in tokens {
                    assert!(text.get(from..to).is_some(), "{name}: {text:?}, bytes {from} to {to}");
                }
            }
        }
    }

    #[test]
    fn of_equally_likely_cuts_the_one_that_sentencepiece_takes_is_taken() {
        #[derive(Deserialize)]
        struct Ties {
            texts: Vec<String>,
            ids: Vec<String>,
        }
        let ties: Ties = serde_json::from_slice(&fixture("ties.json")).unwrap();
        let model = SentencePiece::new(&fixture("ties.model")).unwrap();
        assert!(ties.texts.len() >= 400 && ties.texts[0] == "noooo zzz soooo");
        for (text, expected) in ties.texts.iter().zip(&ties.ids) {
            let got: Vec<String> =
                model.encode(text).iter().map(|token| token.id.to_string()).collect();
            assert_eq!(got.join(" "), *expected, "{text:?}");
        }
    }

    #[test]
    fn spans_are_those_of_the_original_text() {
        let model = SentencePiece::new(&fixture("spiece.model")).unwrap();
        let text = "  red  龘 ﬁne";
        let unknown: Vec<&str> = model
            .encode(text)
            .iter()
            .filter(|token| token.id == model.unknown())
            .map(|token| &text[token.span.0..token.span.1])
            .collect();
        assert!(unknown.contains(&"龘"), "{unknown:?}");
    }

    #[test]
    fn broken_models_are_refused_without_a_panic() {
        let whole = fixture("spiece.model");
        for length in (0..2000).chain((2000..whole.len()).step_by(997)) {
            if let Ok(model) = SentencePiece::new(&whole[..length]) {
                model.encode("a red ﬁne circle");
            }
        }
        // Bytes of the table are inverted: its replacements are then wrong, but nothing else.
        let mut random = 1_u64;
        for _ in 0..200 {
            let mut broken = whole.clone();
            for _ in 0..50 {
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                let place = (random >> 33) as usize % broken.len();
                broken[place] ^= 1 << (random & 7);
            }
            if let Ok(model) = SentencePiece::new(&broken) {
                model.encode("a red ﬁne e\u{301} ｶﾞ circle");
            }
        }
        assert!(
            SentencePiece::new(b"").is_err() && SentencePiece::new(b"{\"version\": 1}").is_err()
        );
    }
}
