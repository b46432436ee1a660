//! Finds the most likely way to cut a text into pieces of a vocabulary: the path with the highest
//! sum of scores.
//!
//! Sums are rounded as in the reference (added in f64, stored as f32), and of equal sums the first
//! one found is kept. With other rounding, ties would be decided differently. The reference is
//! sentencepiece up to 0.2.1; 0.2.3 sums in f32 (docs/adr/0029-sentencepiece.md).

use std::collections::HashMap;

use super::model_file::{ModelFile, Piece};

/// How much lower than the lowest score the score of an unknown character is.
const UNKNOWN_PENALTY: f32 = 10.0;

/// A vocabulary that can be searched by prefix.
pub(super) struct Unigram {
    /// A trie: from (node, byte) to the next node.
    edges: HashMap<(u32, u8), u32>,
    /// The piece that ends at each node.
    ends: Vec<Option<u32>>,
    scores: Vec<Score>,
    unknown: u32,
    unknown_score: f32,
    /// Ids of the 256 bytes, if text outside the vocabulary falls back to bytes.
    bytes: Option<Vec<u32>>,
}

#[derive(Clone, Copy)]
enum Score {
    Fixed(f32),
    /// Score per byte of the piece.
    PerByte(f32),
    Never,
}

/// The best path to each byte.
#[derive(Clone, Copy)]
struct Best {
    score: f32,
    from: usize,
    id: u32,
}

impl Unigram {
    pub(super) fn new(model: &ModelFile) -> Result<Self, String> {
        if u32::try_from(model.pieces.len()).is_err() {
            return Err("it has too many pieces".to_owned());
        }
        let normal = || {
            model.pieces.iter().filter(|piece| piece.kind == Piece::Normal).map(|piece| piece.score)
        };
        if normal().any(f32::is_nan) {
            return Err("a score of it is not a number".to_owned());
        }
        let lowest = normal().fold(f32::MAX, f32::min);
        // Starts at the smallest positive number, as in the reference: scores are lower, and a
        // symbol costs almost nothing.
        let highest = normal().fold(f32::MIN_POSITIVE, f32::max);
        let mut unigram = Self {
            edges: HashMap::new(),
            ends: vec![None],
            scores: Vec::with_capacity(model.pieces.len()),
            unknown: 0,
            unknown_score: lowest - UNKNOWN_PENALTY,
            bytes: None,
        };
        let mut unknown = None;
        for (id, piece) in (0_u32..).zip(&model.pieces) {
            unigram.scores.push(match piece.kind {
                Piece::Normal => Score::Fixed(piece.score),
                Piece::UserDefined => Score::PerByte(highest),
                Piece::Unknown | Piece::Control | Piece::Unused | Piece::Byte => Score::Never,
            });
            match piece.kind {
                Piece::Unknown if unknown.is_some() => {
                    return Err("it has two unknown pieces".to_owned());
                }
                Piece::Unknown => unknown = Some(id),
                Piece::Normal | Piece::UserDefined | Piece::Unused => {
                    unigram.insert(piece.text.as_bytes(), id)?
                }
                Piece::Control | Piece::Byte => {}
            }
        }
        unigram.unknown = unknown.ok_or("it has no unknown piece")?;
        if model.byte_fallback {
            let ids: HashMap<&str, u32> =
                (0_u32..).zip(&model.pieces).map(|(id, piece)| (piece.text.as_str(), id)).collect();
            let byte = |byte: u8| ids.get(format!("<0x{byte:02X}>").as_str()).copied();
            let bytes: Option<Vec<u32>> = (0..=u8::MAX).map(byte).collect();
            unigram.bytes = Some(bytes.ok_or("it falls back to bytes, and has not all of them")?);
        }
        Ok(unigram)
    }

    pub(super) fn unknown(&self) -> u32 {
        self.unknown
    }

    pub(super) fn vocabulary(&self) -> usize {
        self.scores.len()
    }

    /// The pieces of a normalised text, each with its byte range. Neighbouring unknown pieces are
    /// joined.
    pub(super) fn best(&self, text: &str) -> Vec<(u32, (usize, usize))> {
        let mut path = self.path(text);
        path.reverse();
        let mut pieces: Vec<(u32, (usize, usize))> = Vec::with_capacity(path.len());
        for (id, (from, to)) in path {
            match (&self.bytes, pieces.last_mut()) {
                (Some(bytes), _) if id == self.unknown => {
                    let of = text.as_bytes().get(from..to).unwrap_or_default();
                    pieces.extend(of.iter().map(|byte| {
                        (bytes.get(usize::from(*byte)).copied().unwrap_or(self.unknown), (from, to))
                    }));
                }
                (None, Some((last, span))) if id == self.unknown && *last == id => span.1 = to,
                _ => pieces.push((id, (from, to))),
            }
        }
        pieces
    }

    /// The pieces of the best path, the last one first.
    fn path(&self, text: &str) -> Vec<(u32, (usize, usize))> {
        let bytes = text.as_bytes();
        let mut best: Vec<Option<Best>> = vec![None; bytes.len() + 1];
        for (from, character) in text.char_indices() {
            let length = character.len_utf8();
            let until = best[from].map_or(0.0, |best| best.score);
            let (mut node, mut alone) = (0, false);
            for (index, byte) in bytes[from..].iter().enumerate() {
                let Some(next) = self.edges.get(&(node, *byte)) else { break };
                node = *next;
                let Some(id) = self.ends[node as usize] else { continue };
                let score = match self.scores[id as usize] {
                    Score::Fixed(score) => f64::from(score),
                    Score::PerByte(score) => f64::from((index + 1) as f32 * score) - 0.1,
                    Score::Never => continue,
                };
                keep(&mut best[from + index + 1], score + f64::from(until), from, id);
                alone |= index + 1 == length;
            }
            if !alone {
                keep(
                    &mut best[from + length],
                    f64::from(self.unknown_score + until),
                    from,
                    self.unknown,
                );
            }
        }
        let mut path = Vec::new();
        let mut to = bytes.len();
        while to > 0
            && let Some(step) = best[to]
        {
            path.push((step.id, (step.from, to)));
            to = step.from;
        }
        path
    }

    fn insert(&mut self, piece: &[u8], id: u32) -> Result<(), String> {
        if piece.is_empty() {
            return Err(format!("its piece {id} is empty"));
        }
        let mut node = 0;
        for byte in piece {
            let next = u32::try_from(self.ends.len()).map_err(|_| "it has too many pieces")?;
            node = *self.edges.entry((node, *byte)).or_insert(next);
            if node == next {
                self.ends.push(None);
            }
        }
        match self.ends[node as usize].replace(id) {
            None => Ok(()),
            Some(other) => Err(format!("its pieces {other} and {id} are the same")),
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "stored as the reference stores it")]
fn keep(best: &mut Option<Best>, score: f64, from: usize, id: u32) {
    if best.is_none_or(|best| score > f64::from(best.score)) {
        *best = Some(Best { score: score as f32, from, id });
    }
}
