//! Texts to embeddings, directly.

use super::Bytes;

super::requests! {
    /// Texts to encode.
    EncodeRequest {
        texts: Vec<String>,
        encoder_digest: String,
    }
}

super::answers! {
    /// Their embeddings.
    EncodeResponse {
        embeddings: Vec<Embedding>,
        encoder_digest: String,
    }

    /// An embedding.
    Embedding {
        data: Bytes,
        tokens: u32,
        width: u32,
        truncated_tokens: u32,
        unknown_words: Vec<String>,
    }
}
