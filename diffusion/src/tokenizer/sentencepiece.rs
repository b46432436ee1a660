//! SentencePiece models (`spiece.model`), which T5 checkpoints were first published with.
//!
//! The file is a protocol buffer; of its fields only the pieces with their scores, the unknown piece and the table of
//! character normalisations matter to a unigram model. From them comes the same tokenizer that transformers makes.

use serde_json::json;
use tokenizers::Tokenizer;
use tokenizers::normalizers::Precompiled;

/// What is read of a model file.
#[derive(Debug, Default)]
struct Model {
    pieces: Vec<(String, f32)>,
    unknown: u64,
    unigram: bool,
    charsmap: Vec<u8>,
}

/// Builds a T5 tokenizer, without padding or truncation, from a model file's bytes.
pub(super) fn tokenizer(bytes: &[u8]) -> Result<Tokenizer, String> {
    let model = parse(bytes).ok_or("not a SentencePiece model")?;
    if !model.unigram {
        return Err("its model is not a unigram model, which T5 has".to_owned());
    }
    let end = model.pieces.iter().position(|(piece, _)| piece == "</s>").ok_or("it has no piece `</s>`")?;
    if model.unknown as usize >= model.pieces.len() {
        return Err("its unknown piece is not among its pieces".to_owned());
    }
    let definition = json!({
        "version": "1.0",
        "added_tokens": [],
        "normalizer": null,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "WhitespaceSplit"},
            {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true},
        ]},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {"</s>": {"id": "</s>", "ids": [end], "tokens": ["</s>"]}},
        },
        "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true},
        "model": {"type": "Unigram", "unk_id": model.unknown, "vocab": model.pieces, "byte_fallback": false},
    });
    let mut tokenizer: Tokenizer = serde_json::from_value(definition).map_err(|error| error.to_string())?;
    if !model.charsmap.is_empty() {
        let normalizer = Precompiled::from(&model.charsmap).map_err(|error| error.to_string())?;
        tokenizer.with_normalizer(Some(normalizer)).map_err(|error| error.to_string())?;
    }
    Ok(tokenizer)
}

/// `ModelProto`: pieces (1), trainer_spec (2), normalizer_spec (3).
fn parse(bytes: &[u8]) -> Option<Model> {
    const UNIGRAM: u64 = 1;
    // The defaults of the fields that a writer may leave out.
    let mut model = Model { unigram: true, ..Model::default() };
    for field in fields(bytes) {
        match field? {
            (1, Value::Bytes(piece)) => {
                let (mut text, mut score) = (String::new(), 0.0);
                for field in fields(piece) {
                    match field? {
                        (1, Value::Bytes(bytes)) => text = String::from_utf8(bytes.to_vec()).ok()?,
                        (2, Value::Fixed32(bits)) => score = f32::from_bits(bits),
                        _ => {}
                    }
                }
                model.pieces.push((text, score));
            }
            (2, Value::Bytes(trainer)) => {
                for field in fields(trainer) {
                    match field? {
                        (3, Value::Varint(kind)) => model.unigram = kind == UNIGRAM,
                        (40, Value::Varint(id)) => model.unknown = id,
                        _ => {}
                    }
                }
            }
            (3, Value::Bytes(normalizer)) => {
                for field in fields(normalizer) {
                    if let (2, Value::Bytes(charsmap)) = field? {
                        model.charsmap = charsmap.to_vec();
                    }
                }
            }
            _ => {}
        }
    }
    (!model.pieces.is_empty()).then_some(model)
}

/// One field's value on the wire.
enum Value<'a> {
    Varint(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
    Other,
}

/// Numbers and values of a message's fields; `None` where the bytes are not a message.
fn fields(mut bytes: &[u8]) -> impl Iterator<Item = Option<(u64, Value<'_>)>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let field = field(&mut bytes);
        if field.is_none() {
            bytes = &[];
        }
        Some(field)
    })
}

fn field<'a>(bytes: &mut &'a [u8]) -> Option<(u64, Value<'a>)> {
    let tag = varint(bytes)?;
    let value = match tag & 7 {
        0 => Value::Varint(varint(bytes)?),
        1 => {
            take(bytes, 8)?;
            Value::Other
        }
        2 => {
            let length = usize::try_from(varint(bytes)?).ok()?;
            Value::Bytes(take(bytes, length)?)
        }
        5 => Value::Fixed32(u32::from_le_bytes(take(bytes, 4)?.try_into().ok()?)),
        _ => return None,
    };
    Some((tag >> 3, value))
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = *take(bytes, 1)?.first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Tokenizer;
    use super::*;

    fn fixture() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/spiece")
    }

    #[test]
    fn texts_become_the_ids_that_sentencepiece_gives() {
        let expected: serde_json::Value =
            serde_json::from_slice(&std::fs::read(fixture().join("expected.json")).unwrap()).unwrap();
        let length = expected["length"].as_u64().unwrap() as usize;
        let tokenizer = Tokenizer::load(&fixture(), Some(length), 0).unwrap();
        for row in expected["rows"].as_array().unwrap() {
            let text = row["text"].as_str().unwrap();
            let tokens = tokenizer.encode(text).unwrap();
            assert_eq!(json!(tokens.ids), row["ids"], "{text:?}");
            assert_eq!(json!(tokens.mask), row["mask"], "{text:?}");
        }
        assert_eq!(tokenizer.encode("狗 rides").unwrap().unknown_words, ["狗"]);
    }

    #[test]
    fn other_bytes_are_refused_without_a_panic() {
        let whole = std::fs::read(fixture().join("spiece.model")).unwrap();
        for length in [0, 1, 5, 100, 1000] {
            let _ = tokenizer(&whole[..length]);
        }
        assert!(tokenizer(b"").is_err() && tokenizer(b"{\"version\": 1}").is_err());
    }
}
