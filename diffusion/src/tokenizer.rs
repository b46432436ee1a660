//! Text to token ids, and what was lost on the way.
//!
//! Reads `tokenizer.json`, or the `spiece.model` of older checkpoints where there is none. Padding and truncation are
//! the file's, or those of a given length. Every encoding says how many tokens did not fit and which words the
//! vocabulary does not know, so that a user can be told.

mod bounds;
mod sentencepiece;

use std::path::Path;

use tokenizers::{PaddingParams, PaddingStrategy, Tokenizer as Inner, TruncationParams};

use sentencepiece::SentencePiece;

use crate::error::{LoadError, RenderError};
use crate::{foreign, json};

/// Most ids of a tokenizer: all are below. The largest vocabularies that are published have a quarter of a million.
pub(crate) const MAX_VOCABULARY: usize = 1 << 22;
/// Most tokens of a text, end token and padding included. Attention grows with the square.
pub(crate) const MAX_TOKENS: usize = 2048;

/// A tokenizer with its length settled.
pub struct Tokenizer {
    model: Model,
}

enum Model {
    /// A `tokenizer.json`.
    Json {
        /// Truncates and pads.
        fixed: Box<Inner>,
        /// Does neither, to see what is lost.
        free: Box<Inner>,
        unknown_id: Option<u32>,
    },
    /// A `spiece.model`; without a length, texts are neither cut nor padded.
    SentencePiece { model: Box<SentencePiece>, max_length: Option<usize>, pad_id: u32 },
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
    /// Loads a folder's tokenizer; `max_length`, in tokens with the end token, replaces the file's padding and
    /// truncation.
    ///
    /// # Errors
    /// [`LoadError::Tokenizer`] names what is wrong with the file, or with the length.
    pub fn load(folder: &Path, max_length: Option<usize>, pad_id: u32) -> Result<Self, LoadError> {
        if let Some(length) = max_length.filter(|length| !(2..=MAX_TOKENS).contains(length)) {
            let message = format!("a text's length is {length} tokens; accepted: 2 to {MAX_TOKENS}");
            return Err(LoadError::Tokenizer { path: folder.to_owned(), message });
        }
        // A link that leads nowhere is there too: it is the one that was meant.
        let is_there = |path: &Path| path.symlink_metadata().is_ok();
        let (json_path, model_path) = (folder.join("tokenizer.json"), folder.join("spiece.model"));
        let from_json = is_there(&json_path) || !is_there(&model_path);
        let path = if from_json { json_path } else { model_path };
        let model = if from_json {
            json_model(&json::text(&path, json::TOKENIZER)?, max_length, pad_id)
        } else {
            let bytes = json::bytes(&path, json::TOKENIZER)?;
            match SentencePiece::new(&bytes) {
                Ok(model) => Ok(Model::SentencePiece { model: Box::new(model), max_length, pad_id }),
                Err(message) => Err(foreign::describe(&bytes).unwrap_or(message)),
            }
        };
        Ok(Self { model: model.map_err(|message| LoadError::Tokenizer { path, message })? })
    }

    /// A text's ids with the end token and without padding, cut to the length or (`whole`) not.
    pub fn ids(&self, text: &str, whole: bool) -> Result<Vec<u32>, RenderError> {
        let invalid = |message: String| RenderError::invalid("text", message);
        match &self.model {
            Model::Json { free, .. } if whole => {
                let encoding = free.encode(text, true).map_err(|error| invalid(error.to_string()))?;
                Ok(encoding.get_ids().to_vec())
            }
            Model::SentencePiece { model, .. } if whole => {
                Ok(model.encode(text).iter().map(|token| token.id).chain([model.end()]).collect())
            }
            _ => {
                let mut tokens = self.encode(text).map_err(invalid)?;
                tokens.ids.truncate(tokens.count);
                Ok(tokens.ids)
            }
        }
    }

    /// Number of ids that it may give: all are below.
    pub fn vocabulary(&self) -> usize {
        match &self.model {
            // Added tokens may leave gaps between ids.
            Model::Json { fixed, .. } => {
                fixed.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1)
            }
            Model::SentencePiece { model, .. } => model.vocabulary(),
        }
    }

    pub(crate) fn encode(&self, text: &str) -> Result<Tokens, String> {
        match &self.model {
            Model::Json { fixed, free, unknown_id } => encode_json(fixed, free, *unknown_id, text),
            Model::SentencePiece { model, max_length, pad_id } => {
                Ok(encode_sentencepiece(model, *max_length, *pad_id, text))
            }
        }
    }
}

fn json_model(text: &str, max_length: Option<usize>, pad_id: u32) -> Result<Model, String> {
    let file: serde_json::Value = serde_json::from_str(text)
        .map_err(|error| foreign::describe(text.as_bytes()).unwrap_or_else(|| error.to_string()))?;
    bounds::check(&file)?;
    let mut fixed: Inner = text.parse().map_err(|error: tokenizers::Error| error.to_string())?;
    let unknown_id = unknown_id(&file, &fixed);
    if let Some(max_length) = max_length {
        let truncation = TruncationParams { max_length, ..TruncationParams::default() };
        fixed.with_truncation(Some(truncation)).map_err(|error| error.to_string())?;
        let pad_token = fixed.id_to_token(pad_id).unwrap_or_else(|| "<pad>".to_owned());
        let strategy = PaddingStrategy::Fixed(max_length);
        fixed.with_padding(Some(PaddingParams { strategy, pad_id, pad_token, ..PaddingParams::default() }));
    }
    let mut free = fixed.clone();
    free.with_truncation(None).map_err(|error| error.to_string())?;
    free.with_padding(None);
    Ok(Model::Json { fixed: Box::new(fixed), free: Box::new(free), unknown_id })
}

fn encode_json(fixed: &Inner, free: &Inner, unknown_id: Option<u32>, text: &str) -> Result<Tokens, String> {
    let whole = free.encode(text, true).map_err(|error| error.to_string())?;
    let fixed = fixed.encode(text, true).map_err(|error| error.to_string())?;
    let mask = fixed.get_attention_mask().to_vec();
    let count = mask.iter().filter(|real| **real != 0).count();
    let pairs = whole.get_ids().iter().zip(whole.get_offsets());
    let unknown = pairs.filter(|(id, _)| Some(**id) == unknown_id).map(|(_, span)| *span);
    let unknown_words = words_around(text, unknown);
    let truncated = whole.get_ids().len().saturating_sub(count);
    Ok(Tokens { ids: fixed.get_ids().to_vec(), mask, count, truncated, unknown_words })
}

fn encode_sentencepiece(model: &SentencePiece, max_length: Option<usize>, pad_id: u32, text: &str) -> Tokens {
    let whole = model.encode(text);
    let unknown = whole.iter().filter(|token| token.id == model.unknown()).map(|token| token.span);
    let unknown_words = words_around(text, unknown);
    let fits = max_length.map_or(whole.len(), |length| whole.len().min(length.saturating_sub(1)));
    let mut ids: Vec<u32> = whole.iter().take(fits).map(|token| token.id).chain([model.end()]).collect();
    let count = ids.len();
    let length = max_length.unwrap_or(count).max(count);
    ids.resize(length, pad_id);
    let mask = (0..length).map(|place| u32::from(place < count)).collect();
    Tokens { ids, mask, count, truncated: whole.len() - fits, unknown_words }
}

/// The words around spans of bytes, each once, in order.
fn words_around(text: &str, spans: impl Iterator<Item = (usize, usize)>) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for span in spans {
        let word = word_around(text, span);
        if !word.is_empty() && !words.contains(&word) {
            words.push(word);
        }
    }
    words
}

/// The id that stands for what is not in the vocabulary: the model's own word on it, else the usual name's.
fn unknown_id(file: &serde_json::Value, tokenizer: &Inner) -> Option<u32> {
    let model = &file["model"];
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
    use serde::Deserialize;

    use super::*;

    /// What the `sentencepiece` library makes of texts with one model.
    #[derive(Deserialize)]
    struct Recorded {
        texts: Vec<String>,
        /// Without the end token.
        ids: Vec<Vec<u32>>,
        end: u32,
    }

    /// Holds a model against them: whole, at T5's length, and at one where many texts only just fit or do not.
    fn assert_gives(bytes: &[u8], recorded: &Recorded, name: &str) {
        const PAD: u32 = 0;
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("spiece.model"), bytes).unwrap();
        assert_eq!(recorded.texts.len(), recorded.ids.len());
        for length in [77, 8] {
            let tokenizer = Tokenizer::load(folder.path(), Some(length), PAD).unwrap();
            let mut cut = 0;
            for (text, row) in recorded.texts.iter().zip(&recorded.ids) {
                let kept = row.len().min(length - 1);
                let padding = length - 1 - kept;
                let real = [&row[..kept], &[recorded.end]].concat();
                let expected = Tokens {
                    ids: [&real[..], &vec![PAD; padding]].concat(),
                    mask: [vec![1; kept + 1], vec![0; padding]].concat(),
                    count: kept + 1,
                    truncated: row.len() - kept,
                    unknown_words: Vec::new(),
                };
                let got = tokenizer.encode(text).unwrap();
                assert_eq!(
                    Tokens { unknown_words: Vec::new(), ..got },
                    expected,
                    "{name} at {length}: {text:?}"
                );
                assert_eq!(tokenizer.ids(text, false).unwrap(), real, "{name} at {length}: {text:?}");
                let whole = [&row[..], &[recorded.end]].concat();
                assert_eq!(tokenizer.ids(text, true).unwrap(), whole, "{name}: {text:?}");
                cut += usize::from(kept < row.len());
            }
            assert!(cut > 0, "{name} at {length}: no text was cut");
        }
    }

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
    fn a_sentencepiece_model_pads_and_cuts_as_the_library_does() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/spiece");
        let expected = std::fs::read(folder.join("expected.json")).unwrap();
        let expected: serde_json::Value = serde_json::from_slice(&expected).unwrap();
        let length = expected["length"].as_u64().unwrap() as usize;
        let tokenizer = Tokenizer::load(&folder, Some(length), 0).unwrap();
        for row in expected["rows"].as_array().unwrap() {
            let text = row["text"].as_str().unwrap();
            let tokens = tokenizer.encode(text).unwrap();
            assert_eq!(serde_json::json!(tokens.ids), row["ids"], "{text:?}");
            assert_eq!(serde_json::json!(tokens.mask), row["mask"], "{text:?}");
            let (cut, whole) = (tokenizer.ids(text, false).unwrap(), tokenizer.ids(text, true).unwrap());
            assert_eq!((cut.len(), whole.len()), (tokens.count, tokens.count + tokens.truncated), "{text:?}");
            assert_eq!((cut.last(), whole.last()), (Some(&1), Some(&1)), "{text:?}");
        }
        assert_eq!(tokenizer.encode("龘 rides").unwrap().unknown_words, ["龘"]);
    }

    #[test]
    fn hostile_texts_are_cut_to_77_ids_of_sentencepiece_with_the_end_token_last() {
        #[derive(Deserialize)]
        struct Hostile {
            texts: Vec<String>,
            /// By model: ids, with blanks between.
            ids: std::collections::BTreeMap<String, Vec<String>>,
        }
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/spiece");
        let hostile = std::fs::read(folder.join("hostile.json")).unwrap();
        let hostile: Hostile = serde_json::from_slice(&hostile).unwrap();
        assert!(hostile.ids.len() >= 6 && hostile.texts.len() >= 600);
        let mut recorded = Recorded { texts: hostile.texts, ids: Vec::new(), end: 1 };
        for (name, rows) in &hostile.ids {
            let ids = |row: &String| row.split_whitespace().map(|id| id.parse().unwrap()).collect();
            recorded.ids = rows.iter().map(ids).collect();
            assert_gives(&std::fs::read(folder.join(name)).unwrap(), &recorded, name);
        }
    }

    /// `tools/check-spiece.sh FILE` runs it: `DARKROOM_SPIECE` names a `spiece.model`, T5's own say, and
    /// `DARKROOM_SPIECE_IDS` what `tools/reference/spiece_ids.py` wrote for it. Without a model there is nothing to do.
    #[test]
    fn a_supplied_sentencepiece_model_gives_the_ids_of_the_library() {
        let Some(model) = std::env::var_os("DARKROOM_SPIECE") else { return };
        let ids = std::env::var_os("DARKROOM_SPIECE_IDS").expect("DARKROOM_SPIECE_IDS is needed as well");
        let recorded: Recorded = serde_json::from_slice(&std::fs::read(ids).unwrap()).unwrap();
        assert!(recorded.texts.len() >= 600);
        assert_gives(&std::fs::read(&model).unwrap(), &recorded, &model.to_string_lossy());
    }

    /// Loads the example's tokenizer.json with a change.
    fn changed(change: impl Fn(&mut serde_json::Value), length: Option<usize>) -> Result<Tokenizer, String> {
        let text = std::fs::read(example().join("tokenizer.json")).unwrap();
        let mut file = serde_json::from_slice(&text).unwrap();
        change(&mut file);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("tokenizer.json"), file.to_string()).unwrap();
        Tokenizer::load(folder.path(), length, 0).map_err(|error| error.to_string())
    }

    #[test]
    fn ids_and_lengths_beyond_any_vocabulary_are_refused_before_they_are_made_room_for() {
        type Change = fn(&mut serde_json::Value);
        let cases: &[(&str, Change)] = &[
            ("added_tokens[0].id is 2147483648", |file| {
                file["added_tokens"] =
                    serde_json::json!([{"id": 2_147_483_648_u64, "content": "<x>", "special": true}]);
            }),
            ("model.vocab[\"b\"] is 2147483648", |file| {
                file["model"] = serde_json::json!({"type": "WordLevel", "unk_token": "a",
                    "vocab": {"a": 0, "b": 2_147_483_648_u64}});
            }),
            ("model.vocab[\"b\"] is -1", |file| {
                file["model"] = serde_json::json!({"type": "BPE", "merges": [], "vocab": {"a": 0, "b": -1}});
            }),
            ("padding.pad_id is 4294967295", |file| file["padding"]["pad_id"] = serde_json::json!(u32::MAX)),
            ("padding.strategy.Fixed is 4294967295", |file| {
                file["padding"]["strategy"] = serde_json::json!({"Fixed": u32::MAX});
            }),
            ("padding.pad_to_multiple_of is 4294967295", |file| {
                file["padding"]["pad_to_multiple_of"] = serde_json::json!(u32::MAX);
            }),
            ("truncation.max_length is 4294967295", |file| {
                file["truncation"]["max_length"] = serde_json::json!(u32::MAX);
            }),
            ("post_processor.special_tokens[\"</s>\"].ids[0] is 2147483648", |file| {
                file["post_processor"]["special_tokens"]["</s>"]["ids"] =
                    serde_json::json!([2_147_483_648_u64]);
            }),
        ];
        for (words, change) in cases {
            let error = changed(*change, None).err().unwrap_or_else(|| panic!("{words} was accepted"));
            assert!(error.contains(words) && error.contains("accepted: "), "{words}: {error}");
        }
        for length in [0, 1, 2049, u32::MAX as usize, usize::MAX] {
            let error = changed(|_| {}, Some(length)).err().unwrap();
            assert!(error.contains(&length.to_string()) && error.contains("accepted: 2 to 2048"), "{error}");
        }
        assert!(changed(|_| {}, Some(2048)).is_ok());
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_a_tokenizer_and_strangers_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer.json");
        let text = std::fs::read(example().join("tokenizer.json")).unwrap();
        std::fs::write(&path, [b"\xef\xbb\xbf", &text[..]].concat()).unwrap();
        let tokenizer = Tokenizer::load(folder.path(), Some(5), 0).unwrap();
        let plain = Tokenizer::load(&example(), Some(5), 0).unwrap();
        assert_eq!(tokenizer.encode("a red circle").unwrap(), plain.encode("a red circle").unwrap());
        let refused = |bytes: &[u8], words: &str| {
            std::fs::write(&path, bytes).unwrap();
            let error = Tokenizer::load(folder.path(), Some(5), 0).err().unwrap().to_string();
            assert!(error.contains(words), "{error}");
        };
        refused(b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer");
        refused(b"", "empty");
        let utf16: Vec<u8> = "{}".encode_utf16().flat_map(u16::to_le_bytes).collect();
        refused(&utf16, "UTF-16");
        std::fs::remove_file(&path).unwrap();
        let model = folder.path().join("spiece.model");
        std::fs::write(&model, "version https://git-lfs.github.com/spec/v1\n").unwrap();
        let error = Tokenizer::load(folder.path(), Some(5), 0).err().unwrap().to_string();
        assert!(error.contains("spiece.model") && error.contains("Git LFS pointer"), "{error}");
        std::os::unix::fs::symlink("gone", &path).unwrap();
        let error = Tokenizer::load(folder.path(), Some(5), 0).err().unwrap();
        let said = std::error::Error::source(&error).unwrap().to_string();
        assert!(said.contains("link to gone"), "the link is the one that was meant: {said}");
    }

    #[test]
    fn a_missing_tokenizer_is_named() {
        let error = Tokenizer::load(Path::new("/nowhere"), None, 0).err().unwrap();
        assert!(error.to_string().contains("/nowhere/tokenizer.json"), "{error}");
    }
}
