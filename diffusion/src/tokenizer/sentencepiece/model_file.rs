//! The protocol buffer `ModelProto` of a model file, as far as a unigram model needs it. Field numbers are those of
//! `sentencepiece_model.proto`.

use super::{normalizer::NormalizerSpec, unigram::Piece};

/// What is read of a model file.
#[derive(Debug, Default)]
pub(super) struct ModelFile {
    pub(super) pieces: Vec<PieceRow>,
    pub(super) unigram: bool,
    pub(super) byte_fallback: bool,
    pub(super) normalizer: NormalizerSpec,
}

/// An entry of the vocabulary; its place is its id.
#[derive(Clone, Debug)]
pub(super) struct PieceRow {
    pub(super) text: String,
    /// Logarithm of its probability.
    pub(super) score: f32,
    pub(super) kind: Piece,
}

/// `ModelProto`: pieces (1), trainer_spec (2), normalizer_spec (3).
pub(super) fn parse(bytes: &[u8]) -> Option<ModelFile> {
    const UNIGRAM: u64 = 1;
    // The defaults of the fields that a writer may leave out.
    let mut model = ModelFile { unigram: true, ..ModelFile::default() };
    for field in fields(bytes) {
        match field? {
            (1, Value::Bytes(bytes)) => model.pieces.push(piece(bytes)?),
            (2, Value::Bytes(trainer)) => {
                for field in fields(trainer) {
                    match field? {
                        (3, Value::Varint(kind)) => model.unigram = kind == UNIGRAM,
                        (24, Value::Varint(suffix)) => model.normalizer.blank_behind = suffix != 0,
                        (35, Value::Varint(fallback)) => model.byte_fallback = fallback != 0,
                        _ => {}
                    }
                }
            }
            (3, Value::Bytes(normalizer)) => {
                for field in fields(normalizer) {
                    match field? {
                        (2, Value::Bytes(charsmap)) => model.normalizer.charsmap = charsmap.to_vec(),
                        (3, Value::Varint(add)) => model.normalizer.add_blank = add != 0,
                        (4, Value::Varint(remove)) => model.normalizer.remove_extra_blanks = remove != 0,
                        (5, Value::Varint(escape)) => model.normalizer.escape_blanks = escape != 0,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    (!model.pieces.is_empty()).then_some(model)
}

/// `SentencePiece`: piece (1), score (2), type (3).
fn piece(bytes: &[u8]) -> Option<PieceRow> {
    let mut piece = PieceRow { text: String::new(), score: 0.0, kind: Piece::Normal };
    for field in fields(bytes) {
        match field? {
            (1, Value::Bytes(bytes)) => piece.text = String::from_utf8(bytes.to_vec()).ok()?,
            (2, Value::Fixed32(bits)) => piece.score = f32::from_bits(bits),
            (3, Value::Varint(kind)) => {
                piece.kind = match kind {
                    1 => Piece::Normal,
                    2 => Piece::Unknown,
                    3 => Piece::Control,
                    4 => Piece::UserDefined,
                    5 => Piece::Unused,
                    6 => Piece::Byte,
                    _ => return None,
                }
            }
            _ => {}
        }
    }
    Some(piece)
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
