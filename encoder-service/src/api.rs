//! gRPC `Encoder.Encode`: embeddings for clients that want them directly.

use darkroom_core::{
    digest::Digest,
    error::{Code, UserError},
    prompt::{self, TextPreparation},
};
use darkroom_proto::{
    status::to_status,
    v1::{Embedding, EncodeRequest, EncodeResponse, encoder_server},
};
use tonic::{Request, Response, Status};

use crate::{
    encoder::{EncodeError, Encoded},
    thread::Encoders,
};

/// Most texts per request.
pub const MAX_TEXTS: usize = 256;
/// Texts of a request that are encoded at a time: about as many as the host handles in parallel.
const AT_ONCE: usize = 4;
/// Most bytes of embeddings in one response.
pub const MAX_RESPONSE_BYTES: usize = 64 << 20;

/// The service; clones share the encoders.
#[derive(Clone, Debug)]
pub struct EncoderApi {
    encoders: Encoders,
    preparations: Vec<TextPreparation>,
}

impl EncoderApi {
    pub(crate) fn new(encoders: Encoders, preparations: Vec<TextPreparation>) -> Self {
        Self { encoders, preparations }
    }

    /// Position of the requested encoder; the first if none is named.
    fn position(&self, digest: &str) -> Result<usize, UserError> {
        if digest.is_empty() {
            return Ok(0);
        }
        let wanted: Digest = digest.parse().map_err(|error: UserError| {
            UserError::invalid("encoder_digest", format!("encoder_{error}"))
        })?;
        let digests = self.encoders.digests();
        digests.iter().position(|found| *found == wanted).ok_or_else(|| {
            let served: Vec<_> = digests.iter().map(ToString::to_string).collect();
            UserError {
                field: Some("encoder_digest".to_owned()),
                ..UserError::new(
                    Code::FailedPrecondition,
                    "OTHER_ENCODER",
                    format!("encoder_digest is {wanted}; this service has {}", served.join(", ")),
                )
            }
        })
    }

    async fn answer(&self, request: EncodeRequest) -> Result<EncodeResponse, UserError> {
        check(&request.texts)?;
        let position = self.position(&request.encoder_digest)?;
        let preparation = self.preparations.get(position).copied().unwrap_or_default();
        // Not on the threads that answer calls, because cleaning many long texts takes a while.
        let prepared = tokio::task::spawn_blocking(move || prepare(preparation, &request.texts));
        let texts = prepared
            .await
            .map_err(|error| UserError::new(Code::Internal, "INTERNAL", error.to_string()))??;
        let mut embeddings = Vec::with_capacity(texts.len());
        let mut bytes = 0;
        // A few at a time, so that a large request does not block the farm's own texts.
        for texts in texts.chunks(AT_ONCE) {
            let encoded = self
                .encoders
                .encode(position, texts.to_vec())
                .await
                .map_err(|error| failed(&error))?;
            embeddings.extend(encoded.into_iter().map(to_embedding));
            bytes = embeddings.iter().map(|embedding: &Embedding| embedding.data.len()).sum();
            if bytes > MAX_RESPONSE_BYTES {
                break;
            }
        }
        if bytes > MAX_RESPONSE_BYTES {
            // All embeddings have the same size.
            let fit = MAX_RESPONSE_BYTES * embeddings.len() / bytes;
            let message = format!(
                "texts has {} entries, more than a response holds; accepted: 1 to {fit}",
                texts.len()
            );
            return Err(UserError::invalid("texts", message));
        }
        let digest =
            self.encoders.digests().get(position).map(ToString::to_string).unwrap_or_default();
        Ok(EncodeResponse { embeddings, encoder_digest: digest })
    }
}

fn check(texts: &[String]) -> Result<(), UserError> {
    if texts.is_empty() || texts.len() > MAX_TEXTS {
        let message = format!("texts has {} entries; accepted: 1 to {MAX_TEXTS}", texts.len());
        return Err(UserError::invalid("texts", message));
    }
    texts
        .iter()
        .enumerate()
        .try_for_each(|(i, text)| prompt::check_text(&format!("texts[{i}]"), text))
}

fn prepare(preparation: TextPreparation, texts: &[String]) -> Result<Vec<String>, UserError> {
    let texts = texts.iter().enumerate();
    texts.map(|(i, text)| preparation.prepare(&format!("texts[{i}]"), text)).collect()
}

fn to_embedding(encoded: Encoded) -> Embedding {
    let extent =
        |position: usize| encoded.embedding.shape.get(position).map_or(0, |extent| *extent as u32);
    Embedding {
        tokens: extent(0),
        width: extent(1),
        truncated_tokens: u32::try_from(encoded.truncated_tokens).unwrap_or(u32::MAX),
        data: encoded.embedding.data.iter().flat_map(|value| value.to_le_bytes()).collect(),
        unknown_words: encoded.unknown_words,
    }
}

fn failed(error: &EncodeError) -> UserError {
    match error {
        EncodeError::OutOfMemory => {
            UserError::new(Code::ResourceExhausted, "OUT_OF_MEMORY", "out of memory while encoding")
        }
        EncodeError::Failed { message, .. } => {
            UserError::new(Code::Internal, "ENCODING_FAILED", message.clone())
        }
        EncodeError::Closed => {
            UserError::new(Code::Unavailable, "SHUTTING_DOWN", error.to_string())
        }
    }
}

#[tonic::async_trait]
impl encoder_server::Encoder for EncoderApi {
    async fn encode(
        &self,
        request: Request<EncodeRequest>,
    ) -> Result<Response<EncodeResponse>, Status> {
        self.answer(request.into_inner())
            .await
            .map(Response::new)
            .map_err(|error| to_status(&error))
    }
}
