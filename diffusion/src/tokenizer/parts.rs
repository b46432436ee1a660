//! The normalizers, pre-tokenizers, processors, decoders and models that a tokenizer.json may have:
//! those of T5 and CLIP, and of the demo cascade.
//!
//! The library runs whatever the file says. A pattern of its own can take exponential time, and a
//! chain of replacements can make gigabytes of a word; a thread inside it cannot be stopped. Some
//! tables make it panic. So a part is accepted only if the work per character of a text is bounded.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::Value;

use super::sentencepiece::check_table;

/// Most parts in a row, of parts within parts.
const MOST_PARTS: usize = 16;
/// Most pieces of a processor's template, and most ids of one of its tokens.
const MOST_PIECES: usize = 16;
/// Longest text of an added token, bytes.
const MOST_CONTENT: usize = 1024;

/// Patterns that take time in proportion to the text.
const REPLACED: [&str; 2] = [" {2,}", r"\s+"];
/// The same, for splitting: CLIP's two, and the demo cascade's.
const SPLIT_AT: [&str; 3] = [
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
    r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
    r"[^\p{L}\p{N}]+",
];

/// The parts of a file. A part that is given twice is refused: the library would build both, and
/// [`Value`] has only the last.
#[derive(Deserialize)]
struct Once {
    #[serde(rename = "normalizer")]
    _normalizer: Option<IgnoredAny>,
    #[serde(rename = "pre_tokenizer")]
    _pre_tokenizer: Option<IgnoredAny>,
    #[serde(rename = "post_processor")]
    _post_processor: Option<IgnoredAny>,
    #[serde(rename = "decoder")]
    _decoder: Option<IgnoredAny>,
    #[serde(rename = "model")]
    _model: Option<IgnoredAny>,
}

/// Checks every part of a file, given as text and parsed.
pub(super) fn check(text: &str, file: &Value) -> Result<(), String> {
    let Once { .. } = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let mut left = MOST_PARTS;
    normalizer(&file["normalizer"], "normalizer", &mut left)?;
    if count(&file["normalizer"], "Precompiled") > 1 {
        return Err("normalizer has several Precompiled; accepted: one".to_owned());
    }
    pre_tokenizer(&file["pre_tokenizer"], "pre_tokenizer", &mut { MOST_PARTS })?;
    processor(&file["post_processor"], "post_processor", &mut { MOST_PARTS })?;
    decoder(&file["decoder"], "decoder", &mut { MOST_PARTS })?;
    for (position, token) in file["added_tokens"].as_array().into_iter().flatten().enumerate() {
        let length = token["content"].as_str().map_or(0, str::len);
        if length > MOST_CONTENT {
            return Err(format!(
                "added_tokens[{position}].content has {length} bytes; accepted: at most {MOST_CONTENT}"
            ));
        }
    }
    model(&file["model"])
}

/// A part's type, and how errors call it; `None` if there is no such part.
fn kind<'a>(
    part: &'a Value,
    path: &str,
    left: &mut usize,
    accepted: &[&str],
) -> Result<Option<&'a str>, String> {
    if part.is_null() {
        return Ok(None);
    }
    if *left == 0 {
        return Err(format!("{path} is one part too many; accepted: {MOST_PARTS} in all"));
    }
    *left -= 1;
    match part["type"].as_str() {
        Some(kind) if accepted.contains(&kind) => Ok(Some(kind)),
        Some(kind) => Err(format!(
            "{path} is {}; accepted, as in tokenizers of T5 and CLIP: {}",
            named(kind),
            accepted.join(", ")
        )),
        None => Err(format!("{path} has no type; accepted: {}", accepted.join(", "))),
    }
}

/// Runs a check on every part of a sequence.
fn each(
    part: &Value,
    (path, key): (&str, &str),
    left: &mut usize,
    check: fn(&Value, &str, &mut usize) -> Result<(), String>,
) -> Result<(), String> {
    let mut inner = part[key].as_array().into_iter().flatten().enumerate();
    inner.try_for_each(|(position, inner)| check(inner, &format!("{path}.{key}[{position}]"), left))
}

fn normalizer(part: &Value, path: &str, left: &mut usize) -> Result<(), String> {
    const ACCEPTED: [&str; 8] =
        ["Sequence", "Precompiled", "NFC", "NFKC", "Lowercase", "Strip", "Prepend", "Replace"];
    match kind(part, path, left, &ACCEPTED)? {
        Some("Sequence") => each(part, (path, "normalizers"), left, normalizer),
        Some("Precompiled") => {
            let table = part["precompiled_charsmap"].as_str().unwrap_or_default();
            STANDARD
                .decode(table)
                .map_err(|error| error.to_string())
                .and_then(|table| check_table(&table))
                .map_err(|error| format!("{path}.precompiled_charsmap: {error}"))
        }
        Some("Prepend") => one_character(&part["prepend"], &format!("{path}.prepend")),
        Some("Replace") => replace(part, path),
        _ => Ok(()),
    }
}

/// It never makes a text longer.
fn replace(part: &Value, path: &str) -> Result<(), String> {
    pattern(&part["pattern"], path, &REPLACED)?;
    one_character(&part["content"], &format!("{path}.content"))
}

fn pre_tokenizer(part: &Value, path: &str, left: &mut usize) -> Result<(), String> {
    const ACCEPTED: [&str; 6] =
        ["Sequence", "Metaspace", "WhitespaceSplit", "Whitespace", "ByteLevel", "Split"];
    match kind(part, path, left, &ACCEPTED)? {
        Some("Sequence") => each(part, (path, "pretokenizers"), left, pre_tokenizer),
        Some("Split") => pattern(&part["pattern"], path, &SPLIT_AT),
        _ => Ok(()),
    }
}

/// The library does not look at a processor's type, so what any type has is checked.
fn processor(part: &Value, path: &str, left: &mut usize) -> Result<(), String> {
    const ACCEPTED: [&str; 5] =
        ["Sequence", "TemplateProcessing", "RobertaProcessing", "BertProcessing", "ByteLevel"];
    if kind(part, path, left, &ACCEPTED)?.is_none() {
        return Ok(());
    }
    let short = |value: &Value, path: String| match value {
        Value::Null => Ok(()),
        Value::Array(pieces) if pieces.len() <= MOST_PIECES => Ok(()),
        _ => Err(format!("{path} is too long; accepted: a list of at most {MOST_PIECES}")),
    };
    for key in ["single", "pair"] {
        short(&part[key], format!("{path}.{key}"))?;
    }
    // The library looks up what a template names without a check.
    for (key, sequences) in [("single", &["A"][..]), ("pair", &["A", "B"])] {
        let mut seen = Vec::new();
        for piece in part[key].as_array().into_iter().flatten() {
            let sequence = piece["Sequence"]["id"].as_str();
            // The library cuts a text as if it stood there once.
            if let Some(twice) = sequence.filter(|id| seen.contains(id)) {
                return Err(format!(
                    "{path}.{key} has the sequence {} twice; accepted: each once",
                    named(twice)
                ));
            }
            seen.extend(sequence);
            if let Some(other) = sequence.filter(|id| !sequences.contains(id)) {
                return Err(format!(
                    "{path}.{key} has the sequence {}; accepted: {}",
                    named(other),
                    sequences.join(" and ")
                ));
            }
            let token = piece["SpecialToken"]["id"].as_str();
            if let Some(token) = token.filter(|id| !part["special_tokens"][id].is_object()) {
                return Err(format!(
                    "{path}.{key} has the token {}; accepted: those of special_tokens",
                    named(token)
                ));
            }
        }
    }
    for (token, of) in part["special_tokens"].as_object().into_iter().flatten() {
        for key in ["ids", "tokens"] {
            short(&of[key], format!("{path}.special_tokens[{}].{key}", named(token)))?;
        }
    }
    each(part, (path, "processors"), left, processor)
}

/// Texts are never decoded, but the library builds the decoder.
fn decoder(part: &Value, path: &str, left: &mut usize) -> Result<(), String> {
    const ACCEPTED: [&str; 8] = [
        "Sequence",
        "Metaspace",
        "ByteLevel",
        "BPEDecoder",
        "ByteFallback",
        "Fuse",
        "Strip",
        "Replace",
    ];
    match kind(part, path, left, &ACCEPTED)? {
        Some("Sequence") => each(part, (path, "decoders"), left, decoder),
        Some("Replace") => replace(part, path),
        _ => Ok(()),
    }
}

/// A text to look for, or one of the patterns that are known to be quick.
fn pattern(pattern: &Value, path: &str, accepted: &[&str]) -> Result<(), String> {
    if pattern["String"].as_str().is_some_and(|text| !text.is_empty())
        || pattern["Regex"].as_str().is_some_and(|regex| accepted.contains(&regex))
    {
        return Ok(());
    }
    let accepted: Vec<_> = accepted.iter().map(|regex| format!("{regex:?}")).collect();
    Err(format!(
        "{path}.pattern is {}; accepted: a String that is not empty, or a Regex of T5 or CLIP ({})",
        named(&pattern.to_string()),
        accepted.join(", ")
    ))
}

fn one_character(content: &Value, path: &str) -> Result<(), String> {
    match content.as_str() {
        Some(text) if text.chars().count() <= 1 => Ok(()),
        _ => Err(format!(
            "{path} is {}; accepted: at most one character",
            named(&content.to_string())
        )),
    }
}

fn model(model: &Value) -> Result<(), String> {
    let given = model["type"].as_str();
    // Old files do not name the type.
    let kind = given.unwrap_or(if model["vocab"].is_array() { "Unigram" } else { "BPE" });
    match kind {
        "Unigram" | "WordLevel" => Ok(()),
        "BPE" => bpe(model),
        _ => Err(format!(
            "model.type is {}; accepted, as in tokenizers of T5 and CLIP: Unigram, BPE, WordLevel",
            named(kind)
        )),
    }
}

/// The library panics where a merge makes no piece of the vocabulary, and where pieces have a
/// prefix. With a dropout the same text has different ids each time.
fn bpe(model: &Value) -> Result<(), String> {
    for key in ["continuing_subword_prefix", "dropout"] {
        let value = &model[key];
        let is_nothing =
            value.is_null() || value.as_str() == Some("") || value.as_f64() == Some(0.0);
        if !is_nothing {
            return Err(format!("model.{key} is {}; accepted: nothing", named(&value.to_string())));
        }
    }
    let pair = |merge: &Value| match merge {
        Value::String(text) => text.split_once(' ').map(|(a, b)| format!("{a}{b}")),
        Value::Array(parts) => match parts.as_slice() {
            [Value::String(a), Value::String(b)] => Some(format!("{a}{b}")),
            _ => None,
        },
        _ => None,
    };
    for (position, merge) in model["merges"].as_array().into_iter().flatten().enumerate() {
        if merge.as_str().is_some_and(|line| line.starts_with("#version")) {
            continue;
        }
        if !pair(merge).is_some_and(|merged| model["vocab"][merged.as_str()].is_number()) {
            return Err(format!(
                "model.merges[{position}] is {}; accepted: two pieces that together are in model.vocab",
                named(&merge.to_string())
            ));
        }
    }
    Ok(())
}

/// How many parts of this type there are, at any depth.
fn count(part: &Value, kind: &str) -> usize {
    let inner = part["normalizers"].as_array().into_iter().flatten();
    usize::from(part["type"].as_str() == Some(kind))
        + inner.map(|part| count(part, kind)).sum::<usize>()
}

/// A text of the file as an error shows it: quoted, and not longer than a line.
fn named(text: &str) -> String {
    const MOST: usize = 80;
    let shown: String = text.chars().take(MOST).collect();
    let more = if shown.len() < text.len() { "…" } else { "" };
    format!("{:?}", format!("{shown}{more}"))
}
