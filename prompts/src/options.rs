//! How a file is to be read.

use crate::Format;

/// How a file is to be read. The default leaves everything to the file.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The format, whatever name and content suggest.
    pub format: Option<Format>,
    /// The column of a table, or the key of JSON objects, that holds the prompt.
    pub column: Option<String>,
    /// Keep unknown keys of JSON objects as labels instead of refusing them.
    pub labels: bool,
    /// Skip lines that begin with `#`.
    pub comments: bool,
    /// Take a part of COCO captions.
    pub sample: Sample,
    /// Bounds.
    pub limits: Limits,
}

/// A choice among COCO captions: always the same one for the same annotations, seed and numbers, however the file
/// orders them. What is chosen comes in the file's order.
///
/// Images are ranked by the SHA-256 of "sample/image/1", the seed (8 bytes, little-endian) and the image id, and captions by that
/// of "sample/caption/1", the seed, the image id and the annotation id; ids as text, and before each of these parts its length
/// in 8 bytes, little-endian. With `per_image`, the first so many captions of each image are taken, image by image along
/// the ranks, until there are `prompts`. Without it every caption ranks by itself. A larger sample contains the smaller ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// How many prompts, 1 to 1,000,000; all when absent.
    pub prompts: Option<u64>,
    /// At most so many captions of an image, at least 1; all when absent.
    pub per_image: Option<u64>,
    /// Another seed, another sample.
    pub seed: u64,
}

/// Bounds of what is read.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes, after decompression.
    pub bytes: u64,
    /// Prompts.
    pub prompts: u64,
    /// Bytes of one line, one record of a table or one JSON element.
    pub record: usize,
}

impl Default for Limits {
    /// 2 GiB, ten million prompts (a job's most images), and 1 MiB a record.
    fn default() -> Self {
        Self { bytes: 2 << 30, prompts: 10_000_000, record: 1 << 20 }
    }
}
