//! Why a picture cannot be written or read.

use darkroom_core::output::Format;

use crate::input;

/// Most bytes of a recipe in a JPEG or WebP, the line for people and the class of device left out
/// ([`recipe_bytes`](super::recipe_bytes)).
pub const MAX_RECIPE_BYTES: usize = 59_000;

/// Why a picture cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The tensor is not a picture.
    #[error("not a picture: {0}")]
    Shape(String),
    /// A value is NaN or an infinity.
    #[error("the picture holds values that are not finite")]
    NonFinite,
    /// A text cannot be read: its keyword, and the reason.
    #[error("the text {0} cannot be read: {1}")]
    Text(String, String),
    /// The text takes more bytes than the format has room for.
    #[error("the recipe has {bytes} bytes; accepted: at most {MAX_RECIPE_BYTES}")]
    LongRecipe {
        /// Without the line for people.
        bytes: usize,
    },
    /// The format refuses it.
    #[error("{0}: {1}")]
    Codec(Format, String),
    /// The file is not a supported picture.
    #[error("the file {0}")]
    File(#[from] input::Error),
}
