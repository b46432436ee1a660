//! How to read a file.

use crate::Format;

/// How to read a file. By default the file decides everything.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The format. It overrides the name and the content.
    pub format: Option<Format>,
    /// The column of a table, or the key of JSON objects, that holds the prompt.
    pub column: Option<String>,
    /// Which other columns and keys become labels.
    pub labels: Labels,
    /// Skip lines that begin with `#`.
    pub comments: bool,
    /// Take only a part of COCO captions.
    pub sample: Sample,
    /// Limits.
    pub limits: Limits,
}

/// Which columns of a table, and which keys of JSON objects, become labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Labels {
    /// All other columns of a table. Unknown keys of JSON objects are refused.
    #[default]
    Columns,
    /// All other columns and keys.
    All,
    /// Only these, even if they have the name of a field. Other columns and unknown keys are
    /// dropped.
    Only(Vec<String>),
    /// None. Other columns and unknown keys are dropped.
    None,
}

impl Labels {
    /// Whether a column or key becomes a label, even if it has the name of a field.
    pub(crate) fn names(&self, name: &str) -> bool {
        matches!(self, Self::Only(names) if names.iter().any(|one| one == name))
    }
}

/// A choice of COCO captions. It is always the same for the same annotations, seed and numbers, in
/// whatever order the file lists them. The chosen captions come in the file's order.
///
/// Images are ranked by the SHA-256 of "sample/image/1", the seed (8 bytes, little-endian) and the
/// image id. Captions are ranked by the SHA-256 of "sample/caption/1", the seed, the image id and
/// the annotation id. Ids are hashed as text, and each of these parts is preceded by its length in
/// 8 bytes, little-endian. With `per_image`, the first captions of each image, at most that many,
/// are taken image by image in the order of the ranks, until there are `prompts`. Without it every
/// caption is ranked alone. A larger sample contains the smaller ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// How many prompts, 1 to 1,000,000; absent: all.
    pub prompts: Option<u64>,
    /// Most captions per image, at least 1; absent: all.
    pub per_image: Option<u64>,
    /// Another seed gives another sample.
    pub seed: u64,
}

/// Limits on what is read.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes, after decompression.
    pub bytes: u64,
    /// Prompts.
    pub prompts: u64,
    /// Most bytes of one line, one record of a table or one JSON element.
    pub record: usize,
}

impl Default for Limits {
    /// 2 GiB, ten million prompts (the most images of a job), and 1 MiB per record.
    fn default() -> Self {
        Self { bytes: 2 << 30, prompts: 10_000_000, record: 1 << 20 }
    }
}
