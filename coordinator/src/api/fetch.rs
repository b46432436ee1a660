//! A picture's bytes, verified, in chunks.

use std::pin::Pin;

use bytes::Bytes;
use darkroom_core::{
    error::{Code, UserError},
    image_state::ImageState,
};
use darkroom_proto::v1;
use tokio_stream::Stream;
use tonic::Status;

use super::{Farm, job_id, refused};
use crate::service::Error;

/// Bytes of one chunk.
const CHUNK: usize = 64 << 10;

/// The chunks of a picture.
pub(crate) type ChunkStream = Pin<Box<dyn Stream<Item = Result<v1::FetchImageChunk, Status>> + Send>>;

impl Farm {
    pub(super) async fn fetch(&self, request: v1::FetchImageRequest) -> Result<ChunkStream, Error> {
        let image = self.shared.store.image(job_id("job_id", &request.job_id)?, request.index).await?;
        let state = image.progress.state;
        let output = image.outputs.last().filter(|_| state == ImageState::Done).ok_or_else(|| {
            refused(UserError::new(
                Code::FailedPrecondition,
                "IMAGE_NOT_DONE",
                format!("image {} is {state}; accepted: an image that is done", request.index),
            ))
        })?;
        let artifact = output.artifact.clone();
        if request.offset > artifact.size {
            return Err(refused(UserError::invalid(
                "offset",
                format!("offset is {}; accepted: 0 to {}", request.offset, artifact.size),
            )));
        }
        let picture = self.shared.artifacts.get(&artifact).await?;
        let offset = usize::try_from(request.offset).unwrap_or(usize::MAX).min(picture.len());
        let chunks = chunks(&picture.slice(offset..));
        let first = |position: usize| position == 0;
        let messages = chunks.into_iter().enumerate().map(move |(position, data)| {
            Ok(v1::FetchImageChunk {
                data: data.to_vec(),
                total_bytes: if first(position) { artifact.size } else { 0 },
                sha256: if first(position) { artifact.sha256.to_string() } else { String::new() },
            })
        });
        Ok(Box::pin(tokio_stream::iter(messages)))
    }
}

/// At least one chunk, so that size and hash are always told.
fn chunks(bytes: &Bytes) -> Vec<Bytes> {
    let mut chunks: Vec<Bytes> =
        (0..bytes.len()).step_by(CHUNK).map(|at| bytes.slice(at..bytes.len().min(at + CHUNK))).collect();
    if chunks.is_empty() {
        chunks.push(Bytes::new());
    }
    chunks
}
