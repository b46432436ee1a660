//! Turns text into token ids, and reports what was lost on the way.
//!
//! Reads `tokenizer.json`, or the `spiece.model` of older checkpoints if there is none. Padding and
//! truncation come from the file or from a given length. Every encoding says how many tokens did
//! not fit and which words the vocabulary does not have, so that the user can be told.

mod bounds;
mod parts;
mod sentencepiece;

use std::path::Path;

use tokenizers::{
    PaddingParams, PaddingStrategy, PostProcessor as _, Tokenizer as Inner, TruncationParams,
};

use darkroom_core::shown::shown;
use sentencepiece::SentencePiece;

use crate::error::{LoadError, RenderError};
use crate::{foreign, json};

/// Stack for the library's reader, bytes.
const STACK: usize = 16 << 20;

/// All ids of a tokenizer must be below this number. The largest published vocabularies have a
/// quarter of a million.
pub(crate) const MAX_VOCABULARY: usize = 1 << 22;
/// Most tokens of a text, end token and padding included. The cost of attention grows with its
/// square.
pub(crate) const MAX_TOKENS: usize = 2048;

/// A tokenizer for a certain length.
pub struct Tokenizer {
    model: Model,
}

enum Model {
    /// A `tokenizer.json`.
    Json {
        /// Truncates and pads.
        fixed: Box<Inner>,
        /// Does neither, to see what is cut off.
        free: Box<Inner>,
        unknown_id: Option<u32>,
        /// All ids are below this number.
        vocabulary: usize,
    },
    /// A `spiece.model`. Without a length, texts are neither cut nor padded.
    SentencePiece { model: Box<SentencePiece>, max_length: Option<usize>, pad_id: u32 },
}

/// One text in tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tokens {
    /// Padded ids.
    pub(crate) ids: Vec<u32>,
    /// 1 where an id is real, 0 where it is padding.
    pub(crate) mask: Vec<u32>,
    /// How many ids are real.
    pub(crate) count: usize,
    /// How many tokens were cut off.
    pub(crate) truncated: usize,
    /// Words, as written, with a part that is not in the vocabulary.
    pub(crate) unknown_words: Vec<String>,
}

impl Tokenizer {
    /// Loads a folder's tokenizer. `max_length`, in tokens with the end token, replaces the file's
    /// padding and truncation.
    ///
    /// # Errors
    /// [`LoadError::Tokenizer`] names what is wrong with the file, or with the length.
    pub fn load(folder: &Path, max_length: Option<usize>, pad_id: u32) -> Result<Self, LoadError> {
        if let Some(length) = max_length.filter(|length| !(2..=MAX_TOKENS).contains(length)) {
            let message =
                format!("a text's length is {length} tokens; accepted: 2 to {MAX_TOKENS}");
            return Err(LoadError::Tokenizer { path: folder.to_owned(), message });
        }
        // A link that leads nowhere counts as present, because it is the file that was meant.
        let is_there = |path: &Path| path.symlink_metadata().is_ok();
        let (json_path, model_path) = (folder.join("tokenizer.json"), folder.join("spiece.model"));
        let from_json = is_there(&json_path) || !is_there(&model_path);
        let path = if from_json { json_path } else { model_path };
        let model = if from_json {
            let text = json::text(&path, json::TOKENIZER)?;
            with_room(|| json_model(&text, max_length, pad_id))
        } else {
            let bytes = json::bytes(&path, json::TOKENIZER)?;
            match SentencePiece::new(&bytes) {
                Ok(model) => {
                    Ok(Model::SentencePiece { model: Box::new(model), max_length, pad_id })
                }
                Err(message) => Err(foreign::describe(&bytes).unwrap_or(message)),
            }
        };
        let model = model.map_err(|message| {
            // Names of tokens and parts are those of the file.
            LoadError::Tokenizer { path, message: shown(&message).into_owned() }
        });
        Ok(Self { model: model? })
    }

    /// A text's ids with the end token and without padding; cut to the length unless `whole`.
    pub fn ids(&self, text: &str, whole: bool) -> Result<Vec<u32>, RenderError> {
        let invalid = |message: String| RenderError::invalid("text", message);
        match &self.model {
            Model::Json { free, .. } if whole => {
                let encoding =
                    free.encode(text, true).map_err(|error| invalid(error.to_string()))?;
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

    /// All ids that it may give are below this number.
    pub fn vocabulary(&self) -> usize {
        match &self.model {
            Model::Json { vocabulary, .. } => *vocabulary,
            Model::SentencePiece { model, .. } => model.vocabulary(),
        }
    }

    pub(crate) fn encode(&self, text: &str) -> Result<Tokens, String> {
        match &self.model {
            Model::Json { fixed, free, unknown_id, .. } => {
                encode_json(fixed, free, *unknown_id, text)
            }
            Model::SentencePiece { model, max_length, pad_id } => {
                Ok(encode_sentencepiece(model, *max_length, *pad_id, text))
            }
        }
    }
}

/// Runs a reader on a thread with much stack. The library's takes two MiB for an ordinary file in a
/// build that is not optimised, which is all that a thread has otherwise.
fn with_room<T: Send>(read: impl FnOnce() -> Result<T, String> + Send) -> Result<T, String> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("tokenizer".to_owned()).stack_size(STACK);
        let reader = thread.spawn_scoped(scope, read);
        let reader = reader.map_err(|error| format!("no thread can be started: {error}"))?;
        reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn json_model(text: &str, max_length: Option<usize>, pad_id: u32) -> Result<Model, String> {
    let file: serde_json::Value = serde_json::from_str(text)
        .map_err(|error| foreign::describe(text.as_bytes()).unwrap_or_else(|| error.to_string()))?;
    bounds::check(&file)?;
    parts::check(text, &file)?;
    let mut fixed: Inner = text.parse().map_err(|error: tokenizers::Error| error.to_string())?;
    let unknown_id = unknown_id(&file, &fixed);
    // The library subtracts one from the other unchecked.
    let added = fixed.get_post_processor().map_or(0, |processor| processor.added_tokens(false));
    let in_file = fixed.get_truncation().map(|truncation| truncation.max_length);
    if let Some(length) = max_length.or(in_file).filter(|length| *length < added) {
        return Err(format!(
            "post_processor adds {added} tokens to a text of at most {length}; accepted: fewer"
        ));
    }
    if let Some(max_length) = max_length {
        let truncation = TruncationParams { max_length, ..TruncationParams::default() };
        fixed.with_truncation(Some(truncation)).map_err(|error| error.to_string())?;
        let pad_token = fixed.id_to_token(pad_id).unwrap_or_else(|| "<pad>".to_owned());
        let strategy = PaddingStrategy::Fixed(max_length);
        fixed.with_padding(Some(PaddingParams {
            strategy,
            pad_id,
            pad_token,
            ..PaddingParams::default()
        }));
    }
    // Here rather than at the first prompt, and with room: what is put around a text is the same for
    // every text.
    let trial = fixed.encode("a", true).map_err(|error| error.to_string())?;
    check_length(&fixed, trial.get_ids().len())?;
    let mut free = fixed.clone();
    free.with_truncation(None).map_err(|error| error.to_string())?;
    free.with_padding(None);
    // Added tokens may leave gaps between ids, and what is put around a text, or after it, need not
    // be among the tokens.
    let known = fixed.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1);
    let vocabulary = known.max(bounds::beyond_ids(&file));
    Ok(Model::Json { fixed: Box::new(fixed), free: Box::new(free), unknown_id, vocabulary })
}

/// Refuses a model that makes more tokens of a text than it cuts it to. The library counts what is
/// put around a text before it is put there.
fn check_length(model: &Inner, length: usize) -> Result<(), String> {
    let most = model.get_truncation().map_or(usize::MAX, |truncation| truncation.max_length);
    if length <= most {
        return Ok(());
    }
    Err(format!(
        "the tokenizer makes {length} tokens of a text that it cuts to {most}; accepted: a \
         post_processor that adds as many as it says"
    ))
}

fn encode_json(
    fixed: &Inner,
    free: &Inner,
    unknown_id: Option<u32>,
    text: &str,
) -> Result<Tokens, String> {
    let whole = free.encode(text, true).map_err(|error| error.to_string())?;
    let model = fixed;
    let fixed = model.encode(text, true).map_err(|error| error.to_string())?;
    check_length(model, fixed.get_ids().len())?;
    let mask = fixed.get_attention_mask().to_vec();
    let count = mask.iter().filter(|real| **real != 0).count();
    let pairs = whole.get_ids().iter().zip(whole.get_offsets());
    let unknown = pairs.filter(|(id, _)| Some(**id) == unknown_id).map(|(_, span)| *span);
    let unknown_words = words_around(text, unknown);
    let truncated = whole.get_ids().len().saturating_sub(count);
    Ok(Tokens { ids: fixed.get_ids().to_vec(), mask, count, truncated, unknown_words })
}

fn encode_sentencepiece(
    model: &SentencePiece,
    max_length: Option<usize>,
    pad_id: u32,
    text: &str,
) -> Tokens {
    let whole = model.encode(text);
    let unknown = whole.iter().filter(|token| token.id == model.unknown()).map(|token| token.span);
    let unknown_words = words_around(text, unknown);
    let fits = max_length.map_or(whole.len(), |length| whole.len().min(length.saturating_sub(1)));
    let mut ids: Vec<u32> =
        whole.iter().take(fits).map(|token| token.id).chain([model.end()]).collect();
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

/// The id for text outside the vocabulary: the one that the model names, or else the one with the
/// usual name.
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
    // A span may begin with the blank that the tokenizer turned into its own symbol.
    let skipped = inside.len() - inside.trim_start().len();
    let head = if skipped > 0 {
        ""
    } else {
        before.rsplit(char::is_whitespace).next().unwrap_or_default()
    };
    let tail = if inside.ends_with(char::is_whitespace) {
        ""
    } else {
        after.split(char::is_whitespace).next().unwrap_or_default()
    };
    format!("{head}{}{tail}", inside.trim())
}

#[cfg(test)]
mod tests;
