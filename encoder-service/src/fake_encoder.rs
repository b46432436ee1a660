//! A fake encoder: deterministic embeddings from a digest of the text.

use darkroom_artifacts::tensor::FloatTensor;
use darkroom_core::digest::Digest;

use crate::encoder::{EncodeError, Encoded, Encoder};

/// Width of its embeddings.
const WIDTH: usize = 8;

/// Makes embeddings without a model. A token is a word. Words that start with `blorp` are unknown
/// to it, and the text `poison` fails.
#[derive(Clone, Debug)]
pub struct FakeEncoder {
    max_length: usize,
}

impl FakeEncoder {
    /// Pads and cuts every text to `max_length` tokens.
    #[must_use]
    pub fn new(max_length: usize) -> Self {
        Self { max_length: max_length.max(1) }
    }
}

impl Encoder for FakeEncoder {
    fn encode(&mut self, texts: &[&str]) -> Result<Vec<Encoded>, EncodeError> {
        if texts.contains(&"poison") {
            let message = "ordered by the test".to_owned();
            return Err(EncodeError::Failed { code: "fake".into(), message });
        }
        Ok(texts.iter().map(|text| self.encode_one(text)).collect())
    }

    fn device(&self) -> String {
        "fake".to_owned()
    }

    fn device_class(&self) -> String {
        "fake".to_owned()
    }
}

impl FakeEncoder {
    fn encode_one(&self, text: &str) -> Encoded {
        let words: Vec<&str> = text.split_whitespace().collect();
        let all = words.len() + 1;
        let Digest(bytes) = Digest::of(text.as_bytes());
        let value = |i: usize| f32::from(bytes[i % 32]) / 128.0 - 1.0;
        let unknown = words.iter().filter(|word| word.starts_with("blorp"));
        Encoded {
            embedding: FloatTensor {
                shape: vec![self.max_length, WIDTH],
                data: (0..self.max_length * WIDTH).map(value).collect(),
            },
            tokens: all.min(self.max_length),
            truncated_tokens: all.saturating_sub(self.max_length),
            unknown_words: unknown.map(|word| (*word).to_owned()).collect(),
        }
    }
}
