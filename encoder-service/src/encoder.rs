//! What encodes: a trait without any machine learning in it, so that the service can run on a fake.

use darkroom_artifacts::tensor::FloatTensor;

/// One text's embedding, and what the tokenizer did to the text.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoded {
    /// Last hidden state, `[length, width]`, padding rows included.
    pub embedding: FloatTensor,
    /// Positions that are real tokens, the end token included.
    pub tokens: usize,
    /// Tokens that did not fit.
    pub truncated_tokens: usize,
    /// Words of which some part is not in the vocabulary.
    pub unknown_words: Vec<String>,
}

/// Why texts could not be encoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// Too many texts at once for the device.
    #[error("out of memory")]
    OutOfMemory,
    /// The texts, or one of them, cannot be encoded.
    #[error("{message}")]
    Failed {
        /// Stable code.
        code: String,
        /// One sentence, without the text.
        message: String,
    },
    /// The service is shutting down.
    #[error("the encoder is shutting down")]
    Closed,
}

/// A text encoder in memory. Owned by one thread.
pub trait Encoder: 'static {
    /// Encodes prepared texts, in order. A text's embedding depends on it and the device class alone.
    ///
    /// # Errors
    /// A fault of the whole call.
    fn encode(&mut self, texts: &[&str]) -> Result<Vec<Encoded>, EncodeError>;

    /// Device, for people.
    fn device(&self) -> String;

    /// Class of device: same class, same bytes.
    fn device_class(&self) -> String;
}
