//! Text to token ids, and what was lost on the way.
//!
//! Reads `tokenizer.json`, or the `spiece.model` of older checkpoints where there is none. Padding and truncation are the file's, or those of a given length. Every encoding says how
//! many tokens did not fit and which words the vocabulary does not know, so that a user can be told.

mod sentencepiece;

use std::path::Path;

use tokenizers::{PaddingParams, PaddingStrategy, Tokenizer as Inner, TruncationParams};

use crate::error::LoadError;

/// A tokenizer with its length settled.
pub(crate) struct Tokenizer {
    /// Truncates and pads.
    fixed: Inner,
    /// Does neither, to see what is lost.
    free: Inner,
    unknown_id: Option<u32>,
}

/// One text in tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tokens {
    /// Padded ids.
    pub(crate) ids: Vec<u32>,
    /// 1 where an id is real, 0 where it is padding.
    pub(crate) mask: Vec<u32>,
    /// How many are real.
    pub(crate) count: usize,
    /// How many did not fit.
    pub(crate) truncated: usize,
    /// Words, as written, of which some part is not in the vocabulary.
    pub(crate) unknown_words: Vec<String>,
}

impl Tokenizer {
    /// Loads a folder's tokenizer; `max_length` replaces the file's padding and truncation.
    pub(crate) fn load(folder: &Path, max_length: Option<usize>, pad_id: u32) -> Result<Self, LoadError> {
        let (json_path, model_path) = (folder.join("tokenizer.json"), folder.join("spiece.model"));
        let from_json = json_path.is_file() || !model_path.is_file();
        let path = if from_json { json_path } else { model_path };
        let invalid = |message: String| LoadError::Tokenizer { path: path.clone(), message };
        let bytes = std::fs::read(&path).map_err(|source| LoadError::read(&path, source))?;
        let mut fixed = if from_json {
            Inner::from_bytes(&bytes).map_err(|error| invalid(error.to_string()))?
        } else {
            sentencepiece::tokenizer(&bytes).map_err(&invalid)?
        };
        let unknown_id = unknown_id(&fixed);
        if let Some(max_length) = max_length {
            let truncation = TruncationParams { max_length, ..TruncationParams::default() };
            fixed.with_truncation(Some(truncation)).map_err(|error| invalid(error.to_string()))?;
            let pad_token = fixed.id_to_token(pad_id).unwrap_or_else(|| "<pad>".to_owned());
            let strategy = PaddingStrategy::Fixed(max_length);
            fixed.with_padding(Some(PaddingParams {
                strategy,
                pad_id,
                pad_token,
                ..PaddingParams::default()
            }));
        }
        let mut free = fixed.clone();
        free.with_truncation(None).map_err(|error| invalid(error.to_string()))?;
        free.with_padding(None);
        Ok(Self { fixed, free, unknown_id })
    }

    pub(crate) fn encode(&self, text: &str) -> Result<Tokens, String> {
        let whole = self.free.encode(text, true).map_err(|error| error.to_string())?;
        let fixed = self.fixed.encode(text, true).map_err(|error| error.to_string())?;
        let mask = fixed.get_attention_mask().to_vec();
        let count = mask.iter().filter(|real| **real != 0).count();
        let mut unknown_words: Vec<String> = Vec::new();
        for (id, offsets) in whole.get_ids().iter().zip(whole.get_offsets()) {
            if Some(*id) == self.unknown_id {
                let word = word_around(text, *offsets);
                if !word.is_empty() && !unknown_words.contains(&word) {
                    unknown_words.push(word);
                }
            }
        }
        let truncated = whole.get_ids().len().saturating_sub(count);
        Ok(Tokens { ids: fixed.get_ids().to_vec(), mask, count, truncated, unknown_words })
    }
}

/// The id that stands for what is not in the vocabulary: the model's own word on it, else the usual name's.
fn unknown_id(tokenizer: &Inner) -> Option<u32> {
    let model = serde_json::to_value(tokenizer.get_model()).unwrap_or_default();
    model["unk_id"]
        .as_u64()
        .and_then(|id| u32::try_from(id).ok())
        .or_else(|| model["unk_token"].as_str().and_then(|token| tokenizer.token_to_id(token)))
        .or_else(|| tokenizer.token_to_id("<unk>"))
}

/// The run of non-blank characters around a span of bytes.
fn word_around(text: &str, (start, end): (usize, usize)) -> String {
    let (Some(before), Some(inside), Some(after)) =
        (text.get(..start), text.get(start..end), text.get(end..))
    else {
        return String::new();
    };
    // A span may begin with the blank that the tokenizer turned into its own mark.
    let skipped = inside.len() - inside.trim_start().len();
    let head = if skipped > 0 { "" } else { before.rsplit(char::is_whitespace).next().unwrap_or_default() };
    let tail = if inside.ends_with(char::is_whitespace) {
        ""
    } else {
        after.split(char::is_whitespace).next().unwrap_or_default()
    };
    format!("{head}{}{tail}", inside.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/example/tokenizer")
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        let tokenizer = Tokenizer::load(&example(), Some(5), 0).unwrap();
        let short = tokenizer.encode("a red circle").unwrap();
        assert_eq!((short.count, short.truncated), (4, 0), "three words and the end");
        assert_eq!(short.mask, [1, 1, 1, 1, 0]);
        let long = tokenizer.encode("a red circle above a blue square").unwrap();
        assert_eq!((long.count, long.truncated), (5, 3));
        assert_eq!(long.ids.last(), Some(&1), "the end stays");
    }

    #[test]
    fn unknown_words_are_named_once_as_written() {
        let tokenizer = Tokenizer::load(&example(), None, 0).unwrap();
        let tokens = tokenizer.encode("a Ünder red circle, Ünder 狗!").unwrap();
        assert_eq!(tokens.unknown_words, ["Ünder", "狗!"]);
        assert!(tokenizer.encode("a red dog").unwrap().unknown_words.is_empty());
    }

    #[test]
    fn a_missing_tokenizer_is_named() {
        let error = Tokenizer::load(Path::new("/nowhere"), None, 0).err().unwrap();
        assert!(error.to_string().contains("/nowhere/tokenizer.json"), "{error}");
    }
}
