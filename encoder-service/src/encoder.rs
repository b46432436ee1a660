//! The trait of encoders. It contains no machine learning, so the service can run on a fake.

use darkroom_artifacts::tensor::FloatTensor;
use darkroom_core::failure_code::FailureCode;

/// One text's embedding, and what the tokenizer did to the text.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoded {
    /// Last hidden state, `[length, width]`, padding rows included.
    pub embedding: FloatTensor,
    /// Positions that are real tokens, the end token included.
    pub tokens: usize,
    /// Tokens that were cut off.
    pub truncated_tokens: usize,
    /// Words with a part that is not in the vocabulary.
    pub unknown_words: Vec<String>,
}

/// Why texts could not be encoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// Too many texts at once for the device.
    #[error("out of memory")]
    OutOfMemory,
    /// At least one of the texts cannot be encoded.
    #[error("{message}")]
    Failed {
        /// Why, in one word.
        code: FailureCode,
        /// One sentence, without the text.
        message: String,
    },
    /// The service is shutting down.
    #[error("the encoder is shutting down")]
    Closed,
}

/// A text encoder in memory. Owned by one thread.
pub trait Encoder: 'static {
    /// Encodes prepared texts, in order. A text's embedding depends only on the text and the class
    /// of device.
    ///
    /// # Errors
    /// An error of the whole call.
    fn encode(&mut self, texts: &[&str]) -> Result<Vec<Encoded>, EncodeError>;

    /// Device, for people.
    fn device(&self) -> String;

    /// Class of device: devices of one class make the same bytes.
    fn device_class(&self) -> String;
}
