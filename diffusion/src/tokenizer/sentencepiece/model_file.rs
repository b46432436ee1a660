//! The protocol buffer `ModelProto` of a model file, as far as a unigram model needs it. Field
//! numbers and defaults are those of `sentencepiece_model.proto`; other fields are skipped.

use prost::Message;

use super::normalizer::NormalizerSpec;

/// The parts of a model file that are read.
#[derive(Debug)]
pub(super) struct ModelFile {
    pub(super) pieces: Vec<PieceRow>,
    pub(super) unigram: bool,
    pub(super) byte_fallback: bool,
    pub(super) normalizer: NormalizerSpec,
}

/// An entry of the vocabulary; its position is its id.
#[derive(Clone, Debug)]
pub(super) struct PieceRow {
    pub(super) text: String,
    /// Logarithm of its probability.
    pub(super) score: f32,
    pub(super) kind: Piece,
}

/// The kind of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Found by its score.
    Normal,
    /// Stands for text outside the vocabulary.
    Unknown,
    /// Begins, ends or fills a text, and is never found in a text.
    Control,
    /// Always kept whole.
    UserDefined,
    /// Exists, but is never used.
    Unused,
    /// One byte of text outside the vocabulary.
    Byte,
}

#[derive(Clone, PartialEq, Message)]
struct ModelProto {
    #[prost(message, repeated, tag = "1")]
    pieces: Vec<PieceProto>,
    #[prost(message, optional, tag = "2")]
    trainer: Option<TrainerProto>,
    #[prost(message, optional, tag = "3")]
    normalizer: Option<NormalizerProto>,
}

#[derive(Clone, PartialEq, Message)]
struct PieceProto {
    #[prost(string, optional, tag = "1")]
    piece: Option<String>,
    #[prost(float, optional, tag = "2")]
    score: Option<f32>,
    #[prost(int32, optional, tag = "3", default = "1")]
    kind: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct TrainerProto {
    /// 1 is the unigram model.
    #[prost(int32, optional, tag = "3", default = "1")]
    model_type: Option<i32>,
    #[prost(bool, optional, tag = "24")]
    treat_whitespace_as_suffix: Option<bool>,
    #[prost(bool, optional, tag = "35")]
    byte_fallback: Option<bool>,
}

#[derive(Clone, PartialEq, Message)]
struct NormalizerProto {
    #[prost(bytes = "vec", optional, tag = "2")]
    precompiled_charsmap: Option<Vec<u8>>,
    #[prost(bool, optional, tag = "3", default = "true")]
    add_dummy_prefix: Option<bool>,
    #[prost(bool, optional, tag = "4", default = "true")]
    remove_extra_whitespaces: Option<bool>,
    #[prost(bool, optional, tag = "5", default = "true")]
    escape_whitespaces: Option<bool>,
}

/// Parses a model file's bytes; `None` if they are not a model file.
pub(super) fn parse(bytes: &[u8]) -> Option<ModelFile> {
    const UNIGRAM: i32 = 1;
    let model = ModelProto::decode(bytes).ok()?;
    let (trainer, normalizer) =
        (model.trainer.unwrap_or_default(), model.normalizer.unwrap_or_default());
    let pieces = model.pieces.into_iter().map(piece).collect::<Option<Vec<_>>>()?;
    (!pieces.is_empty()).then(|| ModelFile {
        pieces,
        unigram: trainer.model_type() == UNIGRAM,
        byte_fallback: trainer.byte_fallback(),
        normalizer: NormalizerSpec {
            add_blank: normalizer.add_dummy_prefix(),
            blank_behind: trainer.treat_whitespace_as_suffix(),
            remove_extra_blanks: normalizer.remove_extra_whitespaces(),
            escape_blanks: normalizer.escape_whitespaces(),
            charsmap: normalizer.precompiled_charsmap.unwrap_or_default(),
        },
    })
}

fn piece(proto: PieceProto) -> Option<PieceRow> {
    let kind = match proto.kind() {
        1 => Piece::Normal,
        2 => Piece::Unknown,
        3 => Piece::Control,
        4 => Piece::UserDefined,
        5 => Piece::Unused,
        6 => Piece::Byte,
        _ => return None,
    };
    Some(PieceRow { score: proto.score(), kind, text: proto.piece.unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(pieces: Vec<PieceProto>) -> ModelProto {
        ModelProto { pieces, ..ModelProto::default() }
    }

    fn named(text: &str) -> PieceProto {
        PieceProto { piece: Some(text.to_owned()), ..PieceProto::default() }
    }

    #[test]
    fn what_a_writer_leaves_out_has_the_formats_defaults() {
        let model = parse(&file(vec![named("a")]).encode_to_vec()).unwrap();
        assert!(model.unigram && !model.byte_fallback);
        let spec = &model.normalizer;
        assert!(
            spec.add_blank && !spec.blank_behind && spec.remove_extra_blanks && spec.escape_blanks
        );
        let piece = &model.pieces[0];
        assert_eq!((piece.text.as_str(), piece.score, piece.kind), ("a", 0.0, Piece::Normal));
    }

    #[test]
    fn what_a_writer_says_counts() {
        let trainer = TrainerProto {
            model_type: Some(2),
            treat_whitespace_as_suffix: Some(true),
            byte_fallback: Some(true),
        };
        let normalizer = NormalizerProto {
            precompiled_charsmap: Some(vec![7]),
            add_dummy_prefix: Some(false),
            remove_extra_whitespaces: Some(false),
            escape_whitespaces: Some(false),
        };
        let whole = ModelProto {
            trainer: Some(trainer),
            normalizer: Some(normalizer),
            ..file(vec![PieceProto { score: Some(-1.5), kind: Some(6), ..named("<0x00>") }])
        };
        let model = parse(&whole.encode_to_vec()).unwrap();
        assert!(!model.unigram && model.byte_fallback && model.normalizer.blank_behind);
        let spec = &model.normalizer;
        assert!(!spec.add_blank && !spec.remove_extra_blanks && !spec.escape_blanks);
        assert_eq!(spec.charsmap, [7]);
        assert_eq!((model.pieces[0].score, model.pieces[0].kind), (-1.5, Piece::Byte));
    }

    #[test]
    fn no_pieces_or_one_of_an_unknown_kind_is_no_model() {
        assert!(parse(&file(Vec::new()).encode_to_vec()).is_none());
        assert!(
            parse(&file(vec![PieceProto { kind: Some(7), ..named("a") }]).encode_to_vec())
                .is_none()
        );
        let cut = file(vec![named("abc")]).encode_to_vec();
        assert!(parse(&cut[..cut.len() - 1]).is_none());
    }
}
