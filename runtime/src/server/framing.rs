//! How a request's body is taken apart, and how much memory its bytes take once they are decoded:
//! messages of gRPC behind their lengths, or texts of HTTP.

/// A message up to this size is free.
const FREE: usize = 4 << 10;
/// Memory of a decoded message, as a multiple of its bytes: small elements grow when they are
/// decoded. Messages that hold only the smallest labels take more, but their number is limited.
const DECODED: usize = 8;
/// The bytes of gathered streams are counted in steps of this size.
pub(super) const STEP: usize = 64 << 10;
/// Highest compression: each byte of deflate or zstd becomes at most this many bytes.
const GZIP: usize = 1032;
const ZSTD: usize = 1 << 15;
/// gRPC's frame before each message: a flag and a length.
const PREFIX: usize = 5;

/// What a body consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Messages of gRPC, each behind its length.
    Messages,
    /// One text, which is decoded as a whole.
    Text,
    /// A text of any length, which is decoded bit by bit.
    Texts,
}

/// The position within the messages of a body.
pub(super) struct Framing {
    pub(super) kind: Kind,
    /// How many bytes of a message's prefix have arrived.
    prefix: Vec<u8>,
    /// Length of the message, and whether it is compressed.
    message: Option<(usize, bool)>,
    /// Bytes of the message that are missing; of a text, the bytes so far; of a text of any length,
    /// those of the present step.
    left: usize,
    /// Messages begun.
    pub(super) begun: u64,
    /// Length of a message that is larger than the limit.
    pub(super) too_large: Option<usize>,
    /// Largest message or text.
    pub(super) largest: usize,
    /// Each byte of a compressed message becomes at most this many bytes.
    expands: usize,
}

impl Framing {
    /// The beginning of a body. `zstd`: its messages are compressed so, if they are.
    pub(super) fn new(kind: Kind, largest: usize, zstd: bool) -> Self {
        Self {
            kind,
            prefix: Vec::with_capacity(PREFIX),
            message: None,
            left: 0,
            begun: 0,
            too_large: None,
            largest,
            expands: if zstd { ZSTD } else { GZIP },
        }
    }

    /// Whether a message has begun that is not there yet.
    pub(super) fn unfinished(&self) -> bool {
        match self.kind {
            Kind::Messages => self.left > 0 || !self.prefix.is_empty(),
            Kind::Text => true,
            Kind::Texts => false,
        }
    }

    /// Reads `bytes`, and returns how much memory they take once they are decoded.
    pub(super) fn follow(&mut self, bytes: &[u8]) -> usize {
        match self.kind {
            Kind::Messages => self.follow_messages(bytes),
            Kind::Text => self.follow_text(bytes.len()),
            Kind::Texts => self.follow_texts(bytes.len()),
        }
    }

    /// Bytes of one text. They count once it is no longer small. A text that is too large is
    /// refused by its handler, and not gathered.
    fn follow_text(&mut self, bytes: usize) -> usize {
        let before = self.left;
        self.begun = 1;
        self.left = before.saturating_add(bytes);
        let counted = |length: usize| if length > FREE { length.min(self.largest) } else { 0 };
        (counted(self.left) - counted(before)) * DECODED
    }

    /// Bytes of a text of any length: every step of it counts as a message.
    fn follow_texts(&mut self, bytes: usize) -> usize {
        let whole = self.left.saturating_add(bytes);
        let steps = whole / STEP;
        self.left = whole % STEP;
        self.begun += steps as u64;
        steps * STEP * DECODED
    }

    fn follow_messages(&mut self, mut bytes: &[u8]) -> usize {
        let mut takes: usize = 0;
        while !bytes.is_empty() {
            if self.left == 0 {
                let (prefix, rest) = bytes.split_at(bytes.len().min(PREFIX - self.prefix.len()));
                self.prefix.extend_from_slice(prefix);
                bytes = rest;
                let [flag, length @ ..] = self.prefix.as_slice() else { continue };
                let Ok(length) = <[u8; 4]>::try_from(length) else { continue };
                let length = u32::from_be_bytes(length) as usize;
                let compressed = *flag != 0;
                self.prefix.clear();
                self.begun += 1;
                self.left = length;
                self.too_large = Some(length).filter(|length| *length > self.largest);
                self.message = Some((length, compressed));
                continue;
            }
            let (part, rest) = bytes.split_at(bytes.len().min(self.left));
            self.left -= part.len();
            bytes = rest;
            let Some((length, compressed)) = self.message else { continue };
            // A message that is too large is refused by its length alone, and not gathered.
            if length > self.largest || (length <= FREE && !compressed) {
                continue;
            }
            takes += part.len();
            if self.left == 0 {
                takes += if compressed {
                    length.saturating_mul(self.expands).min(self.largest) * DECODED
                } else {
                    length * (DECODED - 1)
                };
            }
        }
        takes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framing(zstd: bool) -> Framing {
        Framing::new(Kind::Messages, 4 << 20, zstd)
    }

    fn message(compressed: bool, length: u32, there: usize) -> Vec<u8> {
        let mut bytes = vec![u8::from(compressed)];
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.resize(bytes.len() + there, 0);
        bytes
    }

    #[test]
    fn bytes_count_once_they_are_there_however_they_are_cut() {
        let whole = [message(false, 100_000, 100_000), message(false, 10, 10)].concat();
        for piece in [1, 4, 5, 7, 16_384, whole.len()] {
            let mut framing = framing(false);
            let takes: usize = whole.chunks(piece).map(|piece| framing.follow(piece)).sum();
            assert_eq!((takes, framing.begun), (100_000 * DECODED, 2), "pieces of {piece}");
            assert!(!framing.unfinished());
        }
        let mut half = framing(false);
        assert_eq!(half.follow(&message(false, 4 << 20, 0)), 0, "a length alone takes no memory");
        assert!(half.unfinished());
        assert_eq!(half.follow(&[0; 1000]), 1000);
    }

    #[test]
    fn a_text_counts_as_what_it_becomes_and_a_long_one_only_by_its_steps() {
        let with = |kind| Framing { kind, ..framing(false) };
        let mut text = with(Kind::Text);
        assert_eq!(text.follow(&[b'x'; FREE]), 0, "small");
        assert_eq!(text.follow(b"x"), (FREE + 1) * DECODED, "and no longer small");
        assert_eq!(text.follow(&[b'x'; 1000]), 1000 * DECODED);
        let takes: usize = (0..8).map(|_| text.follow(&vec![b'x'; 1 << 20])).sum();
        assert_eq!(takes, (text.largest - FREE - 1001) * DECODED, "too large, so not gathered");
        let mut texts = with(Kind::Texts);
        assert_eq!(texts.follow(&[b'x'; STEP - 1]), 0);
        assert_eq!((texts.follow(b"x"), texts.begun), (STEP * DECODED, 1));
        assert_eq!((texts.follow(&[b'x'; 2 * STEP + 5]), texts.begun), (2 * STEP * DECODED, 3));
        assert!(!texts.unfinished(), "it may rest");
    }

    #[test]
    fn small_messages_are_free_and_too_large_ones_are_left_to_be_refused() {
        let mut framing = framing(false);
        assert_eq!(framing.follow(&message(false, 4096, 4096)), 0);
        assert_eq!(framing.follow(&message(false, 0, 0)), 0);
        assert_eq!(framing.follow(&message(false, (4 << 20) + 1, 5000)), 0);
    }

    #[test]
    fn a_compressed_message_counts_as_what_it_may_become() {
        let mut gzip = framing(false);
        assert_eq!(gzip.follow(&message(true, 100, 100)), 100 + 100 * GZIP * DECODED);
        assert_eq!(gzip.follow(&message(true, 1 << 20, 1 << 20)), (1 << 20) + (4 << 20) * DECODED);
        let mut zstd = framing(true);
        assert_eq!(zstd.follow(&message(true, 1000, 1000)), 1000 + (4 << 20) * DECODED);
    }
}
